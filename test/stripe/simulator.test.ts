// The simulator's own features: the virtual clock, the pay page, seeded faults, and recovery after a kill.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import {
  aCatalogue,
  aClient,
  aReceiver,
  aSession,
  aSimulator,
  eventually,
  minuteOf,
  nowSeconds,
  report,
  SECRET_KEY,
  unitsBetween,
} from "./harness.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

async function aDirectory() {
  const directory = await mkdtemp(path.join(tmpdir(), "stripe-simulator-"));
  return {
    databaseFile: path.join(directory, "stripe.sqlite"),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

test("an identifier is refused for exactly 24 hours and then accepted again", async () => {
  await using sim = await aSimulator({ clock: () => Date.UTC(2026, 10, 21, 12) });
  const { eventName } = await aCatalogue(sim.stripe);
  const customer = await sim.stripe.customers.create();
  const send = () => report(sim.stripe, eventName, customer.id, { identifier: "u1.t.1" });
  await send();
  await sim.setClock(DAY_MS - 1);
  await expect(send()).rejects.toThrow("An event already exists with identifier u1.t.1.");
  await sim.setClock(DAY_MS);
  await send();
  expect(await sim.control("meter-totals")).toEqual({ [customer.id]: { [eventName]: 10 } });
});

test("an idempotent answer is replayed for 24 hours, 500s included", async () => {
  await using sim = await aSimulator({ clock: () => Date.UTC(2026, 10, 21, 12) });
  const { stripe } = sim;
  await sim.control("faults", { rules: [{ kind: "error-500-before", path: "/v1/customers", times: 1 }] });
  const create = () => stripe.customers.create({ name: "Acme" }, { idempotencyKey: "k" });
  await expect(create()).rejects.toMatchObject({ statusCode: 500 });
  await expect(create()).rejects.toMatchObject({ statusCode: 500, headers: { "idempotent-replayed": "true" } });
  expect((await stripe.customers.list()).data).toEqual([]);
  await sim.setClock(DAY_MS);
  expect(await create()).toMatchObject({ name: "Acme" });
});

test("a 429 and a refused parameter are not stored: the same key can be retried", async () => {
  await using sim = await aSimulator();
  await sim.control("faults", { rules: [{ kind: "429", method: "POST", times: 1 }] });
  const create = (name: string) => sim.stripe.products.create({ name }, { idempotencyKey: "k" });
  await expect(create("Pro")).rejects.toMatchObject({ type: "StripeRateLimitError", code: "rate_limit" });
  await expect(create("")).rejects.toMatchObject({ code: "parameter_invalid_empty", param: "name" });
  expect(await create("Pro")).toMatchObject({ name: "Pro" });
});

test("a key of a running request is refused with 409", async () => {
  await using sim = await aSimulator();
  await sim.control("faults", { rules: [{ kind: "slow", ms: 100, path: "/v1/customers", times: 1 }] });
  const create = () => sim.stripe.customers.create({}, { idempotencyKey: "k" });
  const outcomes = await Promise.allSettled([create(), create()]);
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  const refusal = outcomes.find((outcome) => outcome.status === "rejected")?.reason;
  expect(refusal).toMatchObject({ statusCode: 409, code: "idempotency_key_in_use" });
});

test("one call at a time per customer and meter: a concurrent one gets lock_timeout", async () => {
  await using sim = await aSimulator();
  const { eventName } = await aCatalogue(sim.stripe);
  const [one, two] = [await sim.stripe.customers.create(), await sim.stripe.customers.create()];
  await sim.control("faults", { rules: [{ kind: "slow", ms: 100, path: "/v1/billing/meter_events" }] });
  const outcomes = await Promise.allSettled([
    report(sim.stripe, eventName, one.id),
    report(sim.stripe, eventName, one.id),
    report(sim.stripe, eventName, two.id),
  ]);
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
  const refusal = outcomes.find((outcome) => outcome.status === "rejected")?.reason;
  expect(refusal).toMatchObject({ statusCode: 429, code: "lock_timeout", headers: { "stripe-should-retry": "true" } });
  await report(sim.stripe, eventName, one.id);
});

test("an event for an unknown customer is accepted, then dropped with an error record", async () => {
  await using sim = await aSimulator();
  const { eventName } = await aCatalogue(sim.stripe);
  await report(sim.stripe, eventName, "cus_nobody", { identifier: "u1.lost.1" });
  expect(await sim.control("meter-totals")).toEqual({});
  const record = { identifier: "u1.lost.1", error: "meter_event_customer_not_found" };
  expect(await sim.control("meter-errors")).toMatchObject([record]);
});

test("an event appears in summaries only after the delay", async () => {
  await using sim = await aSimulator({ meterLagMs: 60_000 });
  const { eventName, meter } = await aCatalogue(sim.stripe);
  const customer = await sim.stripe.customers.create();
  const minute = minuteOf(nowSeconds());
  await report(sim.stripe, eventName, customer.id, { timestamp: minute });
  const units = () => unitsBetween(sim.stripe, meter.id, customer.id, minute, minute + 60);
  expect(await units()).toBe(0);
  await sim.setClock(61_000);
  expect(await units()).toBe(5);
});

test("paying for a known customer creates no second one, and a trial needs no payment yet", async () => {
  await using sim = await aSimulator();
  const customer = await sim.stripe.customers.create({ email: "known@example.com" });
  const session = await aSession(sim.stripe, await aCatalogue(sim.stripe), {
    customer: customer.id,
    subscription_data: { trial_period_days: 14 },
  });
  await sim.pay(session);
  expect((await sim.stripe.customers.list()).data).toHaveLength(1);
  const done = await sim.stripe.checkout.sessions.retrieve(session.id, { expand: ["subscription"] });
  const subscription = { status: "trialing", billing_mode: { type: "flexible" } };
  expect(done).toMatchObject({ customer: customer.id, payment_status: "no_payment_required", subscription });
});

test("a session that is expired, by the API or by age, cannot be paid", async () => {
  await using sim = await aSimulator();
  const catalogue = await aCatalogue(sim.stripe);
  const [ended, old] = [await aSession(sim.stripe, catalogue), await aSession(sim.stripe, catalogue)];
  await sim.stripe.checkout.sessions.expire(ended.id);
  expect((await sim.pay(ended)).status).toBe(410);
  await sim.setClock(DAY_MS + 1000);
  expect((await sim.pay(old)).status).toBe(410);
  expect((await sim.stripe.subscriptions.list({ status: "all" })).data).toEqual([]);
  expect((await fetch(`${sim.url}/pay/cs_test_unknown`)).status).toBe(404);
});

test("a period renews on the same day of the next month, or ends a cancelled subscription", async () => {
  await using sim = await aSimulator({ clock: () => Date.UTC(2026, 0, 31) });
  const { flat } = await aCatalogue(sim.stripe);
  const customer = await sim.stripe.customers.create();
  const { id } = await sim.stripe.subscriptions.create({ customer: customer.id, items: [{ price: flat.id }] });
  const period = async () => {
    const item = (await sim.stripe.subscriptions.retrieve(id)).items.data[0];
    return [item?.current_period_start, item?.current_period_end].map((at) => new Date((at ?? 0) * 1000).toISOString());
  };
  expect(await period()).toEqual(["2026-01-31T00:00:00.000Z", "2026-02-28T00:00:00.000Z"]);
  await sim.setClock(30 * DAY_MS);
  expect(await period()).toEqual(["2026-02-28T00:00:00.000Z", "2026-03-31T00:00:00.000Z"]);
  await sim.stripe.subscriptions.update(id, { cancel_at_period_end: true });
  await sim.setClock(60 * DAY_MS);
  expect((await sim.stripe.subscriptions.retrieve(id)).status).toBe("canceled");
  const [last] = (await sim.stripe.events.list({ type: "customer.subscription.*" })).data;
  expect(last?.type).toBe("customer.subscription.deleted");
});

test("a first period ends at the billing anchor", async () => {
  await using sim = await aSimulator({ clock: () => Date.UTC(2026, 10, 21, 15) });
  const midnight = Date.UTC(2026, 10, 22) / 1000;
  const catalogue = await aCatalogue(sim.stripe);
  await sim.pay(await aSession(sim.stripe, catalogue, { subscription_data: { billing_cycle_anchor: midnight } }));
  const [subscription] = (await sim.stripe.subscriptions.list()).data;
  expect(subscription?.items.data.map((item) => item.current_period_end)).toEqual([midnight, midnight]);
});

test("a refused connection has no effect; a lost answer and a 500 after the effect have the full effect", async () => {
  await using sim = await aSimulator();
  const { stripe } = sim;
  const { eventName } = await aCatalogue(stripe);
  const customer = await stripe.customers.create();
  // The SDK retries a closed connection once with the same idempotency key, so the test sees only the second one.
  await sim.control("faults", { rules: [{ kind: "refused", path: "*/meter_events", times: 2 }] });
  await expect(report(stripe, eventName, customer.id, { identifier: "a" })).rejects.toMatchObject({
    type: "StripeConnectionError",
  });
  expect(await sim.control("meter-totals")).toEqual({});
  await sim.control("faults", { rules: [{ kind: "lost", path: "*/meter_events", times: 2 }] });
  await expect(report(stripe, eventName, customer.id, { identifier: "b" })).rejects.toMatchObject({
    type: "StripeConnectionError",
  });
  await sim.control("faults", { rules: [{ kind: "error-500-after", path: "*/meter_events", times: 1 }] });
  await expect(report(stripe, eventName, customer.id, { identifier: "c" })).rejects.toMatchObject({ statusCode: 500 });
  expect(await sim.control("meter-totals")).toEqual({ [customer.id]: { [eventName]: 10 } });
  for (const identifier of ["b", "c"]) {
    await expect(report(stripe, eventName, customer.id, { identifier })).rejects.toThrow("already exists");
  }
  await report(stripe, eventName, customer.id, { identifier: "a" });
});

test("the SDK's own repeat of a call whose answer was lost gets the first answer", async () => {
  await using sim = await aSimulator();
  await sim.control("faults", { rules: [{ kind: "lost", path: "/v1/customers", times: 1 }] });
  const customer = await sim.stripe.customers.create();
  expect(customer.lastResponse.headers["idempotent-replayed"]).toBe("true");
  expect((await sim.stripe.customers.list()).data.map(({ id }) => id)).toEqual([customer.id]);
});

test("the same seed hits the same requests", async () => {
  await using sim = await aSimulator();
  const run = async (seed: number) => {
    await sim.control("faults", { seed, rules: [{ kind: "429", path: "/v1/customers", probability: 0.5 }] });
    const outcomes: boolean[] = [];
    for (let index = 0; index < 24; index += 1) {
      outcomes.push(
        await sim.stripe.customers.list().then(
          () => true,
          () => false,
        ),
      );
    }
    return outcomes;
  };
  const first = await run(7);
  expect(new Set(first).size).toBe(2);
  expect(await run(7)).toEqual(first);
  expect(await run(8)).not.toEqual(first);
});

test("objects, idempotent answers, the clock and waiting webhooks survive a restart", async () => {
  await using directory = await aDirectory();
  await using receiver = await aReceiver();
  await using silent = await aReceiver([0]);
  const { databaseFile } = directory;
  const first = await aSimulator({ databaseFile, webhook: silent.webhook });
  await first.setClock(HOUR_MS);
  const customer = await first.stripe.customers.create({ name: "Acme" }, { idempotencyKey: "k" });
  await eventually(() => expect(silent.deliveries).toHaveLength(1));
  await first.close();

  await using second = await aSimulator({ databaseFile, webhook: receiver.webhook });
  await eventually(() => expect(receiver.deliveries).toHaveLength(1));
  expect(receiver.deliveries[0]?.event.data.object).toMatchObject({ id: customer.id });
  expect((await second.stripe.customers.create({ name: "Acme" }, { idempotencyKey: "k" })).id).toBe(customer.id);
  expect(await second.stripe.customers.retrieve(customer.id)).toEqual(customer);
  expect(await second.control("clock")).toMatchObject({ offsetMs: HOUR_MS });
});

test("a killed process loses nothing that it answered", { timeout: 30_000 }, async () => {
  await using directory = await aDirectory();
  const { databaseFile } = directory;
  const program = `
    const { startStripeSimulator } = await import(${JSON.stringify(new URL("../../dev/stripe/simulator.ts", import.meta.url).href)});
    const { port } = await startStripeSimulator({ port: 0, databaseFile: ${JSON.stringify(databaseFile)}, secretKey: "${SECRET_KEY}" });
    process.stdout.write(String(port));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise((resolve) => {
    child.once("exit", resolve);
  });
  const port = await new Promise<number>((resolve) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(Number(chunk.toString())));
  });
  const stripe = aClient(port);
  const answered: string[] = [];
  const writer = async () => {
    for (;;) answered.push((await stripe.customers.create()).id);
  };
  const writers = Promise.allSettled([writer(), writer(), writer(), writer()]);
  await eventually(() => expect(answered.length).toBeGreaterThan(60));
  child.kill("SIGKILL");
  await Promise.all([exited, writers]);

  await using revived = await aSimulator({ databaseFile });
  const kept = await revived.stripe.customers.list({ limit: 100 }).autoPagingToArray({ limit: 10_000 });
  const ids = new Set(kept.map(({ id }) => id));
  expect(answered.filter((id) => !ids.has(id))).toEqual([]);
  // Each writer has at most one customer that was committed but not answered.
  expect(ids.size).toBeLessThanOrEqual(answered.length + 4);
});

test("a reset removes all state", async () => {
  await using sim = await aSimulator();
  await aCatalogue(sim.stripe);
  await sim.setClock(DAY_MS);
  await sim.control("faults", { rules: [{ kind: "429" }] });
  await sim.control("reset", {});
  expect(await sim.control("state")).toMatchObject({ clock: { offsetMs: 0 }, faults: { rules: [] } });
  expect((await sim.stripe.products.list()).data).toEqual([]);
});

test("an unknown control or a malformed setting is refused, not ignored", async () => {
  await using sim = await aSimulator();
  await expect(sim.control("faults", { rules: [{ kind: "meteor" }] })).rejects.toThrow("kind");
  await expect(sim.control("nothing")).rejects.toThrow("unknown control");
});
