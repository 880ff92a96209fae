// Helpers of the Stripe tests: a simulator with the real SDK, its control plane, and a webhook receiver.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Stripe } from "stripe";
import { vi } from "vitest";
import { startStripeSimulator, type StripeSimulatorOptions } from "../../dev/stripe/simulator.ts";

export const SECRET_KEY = "sk_test_simulated";
export const WEBHOOK_SECRET = "whsec_simulated";

/** A running simulator with a client that never retries. Closed by `await using`. */
export async function aSimulator(overrides: Partial<StripeSimulatorOptions> = {}) {
  const simulator = await startStripeSimulator({
    port: 0,
    databaseFile: ":memory:",
    secretKey: SECRET_KEY,
    ...overrides,
  });
  const control = async (path: string, body?: object): Promise<unknown> => {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const response = await fetch(`${simulator.url}/_sim/${path}`, init);
    const answer: unknown = await response.json();
    if (!response.ok) throw new Error(JSON.stringify(answer));
    return answer;
  };
  return {
    ...simulator,
    stripe: aClient(simulator.port),
    control,
    /** Sets the virtual clock to `offsetMs` from the real one. */
    setClock: (offsetMs: number) => control("clock", { offsetMs }),
    pay: (session: { url: string | null }, form = "") =>
      fetch(session.url ?? "", { method: "POST", body: form, redirect: "manual" }),
    [Symbol.asyncDispose]: () => simulator.close(),
  };
}

export function aClient(port: number, key = SECRET_KEY): Stripe {
  return new Stripe(key, { host: "127.0.0.1", port, protocol: "http", maxNetworkRetries: 0, telemetry: false });
}

const sandboxKey = process.env["STRIPE_SANDBOX_KEY"];
/** 1 April 2026, 00:00 UTC, in seconds. */
export const FIRST = Date.UTC(2026, 3, 1) / 1000;

/** A simulator whose clock starts at `FIRST`. */
export const april = () => aSimulator({ clock: () => FIRST * 1000 });

/** Maximum wait of a contract test for an asynchronous effect. */
export const PATIENCE_MS = sandboxKey === undefined ? 2000 : 300_000;

/**
 * The subject of a contract test: a simulator, or a Stripe sandbox when STRIPE_SANDBOX_KEY is set. `aClock` makes a clock for
 * one customer: the simulator's clock or a test clock.
 */
export async function aTarget() {
  if (sandboxKey === undefined) {
    const sim = await aSimulator();
    const aClock = () => {
      const startedMs = Date.now();
      const advance = async (toSeconds: number) => void (await sim.setClock(toSeconds * 1000 - startedMs));
      return Promise.resolve({ customer: {}, advance });
    };
    return { stripe: sim.stripe, port: sim.port, aClock, [Symbol.asyncDispose]: () => sim.close() };
  }
  const stripe = new Stripe(sandboxKey, { maxNetworkRetries: 2 });
  const aClock = async () => {
    const clock = await stripe.testHelpers.testClocks.create({ frozen_time: nowSeconds() });
    const advance = async (toSeconds: number) => {
      await stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: toSeconds });
      const ready = async () => {
        const { status } = await stripe.testHelpers.testClocks.retrieve(clock.id);
        if (status !== "ready") throw new Error(`the test clock is ${status}`);
      };
      await vi.waitFor(ready, { timeout: PATIENCE_MS, interval: 1000 });
    };
    return { customer: { test_clock: clock.id }, advance };
  };
  return { stripe, port: undefined, aClock, [Symbol.asyncDispose]: () => Promise.resolve() };
}

interface Delivery {
  body: string;
  signature: string;
  atMs: number;
  event: Stripe.Event;
}

