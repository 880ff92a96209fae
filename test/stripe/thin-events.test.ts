// Thin events about usage that was accepted and then dropped, and cancellation of usage.
import type { Stripe } from "stripe";
import { expect, test } from "vitest";
import { aCatalogue, aReceiver, aSimulator, eventually, report } from "./harness.ts";

const DAY = 86_400;
const DAY_MS = DAY * 1000;
const NOW = Date.UTC(2026, 10, 21, 12) / 1000;

async function aMeteredSimulator(options: Parameters<typeof aSimulator>[0] = {}) {
  const sim = await aSimulator({ clock: () => NOW * 1000, ...options });
  return { sim, ...(await aCatalogue(sim.stripe)), [Symbol.asyncDispose]: () => sim.close() };
}

test("a signed thin event reports a dropped event, and its data and meter can be fetched", async () => {
  await using thin = await aReceiver();
  await using snapshots = await aReceiver();
  // The real clock: the SDK checks the age of a signature.
  await using sim = await aSimulator({ thinWebhook: thin.webhook, webhook: snapshots.webhook });
  const { eventName, meter } = await aCatalogue(sim.stripe);
  await sim.stripe.billing.meterEvents.create(
    { event_name: eventName, identifier: "u1.t.1", payload: { stripe_customer_id: "cus_nobody", value: "5" } },
    { idempotencyKey: "u1.t.1.a1" },
  );
  await eventually(() => expect(thin.deliveries).toHaveLength(1));
  const { body, signature } = thin.deliveries[0] ?? { body: "", signature: "" };
  expect(JSON.parse(body)).not.toHaveProperty("data");
  const told = await sim.stripe.parseEventNotificationAsync(body, signature, thin.webhook.secret);
  await expect(sim.stripe.parseEventNotificationAsync(`${body} `, signature, thin.webhook.secret)).rejects.toThrow();
  if (told.type !== "v1.billing.meter.error_report_triggered") throw new Error(told.type);
  expect(await told.fetchRelatedObject()).toMatchObject({ id: meter.id, event_name: eventName });
  const { data } = await told.fetchEvent();
  expect(data.reason).toEqual({
    error_count: 1,
    error_types: [
      {
        code: "meter_event_customer_not_found",
        error_count: 1,
        sample_errors: [{ error_message: expect.any(String), request: { identifier: "u1.t.1.a1" } }],
      },
    ],
  });
  expect(snapshots.types()).not.toContain(told.type);
});

test("with asynchronous validation all but repeated identifiers are accepted, and dropped later with a reason", async () => {
  await using metered = await aMeteredSimulator();
  const { sim, eventName, meter } = metered;
  await sim.control("meter-validation", { asynchronous: true });
  const { id: customer } = await sim.stripe.customers.create();
  const send = (identifier: string, overrides: Parameters<typeof report>[3], name = eventName) =>
    report(sim.stripe, name, customer, { identifier, ...overrides });
  await send("fraction", { value: "1.5" });
  await send("old", { timestamp: NOW - 36 * DAY });
  await send("early", { timestamp: NOW + 400 });
  await send("nameless", { payload: { value: "1" } });
  await send("unmetered", {}, "nothing");
  await expect(send("old", {})).rejects.toThrow("already exists");
  await sim.stripe.billing.meters.deactivate(meter.id);
  await send("archived", {});
  expect(await sim.control("meter-totals")).toEqual({});

  const told = await sim.stripe.v2.core.events.list({ limit: 20 });
  const reasons = told.data.map((event) => {
    const known =
      event.type === "v1.billing.meter.error_report_triggered" || event.type === "v1.billing.meter.no_meter_found";
    if (!known) throw new Error(event.type);
    const [kind] = event.data.reason.error_types;
    return [event.type.split(".").at(-1), kind?.code];
  });
  expect(reasons.toReversed()).toEqual([
    ["error_report_triggered", "meter_event_invalid_value"],
    ["error_report_triggered", "timestamp_too_far_in_past"],
    ["error_report_triggered", "timestamp_in_future"],
    ["error_report_triggered", "meter_event_no_customer_defined"],
    ["no_meter_found", "no_meter"],
    ["error_report_triggered", "archived_meter"],
  ]);
  await sim.control("meter-validation", {});
  await expect(send("again", { timestamp: NOW - 36 * DAY })).rejects.toMatchObject({ statusCode: 400 });
});

