// Exact amounts of money, and how much of it a tenant may spend on units. A price can have fractions of a cent, so that amounts
// are whole numbers with a scale.
import * as z from "zod";
import type { SpendStatus } from "../call.ts";
import { type Limits, type Plan, planOf } from "./plans.ts";
import { DAY_MS } from "../time.ts";

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

/** Adds two amounts. */
export function addCents(a: Cents, b: Cents): Cents {
  const scale = Math.max(a.scale, b.scale);
  return { digits: scaled(a, scale) + scaled(b, scale), scale };
}

/** The amount of a decimal string of cents. */
export function centsOf(text: string): Cents {
  return costOf(1, text);
}

function scaled({ digits, scale }: Cents, to: number): bigint {
  return digits * 10n ** BigInt(to - scale);
}

// ---- the spend cap: the highest price of units beyond the included ones in one billing period
//
// A billing period is that of the subscription, because an invoice covers it. Units count since its start or, if the plan has
// changed within it, since the change: Stripe then counts the included units anew. What the period's earlier plans have cost
// beyond their included units is spent, too. A tenant without a subscription gets no invoice; its calendar month counts.

/** What a tenant's row says about its billing period. */
export const Billing = z.object({
  /** Periods that share one payment count as one. */
  periodStartMs: z.int().nullable(),
  periodEndMs: z.int().nullable(),
  /** When the plan took effect. `null`: before the period, or with it. */
  planSinceMs: z.int().nullable(),
  /** What earlier plans of the period of `planSinceMs` have cost beyond their included units: a decimal string of cents. */
  spentBeforeCents: z.string(),
  /** The cap that an owner has set. `null`: none, so the plan's cap is in force. */
  ownCapCents: z.int().min(0).nullable(),
});
export type Billing = z.infer<typeof Billing>;

/** A tenant as the rule of the spend cap sees it. */
export interface Spender {
  plan: string;
  limits: Pick<Limits, "spendCapCents" | "maxSpendCapCents">;
  billing?: Billing | undefined;
}

/** The units of a metered plan that count together. */
export interface SpendWindow {
  /** Calls admitted from here on count. */
  startMs: number;
  /** When the next billing period begins. An estimate until Stripe's event about a new period has arrived. */
  endMs: number;
  includedUnits: number;
  unitAmountCents: string;
  /** What earlier plans of the period have cost. */
  spentBefore: Cents;
  /** `null`: no cap. */
  capCents: number | null;
  /** The highest cap that an owner may set; `null`: any. */
  maxCapCents: number | null;
  /** Units of the window that the cap pays for, the included ones among them. `null`: no cap. */
  maxUnits: number | null;
}

const noBilling: Billing = {
  periodStartMs: null,
  periodEndMs: null,
  planSinceMs: null,
  spentBeforeCents: "0",
  ownCapCents: null,
};

/** The cap in force: the owner's within the operator's bound, or the plan's. `null`: none. */
export function spendCapOf(limits: Spender["limits"], ownCapCents: number | null): number | null {
  const { spendCapCents, maxSpendCapCents: most } = limits;
  const cap = ownCapCents ?? spendCapCents;
  return cap === null || most === null ? (cap ?? most) : Math.min(cap, most);
}

/** The window of a tenant whose plan sells units beyond the included ones; `undefined` for any other plan. */
export function spendWindow(spender: Spender, nowMs: number): SpendWindow | undefined {
  const { unitAmountCents, includedUnits } = planOf(spender.plan);
  if (unitAmountCents === null) return undefined;
  const { planSinceMs, ...period } = spender.billing ?? noBilling;
  const { startMs, endMs } = periodAt(period, nowMs);
  const earlier = centsOf(spentBefore(spender, nowMs));
  const capCents = spendCapOf(spender.limits, spender.billing?.ownCapCents ?? null);
  const included = includedUnits ?? 0;
  return {
    ...{ startMs: Math.max(startMs, planSinceMs ?? startMs), endMs, includedUnits: included, unitAmountCents },
    ...{ spentBefore: earlier, capCents, maxCapCents: spender.limits.maxSpendCapCents },
    maxUnits: capCents === null ? null : included + unitsFor(capCents, earlier, unitAmountCents),
  };
}

