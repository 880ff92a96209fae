// Removal of a tenant. Its last usage is billed, it can return for a month, and then only its billing records are left. This
// holds under failures, repetitions and crashes.
import { afterEach, expect, test } from "vitest";
import {
  type TestTenant,
  aCustomer,
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  endObject,
  faultsFired,
  fireCron,
  operator,
  rowsOf,
  simulator,
  status,
  system,
  until,
} from "../support/flow.ts";
import { backUp, generous, run, tiers } from "../support/backups.ts";
import {
  anAdminKey,
  archived,
  asAdmin,
  leaves,
  ledgerOf,
  nothingIsLeft,
  placesOf,
  invoicedUnits,
  reaches,
  removal,
  subscriptions,
} from "../support/removals.ts";
import { stripeGet } from "../support/subscribers.ts";

afterEach(async () => {
  await databaseFaults([]);
  await simulator("/faults", { rules: [] });
  await simulator("/meter-lag", { ms: 0 });
  await simulator("/clock", { offsetMs: 0 });
});

const usage = (tenant: TestTenant) => callTool(tenant.apiKey, "search_products", { query: "" });
const dropNow = async (tenantId: string): Promise<Response> => {
  const { name } = (await (await operator("GET", `/tenants/${tenantId}`)).json()) as { name: string };
  return operator("POST", `/tenants/${tenantId}/remove?now=true`, { name });
};

/** Units that Stripe counts for a tenant. */
async function metered(tenantId: string): Promise<number> {
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  const totals = (await simulator("/meter-totals")) as Record<string, Record<string, number>>;
  return totals[row?.customer ?? ""]?.["mcp_units"] ?? 0;
}

/** Everything that a tenant has paid, in cents. */
async function paidCents(tenantId: string): Promise<number> {
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  const { data } = await stripeGet<{ data: { amount_paid: number }[] }>(
    `/invoices?customer=${row?.customer}&limit=100`,
  );
  return data.reduce((sum, { amount_paid: cents }) => sum + cents, 0);
}

test("a leaving tenant is billed for its last call, is refused with advice how to return, exports its data, and returns", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Leaves & returns" });
  const admin = await anAdminKey(tenant.id);
  await usage(tenant);
  await usage(tenant);

  const unconfirmed = await asAdmin(tenant, admin, "POST", "/remove", { name: "Somebody else" });
  expect(unconfirmed.status).toBe(400);
  expect((await asAdmin(tenant, tenant.apiKey, "POST", "/remove", { name: "Leaves & returns" })).status).toBe(403);
  expect((await usage(tenant)).isError).toBeFalsy();

  expect((await asAdmin(tenant, admin, "POST", "/remove", { name: "Leaves & returns" })).status).toBe(202);
  const refused = await usage(tenant);
  expect(refused.refusal?.code).toBe("tenant_leaving");
  await reaches(tenant.id, "grace");
  const { leavingUntil } = await removal(tenant.id);
  expect(refused.text).toContain(String(leavingUntil));
  expect(refused.text).toContain(`/api/tenants/${tenant.id}/reactivate`);
  expect(Math.round((Date.parse(leavingUntil ?? "") - Date.now()) / 86_400_000)).toBe(30);
  // No cron ran, so the removal itself reported the last usage before the subscription ended.
  expect(await metered(tenant.id)).toBe(3);
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["canceled"]);
  expect((await fetch(`${system.monitorUrl}/monitors/${tenant.id}`)).status).toBe(404);

  const exported = await asAdmin(tenant, admin, "GET", "/export");
  expect(exported.status).toBe(200);
  const lines = (await exported.text()).trimEnd().split("\n");
  expect(lines.filter((line) => line.startsWith('["products"'))).toHaveLength(10);
  expect(JSON.parse(lines.at(-1) ?? "")).toHaveProperty("end");

  // The hours until midnight are paid. The answer says so before the tenant returns, and the return charges nothing.
  const paid = await paidCents(tenant.id);
  expect(paid).toBeGreaterThan(0);
  expect((await removal(tenant.id)).reactivation).toMatchObject({ plan: "pro", chargeCents: 0, monthlyCents: 4_900 });
  const back = await asAdmin(tenant, admin, "POST", "/reactivate");
  expect(back.status, await back.clone().text()).toBe(200);
  expect(await back.json()).toMatchObject({ phase: "undone", reactivation: { chargeCents: 0 } });
  expect(await paidCents(tenant.id)).toBe(paid);
  expect((await usage(tenant)).isError).toBeFalsy();
  expect((await status(tenant.id)).state).toBe("active");
  // A repeated request changes nothing.
  expect((await asAdmin(tenant, admin, "POST", "/reactivate")).status).toBe(200);
  const now = await subscriptions(tenant.id);
  expect(now.filter((each) => each.status === "active")).toHaveLength(1);
  expect(
    await controlRows(`SELECT stripe_subscription_id AS id, leaving_until FROM tenants WHERE id = $1`, [tenant.id]),
  ).toEqual([{ id: now.find((each) => each.status === "active")?.id, leaving_until: null }]);
  await until(async () => (await fetch(`${system.monitorUrl}/monitors/${tenant.id}`)).ok, "it is watched again");
});

