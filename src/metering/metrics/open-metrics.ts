// The text format of OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/), and the figures of the whole
// deployment in it. Pure. Labels are tools, plans, states, error codes and indicators: few, and never a tenant, a key or a person.
import { LATENCY_BOUNDS_MS } from "./fold.ts";
import type { TenantCount, Total } from "./metrics-store.ts";

export const OPEN_METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Readonly<Record<string, string>>;

interface Sample {
  /** What follows the family's name: `_total`, `_bucket`, `_count`, `_sum` or nothing. */
  suffix?: "_total" | "_bucket" | "_count" | "_sum";
  labels: Labels;
  value: number;
}

export interface Family {
  name: string;
  type: "counter" | "gauge" | "histogram";
  /** The name ends in it. */
  unit?: "seconds";
  help: string;
  samples: readonly Sample[];
}

/** The text of the families. */
export function openMetrics(families: readonly Family[]): string {
  const lines = families.flatMap(({ name, type, unit, help, samples }) => [
    `# TYPE ${name} ${type}`,
    ...(unit === undefined ? [] : [`# UNIT ${name} ${unit}`]),
    `# HELP ${name} ${escaped(help)}`,
    ...samples.map(({ suffix = "", labels, value }) => `${name}${suffix}${labelsOf(labels)} ${value}`),
  ]);
  return `${[...lines, "# EOF"].join("\n")}\n`;
}

function labelsOf(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}

export interface Fleet {
  totals: readonly Total[];
  tenants: readonly TenantCount[];
  /** `value: null`: there is nothing to measure. `level`: 0 is well, 1 a warning, 2 critical. */
  indicators: readonly { name: string; unit: string; value: number | null; level: number }[];
}

/** The figures of the deployment. Counters begin with its first call and never fall. */
export function fleetMetrics({ totals, tenants, indicators }: Fleet): Family[] {
  const counter = (name: string, help: string, samples: readonly Sample[]): Family => ({
    ...{ name: `tollgate_${name}`, type: "counter", help },
    samples: samples.map((sample) => ({ ...sample, suffix: "_total" })),
  });
  const gauge = (name: string, help: string, samples: readonly Sample[]): Family => {
    return { name: `tollgate_${name}`, type: "gauge", help, samples };
  };
  const byToolAndPlan = sumsBy(totals, ({ tool, plan }) => ({ tool, plan }));
  const ended = (outcome: Total["outcome"]) =>
    sumsBy(
      totals.filter((total) => total.outcome === outcome),
      ({ code, plan }) => ({ code: code === "" ? "none" : code, plan }),
    );
  return [
    counter(
      "calls",
      "Tool calls that have ended. Outcomes: ok, failed, refused, repeated.",
      sumsBy(totals, ({ tool, plan, outcome }) => ({ tool, plan, outcome })).map(({ labels, calls }) => ({
        ...{ labels, value: calls },
      })),
    ),
    counter(
      "units",
      "Units of charged calls.",
      byToolAndPlan.map(({ labels, units }) => ({ labels, value: units })),
    ),
    counter(
      "refusals",
      "Refused calls by error code.",
      ended("refused").map(({ labels, calls }) => ({ labels, value: calls })),
    ),
    counter(
      "failures",
      "Failed calls by error code. none: the tool itself answered with an error.",
      ended("failed").map(({ labels, calls }) => ({ labels, value: calls })),
    ),
    {
      ...counter(
        "database_seconds",
        "Time of calls in their tenants' databases.",
        byToolAndPlan.map(({ labels, dbMs }) => ({ labels, value: dbMs / 1_000 })),
      ),
      unit: "seconds",
    },
    {
      ...{ name: "tollgate_call_duration_seconds", type: "histogram", unit: "seconds" },
      help: "Time of calls whose tool ran, from their arrival in the tenant's object to the answer.",
      samples: byToolAndPlan.filter(({ latency }) => latency.some((calls) => calls > 0)).flatMap(histogram),
    },
    gauge(
      "tenants",
      "Tenants by state and plan.",
      tenants.map(({ state, plan, tenants: value }) => ({ labels: { state, plan }, value })),
    ),
    gauge(
      "indicator",
      "Indicators of metering, reporting and background work: ages of the outbox and of events, dead letters and others.",
      indicators.flatMap(({ name, unit, value }) => (value === null ? [] : [{ labels: { name, unit }, value }])),
    ),
    gauge(
      "indicator_level",
      "Level of each indicator: 0 well, 1 warning, 2 critical.",
      indicators.map(({ name, level }) => ({ labels: { name }, value: level })),
    ),
  ];
}

interface Sums extends Pick<Total, "calls" | "units" | "ms" | "dbMs" | "latency"> {
  labels: Labels;
}

function sumsBy(totals: readonly Total[], labelsFor: (total: Total) => Labels): Sums[] {
  const sums = new Map<string, Sums>();
  for (const total of totals) {
    const labels = labelsFor(total);
    const key = JSON.stringify(labels);
    const sum = sums.get(key) ?? { labels, calls: 0, units: 0, ms: 0, dbMs: 0, latency: total.latency.map(() => 0) };
    sums.set(key, {
      ...{ labels, calls: sum.calls + total.calls, units: sum.units + total.units },
      ...{ ms: sum.ms + total.ms, dbMs: sum.dbMs + total.dbMs },
      latency: sum.latency.map((calls, index) => calls + (total.latency[index] ?? 0)),
    });
  }
  return [...sums.values()];
}

function histogram({ labels, ms, latency }: Sums): Sample[] {
  let below = 0;
  const buckets = latency.map((calls, index): Sample => {
    below += calls;
    const bound = LATENCY_BOUNDS_MS[index];
    return {
      suffix: "_bucket",
      labels: { ...labels, le: bound === undefined ? "+Inf" : float(bound / 1_000) },
      value: below,
    };
  });
  return [...buckets, { suffix: "_count", labels, value: below }, { suffix: "_sum", labels, value: ms / 1_000 }];
}

/** A bound as OpenMetrics writes floats: `1.0`. */
function float(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
