// The whole deployment at a glance: its tenants, what they did over time, and what a person must look at.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import type { HttpContext } from "../../http.ts";
import { type FleetPoint, fleetMetricsStore } from "../../metering/metrics/fleet-metrics-store.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { METRICS_KEPT_MS } from "../../metering/metrics/api.ts";
import { currentIndicators } from "../../operations/api.ts";
import { Chart, labelOf } from "../parts/chart.tsx";
import { Figure, change, count, counted } from "../parts/figures.tsx";
import { Notice } from "../parts/notice.tsx";
import { Runbook } from "./money/pipeline.tsx";
import { operatorPage } from "./operator-page.tsx";
import { failedShare } from "./tenants/tenants.tsx";

const PATH = "/admin";

const ranges = {
  day: { text: "24 hours", step: "hour", stepMs: HOUR_MS, steps: 24 },
  week: { text: "7 days", step: "hour", stepMs: HOUR_MS, steps: 7 * 24 },
  month: { text: "30 days", step: "day", stepMs: DAY_MS, steps: 30 },
  year: { text: "365 days", step: "day", stepMs: DAY_MS, steps: 365 },
} as const;
type Range = keyof typeof ranges;
const rangeNames = Object.keys(ranges) as [Range, ...Range[]];

/** The hours or days of the range, the current one included. */
export function rangeAt(range: Range, nowMs: number): { fromMs: number; toMs: number; step: "hour" | "day" } {
  const { step, stepMs, steps } = ranges[range];
  const toMs = (Math.floor(nowMs / stepMs) + 1) * stepMs;
  return { fromMs: toMs - steps * stepMs, toMs, step };
}

/**
 * The time before the range, of the same length up to now: the current hour counts as a whole in both. `undefined`: metrics are not
 * kept for as long.
 */
export function rangeBefore(
  range: Range,
  nowMs: number,
): { fromMs: number; toMs: number; step: "hour" | "day" } | undefined {
  const { fromMs, toMs, step } = rangeAt(range, nowMs);
  const lengthMs = toMs - fromMs;
  if (fromMs - lengthMs < nowMs - METRICS_KEPT_MS) return undefined;
  const hourEndMs = (Math.floor(nowMs / HOUR_MS) + 1) * HOUR_MS;
  return { fromMs: fromMs - lengthMs, toMs: hourEndMs - lengthMs, step };
}

export const OverviewQuery = z.object({ range: z.enum(rangeNames).default("month") });

/** GET /admin */
export async function showFleet(
  c: HttpContext,
  { query: { range } }: { query: z.infer<typeof OverviewQuery> },
): Promise<Response> {
  const context = c.get("context");
  const control = joinBatches(context.control);
  const nowMs = Date.now();
  const { fromMs, toMs, step } = rangeAt(range, nowMs);
  const before = rangeBefore(range, nowMs);
  const [points, earlier, { tenants }, { indicators }] = await Promise.all([
    fleetMetricsStore(control).series({ fromMs, toMs, step }),
    before && fleetMetricsStore(control).series(before),
    metricsStore(control).fleet(),
    currentIndicators({ ...context, control }, nowMs),
  ]);
  const sums = sumOf(points);
  const { calls, failed } = sums;
  const then = earlier && sumOf(earlier);
  const compared = (name: "calls" | "units"): string =>
    then === undefined ? ranges[range].text : change(sums[name], then[name], `the ${ranges[range].text} before`);
  const inState = (...states: string[]): number =>
    tenants.filter(({ state }) => states.includes(state)).reduce((total, each) => total + each.tenants, 0);
  const alarms = indicators.filter(({ level }) => level !== "ok");
  return operatorPage(
    c,
    {
      ...{ title: "Overview", section: PATH, lead: "All tenants together. Days and hours in UTC." },
      actions: (
        <>
          <nav class="tabs" aria-label="Range">
            {rangeNames.map((name) => (
              <a href={`${PATH}?range=${name}`} aria-current={name === range ? "page" : undefined}>
                {ranges[name].text}
              </a>
            ))}
          </nav>
          <a class="button" href={`${PATH}/figures.csv?range=${range}`} download="">
            Download CSV
          </a>
        </>
      ),
    },
    <>
      {alarms.length === 0 ? (
        <Notice tone="good">Every indicator is within its bounds.</Notice>
      ) : (
        alarms.map((alarm) => <Runbook shown={alarm} />)
      )}
      <div class="grid">
        <Figure
          name="Tenants served"
          value={count(inState("active", "trial", "past_due"))}
          note={`${count(inState("past_due"))} past due, ${count(inState("suspended", "leaving"))} not served`}
        />
        <Figure name="Calls" value={count(calls)} note={compared("calls")} />
        <Figure name="Units" value={count(sums.units)} note={compared("units")} />
        <Figure
          name="Errors"
          value={failedShare(sums)}
          note={`${counted(failed, "failed call")}${then === undefined || then.calls === 0 ? "" : `, ${failedShare(then)} in the ${ranges[range].text} before`}`}
        />
      </div>
      <FleetCharts points={points} fromMs={fromMs} range={range} />
    </>,
  );
}

type Sums = Pick<FleetPoint, "calls" | "units" | "failed">;

function sumOf(points: readonly FleetPoint[]): Sums {
  const none: Sums = { calls: 0, units: 0, failed: 0 };
  return points.reduce<Sums>(
    (sum, each) => ({
      calls: sum.calls + each.calls,
      units: sum.units + each.units,
      failed: sum.failed + each.failed,
    }),
    none,
  );
}

/** Every hour or day of the range, also those without calls. */
const FleetCharts: FC<{ points: readonly FleetPoint[]; fromMs: number; range: Range }> = ({
  points,
  fromMs,
  range,
}) => {
  const { step, stepMs, steps } = ranges[range];
  const byTime = new Map(points.map((point) => [Date.parse(point.at), point]));
  const all = Array.from({ length: steps }, (_, index) => fromMs + index * stepMs);
  const valuesOf = (of: (point: FleetPoint) => number): number[] =>
    all.map((atMs) => {
      const point = byTime.get(atMs);
      return point === undefined ? 0 : of(point);
    });
  const shared = {
    axis: step === "day" ? "Day (UTC)" : "Hour (UTC)",
    points: all.map((atMs) => labelOf(atMs, step)),
    format: count,
  };
  return (
    <div class="split">
      <div class="card">
        <Chart
          {...{ ...shared, id: "calls", title: `Calls by ${step}`, kind: "bars" }}
          series={[
            { name: "Answered", tone: 1, values: valuesOf(({ calls, failed, refused }) => calls - failed - refused) },
            { name: "Failed", tone: 3, values: valuesOf(({ failed }) => failed) },
            { name: "Refused", tone: 2, values: valuesOf(({ refused }) => refused) },
          ]}
          description={`Calls of all tenants by ${step}, by what came of them.`}
        />
      </div>
      <div class="card">
        <Chart
          {...{ ...shared, id: "units", title: `Units by ${step}`, kind: "bars" }}
          series={[{ name: "Units", tone: 1, values: valuesOf(({ units }) => units) }]}
          description={`Units of all tenants by ${step}.`}
        />
      </div>
    </div>
  );
};