test.each(tiers)("a removal leaves nothing of a $strategy tenant, and the archive equals its ledger", async (tier) => {
  const tenant =
    tier.strategy === "database"
      ? await aTenant({ ...tier, ...generous })
      : await aCustomer({ plan: tier.plan, name: "Ada Lovelace" });
  const other = await aTenant({ plan: "starter", strategy: "shared" });
  await anAdminKey(tenant.id);
  await run(
    tenant,
    "UPDATE products SET stock = 1",
    "INSERT INTO products (id, name, price_cents) VALUES ('secret', 'Ada''s diary', 1)",
  );
  await callTool(tenant.apiKey, "write_document", { path: "letters/ada.txt", text: "Dear Charles" });
  for (let call = 0; call < 5; call += 1) await usage(tenant);
  await backUp(tenant);
  const places = await placesOf(tenant.id);
  await leaves(tenant.id);

  // Move the clock to the end of the grace period. The sweep then continues the removal.
  await controlRows(`UPDATE tenants SET leaving_until = now() - interval '1 second' WHERE id = $1`, [tenant.id]);
  await fireCron("* * * * *");
  await reaches(tenant.id, "done");
  await nothingIsLeft(tenant.id, places);

  const ledger = await ledgerOf(tenant.id);
  const archive = await archived(tenant.id);
  expect(ledger.length).toBeGreaterThanOrEqual(6);
  expect(archive.calls).toMatchObject(ledger);
  const units = ledger.reduce((sum, each) => sum + each.units, 0);
  expect((await removal(tenant.id)).archive).toMatchObject({ calls: ledger.length, units });
  expect(archive.reports.reduce((sum, each) => sum + Number(each["units"]), 0)).toBe(units);
  expect(await metered(tenant.id)).toBe(units);
  expect(archive.text).not.toMatch(/Ada|Charles/);

  // A repeated step leaves the object unchanged, and the tenant can no longer return.
  expect((await callTool(tenant.apiKey, "search_products", { query: "" })).refusal?.code).toBe("tenant_gone");
  expect((await operator("POST", `/tenants/${tenant.id}/reactivate`)).status).toBe(409);
  expect((await operator("POST", "/tenants", { id: tenant.id, name: "Again", plan: "free" })).status).toBe(409);
  expect((await operator("POST", `/tenants/${tenant.id}/remove`)).status).toBe(200);
  await fireCron("* * * * *");
  await nothingIsLeft(tenant.id, places);
  await expect(controlRows(`UPDATE tenants SET state = 'active' WHERE id = $1`, [tenant.id])).rejects.toThrow(
    /is gone/,
  );
  expect(await run(other, "SELECT count(*)::int AS n FROM products")).toEqual([[{ n: 10 }]]);
});

