// The operator's questions about all tenants: one SELECT, answered from every shard. That it was asked is in the log; what
// was asked and what came of it is not.
import { Hono } from "hono";
import * as z from "zod";
import { askAllTenants } from "./analytics.ts";
import { sha256Hex } from "../core/credentials.ts";
import { strategies } from "../core/plans.ts";
import { log } from "../log.ts";
import { type HttpEnv, readJson } from "../http.ts";

const Question = z.strictObject({
  sql: z
    .string()
    .max(100_000)
    .regex(/^\s*(?:select|with|values|table)\b/i, "one SELECT, without a comment before it"),
  /** Of the shards that are asked; all of them without. */
  strategy: z.enum(strategies).optional(),
});

export const analyticsApi = new Hono<HttpEnv>();

analyticsApi.post("/", async (c) => {
  const { sql, strategy = null } = await readJson(c, Question);
  const startedAtMs = Date.now();
  const asked = {
    requestId: c.get("requestId"),
    by: "operator",
    sqlSha256: await sha256Hex(sql),
    strategy,
  };
  // Twice, so that a question whose answering is cut off is known, too.
  log("info", "analytics_asked", asked);
  const { rows, shards, truncated, sizeBytes } = await askAllTenants(c.get("context"), sql, strategy);
  log("info", "analytics_answered", {
    ...asked,
    rows: rows.length,
    sizeBytes,
    truncated,
    shards: shards.length,
    failed: shards.filter(({ error }) => error !== undefined).length,
    tookMs: Date.now() - startedAtMs,
  });
  // The rows are JSON already, and their numbers may be larger than a parser would keep.
  const lines = rows.map(
    ({ shard, tenant, json }) => `{"shard":${JSON.stringify(shard)},"tenant":${JSON.stringify(tenant)},"row":${json}}`,
  );
  return c.body(`{"rows":[${lines.join(",\n")}],"truncated":${truncated},"shards":${JSON.stringify(shards)}}`, 200, {
    "content-type": "application/json",
    "cache-control": "no-store",
  });
});
