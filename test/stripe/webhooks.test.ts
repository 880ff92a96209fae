// Webhooks: events of a payment, signatures, retries, giving up, and faults on request.
import { expect, test } from "vitest";
import { aCatalogue, aReceiver, aSession, aSimulator, eventually } from "./harness.ts";

const DAY_MS = 86_400_000;

test("paying creates customer and subscription once, redirects, and sends signed events for both", async () => {
  await using receiver = await aReceiver();
  const enabledEvents = ["customer.created", "customer.subscription.created", "checkout.session.completed"];
  await using sim = await aSimulator({ webhook: { ...receiver.webhook, enabledEvents } });
  const session = await aSession(sim.stripe, await aCatalogue(sim.stripe));
  expect(await (await fetch(session.url ?? "")).text()).toContain("Simulated Stripe");

  const [paid, again] = [await sim.pay(session), await sim.pay(session)];
  for (const response of [paid, again]) {
    expect(response.status).toBe(303);
    expect(response.headers.get("location")).toBe(`http://127.0.0.1:1/done?session=${session.id}`);
  }
  const done = await sim.stripe.checkout.sessions.retrieve(session.id, { expand: ["subscription"] });
  expect(done).toMatchObject({
    status: "complete",
    payment_status: "paid",
    url: null,
    subscription: { status: "active", metadata: { tenant_id: "tenant_1" }, customer: done.customer },
  });
  expect((await sim.stripe.subscriptions.list({ status: "all" })).data).toHaveLength(1);

  await eventually(() => expect(receiver.deliveries).toHaveLength(3));
  expect(receiver.types().toSorted()).toEqual(enabledEvents.toSorted());
  for (const { body, signature } of receiver.deliveries) {
    const event = await sim.stripe.webhooks.constructEventAsync(body, signature, receiver.webhook.secret);
    expect(event).toMatchObject({ object: "event", pending_webhooks: 1 });
    await expect(
      sim.stripe.webhooks.constructEventAsync(`${body} `, signature, receiver.webhook.secret),
    ).rejects.toMatchObject({ type: "StripeSignatureVerificationError" });
  }
  const completed = receiver.deliveries.find(({ event }) => event.type === "checkout.session.completed");
  expect(completed?.event.data.object).toMatchObject({ client_reference_id: "tenant_1", status: "complete" });
});

test("a webhook starts at once and does not delay the payment, even without an answer", async () => {
  await using silent = await aReceiver([0, 0, 0]);
  const enabledEvents = ["customer.created", "customer.subscription.created", "checkout.session.completed"];
  await using sim = await aSimulator({ webhook: { ...silent.webhook, enabledEvents } });
  const session = await aSession(sim.stripe, await aCatalogue(sim.stripe));
  expect((await sim.pay(session)).status).toBe(303);
  await eventually(() => expect(silent.types().toSorted()).toEqual(enabledEvents.toSorted()));
  expect(await sim.control("state")).toMatchObject({ counts: { "webhooks sending": 3 } });
});

test("a webhook is retried with growing pauses until it is accepted", async () => {
  await using receiver = await aReceiver([500, 302, 503]);
  const retry = { firstDelayMs: 40 };
  await using sim = await aSimulator({ webhook: { ...receiver.webhook, retry } });
  const customer = await sim.stripe.customers.create();
  const undelivered = () => sim.stripe.events.list({ delivery_success: false });
  expect((await undelivered()).data).toMatchObject([{ data: { object: { id: customer.id } }, pending_webhooks: 1 }]);
  await eventually(() => expect(receiver.deliveries).toHaveLength(4));
  await eventually(async () => expect((await undelivered()).data).toEqual([]));
  expect((await sim.stripe.events.list({ delivery_success: true })).data).toMatchObject([{ pending_webhooks: 0 }]);
  const waits = receiver.deliveries.slice(1).map(({ atMs }, index) => atMs - (receiver.deliveries[index]?.atMs ?? 0));
  expect(waits.every((wait, index) => wait >= 40 * 2 ** index - 2)).toBe(true);
  expect(new Set(receiver.deliveries.map(({ event }) => event.id)).size).toBe(1);
});

test("waiting webhooks are sent at once after retryWebhooks", async () => {
  await using receiver = await aReceiver([500]);
  await using sim = await aSimulator({ webhook: { ...receiver.webhook, retry: { firstDelayMs: 60_000 } } });
  await sim.stripe.customers.create();
  const pending = { counts: { "webhooks pending": 1 } };
  await eventually(async () => expect(await sim.control("state")).toMatchObject(pending));
  sim.retryWebhooks();
  await eventually(() => expect(receiver.deliveries).toHaveLength(2));
});

test("events are listed for 30 days", async () => {
  await using sim = await aSimulator();
  await sim.stripe.customers.create();
  await sim.setClock(30 * DAY_MS - 10_000);
  expect((await sim.stripe.events.list()).data).toHaveLength(1);
  await sim.setClock(30 * DAY_MS + 10_000);
  expect((await sim.stripe.events.list()).data).toEqual([]);
});

test("the simulator gives up a webhook after three days and lists its event as undelivered", async () => {
  await using receiver = await aReceiver(Array.from({ length: 20 }, () => 500));
  await using sim = await aSimulator({ webhook: receiver.webhook });
  await sim.stripe.customers.create();
  await eventually(() => expect(receiver.deliveries).toHaveLength(1));
  await sim.setClock(3 * DAY_MS);
  await eventually(() => expect(receiver.deliveries).toHaveLength(2));
  await eventually(async () => expect(await sim.control("state")).toMatchObject({ counts: { "webhooks failed": 1 } }));
  const [event] = (await sim.stripe.events.list({ delivery_success: false })).data;
  expect(event).toMatchObject({ type: "customer.created", pending_webhooks: 1 });
});

test("webhooks can be dropped, duplicated, delayed, paused and sent again on request", async () => {
  await using receiver = await aReceiver();
  await using sim = await aSimulator({ webhook: receiver.webhook });
  await sim.control("webhooks", { drop: { times: 1, types: ["customer.created"] } });
  const dropped = await sim.stripe.customers.create();
  const [event] = (await sim.stripe.events.list({ delivery_success: false })).data;
  expect(event?.data.object).toMatchObject({ id: dropped.id });
  expect(receiver.deliveries).toEqual([]);
  expect(await sim.control("webhooks/deliver", { eventId: event?.id })).toEqual({ result: "200" });
  expect((await sim.stripe.events.list({ delivery_success: false })).data).toEqual([]);
  expect(receiver.deliveries).toHaveLength(1);

  await sim.control("webhooks", { duplicate: { times: 1 } });
  await sim.stripe.customers.create();
  await eventually(() => expect(receiver.deliveries).toHaveLength(3));
  expect(new Set(receiver.deliveries.map(({ event: { id } }) => id)).size).toBe(2);

  await sim.control("webhooks", { reorder: { times: 1, windowMs: 6_000 }, seed: 2 });
  const [late, early] = [await sim.stripe.customers.create(), await sim.stripe.customers.create()];
  await eventually(() => expect(receiver.deliveries).toHaveLength(5));
  const arrived = receiver.deliveries.slice(3).map(({ event: { data } }) => data.object);
  expect(arrived).toMatchObject([{ id: early.id }, { id: late.id }]);

  await sim.control("webhooks", { pause: true });
  await sim.stripe.customers.create();
  expect(await sim.control("state")).toMatchObject({ counts: { "webhooks pending": 1 } });
  await sim.control("webhooks", {});
  await eventually(() => expect(receiver.deliveries).toHaveLength(6));
});
