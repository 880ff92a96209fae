// Admission is exact: checked against a naive model that keeps every admitted call and sums them again for each decision.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Admission, type KeyBudget, type Ticket, periodOf } from "../../src/calls/admission.ts";
import { HOUR_MS, MINUTE_MS } from "../../src/core/time.ts";
import { type AdmissionLimits, planOf } from "../../src/core/plans/plans.ts";

const START_MS = Date.UTC(2026, 10, 30, 20); // four hours before a month ends

/** Ends fast-check's shrinking of a failure, which takes minutes for a long history. */
const TIME_LIMIT_MS = 10_000;

function someLimits(overrides: Partial<AdmissionLimits> = {}): AdmissionLimits {
  const none = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, unitsPerHourByTool: {} };
  return { ...none, callsInFlight: 1_000, ...overrides };
}

function admitted(admission: Admission, cost: number, limits: AdmissionLimits, nowMs: number): Ticket {
  const decision = admission.decide(cost, limits, nowMs);
  if (!decision.admitted) throw new Error(`refused: ${decision.code}`);
  return decision.ticket;
}

function within(used: number, cost: number, limit: number | null): boolean {
  return limit === null || used + cost <= limit;
}

/** The promise of admission in its plainest form. */
class Model {
  calls: { atMs: number; units: number; running: boolean; tool: string; line: string | undefined }[] = [];

  hourUsed(nowMs: number, tool?: string): number {
    return this.calls
      .filter((call) => nowMs - call.atMs < HOUR_MS && (tool === undefined || call.tool === tool))
      .reduce((sum, call) => sum + call.units, 0);
  }
  minuteUsed(nowMs: number): number {
    return this.calls.filter((call) => nowMs - call.atMs < MINUTE_MS).length;
  }
  monthUsed(nowMs: number): number {
    const month = periodOf(nowMs).period;
    return this.calls.filter((call) => periodOf(call.atMs).period === month).reduce((sum, call) => sum + call.units, 0);
  }
  lineUsed(nowMs: number, line: string | undefined): number {
    const month = periodOf(nowMs).period;
    return this.calls
      .filter((call) => call.line === line && periodOf(call.atMs).period === month)
      .reduce((sum, call) => sum + call.units, 0);
  }
  inFlight(): number {
    return this.calls.filter((call) => call.running).length;
  }
  charged(tool: string): { atMs: number; units: number }[] {
    return this.calls.filter((call) => call.tool === tool && !call.running);
  }
  admits(cost: number, limits: AdmissionLimits, nowMs: number, tool: string, key?: KeyBudget): boolean {
    return (
      within(this.minuteUsed(nowMs), 1, limits.callsPerMinute) &&
      this.inFlight() < limits.callsInFlight &&
      (cost === 0 ||
        (within(this.hourUsed(nowMs), cost, limits.unitsPerHour) &&
          within(this.hourUsed(nowMs, tool), cost, limits.unitsPerHourByTool[tool] ?? null) &&
          within(this.monthUsed(nowMs), cost, limits.unitsPerMonth) &&
          (key === undefined || within(this.lineUsed(nowMs, key.lineId), cost, key.unitsPerMonth))))
    );
  }
}

const limitsArbitrary = fc.record({
  unitsPerHour: fc.integer({ min: 1, max: 120 }),
  unitsPerMonth: fc.integer({ min: 1, max: 400 }),
  callsPerMinute: fc.integer({ min: 1, max: 20 }),
  callsInFlight: fc.integer({ min: 1, max: 12 }),
  unitsPerHourByTool: fc.oneof(fc.constant({}), fc.record({ limited: fc.integer({ min: 1, max: 60 }) })),
});

const stepArbitrary = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("call" as const),
      cost: fc.integer({ min: 0, max: 20 }),
      tool: fc.constantFrom("limited", "other"),
      key: fc.option(
        fc.record({
          lineId: fc.constantFrom("line-1", "line-2"),
          unitsPerMonth: fc.option(fc.integer({ min: 1, max: 60 })),
        }),
        { nil: undefined },
      ),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("settle" as const), which: fc.nat(), share: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("release" as const), which: fc.nat() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.oneof(
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 2 * MINUTE_MS }),
        fc.integer({ min: 0, max: 2 * HOUR_MS }),
        fc.constantFrom(MINUTE_MS - 1, MINUTE_MS, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1),
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("limits" as const), limits: limitsArbitrary }) },
);

