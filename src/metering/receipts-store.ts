// The ledger as its tenant reads it: sums, meter reports, and the calls in each report. Every function is one statement, so
// its answer is consistent, and every function reads the rows of one tenant.
import * as z from "zod";
import type { CallSum, Period, FrozenReport } from "./invoice.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { ControlDatabase } from "../control/context.ts";
import { fromMs, toIso } from "../core/time.ts";

const Sum = { units: z.int(), calls: z.int() };

/** Sum of one day and tool. */
const UsageCell = z.object({ day: z.string(), tool: z.string(), reported: z.boolean(), ...Sum });
export type UsageCell = z.infer<typeof UsageCell>;

const Report = z.object({
  id: z.string(),
  /** The minute at Stripe's meter. No other report of the tenant has it. */
  minute: z.string(),
  ...Sum,
  sealedAt: z.string(),
  /** When Tollgate learned that Stripe has it. `null`: not yet. */
  confirmedAt: z.string().nullable(),
  /** How Tollgate learned it. */
  confirmedBy: z.string().nullable(),
});
export type Report = z.infer<typeof Report>;

const Call = z.object({
  /** The id on the call's receipt. */
  id: z.string(),
  tool: z.string(),
  units: z.int(),
  /** When the call was admitted. */
  at: z.string(),
});
export type Call = z.infer<typeof Call>;

/** `reportId`: the report or carry-forward that froze the call. */
const LedgerCall = Call.extend({ reportId: z.string().nullable() });
export type LedgerCall = z.infer<typeof LedgerCall>;

/** Usage that came too late for Stripe's meter. An invoice item bills it. */
const CarryForward = z.object({
  id: z.string(),
  /** The UTC day of its calls. */
  day: z.string(),
  ...Sum,
  /** The report that it replaces, which keeps its calls. `null`: it has calls of its own. */
  reportId: z.string().nullable(),
  sealedAt: z.string(),
  /** `null`: Stripe does not have the invoice item yet. */
  settledAt: z.string().nullable(),
  settledBy: z.string().nullable(),
  invoiceItemId: z.string().nullable(),
});
export type CarryForward = z.infer<typeof CarryForward>;

/** A page of a list: the items that follow `after` in its order. New rows do not shift a page. */
export interface Page {
  /** The last item of the previous page: a report's minute or a call's id. `null`: the first page. */
  after: string | null;
  limit: number;
}

const UsagePage = z.object({
  cells: z.array(UsageCell),
  reports: z.array(Report),
  carryForwards: z.array(CarryForward),
});
const CallWithReport = LedgerCall.extend({ report: z.union([Report, CarryForward]).nullable() });
const CallPage = z.object({ report: z.union([Report, CarryForward]).nullable(), calls: z.array(Call) });
/** What Stripe's meter got of a day, and the calls behind it. */
const MeteredDay = z.object({
  day: z.string(),
  reports: z.int(),
  reportUnits: z.int(),
  /** Whether Stripe has confirmed all of them. */
  confirmed: z.boolean(),
  /** Added up from the calls. */
  ...Sum,
});
export type MeteredDay = z.infer<typeof MeteredDay>;
const MeteredDays = z.object({ days: z.array(MeteredDay) });
const Sums = z.object({
  calls: z.array(z.object({ day: z.string(), reportId: z.string().nullable(), ...Sum })),
  reports: z.array(
    z.object({ id: z.string(), slotSeconds: z.int(), metered: z.boolean(), confirmed: z.boolean(), ...Sum }),
  ),
});

