// The states of a move and what an operator may do in each. A move copies a tenant's rows while the tenant writes. It then
// copies what has changed since, round by round, until few changes are left. It copies these while the tenant's statements
// are paused, and puts the new placement in force.
import * as z from "zod";
import { Placement } from "../core/tenant/placement.ts";
import { type Strategy, strategies } from "../core/plans/plans.ts";

export const moveStates = ["preparing", "copying", "moved", "returning", "confirmed", "undone"] as const;
export type MoveState = (typeof moveStates)[number];

export const Move = z.object({
  id: z.int().positive(),
  tenantId: z.string(),
  state: z.enum(moveStates),
  strategy: z.enum(strategies),
  /** The requested shard. `null`: any shard of the strategy. */
  shardId: z.string().nullable(),
  from: Placement,
  /** `null` until a placement is reserved. */
  to: Placement.nullable(),
  cursor: z.object({ table: z.string(), key: z.record(z.string(), z.string()) }).nullable(),
  copied: z.boolean(),
  mark: z.string().nullable(),
  rowsCopied: z.int(),
  rounds: z.int(),
  attempt: z.int(),
  pauseMs: z.int().nullable(),
  error: z.string().nullable(),
});
export type Move = z.infer<typeof Move>;

/** The states in which an operator may confirm or undo a move. */
const allowed: Readonly<Record<"confirm" | "undo", readonly MoveState[]>> = {
  confirm: ["moved"],
  undo: ["preparing", "copying", "moved", "returning"],
};

export function mayBe(action: keyof typeof allowed, state: MoveState): boolean {
  return allowed[action].includes(state);
}

/** Where rows are copied from and to. Undoing a finished move copies in the opposite direction. */
export function direction(
  move: Pick<Move, "state" | "from" | "to">,
): { source: Placement; target: Placement } | undefined {
  if (move.to === null) return undefined;
  const back = move.state === "moved" || move.state === "returning";
  return back ? { source: move.to, target: move.from } : { source: move.from, target: move.to };
}

/** Changed rows that can be copied during the pause: one request for each table. */
const FEW_CHANGES = 200;
/** Upper bound on rounds. A tenant may change rows faster than a round copies them. */
const MAX_ROUNDS = 12;

/** Whether the remaining changes may be copied during the pause. */
export function nearEnough(changedRows: number, rounds: number): boolean {
  return changedRows <= FEW_CHANGES || rounds >= MAX_ROUNDS;
}

/** The move that brings a tenant to the strategy of its plan. `null` when it is there. */
export function proposedMove(tenant: {
  strategy: Strategy;
  placement: { strategy: Strategy } | null;
}): { from: Strategy; to: Strategy } | null {
  if (tenant.placement === null || tenant.placement.strategy === tenant.strategy) return null;
  return { from: tenant.placement.strategy, to: tenant.strategy };
}
