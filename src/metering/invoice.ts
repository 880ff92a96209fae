// Adding up an invoice: a tenant's calls, the reports that they were sent in, what Stripe counted of them and what they
// cost. Units are whole numbers and money is exact decimals, so that whoever adds the same rows up, in whatever pieces,
// gets the same number. A report is a part of one UTC day, so that days can be compared one by one.
import type { Plan } from "../core/plans.ts";

export const DAY_MS = 86_400_000;

/** From its first instant to the first one that is no longer in it: whole UTC days, unless it is an invoice's own. */
export interface Period {
  startMs: number;
  endMs: number;
}

/** A calendar month, from `2026-11`. */
export function monthOf(month: string): Period {
  const startMs = Date.parse(`${month}-01T00:00:00Z`);
  const start = new Date(startMs);
  return { startMs, endMs: Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1) };
}

/** From the day `from` to the day `to`, both of them in it. */
export function daysFrom(from: string, to: string): Period {
  return { startMs: Date.parse(`${from}T00:00:00Z`), endMs: Date.parse(`${to}T00:00:00Z`) + DAY_MS };
}

/** The UTC day of an instant, as `2026-11-21`. */
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

/** The sums by what `keyOf` says, in the order of the keys. */
export function addUpBy<Part extends Usage>(parts: Iterable<Part>, keyOf: (part: Part) => string): Map<string, Usage> {
  const groups = [...Map.groupBy(parts, keyOf)].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return new Map(groups.map(([key, group]) => [key, addUp(group)]));
}

/** Calls of one day that were sealed in the same report or carry-forward; `null`: in none yet. */
export interface CallSum extends Usage {
  day: string;
  reportId: string | null;
}

/** A report, or a carry-forward, which is usage that came too late for one. */
export interface FrozenReport extends Usage {
  id: string;
  /** Start of the report's own minute, in epoch seconds; of a carry-forward any of its day. */
  slotSeconds: number;
  /** Whether it is Stripe's meter that has to have it, and not an item of an invoice, or nobody. */
  metered: boolean;
  /** Whether it is known to have come to its place. */
  confirmed: boolean;
}

/** What Stripe has counted from an instant on, for as long as was asked for: a minute, an hour or a day. */
export interface MeterSum {
  startSeconds: number;
  units: number;
}

export interface DayComparison {
  day: string;
  calls: number;
  ledgerUnits: number;
  /** In reports to Stripe's meter. */
  reportUnits: number;
  /** Sealed, and not for the meter. */
  carriedUnits: number;
  stripeUnits: number;
}

export type Discrepancy =
  /** The report says something else than its calls of that day do; `null`: there is no such report of that day. */
  | { kind: "calls"; day: string; reportId: string; report: Usage | null; calls: Usage }
  /** Calls that no report has. */
  | { kind: "unreported"; day: string; calls: Usage }
  /** Stripe has counted something else than was reported for that day. */
  | { kind: "stripe"; day: string; reportUnits: number; stripeUnits: number };

/**
 * Compares calls with reports, each by each, and reports with Stripe, day by day. `days` are those on which anybody has
 * anything, `discrepancies` all that is not equal, both in their order. Without `stripe` only calls and reports are compared.
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
  // By its minute, so that what is named first is what happened first.
  const ids = [...reports.toSorted((a, b) => a.slotSeconds - b.slotSeconds).map(({ id }) => id)];
  for (const id of callsOf.keys()) if (id !== null && !reportOf.has(id)) ids.push(id);
  for (const reportId of ids) {
    const report = reportOf.get(reportId);
    const sum = addUp(callsOf.get(reportId) ?? []);
    if (report?.units === sum.units && report.calls === sum.calls) continue;
    const said = report === undefined ? null : { units: report.units, calls: report.calls };
    found.push({ kind: "calls", day, reportId, report: said, calls: sum });
  }
  const unreported = addUp(callsOf.get(null) ?? []);
  if (unreported.calls > 0) found.push({ kind: "unreported", day, calls: unreported });
  return found;
}

/**
 * The first window of `widthSeconds` in which Stripe has counted something else than the metered reports of it say, or
 * `undefined`. Windows begin at multiples of their width, as Stripe's do.
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

/** An exact amount of money: `digits` / 10^`scale` cents. */
export interface Cents {
  digits: bigint;
  scale: number;
}

/** What units of one billing period cost beyond the base price: the included ones nothing, each more the unit price. */
export function usagePrice(units: number, plan: Pick<Plan, "includedUnits" | "unitAmountCents">): Cents {
  const [whole = "0", fraction = ""] = (plan.unitAmountCents ?? "0").split(".");
  const charged = Math.max(0, units - (plan.includedUnits ?? 0));
  return { digits: BigInt(charged) * BigInt(whole + fraction), scale: fraction.length };
}

/** Whether an amount in whole cents is this one, rounded to either side of a half. */
export function isRounded(wholeCents: number, { digits, scale }: Cents): boolean {
  const unit = 10n ** BigInt(scale);
  const off = BigInt(wholeCents) * unit - digits;
  return (off < 0n ? -off : off) * 2n <= unit;
}

/** In dollars, exactly, with two decimals or as many as it takes. */
export function inDollars({ digits, scale }: Cents): string {
  const decimals = scale + 2;
  const text = (digits < 0n ? -digits : digits).toString().padStart(decimals + 1, "0");
  const fraction = text.slice(-decimals);
  const sign = digits < 0n ? "-" : "";
  return `${sign}${text.slice(0, -decimals)}.${fraction.slice(0, 2)}${fraction.slice(2).replace(/0+$/, "")}`;
}
