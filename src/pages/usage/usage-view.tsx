// Usage over a range of days: calls by outcome, latency, and one table by tool, caller or outcome. Units are the ledger's, which
// are what is billed. Everything else comes from metrics, about a minute late.
import type { Child, FC } from "hono/jsx";
import * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import { callEnds } from "../../core/call.ts";
import { DAY_MS } from "../../core/time.ts";
import { type HttpContext, noSuchTenant, tenantOf } from "../../http.ts";
import { periodOf, usageOf } from "../../metering/api.ts";
import { type MetricsQuery, metricsOf } from "../../metering/metrics/api.ts";
import { metricGroups } from "../../metering/metrics/metrics-store.ts";
import { Figure, count, duration, percent, units } from "../parts/figures.tsx";
import { Empty } from "../parts/notice.tsx";
import { type Column, Table } from "../parts/table.tsx";
import { Storage, storedBy } from "./limits.tsx";
import { type Days, Range, shownDays, query as queryOf } from "./range.tsx";
import { UsageCharts } from "./usage-charts.tsx";
import { CallerName, Outcome, isOutcome } from "./words.tsx";

const Name = z.string().min(1).max(90).optional();

export const UsageView = z.strictObject({
  /** Days in UTC, both included. */
  from: z.iso.date().optional(),
  to: z.iso.date().optional(),
  by: z.enum(metricGroups).default("tool"),
  tool: Name,
  caller: Name,
  outcome: z.enum(callEnds).optional(),
});
export type UsageView = z.infer<typeof UsageView>;

/** A chart of this many days or fewer has a bar for each hour. */
const DAYS_BY_HOUR = 2;
/** Rows of the table. An account has few tools and some dozens of callers. */
const MOST_ROWS = 500;
/** The page shows the ledger's sums, and not their reports. */
const NO_REPORTS = { after: null, limit: 0 };

type Metrics = Awaited<ReturnType<typeof metricsOf>>;
type Point = Metrics["points"][number];

/** The usage of the path's tenant. `path`: of the page, which the customer has and the operator. */
export async function usageView(c: HttpContext, query: UsageView, path: string): Promise<Child> {
  const tenantId = tenantOf(c);
  const nowMs = Date.now();
  const days = shownDays(query, nowMs);
  const { by, tool, caller, outcome } = query;
  const length = (Date.parse(days.to) - Date.parse(days.from)) / DAY_MS + 1;
  const step = length <= DAYS_BY_HOUR ? "hour" : "day";
  const filter: Omit<MetricsQuery, "step" | "limit"> = { ...days, tool, caller, outcome, after: "" };
  const control = joinBatches(c.get("context").control);
  const [overTime, grouped, ledger, stored] = await Promise.all([
    metricsOf(control, tenantId, { ...filter, step, limit: length * (step === "hour" ? 24 : 1) + 1 }),
    metricsOf(control, tenantId, { ...filter, step: "total", by, limit: MOST_ROWS }),
    usageOf(control, tenantId, periodOf(days), NO_REPORTS),
    storedBy(c),
  ]);
  if (ledger === undefined) throw noSuchTenant();
  const filters = { tool, caller, outcome };
  const isFiltered = Object.values(filters).some((value) => value !== undefined);
  return (
    <>
      <Range path={path} days={days} others={{ by, ...filters }} nowMs={nowMs} />
      {isFiltered && <Filters path={path} view={{ ...days, by, ...filters }} />}
      <Sums metrics={overTime} ledger={isFiltered ? undefined : ledger} stored={isFiltered ? undefined : stored} />
      {overTime.total.calls > 0 && <UsageCharts metrics={overTime} step={step} />}
      <nav class="tabs" aria-label="Group by">
        {metricGroups.map((each) => (
          <a href={path + queryOf({ ...days, ...filters, by: each })} aria-current={each === by ? "true" : undefined}>
            {groupWords[each]}
          </a>
        ))}
      </nav>
      <Groups
        points={grouped.points}
        by={by}
        total={grouped.total}
        link={(found) => path + queryOf({ ...days, by, ...filters, ...found })}
      />
    </>
  );
}

const groupWords = { tool: "By tool", caller: "By key and member", outcome: "By outcome" } as const;

