// Plan changes under load, outages and crashes, and the changes that a Stripe event must not make.
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import {
  type TestTenant,
  aTenant,
  callTool,
  controlRows,
  fireCron,
  operator,
  simulator,
  stripeApi,
  system,
  until,
} from "../support/flow.ts";
import { aSubscriber, asAdmin, rowOf, stripeGet, untilRow } from "../support/subscribers.ts";

interface Items {
  items: { data: { price: { lookup_key: string } }[] };
}

afterEach(() => simulator("/faults", { rules: [] }));

async function pricesOf(subscription: string): Promise<string[]> {
  const { items } = await stripeGet<Items>(`/subscriptions/${subscription}`);
  return items.data.map(({ price }) => price.lookup_key).toSorted();
}

async function changeOf(tenantId: string): Promise<{ state: string; attempts: number; pauseMs: number | null }> {
  const [row] = await controlRows<{ state: string; attempts: number; pauseMs: number | null }>(
    `SELECT state, attempts, pause_ms AS "pauseMs" FROM plan_changes WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1`,
    [tenantId],
  );
  if (row === undefined) throw new Error("there is no plan change");
  return row;
}

test("calls during a plan change wait briefly and all succeed, and earlier usage is confirmed before the plan changes", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  const changed = new AbortController();
  let calls = 0;
  const agent = async (): Promise<void> => {
    while (!changed.signal.aborted) {
      const { isError, text } = await callTool(tenant.apiKey, "search_products", { query: "lamp" });
      expect(isError, text).toBeFalsy();
      calls += 1;
      await sleep(100); // the plan has a limit of calls a minute
    }
  };
  const agents = [agent(), agent()];
  await until(async () => calls > 4, "the agents are calling");
  const answer = await asAdmin(tenant, "POST", "/plan", { plan: "pro" });
  expect([200, 202]).toContain(answer.status);
  await untilRow(tenant.id, { plan: "pro" });
  changed.abort();
  await Promise.all(agents);
  const { state, pauseMs } = await changeOf(tenant.id);
  expect(state).toBe("done");
  expect(pauseMs).toBeLessThanOrEqual(6_000);
  expect(await pricesOf((await rowOf(tenant.id)).subscription)).toEqual(["tollgate_pro_base", "tollgate_pro_units"]);
  await until(
    async () => (await controlRows(`SELECT call_id FROM ledger WHERE tenant_id = $1`, [tenant.id])).length === calls,
    "each call is in the ledger once",
  );
});

test("the old plan stays in force while Stripe is down, and the waiting change is visible and can be cancelled", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  const { subscription } = await rowOf(tenant.id);
  await simulator("/faults", { rules: [{ kind: "error-500-before", method: "POST", path: "/v1/subscriptions/*" }] });
  const waiting = await asAdmin(tenant, "POST", "/plan", { plan: "pro" });
  expect({ status: waiting.status, body: await waiting.json() }).toMatchObject({
    status: 202,
    body: { plan: "starter", change: { state: "waiting", plan: "pro" } },
  });
  expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
  const seen = (await (await operator("GET", `/tenants/${tenant.id}/plan`)).json()) as {
    changes: { waitsFor: string }[];
  };
  expect(seen.changes[0]?.waitsFor).toBeTruthy();
  expect((await operator("POST", `/tenants/${tenant.id}/plan`, { plan: "free" })).status).toBe(409);
  expect((await asAdmin(tenant, "DELETE", "/plan")).status).toBe(200);
  expect((await asAdmin(tenant, "DELETE", "/plan")).status).toBe(404);
  await simulator("/faults", { rules: [] });
  expect((await changeOf(tenant.id)).state).toBe("cancelled");
  expect(await pricesOf(subscription)).toEqual(["tollgate_starter_base"]);
  expect((await rowOf(tenant.id)).plan).toBe("starter");
});

test("a change that waits for confirmed usage, or whose answer is lost, finishes once without a new request", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  const { subscription } = await rowOf(tenant.id);
  await callTool(tenant.apiKey, "search_products", { query: "lamp" });
  await simulator("/faults", {
    rules: [
      { kind: "lost", method: "POST", path: "/v1/subscriptions/*", times: 1 },
      { kind: "error-500-after", method: "POST", path: "/v1/subscriptions/*", times: 1 },
    ],
  });
  const answer = await asAdmin(tenant, "POST", "/plan", { plan: "pro" });
  expect([200, 202]).toContain(answer.status);
  await untilRow(tenant.id, { plan: "pro" });
  await until(async () => (await changeOf(tenant.id)).state === "done", "the change is done");
  expect(await pricesOf(subscription)).toEqual(["tollgate_pro_base", "tollgate_pro_units"]);
});