test("admits exactly what the model admits, for any mix of weights, outcomes, waits and changes of limits", () => {
  fc.assert(
    fc.property(limitsArbitrary, fc.array(stepArbitrary, { minLength: 20, maxLength: 150 }), (firstLimits, steps) => {
      const admission = new Admission();
      const model = new Model();
      const tickets: { ticket: Ticket; index: number }[] = [];
      let limits: AdmissionLimits = firstLimits;
      let nowMs = START_MS;
      for (const step of steps) {
        if (step.do === "wait") nowMs += step.ms;
        else if (step.do === "limits") limits = step.limits;
        else if (step.do === "call") {
          const { cost, tool, key } = step;
          const ownLimit: number | undefined = limits.unitsPerHourByTool[tool];
          if (ownLimit !== undefined) admission.watch(tool, () => model.charged(tool), nowMs);
          const expected = model.admits(cost, limits, nowMs, tool, key);
          const decision = admission.decide(cost, limits, nowMs, tool, { key });
          expect(decision.admitted).toBe(expected);
          if (decision.admitted) {
            tickets.push({ ticket: decision.ticket, index: model.calls.length });
            model.calls.push({ atMs: nowMs, units: cost, running: true, tool, line: key?.lineId });
          } else if (decision.retryAfterMs === undefined) {
            const smallest = Math.min(
              limits.unitsPerHour ?? Infinity,
              limits.unitsPerMonth ?? Infinity,
              ownLimit ?? Infinity,
              key?.unitsPerMonth ?? Infinity,
            );
            expect(cost).toBeGreaterThan(smallest);
          } else if (model.inFlight() < limits.callsInFlight) {
            // Exact: admitted at the announced instant, and not a millisecond before.
            expect(model.admits(cost, limits, nowMs + decision.retryAfterMs, tool, key)).toBe(true);
            expect(model.admits(cost, limits, nowMs + decision.retryAfterMs - 1, tool, key)).toBe(false);
          }
        } else if (tickets.length > 0) {
          // Any ticket, also one that was given back before: the second time must do nothing.
          const chosen = tickets[step.which % tickets.length];
          const call = chosen && model.calls[chosen.index];
          if (chosen === undefined || call === undefined) throw new Error("no such call");
          // The tool decides the price, up to what the ticket holds.
          const units = step.do === "release" ? 0 : Math.round((chosen.ticket.units * step.share) / 20);
          if (step.do === "release") admission.release(chosen.ticket);
          else admission.settle(chosen.ticket, units);
          if (call.running) call.units = units;
          call.running = false;
        }
        const quota = admission.quota(limits, nowMs);
        expect(quota.hour.used).toBe(model.hourUsed(nowMs));
        expect(quota.month.used).toBe(model.monthUsed(nowMs));
        expect(admission.inFlight).toBe(model.inFlight());
        const byLine = new Map(admission.usedByLine(nowMs).map(({ lineId, units }) => [lineId, units]));
        for (const line of ["line-1", "line-2"]) expect(byLine.get(line) ?? 0).toBe(model.lineUsed(nowMs, line));
      }
      // No position of the window exceeds the highest limit that was set.
      const highest = Math.max(
        ...[{ do: "limits" as const, limits: firstLimits }, ...steps].map((each) =>
          each.do === "limits" ? each.limits.unitsPerHour : 0,
        ),
      );
      for (const { atMs: endMs } of model.calls) {
        const inside = model.calls.filter(({ atMs }) => atMs <= endMs && endMs - atMs < HOUR_MS);
        expect(inside.reduce((sum, { units }) => sum + units, 0)).toBeLessThanOrEqual(highest);
      }
    }),
    { numRuns: 200, interruptAfterTimeLimit: TIME_LIMIT_MS },
  );
});