test("a registered destination receives its types of thin events, signed with its own secret", async () => {
  await using thin = await aReceiver([500]);
  await using snapshots = await aReceiver();
  await using sim = await aSimulator({
    webhook: snapshots.webhook,
    thinWebhook: { ...snapshots.webhook, retry: { firstDelayMs: 20 } },
  });
  const { stripe } = sim;
  const { eventName } = await aCatalogue(stripe);
  const destination = await stripe.v2.core.eventDestinations.create({
    name: "usage",
    type: "webhook_endpoint",
    event_payload: "thin",
    enabled_events: ["v1.billing.meter.error_report_triggered"],
    webhook_endpoint: { url: thin.webhook.url },
    include: ["webhook_endpoint.signing_secret"],
  });
  const secret = destination.webhook_endpoint?.signing_secret ?? "";
  const found = await stripe.v2.core.eventDestinations.retrieve(destination.id, { include: ["webhook_endpoint.url"] });
  expect(found.webhook_endpoint).toEqual({ url: thin.webhook.url });
  await report(stripe, eventName, "cus_nobody");
  await eventually(() => expect(thin.deliveries).toHaveLength(2));
  const [first, second] = thin.deliveries;
  expect(first?.body).toBe(second?.body);
  const told = await stripe.parseEventNotificationAsync(second?.body ?? "", second?.signature ?? "", secret);
  expect(told.type).toBe("v1.billing.meter.error_report_triggered");

  await sim.control("meter-validation", { asynchronous: true });
  await report(stripe, "nothing", "cus_nobody");
  await stripe.v2.core.eventDestinations.disable(destination.id);
  expect(await stripe.v2.core.eventDestinations.list()).toMatchObject({ data: [{ status: "disabled" }] });
  const types = snapshots.types().filter((type: string) => type.startsWith("v1."));
  expect([thin.deliveries.length, types]).toEqual([2, []]);
});

test("a v2 request that failed runs again under its key; one that succeeded does not", async () => {
  await using metered = await aMeteredSimulator();
  const { sim } = metered;
  await sim.control("faults", { rules: [{ kind: "error-500-before", path: "/v2/*", times: 1 }] });
  const create = () =>
    sim.stripe.v2.core.eventDestinations.create(
      {
        name: "usage",
        type: "webhook_endpoint",
        event_payload: "thin",
        enabled_events: ["*"],
        webhook_endpoint: { url: "http://127.0.0.1:1/" },
      },
      { idempotencyKey: "k" },
    );
  await expect(create()).rejects.toMatchObject({ statusCode: 500 });
  const made = await create();
  expect((await create()).id).toBe(made.id);
});

test("an event can be cancelled for 24 hours, and its identifier stays used", async () => {
  await using metered = await aMeteredSimulator();
  const { sim, eventName } = metered;
  const { id: customer } = await sim.stripe.customers.create();
  for (const identifier of ["a", "b"]) await report(sim.stripe, eventName, customer, { identifier });
  const cancel = (identifier: string): Promise<Stripe.Billing.MeterEventAdjustment> =>
    sim.stripe.billing.meterEventAdjustments.create({ event_name: eventName, type: "cancel", cancel: { identifier } });
  expect(await cancel("a")).toMatchObject({ status: "pending", cancel: { identifier: "a" } });
  expect(await sim.control("meter-totals")).toEqual({ [customer]: { [eventName]: 5 } });
  expect(await sim.control("meter-errors")).toEqual([]);
  await expect(cancel("a")).rejects.toMatchObject({ statusCode: 400 });
  await expect(report(sim.stripe, eventName, customer, { identifier: "a" })).rejects.toThrow("already exists");
  await sim.setClock(DAY_MS);
  await expect(cancel("b")).rejects.toMatchObject({ statusCode: 400 });
});