test("a tenant that is removed during a move leaves nothing in either placement", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
  await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
  await until(async () => {
    const [move] = (
      (await (await operator("GET", `/tenants/${tenant.id}/move`)).json()) as { moves: { state: string }[] }
    ).moves;
    return move?.state === "moved";
  }, "the tenant has moved, and the old copy is kept");
  await run(tenant, "UPDATE products SET stock = 2");
  const places = await placesOf(tenant.id);
  expect(places).toHaveLength(2);
  await leaves(tenant.id);
  // The grace ends only with the account's name as a confirmation.
  for (const body of [undefined, {}, { name: "another" }])
    expect((await operator("POST", `/tenants/${tenant.id}/remove?now=true`, body)).status).toBe(400);
  expect((await dropNow(tenant.id)).status).toBe(202);
  await reaches(tenant.id, "done");
  await nothingIsLeft(tenant.id, places);
});

test("the subscription does not end, and nothing is dropped, before Stripe has counted the last usage", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Waits for Stripe" });
  await usage(tenant);
  await simulator("/faults", {
    seed: 1,
    rules: [{ kind: "error-500-before", method: "POST", path: "/v1/billing/meter_events", probability: 1 }],
  });
  await simulator("/meter-lag", { ms: 8_000 });
  expect((await operator("POST", `/tenants/${tenant.id}/remove`)).status).toBe(202);
  await until(
    async () => (await removal(tenant.id)).waitsFor === "Stripe has not confirmed all usage.",
    "it waits for Stripe",
  );
  expect((await dropNow(tenant.id)).status).toBe(409);
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["active"]);
  await simulator("/faults", { rules: [] });
  await controlRows(`UPDATE reports SET next_at = now() WHERE tenant_id = $1`, [tenant.id]); // half a minute has passed
  await until(
    async () => (await removal(tenant.id)).waitsFor === "Stripe has not counted all usage.",
    "Stripe has it",
    50_000,
  );
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["active"]);
  await reaches(tenant.id, "grace");
  expect(await metered(tenant.id)).toBe(1);

  // Late usage delays the drop of the tenant.
  await controlRows(
    `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at) VALUES ($1, $2, 'late', 'late', 1, 'late', 1, now())`,
    [crypto.randomUUID(), tenant.id],
  );
  expect((await dropNow(tenant.id)).status).toBe(409);
  await controlRows(`UPDATE tenants SET leaving_until = now() WHERE id = $1`, [tenant.id]);
  await fireCron("* * * * *");
  expect(await removal(tenant.id)).toMatchObject({
    phase: "grace",
    waitsFor: expect.stringMatching(/late/) as unknown,
  });
}, 240_000);

test("the final invoice has the final usage, also when the answer to the end of the subscription was lost", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Final" });
  for (let call = 0; call < 3; call += 1) await usage(tenant);
  const rule = { method: "DELETE", path: "/v1/subscriptions/*", probability: 1 };
  await simulator("/faults", { seed: 1, rules: [{ ...rule, kind: "lost" }] });
  expect((await operator("POST", `/tenants/${tenant.id}/remove`)).status).toBe(202);
  await reaches(tenant.id, "grace");
  const { rules } = (await simulator("/faults")) as { rules: { fired: number }[] };
  expect(rules[0]?.fired).toBe(1);
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["canceled"]);
  expect(await invoicedUnits(tenant.id)).toBe(3);
});

test("a tenant whose payment fails is not reactivated, and the answer says so", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Cannot pay" });
  await leaves(tenant.id);
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  // The time that it has paid for is over, so its return costs the base price until midnight.
  await controlRows(`UPDATE removals SET paid_until = now() WHERE tenant_id = $1`, [tenant.id]);
  const { chargeCents = 0 } = (await removal(tenant.id)).reactivation ?? {};
  expect(chargeCents).toBeGreaterThan(0);
  const paidBefore = await paidCents(tenant.id);
  await simulator("/payments", { customers: { [row?.customer ?? ""]: "fail" } });
  try {
    const refused = await operator("POST", `/tenants/${tenant.id}/reactivate`);
    expect(refused.status).toBe(402);
    expect(await refused.json()).toMatchObject({ code: "payment_failed" });
    expect((await usage(tenant)).refusal?.code).toBe("tenant_leaving");
    expect((await subscriptions(tenant.id)).filter((each) => each.status !== "canceled")).toEqual([]);
  } finally {
    await simulator("/payments", {});
  }
  expect((await operator("POST", `/tenants/${tenant.id}/reactivate`)).status).toBe(200);
  const charged = (await paidCents(tenant.id)) - paidBefore;
  expect(charged).toBeLessThanOrEqual(chargeCents);
  expect(charged).toBeGreaterThanOrEqual(chargeCents - 1); // a moment later
  expect((await usage(tenant)).isError).toBeFalsy();
});

