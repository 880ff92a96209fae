// Reports under outages of Stripe, and the daily comparison with Stripe. The tests move the clocks of Stripe and of the cron
// together. Each test has its own tenants.
import { afterAll, afterEach, expect, test } from "vitest";
import { ledgerStore } from "../../src/control/ledger-store.ts";
import {
  type BilledTenant,
  aBilledTenant,
  billAt,
  compareAt,
  control,
  meterBehindOurBack,
  meteredUnits,
  misplaced,
  reportsOf,
  used,
} from "../support/billing.ts";
import { controlRows, fireCron, simulator } from "../support/flow.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const METER = { method: "POST", path: "/v1/billing/meter_events" };
const SUMMARIES = { method: "GET", path: "/v1/billing/meters/*" };
const startMs = Date.now();

afterEach(() => simulator("/faults", { rules: [] }));
afterAll(async () => {
  await simulator("/clock", { offsetMs: 0 });
  await simulator("/meter-lag", { ms: 0 });
  // Close the open alarms, so that they do not fail later tests.
  await controlRows(`UPDATE drifts SET closed_at = now()`);
  await controlRows(`UPDATE reports SET alarm = NULL, doubted_at = NULL, confirmed_at = coalesce(confirmed_at, now())`);
});

const pipeline = (atMs: number) => ledgerStore(control()).pipeline(atMs);

test("after a lost answer the summary of the report's minute confirms the report 20 hours later, and nothing is sent again", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [1, 20, 3], startMs);
  await simulator("/faults", { rules: [{ kind: "lost", ...METER }] });
  await billAt(startMs + 2 * MINUTE_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ units: 24, attempts: 1, confirmed: false }]);

  await simulator("/faults", { rules: [{ kind: "refused", ...SUMMARIES }] });
  await billAt(startMs + 21 * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, confirmed: false, doubted: true }]);
  expect((await pipeline(startMs + 21 * HOUR_MS)).ambiguousReports).toBeGreaterThanOrEqual(1);

  await simulator("/faults", { rules: [] });
  await billAt(startMs + 22 * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, confirmed: true, doubted: false, answer: "summary" }]);
  expect(await meteredUnits(tenant)).toBe(24);
});

test("a report that Stripe lacks is sent again after a day and counted once", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [5, 6], startMs);
  await simulator("/faults", { rules: [{ kind: "refused", ...METER }] });
  await billAt(startMs + 2 * MINUTE_MS);
  await simulator("/faults", { rules: [] });
  await billAt(startMs + 21 * HOUR_MS);
  await billAt(startMs + 44 * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, confirmed: false, doubted: true }]);
  expect(await meteredUnits(tenant)).toBe(0);
  await billAt(startMs + 46 * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([
    { attempts: 2, confirmed: true, doubted: false, answer: "accepted", units: 11 },
  ]);
  expect(await meteredUnits(tenant)).toBe(11);
  expect(await misplaced(tenant)).toEqual([]);
});

test("a slow summary does not cause a second send of a report", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [9], startMs);
  await simulator("/meter-lag", { ms: 23 * HOUR_MS });
  await simulator("/faults", { rules: [{ kind: "error-500-after", ...METER }] });
  await billAt(startMs + 2 * MINUTE_MS);
  for (const hours of [20.5, 21.6, 22.7, 23.8]) await billAt(startMs + hours * HOUR_MS);
  await simulator("/meter-lag", { ms: 0 });
  expect(await reportsOf(tenant)).toMatchObject([{ attempts: 1, answer: "summary", confirmed: true }]);
  expect(await meteredUnits(tenant)).toBe(9);
});

test("other units in a report's minute raise an alarm and are never corrected", async () => {
  const tenant = await aBilledTenant();
  await used(tenant, [7], startMs);
  await simulator("/faults", { rules: [{ kind: "lost", ...METER }] });
  await billAt(startMs + 2 * MINUTE_MS);
  await simulator("/faults", { rules: [] });
  await meterBehindOurBack(tenant, 100, startMs);
  for (const hours of [21, 23, 48, 72]) await billAt(startMs + hours * HOUR_MS);
  expect(await reportsOf(tenant)).toMatchObject([
    { attempts: 1, confirmed: false, doubted: true, alarm: "mismatch", stripeUnits: 107 },
  ]);
  expect(await meteredUnits(tenant)).toBe(107);
  expect((await pipeline(startMs)).mismatchedReports).toBeGreaterThanOrEqual(1);
});

