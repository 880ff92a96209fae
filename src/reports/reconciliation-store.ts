// Stores the daily comparison with Stripe: its progress and the differences that it found. Each function is one
// transaction and can be repeated.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { readableRows } from "../control/failures-store.ts";
import type { Range } from "../adapters/stripe/meter.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toIso } from "../core/time.ts";
import {
  DAYS_BACK,
  type Drift,
  type InvoiceDrift,
  type MinuteReport,
  MOST_DAYS_BACK,
  SETTLED_FOR_MS,
} from "./reconciliation.ts";

const ComparedTenant = z.object({
  tenantId: TenantId,
  customerId: z.string(),
  startSeconds: z.coerce.number().int(),
  endSeconds: z.coerce.number().int(),
  reports: z.array(
    z.object({
      id: z.string(),
      startSeconds: z.int(),
      units: z.int(),
      state: z.enum(["there", "open", "elsewhere"]),
    }) satisfies z.ZodType<MinuteReport>,
  ),
  /** Start of the first period whose invoices are compared with its calls. `null`: none was closed lately. */
  invoicedFromSeconds: z.coerce.number().nullable(),
});
export type ComparedTenant = z.infer<typeof ComparedTenant> & Range;

const Comparison = z.object({
  /** The UTC day before which usage was compared. */
  day: z.string(),
  startedAt: z.string(),
  finishedAt: z.string().nullable(),
  tenants: z.int(),
  unreadTenants: z.int(),
  requests: z.int(),
});
export type Comparison = z.infer<typeof Comparison>;

const OpenDrift = z.object({
  tenantId: z.string(),
  /** `usage`: Stripe's meter against the reports. `invoice`: the invoices of a closed period against its calls. */
  of: z.enum(["usage", "invoice"]),
  kind: z.string(),
  startsAt: z.string(),
  expectedUnits: z.coerce.number().int(),
  stripeUnits: z.coerce.number().int(),
  foundAt: z.string(),
});
/** A difference that no later comparison has closed. */
export type OpenDrift = z.infer<typeof OpenDrift>;

const Claimed = z.object({ doneUntil: z.string() });

interface TenantOutcome {
  tenantId: TenantId;
  /** The compared days. */
  days: Range;
  /** `undefined`: Stripe refused to answer, and the stored differences stay. */
  drifts: readonly Drift[] | undefined;
  requests: number;
}

