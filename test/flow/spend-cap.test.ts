// The spend cap of a real subscription: calls stop at it, an owner raises it, and the invoice equals it to the unit.
import { randomUUID } from "node:crypto";
import { afterAll, expect, test } from "vitest";
import { planOf } from "../../src/core/plans.ts";
import { TenantId } from "../../src/core/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../src/core/time.ts";
import { fallbackUsage } from "../../src/core/usage.ts";
import {
  type TestTenant,
  type ToolAnswer,
  callTool,
  controlRows,
  endObject,
  fireCron,
  operator,
  simulator,
  system,
  toQueue,
  until,
} from "../support/flow.ts";
import { unitsBilled } from "../support/removals.ts";
import { aSubscriber, rowOf } from "../support/subscribers.ts";

afterAll(() => simulator("/clock", { offsetMs: 0 }));

const search = (tenant: TestTenant): Promise<ToolAnswer> => callTool(tenant.apiKey, "search_products", { query: "" });

/** Changes the tenant's configuration as its own administrator. */
async function configure(tenant: TestTenant, patch: unknown): Promise<{ status: number; body: unknown }> {
  const url = `${system.publicUrl}/api/tenants/${tenant.id}/configuration`;
  const authorization = `Bearer ${tenant.apiKey}`;
  const etag = (await fetch(url, { headers: { authorization } })).headers.get("etag") ?? "";
  const headers = { authorization, "content-type": "application/merge-patch+json", "if-match": etag };
  const answer = await fetch(url, { method: "PATCH", headers, body: JSON.stringify(patch) });
  return { status: answer.status, body: await answer.json() };
}

/** A paying tenant that has used all included units but `left`, without an hour's limit. */
async function aSpender(left: number): Promise<TestTenant> {
  const tenant = await aSubscriber({ plan: "pro" });
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { unitsPerHour: "none", callsPerMinute: "none" } });
  const units = (planOf("pro").includedUnits ?? 0) - left;
  const call = { callId: randomUUID(), tool: "search_products", units, atMs: Date.now() };
  await toQueue("queue", fallbackUsage(TenantId.parse(tenant.id), call));
  const counted = `SELECT FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NOT NULL`;
  await until(async () => (await controlRows(counted, [tenant.id])).length === 1, "the object counts the usage");
  return tenant;
}

/** Calls until one is refused. Returns how many were served, and the refusal. */
async function untilRefused(tenant: TestTenant): Promise<{ served: number; refused: ToolAnswer }> {
  for (let served = 0; ; served += 1) {
    const answer = await search(tenant);
    if (answer.refusal !== undefined) return { served, refused: answer };
    if (served > 100) throw new Error("no call was refused");
  }
}

test("calls stop at the spend cap, the next call after a raise is served, and the invoice equals the cap to the unit", async () => {
  const tenant = await aSpender(2);
  expect(await configure(tenant, { spend: { capCents: 1 } })).toMatchObject({ status: 200, body: { delivered: true } });
  // Two included units and ten of a tenth of a cent. Many at once do not exceed it.
  const burst = await Promise.all(Array.from({ length: 10 }, () => search(tenant)));
  expect(burst.filter(({ refusal }) => refusal === undefined)).toHaveLength(10);
  expect((await callTool(tenant.apiKey, "generate_report")).refusal?.code).toBe("spend_cap_reached");
  const { served, refused } = await untilRefused(tenant);
  expect(served).toBe(2);
  const { periodEndMs } = await rowOf(tenant.id);
  expect(refused.refusal).toMatchObject({
    code: "spend_cap_reached",
    limit: 50_010,
    used: 50_010,
    cost: 1,
    capCents: 1,
  });
  expect(refused.refusal?.retryAfterSeconds).toBe(Math.ceil((periodEndMs - Date.now()) / 1_000));
  for (const fact of ["0.01 USD", "0.001 USD", "An owner", new Date(periodEndMs).toISOString().slice(0, 10)])
    expect(refused.text).toContain(fact);

  // The object forgets what it had in memory, and a fallback call still counts.
  await endObject(tenant.id);
  expect((await search(tenant)).refusal?.code).toBe("spend_cap_reached");
  expect(await configure(tenant, { spend: { capCents: 2 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(10);
  await operator("PATCH", `/tenants/${tenant.id}`, { limits: { maxSpendCapCents: 3 } });
  expect(await configure(tenant, { spend: { capCents: 4 } })).toMatchObject({
    status: 409,
    body: { code: "conflict" },
  });
  expect(await configure(tenant, { spend: { capCents: 3 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(10);
  // A lower cap refuses at once, and takes nothing back.
  expect(await configure(tenant, { spend: { capCents: 0 } })).toMatchObject({ status: 200 });
  expect((await untilRefused(tenant)).served).toBe(0);

  const ledger = `SELECT coalesce(sum(units), 0)::int AS units FROM ledger WHERE tenant_id = $1`;
  const inLedger = async (): Promise<unknown> => (await controlRows(ledger, [tenant.id]))[0]?.["units"];
  await until(async () => (await inLedger()) === 50_030, "the ledger has every call");
  await fireCron("*/5 * * * *", Date.now() + 61_000);
  const laterMs = (Math.floor(Date.now() / DAY_MS) + 5) * DAY_MS + 3 * HOUR_MS;
  await simulator("/clock", { offsetMs: laterMs - Date.now() });
  const closed = `SELECT FROM billing_periods WHERE tenant_id = $1 AND invoice_id LIKE 'in_%'`;
  await until(async () => (await controlRows(closed, [tenant.id])).length >= 1, "the period's invoice is final");
  expect((await unitsBilled(tenant.id)) - 50_000).toBe(30);
  await simulator("/clock", { offsetMs: 0 });
}, 60_000);
