// Stores the periods of each tenant's subscriptions, and which of them are closed: their invoice is final, or their subscription
// has ended within them. Stripe counts a meter event in every period of the customer that contains its timestamp. So the
// reporter must know all periods: usage is reported in the period that earned it, and in no other one.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import type { Subscription } from "../adapters/stripe/subscriptions.ts";
import { type PlanName, planOf } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { fromMs } from "../core/time.ts";

/** A period whose usage no invoice takes from the meter any more. */
interface ClosedPeriod {
  /** The final invoice. */
  invoiceId: string;
  tenantId: TenantId;
  startMs: number;
  /** Exclusive. */
  endMs: number;
  /** The plan whose units the invoice billed. */
  plan: PlanName;
  /** Usage of a trial is free, also when it is late. */
  isTrial?: boolean;
  /** Quantity of the invoice's metered lines. `null`: the invoice has none. */
  invoicedUnits: number | null;
  finalizedAtMs: number;
}

const EarnedUnits = z.object({
  subscriptionId: z.string(),
  /** Start of the period. */
  startSeconds: z.number(),
  plan: z.string(),
  units: z.number(),
  /** No invoice takes further usage of the period, and Stripe has confirmed its reports. */
  closed: z.boolean(),
});
export type EarnedUnits = z.infer<typeof EarnedUnits>;

/** Stripe's times are whole seconds, rounded down. A subscription may have run until the end of its last second. */
const LAST_SECOND_MS = 1_000;

export type PeriodsStore = ReturnType<typeof periodsStore>;

