// Usage that no meter event can bring into an invoice any more, because the invoice is final or Stripe takes no event of
// that age, is billed as an item of a later invoice. Decided here: what it costs, exactly, and which idempotency key an
// item is made with. The cost is what its period would have cost with these units more, minus what it did cost: included
// units come first, and several carry-forwards of a period add up to the price of all of their units together.

export interface Tariff {
  /** Units of a period that cost nothing. */
  readonly includedUnits: number;
  /** Of each further unit: a decimal string of cents. `null`: units are not sold one by one. */
  readonly unitAmountCents: string | null;
}

export interface LateCharge {
  /** Those of the units that cost something. 0: all are covered, and nothing is billed. */
  readonly units: number;
  readonly unitAmountCents: string;
}

/** What `units` more cost in a period that has had `unitsBefore`: a whole number of units at one exact price each. */
export function lateCharge(tariff: Tariff, unitsBefore: number, units: number): LateCharge {
  const { includedUnits, unitAmountCents } = tariff;
  if (unitAmountCents === null || !/[1-9]/.test(unitAmountCents)) return { units: 0, unitAmountCents: "0" };
  const beyond = (count: number): number => Math.max(0, count - includedUnits);
  return { units: beyond(unitsBefore + units) - beyond(unitsBefore), unitAmountCents };
}

const decimal = /^(\d+)(?:\.(\d{1,12}))?$/;

/** `units` times a price of at most 12 decimal places, as an exact decimal string of cents. Throws for anything else. */
export function amountCents({ units, unitAmountCents }: LateCharge): string {
  const [, whole, fraction = ""] = decimal.exec(unitAmountCents) ?? [];
  if (whole === undefined) throw new RangeError(`no price: ${unitAmountCents}`);
  const digits = (BigInt(whole + fraction) * BigInt(units)).toString().padStart(fraction.length + 1, "0");
  const point = digits.length - fraction.length;
  const cents = digits.slice(point).replace(/0+$/, "");
  return cents === "" ? digits.slice(0, point) : `${digits.slice(0, point)}.${cents}`;
}

/**
 * How long a key is repeated. Stripe replays its first result for 24 hours, a stored 500 among them, so that a key which
 * has not led to an answer by now may never do so. No request is under way for as long.
 */
const KEY_LIFE_MS = 3_600_000;

/** A carry-forward is not tried again before this time has passed. */
export const ITEM_SPACING_MS = 5 * 60_000;

export interface ItemKey {
  /** 0: none was used yet. */
  readonly number: number;
  /** Since when it is in use; `null` exactly when the number is 0. */
  readonly sinceMs: number | null;
}

/**
 * The key of the next attempt. Within its life it is the same, so that an item that was made is not made twice. A new
 * one forgets what the old one did: then `lookFirst` for an item that bears the carry-forward's id.
 */
export function nextItemKey(key: ItemKey, nowMs: number): { key: ItemKey; lookFirst: boolean } {
  if (key.sinceMs !== null && Math.abs(nowMs - key.sinceMs) < KEY_LIFE_MS) return { key, lookFirst: key.number > 1 };
  return { key: { number: key.number + 1, sinceMs: nowMs }, lookFirst: key.number > 0 };
}
