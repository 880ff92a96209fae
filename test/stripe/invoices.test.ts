// The invoices of a subscription over its life: their lines, and when they become final.
import { Stripe } from "stripe";
import { expect, test } from "vitest";
import { FIRST, aCatalogue, aSession, aSimulator, aSubscriber, april } from "./harness.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const HOUR = 3600;
const DAY = 24 * HOUR;

const units = (invoice: Stripe.Invoice | undefined) =>
  (invoice?.lines.data ?? []).map(({ quantity, amount }) => [quantity, amount]);

test("a period's invoice is a draft for an hour, includes usage that arrives in it, and is then final", async () => {
  await using sim = await april();
  const { use, invoices, subscription, customer } = await aSubscriber(sim);
  const [first] = await invoices();
  expect(first).toMatchObject({
    status: "paid",
    total: 4900,
    amount_paid: 4900,
    billing_reason: "subscription_create",
  });
  expect(first?.parent?.subscription_details).toMatchObject({
    subscription: subscription.id,
    metadata: { tenant_id: "tenant_1" },
  });
  expect(subscription).toMatchObject({ status: "active", latest_invoice: first?.id });

  await use(50_000, FIRST);
  await sim.setClock(30 * DAY_MS);
  const draft = (await invoices()).at(-1);
  expect(draft).toMatchObject({ status: "draft", billing_reason: "subscription_cycle", amount_paid: 0 });
  expect(draft?.automatically_finalizes_at).toBe(FIRST + 30 * DAY + HOUR);
  await use(7_005, FIRST + 30 * DAY - 1);
  await use(100_000, FIRST + 30 * DAY);
  await sim.setClock(30 * DAY_MS + HOUR_MS - 1);
  expect((await invoices()).at(-1)?.status).toBe("draft");
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  const final = (await invoices()).at(-1);
  // 4,900 for May, 50,000 free units, and 7,005 units at a tenth of a cent: 700.5, rounded up.
  expect(final).toMatchObject({ id: draft?.id, status: "paid", total: 4900 + 701, number: expect.any(String) });
  expect(units(final)).toEqual([
    [1, 4900],
    [50_000, 0],
    [7_005, 701],
  ]);

  await use(1_000_000, FIRST + 30 * DAY - 1);
  await sim.setClock(61 * DAY_MS + HOUR_MS);
  const next = (await invoices()).at(-1);
  expect(units(next)).toEqual([
    [1, 4900],
    [50_000, 0],
    [50_000, 5000],
  ]);
  expect((await sim.stripe.subscriptions.retrieve(subscription.id)).latest_invoice).toBe(next?.id);
  expect((await sim.stripe.invoices.list({ subscription: subscription.id })).data).toHaveLength(3);
  expect((await sim.stripe.invoices.list({ customer: customer.id, status: "draft" })).data).toEqual([]);
});

test("a draft lasts up to 72 hours, and no longer", async () => {
  await using sim = await april();
  await sim.control("invoices", { finalizationDelayMs: 72 * HOUR_MS });
  await expect(sim.control("invoices", { finalizationDelayMs: 72 * HOUR_MS + 1 })).rejects.toThrow(
    "finalizationDelayMs",
  );
  const { use, invoices } = await aSubscriber(sim);
  await sim.setClock(32 * DAY_MS);
  await use(60_000, FIRST + 30 * DAY - 1);
  await sim.setClock(33 * DAY_MS);
  expect((await invoices()).at(-1)).toMatchObject({ status: "paid", total: 4900 + 1000 });
});

