// The metrics of all tenants in the control tables. Invariant: each fold is added once. The row of its stream takes the number
// of the last fold in the same statement, so that a repeated, late or concurrent message adds nothing.
import * as z from "zod";
import type { ControlDatabase } from "../../control/context.ts";
import { callEnds } from "../../core/call.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { fromMs, toIso } from "../../core/time.ts";
import { BUCKETS, type MetricsMessage } from "./fold.ts";

export const metricSteps = ["hour", "day", "total"] as const;
export const metricGroups = ["tool", "caller", "outcome"] as const;
export type MetricGroup = (typeof metricGroups)[number];

const count = z.coerce.number().int();
/** The figures of every row. Sums of `bigint` arrive as text. */
const sumsOfRow = { calls: count, units: count, ms: count, dbMs: count, latency: z.array(count).length(BUCKETS) };
const Figures = z.object({ ...sumsOfRow, ok: count, failed: count, refused: count, repeated: count });
export type Figures = z.infer<typeof Figures>;

const Point = Figures.extend({
  /** The start of the hour or day (UTC). */
  at: z.string(),
  /** The tool, the caller, or `outcome:code`. Empty without a group. */
  key: z.string(),
  /** The name of the API key or member. */
  name: z.string().nullable(),
});
export type Point = z.infer<typeof Point>;

const Total = z.object({
  tool: z.string(),
  plan: z.string(),
  outcome: z.enum(callEnds),
  code: z.string(),
  ...sumsOfRow,
});
export type Total = z.infer<typeof Total>;

const TenantCount = z.object({ state: z.string(), plan: z.string(), tenants: count });
export type TenantCount = z.infer<typeof TenantCount>;

/** A stream that has moved: folds after `previous` up to `n` were added now. */
const Moved = z.object({ tenantId: TenantId, epoch: z.string(), previous: count, n: count, plan: z.string() });
export type Moved = z.infer<typeof Moved>;

const Named = z.object({ caller: z.string(), name: z.string() });

export interface MetricsFilter {
  fromMs: number;
  /** Exclusive. */
  toMs: number;
  step: (typeof metricSteps)[number];
  by: MetricGroup | undefined;
  tool: string | undefined;
  caller: string | undefined;
  outcome: string | undefined;
}

const buckets = Array.from({ length: BUCKETS }, (_, index) => index + 1);
const summed = (of: (column: string) => string): string => ["calls", "units", "ms", "db_ms"].map(of).join(", ");
const latencySums = `ARRAY[${buckets.map((n) => `sum(r.latency[${n}])`).join(", ")}]`;
/** The sums of a group's rows, in the order of the columns. */
const sums = `${summed((column) => `sum(r.${column})`)}, ${latencySums}::bigint[]`;
/** What an upsert sets: the row's figures plus the new ones. */
const added = `${summed((column) => `${column} = h.${column} + excluded.${column}`)},
  latency = ARRAY[${buckets.map((n) => `h.latency[${n}] + excluded.latency[${n}]`).join(", ")}]`;
const columns = `calls, units, ms, db_ms, latency`;

const figures = `sum(r.calls) AS calls, ${callEnds
  .map((end) => `coalesce(sum(r.calls) FILTER (WHERE r.outcome = '${end}'), 0) AS ${end}`)
  .join(", ")}, sum(r.units) AS units, sum(r.ms) AS ms, sum(r.db_ms) AS "dbMs",
  to_jsonb(${latencySums}) AS latency`;

const keys: Readonly<Record<MetricGroup, string>> = {
  tool: "r.tool",
  caller: "r.caller",
  outcome: "r.outcome || CASE WHEN r.code = '' THEN '' ELSE ':' || r.code END",
};

const starts: Readonly<Record<MetricsFilter["step"], string>> = {
  hour: "r.hour",
  day: "date_trunc('day', r.hour, 'UTC')",
  total: fromMs("$2"),
};