export function periodsStore(control: ControlDatabase) {
  return {
    /**
     * Records the current period of each subscription of a tenant, among those of its customer as Stripe has them now. Closes
     * a period within which its subscription has ended. Earlier periods end where a later subscription begins. A repetition
     * changes nothing.
     */
    async record(
      tenant: { id: TenantId; plan: PlanName; subscriptionId: string | null },
      ofCustomer: readonly Subscription[],
    ): Promise<void> {
      const periods = periodsOf(
        ofCustomer.filter(({ id, tenantId }) => tenantId === tenant.id || id === tenant.subscriptionId),
      );
      if (periods.length === 0) return;
      const closed = periods.flatMap(({ subscription, startMs, endMs, isTrial, endedEarlyAtMs }) => {
        if (endedEarlyAtMs === null) return [];
        const { includedUnits, unitAmountCents, name } = planOf(subscription.plan ?? tenant.plan);
        return {
          ...{ invoiceId: `ended.${subscription.id}.${startMs / 1000}`, startMs, endMs, plan: name, includedUnits },
          ...{ unitAmountCents: isTrial ? null : unitAmountCents, finalizedAtMs: endedEarlyAtMs },
        };
      });
      await control.batch([
        {
          text: `INSERT INTO subscription_periods AS p (subscription_id, tenant_id, starts_at, ends_at, ended, trial)
                 SELECT r.id, $1, ${fromMs('r."startMs"')}, ${fromMs('r."endMs"')}, r.ended, r.trial
                 FROM jsonb_to_recordset($2::jsonb) AS r(id text, "startMs" double precision, "endMs" double precision, ended boolean, trial boolean)
                 ORDER BY r.id
                 ON CONFLICT (subscription_id, starts_at) DO UPDATE SET ends_at = excluded.ends_at, ended = excluded.ended
                 WHERE (p.ends_at, p.ended) IS DISTINCT FROM (excluded.ends_at, excluded.ended)`,
          params: [
            tenant.id,
            JSON.stringify(
              periods.map(({ subscription: { id }, isTrial: trial, ...period }) => ({ ...period, id, trial })),
            ),
          ],
        },
        {
          text: `INSERT INTO billing_periods (invoice_id, tenant_id, starts_at, ends_at, plan, included_units, unit_amount_cents, finalized_at)
                 SELECT r."invoiceId", $1, ${fromMs('r."startMs"')}, ${fromMs('r."endMs"')}, r.plan, r."includedUnits", r."unitAmountCents",
                        ${fromMs('r."finalizedAtMs"')}
                 FROM jsonb_to_recordset($2::jsonb) AS r("invoiceId" text, "startMs" double precision, "endMs" double precision, plan text,
                   "includedUnits" bigint, "unitAmountCents" numeric, "finalizedAtMs" double precision) ON CONFLICT DO NOTHING`,
          params: [tenant.id, JSON.stringify(closed)],
        },
        {
          text: `UPDATE billing_periods b SET ends_at = later.at
                 FROM (SELECT p.invoice_id, min(s.starts_at) AS at FROM billing_periods p
                       JOIN subscription_periods s ON s.tenant_id = p.tenant_id AND s.starts_at > p.starts_at AND s.starts_at < p.ends_at
                       WHERE p.tenant_id = $1 GROUP BY p.invoice_id) later
                 WHERE b.invoice_id = later.invoice_id`,
          params: [tenant.id],
        },
      ]);
    },

    /** Records that a period of a subscription shares the included units of the period before: its base price was paid with it. */
    async shareIncluded(subscriptionId: string): Promise<void> {
      await control.query(
        `UPDATE subscription_periods p SET shares_included = true WHERE subscription_id = $1
           AND starts_at = (SELECT min(f.starts_at) FROM subscription_periods f WHERE f.subscription_id = $1)`,
        [subscriptionId],
      );
    },

    /**
     * Records that the invoice of a period is final. Later usage of the period becomes a carry-forward. A repetition changes
     * nothing. Call it after `record`.
     */
    async close(period: ClosedPeriod): Promise<void> {
      const { unitAmountCents, includedUnits } = planOf(period.plan);
      await control.query(
        `INSERT INTO billing_periods (invoice_id, tenant_id, starts_at, ends_at, plan, included_units, unit_amount_cents, invoiced_units, finalized_at)
         VALUES ($1, $2, ${fromMs("$3")}, least(${fromMs("$4")}, (SELECT min(starts_at) FROM subscription_periods
                   WHERE tenant_id = $2 AND starts_at > ${fromMs("$3")})), $5, $6, $7::numeric, $8, ${fromMs("$9")}) ON CONFLICT (invoice_id) DO NOTHING`,
        [
          period.invoiceId,
          period.tenantId,
          period.startMs,
          period.endMs,
          period.plan,
          includedUnits,
          period.isTrial === true ? null : unitAmountCents,
          period.invoicedUnits,
          period.finalizedAtMs,
        ],
      );
    },

    /**
     * Units of the tenant's calls that its invoices must have: those that went to Stripe's meter in time, by the period that earned them and the plan that they were
     * reported under, for calls since `sinceMs`. Skips trials, which no invoice bills, and calls outside of all periods.
     * `withUnreported`: also calls that are in no report yet.
     */
    async earnedUnits(
      tenantId: TenantId,
      sinceMs: number,
      { withUnreported = false }: { withUnreported?: boolean } = {},
    ): Promise<EarnedUnits[]> {
      const rows = await control.query(
        `WITH own AS (SELECT report_id, min(at) AS at, sum(units) AS units FROM ledger
                      WHERE tenant_id = $1 AND at >= ${fromMs("$2")} AND carry_forward_id IS NULL AND (report_id IS NOT NULL OR $3::boolean)
                      GROUP BY report_id, CASE WHEN report_id IS NULL THEN call_id END),
         earned AS (
           SELECT s.subscription_id, s.starts_at, coalesce(r.plan, t.plan) AS plan, sum(own.units) AS units,
                  bool_or(coalesce(r.confirmed_at IS NULL AND r.id IS NOT NULL OR r.doubted_at IS NOT NULL, false)) AS is_open
           FROM own JOIN tenants t ON t.id = $1 LEFT JOIN reports r ON r.id = own.report_id
             JOIN LATERAL ${periodOf("$1", "own.at")} s ON s.subscription_id IS NOT NULL
           WHERE coalesce(r.answer NOT IN ('carried', 'no_customer'), true)
             AND NOT EXISTS (SELECT FROM subscription_periods p WHERE p.subscription_id = s.subscription_id AND p.starts_at = s.starts_at AND p.trial)
           GROUP BY 1, 2, 3)
         SELECT e.subscription_id AS "subscriptionId", extract(epoch FROM e.starts_at)::double precision AS "startSeconds", e.plan,
                (e.units - coalesce(closed.missed, 0))::double precision AS units, closed.plan IS NOT NULL AND NOT e.is_open AS closed
         FROM earned e LEFT JOIN LATERAL (
           SELECT p.plan, (SELECT sum(c.units) FROM carry_forwards c WHERE c.invoice_id = p.invoice_id AND c.reason = 'not_invoiced' AND p.plan = e.plan) AS missed
           FROM billing_periods p WHERE p.tenant_id = $1 AND e.starts_at >= p.starts_at AND e.starts_at < p.ends_at ORDER BY p.finalized_at LIMIT 1) closed ON true`,
        [tenantId, sinceMs, withUnreported],
      );
      return rows.map((row) => EarnedUnits.parse(row));
    },
  };
}

