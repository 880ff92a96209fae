// The price of late usage: exactly what it would have cost in its period.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type LateCharge, lateCharge, nextItemKey } from "../../src/reports/carry-forward.ts";
import type { ItemKey } from "../../src/reports/carry-forwards-store.ts";
import { costOf, inCents } from "../../src/core/plans/money.ts";

const amountOf = ({ units, unitAmountCents }: LateCharge): string => inCents(costOf(units, unitAmountCents));

const HOUR_MS = 3_600_000;

const price = fc
  .tuple(fc.nat(9_999), fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 12 }))
  .map(([whole, places]) => (places.length === 0 ? String(whole) : `${whole}.${places.join("")}`));

/** The cost in trillionths of a cent, added unit by unit, so that nothing can round. */
function referenceCost(includedUnits: number, unitAmountCents: string, units: number): bigint {
  const [whole = "0", fraction = ""] = unitAmountCents.split(".");
  const each = BigInt(whole + fraction.padEnd(12, "0"));
  let cost = 0n;
  for (let unit = 1; unit <= units; unit += 1) if (unit > includedUnits) cost += each;
  return cost;
}

function scaled(cents: string): bigint {
  const [whole = "0", fraction = ""] = cents.split(".");
  return BigInt(whole + fraction.padEnd(12, "0"));
}

test("late units cost exactly the difference that they make to their period's price", () => {
  const few = fc.nat(300);
  fc.assert(
    fc.property(few, price, few, few, (includedUnits, unitAmountCents, before, units) => {
      const charge = lateCharge({ includedUnits, unitAmountCents }, before, units);
      const difference =
        referenceCost(includedUnits, unitAmountCents, before + units) -
        referenceCost(includedUnits, unitAmountCents, before);
      expect(scaled(amountOf(charge))).toBe(difference);
      expect(charge.units).toBeLessThanOrEqual(units);
    }),
  );
});

test("late units cost the same in total, however they are split", () => {
  const many = fc.integer({ min: 1, max: 2_000_000_000 });
  fc.assert(
    fc.property(many, price, many, fc.array(many, { minLength: 1, maxLength: 6 }), (included, cents, before, parts) => {
      const tariff = { includedUnits: included, unitAmountCents: cents };
      let sum = 0n;
      let had = before;
      for (const units of parts) {
        sum += scaled(amountOf(lateCharge(tariff, had, units)));
        had += units;
      }
      expect(sum).toBe(scaled(amountOf(lateCharge(tariff, before, had - before))));
    }),
  );
});

test.each([
  [{ includedUnits: 50_000, unitAmountCents: null }, 49_999, 1_000, 0],
  [{ includedUnits: 0, unitAmountCents: "0" }, 0, 1_000, 0],
  [{ includedUnits: 0, unitAmountCents: "0.00" }, 0, 1_000, 0],
  [{ includedUnits: 50_000, unitAmountCents: "0.1" }, 40_000, 10_000, 0],
  [{ includedUnits: 50_000, unitAmountCents: "0.1" }, 49_990, 100, 90],
  [{ includedUnits: 50_000, unitAmountCents: "0.1" }, 70_000, 100, 100],
])("under %o and after %d units, of %d late units %d are billed", (tariff, before, units, billed) => {
  expect(lateCharge(tariff, before, units).units).toBe(billed);
});

test.each([
  [90, "0.1", "9"],
  [7, "0.1", "0.7"],
  [3, "1.5", "4.5"],
  [1, "0.000000000001", "0.000000000001"],
  [0, "0.1", "0"],
  [12, "30", "360"],
])("%d units at %s cents each cost %s cents", (units, unitAmountCents, cents) => {
  expect(inCents(costOf(units, unitAmountCents))).toBe(cents);
});

test.each(["", "-1", "1e3", "0.0000000000001", ".5", "one"])("%o is refused as a price", (unitAmountCents) => {
  expect(() => costOf(1, unitAmountCents)).toThrow(RangeError);
});

test("an idempotency key is reused for an hour, and a new key is used only after a search for the old key's item", () => {
  const first = nextItemKey({ number: 0, sinceMs: null }, 0);
  expect(first).toEqual({ key: { number: 1, sinceMs: 0 }, lookFirst: false });
  expect(nextItemKey(first.key, HOUR_MS - 1)).toEqual(first);
  const second = nextItemKey(first.key, HOUR_MS);
  expect(second).toEqual({ key: { number: 2, sinceMs: HOUR_MS }, lookFirst: true });
  expect(nextItemKey(second.key, HOUR_MS + 1)).toEqual(second);
});

test("only the first idempotency key is used without a search, for any clock", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -50 * HOUR_MS, max: 50 * HOUR_MS })), (jumps) => {
      let key: ItemKey = { number: 0, sinceMs: null };
      let nowMs = 1_800_000_000_000;
      for (const jump of jumps) {
        nowMs += jump;
        const next = nextItemKey(key, nowMs);
        expect(next.lookFirst).toBe(next.key.number > 1);
        expect(next.key.number - key.number).toBeGreaterThanOrEqual(0);
        ({ key } = next);
      }
    }),
  );
});
