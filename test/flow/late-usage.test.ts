// Late usage: its invoice is final, Stripe refuses usage of that age, or its day has no free minute. Each call is in one
// report or one carry-forward and is billed once, on a later invoice, at the price of its own period.
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Subscription } from "../../src/adapters/stripe/subscriptions.ts";
import { periodsStore } from "../../src/reports/periods-store.ts";
import { reportsStore } from "../../src/reports/reports-store.ts";
import type { PlanName } from "../../src/core/plans/plans.ts";
import {
  type BilledTenant,
  aBilledTenant,
  billAt,
  control,
  meteredUnits,
  misplaced,
  reportsOf,
  used,
} from "../support/billing.ts";
import { controlRows, simulator, stripeRead } from "../support/flow.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const METER = { method: "POST", path: "/v1/billing/meter_events" };
const ITEMS = { method: "POST", path: "/v1/invoiceitems" };
const startMs = Date.now();
const todayMs = Math.floor(startMs / DAY_MS) * DAY_MS;

afterEach(() => simulator("/faults", { rules: [] }));
afterAll(() => simulator("/clock", { offsetMs: 0 }));

interface LateRow {
  units: number;
  reason: string;
  answer: string | null;
  unitsBefore: number | null;
  key: number;
}

function carriedOf(tenant: BilledTenant): Promise<LateRow[]> {
  return controlRows<LateRow>(
    `SELECT units::int AS units, reason, answer, units_before::int AS "unitsBefore", key_number AS key FROM carry_forwards
     WHERE tenant_id = $1 ORDER BY frozen_at, id`,
    [tenant.id],
  );
}

/** Items that Stripe will put on the next invoice: quantity and unit price. */
async function itemsOf(tenant: BilledTenant): Promise<[number, string][]> {
  interface Item {
    quantity: number;
    pricing: { unit_amount_decimal: string };
  }
  const { data } = await stripeRead<{ data: Item[] }>(`/invoiceitems?customer=${tenant.customerId}&limit=100`);
  return data.map(({ quantity, pricing }) => [quantity, pricing.unit_amount_decimal]);
}

/** Records that the invoice of the week before today is final. */
function invoiced(tenant: BilledTenant, units: number | null, plan: PlanName = "pro"): Promise<void> {
  return periodsStore(control()).close({
    invoiceId: `in_${tenant.id}`,
    tenantId: tenant.id,
    startMs: todayMs - 7 * DAY_MS,
    endMs: todayMs,
    plan,
    invoicedUnits: units,
    finalizedAtMs: startMs,
  });
}

test("usage that arrives after its invoice is billed once, on the next invoice, at the price of its period", async () => {
  const tenant = await aBilledTenant();
  await invoiced(tenant, 49_990);
  await invoiced(tenant, 1); // the same invoice again changes nothing
  await used(tenant, [20, 5], todayMs - DAY_MS);
  await used(tenant, [3], todayMs + 1);
  await simulator("/faults", { rules: [{ kind: "lost", ...ITEMS }] });
  await billAt(startMs + 2 * MINUTE_MS);
  expect(await carriedOf(tenant)).toEqual([
    { units: 25, reason: "invoice_final", answer: null, unitsBefore: 49_990, key: 1 },
  ]);
  await simulator("/faults", { rules: [] });
  await billAt(startMs + 12 * MINUTE_MS); // the same key finds the item that it made
  expect(await carriedOf(tenant)).toMatchObject([{ answer: "created", key: 1 }]);
  expect(await itemsOf(tenant)).toEqual([[15, "0.1"]]);
  expect(await reportsOf(tenant)).toMatchObject([{ units: 3, answer: "accepted" }]);
  expect(await meteredUnits(tenant)).toBe(3);

  // More of the same period: the included units are used up.
  await used(tenant, [4], todayMs - 2 * DAY_MS);
  await billAt(startMs + 20 * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([{}, { units: 4, unitsBefore: 50_015, answer: "created" }]);
  expect(new Set((await itemsOf(tenant)).map(String))).toEqual(new Set(["15,0.1", "4,0.1"]));
  expect(await misplaced(tenant)).toEqual([]);
});

test("an invoice item whose creation Stripe replays as a failure is found by its metadata and not created twice", async () => {
  const tenant = await aBilledTenant();
  await invoiced(tenant, 60_000);
  await used(tenant, [7], todayMs - 1);
  await simulator("/faults", { rules: [{ kind: "error-500-after", ...ITEMS, times: 1 }] });
  for (const minutes of [30, 40, 50]) await billAt(startMs + minutes * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([{ answer: null, key: 1 }]);
  await billAt(startMs + 95 * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([{ answer: "found", key: 2 }]);
  expect(await itemsOf(tenant)).toEqual([[7, "0.1"]]);
});

test("a report that misses its invoice is carried forward after Tollgate has looked for it at Stripe for a day", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [11], todayMs - 1);
  const firstMs = startMs + 2 * HOUR_MS;
  await simulator("/faults", { rules: [{ kind: "refused", ...METER }] });
  await billAt(firstMs);
  await invoiced(tenant, 50_000);
  await simulator("/faults", { rules: [] });
  await billAt(firstMs + HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, confirmed: false, doubted: true }]);
  await billAt(firstMs + 26 * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, answer: "carried", doubted: false }]);
  expect(await carriedOf(tenant)).toMatchObject([{ units: 11, reason: "report_lost", answer: "created" }]);
  expect(await itemsOf(tenant)).toEqual([[11, "0.1"]]);
  expect(await meteredUnits(tenant)).toBe(0);
  expect(await misplaced(tenant)).toEqual([]);
});