test("the sweep resumes a plan change whose Workflow died", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  await controlRows(
    `INSERT INTO plan_changes (tenant_id, from_plan, plan, strategy, limits, requested_by, progressed_at)
     SELECT id, plan, 'free', 'shared', limits, 'operator', now() - interval '5 minutes' FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  await fireCron("* * * * *");
  await untilRow(tenant.id, { plan: "free" });
  expect(await pricesOf((await rowOf(tenant.id)).subscription)).toEqual(["tollgate_free_base"]);
});

test("a tenant that changes to a contract ends its subscription without a suspension, and comes back to Stripe only by a new order", async () => {
  const tenant = await aSubscriber({ plan: "pro" });
  const { subscription } = await rowOf(tenant.id);
  const changed = await operator("POST", `/tenants/${tenant.id}/plan`, { plan: "enterprise" });
  expect(changed.status).toBe(200);
  expect((await stripeGet<{ status: string }>(`/subscriptions/${subscription}`)).status).toBe("canceled");
  await until(
    async () =>
      (
        await controlRows(
          `SELECT 1 FROM webhook_inbox WHERE tenant_id = $1 AND type = 'customer.subscription.deleted' AND applied_at IS NOT NULL`,
          [tenant.id],
        )
      ).length > 0,
    "the end of the subscription has arrived",
  );
  const [row] = await controlRows(
    `SELECT state, plan, stripe_subscription_id AS subscription FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  expect(row).toEqual({ state: "active", plan: "enterprise", subscription: null });
  expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
  expect((await asAdmin(tenant, "POST", "/plan", { plan: "free" })).status).toBe(409);
});

test("a plan change is refused for a key without the scope, for another tenant's key, and for a plan that is not sold", async () => {
  const [tenant, other] = await Promise.all([aSubscriber({ plan: "free" }), aSubscriber({ plan: "free" })]);
  const plain = await aTenant();
  expect((await asAdmin({ id: plain.id, apiKey: plain.apiKey }, "POST", "/plan", { plan: "pro" })).status).toBe(403);
  expect((await asAdmin({ id: tenant.id, apiKey: other.apiKey }, "POST", "/plan", { plan: "pro" })).status).toBe(404);
  expect((await asAdmin(tenant, "POST", "/plan", { plan: "enterprise" })).status).toBe(400);
  expect((await asAdmin(tenant, "POST", "/plan", { plan: "free", limits: { unitsPerHour: 1 } })).status).toBe(400);
  expect((await rowOf(tenant.id)).plan).toBe("free");
});

test("a plan change that Stripe refuses for good ends with a reason, and the old plan stays in force", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  await simulator("/faults", { seed: 1, rules: [{ kind: "400", method: "POST", path: "/v1/subscriptions/*" }] });
  const refused = await asAdmin(tenant, "POST", "/plan", { plan: "pro" });
  expect({ status: refused.status, body: await refused.json() }).toMatchObject({
    ...{ status: 502, body: { code: "billing_refused", detail: expect.stringContaining("stays in force") } },
  });
  expect(await changeOf(tenant.id)).toMatchObject({ state: "cancelled", attempts: 1 });
  await simulator("/faults", { rules: [] });
  expect(await rowOf(tenant.id)).toMatchObject({ plan: "starter" });
  expect((await asAdmin(tenant, "POST", "/plan", { plan: "pro" })).status).toBe(200);
});

interface Answer {
  state: string;
  served: boolean;
  refusedWith: string | null;
  waysBack: { by: string; request: string }[];
  detail?: string;
}

const answerOf = async (response: Response): Promise<Answer & { status: number }> => ({
  status: response.status,
  ...((await response.json()) as Answer),
});
const refusedWith = async (tenant: TestTenant): Promise<string | undefined> =>
  (await callTool(tenant.apiKey, "get_usage")).refusal?.code;

/** Writes the tenant's row as time would, and has its object read it. */
async function later(tenant: TestTenant, changes: string): Promise<void> {
  await controlRows(`UPDATE tenants SET ${changes}, version = version + 1 WHERE id = $1`, [tenant.id]);
  await fireCron("* * * * *");
}

/** A tenant whose trial by the operator has passed, with a key of its administrator. */
async function afterItsTrial(): Promise<TestTenant> {
  const tenant = await aTenant({ trialDays: 1 });
  const scopes = ["tools:read", "tools:write", "tenant:admin"];
  const key = await operator("POST", `/tenants/${tenant.id}/keys`, { name: "admin", scopes });
  const { apiKey } = (await key.json()) as { apiKey: string };
  await later(tenant, "trial_until = now() - interval '1 second'");
  expect(await refusedWith(tenant)).toBe("trial_expired");
  return { id: tenant.id, apiKey };
}

