// The operator's routes for moves of tenants: start, look, confirm, undo.
import { Hono } from "hono";
import * as z from "zod";
import { movesOf } from "./moves-store.ts";
import { mayBe } from "./move.ts";
import { strategies } from "../core/plans.ts";
import { type HttpEnv, problem, readJson, tenantOf } from "../http.ts";

const MoveRequest = z.strictObject({
  strategy: z.enum(strategies),
  /** A certain shard of that strategy; otherwise any that has room. */
  shard: z.string().min(1).max(60).optional(),
});

export const moveApi = new Hono<HttpEnv>();

moveApi.post("/:id/move", async (c) => {
  const tenantId = tenantOf(c);
  const { strategy, shard = null } = await readJson(c, MoveRequest);
  const move = await movesOf(c.env).open(tenantId, { strategy, shardId: shard });
  if (move === undefined) return problem(c, "not_found", "There is no such tenant, or it is not set up yet.");
  if (move.strategy !== strategy || (shard !== null && move.to !== null && move.to.shardId !== shard)) {
    return problem(c, "conflict", `A move to ${move.strategy} is ${move.state}: confirm it or undo it first.`);
  }
  await c.env.TENANT.getByName(tenantId).startMove();
  return c.json({ moves: await movesOf(c.env).history(tenantId) }, 202);
});

moveApi.get("/:id/move", async (c) => c.json({ moves: await movesOf(c.env).history(tenantOf(c)) }));

moveApi.post("/:id/move/:action{confirm|undo}", async (c) => {
  const tenantId = tenantOf(c);
  const action = c.req.param("action") === "confirm" ? "confirm" : "undo";
  const move = await movesOf(c.env).live(tenantId);
  if (move === undefined) return problem(c, "not_found", "There is no move that could be confirmed or undone.");
  if (!mayBe(action, move.state)) return problem(c, "conflict", `The move is ${move.state}.`);
  const object = c.env.TENANT.getByName(tenantId);
  const { done } = await object.moveOn(action);
  if (!done) await object.startMove();
  return c.json({ moves: await movesOf(c.env).history(tenantId) }, done ? 200 : 202);
});