test("late usage without a charge is recorded with the reason: covered by the plan, or no subscription", async () => {
  const [covered, unsold, contract] = await Promise.all([aBilledTenant(), aBilledTenant(), aBilledTenant()]);
  await invoiced(covered, 100);
  await invoiced(unsold, null, "starter");
  for (const tenant of [covered, unsold]) await used(tenant, [9], todayMs - 1);
  await used(contract, [9], startMs - 40 * DAY_MS);
  await billAt(startMs + 30 * HOUR_MS);
  expect(await carriedOf(covered)).toMatchObject([{ answer: "covered", unitsBefore: 100 }]);
  expect(await carriedOf(unsold)).toMatchObject([{ answer: "covered" }]);
  expect(await carriedOf(contract)).toMatchObject([{ reason: "too_old", answer: "no_subscription" }]);
  for (const tenant of [covered, unsold, contract]) expect(await itemsOf(tenant)).toEqual([]);
});

test("usage of a tenant without a customer is frozen and never sent to Stripe", async () => {
  const tenant = await aBilledTenant({ customer: false });
  await used(tenant, [9], startMs);
  await billAt(startMs + 31 * HOUR_MS);
  await billAt(startMs + 31 * HOUR_MS + 5 * MINUTE_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ units: 9, attempts: 0, confirmed: true, answer: "no_customer" }]);
});

test("usage of a day without a free minute is carried forward after an hour, and a billed minute is not used", async () => {
  const ledger = reportsStore(control());
  const tenant = await aBilledTenant({ customer: false });
  const dayMs = todayMs - 3 * DAY_MS;
  // Takes every minute of the day except one, which a final invoice has billed.
  await controlRows(
    `INSERT INTO reports (id, tenant_id, slot, stamp, plan, units, calls, frozen_at, confirmed_at, answer)
     SELECT $1 || m, $1, slot, slot, 'pro', 1, 1, now(), now(), 'no_customer'
     FROM generate_series(1, 1439) m, LATERAL (SELECT to_timestamp($2::double precision / 1000) + m * interval '1 minute' AS slot) slots`,
    [tenant.id, dayMs],
  );
  await periodsStore(control()).close({
    invoiceId: `in_${randomUUID()}`,
    tenantId: tenant.id,
    startMs: dayMs - DAY_MS,
    endMs: dayMs + 30_000,
    plan: "pro",
    invoicedUnits: 0,
    finalizedAtMs: dayMs,
  });
  const atMs = dayMs + 20 * MINUTE_MS;
  await used(tenant, [6], atMs);
  expect(await ledger.freeze(atMs + MINUTE_MS, atMs + MINUTE_MS, { tenantId: tenant.id })).toMatchObject({ rows: 0 });
  const hourLaterMs = dayMs + HOUR_MS + MINUTE_MS;
  expect(await ledger.freeze(hourLaterMs, hourLaterMs, { tenantId: tenant.id })).toEqual({
    rows: 1,
    reports: 0,
    carryForwards: 1,
  });
  expect(await carriedOf(tenant)).toMatchObject([{ units: 6, reason: "no_minute" }]);
});

