// The behaviour of Stripe's API that the product relies on, through the SDK alone. Runs against the simulator, and against a
// real sandbox when STRIPE_SANDBOX_KEY is set.
import { Stripe } from "stripe";
import { expect, test, vi } from "vitest";
import {
  aCatalogue,
  aClient,
  aSession,
  aTarget,
  minuteOf,
  nowSeconds,
  PATIENCE_MS,
  report,
  unitsBetween,
} from "./harness.ts";

vi.setConfig({ testTimeout: PATIENCE_MS + 20_000 });

const invalid = (detail: object) => expect.objectContaining({ type: "StripeInvalidRequestError", ...detail });

test("a product and its prices are created, changed and found by lookup key", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { product } = await aCatalogue(stripe);
  const lookupKey = `plan_${crypto.randomUUID()}`;
  const made = { product: product.id, currency: "usd", unit_amount: 1900, recurring: { interval: "month" } } as const;
  const price = await stripe.prices.create({ ...made, lookup_key: lookupKey });

  const renamed = await stripe.products.update(product.id, { name: "Renamed", metadata: { plan: "pro" } });
  expect(await stripe.products.retrieve(product.id)).toEqual(renamed);
  expect(renamed).toMatchObject({ name: "Renamed", metadata: { plan: "pro" }, active: true });
  await stripe.prices.update(price.id, { nickname: "starter" });
  const found = await stripe.prices.list({ lookup_keys: [lookupKey], active: true, expand: ["data.product"] });
  expect(found.data).toMatchObject([
    { id: price.id, nickname: "starter", product: { id: product.id, name: "Renamed" } },
  ]);

  await expect(stripe.prices.create({ ...made, lookup_key: lookupKey })).rejects.toEqual(invalid({ statusCode: 400 }));
  const heir = await stripe.prices.create({ ...made, lookup_key: lookupKey, transfer_lookup_key: true });
  expect((await stripe.prices.list({ lookup_keys: [lookupKey] })).data.map(({ id }) => id)).toEqual([heir.id]);
});

test("a metered price has graduated tiers with fractions of a cent, and needs a meter", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { product, metered, meter } = await aCatalogue(stripe);
  const price = await stripe.prices.retrieve(metered.id, { expand: ["tiers"] });
  expect(price).toMatchObject({ billing_scheme: "tiered", recurring: { usage_type: "metered", meter: meter.id } });
  expect(price.tiers?.map((tier) => [tier.up_to, tier.unit_amount, String(tier.unit_amount_decimal)])).toEqual([
    [50_000, 0, "0"],
    [null, null, "0.1"],
  ]);
  const unmetered = { interval: "month", usage_type: "metered" } as const;
  const made = { product: product.id, currency: "usd", unit_amount: 1, recurring: unmetered };
  await expect(stripe.prices.create(made)).rejects.toEqual(invalid({ statusCode: 400 }));
});

test("lists are newest first and page by cursor", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const email = `${crypto.randomUUID()}@example.com`;
  const ids: string[] = [];
  for (let index = 0; index < 5; index += 1) ids.unshift((await stripe.customers.create({ email })).id);
  const first = await stripe.customers.list({ email, limit: 2 });
  expect([first.data.map(({ id }) => id), first.has_more]).toEqual([ids.slice(0, 2), true]);
  const last = await stripe.customers.list({ email, limit: 3, starting_after: ids[1] ?? "" });
  expect([last.data.map(({ id }) => id), last.has_more]).toEqual([ids.slice(2), false]);
  const before = await stripe.customers.list({ email, limit: 2, ending_before: ids[4] ?? "" });
  expect(before.data.map(({ id }) => id)).toEqual(ids.slice(2, 4));
  const all = await stripe.customers.list({ email, limit: 2 }).autoPagingToArray({ limit: 100 });
  expect(all.map(({ id }) => id)).toEqual(ids);
});

test("metadata is merged by key, and an empty value deletes its key", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const customer = await stripe.customers.create({ metadata: { tenant_id: "a", note: "x" } });
  const updated = await stripe.customers.update(customer.id, { metadata: { note: "", plan: "pro" }, name: "Acme" });
  expect(updated).toMatchObject({ name: "Acme", metadata: { tenant_id: "a", plan: "pro" } });
  expect(Object.keys(updated.metadata)).not.toContain("note");
});

test("wrong requests are refused in Stripe's form: unknown and missing parameters, unknown objects and paths", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const unknown = { email: "a@example.com", shoe_size: "44" };
  await expect(stripe.customers.create(unknown)).rejects.toEqual(
    invalid({ statusCode: 400, code: "parameter_unknown", param: "shoe_size" }),
  );
  const nameless: unknown = {};
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the types forbid the mistake under test
  await expect(stripe.products.create(nameless as Stripe.ProductCreateParams)).rejects.toEqual(
    invalid({ statusCode: 400, code: "parameter_missing", param: "name" }),
  );
  await expect(stripe.customers.retrieve("cus_nobody")).rejects.toEqual(
    invalid({ statusCode: 404, code: "resource_missing" }),
  );
  await expect(stripe.rawRequest("POST", "/v1/unheard_of", {})).rejects.toEqual(invalid({ statusCode: 404 }));
  const id = `prod_${crypto.randomUUID()}`;
  await expect(stripe.products.create({ id, name: "Pro", expand: ["name"] })).rejects.toEqual(
    invalid({ statusCode: 400 }),
  );
  await expect(stripe.products.retrieve(id)).rejects.toEqual(invalid({ statusCode: 404 }));
});