test("an operator's trial that has passed leads back to service by each way that its refusal and the API state", async () => {
  const [resumed, changed, bought] = await Promise.all([afterItsTrial(), afterItsTrial(), afterItsTrial()]);
  const shown = await answerOf(await operator("GET", `/tenants/${bought.id}`));
  expect(shown).toMatchObject({ state: "trial", served: false, refusedWith: "trial_expired" });
  const requests = ["/checkout", "/resume", "/plan"].map(
    (end) => expect.stringContaining(`${bought.id}${end}`) as string,
  );
  expect(shown.waysBack.map(({ request }) => request)).toEqual(requests);

  expect(await answerOf(await operator("POST", `/tenants/${resumed.id}/resume`))).toMatchObject({
    ...{ status: 200, state: "active", served: true, refusedWith: null, waysBack: [] },
  });
  expect(await refusedWith(resumed)).toBeUndefined();

  const answer = await operator("POST", `/tenants/${changed.id}/plan`, { plan: "starter" });
  expect(await answerOf(answer)).toMatchObject({ status: 200, state: "active", served: true });
  expect(await refusedWith(changed)).toBeUndefined();

  // The administrator buys. A second tab ends the first one's page, so that one of them sells.
  const own = await asAdmin(bought, "POST", "/plan", { plan: "starter" });
  expect(await answerOf(own)).toMatchObject({ status: 409, detail: expect.stringContaining("/checkout") as string });
  const [first, second] = [
    await asAdmin(bought, "POST", "/checkout", { plan: "starter" }),
    await asAdmin(bought, "POST", "/checkout", { plan: "pro" }),
  ];
  const pay = async (page: Response): Promise<number> =>
    (await fetch(((await page.json()) as { checkoutUrl: string }).checkoutUrl, { method: "POST", redirect: "manual" }))
      .status;
  expect(await pay(first)).not.toBe(303);
  expect(await pay(second)).toBe(303);
  await untilRow(bought.id, { state: "active", plan: "pro" });
  expect(await refusedWith(bought)).toBeUndefined();
  expect((await asAdmin(bought, "POST", "/checkout", { plan: "pro" })).status).toBe(409);
});

test("no change of state answers as if calls were served while they are refused, and each answer states the ways back", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  await later(tenant, "state = 'past_due', past_due_since = now() - interval '8 days'");
  expect(await refusedWith(tenant)).toBe("payment_required");
  const overdue = await answerOf(await operator("POST", `/tenants/${tenant.id}/resume`));
  expect(overdue).toMatchObject({ status: 409, detail: expect.stringMatching(/overdue.*\/portal.*\/plan/) as string });

  // Resumed, it still owes.
  expect((await operator("POST", `/tenants/${tenant.id}/suspend`)).status).toBe(200);
  const resumed = await answerOf(await operator("POST", `/tenants/${tenant.id}/resume`));
  expect(resumed).toMatchObject({ status: 200, state: "past_due", served: false, refusedWith: "payment_required" });
  expect(resumed.waysBack.map(({ by }) => by)).toEqual(["administrator", "operator"]);

  // A tenant that leaves has no plan to change. It returns, and owes no more under a contract.
  expect((await operator("POST", `/tenants/${tenant.id}/remove`)).status).toBe(202);
  const leaving = await answerOf(await operator("POST", `/tenants/${tenant.id}/plan`, { plan: "enterprise" }));
  expect(leaving).toMatchObject({ status: 409, detail: expect.stringContaining("/reactivate") as string });
  await until(async () => (await rowOf(tenant.id)).delivered, "the object knows that it leaves");
  expect(await answerOf(await asAdmin(tenant, "POST", "/reactivate"))).toMatchObject({ status: 200 });
  await later(tenant, "state = 'past_due', past_due_since = now() - interval '8 days'");
  const contract = { plan: "enterprise", strategy: "shared" };
  const changed = await answerOf(await operator("POST", `/tenants/${tenant.id}/plan`, contract));
  expect(changed).toMatchObject({ status: 200, state: "active", served: true });
  expect(await refusedWith(tenant)).toBeUndefined();
});

test("a tenant that is served answers a reactivation with its state, and one that the operator holds names the way back", async () => {
  const tenant = await aTenant({ plan: "free" });
  const served = await operator("POST", `/tenants/${tenant.id}/reactivate`);
  expect({ status: served.status, body: await served.json() }).toMatchObject({
    ...{ status: 200, body: { state: "active", served: true, waysBack: [] } },
  });
  await operator("POST", `/tenants/${tenant.id}/suspend`);
  const held = await operator("POST", `/tenants/${tenant.id}/reactivate`);
  expect({ status: held.status, body: await held.json() }).toMatchObject({
    ...{ status: 409, body: { detail: expect.stringContaining(`/tenants/${tenant.id}/resume`) } },
  });
});