export function reconciliationStore(control: ControlDatabase) {
  return {
    /** Claims the comparison of `day` until `untilMs`. `undefined`: it is finished, or another process has it. */
    async claim(day: string, nowMs: number, untilMs: number): Promise<z.infer<typeof Claimed> | undefined> {
      const [, [row] = []] = await control.batch([
        {
          text: `INSERT INTO reconciliations (day, started_at) VALUES ($1, ${fromMs("$2")}) ON CONFLICT DO NOTHING`,
          params: [day, nowMs],
        },
        {
          text: `UPDATE reconciliations SET claimed_until = ${fromMs("$3")}
                 WHERE day = $1 AND finished_at IS NULL AND (claimed_until IS NULL OR claimed_until <= ${fromMs("$2")})
                 RETURNING done_until AS "doneUntil"`,
          params: [day, nowMs, untilMs],
        },
      ]);
      return row === undefined ? undefined : Claimed.parse(row);
    },

    /** The next tenants, with the days to compare and the reports of those days. The days include all open differences. */
    async tenants(day: string, doneUntil: string, nowMs: number, limit: number): Promise<ComparedTenant[]> {
      const rows = await control.query(
        `WITH d AS (SELECT $1::date::timestamp AT TIME ZONE 'UTC' AS ends_at, ${fromMs("$3")} AS now),
         compared AS (
           SELECT t.id, t.stripe_customer_id, d.*, greatest(d.ends_at - interval '${MOST_DAYS_BACK} days', least(
             d.ends_at - interval '${DAYS_BACK} days',
             (SELECT date_trunc('day', min(starts_at), 'UTC') FROM drifts WHERE tenant_id = t.id AND closed_at IS NULL))) AS starts_at
           FROM tenants t, d WHERE t.stripe_customer_id IS NOT NULL AND t.id COLLATE "C" > $2 ORDER BY t.id COLLATE "C" LIMIT $4)
         SELECT c.id AS "tenantId", c.stripe_customer_id AS "customerId",
                extract(epoch FROM c.starts_at)::bigint AS "startSeconds", extract(epoch FROM c.ends_at)::bigint AS "endSeconds",
                coalesce((SELECT jsonb_agg(jsonb_build_object('id', r.id, 'startSeconds', extract(epoch FROM r.slot)::bigint, 'units', r.units, 'state',
                  CASE WHEN r.answer IN ('carried', 'no_customer') THEN 'elsewhere'
                       WHEN r.confirmed_at IS NULL OR r.doubted_at IS NOT NULL OR r.confirmed_at > c.now - make_interval(secs => ${SETTLED_FOR_MS / 1000}) THEN 'open'
                       ELSE 'there' END))
                  FROM reports r WHERE r.tenant_id = c.id AND r.slot >= c.starts_at AND r.slot < c.ends_at), '[]') AS reports,
                extract(epoch FROM least(
                  (SELECT min(starts_at) FROM billing_periods WHERE tenant_id = c.id AND finalized_at > c.now - interval '${DAYS_BACK} days'
                     AND finalized_at < c.now - make_interval(secs => ${SETTLED_FOR_MS / 1000})),
                  (SELECT min(starts_at) FROM invoice_drifts WHERE tenant_id = c.id AND closed_at IS NULL)))::bigint AS "invoicedFromSeconds"
         FROM compared c ORDER BY c.id COLLATE "C"`,
        [day, doneUntil, nowMs, limit],
      );
      return readableRows(control, rows, ComparedTenant, {
        part: "reconciliation",
        idOf: (row) => String(row["tenantId"]),
      });
    },

    /**
     * Stores a tenant's differences, closes its earlier differences that are gone, and moves the progress to this tenant.
     * Marks a report that Stripe lacks as doubted, so that a summary decides about it.
     */
    async finishTenant(day: string, outcome: TenantOutcome, nowMs: number, claimedUntilMs: number): Promise<void> {
      const { tenantId, days, drifts, requests } = outcome;
      await control.query(
        `WITH n AS (SELECT ${fromMs("$2")} AS now),
         found AS (
           SELECT to_timestamp(f."startSeconds") AS starts_at, (f."endSeconds" - f."startSeconds") / 60 AS minutes, f.kind, f."reportId" AS report_id,
                  f."reportedUnits" AS reported_units, f."stripeUnits" AS stripe_units
           FROM jsonb_to_recordset($3::jsonb) AS f("startSeconds" bigint, "endSeconds" bigint, kind text, "reportId" text, "reportedUnits" bigint, "stripeUnits" bigint)),
         kept AS (
           INSERT INTO drifts AS d (tenant_id, starts_at, minutes, kind, report_id, reported_units, stripe_units, found_at, seen_at)
           SELECT $1, found.*, n.now, n.now FROM found, n
           ON CONFLICT (tenant_id, starts_at, minutes) DO UPDATE SET kind = excluded.kind, report_id = excluded.report_id,
             reported_units = excluded.reported_units, stripe_units = excluded.stripe_units, seen_at = excluded.seen_at, closed_at = NULL),
         gone AS (
           UPDATE drifts d SET closed_at = n.now FROM n
           WHERE $4::boolean AND d.tenant_id = $1 AND d.closed_at IS NULL AND d.starts_at >= to_timestamp($5::double precision) AND d.starts_at < to_timestamp($6::double precision)
             AND NOT EXISTS (SELECT FROM found f WHERE f.starts_at = d.starts_at AND f.minutes = d.minutes)),
         doubted AS (
           UPDATE reports r SET doubted_at = n.now, next_at = NULL FROM found f, n
           WHERE f.kind IN ('missing', 'less') AND r.id = f.report_id AND r.doubted_at IS NULL)
         UPDATE reconciliations SET done_until = greatest(done_until, $1), tenants = tenants + 1, requests = requests + $7,
                unread_tenants = unread_tenants + CASE WHEN $4::boolean THEN 0 ELSE 1 END
         WHERE day = $8 AND done_until < $1 AND claimed_until = ${fromMs("$9")}`,
        [
          tenantId,
          nowMs,
          JSON.stringify(drifts ?? []),
          drifts !== undefined,
          days.startSeconds,
          days.endSeconds,
          requests,
          day,
          claimedUntilMs,
        ],
      );
    },

    /** Stores the differences of a tenant's invoices in the periods from `fromSeconds` on, and closes earlier ones that are gone. */
    async recordInvoices(
      tenantId: TenantId,
      fromSeconds: number,
      drifts: readonly InvoiceDrift[],
      nowMs: number,
    ): Promise<void> {
      await control.query(
        `WITH n AS (SELECT ${fromMs("$2")} AS now),
         found AS (SELECT f."subscriptionId" AS subscription_id, to_timestamp(f."startSeconds") AS starts_at, f.plan, f."earnedUnits" AS earned_units,
                          f."invoicedUnits" AS invoiced_units
           FROM jsonb_to_recordset($3::jsonb) AS f("subscriptionId" text, "startSeconds" double precision, plan text, "earnedUnits" bigint, "invoicedUnits" bigint)),
         kept AS (
           INSERT INTO invoice_drifts (tenant_id, subscription_id, starts_at, plan, earned_units, invoiced_units, found_at, seen_at)
           SELECT $1, found.*, n.now, n.now FROM found, n
           ON CONFLICT (tenant_id, subscription_id, starts_at, plan) DO UPDATE SET earned_units = excluded.earned_units,
             invoiced_units = excluded.invoiced_units, seen_at = excluded.seen_at, closed_at = NULL)
         UPDATE invoice_drifts d SET closed_at = n.now FROM n
         WHERE d.tenant_id = $1 AND d.closed_at IS NULL AND d.starts_at >= to_timestamp($4::double precision)
           AND NOT EXISTS (SELECT FROM found f WHERE (f.subscription_id, f.starts_at, f.plan) = (d.subscription_id, d.starts_at, d.plan))`,
        [tenantId, nowMs, JSON.stringify(drifts), fromSeconds],
      );
    },

    /** The last comparisons, the newest first. */
    async comparisons(limit: number): Promise<Comparison[]> {
      const rows = await control.query(
        `SELECT to_char(day, 'YYYY-MM-DD') AS day, ${toIso("started_at")} AS "startedAt", ${toIso("finished_at")} AS "finishedAt",
                tenants, unread_tenants AS "unreadTenants", requests
         FROM reconciliations ORDER BY reconciliations.day DESC LIMIT $1`,
        [limit],
      );
      return rows.map((row) => Comparison.parse(row));
    },

    /** Up to `limit` differences that are open, the latest first. */
    async openDrifts(limit: number): Promise<OpenDrift[]> {
      const rows = await control.query(
        `SELECT "tenantId", "of", kind, ${toIso("starts_at")} AS "startsAt", "expectedUnits", "stripeUnits", ${toIso("found_at")} AS "foundAt"
         FROM (SELECT tenant_id AS "tenantId", 'usage' AS "of", kind, starts_at, reported_units AS "expectedUnits",
                      stripe_units AS "stripeUnits", found_at FROM drifts WHERE closed_at IS NULL
               UNION ALL
               SELECT tenant_id, 'invoice', plan, starts_at, earned_units, invoiced_units, found_at
               FROM invoice_drifts WHERE closed_at IS NULL) AS d
         ORDER BY found_at DESC, "tenantId" LIMIT $1`,
        [limit],
      );
      return rows.map((row) => OpenDrift.parse(row));
    },

    /** Ends the claim. The comparison is `finished`, or the next run continues it. */
    async release(day: string, finished: boolean, nowMs: number, claimedUntilMs: number): Promise<void> {
      await control.query(
        `UPDATE reconciliations SET claimed_until = NULL, finished_at = CASE WHEN $2::boolean THEN ${fromMs("$3")} END
         WHERE day = $1 AND finished_at IS NULL AND claimed_until = ${fromMs("$4")}`,
        [day, finished, nowMs, claimedUntilMs],
      );
    },
  };
}
