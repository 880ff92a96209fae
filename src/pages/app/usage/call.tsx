// One call by its receipt: what became of it, and where it is billed.
import type { FC } from "hono/jsx";
import { joinBatches } from "../../../adapters/neon.ts";
import { type HttpContext, tenantOf } from "../../../http.ts";
import { callOf } from "../../../metering/metrics/api.ts";
import { metricsStore } from "../../../metering/metrics/metrics-store.ts";
import { Copyable } from "../../parts/code.tsx";
import { Instant, count, duration } from "../../parts/figures.tsx";
import { Badge } from "../../parts/notice.tsx";
import { accountPage, accountPath } from "../account-page.tsx";
import { nameIn } from "./calls.tsx";
import { CallerName, Outcome, outcomeWords } from "./words.tsx";

/** GET /app/:tenantId/calls/:receipt */
export async function showCallPage(c: HttpContext): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const [{ call, report }, names] = await Promise.all([
    callOf(c, control),
    metricsStore(control).callerNames(tenantOf(c)),
  ]);
  const { id, at, tool, units, outcome, code, caller, ms, dbMs, inLedger } = call;
  return accountPage(
    c,
    {
      ...{ title: "Call", section: "/calls", scripts: "own" },
      lead: <a href={accountPath(c, "/calls")}>All calls</a>,
    },
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
          <Billed inLedger={inLedger} units={units} report={report} path={accountPath(c, "/reports")} />
        </dd>
      </dl>
    </div>,
  );
}

type ReportOfCall = Awaited<ReturnType<typeof callOf>>["report"];

const Billed: FC<{ inLedger: boolean; units: number; report: ReportOfCall; path: string }> = (props) => {
  const { inLedger, units, report, path } = props;
  if (units === 0) return <>Nothing: the call is free</>;
  if (!inLedger) return <Badge tone="accent">On its way to the ledger</Badge>;
  if (report === null) return <Badge tone="accent">In the ledger, reported within minutes</Badge>;
  const isSettled = "confirmedAt" in report ? report.confirmedAt !== null : report.settledAt !== null;
  return (
    <>
      <Badge tone={isSettled ? "good" : "accent"}>{isSettled ? "Stripe has it" : "On its way to Stripe"}</Badge> in{" "}
      <a href={`${path}/${encodeURIComponent(report.id)}`}>
        a report of {count(report.units)} units, {count(report.calls)} calls
      </a>
    </>
  );
};
