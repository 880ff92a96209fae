// Helpers of billing tests: a customer with ledger rows instead of calls, and a clock that the test moves.
import { randomUUID } from "node:crypto";
import { ledgerStore } from "../../src/control/ledger-store.ts";
import { connectNeon } from "../../src/adapters/neon.ts";
import { planOf } from "../../src/core/plans/plans.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { asSuperuser, controlRows, fireCron, rowsOf, simulator, stripeApi, system } from "./flow.ts";

export interface BilledTenant {
  id: TenantId;
  customerId: string;
}

/** The control database with the product's own login. */
export function control() {
  return connectNeon(system.serviceUrl, `${system.proxyUrl}/sql`);
}

/** A tenant that was never provisioned; with a customer at Stripe unless `customer` is false. */
export async function aBilledTenant({ plan = "pro", customer = true } = {}): Promise<BilledTenant> {
  const id = TenantId.parse(`b${randomUUID().slice(0, 8)}`);
  const made = customer ? await stripeApi<{ id: string }>("/customers", { name: id }) : undefined;
  await controlRows(
    `INSERT INTO tenants (id, name, plan, strategy, state, limits, delivered_version, stripe_customer_id, monitored_at, provisioned_at)
     VALUES ($1, $1, $2, 'shared', 'active', $4, 1, $3, now(), now())`,
    [id, plan, made?.id ?? null, JSON.stringify(planOf(plan).limits)],
  );
  return { id, customerId: made?.id ?? "" };
}

const streams = new Map<string, number>();

/** Rows in the ledger, one for each of `units`, all admitted at `atMs`. */
export async function used(tenant: BilledTenant, units: readonly number[], atMs: number): Promise<void> {
  const from = streams.get(tenant.id) ?? 0;
  streams.set(tenant.id, from + units.length);
  const rows = units.map((each, index) => ({
    callId: randomUUID(),
    n: from + index + 1,
    tool: "search_products",
    units: each,
    atMs,
  }));
  await ledgerStore(control()).record([{ tenantId: tenant.id, object: tenant.id, epoch: "test", rows }]);
}

/** Moves Stripe's clock to `atMs` and fires the report cron for that time. */
export async function billAt(atMs: number): Promise<void> {
  await simulator("/clock", { offsetMs: Math.round(atMs - Date.now()) });
  await fireCron("*/5 * * * *", Math.round(atMs));
}

/** The same, with the comparison of that day, which another test of this system may have done already. */
export async function compareAt(atMs: number): Promise<void> {
  const day = new Date(atMs).toISOString().slice(0, 10);
  await rowsOf(asSuperuser(system.controlUrl), `DELETE FROM reconciliations WHERE day >= $1::date`, [day]);
  await billAt(atMs);
}

/** Sends usage directly to Stripe's meter. */
export async function meterBehindOurBack(tenant: BilledTenant, units: number, atMs: number): Promise<void> {
  await stripeApi("/billing/meter_events", {
    event_name: "mcp_units",
    identifier: randomUUID(),
    timestamp: String(Math.floor(atMs / 1000)),
    "payload[stripe_customer_id]": tenant.customerId,
    "payload[value]": String(units),
  });
}

export async function meteredUnits(tenant: BilledTenant): Promise<number> {
  const totals = (await simulator("/meter-totals")) as Record<string, Record<string, number>>;
  return totals[tenant.customerId]?.["mcp_units"] ?? 0;
}

export interface ReportRow {
  id: string;
  units: number;
  attempts: number;
  answer: string | null;
  confirmed: boolean;
  doubted: boolean;
  alarm: string | null;
  stripeUnits: number | null;
}

export function reportsOf(tenant: BilledTenant): Promise<ReportRow[]> {
  return controlRows<ReportRow>(
    `SELECT id, units::int AS units, attempts, answer, confirmed_at IS NOT NULL AS confirmed, doubted_at IS NOT NULL AS doubted, alarm,
            stripe_units::int AS "stripeUnits" FROM reports WHERE tenant_id = $1 ORDER BY frozen_at, slot`,
    [tenant.id],
  );
}

/** Checks that each call of a tenant is in one report or carry-forward, and that each of those is the sum of its calls. */
export async function misplaced(tenant: BilledTenant): Promise<unknown[]> {
  return controlRows(
    `SELECT coalesce(s.id, 'unfrozen') AS id FROM
       (SELECT id, units, calls FROM reports WHERE tenant_id = $1 UNION ALL
        SELECT id, units, calls FROM carry_forwards WHERE tenant_id = $1 AND report_id IS NULL) s
     FULL JOIN (SELECT coalesce(report_id, carry_forward_id) AS id, sum(units) AS units, count(*) AS calls
                FROM ledger WHERE tenant_id = $1 GROUP BY 1) l USING (id)
     WHERE (s.units, s.calls) IS DISTINCT FROM (l.units, l.calls)`,
    [tenant.id],
  );
}