/**
 * The current period of each subscription. Two never overlap: an earlier one ends in the second in which a later
 * subscription begins. Skips second subscriptions that Tollgate has ended.
 */
export function periodsOf(subscriptions: readonly Subscription[]) {
  const periods = subscriptions
    .filter(({ isDuplicate }) => isDuplicate !== true)
    .flatMap((each) => subscriptionPeriod(each) ?? []);
  const begins = periods.map(({ subscription }) => subscription.createdAtMs);
  return periods.map((period) => ({
    ...period,
    endMs: Math.min(period.endMs, ...begins.filter((atMs) => atMs > period.startMs)),
  }));
}

/** The current period of a subscription. `undefined`: it was never paid, or Stripe gives no period. */
export function subscriptionPeriod(subscription: Subscription) {
  const { status, periodStartMs: startMs, periodEndMs, endedAtMs } = subscription;
  if (startMs === null || periodEndMs === null || status === "incomplete" || status === "incomplete_expired")
    return undefined;
  const ended = endedAtMs !== null;
  const isEarly = ended && endedAtMs < periodEndMs;
  const endMs = isEarly ? Math.max(endedAtMs, startMs) + LAST_SECOND_MS : periodEndMs;
  if (endMs <= startMs) return undefined;
  const isTrial = (subscription.trialUntilMs ?? -Infinity) > startMs;
  return { subscription, startMs, endMs, ended, isTrial, endedEarlyAtMs: isEarly ? endedAtMs : null };
}

/** Maximum difference between the clocks of Stripe and of a tenant's object. Calls run only after Stripe has the subscription. */
const CLOCK_SLACK = "interval '5 seconds'";

/**
 * SQL: the period that earned usage at an instant, as a row of `subscription_id`, `starts_at` and `closes_at` (exclusive). A
 * period closes when a later subscription begins. The next period of a running subscription counts before Stripe's event
 * about it arrives. Usage that only a difference of clocks puts outside belongs to the nearest period. Other usage outside
 * belongs to a gap, whose `subscription_id` is null. No row: the tenant has never had a subscription.
 */
export function periodOf(tenantId: string, at: string): string {
  const next = (after: string): string =>
    `(SELECT min(n.starts_at) FROM subscription_periods n WHERE n.tenant_id = p.tenant_id AND n.starts_at ${after})`;
  return `(SELECT q.subscription_id, q.starts_at, q.closes_at FROM (
      SELECT p.subscription_id, p.starts_at, least(p.ends_at, ${next("> p.starts_at")}) AS closes_at, ${CLOCK_SLACK} AS slack
      FROM subscription_periods p WHERE p.tenant_id = ${tenantId}
      UNION ALL
      SELECT p.subscription_id, p.ends_at, 'infinity', ${CLOCK_SLACK} FROM subscription_periods p
      WHERE p.tenant_id = ${tenantId} AND NOT p.ended AND ${next(">= p.ends_at")} IS NULL
      UNION ALL
      SELECT NULL, p.ends_at, coalesce(${next("> p.starts_at")}, 'infinity'), NULL FROM subscription_periods p WHERE p.tenant_id = ${tenantId} AND p.ended
      UNION ALL
      SELECT NULL, '-infinity', min(p.starts_at), NULL FROM subscription_periods p WHERE p.tenant_id = ${tenantId}) q
    WHERE ${at} >= q.starts_at - coalesce(q.slack, interval '0') AND ${at} < q.closes_at + coalesce(q.slack, interval '0')
    ORDER BY q.slack IS NULL, ${at} < q.starts_at OR ${at} >= q.closes_at, q.starts_at DESC, q.subscription_id LIMIT 1)`;
}

/** SQL: an instant, moved into its period `s` of `periodOf`. Without a period it stays. */
export function within(at: string): string {
  return `least(greatest(${at}, s.starts_at), s.closes_at - interval '1 microsecond')`;
}