test("a clock that jumps over three periods makes the same invoices and events as one that advances in steps", async () => {
  const run = async (steps: number[]) => {
    await using sim = await april();
    await sim.control("payments", { retryDelaysMs: [3 * DAY_MS, 5 * DAY_MS] });
    const good = await aSubscriber(sim, { billing_cycle_anchor: FIRST + DAY });
    const bad = await aSubscriber(sim, { trial_period_days: 3 });
    await good.use(51_234, FIRST + 60);
    await bad.use(70_000, FIRST + 120);
    await sim.control("payments", {
      retryDelaysMs: [3 * DAY_MS, 5 * DAY_MS],
      customers: { [bad.customer.id]: "fail" },
    });
    for (const days of steps) await sim.setClock(days * DAY_MS);
    const facts = (invoice: Stripe.Invoice) => {
      const {
        status,
        total,
        created,
        attempt_count: attempts,
        status_transitions: at,
        billing_reason: reason,
      } = invoice;
      const lines = invoice.lines.data.map(({ amount, quantity, period }) => ({ amount, quantity, period }));
      return { status, total, created, attempts, at, reason, lines };
    };
    const events = await sim.stripe.events.list({ limit: 100 }).autoPagingToArray({ limit: 1000 });
    const told = events
      .map(({ type, created }) => `${created} ${type}`)
      .filter((line) => Number(line.split(" ")[0]) > FIRST);
    return {
      good: (await good.invoices()).map(facts),
      bad: (await bad.invoices()).map(facts),
      status: (await sim.stripe.subscriptions.retrieve(bad.subscription.id)).status,
      told,
    };
  };
  const walked = await run(Array.from({ length: 190 }, (_, index) => (index + 1) / 2));
  expect(await run([95])).toEqual(walked);
  expect(walked.good).toHaveLength(5);
  expect(walked.good.map(({ total }) => total)).toEqual([158, 5023, 4900, 4900, 4900]);
  expect(walked.status).toBe("canceled");
});

test("a first period that ends at midnight costs its share", async () => {
  await using sim = await aSimulator({ clock: () => (FIRST + 6 * HOUR) * 1000 });
  const { invoices } = await aSubscriber(sim, { billing_cycle_anchor: FIRST + DAY });
  const [first] = await invoices();
  // 18 hours of the 31 days before 2 April.
  expect(first).toMatchObject({ status: "paid", total: Math.round((4900 * 18) / (31 * 24)) });
  expect(first?.lines.data[0]?.period).toEqual({ start: FIRST + 6 * HOUR, end: FIRST + DAY });
  const { invoices: free } = await aSubscriber(sim, {
    billing_cycle_anchor: FIRST + DAY,
    proration_behavior: "none",
  });
  expect(await free()).toEqual([]);
});

test("a session paid after its anchor has passed is billed for the full period from there", async () => {
  await using sim = await aSimulator({ clock: () => (FIRST + 23 * HOUR) * 1000 });
  const catalogue = await aCatalogue(sim.stripe);
  const session = await aSession(sim.stripe, catalogue, {
    subscription_data: { billing_cycle_anchor: FIRST + DAY },
  });
  expect(session.amount_total).toBe(Math.round(4900 / (31 * 24)));
  await sim.setClock(2 * HOUR_MS);
  await sim.pay(session);
  const [subscription] = (await sim.stripe.subscriptions.list({ expand: ["data.latest_invoice"] })).data;
  expect(subscription?.items.data[0]).toMatchObject({
    current_period_start: FIRST + DAY,
    current_period_end: Date.UTC(2026, 4, 2) / 1000,
  });
  expect(subscription?.latest_invoice).toMatchObject({ status: "paid", total: 4900 });
});

test("switching prices bills the usage so far at the old one, and prorates the base", async () => {
  await using sim = await april();
  const { use, invoices, subscription, product, meter } = await aSubscriber(sim);
  const dearer = await sim.stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 9800,
    recurring: { interval: "month" },
  });
  const cheapUnits = await sim.stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 1,
    recurring: { interval: "month", usage_type: "metered", meter: meter.id },
  });
  await use(52_000, FIRST + 60);
  await sim.setClock(15 * DAY_MS);
  const [base, metered] = subscription.items.data;
  const update = () =>
    sim.stripe.subscriptions.update(
      subscription.id,
      {
        items: [
          { id: base?.id ?? "", deleted: true },
          { id: metered?.id ?? "", deleted: true },
          { price: dearer.id },
          { price: cheapUnits.id },
        ],
        proration_behavior: "always_invoice",
      },
      { idempotencyKey: "plan.1" },
    );
  const changed = await update();
  expect((await update()).latest_invoice).toBe(changed.latest_invoice);
  const made = await invoices();
  expect(made).toHaveLength(2);
  expect(made[1]).toMatchObject({ id: changed.latest_invoice, status: "paid", billing_reason: "subscription_update" });
  expect(made[1]?.lines.data.map(({ quantity, amount }) => [quantity, amount])).toEqual([
    [1, -2450],
    [50_000, 0],
    [2_000, 200],
    [1, 4900],
  ]);
  expect(made[1]?.lines.data.map(({ parent }) => parent?.invoice_item_details?.proration)).toEqual([
    true,
    false,
    false,
    true,
  ]);

  // Too late for the old price: usage reported now is billed at the new one.
  await use(30, FIRST + DAY);
  await use(12, FIRST + 15 * DAY);
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  expect((await invoices()).at(-1)).toMatchObject({ total: 9800 + 42 });
});