test("a wrong key is refused with 401", async () => {
  await using target = await aTarget();
  const intruder = target.port === undefined ? new Stripe("sk_test_wrong") : aClient(target.port, "sk_test_wrong");
  const refusal = expect.objectContaining({ type: "StripeAuthenticationError", statusCode: 401 });
  await expect(intruder.customers.list()).rejects.toEqual(refusal);
});

test("an idempotency key replays the first answer and refuses other parameters", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const idempotencyKey = crypto.randomUUID();
  const first = await stripe.customers.create({ name: "Acme" }, { idempotencyKey });
  const again = await stripe.customers.create({ name: "Acme" }, { idempotencyKey });
  expect(again.id).toBe(first.id);
  expect(again.lastResponse.headers["idempotent-replayed"]).toBe("true");
  expect(again.lastResponse.headers["original-request"]).toBe(first.lastResponse.requestId);
  const refusal = expect.objectContaining({ type: "StripeIdempotencyError", statusCode: 400 });
  await expect(stripe.customers.create({ name: "Other" }, { idempotencyKey })).rejects.toEqual(refusal);
  await expect(stripe.products.create({ name: "Acme" }, { idempotencyKey })).rejects.toEqual(refusal);
});

test("a meter event is accepted once per identifier, within its time limits, in whole units", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { eventName } = await aCatalogue(stripe);
  const customer = await stripe.customers.create();
  const identifier = `u1.tenant.${crypto.randomUUID()}`;
  const send = (overrides: Parameters<typeof report>[3]) => report(stripe, eventName, customer.id, overrides);

  expect(await send({ identifier, value: "25" })).toMatchObject({ identifier, payload: { value: "25" } });
  await expect(send({ identifier, value: "25" })).rejects.toEqual(
    invalid({
      statusCode: 400,
      message: expect.stringContaining(`An event already exists with identifier ${identifier}`),
    }),
  );
  const refused = invalid({ statusCode: 400 });
  await expect(send({ timestamp: nowSeconds() - 36 * 86_400 })).rejects.toEqual(refused);
  await expect(send({ timestamp: nowSeconds() + 400 })).rejects.toEqual(refused);
  await expect(send({ identifier: "x".repeat(101) })).rejects.toEqual(refused);
  await expect(send({ value: "1.5" })).rejects.toEqual(refused);
  await expect(report(stripe, `nothing_${crypto.randomUUID()}`, customer.id)).rejects.toEqual(refused);
  await send({ timestamp: nowSeconds() - 34 * 86_400, identifier: "y".repeat(60) + crypto.randomUUID() });
});

test("a summary of one minute shows that minute's units and nothing else", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { eventName, meter } = await aCatalogue(stripe);
  const [customer, other] = [await stripe.customers.create(), await stripe.customers.create()];
  const minute = minuteOf(nowSeconds()) - 7200;
  await report(stripe, eventName, customer.id, { timestamp: minute, value: "3" });
  await report(stripe, eventName, customer.id, { timestamp: minute + 59, value: "4" });
  await report(stripe, eventName, customer.id, { timestamp: minute + 60, value: "100" });
  await report(stripe, eventName, other.id, { timestamp: minute, value: "1000" });

  await vi.waitFor(
    async () => {
      expect(await unitsBetween(stripe, meter.id, customer.id, minute, minute + 60)).toBe(7);
      expect(await unitsBetween(stripe, meter.id, customer.id, minute, minute + 120)).toBe(107);
    },
    { timeout: PATIENCE_MS, interval: 200 },
  );
  const misaligned = unitsBetween(stripe, meter.id, customer.id, minute + 1, minute + 60);
  await expect(misaligned).rejects.toEqual(invalid({ statusCode: 400, param: "start_time" }));

  const today = Math.floor(minute / 86_400) * 86_400;
  const range = { customer: customer.id, start_time: today, end_time: today + 2 * 86_400 };
  for (const window of ["hour", "day"] as const) {
    const pages = stripe.billing.meters.listEventSummaries(meter.id, {
      ...range,
      limit: 1,
      value_grouping_window: window,
    });
    const all = await pages.autoPagingToArray({ limit: 100 });
    expect(all.reduce((sum, { aggregated_value: value }) => sum + value, 0)).toBe(107);
    const width = window === "hour" ? 3600 : 86_400;
    expect(all.every(({ start_time: from, end_time: to }) => from % width === 0 && to === from + width)).toBe(true);
  }
});

