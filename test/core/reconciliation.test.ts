// The search for the minutes in which Stripe and the reports differ, with few reads.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { SummaryRequest } from "../../src/adapters/stripe/meter.ts";
import {
  DAY_S,
  type Drift,
  type MinuteReport,
  classifyMinute,
  findDrifts,
  invoiceDrifts,
  reconciliationDay,
} from "../../src/reports/reconciliation.ts";

const START = 20_000 * DAY_S;
const DAYS = { startSeconds: START, endSeconds: START + 3 * DAY_S };

function aReport(minute: number, overrides: Partial<MinuteReport> = {}): MinuteReport {
  return { id: `u1.acme.${minute}`, startSeconds: START + minute * 60, units: 10, state: "there", ...overrides };
}

/** A model of Stripe's summaries over its units by minute. */
function stripeOf(minutes: ReadonlyMap<number, number>) {
  return ({ startSeconds, endSeconds, by }: SummaryRequest): Map<number, number> => {
    const width = by === "whole" ? endSeconds - startSeconds : by === "hour" ? 3_600 : DAY_S;
    expect([startSeconds % (by === "whole" ? 60 : width), (endSeconds - startSeconds) % width]).toEqual([0, 0]);
    expect((endSeconds - startSeconds) / width).toBeLessThanOrEqual(100);
    const units = new Map<number, number>();
    for (const [minute, value] of minutes) {
      const at = START + minute * 60;
      if (at < startSeconds || at >= endSeconds) continue;
      const slot = startSeconds + Math.floor((at - startSeconds) / width) * width;
      units.set(slot, (units.get(slot) ?? 0) + value);
    }
    return units;
  };
}

function compare(
  reports: readonly MinuteReport[],
  minutes: ReadonlyMap<number, number>,
  mostReads = 10_000,
): { drifts: Drift[]; reads: number } {
  const read = stripeOf(minutes);
  const finding = findDrifts(reports, DAYS, mostReads);
  let reads = 0;
  let step = finding.next();
  while (step.done !== true) {
    reads += 1;
    step = finding.next(read(step.value));
  }
  return { drifts: step.value, reads };
}

const minute = fc.nat(3 * 1_440 - 1);
const someReports = fc
  .uniqueArray(minute, { maxLength: 200 })
  .chain((minutes) =>
    fc.tuple(...minutes.map((each) => fc.integer({ min: 1, max: 99 }).map((units) => aReport(each, { units })))),
  );

test("a comparison without differences takes one read", () => {
  fc.assert(
    fc.property(someReports, (reports) => {
      const minutes = new Map(reports.map(({ startSeconds, units }) => [(startSeconds - START) / 60, units]));
      expect(compare(reports, minutes)).toEqual({ drifts: [], reads: 1 });
    }),
  );
});

