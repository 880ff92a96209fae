// The charts of metrics over time: calls by outcome, and latency.
import type { FC } from "hono/jsx";
import { callEnds } from "../../core/call.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import type { metricsOf } from "../../metering/metrics/api.ts";
import { Chart, type ChartProps, labelOf } from "../parts/chart.tsx";
import { count, duration } from "../parts/figures.tsx";
import { outcomeWords } from "./words.tsx";

type Metrics = Awaited<ReturnType<typeof metricsOf>>;
type Point = Metrics["points"][number];

export const UsageCharts: FC<{ metrics: Metrics; step: "hour" | "day" }> = ({ metrics, step }) => {
  const points = filled(metrics, step);
  const axis = step === "hour" ? "Hour" : "Day";
  const shared = { axis, points: points.map(({ atMs }) => labelOf(atMs, step)) };
  const tones = { ok: 1, failed: 2, refused: 3, repeated: 4 } as const;
  const shown = callEnds.filter((end) => end === "ok" || metrics.total[end] > 0);
  const calls: ChartProps["series"] = shown.map((end) => ({
    ...{ name: outcomeWords[end].text, tone: tones[end] },
    values: points.map(({ point }) => point?.[end] ?? 0),
  }));
  const { total } = metrics;
  return (
    <div class="charts">
      <div class="card">
        <Chart
          {...{ ...shared, id: "calls", title: `Calls by ${step}`, kind: "bars", series: calls, format: count }}
          description={`${count(total.calls)} calls, of which ${count(total.ok)} were answered, ${count(total.failed)} failed and ${count(total.refused)} were refused.`}
        />
      </div>
      <div class="card">
        <Chart
          {...{ ...shared, id: "latency", title: `Latency by ${step}`, kind: "lines", format: duration }}
          series={[
            { name: "Median", tone: 1, values: points.map(({ point }) => point?.p50Ms ?? null) },
            { name: "95th percentile", tone: 3, values: points.map(({ point }) => point?.p95Ms ?? null) },
          ]}
          totals={[duration(total.p50Ms), duration(total.p95Ms)]}
          description={`Half of the calls took at most ${duration(total.p50Ms)}, and 95 % at most ${duration(total.p95Ms)}.`}
        />
      </div>
    </div>
  );
};

/** Every hour or day of the range, also those without calls. */
function filled({ from, to, points }: Metrics, step: "hour" | "day"): { atMs: number; point: Point | undefined }[] {
  const byTime = new Map(points.map((point) => [Date.parse(point.at), point]));
  const stepMs = step === "hour" ? HOUR_MS : DAY_MS;
  const found = [];
  for (let atMs = Date.parse(from); atMs < Date.parse(to); atMs += stepMs)
    found.push({ atMs, point: byTime.get(atMs) });
  return found;
}