test("a tenant whose reports Stripe refuses does not delay other tenants, and the reason is recorded", async () => {
  const [bad, ...good] = await Promise.all(Array.from({ length: 6 }, () => aBilledTenant()));
  if (bad === undefined) throw new Error("there is no tenant");
  for (const tenant of [bad, ...good]) await used(tenant, [2], startMs);
  // Stripe refuses this customer id. No other tenant has it.
  await controlRows(`UPDATE tenants SET stripe_customer_id = '' WHERE id = $1`, [bad.id]);
  await billAt(startMs + 73 * HOUR_MS);
  for (const tenant of good) expect(await reportsOf(tenant)).toMatchObject([{ confirmed: true, answer: "accepted" }]);
  expect(await reportsOf(bad)).toMatchObject([{ confirmed: false, alarm: "refused" }]);
  const [{ error } = { error: "" }] = await controlRows<{ error: string }>(
    `SELECT error FROM reports WHERE tenant_id = $1`,
    [bad.id],
  );
  expect(error).toMatch(/customer/);
  await controlRows(`UPDATE tenants SET stripe_customer_id = $2 WHERE id = $1`, [bad.id, bad.customerId]);
  await billAt(startMs + 75 * HOUR_MS);
  expect(await reportsOf(bad)).toMatchObject([{ confirmed: true, alarm: null }]);
});

test("three concurrent reporters report the usage of 60 tenants once, even with lost answers", async () => {
  const tenants: BilledTenant[] = [];
  for (let n = 0; n < 60; n += 1) tenants.push(await aBilledTenant());
  for (const tenant of tenants) await used(tenant, [1, 2], startMs);
  await simulator("/faults", { seed: 7, rules: [{ kind: "lost", ...METER, probability: 0.3 }] });
  const atMs = startMs + 76 * HOUR_MS;
  await simulator("/clock", { offsetMs: Math.round(atMs - Date.now()) });
  await Promise.all([0, 1, 2].map((n) => fireCron("*/5 * * * *", atMs + n)));
  await simulator("/faults", { rules: [] });
  await billAt(atMs + 5 * MINUTE_MS);
  await billAt(atMs + 10 * MINUTE_MS);
  for (const tenant of tenants) {
    expect(await reportsOf(tenant)).toMatchObject([{ units: 3, confirmed: true }]);
    expect(await meteredUnits(tenant)).toBe(3);
    expect(await misplaced(tenant)).toEqual([]);
  }
}, 240_000);

test("usage that is dated in the future waits until its time, and an indicator shows it", async () => {
  const tenant = await aBilledTenant();
  const aheadMs = startMs + 80 * HOUR_MS;
  await used(tenant, [4], aheadMs);
  await billAt(startMs + 77 * HOUR_MS);
  expect(await reportsOf(tenant)).toEqual([]);
  expect((await pipeline(startMs + 77 * HOUR_MS)).aheadSeconds).toBe(3 * 3_600);
  await billAt(aheadMs + 2 * MINUTE_MS);
  expect(await reportsOf(tenant)).toMatchObject([{ confirmed: true, units: 4 }]);
  expect((await pipeline(aheadMs + 2 * MINUTE_MS)).aheadSeconds).toBeNull();
});