test("admission restored from its rows decides as if it had never stopped", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ gapMs: fc.nat(400_000), units: fc.integer({ min: 1, max: 20 }) }), { maxLength: 60 }),
      fc.integer({ min: 0, max: 20 }),
      fc.nat(),
      (calls, cost, shuffle) => {
        // Every window has a limit: one without counts by whole seconds.
        const limits = someLimits({ callsPerMinute: 1_000, unitsPerHour: 150, unitsPerMonth: 500 });
        const before = new Admission();
        const rows: { atMs: number; units: number }[] = [];
        let nowMs = START_MS;
        for (const { gapMs, units } of calls) {
          nowMs += gapMs;
          const decision = before.decide(units, limits, nowMs);
          if (!decision.admitted) continue;
          before.settle(decision.ticket);
          rows.push({ atMs: decision.ticket.atMs, units });
        }
        const after = new Admission();
        const turned = [...rows.slice(shuffle % (rows.length + 1)), ...rows.slice(0, shuffle % (rows.length + 1))];
        after.restore(turned, before.quota(limits, nowMs).month.used, nowMs);
        const [known, restored] = [before, after].map((admission) => admission.quota(limits, nowMs));
        expect(restored).toEqual(known);
        const decisions = [before, after].map((admission) => admission.decide(cost, limits, nowMs));
        expect(decisions[1]).toEqual(decisions[0]);
      },
    ),
  );
});

test("a hundred units are admitted; the next call learns when to retry and is admitted then", () => {
  const limits = someLimits({ unitsPerHour: 100 });
  const admission = new Admission();
  for (let call = 0; call < 5; call++) admission.settle(admitted(admission, 20, limits, START_MS + call * 1_000));
  const nowMs = START_MS + 10_000;
  expect(admission.decide(1, limits, nowMs)).toEqual({
    admitted: false,
    code: "window_exhausted",
    measure: "hour",
    limit: 100,
    used: 100,
    cost: 1,
    retryAfterMs: HOUR_MS - 10_000,
  });
  expect(admission.decide(21, limits, nowMs)).toMatchObject({ retryAfterMs: HOUR_MS - 9_000 });
  expect(admission.decide(21, limits, START_MS + HOUR_MS + 999).admitted).toBe(false);
  expect(admission.decide(21, limits, START_MS + HOUR_MS + 1_000).admitted).toBe(true);
});

test("a running call holds its units, and a failed call releases them", () => {
  const limits = someLimits({ unitsPerHour: 20, unitsPerMonth: 20 });
  const admission = new Admission();
  const ticket = admitted(admission, 20, limits, START_MS);
  expect(admission.decide(1, limits, START_MS).admitted).toBe(false);
  admission.release(ticket);
  expect(admission.decide(20, limits, START_MS).admitted).toBe(true);
});

test("a failed call still counts among the calls of the minute", () => {
  const limits = someLimits({ callsPerMinute: 2 });
  const admission = new Admission();
  admission.release(admitted(admission, 1, limits, START_MS));
  admission.release(admitted(admission, 0, limits, START_MS + 10));
  expect(admission.decide(0, limits, START_MS + 20)).toEqual({
    admitted: false,
    code: "rate_limited",
    measure: "minute",
    limit: 2,
    used: 2,
    cost: 1,
    retryAfterMs: MINUTE_MS - 20,
  });
});

test("every message counts among the requests of the minute, and no call is admitted beyond them", () => {
  const limits = someLimits({ callsPerMinute: 3 });
  const admission = new Admission();
  expect(admission.request(limits, START_MS)).toBeUndefined();
  admission.settle(admitted(admission, 0, limits, START_MS + 10));
  expect(admission.request(limits, START_MS + 20)).toBeUndefined();
  expect(admission.quota(limits, START_MS + 30).minute).toEqual({ limit: 3, used: 3, resetSeconds: 60 });
  const refused = { admitted: false, code: "rate_limited", measure: "minute", limit: 3, used: 3, cost: 1 };
  expect(admission.request(limits, START_MS + 30)).toEqual({ ...refused, retryAfterMs: MINUTE_MS - 30 });
  expect(admission.decide(0, limits, START_MS + 30)).toEqual({ ...refused, retryAfterMs: MINUTE_MS - 30 });
  expect(admission.request(limits, START_MS + MINUTE_MS)).toBeUndefined();
  // A tenant without the limit is never refused, and a limit that is set later counts what was sent before.
  const free = new Admission();
  for (let sent = 0; sent < 500; sent++) expect(free.request(someLimits(), START_MS)).toBeUndefined();
  expect(free.request(limits, START_MS)).toMatchObject({ used: 500 });
});

