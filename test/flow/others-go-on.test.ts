// A fault in one tenant's billing delays no other tenant: their usage is frozen and reported, and their sign-ups finish. The
// fault shows in /health or in the inbox, and nothing is lost.
import { createHmac } from "node:crypto";
import pg from "pg";
import { afterEach, describe, expect, test } from "vitest";
import {
  aCustomer,
  aTenant,
  callTool,
  controlRows,
  fireCron,
  health,
  operator,
  simulator,
  status,
  stripeApi,
  system,
  type TestTenant,
  until,
} from "../support/flow.ts";

const REPORT = "*/5 * * * *";
const SWEEP = "* * * * *";
/** Usage is frozen when it is a minute old. */
const FROZEN_AFTER_MS = 61_000;
/** Tollgate retries a refused report each hour. */
const RETRIED_REFUSAL_MS = 3_700_000;
/** Tollgate retries a failed report after 30 s. */
const RETRY_AFTER_MS = 31_000;
const DAY_SECONDS = 86_400;

afterEach(() => simulator("/webhooks", {}));

test("an event leaves the inbox 90 days after it arrived, unless it still waits", async () => {
  const [mark] = await controlRows<{ id: string }>(`SELECT 'evt_old_' || gen_random_uuid() AS id`);
  const id = mark?.id ?? "";
  await controlRows(
    `INSERT INTO webhook_inbox (event_id, type, received_at, applied_at, outcome)
     SELECT $1 || days || state, 'customer.updated', now() - make_interval(days => days),
       CASE state WHEN 'applied' THEN now() END, CASE state WHEN 'applied' THEN 'applied' END
     FROM (VALUES (89), (91)) AS a (days), (VALUES ('applied'), ('waits')) AS s (state)`,
    [id],
  );
  const left = () =>
    controlRows(
      `SELECT substr(event_id, length($1) + 1) AS event FROM webhook_inbox WHERE event_id LIKE $1 || '%' ORDER BY 1`,
      [id],
    );
  try {
    await fireCron(SWEEP);
    expect(await left()).toEqual([{ event: "89applied" }, { event: "89waits" }, { event: "91waits" }]);
  } finally {
    await controlRows(`DELETE FROM webhook_inbox WHERE event_id LIKE $1 || '%'`, [id]);
  }
});

describe("usage reporting continues", () => {
  test("beside ledger rows of an unknown tenant, which stay and show in /health", async () => {
    const ghost = `ghost-${Date.now()}`;
    await insertUsage(ghost, 100, 3);
    const tenant = await aTenant({ plan: "pro" });
    await callOnce(tenant, 1);
    await fireCron(REPORT, Date.now() + FROZEN_AFTER_MS);
    expect(await reportsOf(tenant)).toEqual([{ units: 1, confirmed: true }]);

    expect(await controlRows(`SELECT report_id FROM ledger WHERE tenant_id = $1`, [ghost])).toEqual(
      Array.from({ length: 3 }, () => ({ report_id: null })),
    );
    const seen = async () => {
      const response = await health();
      const { checks } = (await response.json()) as {
        checks: { usage_reporting?: { ok: boolean; facts: { unsealedSeconds: number | null } } };
      };
      const { ok = true, facts } = checks.usage_reporting ?? {};
      return { status: response.status, ok, ageDays: (facts?.unsealedSeconds ?? 0) / DAY_SECONDS };
    };
    // /health caches its answers for ten seconds.
    await until(async () => (await seen()).ageDays > 100, "/health shows the age of the oldest row");
    expect(await seen()).toMatchObject({ status: 503, ok: false });
    await controlRows(`DELETE FROM ledger WHERE tenant_id = $1`, [ghost]);
    await until(async () => (await seen()).ageDays < 100, "/health no longer shows them");
  });

  test("beside more refused reports than are claimed at once, in the same run and in the next", async () => {
    // Stripe refuses every report of a customer that it does not know. Each of these days is one report.
    const refused = await aTenant({ plan: "pro", id: `a-refused-${Date.now()}` });
    await controlRows(`UPDATE tenants SET stripe_customer_id = '' WHERE id = $1`, [refused.id]);
    const fine = await aTenant({ plan: "pro" });
    const tried = () =>
      controlRows<{ alarm: string; n: number }>(
        `SELECT alarm, count(*)::int AS n FROM reports WHERE tenant_id = $1 AND confirmed_at IS NULL GROUP BY 1`,
        [refused.id],
      );
    let runMs = Date.now();
    for (const calls of [1, 2]) {
      await insertUsage(refused.id, 0, 30, `test-${calls}`);
      await callOnce(fine, calls);
      runMs = Math.max(runMs + RETRY_AFTER_MS, Date.now() + FROZEN_AFTER_MS);
      await fireCron(REPORT, runMs);
      expect(await tried()).toEqual([{ alarm: "refused", n: 30 * calls }]);
      expect(await reportsOf(fine)).toHaveLength(calls);
    }
    // In this run all sixty are due again, beside a new report of the other tenant.
    await callOnce(fine, 3);
    await fireCron(REPORT, runMs + RETRIED_REFUSAL_MS);
    expect(await tried()).toEqual([{ alarm: "refused", n: 60 }]);
    expect(await reportsOf(fine)).toEqual(Array.from({ length: 3 }, () => ({ units: 1, confirmed: true })));
    // Remove the rows that would fail /health in later tests.
    await controlRows(`UPDATE reports SET confirmed_at = now(), alarm = NULL WHERE tenant_id = $1`, [refused.id]);
    await controlRows(`UPDATE tenants SET stripe_customer_id = NULL WHERE id = $1`, [refused.id]);
  });
});