test("an upgrade from a free price is billed at once, unless the anchor stays", async () => {
  await using sim = await april();
  const { stripe } = sim;
  const { product, flat, customer } = await aSubscriber(sim);
  const nothing = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 0,
    recurring: { interval: "month" },
  });
  const upgraded = async (extra: Stripe.SubscriptionUpdateParams) => {
    const { id, items } = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: nothing.id }],
      billing_cycle_anchor: FIRST + DAY,
    });
    await sim.setClock(16 * DAY_MS);
    const item = { id: items.data[0]?.id ?? "", price: flat.id };
    const changed = await stripe.subscriptions.update(id, { items: [item], ...extra, expand: ["latest_invoice"] });
    await sim.setClock(0);
    return changed;
  };
  expect(await upgraded({})).toMatchObject({
    billing_cycle_anchor: FIRST + 16 * DAY,
    latest_invoice: { total: 4900, billing_reason: "subscription_update" },
  });
  expect(
    await upgraded({ billing_cycle_anchor: { type: "unchanged" }, proration_behavior: "always_invoice" }),
  ).toMatchObject({
    billing_cycle_anchor: FIRST + DAY,
    latest_invoice: { total: 2450, billing_reason: "subscription_update" },
  });
});

test("a cheaper price gives a credit, on the next invoice or on the customer's balance", async () => {
  await using sim = await april();
  const { invoices, subscription, customer, product } = await aSubscriber(sim);
  const free = { product: product.id, currency: "usd", unit_amount: 100, recurring: { interval: "month" } } as const;
  const cheap = await sim.stripe.prices.create(free);
  await sim.setClock(15 * DAY_MS);
  const item = subscription.items.data[0]?.id ?? "";
  await sim.stripe.subscriptions.update(subscription.id, { items: [{ id: item, price: cheap.id }] });
  const waiting = await sim.stripe.invoiceItems.list({ customer: customer.id, pending: true });
  expect(waiting.data.map(({ amount, proration }) => [amount, proration])).toEqual([
    [50, true],
    [-2450, true],
  ]);
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  expect((await invoices()).at(-1)).toMatchObject({
    status: "paid",
    total: -2300,
    amount_due: 0,
    ending_balance: -2300,
  });
  await sim.setClock(61 * DAY_MS + HOUR_MS);
  expect((await invoices()).at(-1)).toMatchObject({ total: 100, starting_balance: -2300, amount_due: 0 });
  expect(await sim.stripe.customers.retrieve(customer.id)).toMatchObject({ balance: -2200 });
});

test("usage is free in a trial; its end, scheduled or on request, bills the first period", async () => {
  await using sim = await april();
  const { use, invoices, subscription } = await aSubscriber(sim, { trial_period_days: 14 });
  expect(subscription.status).toBe("trialing");
  expect(await invoices()).toMatchObject([{ status: "paid", total: 0, billing_reason: "subscription_create" }]);
  await use(90_000, FIRST + 60);
  await sim.setClock(14 * DAY_MS + HOUR_MS);
  expect((await sim.stripe.subscriptions.retrieve(subscription.id)).status).toBe("active");
  expect((await invoices()).at(-1)).toMatchObject({
    status: "paid",
    total: 4900,
    billing_reason: "subscription_cycle",
  });

  const other = await aSubscriber(sim, { trial_period_days: 14 });
  const ended = await sim.stripe.subscriptions.update(other.subscription.id, { trial_end: "now" });
  expect(ended).toMatchObject({ status: "active", billing_cycle_anchor: FIRST + 14 * DAY + HOUR });
  expect((await other.invoices()).at(-1)).toMatchObject({ status: "paid", total: 4900 });
});

