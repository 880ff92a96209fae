// Which time a page of usage shows, and the time before it of the same length. Pure. Days are whole and in UTC, as the ledger's are;
// the last 24 hours begin and end with an hour, as the metrics do.
import type { Billing } from "../../core/plans/money.ts";
import { billingPeriods } from "../../core/plans/money.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import { type Period, dayOf, daysFrom } from "../../metering/invoice.ts";

/** The parameters of a range in the address of a page. */
export interface RangeInAddress {
  /** Days such as `2026-11-28`, both included. */
  from?: string | undefined;
  to?: string | undefined;
  last?: typeof LAST_DAY | undefined;
}

export const LAST_DAY = "24h";

export interface ShownRange {
  /** Leads to the same range again. */
  address: RangeInAddress;
  period: Period;
  /** The first and the last day, for the form. */
  from: string;
  to: string;
  step: "hour" | "day";
}

/** A chart of this many days or fewer has a bar for each hour. */
const DAYS_BY_HOUR = 2;
/** The days after the first one of the usual range. */
const REST_MS = 29 * DAY_MS;

/** The range of the query in order of time. A day that is missing is chosen so that there are 30 days. */
export function shownRange({ from, to, last }: RangeInAddress, nowMs: number): ShownRange {
  if (last === LAST_DAY) {
    const endMs = hourAfter(nowMs);
    const startMs = endMs - DAY_MS;
    return { address: { last }, period: { startMs, endMs }, from: dayOf(startMs), to: dayOf(nowMs), step: "hour" };
  }
  const end = to ?? (from === undefined ? dayOf(nowMs) : dayOf(Date.parse(from) + REST_MS));
  const start = from ?? dayOf(Date.parse(end) - REST_MS);
  const days = start <= end ? { from: start, to: end } : { from: end, to: start };
  const period = daysFrom(days.from, days.to);
  const step = period.endMs - period.startMs <= DAYS_BY_HOUR * DAY_MS ? "hour" : "day";
  return { address: days, period, ...days, step };
}

/**
 * The time of the same length just before. Of a period that is not over only as much as has passed, to the hour, so that half a day is
 * not compared with a whole one.
 */
export function periodBefore({ startMs, endMs }: Period, nowMs: number): Period {
  const lengthMs = endMs - startMs;
  const passedMs = Math.min(lengthMs, Math.max(HOUR_MS, hourAfter(nowMs) - startMs));
  return { startMs: startMs - lengthMs, endMs: startMs - lengthMs + passedMs };
}

function hourAfter(atMs: number): number {
  return (Math.floor(atMs / HOUR_MS) + 1) * HOUR_MS;
}

export interface Preset {
  text: string;
  address: RangeInAddress;
}

/** The usual ranges. Those of a billing period are whole days, also where it begins within one. */
export function presets(billing: Billing | undefined, nowMs: number): Preset[] {
  const today = dayOf(nowMs);
  const days = (count: number): Preset => ({
    text: `${count} days`,
    address: { from: dayOf(nowMs - (count - 1) * DAY_MS), to: today },
  });
  const { current, previous } = billingPeriods(billing, nowMs);
  return [
    { text: "Last 24 hours", address: { last: LAST_DAY } },
    ...[days(7), days(30), days(90)],
    { text: "This billing period", address: { from: dayOf(current.startMs), to: today } },
    {
      text: "Previous billing period",
      address: { from: dayOf(previous.startMs), to: dayOf(previous.endMs - 1) },
    },
  ];
}
