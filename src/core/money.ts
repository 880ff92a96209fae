// Exact amounts of money. A price can have fractions of a cent, so that amounts are whole numbers with a scale.

/** `digits` / 10^`scale` cents. */
export interface Cents {
  digits: bigint;
  scale: number;
}

const decimal = /^(\d+)(?:\.(\d{1,12}))?$/;

/** `units` times a price: a decimal string of cents with at most 12 places. Throws `RangeError` for any other string. */
export function costOf(units: number, unitAmountCents: string): Cents {
  const [, whole, fraction = ""] = decimal.exec(unitAmountCents) ?? [];
  if (whole === undefined) throw new RangeError(`not a price: ${unitAmountCents}`);
  return { digits: BigInt(units) * BigInt(whole + fraction), scale: fraction.length };
}

/** Whether `wholeCents` is this amount, rounded. Half a cent may be rounded up or down. */
export function isRounded(wholeCents: number, { digits, scale }: Cents): boolean {
  const unit = 10n ** BigInt(scale);
  const off = BigInt(wholeCents) * unit - digits;
  return (off < 0n ? -off : off) * 2n <= unit;
}

/** A decimal string of cents without trailing zeros. */
export function inCents({ digits, scale }: Cents): string {
  const text = decimalOf(digits, scale);
  return scale === 0 ? text : text.replace(/\.?0+$/, "");
}

/** A decimal string of dollars with two places, or more if the amount has fractions of a cent. */
export function inDollars({ digits, scale }: Cents): string {
  const text = decimalOf(digits, scale + 2);
  const point = text.length - scale;
  return text.slice(0, point) + text.slice(point).replace(/0+$/, "");
}

function decimalOf(digits: bigint, places: number): string {
  const text = (digits < 0n ? -digits : digits).toString().padStart(places + 1, "0");
  const point = text.length - places;
  return `${digits < 0n ? "-" : ""}${text.slice(0, point)}${places === 0 ? "" : `.${text.slice(point)}`}`;
}
