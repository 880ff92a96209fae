// Helpers of flow tests of subscriptions: tenants that have ordered and paid, their administrators, and their rows.
import { expect } from "vitest";
import { type TestTenant, controlRows, operator, status, system, until } from "./flow.ts";

export interface BillingRow {
  state: string;
  plan: string;
  customer: string;
  subscription: string;
  suspendedBy: string | null;
  pastDue: boolean;
  cancels: boolean;
  periodStartMs: number;
  periodEndMs: number;
  delivered: boolean;
}

export async function rowOf(tenantId: string): Promise<BillingRow> {
  const [row] = await controlRows<BillingRow>(
    `SELECT state, plan, stripe_customer_id AS customer, stripe_subscription_id AS subscription, suspended_by AS "suspendedBy",
            past_due_since IS NOT NULL AS "pastDue", delivered_version >= version AS delivered, cancel_at IS NOT NULL AS cancels,
            (extract(epoch FROM period_start) * 1000)::double precision AS "periodStartMs",
            (extract(epoch FROM period_end) * 1000)::double precision AS "periodEndMs" FROM tenants WHERE id = $1`,
    [tenantId],
  );
  if (row === undefined) throw new Error(`there is no tenant ${tenantId}`);
  return row;
}

/** Waits until the tenant's row matches and its object has the same configuration. */
export async function untilRow(tenantId: string, wanted: Partial<BillingRow>): Promise<BillingRow> {
  const matches = (row: BillingRow): boolean =>
    Object.entries({ ...wanted, delivered: true }).every(([name, value]) => row[name as keyof BillingRow] === value);
  await until(async () => matches(await rowOf(tenantId)), `the tenant's row has ${JSON.stringify(wanted)}`);
  return rowOf(tenantId);
}

/** A paid and provisioned tenant, ordered by the operator or by the buyer, with keys for its agent and its administrator. */
export async function aSubscriber(order: { plan: string; trialDays?: number }): Promise<TestTenant> {
  const made = await operator("POST", "/checkouts", { name: "A subscriber", ...order });
  expect(made.status).toBe(201);
  const { tenantId, checkoutUrl } = (await made.json()) as { tenantId: string; checkoutUrl: string };
  expect((await fetch(checkoutUrl, { method: "POST", redirect: "manual" })).status).toBe(303);
  const served = order.trialDays === undefined ? "active" : "trial";
  await until(async () => (await status(tenantId)).state === served, `the subscriber is ${served}`);
  const scopes = ["tools:read", "tools:write", "tenant:admin"];
  const key = await operator("POST", `/tenants/${tenantId}/keys`, { name: "admin", scopes });
  return { id: tenantId, apiKey: ((await key.json()) as { apiKey: string }).apiKey };
}

export function asAdmin(tenant: TestTenant, method: string, path: string, body?: unknown): Promise<Response> {
  return fetch(`${system.publicUrl}/api/tenants/${tenant.id}${path}`, {
    method,
    headers: { authorization: `Bearer ${tenant.apiKey}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

export async function stripeGet<Found>(path: string): Promise<Found> {
  const response = await fetch(`${system.stripeUrl}/v1${path}`, {
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Found;
}