export function metricsStore(control: ControlDatabase) {
  return {
    /** Adds the folds that the control tables lack. A tenant that is gone keeps none. Returns the streams that moved. */
    async add(messages: readonly MetricsMessage[]): Promise<Moved[]> {
      const rows = messages.flatMap(({ tenantId, epoch, folds }) =>
        folds.flatMap(({ n, cells }) =>
          cells.map(({ hourMs, dbMs, ...cell }) => ({
            ...cell,
            ...{ tenant_id: tenantId, epoch, n, hour_ms: hourMs, db_ms: dbMs },
          })),
        ),
      );
      // Rows are locked in one order everywhere, so that two consumers wait for each other instead of deadlocking. The lock
      // of the tenant's row keeps its removal from ending in between.
      const moved = await control.query(
        `WITH incoming AS MATERIALIZED (
           SELECT DISTINCT * FROM jsonb_to_recordset($1::jsonb) AS i(tenant_id text, epoch text, n bigint, hour_ms bigint, tool text,
             caller text, outcome text, code text, calls bigint, units bigint, ms bigint, db_ms bigint, latency bigint[])),
         live AS MATERIALIZED (
           SELECT t.id, t.plan FROM tenants t WHERE t.id IN (SELECT tenant_id FROM incoming) AND t.state <> 'gone'
           ORDER BY t.id FOR KEY SHARE),
         moved AS (
           INSERT INTO metric_streams AS s (tenant_id, epoch, n)
           SELECT i.tenant_id, i.epoch, max(i.n) FROM incoming i JOIN live ON live.id = i.tenant_id
           GROUP BY i.tenant_id, i.epoch ORDER BY i.tenant_id, i.epoch
           ON CONFLICT (tenant_id, epoch) DO UPDATE SET previous = s.n, n = excluded.n WHERE s.n < excluded.n
           RETURNING tenant_id, epoch, previous, n),
         fresh AS MATERIALIZED (
           SELECT i.*, live.plan FROM moved m JOIN incoming i USING (tenant_id, epoch) JOIN live ON live.id = i.tenant_id
           WHERE i.n > m.previous),
         hourly AS (
           INSERT INTO metrics_hourly AS h (tenant_id, hour, tool, caller, outcome, code, ${columns})
           SELECT r.tenant_id, ${fromMs("r.hour_ms")}, r.tool, r.caller, r.outcome, r.code, ${sums}
           FROM fresh r GROUP BY r.tenant_id, r.hour_ms, r.tool, r.caller, r.outcome, r.code
           ORDER BY r.tenant_id, r.hour_ms, r.tool, r.caller, r.outcome, r.code
           ON CONFLICT (tenant_id, hour, tool, caller, outcome, code) DO UPDATE SET ${added}),
         totals AS (
           INSERT INTO metric_totals AS h (tool, plan, outcome, code, ${columns})
           SELECT r.tool, r.plan, r.outcome, r.code, ${sums} FROM fresh r GROUP BY r.tool, r.plan, r.outcome, r.code
           ORDER BY r.tool, r.plan, r.outcome, r.code
           ON CONFLICT (tool, plan, outcome, code) DO UPDATE SET ${added})
         SELECT m.tenant_id AS "tenantId", m.epoch, m.previous, m.n, live.plan FROM moved m JOIN live ON live.id = m.tenant_id`,
        [JSON.stringify(rows)],
      );
      return moved.map((row) => Moved.parse(row));
    },

    /**
     * A tenant's figures by step and group, in their order, after the point `after`, and the sum of all. The range's rows are
     * read once for each.
     */
    async series(
      tenantId: TenantId,
      { fromMs: startMs, toMs: endMs, step, by, tool, caller, outcome }: MetricsFilter,
      { after, limit }: { after: Pick<Point, "at" | "key"> | undefined; limit: number },
    ): Promise<{ points: Point[]; total: Figures | undefined }> {
      const within = `r.tenant_id = $1 AND r.hour >= ${fromMs("$2")} AND r.hour < ${fromMs("$3")}
        AND ($4::text IS NULL OR r.tool = $4) AND ($5::text IS NULL OR r.caller = $5)
        AND ($6::text IS NULL OR r.outcome = $6)`;
      const params = [tenantId, startMs, endMs, tool ?? null, caller ?? null, outcome ?? null];
      const [points = [], [total] = []] = await control.batch([
        {
          text: `WITH points AS (
              SELECT ${starts[step]} AS at, (${by === undefined ? "''" : keys[by]}) COLLATE "C" AS key, ${figures}
              FROM metrics_hourly r WHERE ${within} GROUP BY 1, 2)
            SELECT ${toIso("p.at")} AS at, p.key, coalesce(k.name, m.name, m.email) AS name, p.calls, ${callEnds.map((end) => `p.${end}`).join(", ")}, p.units, p.ms, p."dbMs", p.latency
            FROM points p
            LEFT JOIN api_keys k ON k.tenant_id = $1 AND p.key = 'key:' || k.id
            LEFT JOIN members m ON m.tenant_id = $1 AND p.key = 'member:' || m.id
            WHERE $7::timestamptz IS NULL OR (p.at, p.key) > ($7, $8::text)
            ORDER BY p.at, p.key LIMIT $9`,
          params: [...params, after?.at ?? null, after?.key ?? null, limit],
        },
        { text: `SELECT ${figures} FROM metrics_hourly r WHERE ${within} HAVING count(*) > 0`, params },
      ]);
      return {
        points: points.map((row) => Point.parse(row)),
        total: total === undefined ? undefined : Figures.parse(total),
      };
    },

    /** The names of a tenant's API keys and members by caller, such as `key:ID`. Revoked keys and removed members have names, too. */
    async callerNames(tenantId: TenantId): Promise<Map<string, string>> {
      const rows = await control.query(
        `SELECT 'key:' || k.id AS caller, k.name FROM api_keys k WHERE k.tenant_id = $1
         UNION ALL SELECT 'member:' || m.id, coalesce(m.name, m.email, m.id) FROM members m WHERE m.tenant_id = $1`,
        [tenantId],
      );
      return new Map(rows.map((row) => Named.parse(row)).map(({ caller, name }) => [caller, name]));
    },

    /** The counters of the whole deployment, and its tenants by state and plan. */
    async fleet(): Promise<{ totals: Total[]; tenants: TenantCount[] }> {
      const [totals = [], tenants = []] = await control.batch([
        {
          text: `SELECT tool, plan, outcome, code, calls, units, ms, db_ms AS "dbMs", to_jsonb(latency) AS latency
                 FROM metric_totals ORDER BY tool, plan, outcome, code`,
        },
        { text: `SELECT state, plan, count(*) AS tenants FROM tenants GROUP BY state, plan ORDER BY state, plan` },
      ]);
      return {
        totals: totals.map((row) => Total.parse(row)),
        tenants: tenants.map((row) => TenantCount.parse(row)),
      };
    },
  };
}

export type MetricsStore = ReturnType<typeof metricsStore>;