test("the sweep finishes a reactivation that was interrupted at Stripe, with one subscription", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Cut off" });
  await leaves(tenant.id);
  const rule = { method: "POST", path: "/v1/subscriptions", probability: 1 };
  await simulator("/faults", { seed: 1, rules: [{ ...rule, kind: "lost" }] });
  const lost = await operator("POST", `/tenants/${tenant.id}/reactivate`);
  expect(lost.status).toBe(503);
  expect((await usage(tenant)).refusal?.code).toBe("tenant_leaving");
  expect((await dropNow(tenant.id)).status).toBe(409); // it is being reactivated
  await simulator("/faults", { rules: [] });
  // No request comes, so the sweep continues the work.
  await controlRows(`UPDATE removals SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1`, [
    tenant.id,
  ]);
  await fireCron("* * * * *");
  await until(async () => (await status(tenant.id)).state === "active", "it is back");
  expect((await usage(tenant)).isError).toBeFalsy();
  expect((await subscriptions(tenant.id)).filter((each) => each.status === "active")).toHaveLength(1);
});

test("a reactivation that Stripe refuses for good is not repeated, and charges nothing later", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Refused" });
  await leaves(tenant.id);
  const rule = { method: "POST", path: "/v1/subscriptions", probability: 1 };
  await simulator("/faults", { seed: 1, rules: [{ ...rule, kind: "400" }] });
  const refused = await operator("POST", `/tenants/${tenant.id}/reactivate`);
  expect({ status: refused.status, body: await refused.json() }).toMatchObject({
    ...{ status: 502, body: { code: "billing_refused", title: expect.stringContaining("does not help") } },
  });
  expect(await removal(tenant.id)).toMatchObject({ phase: "grace", reactivating: false, error: expect.any(String) });
  await simulator("/faults", { seed: 1, rules: [rule].map((each) => ({ ...each, kind: "400" })) });
  for (let minute = 0; minute < 2; minute += 1) {
    await controlRows(`UPDATE removals SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1`, [
      tenant.id,
    ]);
    await fireCron("* * * * *");
  }
  const { rules } = (await simulator("/faults")) as { rules: { fired: number }[] };
  expect(rules[0]?.fired).toBe(0);
  await simulator("/faults", { rules: [] });
  await fireCron("* * * * *");
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["canceled"]);
  expect((await operator("POST", `/tenants/${tenant.id}/reactivate`)).status).toBe(200);
});

test("Tollgate gives up a reactivation without an answer after an hour, and ends what a lost answer left", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "An hour away" });
  await leaves(tenant.id);
  const rule = { method: "POST", path: "/v1/subscriptions", probability: 1 };
  await simulator("/faults", { seed: 1, rules: [{ ...rule, kind: "lost" }] });
  const lost = await operator("POST", `/tenants/${tenant.id}/reactivate`);
  expect({ status: lost.status, body: await lost.json() }).toMatchObject({
    ...{ status: 503, body: { detail: expect.stringContaining("by itself for an hour") } },
  });
  expect(await removal(tenant.id)).toMatchObject({ reactivating: true });
  await controlRows(
    `UPDATE removals SET progressed_at = now() - interval '2 minutes', reactivating_since = now() - interval '61 minutes' WHERE tenant_id = $1`,
    [tenant.id],
  );
  await simulator("/faults", { rules: [] });
  await fireCron("* * * * *");
  expect(await removal(tenant.id)).toMatchObject({
    reactivating: false,
    error: expect.stringContaining("for an hour"),
  });
  await controlRows(`UPDATE removals SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1`, [
    tenant.id,
  ]);
  await fireCron("* * * * *");
  await reaches(tenant.id, "grace");
  expect((await subscriptions(tenant.id)).map((each) => each.status)).toEqual(["canceled", "canceled"]);
  expect((await usage(tenant)).refusal?.code).toBe("tenant_leaving");
});

