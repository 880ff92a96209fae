// An invoice adds up to the same number from calls, from pages of calls and from reports. Where numbers differ, the
// comparison names the day, the report and the minute.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  type CallSum,
  type FrozenReport,
  addUp,
  addUpBy,
  compareUsage,
  dayOf,
  daysFrom,
  daysOf,
  firstDifference,
  monthOf,
} from "../../src/metering/invoice.ts";
import { DAY_MS } from "../../src/core/time.ts";
import { planOf } from "../../src/core/plans/plans.ts";
import { inDollars, isRounded, usagePrice } from "../../src/core/plans/money.ts";

const november = monthOf("2026-11");
const dayCount = daysOf(november).length;

/** A call, and the report of its day that contains it. */
const aCall = fc.record({
  day: fc.nat(dayCount - 1),
  tool: fc.constantFrom("search_products", "generate_report", "write_document"),
  units: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  reportOfDay: fc.nat(3),
  page: fc.nat(5),
});
const someCalls = fc.array(aCall, { minLength: 1, maxLength: 60 });
type ACall = typeof aCall extends fc.Arbitrary<infer Call> ? Call : never;

const asUsage = ({ units }: { units: number }) => ({ units, calls: 1 });
const startOf = (day: number): number => november.startMs + day * DAY_MS;

/** The last report of a day is a carry-forward, which the meter does not count. */
const isMetered = (nth: number): boolean => nth !== 3;

/** The ledger's sums, the reports and Stripe's daily counts of these calls. */
function billed(calls: readonly ACall[]) {
  const groups = [...Map.groupBy(calls, ({ day, reportOfDay }) => `${day} ${reportOfDay}`)].map(([key, group]) => {
    const [day = 0, nth = 0] = key.split(" ").map(Number);
    // One hour apart, never at the start of an hour.
    const slotSeconds = startOf(day) / 1000 + nth * 3600 + (nth + 1) * 60;
    const id = `${isMetered(nth) ? "u1" : "c1"}.acme.${slotSeconds / 60}`;
    return { day, slotSeconds, metered: isMetered(nth), id, ...addUp(group.map(asUsage)) };
  });
  const ledger: CallSum[] = groups.map(({ day, id, units, calls: count }) => ({
    ...{ day: dayOf(startOf(day)), reportId: id, units, calls: count },
  }));
  const reports: FrozenReport[] = groups.map(({ id, slotSeconds, metered, units, calls: count }) => ({
    ...{ id, slotSeconds, metered, confirmed: true, units, calls: count },
  }));
  const counted = groups.filter(({ metered }) => metered);
  const stripe = [...Map.groupBy(counted, ({ day }) => day)].map(([day, group]) => ({
    startSeconds: startOf(day) / 1000,
    units: addUp(group).units,
  }));
  return { ledger, reports, stripe };
}

test("the sum is the same by call, by page, by day, by tool, by report and at Stripe", () => {
  fc.assert(
    fc.property(someCalls, (calls) => {
      const total = addUp(calls.map(asUsage));
      const pages = [...Map.groupBy(calls, ({ page }) => page).values()].map((page) => addUp(page.map(asUsage)));
      expect(addUp(pages)).toEqual(total);
      const parts = calls.map((call) => ({ ...call, ...asUsage(call) }));
      for (const keyOf of [({ day }: ACall) => String(day), ({ tool }: ACall) => tool]) {
        const sums = addUpBy(parts, keyOf);
        expect(addUp(sums.values())).toEqual(total);
        expect([...sums.keys()]).toEqual([...new Set(calls.map(keyOf))].toSorted());
      }
      const { ledger, reports, stripe } = billed(calls);
      expect(addUp(reports)).toEqual(total);
      const { days, discrepancies } = compareUsage(ledger, reports, stripe);
      expect(discrepancies).toEqual([]);
      const sumOf = (units: "ledgerUnits" | "reportUnits" | "carriedUnits" | "stripeUnits") =>
        days.reduce((sum, day) => sum + day[units], 0);
      expect(sumOf("ledgerUnits")).toBe(total.units);
      expect(sumOf("stripeUnits") + sumOf("carriedUnits")).toBe(total.units);
      expect(sumOf("reportUnits")).toBe(sumOf("stripeUnits"));
      expect(firstDifference(reports, stripe, 86_400)).toBeUndefined();
    }),
  );
});

test("the comparison finds any extra or missing unit at Stripe, with its day and minute", () => {
  fc.assert(
    fc.property(
      someCalls,
      fc.nat(1439 + (dayCount - 1) * 1440),
      fc.integer({ min: -5, max: 5 }),
      (calls, at, units) => {
        fc.pre(units !== 0);
        const { ledger, reports, stripe } = billed(calls);
        const startSeconds = november.startMs / 1000 + at * 60;
        const day = dayOf(startSeconds * 1000);
        const { discrepancies } = compareUsage(ledger, reports, [...stripe, { startSeconds, units }]);
        const before = billed(calls.filter((call) => dayOf(startOf(call.day)) === day)).stripe[0]?.units ?? 0;
        expect(discrepancies).toEqual([{ kind: "stripe", day, reportUnits: before, stripeUnits: before + units }]);
        const minutes = reports
          .filter(({ metered }) => metered)
          .map(({ slotSeconds, units: own }) => ({ startSeconds: slotSeconds, units: own }));
        expect(firstDifference(reports, [...minutes, { startSeconds, units }], 60)?.startSeconds).toBe(startSeconds);
        const hour = firstDifference(reports, [...minutes, { startSeconds, units }], 3600);
        expect(hour?.startSeconds).toBe(startSeconds - (startSeconds % 3600));
      },
    ),
  );
});

