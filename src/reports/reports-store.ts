// Freezes ledger usage into reports and records the progress of each report. A report's units and minute are written once.
// Each function is one transaction and can be repeated. A reporter claims a report by writing the end of its claim into
// `next_at`. After that time another claim overwrites it, and a late write of the first reporter changes nothing.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { readableRows } from "../control/failures-store.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toMs } from "../core/time.ts";
import { periodOf, within } from "./periods-store.ts";
import { type OpenReport, type ReportProgress, REPORTABLE_MS } from "./report.ts";

const instant = z.coerce.number().nullable();

const ClaimedReport = z.object({
  id: z.string(),
  tenantId: TenantId,
  customerId: z.string(),
  slotMs: z.coerce.number().int(),
  stampMs: z.coerce.number().int(),
  units: z.coerce.number().int(),
  firstAttemptAtMs: instant,
  doubtedAtMs: instant,
  absentSinceMs: instant,
  invoiceFinal: z.boolean(),
  alarm: z.enum(["refused", "mismatch"]).nullable(),
  stripeUnits: z.coerce.number().int().nullable(),
  error: z.string().nullable(),
}) satisfies z.ZodType<OpenReport>;
export type ClaimedReport = z.infer<typeof ClaimedReport>;

const Frozen = z.object({
  /** Rows of the ledger. */
  rows: z.int(),
  reports: z.int(),
  carryForwards: z.int(),
});
export type Frozen = z.infer<typeof Frozen>;

const Attempt = z.object({ id: z.string(), attempts: z.int() });

const Unsettled = z.object({
  /** Rows of the ledger. */
  unfrozen: z.int(),
  /** Reports. */
  unconfirmed: z.int(),
});
type Unsettled = z.infer<typeof Unsettled>;

