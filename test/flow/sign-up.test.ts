// Sign-up from the order to the first answered call, and the handling of repeated, late and forged webhooks.
import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { signUp } from "../../dev/demo.ts";
import {
  aCustomer,
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  simulator,
  status,
  statusPage,
  system,
  until,
} from "../support/flow.ts";

test("a customer who pays is provisioned step by step and its agent's first call succeeds", async () => {
  const customer = await aCustomer({ plan: "starter", name: "Step by step" });
  const answer = await callTool(customer.apiKey, "search_products", { query: "lamp" });
  expect(answer.isError).toBeFalsy();
  const { state, steps } = await status(customer.id);
  expect(state).toBe("active");
  await until(
    async () => (await status(customer.id)).steps.every((step) => step.status === "done"),
    "all steps are done",
  );
  expect(steps.map(({ name }) => name)).toEqual([
    "account",
    "placement",
    "isolation",
    "storage",
    "canary",
    "activation",
    "monitor",
  ]);
});

test("an unpaid order does not become a tenant, and is forgotten after its Checkout has expired", async () => {
  const order = await fetch(`${system.publicUrl}/api/checkout`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ plan: "free", name: "Window shopper", email: "shopper@example.com" }),
  });
  const { tenantId } = (await order.json()) as { tenantId: string };
  expect((await status(tenantId)).state).toBe("awaiting_payment");
  expect(await controlRows("SELECT id FROM tenants WHERE id = $1", [tenantId])).toEqual([]);
  const kept = () => controlRows("SELECT name, email FROM checkouts WHERE tenant_id = $1", [tenantId]);
  await fireCron("* * * * *");
  expect(await kept()).toEqual([{ name: "Window shopper", email: "shopper@example.com" }]);
  await controlRows("UPDATE checkouts SET created_at = now() - interval '5 days' WHERE tenant_id = $1", [tenantId]);
  await fireCron("* * * * *");
  expect(await kept()).toEqual([{ name: "", email: null }]);
});

test("the progress of a sign-up is shown to those who hold its link, its set-up token or a key of it", async () => {
  const { statusUrl, setupToken, tenantId } = await signUp(system.publicUrl, { plan: "free", name: "Watched" });
  const states = await Promise.all([fetch(statusUrl), statusPage(tenantId, setupToken), statusPage(tenantId)]);
  for (const answer of states) expect(await answer.json()).toMatchObject({ tenantId, state: "active" });
  const other = await aTenant();
  for (const token of [null, "made-up", other.apiKey]) {
    const answer = await statusPage(tenantId, token);
    expect([answer.status, await answer.text()]).toEqual([404, expect.not.stringContaining("active")]);
  }
  expect((await statusPage(other.id, other.apiKey)).status).toBe(200);
});

test("a second delivery of every webhook changes nothing", async () => {
  const customer = await aCustomer({ name: "Twice" });
  await until(
    async () => (await status(customer.id)).steps.every((step) => step.status === "done"),
    "all steps are done",
  );
  const snapshot = async () => ({
    tenant: await controlRows("SELECT * FROM tenants WHERE id = $1", [customer.id]),
    attempts: await controlRows("SELECT * FROM provisioning_attempts WHERE tenant_id = $1", [customer.id]),
    steps: await controlRows("SELECT * FROM provisioning_steps WHERE tenant_id = $1 ORDER BY step", [customer.id]),
    inbox: await controlRows("SELECT event_id, applied_at, outcome FROM webhook_inbox ORDER BY event_id"),
  });
  await until(async () => {
    await fireCron("* * * * *"); // the sweep applies what failed at first
    return (await controlRows("SELECT FROM webhook_inbox WHERE applied_at IS NULL")).length === 0;
  }, "all events are applied");
  const before = await snapshot();
  const events = await controlRows<{ event_id: string }>("SELECT event_id FROM webhook_inbox WHERE tenant_id = $1", [
    customer.id,
  ]);
  expect(events.length).toBeGreaterThan(0);
  for (const { event_id: eventId } of events) await simulator("/webhooks/deliver", { eventId });
  await fireCron("* * * * *");
  expect(await snapshot()).toEqual(before);
});

test("a webhook for an unknown tenant is stored and marked, and changes nothing", async () => {
  const event = {
    id: `evt_unknown_${Date.now()}`,
    object: "event",
    type: "checkout.session.completed",
    data: { object: { id: "cs_test_none", object: "checkout.session", client_reference_id: "nobody-we-know" } },
  };
  const response = await deliver(JSON.stringify(event), Math.floor(Date.now() / 1000));
  expect(response.status).toBe(200);
  const [kept] = await controlRows<{ outcome: string }>("SELECT outcome FROM webhook_inbox WHERE event_id = $1", [
    event.id,
  ]);
  expect(kept?.outcome).toBe("unknown_tenant");
  expect(await controlRows("SELECT id FROM tenants WHERE id = 'nobody-we-know'")).toEqual([]);
  // Remove the rows that would fail /health in later tests.
  await controlRows("UPDATE webhook_inbox SET outcome = 'seen_by_test' WHERE event_id = $1", [event.id]);
});

test("an unsigned, a forged and a stale webhook are refused and leave nothing", async () => {
  const body = JSON.stringify({
    id: `evt_forged_${Date.now()}`,
    object: "event",
    type: "checkout.session.completed",
    data: { object: {} },
  });
  const now = Math.floor(Date.now() / 1000);
  const unsigned = await fetch(`${system.publicUrl}/webhooks/stripe`, { method: "POST", body });
  const forged = await deliver(body, now, "whsec_somebody_elses");
  const stale = await deliver(body, now - 301);
  for (const response of [unsigned, forged, stale]) {
    expect(response.status).toBe(400);
    expect(((await response.json()) as { code: string }).code).toBe("signature_invalid");
  }
  expect(await controlRows("SELECT event_id FROM webhook_inbox WHERE event_id LIKE 'evt_forged%'")).toEqual([]);
});