/** The window without its last `reserve` units, of which included ones are none: they cost nothing. */
export function withReserve(window: SpendWindow, reserve = 0): SpendWindow {
  const { maxUnits, includedUnits } = window;
  if (maxUnits === null) return window;
  return { ...window, maxUnits: Math.min(maxUnits, Math.max(includedUnits, maxUnits - reserve)) };
}

/** What earlier plans of the billing period of an instant have cost, for a tenant with any plan. */
export function spentBefore({ billing = noBilling }: Pick<Spender, "billing">, nowMs: number): string {
  const { planSinceMs, spentBeforeCents, ...period } = billing;
  return planSinceMs !== null && planSinceMs >= periodAt(period, nowMs).startMs ? spentBeforeCents : "0";
}

/** What the units of a window cost so far, with what the period's earlier plans have cost. */
export function spentIn(window: Pick<SpendWindow, "includedUnits" | "unitAmountCents" | "spentBefore">, units: number) {
  return addCents(window.spentBefore, usagePrice(units, window));
}

/** The window for clients. `used`: its units so far, running calls included. */
export function spendStatus(window: SpendWindow, used: number, nowMs: number): SpendStatus {
  const { capCents, maxUnits, endMs } = window;
  const spent = spentIn(window, used);
  const left = addCents({ digits: BigInt(capCents ?? 0), scale: 0 }, { ...spent, digits: -spent.digits });
  return {
    capCents,
    spentCents: inCents(spent),
    // A cap that was lowered takes nothing back.
    leftCents: capCents === null ? null : left.digits < 0n ? "0" : inCents(left),
    leftUnits: maxUnits === null ? null : Math.max(0, maxUnits - used),
    resetSeconds: Math.max(0, Math.ceil((endMs - nowMs) / 1_000)),
  };
}

/** The price of a billing period's units beyond the base price. Included units are free. */
export function usagePrice(units: number, plan: Pick<Plan, "includedUnits" | "unitAmountCents">): Cents {
  return costOf(Math.max(0, units - (plan.includedUnits ?? 0)), plan.unitAmountCents ?? "0");
}

/** The whole units that what is left of the cap pays for. */
function unitsFor(capCents: number, spent: Cents, unitAmountCents: string): number {
  const price = centsOf(unitAmountCents);
  if (price.digits === 0n) return Number.MAX_SAFE_INTEGER;
  const scale = Math.max(price.scale, spent.scale);
  const left = BigInt(capCents) * 10n ** BigInt(scale) - scaled(spent, scale);
  return left <= 0n ? 0 : Number(left / scaled(price, scale));
}

/**
 * The billing period of an instant. The next period of a subscription begins at the end of the known one, before Stripe's event
 * about it arrives; its end is then an estimate, and no further period begins by it.
 */
function periodAt({ periodStartMs, periodEndMs }: Pick<Billing, "periodStartMs" | "periodEndMs">, nowMs: number) {
  if (periodStartMs === null || periodEndMs === null) return calendarMonth(nowMs);
  if (nowMs < periodEndMs) return { startMs: periodStartMs, endMs: periodEndMs };
  return { startMs: periodEndMs, endMs: aMonthAfter(periodEndMs) };
}

/** The billing period of an instant and the one before, for a tenant with any plan. Without a subscription they are calendar months. */
export function billingPeriods(billing: Billing | undefined, nowMs: number) {
  const current = periodAt(billing ?? noBilling, nowMs);
  return { current, previous: { startMs: aMonthBefore(current.startMs), endMs: current.startMs } };
}

/** The same day of the month before, or its last one. */
function aMonthBefore(atMs: number): number {
  const at = new Date(atMs);
  const lastDay = new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), 0)).getUTCDate();
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() - 1, Math.min(at.getUTCDate(), lastDay)) + (atMs % DAY_MS);
}

function calendarMonth(atMs: number): { startMs: number; endMs: number } {
  const at = new Date(atMs);
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()];
  return { startMs: Date.UTC(year, month), endMs: Date.UTC(year, month + 1) };
}

/** The same day of the next month, or its last one. */
function aMonthAfter(atMs: number): number {
  const at = new Date(atMs);
  const lastDay = new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 2, 0)).getUTCDate();
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1, Math.min(at.getUTCDate(), lastDay)) + (atMs % DAY_MS);
}