test("the sweep finds a payment whose events were lost, behind a hundred events of other programs", async () => {
  await simulator("/webhooks", { drop: { probability: 1 } });
  const { tenantId, checkoutUrl } = await order("Behind a crowd");
  await pay(checkoutUrl);
  await new Promise((resolve) => setTimeout(resolve, 1_100)); // Stripe's timestamps have seconds: the other events must be newer
  const others = Array.from({ length: 110 }, (_, n) => `somebody-elses-${n}`);
  for (const reference of others) await pay((await sessionElsewhere({ client_reference_id: reference })).url);
  await simulator("/webhooks", {});
  expect((await status(tenantId)).state).toBe("awaiting_payment");

  await fireCron(SWEEP);
  await passInboxLag();
  await fireCron(SWEEP);
  await until(async () => (await status(tenantId)).state === "active", "the sweep found the payment");
  const unknown = await controlRows<{ event_id: string }>(
    `SELECT event_id FROM webhook_inbox WHERE outcome = 'unknown_tenant' AND named_tenant = ANY ($1)`,
    [others],
  );
  expect(unknown).toHaveLength(others.length);
  // Remove the rows that would fail /health in later tests, and the events that every later sweep would list.
  const ids = unknown.map(({ event_id: id }) => id);
  await controlRows(`UPDATE webhook_inbox SET outcome = 'seen_by_test' WHERE event_id = ANY ($1)`, [ids]);
  for (const eventId of ids) await simulator("/webhooks/deliver", { eventId });
}, 120_000);

test("an event with text that the database cannot store is kept, and does not stop the sweep for other tenants", async () => {
  const [bad, other] = await Promise.all([aCustomer({ plan: "starter" }), aCustomer({ plan: "starter" })]);
  const subscription = { ...(await subscriptionOf(bad.id)), metadata: { tenant_id: bad.id } };
  for (const text of ["a\0b", "a\ud83d"]) {
    const event = anEvent("customer.subscription.updated", { ...subscription, description: text });
    expect((await deliver(event)).status).toBe(200);
    await until(async () => (await eventOf(event.id))?.outcome === "no_change", "the event is applied");
  }

  // Stripe delivers neither the end of one subscription nor the events with such a text of another, which it lists first.
  await simulator("/webhooks", { drop: { probability: 1 } });
  await stripeApi(`/subscriptions/${(await subscriptionOf(other.id)).id}`, { cancel_at_period_end: "true" });
  await new Promise((resolve) => setTimeout(resolve, 1_100)); // Stripe's timestamps have seconds
  for (const text of ["c\0d", "after it"]) {
    await stripeApi(`/subscriptions/${subscription.id}`, { "metadata[note]": text });
  }
  await simulator("/webhooks", {});
  await fireCron(SWEEP);
  const waiting = async (id: string): Promise<number> =>
    (
      await controlRows(
        `SELECT FROM webhook_inbox WHERE tenant_id = $1 AND type = 'customer.subscription.updated' AND applied_at IS NULL`,
        [id],
      )
    ).length;
  expect([await waiting(bad.id), await waiting(other.id)]).toEqual([2, 1]);
}, 60_000);