test("a deactivated meter refuses events until it is reactivated", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { eventName, meter } = await aCatalogue(stripe);
  const customer = await stripe.customers.create();
  expect(await stripe.billing.meters.deactivate(meter.id)).toMatchObject({ status: "inactive" });
  await expect(report(stripe, eventName, customer.id)).rejects.toEqual(invalid({ statusCode: 400 }));
  expect(await stripe.billing.meters.reactivate(meter.id)).toMatchObject({ status: "active" });
  await report(stripe, eventName, customer.id);
  expect((await stripe.billing.meters.update(meter.id, { display_name: "Renamed" })).display_name).toBe("Renamed");
  const clash = { display_name: "Again", event_name: eventName, default_aggregation: { formula: "sum" } } as const;
  await expect(stripe.billing.meters.create(clash)).rejects.toEqual(invalid({ statusCode: 400 }));
});

test("a Checkout session carries its references and is open until it expires", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const catalogue = await aCatalogue(stripe);
  const session = await aSession(stripe, catalogue, { customer_email: "buyer@example.com" });
  expect(session).toMatchObject({
    status: "open",
    payment_status: "unpaid",
    mode: "subscription",
    client_reference_id: "tenant_1",
    customer_email: "buyer@example.com",
    metadata: { plan: "pro" },
  });
  expect(session.url).toMatch(/^https?:/);
  expect(session).not.toHaveProperty("line_items");
  const expanded = await stripe.checkout.sessions.retrieve(session.id, { expand: ["line_items"] });
  expect(expanded.line_items?.data.map(({ price }) => price?.id)).toEqual([catalogue.flat.id, catalogue.metered.id]);

  const counted = aSession(stripe, catalogue, { line_items: [{ price: catalogue.metered.id, quantity: 1 }] });
  await expect(counted).rejects.toEqual(invalid({ statusCode: 400 }));
  const uncounted = aSession(stripe, catalogue, { line_items: [{ price: catalogue.flat.id }] });
  await expect(uncounted).rejects.toEqual(invalid({ statusCode: 400 }));

  expect(await stripe.checkout.sessions.expire(session.id)).toMatchObject({ status: "expired", url: null });
  await expect(stripe.checkout.sessions.expire(session.id)).rejects.toEqual(invalid({ statusCode: 400 }));
});

test("a subscription has its period on its items, changes price, and is cancelled once", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const { flat, metered, product } = await aCatalogue(stripe);
  const customer = await stripe.customers.create();
  const dearer = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 9900,
    recurring: { interval: "month" },
  });
  // A trial, because a sandbox customer without a card could not start otherwise.
  const created = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: flat.id }, { price: metered.id }],
    billing_mode: { type: "flexible" },
    trial_period_days: 7,
    metadata: { tenant_id: "tenant_1" },
  });
  const [first, second] = created.items.data;
  expect(created).toMatchObject({ status: "trialing", billing_mode: { type: "flexible" } });
  expect(first).toMatchObject({ quantity: 1, price: { id: flat.id } });
  expect(second).not.toHaveProperty("quantity");
  expect((first?.current_period_end ?? 0) - (first?.current_period_start ?? 0)).toBe(7 * 86_400);

  const changed = await stripe.subscriptions.update(created.id, {
    items: [{ id: first?.id ?? "", price: dearer.id }],
    proration_behavior: "none",
    metadata: { plan: "enterprise" },
    cancel_at_period_end: true,
  });
  expect(changed.items.data.map(({ price }) => price.id).toSorted()).toEqual([dearer.id, metered.id].toSorted());
  expect(changed).toMatchObject({ cancel_at_period_end: true, cancel_at: first?.current_period_end });
  expect(changed.metadata).toEqual({ tenant_id: "tenant_1", plan: "enterprise" });

  expect(await stripe.subscriptions.cancel(created.id, { invoice_now: true })).toMatchObject({ status: "canceled" });
  await expect(stripe.subscriptions.cancel(created.id)).rejects.toEqual(invalid({ statusCode: 404 }));
  expect((await stripe.subscriptions.list({ customer: customer.id })).data).toEqual([]);
  expect((await stripe.subscriptions.list({ customer: customer.id, status: "all" })).data).toHaveLength(1);
});

test("the event list has every change with a snapshot of its moment", async () => {
  await using target = await aTarget();
  const { stripe } = target;
  const since = nowSeconds() - 5;
  const customer = await stripe.customers.create({ name: "Before" });
  await stripe.customers.update(customer.id, { name: "After" });
  const eventsOf = async (params: Stripe.EventListParams) => {
    const list = await stripe.events.list({ ...params, created: { gte: since }, limit: 100 });
    return list.data.filter(({ data }) => "id" in data.object && data.object.id === customer.id);
  };
  await vi.waitFor(
    async () => expect(await eventsOf({ types: ["customer.created", "customer.updated"] })).toHaveLength(2),
    { timeout: PATIENCE_MS, interval: 200 },
  );
  const [created] = await eventsOf({ type: "customer.created" });
  expect(created?.data.object).toMatchObject({ name: "Before" });
  expect(created?.api_version).toBe(Stripe.API_VERSION);
  const [updated] = await eventsOf({ type: "customer.updated" });
  expect(updated?.data).toMatchObject({ object: { name: "After" }, previous_attributes: { name: "Before" } });
  expect(await stripe.events.retrieve(created?.id ?? "")).toMatchObject({ id: created?.id, type: "customer.created" });
});