test("the daily comparison finds a report that Stripe lacks and units without a report; it resends the report, and the alarm about the units stays", async () => {
  const tenant = await aBilledTenant();
  const untouched = await aBilledTenant();
  const nightMs = (day: number) => Math.floor(startMs / DAY_MS) * DAY_MS + day * DAY_MS + 3 * HOUR_MS;
  const drifts = () =>
    controlRows<{ kind: string; reported: number; stripe: number; open: boolean }>(
      `SELECT kind, reported_units::int AS reported, stripe_units::int AS stripe, closed_at IS NULL AS open, minutes FROM drifts
       WHERE tenant_id = $1 ORDER BY kind`,
      [tenant.id],
    );
  /** The indicators without the tenants of other tests in this system, some of which differ on purpose. */
  const drifted = async (atMs: number) => {
    const [others] = await controlRows<{ units: number; tenants: number }>(
      `SELECT coalesce(sum(abs(stripe_units - reported_units)), 0)::int AS units, count(DISTINCT tenant_id)::int AS tenants
       FROM drifts WHERE closed_at IS NULL AND tenant_id <> $1`,
      [tenant.id],
    );
    const { driftUnits, driftTenants } = await pipeline(atMs);
    return { units: driftUnits - (others?.units ?? 0), tenants: driftTenants - (others?.tenants ?? 0) };
  };
  await used(tenant, [8], startMs);
  await used(untouched, [8], startMs);
  const frozenMs = startMs + 81 * HOUR_MS;
  // Imitates an event that was deleted after its confirmation: the report is confirmed, and its event never existed.
  await simulator("/faults", { rules: [{ kind: "refused", ...METER }] });
  await billAt(frozenMs);
  await simulator("/faults", { rules: [] });
  await controlRows(
    `UPDATE reports SET confirmed_at = to_timestamp($2::double precision / 1000), answer = 'accepted' WHERE tenant_id = $1`,
    [tenant.id, frozenMs],
  );
  await meterBehindOurBack(tenant, 5, startMs - 30 * MINUTE_MS);

  await compareAt(nightMs(5));
  expect(await drifts()).toEqual([
    { kind: "missing", reported: 8, stripe: 0, open: true, minutes: 1 },
    { kind: "unknown", reported: 0, stripe: 5, open: true, minutes: 1 },
  ]);
  expect(await controlRows(`SELECT 1 FROM drifts WHERE tenant_id = $1`, [untouched.id])).toEqual([]);
  expect(await reportsOf(tenant)).toMatchObject([{ confirmed: true, doubted: true }]);
  expect(await drifted(nightMs(5))).toEqual({ units: 13, tenants: 1 });

  await billAt(nightMs(5) + 2 * HOUR_MS); // the read finds nothing
  await billAt(nightMs(6) + 3 * HOUR_MS); // nothing for a day: Tollgate sends it again
  expect(await reportsOf(tenant)).toMatchObject([{ confirmed: true, doubted: false, answer: "accepted", attempts: 2 }]);
  expect(await meteredUnits(tenant)).toBe(13);

  await compareAt(nightMs(7));
  expect(await drifts()).toEqual([
    { kind: "missing", reported: 8, stripe: 0, open: false, minutes: 1 },
    { kind: "unknown", reported: 0, stripe: 5, open: true, minutes: 1 },
  ]);
  expect(await drifted(nightMs(7))).toEqual({ units: 5, tenants: 1 });
  expect((await pipeline(nightMs(7))).lastReconciliationSeconds).toBeLessThan(60);
});

test("an interrupted comparison continues at the next tenant", async () => {
  const dayMs = Math.floor(startMs / DAY_MS) * DAY_MS + 9 * DAY_MS + 3 * HOUR_MS;
  await simulator("/faults", { seed: 3, rules: [{ kind: "refused", ...SUMMARIES, probability: 0.2 }] });
  const state = () =>
    controlRows<{ tenants: number; finished: boolean }>(
      `SELECT tenants, finished_at IS NOT NULL AS finished FROM reconciliations WHERE day = $1::date`,
      [new Date(dayMs).toISOString().slice(0, 10)],
    );
  await compareAt(dayMs);
  const [first] = await state();
  expect(first).toMatchObject({ finished: false });
  await simulator("/faults", { rules: [] });
  await billAt(dayMs + 5 * MINUTE_MS);
  const [count] = await controlRows<{ n: number }>(
    `SELECT count(*)::int AS n FROM tenants WHERE stripe_customer_id IS NOT NULL`,
  );
  expect(await state()).toEqual([{ tenants: count?.n, finished: true }]);
});