const Filters: FC<{ path: string; view: Days & Partial<Record<string, string | undefined>> }> = ({ path, view }) => (
  <p class="chips">
    {(["tool", "caller", "outcome"] as const).map(
      (name) =>
        view[name] !== undefined && (
          <a class="chip" href={path + queryOf({ ...view, [name]: undefined })} title="Remove this filter">
            {name === "caller" ? "key or member" : name}: <b>{view[name]}</b> <span aria-hidden="true">×</span>
            <span class="sr-only">, remove this filter</span>
          </a>
        ),
    )}
  </p>
);

type Ledger = NonNullable<Awaited<ReturnType<typeof usageOf>>>;

interface SumsProps {
  metrics: Metrics;
  /** Unless the page shows some of the calls only, which the ledger does not tell apart. */
  ledger: Ledger | undefined;
  stored: Awaited<ReturnType<typeof storedBy>>;
}

const Sums: FC<SumsProps> = ({ metrics: { total }, ledger, stored }) => {
  const charged = ledger?.total.units ?? total.units;
  const errors = total.failed + total.refused;
  return (
    <div class="card strip">
      <Figure name="Units charged" value={count(charged)} note={lag(charged, total.units)} />
      <Figure
        name="Calls"
        value={count(total.calls)}
        note={total.repeated > 0 ? `${count(total.repeated)} repeated, free` : undefined}
      />
      <Figure
        name="Errors"
        value={percent(errors, total.calls)}
        note={`${count(total.failed)} failed, ${count(total.refused)} refused`}
      />
      <Figure name="Latency, median" value={duration(total.p50Ms)} note={`95 % within ${duration(total.p95Ms)}`} />
      <Figure
        name="Database time"
        value={duration(total.dbMs)}
        note={total.ms === 0 ? undefined : `${percent(Math.min(total.dbMs, total.ms), total.ms)} of the calls' time`}
      />
      <Storage of={stored} />
    </div>
  );
};

/** The ledger and the charts get a call by two ways, one of which may be later. */
function lag(inLedger: number, inCharts: number): string | undefined {
  if (inLedger > inCharts) return `${units(inLedger - inCharts)} not in the charts yet`;
  return inCharts > inLedger ? `${units(inCharts - inLedger)} on the way` : undefined;
}

interface GroupsProps {
  points: readonly Point[];
  total: Metrics["total"];
  by: UsageView["by"];
  link: (filter: Partial<Pick<UsageView, "tool" | "caller" | "outcome">>) => string;
}

const Groups: FC<GroupsProps> = ({ points, total, by, link }) => {
  const columns: Column<Point>[] = [
    { head: groupHeads[by], isHead: true, cell: (point) => nameOf(point, link) },
    { head: "Calls", isNumber: true, cell: ({ calls }) => count(calls) },
    { head: "Units", isNumber: true, cell: (point) => count(point.units) },
    { head: "Share of calls", isNumber: true, cell: ({ calls }) => percent(calls, total.calls) },
    { head: "Errors", isNumber: true, cell: ({ calls, failed, refused }) => percent(failed + refused, calls) },
    { head: "Median", isNumber: true, cell: ({ p50Ms }) => duration(p50Ms) },
    { head: "95 %", isNumber: true, cell: ({ p95Ms }) => duration(p95Ms) },
    { head: "Database", isNumber: true, cell: ({ dbMs }) => duration(dbMs) },
  ];
  return (
    <Table
      caption={`Usage ${groupWords[by].toLowerCase()}`}
      hidesCaption
      columns={columns}
      rows={points.toSorted((a, b) => b.units - a.units || b.calls - a.calls)}
      empty={
        <Empty title="No calls in this range">
          <p>Choose another range, or connect an agent. Calls appear here within about a minute.</p>
        </Empty>
      }
    />
  );
};

const groupHeads = { tool: "Tool", caller: "Key or member", outcome: "Outcome" } as const;

function nameOf({ tool, caller, name, outcome, code }: Point, link: GroupsProps["link"]): Child {
  if (tool !== undefined) return <a href={link({ tool })}>{tool}</a>;
  if (outcome !== undefined && isOutcome(outcome)) return <Outcome outcome={outcome} code={code ?? null} />;
  if (caller === undefined) return null;
  const shown = <CallerName caller={caller} name={name} />;
  return caller.id === null ? shown : <a href={link({ caller: `${caller.kind}:${caller.id}` })}>{shown}</a>;
}
