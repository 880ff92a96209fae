// Failed payments: their effect on the invoice, the subscription and the requested change.
import { expect, test } from "vitest";
import { FIRST, aCatalogue, aReceiver, aSession, aSimulator, aSubscriber, april } from "./harness.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const HOUR = 3600;
const DAY = 24 * HOUR;

test("a failed payment makes the subscription past due until a retry succeeds", async () => {
  await using receiver = await aReceiver();
  await using sim = await aSimulator({ clock: () => FIRST * 1000, webhook: receiver.webhook });
  const { invoices, subscription, customer } = await aSubscriber(sim);
  const status = async () => (await sim.stripe.subscriptions.retrieve(subscription.id)).status;
  await sim.control("payments", { customers: { [customer.id]: "fail" } });
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  expect(await status()).toBe("past_due");
  const failed = (await invoices()).at(-1);
  expect(failed).toMatchObject({ status: "open", attempt_count: 1, amount_remaining: 4900 });
  expect(failed?.next_payment_attempt).toBe(FIRST + 33 * DAY + HOUR);
  await expect(sim.stripe.invoices.pay(failed?.id ?? "")).rejects.toMatchObject({
    statusCode: 402,
    code: "card_declined",
  });
  expect((await invoices()).at(-1)).toMatchObject({ attempt_count: 2 });
  await sim.control("payments", {});
  await sim.stripe.invoices.pay(failed?.id ?? "");
  expect(await status()).toBe("active");
  const since = (await sim.stripe.events.list({ limit: 100, created: { gte: FIRST + 30 * DAY } })).data.toReversed();
  const told = since.map(({ type }) => type).filter((type) => !type.startsWith("invoice.updated"));
  expect(told).toEqual([
    "invoice.created",
    "customer.subscription.updated",
    "invoice.finalized",
    "invoice.payment_failed",
    "customer.subscription.updated",
    "invoice.payment_failed",
    "invoice.paid",
    "invoice.payment_succeeded",
    "customer.subscription.updated",
  ]);
});

test.each([
  ["cancel", "canceled"],
  ["unpaid", "unpaid"],
  ["past_due", "past_due"],
])("after the last failed retry the account's setting decides: %s", async (afterRetries, status) => {
  await using sim = await april();
  const { subscription, invoices, customer } = await aSubscriber(sim);
  const failing = { afterRetries, retryDelaysMs: [DAY_MS, DAY_MS] };
  await sim.control("payments", { ...failing, everybody: "fail" });
  await sim.setClock(33 * DAY_MS);
  expect((await sim.stripe.subscriptions.retrieve(subscription.id)).status).toBe(status);
  expect((await invoices()).at(-1)).toMatchObject({ status: "open", attempt_count: 3, next_payment_attempt: null });
  await sim.control("payments", { ...failing, customers: { [customer.id]: "succeed" } });
  await sim.setClock(65 * DAY_MS);
  const later = await invoices();
  expect(later.map(({ status: each }) => each)).toEqual(
    status === "canceled"
      ? ["paid", "open"]
      : status === "unpaid"
        ? ["paid", "open", "draft"]
        : ["paid", "open", "paid"],
  );
});

test("a first payment that fails leaves the subscription incomplete, and expires it after 23 hours", async () => {
  await using sim = await april();
  await sim.control("payments", { everybody: "fail" });
  const { subscription, invoices } = await aSubscriber(sim);
  expect(subscription.status).toBe("incomplete");
  await sim.setClock(23 * HOUR_MS);
  expect((await sim.stripe.subscriptions.retrieve(subscription.id)).status).toBe("incomplete_expired");
  expect(await invoices()).toMatchObject([{ status: "void" }]);

  const session = await aSession(sim.stripe, await aCatalogue(sim.stripe));
  expect((await sim.pay(session)).status).toBe(402);
  await sim.control("payments", {});
  expect((await sim.pay(session)).status).toBe(303);
});

test("an upgrade whose payment fails is refused as a whole on request", async () => {
  await using sim = await april();
  const { subscription, invoices, customer, product } = await aSubscriber(sim);
  const dearer = await sim.stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 9800,
    recurring: { interval: "month" },
  });
  await sim.control("payments", { customers: { [customer.id]: "fail" } });
  const upgrade = (payment_behavior: "allow_incomplete" | "error_if_incomplete") =>
    sim.stripe.subscriptions.update(subscription.id, {
      items: [{ id: subscription.items.data[0]?.id ?? "", price: dearer.id }],
      proration_behavior: "always_invoice",
      payment_behavior,
    });
  await expect(upgrade("error_if_incomplete")).rejects.toMatchObject({ statusCode: 402 });
  expect(await sim.stripe.subscriptions.retrieve(subscription.id)).toEqual(subscription);
  expect(await invoices()).toHaveLength(1);
  expect(await upgrade("allow_incomplete")).toMatchObject({ status: "past_due" });
});

test("a card that fails when charged fails the invoice, and another one pays it", async () => {
  await using sim = await april();
  const { stripe } = sim;
  const customer = await stripe.customers.create({
    payment_method: "pm_card_chargeCustomerFail",
    invoice_settings: { default_payment_method: "pm_card_chargeCustomerFail" },
  });
  await stripe.invoiceItems.create({ customer: customer.id, currency: "usd", amount: 2000 });
  const invoice = await stripe.invoices.create({ customer: customer.id, pending_invoice_items_behavior: "include" });
  await expect(stripe.invoices.pay(invoice.id)).rejects.toMatchObject({ code: "card_declined" });
  expect(await stripe.invoices.retrieve(invoice.id)).toMatchObject({ status: "open", attempt_count: 1 });
  const card = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
  expect(await stripe.invoices.pay(invoice.id, { payment_method: card.id })).toMatchObject({ status: "paid" });

  const stranger = await stripe.customers.create();
  const foreign = { invoice_settings: { default_payment_method: card.id } };
  await expect(stripe.customers.update(stranger.id, foreign)).rejects.toMatchObject({ statusCode: 400 });
  const settled = await stripe.customers.update(customer.id, foreign);
  expect(settled.invoice_settings.default_payment_method).toBe(card.id);
});

test("an invoice is deleted as a draft, written off when open, and not collected after either", async () => {
  await using sim = await april();
  const { stripe } = sim;
  const customer = await stripe.customers.create();
  const drafted = async () => {
    await stripe.invoiceItems.create({ customer: customer.id, currency: "usd", amount: 2000 });
    return stripe.invoices.create({ customer: customer.id, pending_invoice_items_behavior: "include" });
  };
  const [gone, lost] = [await drafted(), await drafted()];
  expect(await stripe.invoices.del(gone.id)).toMatchObject({ deleted: true });
  expect((await stripe.invoiceItems.list({ customer: customer.id })).data).toHaveLength(1);
  await stripe.invoices.finalizeInvoice(lost.id);
  await expect(stripe.invoices.del(lost.id)).rejects.toMatchObject({ statusCode: 400 });
  expect(await stripe.invoices.markUncollectible(lost.id)).toMatchObject({ status: "uncollectible" });
  expect(await stripe.invoices.pay(lost.id)).toMatchObject({ status: "paid", amount_paid: 2000 });
});
