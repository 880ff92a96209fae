// The spend cap: no call is admitted whose price the cap in force does not pay for, and none is refused that it pays for. Checked
// against invoices that are added up call by call.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Admission, type Ticket } from "../../src/calls/admission.ts";
import { limitRefusal } from "../../src/calls/refusal.ts";
import {
  type Billing,
  inCents,
  spendCapOf,
  spendWindow,
  spentBefore,
  spentIn,
  withReserve,
} from "../../src/core/plans/money.ts";
import { type AdmissionLimits, planOf } from "../../src/core/plans/plans.ts";
import { DAY_MS, HOUR_MS } from "../../src/core/time.ts";

const START_MS = Date.UTC(2026, 10, 14);
const END_MS = Date.UTC(2026, 11, 14);
const unlimited: AdmissionLimits = {
  ...{ unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null },
  ...{ callsInFlight: 1_000, unitsPerHourByTool: {} },
};
const bounds = { spendCapCents: 10_000, maxSpendCapCents: 100_000 };
const included = planOf("pro").includedUnits ?? 0;

function billingOf(own: Partial<Billing> = {}): Billing {
  const period = { periodStartMs: START_MS, periodEndMs: END_MS };
  return { ...period, planSinceMs: null, spentBeforeCents: "0", ownCapCents: null, ...own };
}

const stepArbitrary = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant("call" as const), cost: fc.integer({ min: 0, max: 40 }) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("settle" as const, "release" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("cap" as const), cents: fc.integer({ min: 0, max: 12 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("plan" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(1, HOUR_MS, 6 * DAY_MS) }),
  },
);

test("a call is admitted exactly if the cap pays for it, with running calls, raised caps, plan changes and new periods", () => {
  fc.assert(
    fc.property(fc.array(stepArbitrary, { minLength: 20, maxLength: 120 }), (steps) => {
      const admission = new Admission();
      let nowMs = START_MS;
      let plan = "pro";
      let billing = billingOf({ ownCapCents: 3 });
      /** Each invoice part: units of one plan within one billing period. The first has used its included units but 20. */
      const parts = [{ periodMs: START_MS, units: included - 20 }];
      const calls: { ticket: Ticket; units: number; part: (typeof parts)[number]; running: boolean }[] = [];
      const charged = [{ atMs: START_MS, units: included - 20 }];
      const usedSince = (startMs: number): number =>
        charged.filter(({ atMs }) => atMs >= startMs).reduce((sum, { units }) => sum + units, 0) +
        calls
          .filter(({ ticket, running }) => !running && ticket.atMs >= startMs)
          .reduce((sum, { units }) => sum + units, 0);
      const tenthsOfCents = (periodMs: number): number =>
        parts
          .filter((part) => part.periodMs === periodMs)
          .reduce((sum, { units }) => sum + Math.max(0, units - included), 0);
      for (const step of steps) {
        const spender = { plan, limits: bounds, billing };
        const window = spendWindow(spender, nowMs);
        if (window !== undefined) admission.watchSpend(window.startMs, () => usedSince(window.startMs));
        if (step.do === "wait") nowMs += step.ms;
        else if (step.do === "cap") billing = { ...billing, ownCapCents: step.cents };
        else if (step.do === "call") {
          const periodMs = nowMs < END_MS ? START_MS : END_MS;
          if (parts.at(-1)?.periodMs !== periodMs) parts.push({ periodMs, units: 0 });
          const part = parts.at(-1);
          if (part === undefined) continue;
          const decision = admission.decide(step.cost, unlimited, nowMs, "", { spend: window });
          if (plan === "pro") {
            const before = tenthsOfCents(periodMs);
            part.units += step.cost;
            const after = tenthsOfCents(periodMs);
            part.units -= step.cost;
            // A call that costs nothing is admitted also when a lowered cap is exceeded already.
            expect(decision.admitted).toBe(after === before || after <= (billing.ownCapCents ?? 0) * 10);
          }
          if (!decision.admitted) continue;
          if (plan === "pro") part.units += step.cost;
          calls.push({ ticket: decision.ticket, units: step.cost, part, running: true });
        } else if (step.do === "plan") {
          // As the tenant's object does it, once no call runs.
          for (const call of calls.filter(({ running }) => running)) {
            admission.settle(call.ticket);
            call.running = false;
          }
          const spent =
            window === undefined ? spentBefore(spender, nowMs) : inCents(spentIn(window, admission.spendUsed));
          nowMs += 1;
          billing = { ...billing, planSinceMs: nowMs, spentBeforeCents: spent };
          plan = plan === "pro" ? "starter" : "pro";
          parts.push({ periodMs: nowMs < END_MS ? START_MS : END_MS, units: 0 });
        } else {
          const running = calls.filter((call) => call.running);
          const call = running[step.which % Math.max(1, running.length)];
          if (call === undefined) continue;
          call.running = false;
          if (step.do === "settle") {
            // The tool decides the price, up to what the ticket holds.
            const held = call.units;
            call.units = Math.min(step.which % 30, held);
            admission.settle(call.ticket, call.units);
            call.part.units -= Math.min(call.part.units, held - call.units);
          } else {
            admission.release(call.ticket);
            call.part.units -= Math.min(call.part.units, call.ticket.units);
            calls.splice(calls.indexOf(call), 1);
          }
        }
      }
    }),
    { numRuns: 300, interruptAfterTimeLimit: 10_000 },
  );
});

