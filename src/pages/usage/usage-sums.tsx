// The sums of a range, each with its difference from the time before. The words and the arrow say it; no colour does.
import type { FC } from "hono/jsx";
import type { usageOf } from "../../metering/api.ts";
import type { metricsOf } from "../../metering/metrics/api.ts";
import { Figure, count, duration, percent, units } from "../parts/figures.tsx";
import { type Difference, difference } from "./comparison.ts";
import { Storage, type storedBy } from "./limits.tsx";

type Metrics = Awaited<ReturnType<typeof metricsOf>>;
type Ledger = NonNullable<Awaited<ReturnType<typeof usageOf>>>;

interface SumsProps {
  metrics: Pick<Metrics, "total">;
  /** Unless the page shows some of the calls only, which the ledger does not tell apart. */
  ledger: Pick<Ledger, "total"> | undefined;
  /** Of the time before. */
  before: { metrics: Pick<Metrics, "total">; ledger: Pick<Ledger, "total"> | undefined };
  stored: Awaited<ReturnType<typeof storedBy>>;
}

const counts = { format: count, more: "more", less: "fewer" };

export const Sums: FC<SumsProps> = ({ metrics: { total }, ledger, before, stored }) => {
  const charged = ledger?.total.units ?? total.units;
  const chargedBefore = before.ledger?.total.units ?? before.metrics.total.units;
  const errors = total.failed + total.refused;
  const errorsBefore = before.metrics.total.failed + before.metrics.total.refused;
  const slower = difference(total.p95Ms, before.metrics.total.p95Ms, {
    ...{ format: duration, more: "slower", less: "faster" },
  });
  return (
    <div class="card strip">
      <Figure
        name="Units charged"
        value={count(charged)}
        note={<Notes of={[lag(charged, total.units), difference(charged, chargedBefore, counts)]} />}
      />
      <Figure
        name="Calls"
        value={count(total.calls)}
        note={
          <Notes
            of={[
              total.repeated > 0 ? `${count(total.repeated)} repeated, free` : undefined,
              difference(total.calls, before.metrics.total.calls, counts),
            ]}
          />
        }
      />
      <Figure
        name="Errors"
        value={percent(errors, total.calls)}
        note={
          <Notes
            of={[
              `${count(total.failed)} failed, ${count(total.refused)} refused`,
              difference(errors, errorsBefore, counts),
            ]}
          />
        }
      />
      <Figure
        name="Latency, median"
        value={duration(total.p50Ms)}
        note={<Notes of={[`95 % within ${duration(total.p95Ms)}`, slower]} />}
      />
      <Figure
        name="Database time"
        value={duration(total.dbMs)}
        note={total.ms === 0 ? undefined : `${percent(Math.min(total.dbMs, total.ms), total.ms)} of the calls' time`}
      />
      <Storage of={stored} />
    </div>
  );
};

const Notes: FC<{ of: readonly (string | Difference | undefined)[] }> = ({ of }) => (
  <>
    {of.map((each) =>
      each === undefined ? null : <div>{typeof each === "string" ? each : <Change of={each} />}</div>,
    )}
  </>
);

/** A picture, because not every font has arrows. */
const Change: FC<{ of: Difference }> = ({ of: { direction, text } }) => (
  <>
    {direction !== undefined && (
      <svg class="arrow" viewBox="0 0 12 12" aria-hidden="true">
        <path d={direction === "up" ? "M6 11V1M2 5l4-4 4 4" : "M6 1v10M2 7l4 4 4-4"} />
      </svg>
    )}
    {text}
  </>
);

/** The ledger and the charts get a call by two ways, one of which may be later. */
function lag(inLedger: number, inCharts: number): string | undefined {
  if (inLedger > inCharts) return `${units(inLedger - inCharts)} not in the charts yet`;
  return inCharts > inLedger ? `${units(inCharts - inLedger)} on the way` : undefined;
}