test("a webhook is answered with 5xx while the database is down, and is stored when Stripe repeats it", async () => {
  const event = { id: `evt_patient_${Date.now()}`, object: "event", type: "customer.updated", data: { object: {} } };
  const kept = () => controlRows("SELECT event_id FROM webhook_inbox WHERE event_id = $1", [event.id]);
  const send = () => deliver(JSON.stringify(event), Math.floor(Date.now() / 1000));
  await databaseFaults([{ kind: "refuse-before", database: "tollgate_control" }]);
  try {
    expect((await send()).status).toBe(503);
  } finally {
    await databaseFaults([]);
  }
  expect(await kept()).toEqual([]);
  expect((await send()).status).toBe(200);
  expect(await kept()).toHaveLength(1);
});

test("an order continues after Stripe repeats a webhook that could not be stored", async () => {
  await databaseFaults([{ kind: "refuse-before", sql: "webhook_inbox", times: 2 }]);
  try {
    const signedUp = await signUp(system.publicUrl, { plan: "free", name: "Patient" });
    expect((await status(signedUp.tenantId)).state).toBe("active");
  } finally {
    await databaseFaults([]);
  }
});

test.each([
  { when: "a moment later", afterMs: 0 },
  { when: "after eight days without a sweep", afterMs: 8 * 86_400_000 },
])("the sweep reads undelivered events from Stripe's list $when", async ({ afterMs }) => {
  await simulator("/webhooks", { drop: { probability: 1 } });
  let tenantId: string;
  try {
    const order = await fetch(`${system.publicUrl}/api/checkout`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ plan: "free", name: "Undelivered" }),
    });
    const { tenantId: id, checkoutUrl } = (await order.json()) as { tenantId: string; checkoutUrl: string };
    tenantId = id;
    await (await fetch(checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await status(tenantId)).state).toBe("awaiting_payment");
  } finally {
    await simulator("/webhooks", {});
  }
  await fireCron("* * * * *", Date.now() + afterMs);
  // The sweep applies an event only when the event is ten seconds old.
  await controlRows(
    "UPDATE webhook_inbox SET received_at = received_at - interval '1 minute' WHERE applied_at IS NULL",
  );
  await fireCron("* * * * *");
  await until(async () => (await status(tenantId)).state === "active", "the sweep found the payment");
});

test("the sweep resumes a provisioning without a heartbeat", async () => {
  const attemptsOf = async (id: string): Promise<number> =>
    (await controlRows("SELECT FROM provisioning_attempts WHERE tenant_id = $1", [id])).length;
  await databaseFaults([{ kind: "refuse-before", database: "tollgate_shared_1", probability: 1 }]);
  let id: string;
  try {
    const created = await fetch(`${system.publicUrl}/admin/api/tenants`, {
      method: "POST",
      headers: { authorization: `Bearer ${system.operatorToken}`, "content-type": "application/json" },
      body: JSON.stringify({ plan: "free", name: "Stuck" }),
    });
    ({ id } = (await created.json()) as { id: string });
    await until(async () => (await status(id)).steps.some((step) => step.status === "retrying"), "a step has failed");
    // Simulates a killed runtime: the last heartbeat is over a minute old. The first attempt lives, and each of its retries is a
    // heartbeat, which may come just before the sweep looks. While the database refuses, the attempt cannot finish meanwhile.
    await until(async () => {
      await controlRows(
        "UPDATE provisioning_attempts SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1 AND attempt = 1",
        [id],
      );
      await fireCron("* * * * *");
      return (await attemptsOf(id)) === 2;
    }, "the sweep opened a second attempt");
  } finally {
    await databaseFaults([]);
  }
  await until(async () => (await status(id)).state === "active", "the second attempt finished");
  expect(await attemptsOf(id)).toBe(2);
  // The first attempt, which still lived, has left the rest to the second one.
  const steps = await controlRows<{ attempt: number }>(
    "SELECT attempt FROM provisioning_steps WHERE tenant_id = $1 AND step = 'activation'",
    [id],
  );
  expect(steps).toEqual([{ attempt: 2 }]);
});

test("twenty sign-ups at once all succeed", async () => {
  const customers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => signUp(system.publicUrl, { plan: "free", name: `At once ${n}` })),
  );
  expect(new Set(customers.map(({ tenantId }) => tenantId)).size).toBe(20);
});

test("the canary's token works for one call, and only for health_check", async () => {
  const { mintCredential } = await import("../../src/core/keys/credentials.ts");
  const tenant = await aTenant();
  const rootKey = system.credentialKey;
  const fields = [String(Date.now() + 60_000)];
  const token = await mintCredential(rootKey, { kind: "canary", tenantId: tenant.id as never, fields });
  expect((await callTool(token, "search_products", { query: "lamp" })).refusal?.code).toBe("tool_not_allowed");
  expect((await callTool(token, "health_check")).isError).toBeFalsy();
  await expect(callTool(token, "health_check")).rejects.toThrow("HTTP 401");
});

function deliver(body: string, atSeconds: number, secret = system.stripeWebhookSecret): Promise<Response> {
  const signature = createHmac("sha256", secret).update(`${atSeconds}.${body}`).digest("hex");
  return fetch(`${system.publicUrl}/webhooks/stripe`, {
    method: "POST",
    headers: { "stripe-signature": `t=${atSeconds},v1=${signature}` },
    body,
  });
}
