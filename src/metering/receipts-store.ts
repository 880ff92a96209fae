// The ledger as its tenant reads it: sums, the reports that calls were sent in, and the calls behind each of them. Every
// function is one statement, so that what it returns was so at one instant; every one asks for a single tenant's rows.
import * as z from "zod";
import type { CallSum, Period, FrozenReport } from "./invoice.ts";
import type { TenantId } from "../core/tenant.ts";
import { instant } from "../control/tenants-store.ts";
import { type NeonConnection } from "../adapters/neon.ts";

const Sum = { units: z.int(), calls: z.int() };

/** Calls of a day and a tool. */
const UsageCell = z.object({ day: z.string(), tool: z.string(), reported: z.boolean(), ...Sum });
export type UsageCell = z.infer<typeof UsageCell>;

const Report = z.object({
  id: z.string(),
  /** The minute of Stripe's time that the report has for itself. */
  minute: z.string(),
  ...Sum,
  sealedAt: z.string(),
  /** `null`: Stripe is not known to have it yet. */
  confirmedAt: z.string().nullable(),
  /** How it is known that Stripe has it. */
  confirmedBy: z.string().nullable(),
});
export type Report = z.infer<typeof Report>;

const Call = z.object({
  /** The id of its receipt. */
  id: z.string(),
  tool: z.string(),
  units: z.int(),
  /** When it was admitted. */
  at: z.string(),
});
export type Call = z.infer<typeof Call>;

/** Usage that came too late for a report, and is billed by an item of an invoice. */
const CarryForward = z.object({
  id: z.string(),
  /** The day of its calls. */
  day: z.string(),
  ...Sum,
  /** The report in whose place it came, which has its calls; `null`: it has calls of its own. */
  reportId: z.string().nullable(),
  sealedAt: z.string(),
  /** `null`: the item is not made yet. */
  settledAt: z.string().nullable(),
  settledBy: z.string().nullable(),
  invoiceItemId: z.string().nullable(),
});
export type CarryForward = z.infer<typeof CarryForward>;

/** A part of a list: what comes after `after` in the list's order. Rows that are added elsewhere move nothing in it. */
export interface Page {
  /** The last item that is known: a report's minute, a call's id. */
  after: string | null;
  limit: number;
}

const UsagePage = z.object({
  cells: z.array(UsageCell),
  reports: z.array(Report),
  carryForwards: z.array(CarryForward),
});
const CallPage = z.object({ report: z.union([Report, CarryForward]).nullable(), calls: z.array(Call) });
const Sums = z.object({
  calls: z.array(z.object({ day: z.string(), reportId: z.string().nullable(), ...Sum })),
  reports: z.array(
    z.object({ id: z.string(), slotSeconds: z.int(), metered: z.boolean(), confirmed: z.boolean(), ...Sum }),
  ),
});