test("no event lifts an operator's suspension, and replaying all events in another order changes nothing", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  expect((await asAdmin(tenant, "POST", "/plan", { plan: "pro" })).status).toBe(200);
  expect((await operator("POST", `/tenants/${tenant.id}/suspend`)).status).toBe(200);
  const whole = () => controlRows(`SELECT * FROM tenants WHERE id = $1`, [tenant.id]);
  const eventsOf = (where: string) =>
    controlRows<{ id: string }>(
      `SELECT event_id AS id FROM webhook_inbox WHERE tenant_id = $1 AND ${where} ORDER BY received_at DESC, event_id`,
      [tenant.id],
    );
  await until(async () => (await eventsOf("applied_at IS NULL")).length === 0, "all events are applied");
  const before = await whole();
  const events = await eventsOf("true");
  expect(events.length).toBeGreaterThan(3);
  // Mark the events as unseen, then apply them from the newest to the oldest, and then all at once.
  for (const { id } of events) {
    await controlRows(`DELETE FROM webhook_inbox WHERE event_id = $1`, [id]);
    await simulator("/webhooks/deliver", { eventId: id });
  }
  await Promise.all(events.map(({ id }) => simulator("/webhooks/deliver", { eventId: id })));
  await until(async () => (await eventsOf("applied_at IS NULL")).length === 0, "all events are applied again");
  expect(await whole()).toEqual(before);
  expect((await rowOf(tenant.id)).state).toBe("suspended");
  expect((await operator("POST", `/tenants/${tenant.id}/resume`)).status).toBe(200);
  expect((await rowOf(tenant.id)).state).toBe("active");
});

test("the portal opens for the administrator, also while the account is suspended, and sells no other plan", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  await operator("POST", `/tenants/${tenant.id}/suspend`);
  const opened = await asAdmin(tenant, "POST", "/portal", {});
  expect(opened.status).toBe(201);
  const { url } = (await opened.json()) as { url: string };
  const page = await (await fetch(url)).text();
  expect(page.toLowerCase()).toContain("cancel");
  const configurations = await stripeGet<{
    data: { metadata: { tollgate?: string }; features: { subscription_update: { enabled: boolean } } }[];
  }>("/billing_portal/configurations?limit=100");
  const ours = configurations.data.filter(({ metadata }) => metadata.tollgate === "portal");
  expect(ours.map(({ features }) => features.subscription_update.enabled)).toEqual([false]);
});

test("a refusal of Stripe's meter after acceptance is recorded by day, and the named report is checked", async () => {
  const tenant = await aTenant({ plan: "pro" });
  const minute = Math.floor(Date.now() / 60_000) - 120;
  const report = `u1.${tenant.id}.${minute}`;
  // A report that Stripe confirmed before it lost the customer.
  await controlRows(
    `INSERT INTO reports (id, tenant_id, slot, stamp, plan, units, calls, frozen_at, confirmed_at, answer, attempts)
     VALUES ($1, $2, to_timestamp($3), to_timestamp($3), 'pro', 5, 5, now(), now(), 'accepted', 1)`,
    [report, tenant.id, minute * 60],
  );
  await stripeApi("/billing/meter_events", {
    event_name: "mcp_units",
    identifier: report,
    timestamp: String(minute * 60),
    "payload[stripe_customer_id]": "cus_nobody",
    "payload[value]": "5",
  });
  const kept = () =>
    controlRows<{ code: string; errors: number }>(
      `SELECT code, errors::int AS errors FROM meter_errors WHERE $1 = ANY (report_ids)`,
      [report],
    );
  await until(async () => (await kept()).length > 0, "the notification was fetched and kept");
  expect(await kept()).toEqual([{ code: "meter_event_customer_not_found", errors: 1 }]);
  const { days } = (await (await operator("GET", "/meter-errors")).json()) as { days: { reportIds: string[] }[] };
  expect(days.flatMap(({ reportIds }) => reportIds)).toContain(report);
  expect(await controlRows(`SELECT doubted_at IS NOT NULL AS doubted FROM reports WHERE id = $1`, [report])).toEqual([
    { doubted: true },
  ]);
  // Remove the rows that would fail /health in later tests.
  await controlRows(`DELETE FROM reports WHERE id = $1`, [report]);
});

test("a thin event without its own signature is refused and not stored", async () => {
  const body = JSON.stringify({
    id: "evt_forged_thin",
    object: "v2.core.event",
    type: "v1.billing.meter.no_meter_found",
  });
  const response = await fetch(`${system.publicUrl}/webhooks/stripe-thin`, {
    method: "POST",
    headers: { "stripe-signature": `t=${Math.floor(Date.now() / 1000)},v1=00` },
    body,
  });
  expect(response.status).toBe(400);
  expect(await controlRows(`SELECT event_id FROM webhook_inbox WHERE event_id = 'evt_forged_thin'`)).toEqual([]);
});