const markers = [
  "INSERT INTO removals",
  "AS unfrozen",
  "UPDATE removals r SET step",
  "SET monitored_at = NULL",
  "WITH page AS",
  "'YYYY-MM'",
  "The tenant was removed.",
  "tollgate.set_gate",
  "WITH gone AS (DELETE",
  "dropped_at = coalesce",
  "tollgate.staged",
  "erase_tenant",
];

/** Runs a whole removal, from the request to the end. */
async function goes(tenant: TestTenant): Promise<void> {
  await until(async () => (await operator("POST", `/tenants/${tenant.id}/remove`)).status < 300, "it may leave");
  await reaches(tenant.id, "grace", 90_000);
  await until(async () => (await dropNow(tenant.id)).status < 300, "its grace is over", 60_000);
  await reaches(tenant.id, "done", 10_000).catch(async () => {
    // The lost answer may have ended the runner. The sweep resumes the removal after a minute without a heartbeat.
    await controlRows(`UPDATE removals SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1`, [
      tenant.id,
    ]);
    await fireCron("* * * * *");
    await reaches(tenant.id, "done");
  });
}

const NOTES = 3;

/** Runs several removals concurrently, each with its own fault at one of the markers. */
async function eachWithItsFault(
  order: Parameters<typeof aTenant>[0],
  fault: Record<string, unknown>,
  leave: (tenant: TestTenant, cameTo: () => Promise<boolean>) => Promise<void>,
): Promise<number[]> {
  const all = await Promise.all(
    markers.map(async (sql) => ({ sql, tenant: await aTenant({ ...order, ...generous }) })),
  );
  const numbers = await Promise.all(
    all.map(async ({ tenant }) => (await placesOf(tenant.id))[0]?.role.slice("tenant_".length)),
  );
  const rules = all.map(({ sql, tenant }, index) => ({
    ...{ ...fault, sql, times: 1 },
    param: sql === "dropped_at = coalesce" ? numbers[index] : tenant.id,
  }));
  // Also the statement that records a finished step of any tenant, because its parameters name no tenant.
  await databaseFaults([...rules, { ...fault, sql: "step_at = CASE WHEN", times: NOTES }]);
  await Promise.all(
    all.map(async ({ sql, tenant }, index) => {
      try {
        await usage(tenant);
        const places = await placesOf(tenant.id);
        await leave(tenant, async () => (await faultsFired())[index] === 1);
        await ended(tenant, places);
      } catch (error) {
        throw new Error(`with the fault at ${sql}`, { cause: error });
      }
    }),
  );
  return faultsFired();
}

test("a removal whose object dies at any step finishes once", async () => {
  const order = { plan: "starter", strategy: "shared" };
  const fired = await eachWithItsFault(order, { kind: "slow", ms: 400 }, async (tenant, cameTo) => {
    const going = goes(tenant);
    await until(cameTo, "the removal has come to the fault", 60_000);
    await endObject(tenant.id);
    await going;
  });
  expect(fired).toEqual([...markers.map(() => 1), NOTES]);
}, 180_000);

test("a removal finishes once, whichever answer is lost", async () => {
  const order = { plan: "pro", strategy: "schema" };
  const fired = await eachWithItsFault(order, { kind: "lose-after" }, async (tenant) => {
    await run(tenant, "UPDATE products SET stock = 1");
    await goes(tenant);
  });
  // Only shared tables have a gate to close.
  expect(fired).toEqual([...markers.map((marker) => (marker === "tollgate.set_gate" ? 0 : 1)), NOTES]);
}, 180_000);

async function ended(tenant: TestTenant, places: Awaited<ReturnType<typeof placesOf>>): Promise<void> {
  await nothingIsLeft(tenant.id, places);
  const ledger = await ledgerOf(tenant.id);
  expect((await archived(tenant.id)).calls).toMatchObject(ledger);
  expect(await metered(tenant.id)).toBe(ledger.reduce((sum, each) => sum + each.units, 0));
  expect(await rowsOf(system.controlUrl, `SELECT step FROM removals WHERE tenant_id = $1`, [tenant.id])).toEqual([
    { step: "done" },
  ]);
}
