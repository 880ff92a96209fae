// The life of a subscription on the simulator's clock: its states at Stripe, the service in each state, and invoices that
// equal the ledger.
import { afterAll, expect, test } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { meterBehindOurBack } from "../support/billing.ts";
import {
  type TestTenant,
  aCustomer,
  callTool,
  controlRows,
  fireCron,
  operator,
  setClock,
  simulator,
  storedCalls,
  stripeApi,
  system,
  until,
} from "../support/flow.ts";
import { archived, leaves, ledgerOf, reaches, removal, unitsBilled } from "../support/removals.ts";
import { type BillingRow, aSubscriber, asAdmin, rowOf, stripeGet, untilRow } from "../support/subscribers.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

interface Line {
  amount: number;
  quantity: number | null;
  period: { start: number; end: number };
  pricing: { price_details: { price: string } | null } | null;
}

interface Invoice {
  id: string;
  status: string;
  billing_reason: string;
  lines: { data: Line[] };
}

let offsetMs = 0;
afterAll(async () => {
  await simulator("/clock", { offsetMs: 0 });
  await simulator("/payments", {});
});

/** Sets the clocks of Stripe and of the tenant's object. */
async function travelTo(tenant: TestTenant, atMs: number): Promise<void> {
  offsetMs = Math.ceil((atMs - Date.now()) / 1000) * 1000;
  await setClock(tenant.id, offsetMs);
  await simulator("/clock", { offsetMs });
}

function nowMs(): number {
  return Date.now() + offsetMs;
}

/** Makes calls that succeed. Returns their units. */
async function use(tenant: TestTenant, calls: number): Promise<number> {
  for (let n = 0; n < calls; n += 1) {
    const { isError, text } = await callTool(tenant.apiKey, "search_products", { query: "lamp" });
    expect(isError, text).toBeFalsy();
  }
  return calls;
}

/** Has all charged calls reported and confirmed. */
async function report(tenant: TestTenant): Promise<void> {
  const charged = (await storedCalls(tenant.id)).at(-1)?.["n"] ?? 0;
  await until(async () => {
    const [row] = await controlRows<{ n: number }>(
      `SELECT coalesce(max(watermark), 0)::int AS n FROM usage_streams WHERE tenant_id = $1`,
      [tenant.id],
    );
    return (row?.n ?? 0) >= Number(charged);
  }, "the ledger has every call");
  await fireCron("*/5 * * * *", nowMs() + 61_000);
  const open = await controlRows(
    `SELECT id FROM reports WHERE tenant_id = $1 AND confirmed_at IS NULL UNION ALL
     SELECT call_id FROM ledger WHERE tenant_id = $1 AND report_id IS NULL`,
    [tenant.id],
  );
  expect(open).toEqual([]);
}

async function invoicesOf(customer: string): Promise<Invoice[]> {
  return (await stripeGet<{ data: Invoice[] }>(`/invoices?customer=${customer}&limit=100`)).data;
}

let unitPrices: Set<string> | undefined;

/** Units on the invoices' lines with metered prices, of one period or of all. */
async function billedUnits(invoices: readonly Invoice[], periodEndMs?: number): Promise<number> {
  unitPrices ??= new Set(
    (await stripeGet<{ data: { id: string; recurring: { usage_type: string } }[] }>("/prices?limit=100")).data.flatMap(
      ({ id, recurring }) => (recurring.usage_type === "metered" ? [id] : []),
    ),
  );
  const metered = unitPrices;
  return invoices
    .flatMap(({ lines }) => lines.data)
    .filter(({ pricing }) => metered.has(pricing?.price_details?.price ?? ""))
    .filter(({ period }) => periodEndMs === undefined || period.end * 1000 === periodEndMs)
    .reduce((sum, { quantity }) => sum + (quantity ?? 0), 0);
}

async function ledgerUnits(tenantId: string, fromMs: number, toMs: number): Promise<number> {
  const [row] = await controlRows<{ units: number }>(
    `SELECT coalesce(sum(units), 0)::int AS units FROM ledger WHERE tenant_id = $1
       AND at >= to_timestamp($2::double precision / 1000) AND at < to_timestamp($3::double precision / 1000)`,
    [tenantId, fromMs, toMs],
  );
  return row?.units ?? 0;
}

