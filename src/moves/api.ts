// The operator's routes for moves of tenants: start, list, confirm, undo. A Workflow does the steps of a move.
import * as z from "zod";
import { placementsStore } from "../control/placements-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { errorCode } from "../core/errors.ts";
import { strategies } from "../core/plans/plans.ts";
import { type HttpContext, type NumberedPageQuery, Problem, numberedPageQuery, pageOf, tenantOf } from "../http.ts";
import { mayBe } from "./move.ts";
import { movesStore } from "./moves-store.ts";

export const MoveRequest = z.strictObject({
  strategy: z.enum(strategies),
  /** A certain shard of that strategy. Without it, any shard that has room. */
  shard: z.string().min(1).max(60).optional(),
});

/** Moves on a page. A tenant has a few. */
const MOVES = 50;
export const MovesQuery = numberedPageQuery(MOVES);

/** Neon removes no project while it creates or changes it. */
const STILL_AT_WORK =
  "Neon still works on the place that this removes, so nothing has ended yet. Send the request again in a minute.";

export async function startMove(
  c: HttpContext,
  { body: { strategy, shard } }: { body: z.infer<typeof MoveRequest> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  const { control } = c.get("context");
  if (shard !== undefined) {
    const known = (await placementsStore(control).shards(strategy)).map(({ id }) => id);
    if (!known.includes(shard))
      throw new Problem("not_found", `There is no ${strategy} shard ${shard}. Known: ${known.join(", ") || "none"}.`);
  }
  const open = await movesStore(control).live(tenantId);
  const here = (await tenantsStore(control).summary(tenantId))?.placement ?? null;
  // Nothing to do: the rows are there, and no move takes them away.
  if (open === undefined && here?.strategy === strategy && (shard ?? here.shardId) === here.shardId)
    return moves(c, 200);
  const move = await movesStore(control).open(tenantId, { strategy, shardId: shard ?? null });
  if (move === undefined) throw new Problem("not_found", "The tenant is not set up yet.");
  if (move.strategy !== strategy || (shard !== undefined && move.to !== null && move.to.shardId !== shard))
    throw new Problem("conflict", `A move to ${move.strategy} is ${move.state}. Confirm or undo it first.`);
  await c.get("context").start({ kind: "move", tenantId });
  return moves(c, 202);
}

export async function listMoves(c: HttpContext, { query }: { query: NumberedPageQuery }): Promise<Response> {
  return moves(c, 200, query);
}

export function confirmMove(c: HttpContext): Promise<Response> {
  return endMove(c, "confirm");
}

export function undoMove(c: HttpContext): Promise<Response> {
  return endMove(c, "undo");
}

async function endMove(c: HttpContext, action: "confirm" | "undo"): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const move = await movesStore(c.get("context").control).live(tenantId);
  if (move === undefined) throw new Problem("not_found", "The tenant has no move to confirm or undo.");
  if (!mayBe(action, move.state)) throw new Problem("conflict", `The move is ${move.state}.`);
  const { done } = await context
    .tenantObject(tenantId)
    .endMove(action)
    .catch((error: unknown) => {
      throw errorCode(error) === "placement_unavailable" ? new Problem("conflict", STILL_AT_WORK) : error;
    });
  if (!done) await context.start({ kind: "move", tenantId });
  return moves(c, done ? 200 : 202);
}

async function moves(
  c: HttpContext,
  status: 200 | 202,
  { after, limit }: NumberedPageQuery = { limit: MOVES },
): Promise<Response> {
  const listed = await movesStore(c.get("context").control).history(tenantOf(c), { before: after, limit: limit + 1 });
  return c.json(
    pageOf("moves", listed, limit, ({ id }) => id),
    status,
  );
}