export function receiptsStore(control: ControlDatabase) {
  return {
    /**
     * Usage of a period by day and tool, a page of its reports in the order of their minutes, and all its carry-forwards,
     * which are few. Returns `undefined` for an unknown tenant.
     */
    async usage(
      tenantId: TenantId,
      { startMs, endMs }: Period,
      { after, limit }: Page,
    ): Promise<z.infer<typeof UsagePage> | undefined> {
      const [row] = await control.query(
        `SELECT coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
                  SELECT ${dayOf("l.at")} AS day, l.tool, ${frozenIn} IS NOT NULL AS reported, sum(l.units) AS units, count(*) AS calls
                  FROM ledger l WHERE l.tenant_id = t.id AND ${within("l.at")} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3) c), '[]') AS cells,
                coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM (
                  SELECT ${reportColumns} FROM reports r WHERE r.tenant_id = t.id AND ${within("r.slot")}
                    AND ($4::text IS NULL OR r.slot > $4::timestamptz)
                  ORDER BY r.slot LIMIT $5) p), '[]') AS reports,
                coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM (
                  SELECT ${carryColumns} FROM carry_forwards c WHERE c.tenant_id = t.id AND ${within("c.to_at")} ORDER BY c.to_at, c.id) p), '[]') AS "carryForwards"
         FROM tenants t WHERE t.id = $1`,
        [tenantId, startMs, endMs, after, limit],
      );
      return row === undefined ? undefined : UsagePage.parse(row);
    },

    /** A report or carry-forward with a page of its calls, ordered by id. Returns `undefined` if the tenant does not have it. */
    async callsOfReport(tenantId: TenantId, reportId: string, { after, limit }: Page) {
      const page = (own: string) => `coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
          SELECT ${callColumns} FROM ledger l WHERE ${own} AND ($3::text IS NULL OR l.call_id > $3) ORDER BY l.call_id LIMIT $4) c), '[]') AS calls`;
      const [row] = await control.query(
        `SELECT (SELECT to_jsonb(p) FROM (SELECT ${reportColumns}) p) AS report, ${page("l.report_id = r.id AND l.tenant_id = r.tenant_id")}
         FROM reports r WHERE r.id = $2 AND r.tenant_id = $1
         UNION ALL
         SELECT (SELECT to_jsonb(p) FROM (SELECT ${carryColumns}) p),
                ${page("l.tenant_id = c.tenant_id AND l.at >= c.from_at AND l.at <= c.to_at AND l.carry_forward_id = c.id")}
         FROM carry_forwards c WHERE c.id = $2 AND c.tenant_id = $1`,
        [tenantId, reportId, after, limit],
      );
      return row === undefined ? undefined : CallPage.parse(row);
    },

    /** A page of a period's calls that are in no report yet, ordered by id. Returns `undefined` for an unknown tenant. */
    async unreportedCalls(tenantId: TenantId, { startMs, endMs }: Period, { after, limit }: Page) {
      const [row] = await control.query(
        `SELECT NULL AS report, coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
                  SELECT ${callColumns} FROM ledger l WHERE l.tenant_id = t.id AND ${within("l.at")} AND ${frozenIn} IS NULL
                    AND ($4::text IS NULL OR l.call_id > $4) ORDER BY l.call_id LIMIT $5) c), '[]') AS calls
         FROM tenants t WHERE t.id = $1`,
        [tenantId, startMs, endMs, after, limit],
      );
      return row === undefined ? undefined : CallPage.parse(row);
    },

    /** A tenant's calls, the newest first: those before the call `before`, of one tool or (`null`) of every one. */
    async calls(
      tenantId: TenantId,
      { before, tool, limit }: { before: { at: string; id: string } | undefined; tool: string | null; limit: number },
    ): Promise<LedgerCall[]> {
      const rows = await control.query(
        `SELECT ${callColumns}, ${frozenIn} AS "reportId" FROM ledger l
         WHERE l.tenant_id = $1 AND ($2::text IS NULL OR l.tool = $2)
           AND ($3::timestamptz IS NULL OR (l.at <= $3 AND (l.at, l.call_id COLLATE "C") < ($3, $4::text)))
         ORDER BY l.at DESC, l.call_id COLLATE "C" DESC LIMIT $5`,
        [tenantId, tool, before?.at ?? null, before?.id ?? null, limit],
      );
      return rows.map((row) => LedgerCall.parse(row));
    },

    /** One call of the tenant with its report or carry-forward. Returns `undefined` if the ledger does not have it. */
    async call(tenantId: TenantId, callId: string): Promise<z.infer<typeof CallWithReport> | undefined> {
      const [row] = await control.query(
        `SELECT ${callColumns}, ${frozenIn} AS "reportId", coalesce(
           (SELECT to_jsonb(p) FROM (SELECT ${reportColumns} FROM reports r WHERE r.id = l.report_id) p),
           (SELECT to_jsonb(p) FROM (SELECT ${carryColumns} FROM carry_forwards c WHERE c.id = l.carry_forward_id) p)) AS report
         FROM ledger l WHERE l.call_id = $2 AND l.tenant_id = $1`,
        [tenantId, callId],
      );
      return row === undefined ? undefined : CallWithReport.parse(row);
    },

    /**
     * A period's reports to Stripe's meter by day, with the sums of their calls. The reports decide what is in the period: one at
     * its edge may have a call of a second before it.
     */
    async meteredDays(tenantId: TenantId, { startMs, endMs }: Period): Promise<MeteredDay[]> {
      const [row] = await control.query(
        `WITH own AS (SELECT l.report_id, sum(l.units) AS units, count(*) AS calls FROM ledger l
           WHERE l.tenant_id = $1 AND l.at >= ${fromMs("$2")} - interval '1 day' AND l.at < ${fromMs("$3")} + interval '1 day'
             AND l.report_id IS NOT NULL GROUP BY 1)
         SELECT coalesce(jsonb_agg(to_jsonb(d)), '[]') AS days FROM (
           SELECT ${dayOf("r.slot")} AS day, count(*) AS reports, sum(r.units) AS "reportUnits",
                  bool_and(r.confirmed_at IS NOT NULL) AS confirmed,
                  coalesce(sum(own.units), 0) AS units, coalesce(sum(own.calls), 0) AS calls
           FROM reports r LEFT JOIN own ON own.report_id = r.id
           WHERE r.tenant_id = $1 AND ${within("r.slot")} AND ${isMetered} GROUP BY 1 ORDER BY 1) d`,
        [tenantId, startMs, endMs],
      );
      return MeteredDays.parse(row).days;
    },

    /** A period's calls, summed by day and report, and its reports and carry-forwards. Not paged: ask for a day or two. */
    async sums(tenantId: TenantId, { startMs, endMs }: Period): Promise<{ calls: CallSum[]; reports: FrozenReport[] }> {
      const [row] = await control.query(
        `SELECT coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
                  SELECT ${dayOf("l.at")} AS day, ${frozenIn} AS "reportId", sum(l.units) AS units, count(*) AS calls
                  FROM ledger l WHERE l.tenant_id = $1 AND ${within("l.at")} GROUP BY 1, 2) c), '[]') AS calls,
                coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM (
                  SELECT r.id, extract(epoch FROM r.slot)::bigint AS "slotSeconds", ${isMetered} AS metered, r.confirmed_at IS NOT NULL AS confirmed,
                         r.units, r.calls
                  FROM reports r WHERE r.tenant_id = $1 AND ${within("r.slot")}
                  UNION ALL
                  SELECT c.id, floor(extract(epoch FROM c.to_at))::bigint, false, c.settled_at IS NOT NULL, c.units, c.calls
                  FROM carry_forwards c WHERE c.tenant_id = $1 AND c.report_id IS NULL AND c.calls > 0 AND ${within("c.to_at")}) p), '[]') AS reports`,
        [tenantId, startMs, endMs],
      );
      return Sums.parse(row);
    },
  };
}