test("the comparison explains each day that differs by exactly the minutes that differ", () => {
  const changes = fc.uniqueArray(fc.tuple(minute, fc.integer({ min: 1, max: 50 })), {
    selector: ([at]) => at,
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(someReports, changes, (reports, changed) => {
      const minutes = new Map(reports.map(({ startSeconds, units }) => [(startSeconds - START) / 60, units]));
      for (const [at, units] of changed) minutes.set(at, (minutes.get(at) ?? 0) + units); // Stripe always has more, so that differences never cancel out
      const { drifts, reads } = compare(reports, minutes);
      expect(
        drifts.map(({ startSeconds, stripeUnits, reportedUnits }) => [startSeconds, stripeUnits - reportedUnits]),
      ).toEqual(changed.toSorted(([a], [b]) => a - b).map(([at, units]) => [START + at * 60, units]));
      for (const drift of drifts) {
        const report = reports.find(({ startSeconds }) => startSeconds === drift.startSeconds);
        expect(drift).toMatchObject({ kind: report === undefined ? "unknown" : "more", reportId: report?.id ?? null });
      }
      expect(reads).toBeLessThanOrEqual(1 + 7 * changed.length);
    }),
  );
});

test("the comparison reports differences beyond its read limit as unexplored", () => {
  const reports = Array.from({ length: 1_440 }, (_, n) => aReport(n));
  const { drifts, reads } = compare(reports, new Map(), 10);
  expect(reads).toBe(10);
  expect(drifts.some(({ kind }) => kind === "unexplored")).toBe(true);
  expect(drifts.reduce((sum, { reportedUnits }) => sum + reportedUnits, 0)).toBe(14_400);
});

test("an open report is never a difference, and a report that was billed elsewhere is one when Stripe has it", () => {
  const reports = [aReport(5), aReport(6, { state: "open", units: 7 }), aReport(9, { state: "open", units: 3 })];
  for (const open of [[], [6], [9], [6, 9]]) {
    const minutes = new Map([[5, 10], ...open.map((at): [number, number] => [at, at === 6 ? 7 : 3])]);
    expect(compare(reports, minutes).drifts).toEqual([]);
  }
  const elsewhere = [aReport(5), aReport(6, { state: "elsewhere" })];
  expect(compare(elsewhere, new Map([[5, 10]])).drifts).toEqual([]);
  expect(compare(elsewhere, new Map([[5, 10], [6, 10]])).drifts).toMatchObject([{ kind: "more", reportedUnits: 0 }]); // prettier-ignore
});

test.each([
  [undefined, 0, undefined],
  [undefined, 3, "unknown"],
  [aReport(1), 10, undefined],
  [aReport(1), 0, "missing"],
  [aReport(1), 9, "less"],
  [aReport(1), 20, "more"],
  [aReport(1, { state: "open" }), 4, undefined],
  [aReport(1, { state: "elsewhere" }), 0, undefined],
  [aReport(1, { state: "elsewhere" }), 10, "more"],
])("with report %o, %d units at Stripe are classified as %s", (report, units, kind) => {
  expect(classifyMinute(report, units)).toBe(kind);
});

test("a day's comparison is due from two o'clock UTC on", () => {
  expect(reconciliationDay(Date.parse("2026-11-21T01:59:59Z"))).toBeUndefined();
  expect(reconciliationDay(Date.parse("2026-11-21T02:00:00Z"))).toBe("2026-11-21");
  expect(reconciliationDay(Date.parse("2026-11-21T23:59:59Z"))).toBe("2026-11-21");
});

test("invoices are compared with the calls of each closed period, so that usage in two periods or in none is seen", () => {
  const [first, second] = [START, START + 35];
  const earned = (startSeconds: number, units: number, closed = true, plan = "pro") => ({
    ...{ subscriptionId: `sub_${startSeconds}`, startSeconds, plan, units, closed },
  });
  const invoiced = (startSeconds: number, units: number, plan = "pro") => ({
    ...{ subscriptionId: `sub_${startSeconds}`, startSeconds, plan, units },
  });
  const calls = [earned(first, 2_000), earned(second, 10)];
  expect(invoiceDrifts(calls, [invoiced(first, 2_000), invoiced(second, 10)])).toEqual([]);
  // Both periods count the same report.
  expect(invoiceDrifts(calls, [invoiced(first, 2_000), invoiced(second, 2_010)])).toMatchObject([
    { startSeconds: second, earnedUnits: 10, invoicedUnits: 2_010 },
  ]);
  // No invoice counts it. Of a running period that is no difference.
  expect(invoiceDrifts(calls, [invoiced(second, 10)])).toMatchObject([{ earnedUnits: 2_000, invoicedUnits: 0 }]);
  expect(invoiceDrifts([earned(first, 2_000, false)], [])).toEqual([]);
  // A plan change invoices the usage so far on a line of its own, and usage under a plan without a unit price on none.
  expect(
    invoiceDrifts([earned(first, 5), earned(first, 7, true, "starter")], [invoiced(first, 3), invoiced(first, 2)]),
  ).toEqual([]);
});
