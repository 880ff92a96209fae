// The whole deployment at a glance: its tenants, what they did over time, and what a person must look at.
import * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import type { HttpContext } from "../../http.ts";
import { type FleetPoint, fleetMetricsStore } from "../../metering/metrics/fleet-metrics-store.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { currentIndicators } from "../../operations/api.ts";
import { Figure, Instant, count } from "../parts/figures.tsx";
import { Notice } from "../parts/notice.tsx";
import { Table } from "../parts/table.tsx";
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

export const OverviewQuery = z.object({ range: z.enum(rangeNames).default("month") });

/** GET /admin */
export async function showFleet(
  c: HttpContext,
  { query: { range } }: { query: z.infer<typeof OverviewQuery> },
): Promise<Response> {
  const context = c.get("context");
  const control = joinBatches(context.control);
  const nowMs = Date.now();
  const { step, stepMs, steps } = ranges[range];
  const toMs = (Math.floor(nowMs / stepMs) + 1) * stepMs;
  const [points, { tenants }, { indicators }] = await Promise.all([
    fleetMetricsStore(control).series({ fromMs: toMs - steps * stepMs, toMs, step }),
    metricsStore(control).fleet(),
    currentIndicators({ ...context, control }, nowMs),
  ]);
  const sum = (of: (point: FleetPoint) => number): number => points.reduce((total, point) => total + of(point), 0);
  const calls = sum((point) => point.calls);
  const failed = sum((point) => point.failed);
  const inState = (...states: string[]): number =>
    tenants.filter(({ state }) => states.includes(state)).reduce((total, each) => total + each.tenants, 0);
  const alarms = indicators.filter(({ level }) => level !== "ok");
  return operatorPage(
    c,
    {
      ...{ title: "Overview", section: PATH, lead: "All tenants together. Days and hours in UTC." },
      actions: (
        <nav class="tabs" aria-label="Range">
          {rangeNames.map((name) => (
            <a href={`${PATH}?range=${name}`} aria-current={name === range ? "page" : undefined}>
              {ranges[name].text}
            </a>
          ))}
        </nav>
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
        <Figure name="Calls" value={count(calls)} note={ranges[range].text} />
        <Figure name="Units" value={count(sum((point) => point.units))} note={ranges[range].text} />
        <Figure name="Errors" value={failedShare({ calls, failed })} note={`${count(failed)} failed calls`} />
      </div>
      <h2>Over time</h2>
      <Table
        caption={`The figures of all tenants by ${step}`}
        hidesCaption
        rows={points.toReversed()}
        empty={<p class="muted">No call in this range.</p>}
        columns={[
          {
            head: step === "day" ? "Day" : "Hour",
            isHead: true,
            cell: ({ at }) => <Instant at={at} isDay={step === "day"} />,
          },
          { head: "Calls", isNumber: true, cell: (point) => count(point.calls) },
          { head: "Units", isNumber: true, cell: (point) => count(point.units) },
          { head: "Failed", isNumber: true, cell: (point) => count(point.failed) },
          { head: "Refused", isNumber: true, cell: (point) => count(point.refused) },
          { head: "Tenants", isNumber: true, cell: (point) => count(point.tenants) },
        ]}
      />
    </>,
  );
}