test("a free call is not subject to unit limits and counts among the calls in flight", () => {
  const limits = someLimits({ unitsPerHour: 1, unitsPerMonth: 1, callsInFlight: 2 });
  const admission = new Admission();
  admission.settle(admitted(admission, 1, limits, START_MS));
  admitted(admission, 0, limits, START_MS);
  admitted(admission, 0, limits, START_MS);
  expect(admission.decide(0, limits, START_MS)).toMatchObject({ code: "too_many_in_flight", limit: 2, used: 2 });
});

test("a call that several limits refuse gets the refusal that lasts longest", () => {
  const limits = someLimits({ unitsPerHour: 10, unitsPerMonth: 10, callsPerMinute: 1 });
  const admission = new Admission();
  admission.settle(admitted(admission, 10, limits, START_MS));
  expect(admission.decide(1, limits, START_MS)).toMatchObject({ code: "period_exhausted", retryAfterMs: 4 * HOUR_MS });
  expect(admission.decide(0, limits, START_MS)).toMatchObject({ code: "rate_limited", retryAfterMs: MINUTE_MS });
});

test.each([
  { limits: someLimits({ unitsPerHour: 19, callsPerMinute: 1 }), limit: 19, measure: "hour" },
  { limits: someLimits({ unitsPerMonth: 10 }), limit: 10, measure: "month" },
])("a cost over the whole limit is refused without a time to retry: $limits", ({ limits, limit, measure }) => {
  const admission = new Admission();
  admission.settle(admitted(admission, 1, limits, START_MS));
  expect(admission.decide(20, limits, START_MS)).toEqual({
    admitted: false,
    code: "cost_over_limit",
    measure,
    limit,
    used: 1,
    cost: 20,
    retryAfterMs: undefined,
  });
});

test("a call counts in the month of its admission, whenever it ends", () => {
  const limits = someLimits({ unitsPerMonth: 30 });
  const admission = new Admission();
  const monthEndsAtMs = periodOf(START_MS).endsAtMs;
  const last = admitted(admission, 20, limits, monthEndsAtMs - 1);
  expect(last.period).toBe("2026-11");
  expect(admission.quota(limits, monthEndsAtMs - 1).month).toEqual({ limit: 30, used: 20, resetSeconds: 1 });
  const first = admitted(admission, 10, limits, monthEndsAtMs);
  expect(first.period).toBe("2026-12");
  expect(admission.quota(limits, monthEndsAtMs).month.used).toBe(10);
  admission.release(last);
  expect(admission.quota(limits, monthEndsAtMs).month.used).toBe(10);
  admission.release(first);
  expect(admission.quota(limits, monthEndsAtMs).month).toEqual({ limit: 30, used: 0, resetSeconds: 31 * 86_400 });
});

test("a clock that moves backwards does not empty a window", () => {
  const limits = someLimits({ unitsPerHour: 10 });
  const admission = new Admission();
  admission.settle(admitted(admission, 10, limits, START_MS));
  const later = admitted(admission, 10, limits, START_MS + HOUR_MS);
  expect(admission.decide(1, limits, START_MS + HOUR_MS - 5_000)).toMatchObject({ retryAfterMs: HOUR_MS + 5_000 });
  admission.release(later);
  const ticket = admitted(admission, 1, limits, START_MS + HOUR_MS - 5_000);
  expect(ticket.atMs).toBe(START_MS + HOUR_MS);
});

test("admission without limits admits every call, keeps exact sums, and enforces a limit that is set later", () => {
  const admission = new Admission();
  const unlimited = someLimits();
  for (let call = 0; call < 200; call++) admission.settle(admitted(admission, 1, unlimited, START_MS + call * 7));
  expect(admission.quota(unlimited, START_MS + 1_400).hour).toMatchObject({ limit: null, used: 200 });
  const limits = someLimits({ unitsPerHour: 201 });
  admission.settle(admitted(admission, 1, limits, START_MS + 1_400));
  expect(admission.decide(1, limits, START_MS + HOUR_MS - 1).admitted).toBe(false);
  expect(admission.decide(143, limits, START_MS + HOUR_MS + 1_000).admitted).toBe(true);
});

