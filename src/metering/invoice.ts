// Adds up an invoice: a tenant's calls, its meter reports, Stripe's count of units, and the price. Units are whole numbers
// and money is exact, so every order of addition gives the same sum. A report covers at most one UTC day, so days can be
// compared one by one.
import { DAY_MS } from "../core/time.ts";

/** Whole UTC days, except for the period of an invoice. `endMs` is exclusive. */
export interface Period {
  startMs: number;
  endMs: number;
}

/** A calendar month such as `2026-11`. */
export function monthOf(month: string): Period {
  const startMs = Date.parse(`${month}-01T00:00:00Z`);
  const start = new Date(startMs);
  return { startMs, endMs: Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1) };
}

/** From the day `from` to the day `to`, both included. */
export function daysFrom(from: string, to: string): Period {
  return { startMs: Date.parse(`${from}T00:00:00Z`), endMs: Date.parse(`${to}T00:00:00Z`) + DAY_MS };
}

/** The UTC day of an instant, such as `2026-11-21`. */
export function dayOf(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}

/** The days of a period, each as a period of its own. */
export function daysOf({ startMs, endMs }: Period): Period[] {
  const days: Period[] = [];
  for (let atMs = startMs; atMs < endMs; atMs += DAY_MS) days.push({ startMs: atMs, endMs: atMs + DAY_MS });
  return days;
}

export interface Usage {
  units: number;
  calls: number;
}

export function addUp(parts: Iterable<Usage>): Usage {
  const sum = { units: 0, calls: 0 };
  for (const { units, calls } of parts) {
    sum.units += units;
    sum.calls += calls;
  }
  return sum;
}

/** Sums by the key that `keyOf` returns, in the order of the keys. */
export function addUpBy<Part extends Usage>(parts: Iterable<Part>, keyOf: (part: Part) => string): Map<string, Usage> {
  const groups = [...Map.groupBy(parts, keyOf)].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return new Map(groups.map(([key, group]) => [key, addUp(group)]));
}

/** Calls of one day that were frozen in the same report or carry-forward. `null`: in none yet. */
export interface CallSum extends Usage {
  day: string;
  reportId: string | null;
}

/** A report, or a carry-forward, which holds usage that came too late for a report. */
export interface FrozenReport extends Usage {
  id: string;
  /** Start of the report's minute, in epoch seconds. For a carry-forward: any second of its day. */
  slotSeconds: number;
  /** Whether it goes to Stripe's meter. Otherwise an invoice item bills it, or there is no customer to bill. */
  metered: boolean;
  /** Whether its delivery is confirmed. */
  confirmed: boolean;
}

/** Units that Stripe counted in a range of a minute, an hour or a day. */
export interface MeterSum {
  startSeconds: number;
  units: number;
}

export interface DayComparison {
  day: string;
  calls: number;
  ledgerUnits: number;
  /** Units in reports to Stripe's meter. */
  reportUnits: number;
  /** Frozen units that do not go to the meter. */
  carriedUnits: number;
  stripeUnits: number;
}

export type Discrepancy =
  /** The report differs from its calls of that day. `null`: that day has no such report. */
  | { kind: "calls"; day: string; reportId: string; report: Usage | null; calls: Usage }
  /** Calls that are in no report. */
  | { kind: "unreported"; day: string; calls: Usage }
  /** Stripe's count for that day differs from the reports. */
  | { kind: "stripe"; day: string; reportUnits: number; stripeUnits: number };

/**
 * Compares calls with reports one by one, and reports with Stripe day by day. `days` are the days with any usage;
 * `discrepancies` lists every difference. Both are in order. Without `stripe` it compares calls and reports only.
 */
export function compareUsage(
  calls: readonly CallSum[],
  reports: readonly FrozenReport[],
  stripe: readonly MeterSum[] | undefined,
): { days: DayComparison[]; discrepancies: Discrepancy[] } {
  const callsByDay = Map.groupBy(calls, ({ day }) => day);
  const reportsByDay = Map.groupBy(reports, ({ slotSeconds }) => dayOf(slotSeconds * 1000));
  const stripeByDay = Map.groupBy(stripe ?? [], ({ startSeconds }) => dayOf(startSeconds * 1000));
  const names = new Set([...callsByDay.keys(), ...reportsByDay.keys(), ...stripeByDay.keys()]);
  const days: DayComparison[] = [];
  const discrepancies: Discrepancy[] = [];
  for (const day of [...names].toSorted()) {
    const ofDay = { calls: callsByDay.get(day) ?? [], reports: reportsByDay.get(day) ?? [] };
    const { calls: callCount, units: ledgerUnits } = addUp(ofDay.calls);
    const reportUnits = addUp(ofDay.reports.filter(({ metered }) => metered)).units;
    const carriedUnits = addUp(ofDay.reports).units - reportUnits;
    const stripeUnits = (stripeByDay.get(day) ?? []).reduce((sum, { units }) => sum + units, 0);
    days.push({ day, calls: callCount, ledgerUnits, reportUnits, carriedUnits, stripeUnits });
    discrepancies.push(...callDiscrepancies(day, ofDay.calls, ofDay.reports));
    if (stripe !== undefined && stripeUnits !== reportUnits)
      discrepancies.push({ kind: "stripe", day, reportUnits, stripeUnits });
  }
  return { days, discrepancies };
}

function callDiscrepancies(day: string, calls: readonly CallSum[], reports: readonly FrozenReport[]): Discrepancy[] {
  const found: Discrepancy[] = [];
  const reportOf = new Map(reports.map((report) => [report.id, report]));
  const callsOf = Map.groupBy(calls, ({ reportId }) => reportId);
  // Ordered by minute, so that the first difference is the earliest one.
  const ids = [...reports.toSorted((a, b) => a.slotSeconds - b.slotSeconds).map(({ id }) => id)];
  for (const id of callsOf.keys()) if (id !== null && !reportOf.has(id)) ids.push(id);
  for (const reportId of ids) {
    const report = reportOf.get(reportId);
    const sum = addUp(callsOf.get(reportId) ?? []);
    if (report?.units === sum.units && report.calls === sum.calls) continue;
    const reported = report === undefined ? null : { units: report.units, calls: report.calls };
    found.push({ kind: "calls", day, reportId, report: reported, calls: sum });
  }
  const unreported = addUp(callsOf.get(null) ?? []);
  if (unreported.calls > 0) found.push({ kind: "unreported", day, calls: unreported });
  return found;
}

/**
 * The first window of `widthSeconds` in which Stripe's count differs from the metered reports, or `undefined`. Windows
 * begin at multiples of their width, as Stripe's do.
 */
export function firstDifference(
  reports: readonly FrozenReport[],
  stripe: readonly MeterSum[],
  widthSeconds: number,
): { startSeconds: number; reports: FrozenReport[]; stripeUnits: number } | undefined {
  const windowOf = (atSeconds: number): number => atSeconds - (atSeconds % widthSeconds);
  const metered = reports.filter((report) => report.metered);
  const reported = Map.groupBy(metered, ({ slotSeconds }) => windowOf(slotSeconds));
  const counted = Map.groupBy(stripe, ({ startSeconds }) => windowOf(startSeconds));
  for (const startSeconds of [...new Set([...reported.keys(), ...counted.keys()])].toSorted((a, b) => a - b)) {
    const own = reported.get(startSeconds) ?? [];
    const stripeUnits = (counted.get(startSeconds) ?? []).reduce((sum, { units }) => sum + units, 0);
    if (addUp(own).units !== stripeUnits) return { startSeconds, reports: own, stripeUnits };
  }
  return undefined;
}