export type ReceiptsStore = ReturnType<typeof receiptsStore>;

/** The report or carry-forward that froze a call. It never changes. */
const frozenIn = `coalesce(l.report_id, l.carry_forward_id)`;

/** Whether a report counts at Stripe's meter. It does not if an invoice item bills it, or if it has no customer to bill. */
const isMetered = `coalesce(r.answer NOT IN ('carried', 'no_customer'), true)`;

const reportColumns = `r.id, ${toIso("r.slot")} AS minute, r.units, r.calls, ${toIso("r.frozen_at")} AS "sealedAt",
  ${toIso("r.confirmed_at")} AS "confirmedAt", CASE WHEN r.confirmed_at IS NOT NULL THEN r.answer END AS "confirmedBy"`;

const carryColumns = `c.id, ${dayOf("c.to_at")} AS day, c.units, c.calls, c.report_id AS "reportId", ${toIso("c.frozen_at")} AS "sealedAt",
  ${toIso("c.settled_at")} AS "settledAt", c.answer AS "settledBy", c.invoice_item_id AS "invoiceItemId"`;

const callColumns = `l.call_id AS id, l.tool, l.units, ${toIso("l.at")} AS at`;

/** Matches the period between the parameters $2 and $3, in epoch milliseconds; the end is exclusive. */
function within(column: string): string {
  return `${column} >= ${fromMs("$2")} AND ${column} < ${fromMs("$3")}`;
}

/** The UTC day. In JSON it reads `2026-11-21`. */
function dayOf(column: string): string {
  return `(${column} AT TIME ZONE 'UTC')::date`;
}