test("an immediate cancellation bills the last usage only on request, one at the period end always", async () => {
  await using sim = await april();
  const [now, never, later] = [await aSubscriber(sim), await aSubscriber(sim), await aSubscriber(sim)];
  for (const { use } of [now, never, later]) await use(60_000, FIRST + 60);
  await sim.setClock(15 * DAY_MS);
  await sim.stripe.subscriptions.cancel(never.subscription.id);
  expect(await never.invoices()).toHaveLength(1);
  const ended = await sim.stripe.subscriptions.cancel(now.subscription.id, { invoice_now: true, prorate: true });
  const final = (await now.invoices()).at(-1);
  expect(final).toMatchObject({ id: ended.latest_invoice, total: 1000 - 2450, status: "paid" });

  await sim.stripe.subscriptions.update(later.subscription.id, { cancel_at_period_end: true });
  const kept = await sim.stripe.subscriptions.update(later.subscription.id, { cancel_at_period_end: false });
  expect(kept).toMatchObject({ cancel_at: null, canceled_at: null, status: "active" });
  await sim.stripe.subscriptions.update(later.subscription.id, { cancel_at_period_end: true });
  await sim.setClock(30 * DAY_MS);
  expect((await sim.stripe.subscriptions.retrieve(later.subscription.id)).status).toBe("canceled");
  await later.use(10_000, FIRST + 2 * DAY);
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  expect((await later.invoices()).at(-1)).toMatchObject({ status: "paid", total: 2000 });
});

test("an invoice item waits for the next invoice, is billed once, and can be deleted before", async () => {
  await using sim = await april();
  const { stripe } = sim;
  const { customer, subscription, invoices } = await aSubscriber(sim);
  const late = (identifier: string) =>
    stripe.invoiceItems.create(
      {
        customer: customer.id,
        subscription: subscription.id,
        currency: "usd",
        quantity: 12_345,
        unit_amount_decimal: Stripe.Decimal.from("0.1"),
        period: { start: FIRST, end: FIRST + DAY },
        description: "Late usage",
      },
      { idempotencyKey: identifier },
    );
  const item = await late("carry.1");
  expect((await late("carry.1")).id).toBe(item.id);
  expect(item).toMatchObject({ amount: 1235, quantity: 12_345, invoice: null });
  const other = await stripe.invoiceItems.create({ customer: customer.id, currency: "usd", amount: -500 });
  expect(await stripe.invoiceItems.del(other.id)).toMatchObject({ deleted: true });
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  const billed = (await invoices()).at(-1);
  expect(billed?.lines.data[0]).toMatchObject({ quantity: 12_345, amount: 1235, period: { start: FIRST } });
  expect((await stripe.invoiceItems.retrieve(item.id)).invoice).toBe(billed?.id);
  await expect(stripe.invoiceItems.del(item.id)).rejects.toMatchObject({ statusCode: 400 });
  await sim.setClock(61 * DAY_MS + HOUR_MS);
  expect((await invoices()).at(-1)).toMatchObject({ total: 4900 });
});

test("an invoice made through the API bills pending items, shows ten lines and lists the rest", async () => {
  await using sim = await april();
  const { stripe } = sim;
  const customer = await stripe.customers.create();
  for (let index = 1; index <= 12; index += 1) {
    await stripe.invoiceItems.create({ customer: customer.id, currency: "usd", amount: index });
  }
  const draft = await stripe.invoices.create({ customer: customer.id, pending_invoice_items_behavior: "include" });
  expect(draft).toMatchObject({ status: "draft", total: 78, auto_advance: false, lines: { has_more: true } });
  expect(draft.lines.data).toHaveLength(10);
  const lines = await stripe.invoices.listLineItems(draft.id, { limit: 5 }).autoPagingToArray({ limit: 100 });
  expect(lines.map(({ amount }) => amount)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(await stripe.invoices.finalizeInvoice(draft.id)).toMatchObject({ status: "open", amount_due: 78 });
  await sim.setClock(10 * DAY_MS);
  expect(await stripe.invoices.retrieve(draft.id)).toMatchObject({ status: "open" });
  expect(await stripe.invoices.pay(draft.id)).toMatchObject({ status: "paid", amount_paid: 78 });
  await expect(stripe.invoices.voidInvoice(draft.id)).rejects.toMatchObject({ statusCode: 400 });
});

test("a preview shows the next invoice with the usage so far, and creates nothing", async () => {
  await using sim = await april();
  const { use, subscription, invoices } = await aSubscriber(sim);
  await use(51_000, FIRST + 60);
  const preview = await sim.stripe.invoices.createPreview({ subscription: subscription.id });
  expect(preview).toMatchObject({ total: 4900 + 100, status: "draft" });
  expect(await invoices()).toHaveLength(1);
});
