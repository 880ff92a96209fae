// The behaviour of Stripe's billing that the product relies on, through the SDK alone. Runs against the simulator, and against
// a real sandbox with test clocks when STRIPE_SANDBOX_KEY is set. It has not run against a sandbox yet. Other files test
// what only the simulator offers: its clock, seeded faults, and payments that fail on request.
import { Stripe } from "stripe";
import { expect, test, vi } from "vitest";
import { aCatalogue, aTarget, nowSeconds, PATIENCE_MS, report } from "./harness.ts";

vi.setConfig({ testTimeout: 3 * PATIENCE_MS + 20_000 });

const DAY = 86_400;
const WAIT = { timeout: PATIENCE_MS, interval: 200 };
const visa: Stripe.CustomerCreateParams = {
  payment_method: "pm_card_visa",
  invoice_settings: { default_payment_method: "pm_card_visa" },
};

/** A customer with a working card and a subscription to its own catalogue. */
async function aSubscription(
  stripe: Stripe,
  params: Stripe.SubscriptionCreateParams = {},
  customerParams: Stripe.CustomerCreateParams = visa,
) {
  const catalogue = await aCatalogue(stripe);
  const customer = await stripe.customers.create(customerParams);
  const subscription = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: catalogue.flat.id }, { price: catalogue.metered.id }],
    billing_mode: { type: "flexible" },
    metadata: { tenant_id: "tenant_1" },
    ...params,
  });
  return { ...catalogue, customer, subscription };
}

/** The units of a price on an invoice, over all its tiers. */
function unitsOf(invoice: Stripe.Invoice, price: string): number {
  const lines = invoice.lines.data.filter(({ pricing }) => pricing?.price_details?.price === price);
  return lines.reduce((sum, { quantity }) => sum + (quantity ?? 0), 0);
}

function idOf(reference: string | { id: string } | null): string {
  return typeof reference === "string" ? reference : (reference?.id ?? "");
}

test("a subscription pays its first invoice at once, and the invoice carries its id and metadata", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { subscription } = await aSubscription(stripe);
  expect(subscription.status).toBe("active");
  const invoice = await stripe.invoices.retrieve(idOf(subscription.latest_invoice));
  expect(invoice).toMatchObject({ status: "paid", total: 4900, billing_reason: "subscription_create" });
  expect(invoice.parent?.subscription_details).toMatchObject({
    subscription: subscription.id,
    metadata: { tenant_id: "tenant_1" },
  });
});

test("a first period ends at a future anchor and is charged by the second", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const midnight = (Math.floor(nowSeconds() / DAY) + 2) * DAY;
  const { subscription, flat } = await aSubscription(stripe, { billing_cycle_anchor: midnight });
  const [item] = subscription.items.data;
  expect(item).toMatchObject({ current_period_end: midnight });
  const invoice = await stripe.invoices.retrieve(idOf(subscription.latest_invoice));
  const line = invoice.lines.data.find(({ pricing }) => pricing?.price_details?.price === flat.id);
  const before = new Date(midnight * 1000);
  before.setUTCMonth(before.getUTCMonth() - 1);
  const whole = midnight - before.getTime() / 1000;
  const part = midnight - (item?.current_period_start ?? 0);
  expect(line?.amount).toBe(Math.round((4900 * part) / whole));
  expect(line?.parent?.subscription_item_details?.proration).toBe(true);
});

test("a period's invoice is a draft first, and takes usage of the period until it is finalized", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const clock = await target.aClock();
  const { subscription, customer, eventName, metered } = await aSubscription(
    stripe,
    {},
    { ...visa, ...clock.customer },
  );
  const end = subscription.items.data[0]?.current_period_end ?? 0;
  await report(stripe, eventName, customer.id, { value: "50000", timestamp: nowSeconds() });
  await clock.advance(end + 60);
  const invoices = () => stripe.invoices.list({ subscription: subscription.id });
  const [draft] = (await invoices()).data;
  expect(draft).toMatchObject({ status: "draft", billing_reason: "subscription_cycle" });
  await report(stripe, eventName, customer.id, { value: "7000", timestamp: end - 60 });
  await clock.advance(end + 2 * 3600);
  await vi.waitFor(async () => {
    const final = await stripe.invoices.retrieve(draft?.id ?? "");
    expect(final).toMatchObject({ status: "paid", total: 4900 + 700 });
    expect(unitsOf(final, metered.id)).toBe(57_000);
  }, WAIT);
});