/** A subscription as Stripe would return it, with a period from `fromMs` to `untilMs`. */
function aSubscription(tenant: BilledTenant, fromMs: number, untilMs: number, endedAtMs: number | null): Subscription {
  return {
    ...{ id: `sub_${tenant.id}_${fromMs}`, tenantId: tenant.id, status: endedAtMs === null ? "active" : "canceled" },
    ...{ createdAtMs: fromMs, plan: "pro", trialUntilMs: null, periodStartMs: fromMs, periodEndMs: untilMs },
    ...{ cancelAtMs: null, endedAtMs, unpaidSinceMs: null, pausedCollection: null },
  };
}

test("usage is reported with a timestamp in the one period that earned it, and waits for a free minute in it", async () => {
  const ledger = reportsStore(control());
  const tenant = await aBilledTenant();
  const firstMs = todayMs - 2 * DAY_MS + 10 * HOUR_MS + 15_000;
  const midnightMs = todayMs - DAY_MS;
  const record = (...found: Subscription[]) =>
    periodsStore(control()).record({ id: tenant.id, plan: "pro", subscriptionId: null }, found);
  const freezeAt = (nowMs: number, waits = true) => ledger.freeze(nowMs, nowMs, { tenantId: tenant.id, waits });
  const stamps = () =>
    controlRows<{ second: number; units: number }>(
      `SELECT (extract(epoch FROM stamp) - $2)::int AS second, units::int AS units FROM reports WHERE tenant_id = $1 ORDER BY stamp`,
      [tenant.id, firstMs / 1000],
    );
  await record(aSubscription(tenant, firstMs, midnightMs, null));
  await used(tenant, [1], firstMs + 500);
  expect(await freezeAt(firstMs + 10_000)).toEqual({ rows: 1, reports: 1, carryForwards: 0 });
  // The period's only minute so far has a report.
  await used(tenant, [2], firstMs + 11_000);
  expect(await freezeAt(firstMs + 20_000)).toMatchObject({ rows: 0 });

  // The customer leaves at 25 s and returns at 30 s. Usage of the first period that comes late is carried forward, at its price.
  const secondMs = firstMs + 30_000;
  await record(
    aSubscription(tenant, firstMs, midnightMs, firstMs + 25_000),
    aSubscription(tenant, secondMs, midnightMs, null),
  );
  await used(tenant, [4], secondMs + 1_000);
  expect(await freezeAt(secondMs + 9_000)).toEqual({ rows: 1, reports: 0, carryForwards: 1 });
  expect(await freezeAt(secondMs + 20_000)).toEqual({ rows: 1, reports: 1, carryForwards: 0 });
  // The subscription is about to end, and its only minute has a report.
  await used(tenant, [8], secondMs + 21_000);
  expect(await freezeAt(secondMs + 22_000, false)).toEqual({ rows: 1, reports: 0, carryForwards: 1 });
  // The next period of the subscription, before Stripe's event about it.
  await used(tenant, [16], midnightMs + 30_000);
  expect(await freezeAt(midnightMs + MINUTE_MS)).toEqual({ rows: 1, reports: 1, carryForwards: 0 });
  expect(await stamps()).toEqual([
    { second: 0, units: 1 },
    { second: 45, units: 4 },
    { second: (midnightMs - firstMs) / 1000, units: 16 },
  ]);
  expect(await carriedOf(tenant)).toMatchObject([
    { units: 2, reason: "invoice_final" },
    { units: 8, reason: "no_minute" },
  ]);
  expect(await misplaced(tenant)).toEqual([]);
});

test("units that reach the meter after the invoice of their period are billed once, with an item of their own", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [60_000, 10], todayMs - 1);
  await billAt(startMs + 71 * MINUTE_MS);
  expect(await meteredUnits(tenant)).toBe(60_010);
  await invoiced(tenant, 60_000); // Stripe had not counted the others when it finalized the invoice
  for (const minutes of [76, 81, 86]) await billAt(startMs + minutes * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([
    { units: 10, reason: "not_invoiced", unitsBefore: 60_000, answer: "created" },
  ]);
  expect(await itemsOf(tenant)).toEqual([[10, "0.1"]]);
});