/** A webhook receiver that records deliveries. Answers with `statuses` in turn, then with 200. */
export async function aReceiver(statuses: number[] = []) {
  const deliveries: Delivery[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      const atMs = performance.now();
      const signature = String(request.headers["stripe-signature"]);
      deliveries.push({ body, signature, atMs, event: JSON.parse(body) });
      const status = statuses.shift() ?? 200;
      // 0: never answers.
      if (status !== 0) response.writeHead(status).end();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a server that listens on a TCP port has this address
  const { port } = server.address() as AddressInfo;
  return {
    deliveries,
    types: () => deliveries.map(({ event }) => event.type),
    webhook: { url: `http://127.0.0.1:${port}/webhooks/stripe`, secret: WEBHOOK_SECRET },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

/** A product with a flat monthly price and a metered price on its own meter. Unique names, because a sandbox keeps them. */
export async function aCatalogue(stripe: Stripe) {
  const eventName = `units_${crypto.randomUUID()}`;
  const product = await stripe.products.create({ name: "Tollgate Pro" });
  const meter = await stripe.billing.meters.create({
    display_name: "Units",
    event_name: eventName,
    default_aggregation: { formula: "sum" },
  });
  const flat = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 4900,
    recurring: { interval: "month" },
  });
  const metered = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    billing_scheme: "tiered",
    tiers_mode: "graduated",
    tiers: [
      { up_to: 50_000, unit_amount: 0 },
      { up_to: "inf", unit_amount_decimal: Stripe.Decimal.from("0.1") },
    ],
    recurring: { interval: "month", usage_type: "metered", meter: meter.id },
  });
  return { product, meter, eventName, flat, metered };
}

/** A customer with a subscription to both prices of its own catalogue, and functions to follow it. */
export async function aSubscriber(sim: { stripe: Stripe }, params: Stripe.SubscriptionCreateParams = {}) {
  const catalogue = await aCatalogue(sim.stripe);
  const customer = await sim.stripe.customers.create({ email: "buyer@example.com" });
  const subscription = await sim.stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: catalogue.flat.id }, { price: catalogue.metered.id }],
    metadata: { tenant_id: "tenant_1" },
    ...params,
  });
  const invoices = async () =>
    (await sim.stripe.invoices.list({ customer: customer.id, limit: 100 })).data.toReversed();
  const use = (value: number, timestamp: number) =>
    report(sim.stripe, catalogue.eventName, customer.id, { value: String(value), timestamp });
  return { ...catalogue, customer, subscription, invoices, use };
}

/** A Checkout session for both prices of the catalogue. */
export function aSession(
  stripe: Stripe,
  catalogue: Awaited<ReturnType<typeof aCatalogue>>,
  overrides: Stripe.Checkout.SessionCreateParams = {},
) {
  return stripe.checkout.sessions.create({
    mode: "subscription",
    line_items: [{ price: catalogue.flat.id, quantity: 1 }, { price: catalogue.metered.id }],
    success_url: "http://127.0.0.1:1/done?session={CHECKOUT_SESSION_ID}",
    client_reference_id: "tenant_1",
    metadata: { plan: "pro" },
    subscription_data: { metadata: { tenant_id: "tenant_1" }, billing_mode: { type: "flexible" } },
    ...overrides,
  });
}

/** Reports `value` units for a customer. */
export function report(
  stripe: Stripe,
  eventName: string,
  customer: string,
  overrides: Partial<Stripe.Billing.MeterEventCreateParams> & { value?: string } = {},
) {
  const { value = "5", ...rest } = overrides;
  return stripe.billing.meterEvents.create({
    event_name: eventName,
    payload: { stripe_customer_id: customer, value },
    ...rest,
  });
}

/** The summed units of a customer in [from, to), in seconds. */
export async function unitsBetween(stripe: Stripe, meter: string, customer: string, from: number, to: number) {
  const list = await stripe.billing.meters.listEventSummaries(meter, { customer, start_time: from, end_time: to });
  return list.data.reduce((sum, { aggregated_value: value }) => sum + value, 0);
}

export const minuteOf = (seconds: number) => Math.floor(seconds / 60) * 60;
export const nowSeconds = () => Math.floor(Date.now() / 1000);

/** Waits for an asynchronous effect, for at most ten seconds, because the machine may be busy. */
export function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: 10_000, interval: 20 });
}
