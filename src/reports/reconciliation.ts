// Rules for the daily comparison of reports with Stripe's totals, and of calls with invoices. They decide when a comparison is due, which summaries to
// read to find the minutes that differ, and what counts as a difference. A report that Stripe lacks is doubted, and a
// summary decides about it. Every other difference raises an alarm, and Tollgate does not correct it. The rules are pure and
// apart from reconciler.ts, so that a test runs them against any number of reports.
import type { Range, SummaryRequest } from "../adapters/stripe/meter.ts";
import { type PlanName, planOf } from "../core/plans/plans.ts";
import { HOUR_MS } from "../core/time.ts";

const MINUTE_S = 60;
const HOUR_S = 3_600;
export const DAY_S = 86_400;

/** Time after midnight UTC. By then the last reports of the day before are confirmed and in the summaries. */
const DUE_AFTER_MS = 2 * HOUR_MS;
/** Days that each comparison covers. A week, so that one failed comparison leaves no day out. */
export const DAYS_BACK = 7;
/** Maximum age of an open difference that is compared again. Stripe lists at most 100 days in an answer. */
export const MOST_DAYS_BACK = 90;
/** A report that was confirmed more recently may be missing in the summaries. */
export const SETTLED_FOR_MS = HOUR_MS;

/** The UTC day of the comparison, as `YYYY-MM-DD`; it covers usage before this day. `undefined`: too early in the day. */
export function reconciliationDay(nowMs: number): string | undefined {
  return nowMs % (DAY_S * 1000) < DUE_AFTER_MS ? undefined : new Date(nowMs).toISOString().slice(0, 10);
}

/** A period and plan whose invoices have other units than its calls. */
export interface InvoiceDrift {
  readonly subscriptionId: string;
  readonly startSeconds: number;
  readonly plan: PlanName;
  /** Units of the period's calls that went to Stripe's meter under that plan. */
  readonly earnedUnits: number;
  readonly invoicedUnits: number;
}

/**
 * Compares the calls of each closed period with the final invoices, by the plan whose price Stripe takes. Usage in two
 * periods, in none, or in a wrong one is a difference, also when the meter's total is right.
 */
export function invoiceDrifts(
  earned: readonly Readonly<
    Pick<InvoiceDrift, "subscriptionId" | "startSeconds" | "plan"> & { units: number; closed: boolean }
  >[],
  invoiced: readonly Readonly<
    Pick<InvoiceDrift, "startSeconds"> & { subscriptionId: string | null; plan: PlanName | undefined; units: number }
  >[],
): InvoiceDrift[] {
  const found = new Map<string, InvoiceDrift & { closed: boolean }>();
  const add = (
    of: Omit<InvoiceDrift, "earnedUnits" | "invoicedUnits">,
    units: { earned: number; invoiced: number },
    closed: boolean,
  ): void => {
    const { subscriptionId, startSeconds, plan } = of;
    const key = `${subscriptionId} ${startSeconds} ${plan}`;
    const before = found.get(key) ?? {
      subscriptionId,
      startSeconds,
      plan,
      earnedUnits: 0,
      invoicedUnits: 0,
      closed: false,
    };
    found.set(key, {
      ...before,
      earnedUnits: before.earnedUnits + units.earned,
      invoicedUnits: before.invoicedUnits + units.invoiced,
      closed: before.closed || closed,
    });
  };
  for (const each of earned)
    if (planOf(each.plan).unitAmountCents !== null) add(each, { earned: each.units, invoiced: 0 }, each.closed);
  for (const { subscriptionId, plan, startSeconds, units } of invoiced)
    if (subscriptionId !== null && plan !== undefined)
      add({ subscriptionId, startSeconds, plan }, { earned: 0, invoiced: units }, false);
  return [...found.values()].flatMap(({ closed, ...difference }) =>
    // The usage so far of a plan that was changed may be invoiced before its period ends.
    difference.invoicedUnits > difference.earnedUnits || (closed && difference.invoicedUnits < difference.earnedUnits)
      ? [difference]
      : [],
  );
}

export interface MinuteReport {
  readonly id: string;
  /** Start of its minute, in epoch seconds. */
  readonly startSeconds: number;
  readonly units: number;
  /**
   * there: Stripe must have it. open: not settled, or settled too recently. elsewhere: Stripe must not have it, because a
   * carry-forward bills it or nothing does.
   */
  readonly state: "there" | "open" | "elsewhere";
}

type DriftKind = "missing" | "less" | "more" | "unknown" | "unexplored";

export interface Drift extends Range {
  /**
   * missing: Stripe has nothing. less, more: than the report says. unknown: no report has this minute. unexplored: a range
   * that differs and was not searched, because there are too many differences.
   */
  readonly kind: DriftKind;
  readonly reportId: string | null;
  readonly reportedUnits: number;
  readonly stripeUnits: number;
}

/** The difference in a minute in which Stripe has `stripeUnits`. `undefined`: none, or the report is still open. */
export function classifyMinute(report: MinuteReport | undefined, stripeUnits: number): DriftKind | undefined {
  if (report === undefined) return stripeUnits === 0 ? undefined : "unknown";
  if (report.state === "open") return undefined;
  const reported = report.state === "there" ? report.units : 0;
  if (stripeUnits === reported) return undefined;
  if (stripeUnits > reported) return "more";
  return stripeUnits === 0 ? "missing" : "less";
}

/**
 * Finds the minutes of whole UTC days in which Stripe and the reports differ. Yields each summary that it needs. The caller
 * resumes it with the answer: units by the start of their range, without zeros. After `mostReads` summaries, it returns
 * ranges that differ as `unexplored`.
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

  /** Searches one range, in which Stripe has `stripeUnits`. */
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

/** Stripe may have all open reports or none. A range with only some of them is searched, minute by minute. */
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

/** Ranges are whole minutes, so a report's minute never crosses the end of a range. */
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
