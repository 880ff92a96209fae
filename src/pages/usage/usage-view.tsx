// Usage over a range of days: calls by outcome, latency, and one table by tool, caller or outcome. Units are the ledger's, which
// are what is billed. Everything else comes from metrics, about a minute late.
import type { Child, FC } from "hono/jsx";
import type { HttpContext } from "../../http.ts";
import type { metricsOf } from "../../metering/metrics/api.ts";
import { metricGroups } from "../../metering/metrics/metrics-store.ts";
import { Instant, count, duration, percent } from "../parts/figures.tsx";
import { Empty } from "../parts/notice.tsx";
import { type Column, Table } from "../parts/table.tsx";
import { Range, query as queryOf } from "./range.tsx";
import { UsageCharts } from "./usage-charts.tsx";
import { type UsageView, usageFigures } from "./usage-figures.ts";
import { Sums } from "./usage-sums.tsx";
import { CallerName, Outcome, isOutcome } from "./words.tsx";

type Metrics = Awaited<ReturnType<typeof metricsOf>>;
type Point = Metrics["points"][number];

/** The usage of the path's tenant. `path`: of the page, which the customer has and the operator. `csv`: of its file. */
export async function usageView(c: HttpContext, query: UsageView, path: string, csv?: string): Promise<Child> {
  const { by } = query;
  const figures = await usageFigures(c, query);
  const { shown, filters, isFiltered, overTime, grouped, ledger, before } = figures;
  const here = { ...shown.address, by, ...filters };
  const pathTo = (changes: Readonly<Record<string, string | undefined>>): string =>
    path + queryOf({ ...here, ...changes });
  return (
    <>
      <Range path={path} shown={shown} presets={figures.presets} others={{ by, ...filters }} />
      {isFiltered && <Filters filters={filters} without={(name) => pathTo({ [name]: undefined })} />}
      <Sums
        metrics={overTime}
        ledger={isFiltered ? undefined : ledger}
        before={{ metrics: figures.metricsBefore, ledger: isFiltered ? undefined : figures.ledgerBefore }}
        stored={isFiltered ? undefined : figures.stored}
      />
      <p class="small muted">
        Compared with the same time before: from <Instant at={before.startMs} /> to <Instant at={before.endMs} />.
        {csv !== undefined && (
          <>
            {" "}
            <a href={csv + queryOf(here)} download="">
              Download by {shown.step} (CSV)
            </a>
          </>
        )}
      </p>
      {overTime.total.calls > 0 && <UsageCharts metrics={overTime} step={shown.step} />}
      <nav class="tabs" aria-label="Group by">
        {metricGroups.map((each) => (
          <a href={pathTo({ by: each })} aria-current={each === by ? "true" : undefined}>
            {groupWords[each]}
          </a>
        ))}
      </nav>
      <Groups points={grouped.points} by={by} total={grouped.total} link={pathTo} />
      {csv !== undefined && (
        <p class="small">
          <a href={csv + queryOf({ ...here, rows: "groups" })} download="">
            Download this table (CSV)
          </a>
        </p>
      )}
    </>
  );
}

const groupWords = { tool: "By tool", caller: "By key and member", outcome: "By outcome" } as const;

const filterNames = ["tool", "caller", "outcome"] as const;

interface FiltersProps {
  filters: Readonly<Record<(typeof filterNames)[number], string | undefined>>;
  /** The same page without one of them. */
  without: (name: (typeof filterNames)[number]) => string;
}

const Filters: FC<FiltersProps> = ({ filters, without }) => (
  <p class="chips">
    {filterNames.map(
      (name) =>
        filters[name] !== undefined && (
          <a class="chip" href={without(name)} title="Remove this filter">
            {name === "caller" ? "key or member" : name}: <b>{filters[name]}</b> <span aria-hidden="true">×</span>
            <span class="sr-only">, remove this filter</span>
          </a>
        ),
    )}
  </p>
);

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
