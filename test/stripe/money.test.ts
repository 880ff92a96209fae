// Prices of quantities: tiers and rounding, against slow and simple arithmetic.
import fc from "fast-check";
import { expect, test } from "vitest";
import { chargesFor, share, times } from "../../dev/stripe/money.ts";
import type { Tier } from "../../dev/stripe/objects.ts";

const decimals = fc
  .tuple(fc.nat(500), fc.nat(12))
  .chain(([whole, places]) =>
    places === 0
      ? fc.constant(String(whole))
      : fc.nat({ max: 10 ** Math.min(places, 9) - 1 }).map((part) => `${whole}.${String(part).padStart(places, "0")}`),
  );
const tiers = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 40 }), decimals, fc.option(decimals)), { minLength: 1, maxLength: 5 })
  .map((given) => {
    let bound = 0;
    return given.map(([width, unit, flat], index): Tier => {
      bound += width;
      return {
        flat_amount: null,
        flat_amount_decimal: flat,
        unit_amount: null,
        unit_amount_decimal: unit,
        up_to: index === given.length - 1 ? null : bound,
      };
    });
  });
const tiered = (mode: "graduated" | "volume", given: Tier[]) => ({
  billing_scheme: "tiered" as const,
  tiers: given,
  tiers_mode: mode,
  unit_amount_decimal: null,
});

/** A decimal of a cent in 10^-12 cents, digit by digit. */
function slowParse(value: string): bigint {
  const [whole = "", places = ""] = value.split(".");
  return BigInt(whole + places.padEnd(12, "0"));
}

/** Rounds halves up, by counting down to the cent below. */
function slowRound(value: bigint): number {
  const one = 10n ** 12n;
  const rest = value % one;
  return Number((value - rest) / one) + (rest * 2n >= one ? 1 : 0);
}

const tierOf = (given: Tier[], unit: number) => given.find(({ up_to: last }) => last === null || unit <= last);

test("graduated tiers charge each unit at the price of its tier, rounded once for each tier", () => {
  fc.assert(
    fc.property(tiers, fc.nat(200), (given, quantity) => {
      const sums = new Map<Tier, { units: number; amount: bigint }>();
      for (const tier of given.slice(0, 1))
        sums.set(tier, { units: 0, amount: slowParse(tier.flat_amount_decimal ?? "0") });
      for (let unit = 1; unit <= quantity; unit += 1) {
        const tier = tierOf(given, unit);
        if (tier === undefined) throw new Error("the last tier has no end");
        const sum = sums.get(tier) ?? { units: 0, amount: slowParse(tier.flat_amount_decimal ?? "0") };
        sums.set(tier, {
          units: sum.units + 1,
          amount: sum.amount + slowParse(tier.unit_amount_decimal ?? "0"),
        });
      }
      const expected = [...sums.values()].map(({ units, amount }) => [units, slowRound(amount)]);
      const charges = chargesFor(tiered("graduated", given), quantity);
      expect(charges.map((charge) => [charge.quantity, charge.amount])).toEqual(expected);
      expect(charges.reduce((sum, charge) => sum + charge.quantity, 0)).toBe(quantity);
    }),
  );
});

test("volume tiers charge every unit at the price of the tier that the total falls into", () => {
  fc.assert(
    fc.property(tiers, fc.integer({ min: 1, max: 200 }), (given, quantity) => {
      const tier = tierOf(given, quantity);
      let amount = slowParse(tier?.flat_amount_decimal ?? "0");
      for (let unit = 0; unit < quantity; unit += 1) amount += slowParse(tier?.unit_amount_decimal ?? "0");
      expect(chargesFor(tiered("volume", given), quantity)).toMatchObject([{ quantity, amount: slowRound(amount) }]);
    }),
  );
});

test("a share and its complement add up to the whole, except for rounding", () => {
  fc.assert(
    fc.property(fc.integer({ min: -100_000, max: 100_000 }), fc.nat(3_000_000), fc.nat(3_000_000), (amount, a, b) => {
      fc.pre(a + b > 0);
      const sum = share(amount, a, a + b) + share(amount, b, a + b);
      expect(Math.abs(sum - amount)).toBeLessThanOrEqual(1);
      expect(share(-amount, a, a + b)).toBe(0 - share(amount, a, a + b));
    }),
  );
});

test("amounts beyond floating-point precision stay exact, and halves are rounded away from zero", () => {
  expect(times("0.000000000001", 500_000_000_000)).toBe(1);
  expect(times("0.000000000001", 499_999_999_999)).toBe(0);
  expect(times("-0.5", 1)).toBe(-1);
  expect(times("1.005", 100)).toBe(101);
  expect(chargesFor({ billing_scheme: "per_unit", tiers_mode: null, unit_amount_decimal: "0.1" }, -7)).toMatchObject([
    { quantity: 0, amount: 0 },
  ]);
});