test("events that our key cannot apply are set aside, shown, never a failure of health, and can be retried and dismissed", async () => {
  const customer = await aCustomer();
  const session = { object: "checkout.session", client_reference_id: customer.id };
  const unknown = anEvent("checkout.session.completed", { ...session, id: `cs_test_elsewhere_${Date.now()}` });
  const live = { ...anEvent("checkout.session.completed", { ...session, id: "cs_live_1" }), livemode: true };
  const connected = { ...anEvent("invoice.paid", { id: "in_1", object: "invoice" }), account: "acct_another" };
  const foreign = anEvent("checkout.session.completed", { id: "cs_test_link", object: "checkout.session" });
  for (const event of [unknown, live, connected, foreign]) expect((await deliver(event)).status).toBe(200);
  await until(
    async () => (await eventOf(unknown.id))?.outcome === "unknown_object",
    "the unknown session is set aside",
  );
  const normal = await Promise.all([live, connected, foreign].map(async ({ id }) => (await eventOf(id))?.outcome));
  expect(normal).toEqual(["other_mode", "other_account", "not_ours"]);

  const isListed = async (query = "all=false"): Promise<unknown> => {
    for (let after: string | null = ""; after !== null;) {
      const page = (await (await operator("GET", `/stripe-events?${query}&after=${after}`)).json()) as {
        events: { id: string }[];
        next: string | null;
      };
      const found = page.events.find(({ id }) => id === unknown.id);
      if (found !== undefined) return found;
      after = page.next;
    }
    return undefined;
  };
  expect(await isListed()).toMatchObject({
    tenantId: customer.id,
    outcome: "unknown_object",
    attempts: 1,
    livemode: false,
  });
  const ask = async (what: string, body: unknown = { ids: [unknown.id] }): Promise<unknown> =>
    (await operator("POST", `/stripe-events/${what}`, body)).json();
  expect(await ask("retry")).toMatchObject({ retried: [unknown.id] });
  expect(await isListed()).toMatchObject({ outcome: "unknown_object", attempts: 2 });
  expect(await ask("dismiss")).toEqual({ dismissed: [unknown.id] });
  expect(await isListed()).toBeUndefined();
  expect(await isListed("all=true")).toMatchObject({ dismissedAt: expect.any(String) });

  // An event that waits for ever can be dismissed, too, and then fails health no longer.
  await controlRows(
    `UPDATE webhook_inbox SET applied_at = NULL, outcome = NULL, dismissed_at = NULL WHERE event_id = $1`,
    [foreign.id],
  );
  expect(await ask("dismiss", { ids: [foreign.id] })).toEqual({ dismissed: [foreign.id] });
  expect(
    await controlRows(`SELECT FROM webhook_inbox WHERE applied_at IS NULL AND event_id = $1`, [foreign.id]),
  ).toEqual([]);
});

test("a foreign session with the tenant's id changes nothing when it is paid, and the tenant's own session works", async () => {
  const { tenantId, checkoutUrl } = await order("Namesake");
  const foreign = await sessionElsewhere({ client_reference_id: tenantId });
  const misled = await sessionElsewhere({ client_reference_id: tenantId, "metadata[tenant_id]": "another-tenant" });
  for (const { url } of [foreign, misled]) await pay(url);
  await until(async () => (await outcomes(tenantId)).length === 2, "both events are applied");
  expect(await outcomes(tenantId)).toEqual(["not_ours", "not_ours"]);
  expect(await controlRows(`SELECT id FROM tenants WHERE id = $1`, [tenantId])).toEqual([]);
  expect((await status(tenantId)).state).toBe("awaiting_payment");

  await pay(checkoutUrl);
  await until(async () => (await status(tenantId)).state === "active", "the tenant's own payment counts");
  expect(await outcomes(tenantId)).toEqual(["not_ours", "not_ours", "tenant_created"]);
});

test("the database refuses the Worker's login every change of a ledger row's units and of a frozen report", async () => {
  const tenant = await aTenant({ plan: "pro" });
  await callOnce(tenant, 1);
  await fireCron(REPORT, Date.now() + FROZEN_AFTER_MS);
  const before = await moneyOf(tenant);
  const client = new pg.Client({ connectionString: system.serviceUrl });
  await client.connect();
  try {
    for (const sql of [
      `UPDATE ledger SET units = 1000000 WHERE tenant_id = $1`,
      `UPDATE ledger SET tenant_id = 'another' WHERE tenant_id = $1`,
      `DELETE FROM ledger WHERE tenant_id = $1`,
      `UPDATE reports SET units = 1000000 WHERE tenant_id = $1`,
      `UPDATE reports SET slot = slot + interval '1 minute' WHERE tenant_id = $1`,
      `UPDATE reports SET confirmed_at = NULL, units = 2 WHERE tenant_id = $1`,
      `DELETE FROM reports WHERE tenant_id = $1`,
    ]) {
      await expect(client.query(sql, [tenant.id]), sql).rejects.toMatchObject({ code: "42501" });
    }
  } finally {
    await client.end();
  }
  expect(await moneyOf(tenant)).toEqual(before);
});