test("a call from before a limit was set counts for its whole hour", () => {
  const admission = new Admission();
  admission.settle(admitted(admission, 1, someLimits(), START_MS + 500));
  const limits = someLimits({ unitsPerHour: 1 });
  expect(admission.decide(1, limits, START_MS + HOUR_MS + 499).admitted).toBe(false);
  expect(admission.decide(1, limits, START_MS + HOUR_MS + 1_000).admitted).toBe(true);
});

test("a full window of 10,000 entries stays under 256 KiB while it slides and calls fail", () => {
  const limits = someLimits({ unitsPerHour: 10_000, callsPerMinute: 600 });
  const admission = new Admission();
  let nowMs = START_MS;
  let mostBytes = 0;
  for (let call = 0; call < 40_000; call++) {
    nowMs += 101 + (call % 3 === 0 ? 0 : 180);
    const decision = admission.decide(1, limits, nowMs);
    if (decision.admitted) admission[call % 3 === 0 ? "release" : "settle"](decision.ticket);
    mostBytes = Math.max(mostBytes, admission.byteLength);
  }
  expect(admission.quota(limits, nowMs).hour.used).toBeGreaterThan(9_900);
  // Packing into new arrays holds the old ones for a moment: one and a half times as much.
  expect(mostBytes * 1.5).toBeLessThan(200 * 1024);
});

test("a tenant without limits uses little memory", () => {
  const admission = new Admission();
  const limits = someLimits();
  for (let call = 0; call < 200_000; call++) admission.settle(admitted(admission, 3, limits, START_MS + call * 40));
  expect(admission.byteLength).toBeLessThan(64 * 1024);
});

const NOON_MS = Date.UTC(2026, 10, 21, 12);

test("fallback calls that are counted late count as if they had been known from the start", () => {
  const aCall = fc.record({
    atMs: fc.integer({ min: NOON_MS - 3 * HOUR_MS, max: NOON_MS }),
    units: fc.integer({ min: 1, max: 20 }),
    tool: fc.constantFrom("a", "b"),
  });
  fc.assert(
    fc.property(fc.array(aCall), fc.array(aCall), (own, later) => {
      const monthOf = (calls: readonly { units: number }[]): number => calls.reduce((sum, { units }) => sum + units, 0);
      const ofTool = (calls: typeof own) => () => calls.filter(({ tool }) => tool === "a");
      const sold = {
        ...planOf("starter").limits,
        unitsPerHour: 200,
        unitsPerHourByTool: { a: 50 },
        callsPerMinute: 1_000,
      };

      const late = new Admission();
      late.restore(own, monthOf(own), NOON_MS);
      late.watch("a", ofTool(own), NOON_MS);
      late.include(later, NOON_MS);
      const early = new Admission();
      early.restore([...own, ...later], monthOf([...own, ...later]), NOON_MS);
      early.watch("a", ofTool([...own, ...later]), NOON_MS);

      expect(late.quota(sold, NOON_MS)).toEqual(early.quota(sold, NOON_MS));
      for (const tool of ["a", "b"])
        expect(late.decide(20, sold, NOON_MS, tool)).toEqual(early.decide(20, sold, NOON_MS, tool));
    }),
  );
});

test("a fallback call of a past month no longer counts", () => {
  const { limits } = planOf("starter");
  const admission = new Admission();
  const startMs = Date.UTC(2026, 10, 1);
  admission.restore([], 0, startMs + 2 * HOUR_MS);
  admission.include([{ atMs: startMs - 1, units: 5, tool: "a" }], startMs + 2 * HOUR_MS);
  expect(periodOf(startMs - 1).period).toBe("2026-10");
  expect(admission.quota(limits, startMs + 2 * HOUR_MS)).toMatchObject({ hour: { used: 0 }, month: { used: 0 } });
});
