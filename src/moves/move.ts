// What a move of a live tenant is, and what may follow on what. The rows are copied while the tenant writes; then what
// changed meanwhile, until little is left; then, behind a shut gate, the rest; and then the new place is in force.
import * as z from "zod";
import { Placement } from "../core/placement.ts";
import { type Strategy, strategies } from "../core/plans.ts";

export const moveStates = ["preparing", "copying", "moved", "returning", "confirmed", "undone"] as const;
export type MoveState = (typeof moveStates)[number];

export const Move = z.object({
  id: z.int().positive(),
  tenantId: z.string(),
  state: z.enum(moveStates),
  strategy: z.enum(strategies),
  /** The shard that was asked for; `null`: any of the strategy. */
  shardId: z.string().nullable(),
  from: Placement,
  /** `null` until it is reserved. */
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

/** What an operator can ask of a move, and the states in which it makes sense. */
const allowed: Readonly<Record<"confirm" | "undo", readonly MoveState[]>> = {
  confirm: ["moved"],
  undo: ["preparing", "copying", "moved", "returning"],
};

export function mayBe(action: keyof typeof allowed, state: MoveState): boolean {
  return allowed[action].includes(state);
}

/** Where the rows go and come from now: a tenant that returns is copied the other way round. */
export function direction(
  move: Pick<Move, "state" | "from" | "to">,
): { source: Placement; target: Placement } | undefined {
  if (move.to === null) return undefined;
  const back = move.state === "moved" || move.state === "returning";
  return back ? { source: move.to, target: move.from } : { source: move.from, target: move.to };
}

/** Few enough changed rows to copy behind the gate: one request for each table. */
const FEW_CHANGES = 200;
/** A tenant that changes more between two rounds than a round can copy would be followed for ever. */
const MAX_ROUNDS = 12;

/** Whether the rest may be copied behind the gate. */
export function nearEnough(changedRows: number, rounds: number): boolean {
  return changedRows <= FEW_CHANGES || rounds >= MAX_ROUNDS;
}

/** The move that brings a tenant to what it was sold; `null` when it is there. */
export function proposedMove(tenant: {
  strategy: Strategy;
  placement: { strategy: Strategy } | null;
}): { from: Strategy; to: Strategy } | null {
  if (tenant.placement === null || tenant.placement.strategy === tenant.strategy) return null;
  return { from: tenant.placement.strategy, to: tenant.strategy };
}
