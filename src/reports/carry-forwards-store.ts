// Stores carry-forwards: usage that came too late for its invoice. Each function is one transaction and can be repeated. A carry-forward's usage and its `units_before` are written once. A claim
// is identified by its end in `next_at`, as with reports.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { readableRows } from "../control/failures-store.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toMs } from "../core/time.ts";
import { periodOf, within } from "./periods-store.ts";
import { FREEZE_LOCK } from "./reports-store.ts";

/** The price of a period's units. */
export interface Tariff {
  /** Units of a period that cost nothing. */
  readonly includedUnits: number;
  /** Price of each further unit: a decimal string of cents. `null`: the plan does not sell single units. */
  readonly unitAmountCents: string | null;
}

export interface ItemKey {
  /** 0: no key has been used. */
  readonly number: number;
  /** Since when the key is in use. `null` exactly when the number is 0. */
  readonly sinceMs: number | null;
}

const CarryForward = z.object({
  id: z.string(),
  tenantId: TenantId,
  customerId: z.string(),
  units: z.coerce.number().int(),
  unitsBefore: z.coerce.number().int(),
  includedUnits: z.coerce.number().int(),
  unitAmountCents: z.string().nullable(),
  startSeconds: z.coerce.number().int(),
  endSeconds: z.coerce.number().int(),
  frozenSeconds: z.coerce.number().int(),
  keyNumber: z.int(),
  keySinceMs: z.coerce.number().nullable(),
  /** The tenant has no subscription any more, so no invoice comes by itself. */
  ended: z.boolean(),
});
export type CarryForward = z.infer<typeof CarryForward> & Tariff;

type CarryForwardAnswer = "created" | "found" | "covered";

export type CarryForwardsStore = ReturnType<typeof carryForwardsStore>;

/** SQL: the start of the first period that shares its included units with the closed period `p`. */
function sharedSince(period: string): string {
  return `coalesce((SELECT max(f.starts_at) FROM subscription_periods f
    WHERE f.tenant_id = ${period}.tenant_id AND f.starts_at <= ${period}.starts_at AND NOT f.shares_included), ${period}.starts_at)`;
}

/** SQL: units of the periods before the closed period `p` that share its included units. */
function unitsSharedWith(period: string): string {
  return `(SELECT coalesce(sum(u.units), 0) FROM (
    SELECT r.units FROM reports r WHERE r.tenant_id = ${period}.tenant_id AND r.plan = ${period}.plan AND r.answer IN ('accepted', 'duplicate', 'summary')
      AND r.stamp >= ${sharedSince(period)} AND r.stamp < ${period}.starts_at
    UNION ALL
    SELECT c.units FROM carry_forwards c WHERE c.tenant_id = ${period}.tenant_id AND c.calls > 0
      AND c.to_at >= ${sharedSince(period)} AND c.to_at < ${period}.starts_at) u)`;
}

/** SQL: whether tenant `t` has no subscription that will be invoiced again. */
const ended = `(t.stripe_subscription_id IS NULL OR t.subscription_ended_at IS NOT NULL OR t.state = 'gone'
  OR t.state = 'leaving' AND EXISTS (SELECT FROM removals r WHERE r.tenant_id = t.id AND r.step NOT IN ('usage', 'undone', 'done')))`;

