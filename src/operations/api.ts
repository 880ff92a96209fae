// The operator's view of the whole deployment: the indicators of metering and reporting, the errors of Stripe's meter, and
// questions about all tenants. It also shows the items of background work that keep failing.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { failuresStore } from "../control/failures-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { sha256Hex } from "../core/keys/credentials.ts";
import { strategies } from "../core/plans/plans.ts";
import {
  type HttpContext,
  type PageQuery,
  decodeCursor,
  encodeCursor,
  noStore,
  pageOf,
  pageOfAll,
  pageQuery,
} from "../http.ts";
import { log } from "../log.ts";
import { metricsStore } from "../metering/metrics/metrics-store.ts";
import { OPEN_METRICS_TYPE, fleetMetrics, openMetrics } from "../metering/metrics/open-metrics.ts";
import { meterErrorsStore } from "../reports/meter-errors-store.ts";
import { alarmsStore } from "./alarms-store.ts";
import { askAllTenants } from "./analytics.ts";
import { readDeployment } from "./deployment-state.ts";
import { alarmLevels, readIndicators } from "./indicators.ts";

export const Question = z.strictObject({
  sql: z
    .string()
    .max(100_000)
    .regex(/^\s*(?:select|with|values|table)\b/i, "one SELECT, without a comment before it"),
  /** Only the shards of this strategy answer. Without it, all shards do. */
  strategy: z.enum(strategies).optional(),
});

/** Days of meter errors in the answer: as many as Stripe keeps events. */
export const METER_ERROR_DAYS = 30;
/** Each day has a line for each of Stripe's few error codes. */
export const MeterErrorsQuery = pageQuery(500);
/** A tenant's own database is a shard, too. */
export const ShardsQuery = pageQuery(500);
export const FailuresQuery = pageQuery(200);

/** Each indicator with its level and what to do about it. */
export async function showIndicators(c: HttpContext): Promise<Response> {
  return c.json(await currentIndicators(c.get("context"), Date.now()));
}

/** The indicators as they are now. Two round trips with joined batches. */
export async function currentIndicators(context: Context, now: number) {
  const readings = readIndicators(await readDeployment(context, now));
  const records = new Map(
    (await alarmsStore(context.control).store(readings, now)).map((record) => [record.name, record]),
  );
  const worst = Math.max(...readings.map(({ level }) => alarmLevels.indexOf(level)));
  return {
    level: alarmLevels[worst] ?? "ok",
    at: new Date(now).toISOString(),
    indicators: readings.map((reading) => {
      const record = records.get(reading.name);
      return {
        ...reading,
        since: record === undefined ? null : new Date(record.sinceMs).toISOString(),
        told:
          record?.notified === undefined
            ? null
            : { level: record.notified.level, at: new Date(record.notified.atMs).toISOString() },
      };
    }),
  };
}

/** The figures of the whole deployment for a monitor that speaks OpenMetrics, such as Prometheus. */
export async function showOpenMetrics(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const [fleet, deployment] = await Promise.all([
    metricsStore(context.control).fleet(),
    readDeployment(context, Date.now()),
  ]);
  const indicators = readIndicators(deployment).map(({ name, unit, value, level }) => {
    return { name, unit, value, level: alarmLevels.indexOf(level) };
  });
  const text = openMetrics(fleetMetrics({ ...fleet, indicators }));
  return c.body(text, 200, { "content-type": OPEN_METRICS_TYPE, ...noStore });
}

/** Meter events that Stripe accepted and later refused, by day. */
export async function listMeterErrors(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const days = await meterErrorsStore(c.get("context").control).byDay(METER_ERROR_DAYS);
  return c.json(pageOfAll("days", days, query, ({ day, code }) => `${day}.${code}`));
}

/** The shards with their tenants and room, also those that Tollgate is still creating. */
export async function listShards(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const shards = await placementsStore(c.get("context").control).summaries();
  return c.json(pageOfAll("shards", shards, query, ({ id }) => id));
}

/** Runs one SELECT on every shard. The log records that a question was asked, never its text or its rows. */
export async function askQuestion(c: HttpContext, { body }: { body: z.infer<typeof Question> }): Promise<Response> {
  const { sql, strategy = null } = body;
  const startedAtMs = Date.now();
  const asked = {
    requestId: c.get("requestId"),
    by: "operator",
    sqlSha256: await sha256Hex(sql),
    strategy,
  };
  // Logged before and after, so that a question that fails is in the log too.
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
  // The rows are JSON text already, and a parser would round their large numbers.
  const lines = rows.map(
    ({ shard, tenant, json }) => `{"shard":${JSON.stringify(shard)},"tenant":${JSON.stringify(tenant)},"row":${json}}`,
  );
  return c.body(`{"rows":[${lines.join(",\n")}],"truncated":${truncated},"shards":${JSON.stringify(shards)}}`, 200, {
    "content-type": "application/json",
    ...noStore,
  });
}

// ---- items of background work that keep failing

export const AcknowledgeRequest = z.strictObject({
  part: z.string().min(1).max(100),
  /** Without it, every item of the part. */
  item: z.string().max(200).optional(),
});

export async function listFailures(
  c: HttpContext,
  { query: { after, limit } }: { query: PageQuery },
): Promise<Response> {
  const cursor = decodeCursor(after, 3);
  const [lastAt = "", part = "", item = ""] = cursor ?? [];
  const last = cursor && { lastAt, part, item };
  const failures = await failuresStore(c.get("context").control).list(limit + 1, last);
  return c.json(pageOf("failures", failures, limit, (each) => encodeCursor([each.lastAt, each.part, each.item])));
}

/** Ends the alarm of these failures. An item that keeps failing raises it again. */
export async function acknowledgeFailures(
  c: HttpContext,
  { body: { part, item } }: { body: z.infer<typeof AcknowledgeRequest> },
): Promise<Response> {
  return c.json({ acknowledged: await failuresStore(c.get("context").control).acknowledge(part, item) });
}