test("the comparison names a call that is missing, doubled, in no report or in another day's report", () => {
  fc.assert(
    fc.property(someCalls, fc.nat(), (calls, pick) => {
      const { ledger, reports, stripe } = billed(calls);
      const chosen = ledger[pick % ledger.length];
      if (chosen?.reportId === undefined || chosen.reportId === null) throw new Error("every call has a report here");
      const others = ledger.filter((each) => each !== chosen);
      const { day, reportId, units, calls: count } = chosen;
      const frozen = { units, calls: count };
      const nothing = { units: 0, calls: 0 };
      const named = (sums: CallSum[]) => compareUsage(sums, reports, stripe).discrepancies;
      expect(named(others)).toEqual([{ kind: "calls", day, reportId, report: frozen, calls: nothing }]);
      expect(named([...ledger, { day, reportId, units: 7, calls: 1 }])).toEqual([
        { kind: "calls", day, reportId, report: frozen, calls: { units: units + 7, calls: count + 1 } },
      ]);
      expect(named([...others, { ...chosen, reportId: null }])).toEqual([
        { kind: "calls", day, reportId, report: frozen, calls: nothing },
        { kind: "unreported", day, calls: frozen },
      ]);
      // The same units, two calls instead of one.
      expect(named([...others, { ...chosen, calls: count + 1 }])).toHaveLength(1);
      expect(named([...ledger, { day: "2026-10-31", reportId, units: 7, calls: 1 }])).toEqual([
        { kind: "calls", day: "2026-10-31", reportId, report: null, calls: { units: 7, calls: 1 } },
      ]);
    }),
  );
});

test("included usage is free, and every further unit costs the exact unit price", () => {
  const decimals = fc.tuple(fc.nat(999), fc.nat({ max: 999_999_999_999 }), fc.integer({ min: 1, max: 12 }));
  fc.assert(
    fc.property(fc.nat(2 ** 40), fc.nat(1_000_000), decimals, (units, includedUnits, [whole, part, places]) => {
      const fraction = String(part).padStart(places, "0").slice(0, places);
      const { digits, scale } = usagePrice(units, { includedUnits, unitAmountCents: `${whole}.${fraction}` });
      expect(scale).toBe(places);
      const each = BigInt(whole) * 10n ** BigInt(places) + BigInt(fraction);
      expect(digits).toBe(units > includedUnits ? BigInt(units - includedUnits) * each : 0n);
    }),
  );
});

test.each([
  { units: 50_000, plan: "pro", dollars: "0.00" },
  { units: 50_001, plan: "pro", dollars: "0.001" },
  { units: 50_010, plan: "pro", dollars: "0.01" },
  { units: 1_050_000, plan: "pro", dollars: "1000.00" },
  { units: 9_007_199_254_740_991, plan: "pro", dollars: "9007199254690.991" },
  { units: 60_000, plan: "starter", dollars: "0.00" },
] as const)("$units units of a month on the plan $plan cost $dollars USD", ({ units, plan, dollars }) => {
  expect(inDollars(usagePrice(units, planOf(plan)))).toBe(dollars);
});

test("an invoice in whole cents matches the exact price within half a cent", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(10n ** 12n), max: 10n ** 12n }), fc.integer({ min: 0, max: 6 }), (digits, scale) => {
      const unit = 10n ** BigInt(scale);
      const near = Number(digits / unit);
      const right = [near - 1, near, near + 1].filter((cents) => isRounded(cents, { digits, scale }));
      // Slow reference: the smallest distance. Both neighbours of a half are right, otherwise one is.
      const offBy = (cents: number): bigint => {
        const off = BigInt(cents) * unit - digits;
        return off < 0n ? -off : off;
      };
      const least = [near - 1, near, near + 1].map(offBy).reduce((a, b) => (a < b ? a : b));
      expect(right).toEqual([near - 1, near, near + 1].filter((cents) => offBy(cents) === least));
    }),
  );
});

test.each([
  ["a month ends before the next one, leap years included", monthOf("2028-02"), "2028-02-01", "2028-02-29", 29],
  ["December ends in the next year", monthOf("2026-12"), "2026-12-01", "2026-12-31", 31],
  ["days include both ends", daysFrom("2026-11-21", "2026-11-21"), "2026-11-21", "2026-11-21", 1],
])("%s", (_, period, first, last, count) => {
  const days = daysOf(period);
  expect(days).toHaveLength(count);
  expect(dayOf(period.startMs)).toBe(first);
  expect(dayOf(period.endMs - 1)).toBe(last);
  expect(days.map(({ startMs, endMs }) => endMs - startMs)).toEqual(Array.from({ length: count }, () => DAY_MS));
});