test("a customer that returns within the time that it has paid for gets the included units once", async () => {
  const tenant = await aBilledTenant();
  const record = (...found: Subscription[]) =>
    periodsStore(control()).record({ id: tenant.id, plan: "pro", subscriptionId: null }, found);
  const [firstMs, secondMs] = [todayMs - DAY_MS, todayMs - DAY_MS + 2 * HOUR_MS];
  const first = (endedAtMs: number | null) => aSubscription(tenant, firstMs, todayMs, endedAtMs);
  const second = (endedAtMs: number | null) => aSubscription(tenant, secondMs, todayMs, endedAtMs);
  await record(first(null));
  await used(tenant, [49_990], firstMs + HOUR_MS);
  await billAt(startMs + 101 * MINUTE_MS);
  await record(first(secondMs - HOUR_MS / 2), second(null));
  await periodsStore(control()).shareIncluded(second(null).id);
  await used(tenant, [30], secondMs + HOUR_MS);
  await billAt(startMs + 107 * MINUTE_MS);
  expect(await itemsOf(tenant)).toEqual([]);

  // Stripe includes 50,000 units in each of the two periods, so it charges nothing for the 20 beyond.
  await record(first(secondMs - HOUR_MS / 2), second(secondMs + 2 * HOUR_MS));
  await billAt(startMs + 113 * MINUTE_MS);
  await billAt(startMs + 119 * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([{ units: 20, reason: "included_once", answer: "created" }]);
  await used(tenant, [5], secondMs + HOUR_MS);
  await billAt(startMs + 125 * MINUTE_MS);
  expect(await carriedOf(tenant)).toMatchObject([{}, { units: 5, unitsBefore: 50_020, answer: "created" }]);
  expect(new Set((await itemsOf(tenant)).map(String))).toEqual(new Set(["20,0.1", "5,0.1"]));
  expect(await meteredUnits(tenant)).toBe(50_020);
});

test("concurrent freezes freeze each row once, each in its own minute and none ahead of the clock", async () => {
  const ledger = reportsStore(control());
  const tenant = await aBilledTenant({ customer: false });
  const dayMs = todayMs - 2 * DAY_MS;
  const nowMs = dayMs + 5 * MINUTE_MS;
  for (let round = 0; round < 7; round += 1) {
    await used(tenant, [round + 1, 1], nowMs - 2 * MINUTE_MS);
    await Promise.all([0, 1, 2, 3].map(() => ledger.freeze(nowMs - MINUTE_MS, nowMs, { tenantId: tenant.id })));
  }
  const slots = await controlRows<{ minute: number }>(
    `SELECT (extract(epoch FROM slot - to_timestamp($2::double precision / 1000)) / 60)::int AS minute FROM reports WHERE tenant_id = $1 ORDER BY frozen_at, slot`,
    [tenant.id, dayMs],
  );
  // The last round found no free minute up to now, so its rows wait.
  expect(slots.map(({ minute }) => minute).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(await misplaced(tenant)).toEqual([{ id: "unfrozen" }]);
  expect(await ledger.freeze(nowMs, nowMs + MINUTE_MS, { tenantId: tenant.id })).toMatchObject({ rows: 2, reports: 1 });
  expect(await misplaced(tenant)).toEqual([]);
});

test("no login can move a frozen row, not even the one that froze it", async () => {
  const tenant = await aBilledTenant({ customer: false });
  await used(tenant, [1], todayMs - 1);
  await reportsStore(control()).freeze(startMs, startMs, { tenantId: tenant.id });
  for (const change of [
    "report_id = NULL",
    "report_id = NULL, carry_forward_id = 'c1.x'",
    "carry_forward_id = 'c1.x'",
  ]) {
    await expect(
      control().query(`UPDATE ledger SET ${change} WHERE tenant_id = $1`, [tenant.id]),
    ).rejects.toMatchObject({
      sqlState: "23514",
    });
  }
});