/** Inserts ledger rows of one unit, one for each of `days` days. The newest is `fromDay` days old. */
async function insertUsage(tenantId: string, fromDay: number, days: number, epoch = "test"): Promise<void> {
  await controlRows(
    `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at, received_at)
     SELECT gen_random_uuid(), $1, $1, $4, day, 'search_products', 1, now() - make_interval(days => $2 + day),
            now() - make_interval(days => $2 + day)
     FROM generate_series(1, $3::int) AS day`,
    [tenantId, fromDay, days, epoch],
  );
}

/** Makes one call of one unit and waits until the ledger has `calls` of them. */
async function callOnce(tenant: TestTenant, calls: number): Promise<void> {
  expect((await callTool(tenant.apiKey, "search_products", { query: "" })).isError).toBeFalsy();
  await until(
    async () => (await controlRows(`SELECT FROM ledger WHERE tenant_id = $1`, [tenant.id])).length === calls,
    "the call is in the ledger",
  );
}

function reportsOf({ id }: TestTenant): Promise<{ units: number; confirmed: boolean }[]> {
  return controlRows(
    `SELECT units::int AS units, confirmed_at IS NOT NULL AS confirmed FROM reports WHERE tenant_id = $1 ORDER BY frozen_at`,
    [id],
  );
}

async function moneyOf({ id }: TestTenant): Promise<unknown> {
  const ledger = await controlRows(`SELECT * FROM ledger WHERE tenant_id = $1`, [id]);
  const reports = await controlRows(`SELECT * FROM reports WHERE tenant_id = $1`, [id]);
  expect([ledger.length, reports.length]).toEqual([1, 1]);
  return { ledger, reports };
}

async function order(name: string): Promise<{ tenantId: string; checkoutUrl: string }> {
  const response = await fetch(`${system.publicUrl}/api/checkout`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ plan: "free", name }),
  });
  return (await response.json()) as { tenantId: string; checkoutUrl: string };
}

/** A Checkout session that another program made in the same Stripe account, such as a payment link. */
async function sessionElsewhere(form: Record<string, string>): Promise<{ id: string; url: string }> {
  price ??= aPriceElsewhere();
  return stripeApi("/checkout/sessions", {
    mode: "subscription",
    success_url: "http://127.0.0.1/thanks",
    "line_items[0][price]": await price,
    "line_items[0][quantity]": "1",
    ...form,
  });
}

let price: Promise<string> | undefined;
async function aPriceElsewhere(): Promise<string> {
  const product = await stripeApi<{ id: string }>("/products", { name: "Something else" });
  const monthly = { currency: "usd", unit_amount: "500", "recurring[interval]": "month" };
  return (await stripeApi<{ id: string }>("/prices", { product: product.id, ...monthly })).id;
}

async function pay(url: string): Promise<void> {
  const paid = await fetch(url, { method: "POST", redirect: "manual" });
  await paid.arrayBuffer();
  expect(paid.status).toBe(303);
}

async function outcomes(tenantId: string): Promise<(string | null)[]> {
  const rows = await controlRows<{ outcome: string | null }>(
    `SELECT outcome FROM webhook_inbox WHERE tenant_id = $1 AND type = 'checkout.session.completed'
       AND applied_at IS NOT NULL ORDER BY received_at`,
    [tenantId],
  );
  return rows.map(({ outcome }) => outcome);
}

/** An event is left to its own application for ten seconds before the sweep takes it up. */
async function passInboxLag(): Promise<void> {
  await controlRows(
    `UPDATE webhook_inbox SET received_at = received_at - interval '1 minute' WHERE applied_at IS NULL`,
  );
}

function anEvent(type: string, object: object): { id: string } {
  const id = `evt_test_${crypto.randomUUID()}`;
  return { id, object: "event", type, livemode: false, data: { object } } as { id: string };
}

function deliver(event: object): Promise<Response> {
  const body = JSON.stringify(event);
  const atSeconds = Math.floor(Date.now() / 1000);
  const v1 = createHmac("sha256", system.stripeWebhookSecret).update(`${atSeconds}.${body}`).digest("hex");
  return fetch(`${system.publicUrl}/webhooks/stripe`, {
    method: "POST",
    headers: { "stripe-signature": `t=${atSeconds},v1=${v1}` },
    body,
  });
}

async function eventOf(id: string): Promise<{ outcome: string | null } | undefined> {
  return (
    await controlRows<{ outcome: string | null }>(`SELECT outcome FROM webhook_inbox WHERE event_id = $1`, [id])
  )[0];
}

async function subscriptionOf(tenantId: string): Promise<{ id: string; object: string; customer: string }> {
  const [row] = await controlRows<{ id: string; customer: string }>(
    `SELECT stripe_subscription_id AS id, stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenantId],
  );
  return { object: "subscription", id: row?.id ?? "", customer: row?.customer ?? "" };
}
