// The customer portal: its page offers and runs the actions that the configuration allows.
import type { Stripe } from "stripe";
import { expect, test } from "vitest";
import { aSimulator, aSubscriber } from "./harness.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const FIRST_MS = Date.UTC(2026, 3, 1);

/** A simulator with a subscriber and a portal session that allows `features`. */
async function aPortal(features: Stripe.BillingPortal.ConfigurationCreateParams.Features) {
  const sim = await aSimulator({ clock: () => FIRST_MS });
  const subscriber = await aSubscriber(sim);
  const configuration = await sim.stripe.billingPortal.configurations.create({ features });
  const session = await sim.stripe.billingPortal.sessions.create({
    customer: subscriber.customer.id,
    configuration: configuration.id,
    return_url: "http://127.0.0.1:1/app",
  });
  const subscription = () => sim.stripe.subscriptions.retrieve(subscriber.subscription.id);
  return {
    ...subscriber,
    sim,
    configuration,
    session,
    subscription,
    page: async () => (await fetch(session.url)).text(),
    /** Submits one of the page's forms. */
    send: (form: Record<string, string>) =>
      fetch(session.url, { method: "POST", body: new URLSearchParams(form), redirect: "manual" }),
    [Symbol.asyncDispose]: () => sim.close(),
  };
}

test("a customer cancels at the end of the period, and undoes it", async () => {
  await using portal = await aPortal({
    invoice_history: { enabled: true },
    subscription_cancel: { enabled: true, mode: "at_period_end" },
  });
  const { id } = await portal.subscription();
  const page = await portal.page();
  expect(page).toContain("Simulated Stripe");
  expect(page).toContain("49.00 USD");
  expect(page).toContain("http://127.0.0.1:1/app");
  const answer = await portal.send({ action: "cancel", subscription: id });
  expect([answer.status, answer.headers.get("location")]).toEqual([303, portal.session.url]);
  expect(await portal.subscription()).toMatchObject({
    status: "active",
    cancel_at_period_end: true,
    cancellation_details: { reason: "cancellation_requested" },
  });
  expect(await portal.page()).toContain("Ends on 2026-05-01");
  await portal.send({ action: "resume", subscription: id });
  expect(await portal.subscription()).toMatchObject({ cancel_at_period_end: false, cancel_at: null });
});

test("a new payment method pays open invoices", async () => {
  await using portal = await aPortal({ payment_method_update: { enabled: true } });
  const { sim } = portal;
  await sim.control("payments", { customers: { [portal.customer.id]: "fail" } });
  await sim.setClock(30 * DAY_MS + HOUR_MS);
  expect(await portal.subscription()).toMatchObject({ status: "past_due" });
  const session = await sim.stripe.billingPortal.sessions.create({ customer: portal.customer.id });
  await fetch(session.url, { method: "POST", body: "action=payment_method", redirect: "manual" });
  expect(await portal.subscription()).toMatchObject({ status: "active" });
  expect((await portal.invoices()).map(({ status }) => status)).toEqual(["paid", "paid"]);
  await sim.setClock(61 * DAY_MS + HOUR_MS);
  expect((await portal.invoices()).map(({ status }) => status)).toEqual(["paid", "paid", "paid"]);
});

test("actions that the configuration does not allow are neither offered nor run", async () => {
  await using portal = await aPortal({ invoice_history: { enabled: true } });
  const before = await portal.subscription();
  expect(await portal.page()).not.toContain("<form");
  const forms: Record<string, string>[] = [
    { action: "cancel", subscription: before.id },
    { action: "switch", subscription: before.id, price: portal.flat.id },
    { action: "payment_method" },
  ];
  for (const form of forms) expect((await portal.send(form)).status).toBe(403);
  expect((await portal.send({ action: "drain" })).status).toBe(400);
  expect(await portal.subscription()).toEqual(before);
});

test("prices are switched only among those that the configuration names", async () => {
  await using portal = await aPortal({ invoice_history: { enabled: true } });
  const { stripe } = portal.sim;
  const price = await stripe.prices.create({
    product: portal.product.id,
    currency: "usd",
    unit_amount: 9800,
    recurring: { interval: "month" },
  });
  const { id } = await portal.subscription();
  const form = { action: "switch", subscription: id, price: price.id };
  const features = (prices: string[]) => ({
    subscription_update: {
      enabled: true,
      default_allowed_updates: ["price" as const],
      products: [{ product: portal.product.id, prices }],
      proration_behavior: "always_invoice" as const,
    },
  });
  const update = (prices: string[]) =>
    stripe.billingPortal.configurations.update(portal.configuration.id, { features: features(prices) });
  await update([portal.flat.id]);
  expect((await portal.send(form)).status).toBe(403);
  await update([portal.flat.id, price.id]);
  expect(await portal.page()).toContain("Switch to 98.00 USD per month");
  expect((await portal.send(form)).status).toBe(303);
  expect((await portal.subscription()).items.data.map((item) => item.price.id)).toContain(price.id);
  expect((await portal.invoices()).at(-1)).toMatchObject({ total: 4900, status: "paid" });
});

test("a session lasts an hour and belongs to one customer", async () => {
  await using portal = await aPortal({ subscription_cancel: { enabled: true } });
  const other = await aSubscriber(portal.sim);
  const theirs = { action: "cancel", subscription: other.subscription.id };
  expect((await portal.send(theirs)).status).toBe(404);
  await portal.sim.setClock(HOUR_MS + 1000);
  expect((await fetch(portal.session.url)).status).toBe(410);
  expect((await portal.send({ action: "cancel", subscription: (await portal.subscription()).id })).status).toBe(410);
});