test("usage of a tenant that leaves and returns within a minute is on one invoice, and the comparison alarms about any other unit", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Leaves and returns at once" });
  const units = [3, 2, 1];
  for (const calls of units) {
    // At the start of a second, so that the return would begin in the second of the calls.
    await new Promise((resolve) => setTimeout(resolve, 1_000 - (Date.now() % 1_000)));
    await use(tenant, calls);
    if (calls === 1) break;
    await leaves(tenant.id);
    expect((await operator("POST", `/tenants/${tenant.id}/reactivate`)).status).toBe(200);
  }
  await until(async () => (await ledgerOf(tenant.id)).length === 6, "the ledger has every call");
  // Stripe's times are whole seconds, so a call of one period could seem to be in the next one.
  const inLater = await controlRows(
    `SELECT l.at, s.starts_at FROM (SELECT at, row_number() OVER (ORDER BY at) AS n FROM ledger WHERE tenant_id = $1) l
     JOIN (SELECT starts_at, row_number() OVER (ORDER BY starts_at) AS n FROM subscription_periods WHERE tenant_id = $1) s
       ON l.at >= s.starts_at AND s.n > CASE WHEN l.n <= 3 THEN 1 WHEN l.n <= 5 THEN 2 ELSE 3 END`,
    [tenant.id],
  );
  expect(inLater).toEqual([]);
  await fireCron("*/5 * * * *", Date.now() + 3 * 60_000);

  // Another program writes to the meter. Then the period ends, and its invoice is final at the latest after 72 hours.
  const [row] = await controlRows<{ customer: string }>(
    `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  await meterBehindOurBack({ id: TenantId.parse(tenant.id), customerId: row?.customer ?? "" }, 7, Date.now());
  const laterMs = (Math.floor(Date.now() / DAY_MS) + 5) * DAY_MS + 3 * HOUR_MS;
  await simulator("/clock", { offsetMs: laterMs - Date.now() });
  await until(
    async () =>
      (await controlRows(`SELECT FROM billing_periods WHERE tenant_id = $1 AND invoice_id LIKE 'in_%'`, [tenant.id]))
        .length === 1,
    "the renewal's invoice is final",
  );
  expect(await unitsBilled(tenant.id)).toBe(6 + 7);
  await fireCron("*/5 * * * *", laterMs);
  // Only the last period differs, and only by these units.
  expect(
    await controlRows(
      `SELECT (invoiced_units - earned_units)::int AS more FROM invoice_drifts WHERE tenant_id = $1 AND closed_at IS NULL`,
      [tenant.id],
    ),
  ).toEqual([{ more: 7 }]);
  await controlRows(`UPDATE invoice_drifts SET closed_at = now() WHERE tenant_id = $1`, [tenant.id]);
  await controlRows(`UPDATE drifts SET closed_at = now() WHERE tenant_id = $1`, [tenant.id]);
  await simulator("/clock", { offsetMs: 0 });
});

test("a tenant that leaves twice within a minute pays for its last call, and its grace can be ended at once", async () => {
  const tenant = await aCustomer({ plan: "pro", name: "Leaves twice" });
  await use(tenant, 1);
  await leaves(tenant.id);
  expect((await operator("POST", `/tenants/${tenant.id}/reactivate`)).status).toBe(200);
  await use(tenant, 1);
  await leaves(tenant.id);
  expect(await removal(tenant.id)).toMatchObject({ phase: "grace", waitsFor: null });
  expect(await unitsBilled(tenant.id)).toBe(2);
  // Priced, and on an invoice of its own if it had a price: no invoice of a subscription follows.
  expect(
    await controlRows(`SELECT id FROM carry_forwards WHERE tenant_id = $1 AND priced_at IS NULL`, [tenant.id]),
  ).toEqual([]);
  expect((await operator("POST", `/tenants/${tenant.id}/remove?now=true`, { name: "Leaves twice" })).status).toBe(202);
});

const bodyOf = async (response: Response) => ({
  status: response.status,
  ...((await response.json()) as Record<string, unknown>),
});
const refusedWith = async (tenant: TestTenant): Promise<string | undefined> =>
  (await callTool(tenant.apiKey, "get_usage")).refusal?.code;

/** What a person must look at in the tenant's subscription. */
async function issuesOf(tenantId: string): Promise<string[]> {
  const { failures } = (await (await operator("GET", "/failures")).json()) as {
    failures: { part: string; item: string; error: string }[];
  };
  return failures
    .filter(({ part, item }) => part === "subscriptions" && item.startsWith(`${tenantId} `))
    .map(({ error }) => error);
}

test("what the operator does in Stripe's dashboard decides: a pause, a cancellation's flag, a price of no plan", async () => {
  const tenant = await aSubscriber({ plan: "starter" });
  const { subscription } = await rowOf(tenant.id);
  const edit = (form: Record<string, string>) => stripeApi(`/subscriptions/${subscription}`, form);

  // For free, or paid later: served. Voided: the operator does not serve the account for now.
  await edit({ "pause_collection[behavior]": "keep_as_draft" });
  await edit({ "pause_collection[behavior]": "void" });
  await untilRow(tenant.id, { state: "suspended", suspendedBy: "pause" });
  const refused = await callTool(tenant.apiKey, "get_usage");
  expect(refused).toMatchObject({
    refusal: { code: "tenant_suspended" },
    text: expect.stringContaining("only the operator"),
  });
  expect((await asAdmin(tenant, "POST", "/reactivate")).status).toBe(409);
  const back = await bodyOf(await operator("POST", `/tenants/${tenant.id}/reactivate`));
  expect(back).toMatchObject({ status: 200, state: "active", served: true });
  expect(await refusedWith(tenant)).toBeUndefined();

  await simulator("/cancellations", { flagOnly: true });
  await edit({ cancel_at_period_end: "true" });
  await simulator("/cancellations", {});
  await untilRow(tenant.id, { cancels: true, state: "active" });
  await edit({ cancel_at_period_end: "false" });
  await untilRow(tenant.id, { cancels: false });

  // A price that is not ours: served under its plan, and a person is to look until it is moved back.
  const { items } = await stripeGet<{ items: { data: { id: string; price: { id: string } }[] } }>(
    `/subscriptions/${subscription}`,
  );
  const [item] = items.data;
  const product = await stripeApi<{ id: string }>("/products", { name: "A special" });
  const price = await stripeApi<{ id: string }>("/prices", {
    ...{ currency: "usd", unit_amount: "900", "recurring[interval]": "month", product: product.id },
  });
  const move = (to: string) => edit({ "items[0][id]": item?.id ?? "", "items[0][price]": to });
  await move(price.id);
  await until(async () => (await issuesOf(tenant.id)).length === 1, "a person is to look");
  expect(await issuesOf(tenant.id)).toEqual([expect.stringContaining("no price of a plan")]);
  expect(await rowOf(tenant.id)).toMatchObject({ plan: "starter", state: "active" });
  await move(item?.price.id ?? "");
  await until(async () => (await issuesOf(tenant.id)).length === 0, "it is over");
});

test("a trial that Stripe paused for want of a way to pay runs again once the administrator has added one", async () => {
  const tenant = await aSubscriber({ plan: "starter", trialDays: 2 });
  const { subscription, customer } = await rowOf(tenant.id);
  await stripeApi(`/subscriptions/${subscription}`, {
    "trial_settings[end_behavior][missing_payment_method]": "pause",
  });
  await simulator("/payments", { customers: { [customer]: "fail" } });
  try {
    await simulator("/clock", { offsetMs: 4 * 86_400_000 });
    await untilRow(tenant.id, { state: "suspended", suspendedBy: "billing" });
    expect((await asAdmin(tenant, "POST", "/reactivate")).status).toBe(502);
    await simulator("/payments", {});
    expect(await bodyOf(await asAdmin(tenant, "POST", "/reactivate"))).toMatchObject({
      status: 200,
      state: "active",
    });
    expect(await refusedWith(tenant)).toBeUndefined();
  } finally {
    await simulator("/payments", {});
    await simulator("/clock", { offsetMs: 0 });
  }
});

test("a second subscription of one tenant ends at once without an invoice, and a person is to refund it", async () => {
  const tenant = await aSubscriber({ plan: "pro" });
  const { subscription, customer } = await rowOf(tenant.id);
  const { items } = await stripeGet<{ items: { data: { price: { id: string } }[] } }>(`/subscriptions/${subscription}`);
  const form = Object.fromEntries(items.data.map(({ price }, index) => [`items[${index}][price]`, price.id]));
  const second = await stripeApi<{ id: string }>("/subscriptions", {
    customer,
    ...form,
    "metadata[tenant_id]": tenant.id,
  });
  const statusOf = async (id: string): Promise<string> =>
    (await stripeGet<{ status: string }>(`/subscriptions/${id}`)).status;
  await until(async () => (await statusOf(second.id)) === "canceled", "the second one has ended");
  expect(await statusOf(subscription)).toBe("active");
  await until(async () => (await issuesOf(tenant.id)).length === 1, "a person is to look");
  expect(await issuesOf(tenant.id)).toEqual([expect.stringContaining(second.id)]);
  expect(await rowOf(tenant.id)).toMatchObject({ subscription, state: "active" });
  // Its times are no period, so all usage belongs to the first one.
  const periods = await controlRows<{ id: string }>(
    "SELECT DISTINCT subscription_id AS id FROM subscription_periods WHERE tenant_id = $1",
    [tenant.id],
  );
  expect(periods).toEqual([{ id: subscription }]);
  const acknowledged = await operator("POST", "/failures/acknowledge", {
    part: "subscriptions",
    item: `${tenant.id} ${second.id}`,
  });
  expect(acknowledged.status).toBe(200);
  expect(await issuesOf(tenant.id)).toEqual([]);
});

test("a customer that is deleted at Stripe closes its account, whose usage holds nothing up, and it returns with a new way to pay", async () => {
  const tenant = await aSubscriber({ plan: "pro" });
  const { customer } = await rowOf(tenant.id);
  await callTool(tenant.apiKey, "search_products", { query: "lamp" });
  const deleted = await fetch(`${system.stripeUrl}/v1/customers/${customer}`, {
    method: "DELETE",
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
  });
  expect(deleted.status).toBe(200);
  await until(async () => (await issuesOf(tenant.id)).length === 1, "a person is to look");
  await until(async () => (await rowOf(tenant.id)).state === "leaving", "its removal begins");
  await fireCron("* * * * *");
  await reaches(tenant.id, "grace");
  // The new customer has no card yet.
  await simulator("/payments", { everybody: "fail" });
  try {
    expect((await asAdmin(tenant, "POST", "/reactivate")).status).toBe(402);
    const portal = await asAdmin(tenant, "POST", "/portal", {});
    expect(portal.status).toBe(201);
  } finally {
    await simulator("/payments", {});
  }
  expect((await asAdmin(tenant, "POST", "/reactivate")).status).toBe(200);
  expect((await rowOf(tenant.id)).customer).not.toBe(customer);
  expect(await refusedWith(tenant)).toBeUndefined();
});

test("over the life of a subscription each change is in force at once, and each period's invoice equals the ledger, to the unit", async () => {
  // A trial. Its end begins the first period, at 00:00 UTC.
  const tenant = await aSubscriber({ plan: "starter", trialDays: 2 });
  const trial = await rowOf(tenant.id);
  expect(trial.periodEndMs % DAY_MS).toBe(0);
  await use(tenant, 3);
  await report(tenant);
  await travelTo(tenant, trial.periodEndMs + 2 * HOUR_MS);
  const first = await untilRow(tenant.id, { state: "active", periodStartMs: trial.periodEndMs });
  expect(await billedUnits(await invoicesOf(first.customer))).toBe(0);

  // The tenant upgrades in the middle of a period. Earlier usage is confirmed first, and the next call runs under pro.
  await travelTo(tenant, first.periodStartMs + 10 * DAY_MS);
  await use(tenant, 4);
  const upgraded = await asAdmin(tenant, "POST", "/plan", { plan: "pro" });
  expect({ status: upgraded.status, body: await upgraded.json() }).toMatchObject({
    status: 200,
    body: { plan: "pro", delivered: true, change: { fromPlan: "starter", plan: "pro", state: "done" } },
  });
  expect(
    await controlRows(`SELECT id FROM reports WHERE tenant_id = $1 AND confirmed_at IS NULL`, [tenant.id]),
  ).toEqual([]);
  expect(await ledgerUnits(tenant.id, 0, nowMs())).toBe(7);
  const upgradedAtMs = nowMs();
  expect(JSON.stringify((await callTool(tenant.apiKey, "get_usage")).data)).toContain("10000");
  await use(tenant, 5);
  await travelTo(tenant, first.periodEndMs - HOUR_MS);
  await use(tenant, 2); // the last hour of the period
  await report(tenant);
  await travelTo(tenant, first.periodEndMs + 3 * HOUR_MS);
  const second = await untilRow(tenant.id, { plan: "pro", periodStartMs: first.periodEndMs });
  const periodInvoice = async (row: BillingRow): Promise<number> =>
    billedUnits(await invoicesOf(row.customer), row.periodEndMs);
  // No invoice has the usage under starter, whose units are free, because Stripe confirmed it before the change.
  expect(await periodInvoice(first)).toBe(await ledgerUnits(tenant.id, upgradedAtMs, first.periodEndMs));

  // A payment fails. The tenant is served for a week, then refused, then served again as soon as it has paid.
  await use(tenant, 6);
  await report(tenant);
  await simulator("/payments", { customers: { [second.customer]: "fail" }, retryDelaysMs: [20 * DAY_MS] });
  await travelTo(tenant, second.periodEndMs + 2 * HOUR_MS);
  const third = await untilRow(tenant.id, { state: "past_due", pastDue: true });
  await use(tenant, 1);
  await travelTo(tenant, third.periodStartMs + 8 * DAY_MS);
  const refused = await callTool(tenant.apiKey, "search_products", { query: "lamp" });
  expect(refused.refusal?.code).toBe("payment_required");
  expect(refused.text).toContain("/portal");
  await simulator("/payments", {});
  const unpaid = (await invoicesOf(third.customer)).find(({ status: state }) => state === "open");
  await stripeApi(`/invoices/${unpaid?.id}/pay`, {});
  await untilRow(tenant.id, { state: "active", pastDue: false });
  await use(tenant, 2);
  expect(await periodInvoice(second)).toBe(await ledgerUnits(tenant.id, second.periodStartMs, second.periodEndMs));

  // A downgrade. The next invoice bills earlier usage at the earlier price.
  await travelTo(tenant, third.periodStartMs + 15 * DAY_MS);
  await use(tenant, 3);
  const downgraded = await asAdmin(tenant, "POST", "/plan", { plan: "starter" });
  expect(downgraded.status).toBe(200);
  const downgradedAtMs = nowMs();
  expect(JSON.stringify((await callTool(tenant.apiKey, "get_usage")).data)).toContain("1000");

  // The tenant cancels at the end of the period and undoes it.
  await stripeApi(`/subscriptions/${third.subscription}`, { cancel_at_period_end: "true" });
  await untilRow(tenant.id, { cancels: true, state: "active" });
  await stripeApi(`/subscriptions/${third.subscription}`, { cancel_at_period_end: "false" });
  await untilRow(tenant.id, { cancels: false });
  await travelTo(tenant, third.periodEndMs + 2 * HOUR_MS);
  const fourth = await untilRow(tenant.id, { plan: "starter", periodStartMs: third.periodEndMs });
  const all = await billedUnits(await invoicesOf(fourth.customer));
  expect(all).toBe(await ledgerUnits(tenant.id, upgradedAtMs, downgradedAtMs));

  // The tenant cancels, and the period ends.
  await stripeApi(`/subscriptions/${fourth.subscription}`, { cancel_at_period_end: "true" });
  await travelTo(tenant, fourth.periodEndMs + HOUR_MS);
  await untilRow(tenant.id, { state: "leaving" });
  expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).refusal?.code).toBe("tenant_leaving");
  await fireCron("* * * * *");
  await reaches(tenant.id, "grace");

  // The tenant is reactivated, with a new subscription to the same plan.
  expect((await asAdmin(tenant, "POST", "/reactivate")).status).toBe(200);
  const fifth = await untilRow(tenant.id, { state: "active", plan: "starter", suspendedBy: null });
  expect(fifth.subscription).not.toBe(fourth.subscription);
  expect(fifth.customer).toBe(fourth.customer);
  await use(tenant, 2);

  // The tenant leaves. The grace period ends, and the archive has the whole ledger.
  expect((await asAdmin(tenant, "POST", "/remove", { name: "A subscriber" })).status).toBe(202);
  await reaches(tenant.id, "grace");
  await controlRows(`UPDATE tenants SET leaving_until = now() WHERE id = $1`, [tenant.id]);
  await fireCron("* * * * *");
  await reaches(tenant.id, "done");
  const ledger = await ledgerOf(tenant.id);
  expect((await archived(tenant.id)).calls).toMatchObject(ledger);
  expect(ledger.reduce((sum, { units }) => sum + units, 0)).toBeGreaterThan(5);
}, 180_000);
