// Exact prices of quantities. Amounts are decimals of a cent, held as integers of 10^-12 cents, and rounded once, when
// they become a line. Halves are rounded away from zero.
// Assumptions: an invoice has a line for each tier that is reached, rounded by itself; a tier's flat amount is on the line of
// its units; the first tier is reached by no units at all.
import type { Price } from "./objects.ts";

/** Stripe's decimals have at most twelve places. */
const PLACES = 12;
const ONE_CENT = 10n ** BigInt(PLACES);

/** The charge of one line: `amount` cents for `quantity` units at `unitAmount` cents (a decimal). */
export interface Charge {
  quantity: number;
  unitAmount: string;
  amount: number;
}

/** The charges for a quantity, one a line, in the order of the tiers. A negative quantity costs as much as zero. */
export function chargesFor(
  price: Pick<Price, "billing_scheme" | "tiers" | "tiers_mode" | "unit_amount_decimal">,
  quantity: number,
): Charge[] {
  const units = Math.max(quantity, 0);
  if (price.billing_scheme === "per_unit") return [charge(units, price.unit_amount_decimal, null)];
  const tiers = price.tiers ?? [];
  const bound = (index: number) => (index < 0 ? 0 : (tiers[index]?.up_to ?? Infinity));
  if (price.tiers_mode === "volume") {
    const reached = tiers.find((_, index) => units <= bound(index));
    return reached === undefined ? [] : [charge(units, reached.unit_amount_decimal, reached.flat_amount_decimal)];
  }
  return tiers.flatMap((tier, index) => {
    const below = bound(index - 1);
    if (index > 0 && units <= below) return [];
    return [charge(Math.min(units, bound(index)) - below, tier.unit_amount_decimal, tier.flat_amount_decimal)];
  });
}

function charge(quantity: number, unitAmount: string | null, flatAmount: string | null): Charge {
  const unit = unitAmount ?? "0";
  return { quantity, unitAmount: unit, amount: cents(parse(unit) * BigInt(quantity) + parse(flatAmount ?? "0")) };
}

/** `quantity` times a decimal amount of cents, rounded to cents. */
export function times(unitAmount: string, quantity: number): number {
  return cents(parse(unitAmount) * BigInt(quantity));
}

/** `amount` cents times `part` / `whole`, rounded to cents. */
export function share(amount: number, part: number, whole: number): number {
  return rounded(BigInt(amount) * BigInt(part), BigInt(whole));
}

function cents(value: bigint): number {
  return rounded(value, ONE_CENT);
}

function rounded(dividend: bigint, divisor: bigint): number {
  const sign = dividend < 0n ? -1n : 1n;
  return Number((sign * (2n * sign * dividend + divisor)) / (2n * divisor));
}

function parse(decimal: string): bigint {
  const [whole = "0", places = ""] = decimal.replace("-", "").split(".");
  const value = BigInt(whole) * ONE_CENT + BigInt(places.padEnd(PLACES, "0"));
  return decimal.startsWith("-") ? -value : value;
}