test.each([
  ["the plan's", null, 10_000, 100_000, 10_000],
  ["an owner's", 500, 10_000, 100_000, 500],
  ["an owner's above the operator's later bound", 500, 100, 400, 400],
  ["an owner's of zero", 0, 10_000, null, 0],
  ["none", null, null, null, null],
  ["the bound of a plan without a cap", null, null, 700, 700],
])("the cap in force is %s", (_, ownCapCents, spendCapCents, maxSpendCapCents, expected) => {
  expect(spendCapOf({ spendCapCents, maxSpendCapCents }, ownCapCents)).toBe(expected);
});

test.each([
  ["within the period", START_MS + 1, START_MS, END_MS],
  ["in its last millisecond", END_MS - 1, START_MS, END_MS],
  ["at its end, before Stripe's event", END_MS, END_MS, Date.UTC(2027, 0, 14)],
  ["long after its end, before Stripe's event", END_MS + 50 * DAY_MS, END_MS, Date.UTC(2027, 0, 14)],
])("units count since the billing period's start: %s", (_, nowMs, startMs, endMs) => {
  expect(spendWindow({ plan: "pro", limits: bounds, billing: billingOf() }, nowMs)).toMatchObject({ startMs, endMs });
});

test("without a subscription the calendar month counts, and a plan without a price per unit has no cap", () => {
  const nowMs = Date.UTC(2026, 11, 31, 23);
  const window = { startMs: Date.UTC(2026, 11, 1), endMs: Date.UTC(2027, 0, 1), maxUnits: included + 100_000 };
  expect(spendWindow({ plan: "pro", limits: bounds }, nowMs)).toMatchObject(window);
  expect(spendWindow({ plan: "starter", limits: bounds, billing: billingOf() }, nowMs)).toBeUndefined();
});

test("a period that ends on the 31st is followed by one that ends on the last day of a shorter month", () => {
  const billing = billingOf({ periodStartMs: Date.UTC(2026, 11, 31), periodEndMs: Date.UTC(2027, 0, 31) });
  const window = spendWindow({ plan: "pro", limits: bounds, billing }, Date.UTC(2027, 1, 1));
  expect(window).toMatchObject({ startMs: Date.UTC(2027, 0, 31), endMs: Date.UTC(2027, 1, 28) });
});

test("the refusal says what the cap is, what the call costs, who can raise it and when it renews", () => {
  const spend = spendWindow({ plan: "pro", limits: bounds, billing: billingOf({ ownCapCents: 2 }) }, START_MS);
  const admission = new Admission();
  admission.watchSpend(START_MS, () => included + 15);
  const refused = admission.decide(20, unlimited, END_MS - 90_000, "", { spend });
  if (refused.admitted || spend === undefined) throw new Error("admitted");
  const raiseUrl = "https://x.example/app/acme/limit";
  const options = { upgradeUrl: "https://x.example/plans", raiseUrl, nowMs: END_MS - 90_000, spend };
  const refusal = limitRefusal("generate_report", refused, options);
  expect(refusal).toMatchObject({
    ...{ code: "spend_cap_reached", limit: included + 20, used: included + 15, cost: 20, capCents: 2 },
    ...{ retryAfterSeconds: 90, upgradeUrl: raiseUrl, raisable: true },
  });
  for (const fact of ["0.02 USD", "0.015 USD", "(20 units)", "1000.00 USD", "An owner", raiseUrl, "90 seconds"])
    expect(refusal.message).toContain(fact);
  expect(refusal.message).toContain("2026-12-14T00:00:00Z");
  // At the operator's bound no person can raise it.
  const highest = { ...options, spend: { ...spend, maxCapCents: 2 } };
  expect(limitRefusal("generate_report", refused, highest)).toMatchObject({ upgradeUrl: options.upgradeUrl });
  expect(limitRefusal("generate_report", refused, highest)).not.toHaveProperty("raisable");
  // A host that does not know all calls keeps some units back, and says so instead of naming the cap.
  expect(withReserve(spend, 1_000_000).maxUnits).toBe(included);
  const kept = admission.decide(1, unlimited, END_MS - 90_000, "", { spend: withReserve(spend, 10) });
  if (kept.admitted) throw new Error("admitted");
  expect(limitRefusal("search", kept, options)).toMatchObject({ code: "metering_unavailable", retryAfterSeconds: 60 });
});