export function receiptsStore(db: NeonConnection) {
  return {
    /**
     * What a tenant used in a period, by day and tool, a page of the period's reports by their minutes, and all that was
     * carried forward, which is little. `undefined` when there is no such tenant.
     */
    async usage(
      tenantId: TenantId,
      { startMs, endMs }: Period,
      { after, limit }: Page,
    ): Promise<z.infer<typeof UsagePage> | undefined> {
      const [row] = await db.query(
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

    /** The report or carry-forward, and a page of its calls, by their ids. `undefined` when the tenant has none of this name. */
    async callsOfReport(tenantId: TenantId, reportId: string, { after, limit }: Page) {
      const page = (own: string) => `coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
          SELECT ${callColumns} FROM ledger l WHERE ${own} AND ($3::text IS NULL OR l.call_id > $3) ORDER BY l.call_id LIMIT $4) c), '[]') AS calls`;
      const [row] = await db.query(
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

    /** A page of a period's calls that are in no report yet, by their ids. `undefined` when there is no such tenant. */
    async unreportedCalls(tenantId: TenantId, { startMs, endMs }: Period, { after, limit }: Page) {
      const [row] = await db.query(
        `SELECT NULL AS report, coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
                  SELECT ${callColumns} FROM ledger l WHERE l.tenant_id = t.id AND ${within("l.at")} AND ${frozenIn} IS NULL
                    AND ($4::text IS NULL OR l.call_id > $4) ORDER BY l.call_id LIMIT $5) c), '[]') AS calls
         FROM tenants t WHERE t.id = $1`,
        [tenantId, startMs, endMs, after, limit],
      );
      return row === undefined ? undefined : CallPage.parse(row);
    },

    /** A period's calls, added up by day and report or carry-forward, and these, each list whole: for a period of a day or so. */
    async sums(tenantId: TenantId, { startMs, endMs }: Period): Promise<{ calls: CallSum[]; reports: FrozenReport[] }> {
      const [row] = await db.query(
        `SELECT coalesce((SELECT jsonb_agg(to_jsonb(c)) FROM (
                  SELECT ${dayOf("l.at")} AS day, ${frozenIn} AS "reportId", sum(l.units) AS units, count(*) AS calls
                  FROM ledger l WHERE l.tenant_id = $1 AND ${within("l.at")} GROUP BY 1, 2) c), '[]') AS calls,
                coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM (
                  SELECT r.id, extract(epoch FROM r.slot)::bigint AS "slotSeconds", ${isMetered} AS metered, r.confirmed_at IS NOT NULL AS confirmed,
                         r.units, r.calls
                  FROM reports r WHERE r.tenant_id = $1 AND ${within("r.slot")}
                  UNION ALL
                  SELECT c.id, floor(extract(epoch FROM c.to_at))::bigint, false, c.settled_at IS NOT NULL, c.units, c.calls
                  FROM carry_forwards c WHERE c.tenant_id = $1 AND c.report_id IS NULL AND ${within("c.to_at")}) p), '[]') AS reports`,
        [tenantId, startMs, endMs],
      );
      return Sums.parse(row);
    },

    /** Units of the calls of a period of any length that are for Stripe's meter: those that its invoice has. */
    async meteredUnits(tenantId: TenantId, { startMs, endMs }: Period): Promise<number> {
      const [row] = await db.query(
        `SELECT coalesce(sum(l.units), 0)::bigint AS units FROM ledger l LEFT JOIN reports r ON r.id = l.report_id
         WHERE l.tenant_id = $1 AND ${within("l.at")} AND l.carry_forward_id IS NULL AND ${isMetered}`,
        [tenantId, startMs, endMs],
      );
      return Number(row?.["units"]);
    },
  };
}

export type ReceiptsStore = ReturnType<typeof receiptsStore>;

/** The report or carry-forward in which a call was frozen. It never changes. */
const frozenIn = `coalesce(l.report_id, l.carry_forward_id)`;

/** Whether a report is for Stripe's meter: not when it is billed in another way, or to nobody. */
const isMetered = `coalesce(r.answer NOT IN ('carried', 'no_customer'), true)`;

const reportColumns = `r.id, ${instant("r.slot")} AS minute, r.units, r.calls, ${instant("r.frozen_at")} AS "sealedAt",
  ${instant("r.confirmed_at")} AS "confirmedAt", CASE WHEN r.confirmed_at IS NOT NULL THEN r.answer END AS "confirmedBy"`;

const carryColumns = `c.id, ${dayOf("c.to_at")} AS day, c.units, c.calls, c.report_id AS "reportId", ${instant("c.frozen_at")} AS "sealedAt",
  ${instant("c.settled_at")} AS "settledAt", c.answer AS "settledBy", c.invoice_item_id AS "invoiceItemId"`;

const callColumns = `l.call_id AS id, l.tool, l.units, ${instant("l.at")} AS at`;

/** In the period whose start and end are the parameters $2 and $3, in epoch milliseconds. */
function within(column: string): string {
  return `${column} >= to_timestamp($2::double precision / 1000) AND ${column} < to_timestamp($3::double precision / 1000)`;
}

/** As JSON it reads `2026-11-21`. */
function dayOf(column: string): string {
  return `(${column} AT TIME ZONE 'UTC')::date`;
}
