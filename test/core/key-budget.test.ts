// The monthly budget of API keys is exact: keys of one line never use more together in a month.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Admission, type Ticket, periodOf } from "../../src/calls/admission.ts";
import type { AdmissionLimits } from "../../src/core/plans/plans.ts";
import { HOUR_MS } from "../../src/core/time.ts";

const START_MS = Date.UTC(2026, 10, 30, 20); // four hours before a month ends

const limits: AdmissionLimits = {
  ...{ unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, unitsPerHourByTool: {}, callsInFlight: 1_000 },
};

test("keys of one line never use more than their budget, with any weights, failures, ends and restarts", () => {
  const step = fc.record({
    cost: fc.integer({ min: 0, max: 9 }),
    end: fc.constantFrom("settle" as const, "release" as const, "later" as const),
    waitMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: HOUR_MS })),
    restart: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 30 }), fc.array(step, { maxLength: 80 }), (unitsPerMonth, steps) => {
      let admission = new Admission();
      let running: Ticket[] = [];
      let nowMs = START_MS;
      // Durable: what was charged, by month. Everything else is lost in a restart.
      const charged = new Map<string, number>();
      const used = (month: string): number => charged.get(month) ?? 0;
      for (const { cost, end, waitMs, restart } of steps) {
        nowMs += waitMs;
        const month = periodOf(nowMs).period;
        if (restart) {
          admission = new Admission();
          running = [];
          admission.restore([], used(month), nowMs, [{ lineId: "line-1", units: used(month) }]);
        }
        const held = running.filter(({ period }) => period === month).reduce((sum, { units }) => sum + units, 0);
        const decision = admission.decide(cost, limits, nowMs, "", { key: { lineId: "line-1", unitsPerMonth } });
        const fits = cost === 0 || used(month) + held + cost <= unitsPerMonth;
        expect(decision.admitted).toBe(fits);
        if (!decision.admitted) continue;
        running.push(decision.ticket);
        if (end === "later") continue;
        // Any running call ends, not only the newest.
        const [ended] = running.splice(cost % running.length, 1);
        if (ended === undefined) continue;
        admission[end](ended);
        if (end === "settle") charged.set(ended.period, used(ended.period) + ended.units);
        for (const units of charged.values()) expect(units).toBeLessThanOrEqual(unitsPerMonth);
      }
    }),
    { numRuns: 300 },
  );
});

test("a budget counts what the key used before it had one, and another key's use does not count", () => {
  const admission = new Admission();
  const use = (lineId: string, unitsPerMonth: number | null, cost: number): boolean => {
    const decision = admission.decide(cost, limits, START_MS, "", { key: { lineId, unitsPerMonth } });
    if (decision.admitted) admission.settle(decision.ticket);
    return decision.admitted;
  };
  expect([use("a", null, 5), use("b", null, 50)]).toEqual([true, true]);
  expect([use("a", 7, 3), use("a", 7, 2), use("a", 7, 1), use("a", 7, 0), use("a", null, 1)]).toEqual([
    ...[false, true, false, true, true],
  ]);
  expect(admission.usedByLine(START_MS)).toEqual([
    { lineId: "a", units: 8 },
    { lineId: "b", units: 50 },
  ]);
});

test("a call that costs more than the whole budget is refused for good, and the longest refusal is the answer", () => {
  const admission = new Admission();
  const key = { lineId: "a", unitsPerMonth: 3 };
  expect(admission.decide(4, limits, START_MS, "", { key })).toMatchObject({
    ...{ code: "cost_over_limit", measure: "key_month", limit: 3, cost: 4, retryAfterMs: undefined },
  });
  expect(admission.decide(3, limits, START_MS, "", { key })).toMatchObject({ admitted: true });
  // The hour is full for 60 minutes, and the budget for four hours.
  expect(admission.decide(1, { ...limits, unitsPerHour: 3 }, START_MS, "", { key })).toMatchObject({
    ...{ code: "key_budget_exhausted", measure: "key_month", used: 3, retryAfterMs: 4 * HOUR_MS },
  });
});
