// The daily comparison of our reports with what Stripe has counted, minute by minute where days differ. Decided here:
// when one is due, which summaries must be read to find the minutes that differ, and what a difference is. A report that
// Stripe turns out not to have goes back to where a summary decides; everything else is told and never corrected.
import type { Range, SummaryRequest } from "../adapters/stripe-meter.ts";

const MINUTE_S = 60;
const HOUR_S = 3_600;
export const DAY_S = 86_400;

/** Of a UTC day: by then the last reports of the day before are confirmed, and their summaries complete. */
const DUE_AFTER_MS = 2 * 3_600_000;
/** Days that are looked at again each time: what goes wrong on a weekend is found on each day after it. */
export const DAYS_BACK = 7;
/** A difference that stays is looked at for this long; Stripe lists at most 100 days in an answer. */
export const MOST_DAYS_BACK = 90;
/** A report that was confirmed less long ago may not be in the summaries yet. */
export const SETTLED_FOR_MS = 3_600_000;

/** The UTC day, as `YYYY-MM-DD`, before which usage is compared now; `undefined`: it is too early in the day. */
export function reconciliationDay(nowMs: number): string | undefined {
  return nowMs % (DAY_S * 1000) < DUE_AFTER_MS ? undefined : new Date(nowMs).toISOString().slice(0, 10);
}

export interface MinuteReport {
  readonly id: string;
  /** Start of its minute, in epoch seconds. */
  readonly startSeconds: number;
  readonly units: number;
  /** there: Stripe must have it · open: it is not settled, or too recently · elsewhere: Stripe must not have it. */
  readonly state: "there" | "open" | "elsewhere";
}

export type DriftKind = "missing" | "less" | "more" | "unknown" | "unexplored";

export interface Drift extends Range {
  /** missing, less, more: than its report says · unknown: no report has this minute · unexplored: too many differences. */
  readonly kind: DriftKind;
  readonly reportId: string | null;
  readonly reportedUnits: number;
  readonly stripeUnits: number;
}

/** What a minute is in which Stripe has `stripeUnits`; `undefined`: as it should be, or not to be said yet. */
export function classifyMinute(report: MinuteReport | undefined, stripeUnits: number): DriftKind | undefined {
  if (report === undefined) return stripeUnits === 0 ? undefined : "unknown";
  if (report.state === "open") return undefined;
  const reported = report.state === "there" ? report.units : 0;
  if (stripeUnits === reported) return undefined;
  if (stripeUnits > reported) return "more";
  return stripeUnits === 0 ? "missing" : "less";
}

/**
 * Finds the minutes of whole UTC days in which Stripe and the reports differ. Yields the summaries that it must know and
 * is resumed with them: units by the start of their range, without those that are zero. After `mostReads` of them,
 * ranges that differ are returned as they are, `unexplored`.
 */
export function* findDrifts(
  reports: readonly MinuteReport[],
  days: Range,
  mostReads: number,
): Generator<SummaryRequest, Drift[], ReadonlyMap<number, number>> {
  const sorted = reports.toSorted((a, b) => a.startSeconds - b.startSeconds);
  const drifts: Drift[] = [];
  let readsLeft = mostReads;

  type Reading<Result> = Generator<SummaryRequest, Result, ReadonlyMap<number, number>>;

  function* read({ startSeconds, endSeconds }: Range, by: SummaryRequest["by"]): Reading<ReadonlyMap<number, number>> {
    readsLeft -= 1;
    return yield { startSeconds, endSeconds, by };
  }

  /** Looks into one range, of which Stripe has `stripeUnits`. */
  function* explore(range: Range, stripeUnits: number): Reading<void> {
    const own = within(sorted, range);
    if (agrees(own, stripeUnits)) return;
    const lengthSeconds = range.endSeconds - range.startSeconds;
    if (lengthSeconds === MINUTE_S) {
      const kind = classifyMinute(own[0], stripeUnits);
      if (kind !== undefined) drifts.push(drift(kind, range, own, stripeUnits));
    } else if (readsLeft <= 0) {
      drifts.push(drift("unexplored", range, own, stripeUnits));
    } else if (lengthSeconds > HOUR_S) {
      const units = yield* read(range, "hour");
      for (const hour of parts(range, HOUR_S)) yield* explore(hour, units.get(hour.startSeconds) ?? 0);
    } else {
      const halfSeconds = Math.ceil(lengthSeconds / 2 / MINUTE_S) * MINUTE_S;
      const [first, second] = parts(range, halfSeconds);
      if (first === undefined || second === undefined) return;
      const firstUnits = (yield* read(first, "whole")).get(first.startSeconds) ?? 0;
      yield* explore(first, firstUnits);
      yield* explore(second, stripeUnits - firstUnits);
    }
  }

  const units = yield* read(days, "day");
  for (const day of parts(days, DAY_S)) yield* explore(day, units.get(day.startSeconds) ?? 0);
  return drifts;
}

/** Open reports may be there or not. What else they could explain is found minute by minute. */
function agrees(reports: readonly MinuteReport[], stripeUnits: number): boolean {
  const there = unitsOf(reports, "there");
  return stripeUnits === there || stripeUnits === there + unitsOf(reports, "open");
}

function unitsOf(reports: readonly MinuteReport[], state: MinuteReport["state"]): number {
  return reports.reduce((sum, report) => sum + (report.state === state ? report.units : 0), 0);
}

function drift(kind: DriftKind, range: Range, reports: readonly MinuteReport[], stripeUnits: number): Drift {
  const reportId = kind === "unexplored" ? null : (reports[0]?.id ?? null);
  const { startSeconds, endSeconds } = range;
  return { startSeconds, endSeconds, kind, reportId, reportedUnits: unitsOf(reports, "there"), stripeUnits };
}

/** A report's minute is never on the border of a range, because ranges are of whole minutes. */
function within(sorted: readonly MinuteReport[], { startSeconds, endSeconds }: Range): MinuteReport[] {
  return sorted.filter((report) => report.startSeconds >= startSeconds && report.startSeconds < endSeconds);
}

function parts({ startSeconds, endSeconds }: Range, lengthSeconds: number): Range[] {
  const found: Range[] = [];
  for (let start = startSeconds; start < endSeconds; start += lengthSeconds) {
    found.push({ startSeconds: start, endSeconds: Math.min(endSeconds, start + lengthSeconds) });
  }
  return found;
}