export function carryForwardsStore(control: ControlDatabase) {
  return {
    /**
     * Sets the `units_before` of carry-forwards once the invoice is known and no report of the period is open. Their prices
     * then add up in any order. Settles carry-forwards that no invoice can bill, because the tenant has no customer, or had no
     * subscription at Stripe at that time. `tenantId` limits it to one tenant.
     */
    async price(nowMs: number, tenantId?: TenantId): Promise<void> {
      await control.batch([
        // One process sets prices at a time, and no process freezes reports meanwhile.
        { text: `SELECT pg_advisory_xact_lock($1)`, params: [FREEZE_LOCK] },
        {
          text: `UPDATE carry_forwards c SET settled_at = ${fromMs("$1")},
                        answer = CASE WHEN t.stripe_customer_id IS NULL THEN 'no_customer' ELSE 'no_subscription' END
                 FROM carry_forwards own JOIN tenants t ON t.id = own.tenant_id
                   LEFT JOIN LATERAL ${periodOf("own.tenant_id", "own.to_at")} s ON true
                 WHERE own.id = c.id AND own.settled_at IS NULL AND own.priced_at IS NULL AND t.state <> 'provisioning'
                   AND ($2::text IS NULL OR t.id = $2)
                   AND (t.stripe_customer_id IS NULL OR (s.subscription_id IS NULL AND (s.starts_at IS NOT NULL OR t.stripe_subscription_id IS NULL)
                        AND NOT EXISTS (SELECT FROM billing_periods p WHERE p.tenant_id = t.id
                              AND (s.starts_at IS NULL OR own.to_at >= p.starts_at AND own.to_at < p.ends_at))))`,
          params: [nowMs, tenantId ?? null],
        },
        {
          text: `WITH found AS (
                   SELECT c.id, c.units, c.frozen_at, p.* FROM carry_forwards c
                   LEFT JOIN LATERAL ${periodOf("c.tenant_id", "c.to_at")} s ON true
                   CROSS JOIN LATERAL (SELECT p.invoice_id, p.tenant_id, p.starts_at, p.ends_at, p.invoiced_units, p.plan FROM billing_periods p
                     WHERE p.tenant_id = c.tenant_id AND ${within("c.to_at")} >= p.starts_at AND ${within("c.to_at")} < p.ends_at
                     ORDER BY finalized_at LIMIT 1) p
                   WHERE c.settled_at IS NULL AND c.priced_at IS NULL AND ($2::text IS NULL OR c.tenant_id = $2)),
                 closed AS (
                   SELECT f.* FROM found f WHERE f.invoiced_units IS NOT NULL OR NOT EXISTS (
                     SELECT FROM reports r WHERE r.tenant_id = f.tenant_id AND r.stamp >= f.starts_at AND r.stamp < f.ends_at
                       AND (r.confirmed_at IS NULL OR r.doubted_at IS NOT NULL))),
                 totals AS (
                   SELECT id, invoice_id,
                     coalesce(invoiced_units, (SELECT sum(r.units) FROM reports r WHERE r.tenant_id = closed.tenant_id
                       AND r.stamp >= starts_at AND r.stamp < ends_at AND r.answer IN ('accepted', 'duplicate', 'summary')), 0)
                     + coalesce((SELECT sum(o.units) FROM carry_forwards o WHERE o.invoice_id = closed.invoice_id AND o.reason <> 'included_once'), 0)
                     + ${unitsSharedWith("closed")}
                     + coalesce(sum(units) OVER (PARTITION BY invoice_id ORDER BY frozen_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS units_before
                   FROM closed)
                 UPDATE carry_forwards c SET invoice_id = totals.invoice_id, units_before = totals.units_before,
                                             priced_at = ${fromMs("$1")}
                 FROM totals WHERE c.id = totals.id`,
          params: [nowMs, tenantId ?? null],
        },
        {
          // A report may reach Stripe after the invoice of its period, before Tollgate knows that the invoice is final.
          text: `WITH n AS (SELECT ${fromMs("$1")} AS now),
                 closed AS (
                   SELECT p.* FROM n, billing_periods p
                   WHERE p.invoiced_units IS NOT NULL AND p.finalized_at > n.now - interval '40 days' AND ($2::text IS NULL OR p.tenant_id = $2)
                     AND NOT EXISTS (SELECT FROM carry_forwards c WHERE c.id = 'x1.' || p.invoice_id)
                     AND NOT EXISTS (SELECT FROM reports r WHERE r.tenant_id = p.tenant_id AND r.stamp >= p.starts_at AND r.stamp < p.ends_at
                       AND (r.confirmed_at IS NULL OR r.doubted_at IS NOT NULL))),
                 counted AS (
                   SELECT closed.*, (SELECT sum(r.units) FROM reports r WHERE r.tenant_id = closed.tenant_id AND r.plan = closed.plan
                     AND r.stamp >= starts_at AND r.stamp < ends_at AND r.answer IN ('accepted', 'duplicate', 'summary')) AS units,
                     coalesce((SELECT sum(o.units) FROM carry_forwards o WHERE o.invoice_id = closed.invoice_id AND o.reason <> 'included_once'), 0) + ${unitsSharedWith("closed")} AS others
                   FROM closed)
                 INSERT INTO carry_forwards (id, tenant_id, from_at, to_at, units, calls, reason, frozen_at, invoice_id, units_before, priced_at)
                 SELECT 'x1.' || invoice_id, tenant_id, starts_at, starts_at, units - invoiced_units, 0, 'not_invoiced', now, invoice_id,
                        invoiced_units + others, now
                 FROM n, counted WHERE units > invoiced_units ON CONFLICT DO NOTHING`,
          params: [nowMs, tenantId ?? null],
        },
        {
          // Stripe includes units in each period. Of periods that share one payment it included some twice. These are billed
          // like late usage, at the price of units that are not included.
          text: `WITH n AS (SELECT ${fromMs("$1")} AS now),
                 closed AS (
                   SELECT p.* FROM n, subscription_periods s JOIN billing_periods p ON p.tenant_id = s.tenant_id AND p.starts_at = s.starts_at
                   WHERE s.shares_included AND p.unit_amount_cents IS NOT NULL AND p.finalized_at > n.now - interval '40 days'
                     AND ($2::text IS NULL OR p.tenant_id = $2) AND NOT EXISTS (SELECT FROM carry_forwards c WHERE c.id = 'i1.' || p.invoice_id)
                     AND NOT EXISTS (SELECT FROM reports r WHERE r.tenant_id = p.tenant_id AND r.stamp < p.ends_at
                       AND r.stamp >= ${sharedSince("p")} AND (r.confirmed_at IS NULL OR r.doubted_at IS NOT NULL))),
                 counted AS (
                   SELECT closed.*, coalesce(included_units, 0) AS included, ${unitsSharedWith("closed")} AS before,
                     coalesce(invoiced_units, (SELECT sum(r.units) FROM reports r WHERE r.tenant_id = closed.tenant_id AND r.plan = closed.plan
                       AND r.stamp >= starts_at AND r.stamp < ends_at AND r.answer IN ('accepted', 'duplicate', 'summary')), 0) AS units
                   FROM closed)
                 INSERT INTO carry_forwards (id, tenant_id, from_at, to_at, units, calls, reason, frozen_at, invoice_id, units_before, priced_at)
                 SELECT 'i1.' || invoice_id, tenant_id, starts_at, starts_at, extra, 0, 'included_once', now, invoice_id, included, now
                 FROM n, counted, LATERAL (SELECT greatest(before + units - included, 0) - greatest(before - included, 0) - greatest(units - included, 0) AS extra) e
                 WHERE extra > 0 ON CONFLICT DO NOTHING`,
          params: [nowMs, tenantId ?? null],
        },
      ]);
    },

    /** Claims, until `untilMs`, due carry-forwards whose price is known, of all tenants or of one. */
    async claim(of: { nowMs: number; untilMs: number; limit: number; tenantId?: TenantId | undefined }) {
      const rows = await control.query(
        `UPDATE carry_forwards c SET next_at = ${fromMs("$2")}
         FROM (SELECT c.id, t.stripe_customer_id, ${ended} AS ended FROM carry_forwards c JOIN tenants t ON t.id = c.tenant_id
               WHERE c.settled_at IS NULL AND c.priced_at IS NOT NULL AND t.stripe_customer_id IS NOT NULL
                 AND (c.next_at IS NULL OR c.next_at <= ${fromMs("$1")}) AND ($4::text IS NULL OR c.tenant_id = $4)
               ORDER BY c.next_at NULLS FIRST, c.id LIMIT $3 FOR UPDATE OF c SKIP LOCKED) due, billing_periods p
         WHERE c.id = due.id AND p.invoice_id = c.invoice_id
         RETURNING c.id, c.tenant_id AS "tenantId", due.stripe_customer_id AS "customerId", c.units, c.units_before AS "unitsBefore",
                   coalesce(p.included_units, 0) AS "includedUnits", p.unit_amount_cents::text AS "unitAmountCents",
                   extract(epoch FROM p.starts_at)::bigint AS "startSeconds", extract(epoch FROM p.ends_at)::bigint AS "endSeconds",
                   extract(epoch FROM c.frozen_at)::bigint AS "frozenSeconds",
                   c.key_number AS "keyNumber", ${toMs("c.key_at")} AS "keySinceMs", due.ended`,
        [of.nowMs, of.untilMs, of.limit, of.tenantId ?? null],
      );
      return readableRows(control, rows, CarryForward, { part: "carry_forwards", idOf: (row) => String(row["id"]) });
    },

    /** Records a key before its use. Returns false when the claim has ended. Then the key must not be used. */
    async recordKey(id: string, key: ItemKey, claimedUntilMs: number): Promise<boolean> {
      const rows = await control.query(
        `UPDATE carry_forwards SET key_number = $2, key_at = ${fromMs("$3")}
         WHERE id = $1 AND next_at = ${fromMs("$4")} RETURNING id`,
        [id, key.number, key.sinceMs, claimedUntilMs],
      );
      return rows.length > 0;
    },

    /** Records that a carry-forward is billed, or that nothing is to be billed. A repetition changes nothing. */
    async settle(id: string, answer: CarryForwardAnswer, invoiceItemId: string | null, nowMs: number): Promise<void> {
      await control.query(
        `UPDATE carry_forwards SET settled_at = ${fromMs("$4")}, answer = $2, invoice_item_id = $3, error = NULL
         WHERE id = $1 AND settled_at IS NULL`,
        [id, answer, invoiceItemId, nowMs],
      );
    },

    /** Schedules the next attempt. `error`: Stripe's reason for a refusal, for the operator. `null` keeps the stored one. */
    async postpone(id: string, error: string | null, nextAtMs: number, claimedUntilMs: number): Promise<void> {
      await control.query(
        `UPDATE carry_forwards SET error = coalesce($2, error), next_at = ${fromMs("$3")}
         WHERE id = $1 AND settled_at IS NULL AND next_at = ${fromMs("$4")}`,
        [id, error, nextAtMs, claimedUntilMs],
      );
    },
  };
}