test("switching plans invoices the usage so far at the old price and prorates the base, once under one key", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { subscription, customer, eventName, meter, product, metered } = await aSubscription(stripe);
  const recurring = { interval: "month" } as const;
  const made = { product: product.id, currency: "usd" };
  const base = await stripe.prices.create({ ...made, unit_amount: 9800, recurring });
  const units = await stripe.prices.create({
    ...made,
    unit_amount: 1,
    recurring: { ...recurring, usage_type: "metered", meter: meter.id },
  });
  await report(stripe, eventName, customer.id, { value: "51000", timestamp: nowSeconds() });
  const minute = Math.floor(nowSeconds() / 60) * 60;
  const range = { customer: customer.id, start_time: minute - 600, end_time: minute + 600 };
  await vi.waitFor(async () => {
    const { data } = await stripe.billing.meters.listEventSummaries(meter.id, range);
    expect(data[0]?.aggregated_value).toBe(51_000);
  }, WAIT);

  const change = () =>
    stripe.subscriptions.update(
      subscription.id,
      {
        items: [
          ...subscription.items.data.map(({ id }) => ({ id, deleted: true })),
          { price: base.id },
          { price: units.id },
        ],
        proration_behavior: "always_invoice",
      },
      { idempotencyKey: `plan.${subscription.id}` },
    );
  const changed = await change();
  expect(idOf((await change()).latest_invoice)).toBe(idOf(changed.latest_invoice));
  expect(changed).toMatchObject({ status: "active", billing_cycle_anchor: subscription.billing_cycle_anchor });
  expect(changed.items.data.map(({ price }) => price.id).toSorted()).toEqual([base.id, units.id].toSorted());
  const invoice = await stripe.invoices.retrieve(idOf(changed.latest_invoice));
  expect(invoice).toMatchObject({ status: "paid", billing_reason: "subscription_update" });
  expect(unitsOf(invoice, metered.id)).toBe(51_000);
  expect(invoice.total).toBeGreaterThanOrEqual(100 + 4890);
  expect(invoice.total).toBeLessThanOrEqual(100 + 4900);
});

test("an upgrade from a free price keeps the anchor on request", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { product, flat } = await aCatalogue(stripe);
  const customer = await stripe.customers.create(visa);
  const free = { product: product.id, currency: "usd", unit_amount: 0, recurring: { interval: "month" } } as const;
  const nothing = await stripe.prices.create(free);
  const midnight = (Math.floor(nowSeconds() / DAY) + 1) * DAY;
  const { id, items } = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: nothing.id }],
    billing_cycle_anchor: midnight,
    billing_mode: { type: "flexible" },
  });
  const changed = await stripe.subscriptions.update(id, {
    items: [{ id: items.data[0]?.id ?? "", price: flat.id }],
    billing_cycle_anchor: { type: "unchanged" },
    proration_behavior: "always_invoice",
  });
  expect(changed.billing_cycle_anchor).toBe(midnight);
  expect(changed.items.data[0]).toMatchObject({ current_period_end: midnight });
});

test("a cancellation at the period end can be undone; an immediate one bills the last usage only on request", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { subscription, customer } = await aSubscription(stripe);
  const later = await stripe.subscriptions.update(subscription.id, { cancel_at_period_end: true });
  expect(later.cancel_at).toBe(later.items.data[0]?.current_period_end);
  const kept = await stripe.subscriptions.update(subscription.id, { cancel_at_period_end: false });
  expect(kept).toMatchObject({ cancel_at: null, cancel_at_period_end: false, status: "active" });
  await stripe.subscriptions.cancel(subscription.id);
  expect((await stripe.invoices.list({ customer: customer.id })).data).toHaveLength(1);

  const other = await aSubscription(stripe);
  await report(stripe, other.eventName, other.customer.id, { value: "60000", timestamp: nowSeconds() });
  const minute = Math.floor(nowSeconds() / 60) * 60;
  const range = { customer: other.customer.id, start_time: minute - 600, end_time: minute + 600 };
  await vi.waitFor(async () => {
    const { data } = await stripe.billing.meters.listEventSummaries(other.meter.id, range);
    expect(data[0]?.aggregated_value).toBe(60_000);
  }, WAIT);
  const ended = await stripe.subscriptions.cancel(other.subscription.id, { invoice_now: true });
  const final = await stripe.invoices.retrieve(idOf(ended.latest_invoice));
  expect(final.id).not.toBe(idOf(other.subscription.latest_invoice));
  expect([unitsOf(final, other.metered.id), final.total]).toEqual([60_000, 1000]);
});