export function reportsStore(control: ControlDatabase) {
  return {
    /**
     * Freezes usage admitted before `cutoffMs`, tenant by tenant, up to the number of rows that fits one transaction. Call it
     * again until it freezes no rows. `tenantId` limits it to one tenant.
     *
     * Makes one report for each tenant, UTC day and subscription period. The report's minute is in that day and belongs to no
     * other report of the tenant. Its timestamp is in that period, before the next subscription of the customer begins, and
     * not after now. A tenant's next subscription begins later than that. So exactly one period of the customer counts it, also when the subscription ends a moment later and the
     * customer begins another one in the same minute.
     *
     * Usage that no report can bring into an invoice goes into a carry-forward: usage of a closed period, usage that is too
     * old for Stripe, and usage of a day and period without a free minute. In the first hour of the day, and of a period that
     * began on it, usage waits for a free minute instead. `waits: false`: it does not wait, because its subscription is about
     * to end. Usage of an unknown tenant is not frozen, nor is usage of a subscription whose period is not recorded yet.
     */
    async freeze(
      cutoffMs: number,
      nowMs: number,
      { tenantId = null, waits = true }: { tenantId?: TenantId | null; waits?: boolean } = {},
    ): Promise<Frozen> {
      const [, , [frozen] = []] = await control.batch([
        // One process freezes at a time, so that no two choose the same minute. A second process waits and finds no rows.
        { text: `SELECT pg_advisory_xact_lock($1)`, params: [FREEZE_LOCK] },
        // Stripe does not bill a tenant without a customer. Its reports are only for the record.
        {
          text: `UPDATE reports r SET confirmed_at = ${fromMs("$1")}, answer = 'no_customer'
                 FROM tenants t WHERE t.id = r.tenant_id AND t.stripe_customer_id IS NULL AND t.state <> 'provisioning'
                   AND r.confirmed_at IS NULL AND r.attempts = 0`,
          params: [nowMs],
        },
        {
          // One statement sees one snapshot: the rows that are marked are the rows that were summed.
          text: `WITH n AS (SELECT ${fromMs("$2")} AS now),
                 due AS (
                   SELECT l.call_id, l.tenant_id, t.plan, l.units, l.at, date_trunc('day', ${within("l.at")}, 'UTC') AS day, p.invoice_id,
                          l.at < n.now - make_interval(secs => ${REPORTABLE_MS / 1000}) AS too_old, s.starts_at AS opens, s.closes_at AS closes
                   FROM n CROSS JOIN ledger l JOIN tenants t ON t.id = l.tenant_id
                   LEFT JOIN LATERAL ${periodOf("l.tenant_id", "l.at")} s ON true
                   LEFT JOIN LATERAL (SELECT invoice_id FROM billing_periods p
                     WHERE p.tenant_id = l.tenant_id AND ${within("l.at")} >= p.starts_at AND ${within("l.at")} < p.ends_at
                     ORDER BY finalized_at LIMIT 1) p ON true
                   WHERE l.report_id IS NULL AND l.carry_forward_id IS NULL AND l.at < ${fromMs("$1")}
                     AND ($3::text IS NULL OR l.tenant_id = $3)
                     -- A new subscription's period may not be recorded yet. A minute before it would be on no invoice. After a
                     -- day without it, Stripe has no such subscription.
                     AND (s.starts_at IS NOT NULL OR t.stripe_subscription_id IS NULL OR l.at < n.now - interval '1 day')
                   ORDER BY l.tenant_id, l.at LIMIT ${ROWS_AT_ONCE} FOR UPDATE OF l),
                 sums AS (
                   SELECT tenant_id, plan, day, invoice_id, too_old, opens, closes, sum(units) AS units, count(*) AS calls, min(at) AS from_at, max(at) AS to_at,
                          date_trunc('minute', greatest(max(at), opens), 'UTC') AS newest, array_agg(call_id) AS call_ids, count(*) FILTER (WHERE invoice_id IS NULL AND NOT too_old) > 0 AS reportable
                   FROM due GROUP BY tenant_id, plan, day, invoice_id, too_old, opens, closes),
                 placed AS (
                   SELECT sums.*, n.now, CASE WHEN reportable THEN coalesce(
                     (SELECT newest WHERE ${mayHave("newest")}),
                     (SELECT minute FROM generate_series(date_trunc('minute', greatest(day, opens), 'UTC'), least(day + interval '1439 minutes', n.now), interval '1 minute') AS minute
                      WHERE ${mayHave("minute")} ORDER BY minute < newest, abs(extract(epoch FROM minute - newest)) LIMIT 1)) END AS slot
                   FROM sums, n),
                 named AS (
                   SELECT *, CASE WHEN slot IS NOT NULL THEN 'u1.' || tenant_id || '.' || (extract(epoch FROM slot) / 60)::bigint END AS report_id,
                          CASE WHEN slot IS NULL THEN 'c1.' || tenant_id || '.' || (extract(epoch FROM day) / 86400)::bigint || '.' ||
                            (row_number() OVER (PARTITION BY tenant_id, day, slot IS NULL ORDER BY from_at)
                             + (SELECT count(*) FROM carry_forwards c WHERE c.tenant_id = placed.tenant_id AND c.report_id IS NULL
                                  AND c.to_at >= day AND c.to_at < day + interval '1 day')) END AS carry_forward_id
                   FROM placed WHERE slot IS NOT NULL OR NOT reportable OR NOT $4::boolean OR greatest(day, opens) < now - interval '1 hour'
                     OR least(day + interval '1 day', closes) < now),
                 marked AS (
                   UPDATE ledger SET report_id = own.report_id, carry_forward_id = own.carry_forward_id
                   FROM (SELECT report_id, carry_forward_id, unnest(call_ids) AS call_id FROM named) own
                   WHERE ledger.call_id = own.call_id RETURNING 1),
                 reported AS (
                   INSERT INTO reports (id, tenant_id, slot, stamp, plan, units, calls, frozen_at)
                   SELECT report_id, tenant_id, slot, greatest(slot, opens), plan, units, calls, now FROM named WHERE report_id IS NOT NULL RETURNING 1),
                 carried AS (
                   INSERT INTO carry_forwards (id, tenant_id, from_at, to_at, units, calls, reason, frozen_at)
                   SELECT carry_forward_id, tenant_id, from_at, to_at, units, calls,
                          CASE WHEN invoice_id IS NOT NULL THEN 'invoice_final' WHEN too_old THEN 'too_old' ELSE 'no_minute' END, now
                   FROM named WHERE carry_forward_id IS NOT NULL RETURNING 1)
                 SELECT (SELECT count(*) FROM marked)::int AS rows, (SELECT count(*) FROM reported)::int AS reports,
                        (SELECT count(*) FROM carried)::int AS "carryForwards"`,
          params: [cutoffMs, nowMs, tenantId, waits],
        },
      ]);
      return Frozen.parse(frozen);
    },

    /**
     * Claims due reports until `untilMs`. Reports without an attempt come first, then those with the oldest attempt. Reports
     * of a tenant without a customer wait.
     */
    async claim(
      nowMs: number,
      untilMs: number,
      limit: number,
      tenantId: TenantId | null = null,
    ): Promise<ClaimedReport[]> {
      const rows = await control.query(
        `UPDATE reports r SET next_at = ${fromMs("$2")}
         FROM (SELECT r.id, t.stripe_customer_id FROM reports r JOIN tenants t ON t.id = r.tenant_id
               WHERE (r.confirmed_at IS NULL OR r.doubted_at IS NOT NULL) AND t.stripe_customer_id IS NOT NULL
                 AND (r.next_at IS NULL OR r.next_at <= ${fromMs("$1")})
                 AND ($4::text IS NULL OR r.tenant_id = $4)
               ORDER BY r.last_attempt_at NULLS FIRST, r.next_at NULLS FIRST, r.id LIMIT $3 FOR UPDATE OF r SKIP LOCKED) due
         WHERE r.id = due.id
         RETURNING r.id, r.tenant_id AS "tenantId", due.stripe_customer_id AS "customerId", r.units, ${toMs("r.slot")} AS "slotMs", ${toMs("r.stamp")} AS "stampMs",
                   ${toMs("r.first_attempt_at")} AS "firstAttemptAtMs", ${toMs("r.doubted_at")} AS "doubtedAtMs", ${toMs("r.absent_since")} AS "absentSinceMs",
                   EXISTS (SELECT FROM billing_periods p WHERE p.tenant_id = r.tenant_id AND r.stamp >= p.starts_at AND r.stamp < p.ends_at) AS "invoiceFinal",
                   r.alarm, r.stripe_units AS "stripeUnits", r.error`,
        [nowMs, untilMs, limit, tenantId],
      );
      return readableRows(control, rows, ClaimedReport, { part: "reports", idOf: (row) => String(row["id"]) });
    },

    /** Records attempts before they are made. Returns the number of each allowed attempt, by report id. */
    async recordAttempts(ids: readonly string[], claimedUntilMs: number, nowMs: number): Promise<Map<string, number>> {
      const rows = await control.query(
        `UPDATE reports r SET attempts = r.attempts + 1, last_attempt_at = n.now, first_attempt_at = coalesce(r.first_attempt_at, n.now)
         FROM (SELECT ${fromMs("$3")} AS now) n
         WHERE r.id = ANY ($1) AND r.next_at = ${fromMs("$2")} RETURNING r.id, r.attempts`,
        [ids, claimedUntilMs, nowMs],
      );
      return new Map(rows.map((row) => Attempt.parse(row)).map(({ id, attempts }) => [id, attempts]));
    },

    /** Records the progress of claimed reports. A later finding never removes a confirmation. */
    async progress(
      progress: readonly (ReportProgress & { id: string })[],
      claimedUntilMs: number,
      nowMs: number,
    ): Promise<void> {
      await control.query(
        `UPDATE reports r SET confirmed_at = coalesce(r.confirmed_at, CASE WHEN p.answer IS NOT NULL THEN ${fromMs("$3")} END),
                answer = coalesce(p.answer, r.answer), first_attempt_at = ${fromMs('p."firstAttemptAtMs"')}, doubted_at = ${fromMs('p."doubtedAtMs"')},
                absent_since = ${fromMs('p."absentSinceMs"')}, alarm = p.alarm, stripe_units = p."stripeUnits", error = p.error, next_at = ${fromMs('p."nextAtMs"')}
         FROM jsonb_to_recordset($1::jsonb) AS p(id text, answer text, "firstAttemptAtMs" double precision, "doubtedAtMs" double precision,
                "absentSinceMs" double precision, alarm text, "stripeUnits" bigint, error text, "nextAtMs" double precision)
         WHERE r.id = p.id AND r.next_at = ${fromMs("$2")}`,
        [JSON.stringify(progress), claimedUntilMs, nowMs],
      );
    },

    /** Replaces a claimed report by a carry-forward. The report never reached Stripe and would now be too late. */
    async carry(id: string, claimedUntilMs: number, nowMs: number): Promise<void> {
      await control.query(
        `WITH n AS (SELECT ${fromMs("$3")} AS now),
         given_up AS (
           UPDATE reports r SET answer = 'carried', confirmed_at = coalesce(r.confirmed_at, n.now), doubted_at = NULL, absent_since = NULL,
                                alarm = NULL, next_at = NULL
           FROM n WHERE r.id = $1 AND r.next_at = ${fromMs("$2")} RETURNING r.*)
         INSERT INTO carry_forwards (id, tenant_id, from_at, to_at, units, calls, reason, report_id, frozen_at)
         SELECT 'c1.' || id, tenant_id, stamp, stamp, units, calls, 'report_lost', id, n.now FROM given_up, n ON CONFLICT DO NOTHING`,
        [id, claimedUntilMs, nowMs],
      );
    },

    /**
     * Counts the tenant's ledger rows that are not frozen, up to the row `lastN` of its object's stream, and its reports that
     * Stripe may still confirm. Refused reports have their own alarm and are not counted.
     */
    async unsettled(tenantId: TenantId, epoch: string, lastN: number): Promise<Unsettled> {
      const [row] = await control.query(
        `SELECT (SELECT count(*) FROM ledger WHERE tenant_id = $1 AND report_id IS NULL AND carry_forward_id IS NULL
                   AND NOT (object = $1 AND epoch = $2 AND n > $3))::int AS unfrozen,
                (SELECT count(*) FROM reports WHERE tenant_id = $1 AND confirmed_at IS NULL AND alarm IS NULL)::int AS unconfirmed`,
        [tenantId, epoch, lastN],
      );
      return Unsettled.parse(row);
    },
  };
}

export type ReportsStore = ReturnType<typeof reportsStore>;

/** Key of the advisory lock for freezing and for pricing carry-forwards. The number is arbitrary. */
export const FREEZE_LOCK = 8_462_001;

/** About two seconds of work (0.1 ms a row). The control database has ten seconds to answer. */
const ROWS_AT_ONCE = 20_000;

/**
 * SQL: whether a report may have this minute. No other report has it. Its timestamp is in the past, in the period that earned
 * the usage, and in no closed period.
 */
function mayHave(minute: string): string {
  const stamp = `greatest(${minute}, opens)`;
  return `${stamp} <= n.now AND (closes IS NULL OR ${stamp} < closes)
    AND NOT EXISTS (SELECT FROM reports r WHERE r.tenant_id = sums.tenant_id AND r.slot = ${minute})
    AND NOT EXISTS (SELECT FROM billing_periods p WHERE p.tenant_id = sums.tenant_id AND ${stamp} >= p.starts_at AND ${stamp} < p.ends_at)`;
}
