// One call by its receipt: what became of it, and where it is billed.
import type { Child, FC } from "hono/jsx";
import { joinBatches } from "../../adapters/neon.ts";
import { type HttpContext, tenantOf } from "../../http.ts";
import { callOf } from "../../metering/metrics/api.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { Copyable } from "../parts/code.tsx";
import { Instant, count, duration } from "../parts/figures.tsx";
import { Badge } from "../parts/notice.tsx";
import { nameIn } from "./calls-view.tsx";
import { CallerName, Outcome, outcomeWords } from "./words.tsx";

/** The call that the path names. `reportsPath`: of the pages with reports to Stripe, which the customer has. */
export async function callView(c: HttpContext, reportsPath?: string): Promise<Child> {
  const control = joinBatches(c.get("context").control);
  const [{ call, report }, names] = await Promise.all([
    callOf(c, control),
    metricsStore(control).callerNames(tenantOf(c)),
  ]);
  const { id, at, tool, units, outcome, code, caller, ms, dbMs, inLedger } = call;
  return (
    <div class="narrow">
      <Copyable text={id} caption="Receipt" />
      <dl class="facts card">
        <dt>Tool</dt>
        <dd>{tool}</dd>
        <dt>Outcome</dt>
        <dd>
          <Outcome outcome={outcome} code={code} />
          <p class="muted small">{outcomeWords[outcome].meaning}</p>
        </dd>
        <dt>Admitted</dt>
        <dd>
          <Instant at={at} hasSeconds /> UTC
        </dd>
        <dt>By</dt>
        <dd>
          <CallerName caller={caller} name={nameIn(names, caller)} />
        </dd>
        <dt>Units</dt>
        <dd>{count(units)}</dd>
        <dt>Time</dt>
        <dd>
          {duration(ms)}
          {dbMs !== null && <span class="muted">, of which the database took {duration(dbMs)}</span>}
        </dd>
        <dt>Billed</dt>
        <dd>
          <Billed inLedger={inLedger} units={units} report={report} path={reportsPath} />
        </dd>
      </dl>
    </div>
  );
}

type ReportOfCall = Awaited<ReturnType<typeof callOf>>["report"];

const Billed: FC<{ inLedger: boolean; units: number; report: ReportOfCall; path: string | undefined }> = (props) => {
  const { inLedger, units, report, path } = props;
  if (units === 0) return <>Nothing: the call is free</>;
  if (!inLedger) return <Badge tone="accent">On its way to the ledger</Badge>;
  if (report === null) return <Badge tone="accent">In the ledger, reported within minutes</Badge>;
  const text = `a report of ${count(report.units)} units, ${count(report.calls)} calls`;
  const isSettled = "confirmedAt" in report ? report.confirmedAt !== null : report.settledAt !== null;
  return (
    <>
      <Badge tone={isSettled ? "good" : "accent"}>{isSettled ? "Stripe has it" : "On its way to Stripe"}</Badge> in{" "}
      {path === undefined ? text : <a href={`${path}/${encodeURIComponent(report.id)}`}>{text}</a>}
    </>
  );
};