test("a subscription whose payment fails is past due, and active again once its invoice is paid", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const failing = { payment_method: "pm_card_chargeCustomerFail" };
  const { subscription, customer } = await aSubscription(
    stripe,
    { trial_period_days: 7 },
    { ...failing, invoice_settings: { default_payment_method: failing.payment_method } },
  );
  const due = await stripe.subscriptions.update(subscription.id, { trial_end: "now" });
  expect(due.status).toBe("past_due");
  const invoice = await stripe.invoices.retrieve(idOf(due.latest_invoice));
  expect(invoice).toMatchObject({ status: "open", attempted: true, amount_remaining: 4900 });
  const card = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
  expect(await stripe.invoices.pay(invoice.id, { payment_method: card.id })).toMatchObject({ status: "paid" });
  expect((await stripe.subscriptions.retrieve(subscription.id)).status).toBe("active");
  await vi.waitFor(async () => {
    const events = await stripe.events.list({ types: ["invoice.payment_failed", "invoice.paid"], limit: 100 });
    const told = events.data.filter(({ data }) => "id" in data.object && data.object.id === invoice.id);
    expect(told.map(({ type }) => type).toSorted()).toEqual(["invoice.paid", "invoice.payment_failed"]);
  }, WAIT);
});

test("an invoice item is made once under one key, rounded once, and billed by the next invoice", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const customer = await stripe.customers.create(visa);
  const item = () =>
    stripe.invoiceItems.create(
      {
        customer: customer.id,
        currency: "usd",
        quantity: 12_345,
        unit_amount_decimal: Stripe.Decimal.from("0.1"),
        description: "Late usage",
      },
      { idempotencyKey: `carry.${customer.id}` },
    );
  const made = await item();
  expect((await item()).id).toBe(made.id);
  // 1,234.5 cents: a half is rounded up.
  expect(made).toMatchObject({ amount: 1235, quantity: 12_345, invoice: null });
  const pending = await stripe.invoiceItems.list({ customer: customer.id, pending: true });
  expect(pending.data.map(({ id }) => id)).toEqual([made.id]);
  const invoice = await stripe.invoices.create({
    customer: customer.id,
    pending_invoice_items_behavior: "include",
  });
  expect(invoice).toMatchObject({ status: "draft", total: 1235 });
  expect(await stripe.invoices.finalizeInvoice(invoice.id)).toMatchObject({ status: "open" });
  expect((await stripe.invoices.listLineItems(invoice.id)).data).toMatchObject([{ amount: 1235, quantity: 12_345 }]);
  expect(await stripe.invoices.voidInvoice(invoice.id)).toMatchObject({ status: "void" });
});

test("a portal without plan switching has a page for one customer", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const customer = await stripe.customers.create();
  const configuration = await stripe.billingPortal.configurations.create({
    features: {
      invoice_history: { enabled: true },
      payment_method_update: { enabled: true },
      subscription_cancel: { enabled: true, mode: "at_period_end" },
      subscription_update: { enabled: false },
    },
  });
  expect(configuration.features.subscription_update.enabled).toBe(false);
  expect(configuration.features.subscription_cancel).toMatchObject({ enabled: true, mode: "at_period_end" });
  const session = await stripe.billingPortal.sessions.create({
    customer: customer.id,
    configuration: configuration.id,
    return_url: "https://example.com/app",
  });
  expect(session).toMatchObject({ customer: customer.id, return_url: "https://example.com/app" });
  expect(session.url).toMatch(/^https?:/);
});

test("usage of an unknown customer is accepted, then reported in a thin event that names the request", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { eventName, meter } = await aCatalogue(stripe);
  const identifier = `u1.${crypto.randomUUID()}`;
  await stripe.billing.meterEvents.create(
    { event_name: eventName, identifier, payload: { stripe_customer_id: "cus_nobody", value: "5" } },
    { idempotencyKey: `${identifier}.a1` },
  );
  await vi.waitFor(async () => {
    const [event] = (await stripe.v2.core.events.list({ object_id: meter.id, limit: 10 })).data;
    if (event?.type !== "v1.billing.meter.error_report_triggered")
      throw new Error("the thin event has not arrived yet");
    const [kind] = event.data.reason.error_types;
    expect(kind?.code).toBe("meter_event_customer_not_found");
    expect(kind?.sample_errors[0]?.request.identifier).toContain(identifier);
  }, WAIT);
});
