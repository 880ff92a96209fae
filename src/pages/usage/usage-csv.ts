// What the pages of usage and of calls show, as files of CSV. Numbers have no separators and times are in UTC, so that a program reads
// them. A name that a spreadsheet would run as a formula has an apostrophe before it (core/text/csv.ts).
import { joinBatches } from "../../adapters/neon.ts";
import type { HttpContext } from "../../http.ts";
import { callsOf } from "../../metering/metrics/api.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { dayOf } from "../../metering/invoice.ts";
import { tenantOf } from "../../http.ts";
import { csvFile } from "../layout/csv-file.ts";
import type { CallsView } from "./calls-view.tsx";
import { type UsageView, usageFigures } from "./usage-figures.ts";

const figureColumns = ["calls", "ok", "failed", "refused", "repeated", "units"] as const;
const timeColumns = ["latency_median_ms", "latency_95_percent_ms", "database_ms"] as const;

type Figures = Record<(typeof figureColumns)[number] | "dbMs", number> & { p50Ms: number | null; p95Ms: number | null };

function cellsOf(figures: Figures): (number | null)[] {
  return [...figureColumns.map((name) => figures[name]), figures.p50Ms, figures.p95Ms, figures.dbMs];
}

/**
 * A row for each hour or day of the chart, or with `rows=groups` for each row of the table. The units of whole days are the ledger's,
 * as the page's sum is; those of hours, of groups and of filtered calls come from the metrics.
 */
export async function usageCsv(c: HttpContext, query: UsageView): Promise<Response> {
  const { shown, overTime, grouped, ledger, isFiltered } = await usageFigures(c, query);
  const name = `${query.rows === "groups" ? `usage-by-${query.by}` : "usage"}-${shown.from}-${shown.to}`;
  if (query.rows === "groups") {
    const rows = grouped.points.map((point) => [...groupCells(point), ...cellsOf(point)]);
    return csvFile(name, [...groupColumns[query.by], ...figureColumns, ...timeColumns], rows);
  }
  const hasLedger = shown.step === "day" && !isFiltered;
  const charged = new Map(ledger.days.map(({ day, units }) => [day, units]));
  const points = new Map(overTime.points.map((point) => [dayOf(Date.parse(point.at)), point]));
  const nothing = { calls: 0, ok: 0, failed: 0, refused: 0, repeated: 0, units: 0, dbMs: 0, p50Ms: null, p95Ms: null };
  const rows = hasLedger
    ? [...new Set([...charged.keys(), ...points.keys()])]
        .toSorted((a, b) => (a < b ? -1 : 1))
        .map((day) => {
          const figures = points.get(day) ?? nothing;
          return [`${day}T00:00:00Z`, ...cellsOf({ ...figures, units: charged.get(day) ?? 0 })];
        })
    : overTime.points.map((point) => [point.at, ...cellsOf(point)]);
  return csvFile(name, ["from", ...figureColumns, ...timeColumns], rows);
}

const groupColumns = { tool: ["tool"], caller: ["kind", "id", "name"], outcome: ["outcome", "code"] } as const;

type Point = Awaited<ReturnType<typeof usageFigures>>["grouped"]["points"][number];

function groupCells({ tool, caller, name, outcome, code }: Point): (string | null)[] {
  if (tool !== undefined) return [tool];
  return caller === undefined ? [outcome ?? "", code ?? null] : [caller.kind, caller.id, name ?? null];
}

/** Calls of one file. A file continues where the page of the same address begins. */
const CALLS = 1_000;

export async function callsCsv(c: HttpContext, { after, tool, key, outcome }: CallsView): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const [found, names] = await Promise.all([
    callsOf(c, { after, tool, key, outcome, limit: CALLS }, control),
    metricsStore(control).callerNames(tenantOf(c)),
  ]);
  const rows = found.calls.map(({ at, id, tool: called, outcome: end, code, caller, units, ms, dbMs, reportId }) => [
    ...[at, id, called, end, code],
    ...(caller === null
      ? [null, null, null]
      : [caller.kind, caller.id, names.get(`${caller.kind}:${caller.id}`) ?? null]),
    ...[units, ms, dbMs, reportId],
  ]);
  const header = ["time", "receipt", "tool", "outcome", "code", "caller_kind", "caller_id", "caller_name"];
  return csvFile(`calls-${dayOf(Date.now())}`, [...header, "units", "total_ms", "database_ms", "report"], rows);
}
