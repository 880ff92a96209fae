// The reports to Stripe of a part of a day, and the calls of one report or carry-forward.
import * as z from "zod";
import { BadRequest, type HttpContext, Problem, noSuchTenant, tenantOf } from "../../../http.ts";
import { DAY_MS } from "../../../core/time.ts";
import { UsageQuery, callsOfReport, usageOf } from "../../../metering/api.ts";
import { addUp, dayOf } from "../../../metering/invoice.ts";
import { Instant, count, units } from "../../parts/figures.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { accountPage, accountPath, may } from "../account-page.tsx";

/** A report covers five minutes at least: a day has no more than 288. */
const MOST_REPORTS = 1_000;
/** Calls on a page. */
const PAGE = 100;

const Moment = z.iso.datetime().startsWith("20");

/** A part of a day, today by default. `to` is exclusive. */
export const ReportsView = z.strictObject({ from: Moment.optional(), to: Moment.optional() });
const { after } = UsageQuery.shape;
export const ReportView = z.strictObject({ after });

/** GET /app/:tenantId/reports */
export async function showReportsPage(
  c: HttpContext,
  { query: { from, to } }: { query: z.infer<typeof ReportsView> },
): Promise<Response> {
  const startMs = from === undefined ? Date.parse(dayOf(Date.now())) : Date.parse(from);
  const period = { startMs, endMs: to === undefined ? startMs + DAY_MS : Date.parse(to) };
  const lengthMs = period.endMs - period.startMs;
  if (lengthMs <= 0 || lengthMs > DAY_MS) throw new BadRequest("to: must be at most a day after `from`");
  const found = await usageOf(c.get("context").control, tenantOf(c), period, { after: null, limit: MOST_REPORTS });
  if (found === undefined) throw noSuchTenant();
  const { reports, carryForwards } = found;
  const path = accountPath(c, "/reports");
  const sum = addUp(reports);
  return accountPage(
    c,
    {
      ...{ title: `Reports of ${dayOf(startMs)}`, section: "/invoices" },
      lead: (
        <>
          Every few minutes the calls of that time become one report, which never changes. Times are in UTC.{" "}
          {may(c, "billing:manage") && <a href={accountPath(c, "/invoices")}>All invoices</a>}
        </>
      ),
    },
    <>
      <Table
        caption="Reports"
        hidesCaption
        rows={reports}
        empty={
          <Empty title="No reports">
            <p>No call of this time cost units.</p>
          </Empty>
        }
        columns={[
          {
            head: "Minute at Stripe",
            isHead: true,
            cell: ({ id, minute }) => (
              <a href={`${path}/${encodeURIComponent(id)}`}>
                <Instant at={minute} />
              </a>
            ),
          },
          { head: "Calls", isNumber: true, cell: ({ calls }) => count(calls) },
          { head: "Units", isNumber: true, cell: (report) => count(report.units) },
          { head: "Stripe", cell: ({ confirmedAt, confirmedBy }) => <Confirmed at={confirmedAt} by={confirmedBy} /> },
        ]}
        foot={["Total", count(sum.calls), count(sum.units), ""]}
      />
      {carryForwards.length > 0 && (
        <>
          <h2>Billed by a later invoice</h2>
          <Table
            caption="Usage that came too late for the meter"
            hidesCaption
            rows={carryForwards}
            columns={[
              { head: "Id", isHead: true, cell: ({ id }) => <a href={`${path}/${encodeURIComponent(id)}`}>{id}</a> },
              { head: "Calls", isNumber: true, cell: ({ calls }) => count(calls) },
              { head: "Units", isNumber: true, cell: (each) => count(each.units) },
              { head: "Stripe", cell: ({ settledAt, settledBy }) => <Confirmed at={settledAt} by={settledBy} /> },
            ]}
          />
        </>
      )}
    </>,
  );
}

function Confirmed({ at, by }: { at: string | null; by: string | null }) {
  if (at === null) return <Badge tone="accent">on its way</Badge>;
  if (by === "carried") return <Badge>on a later invoice</Badge>;
  if (by === "no_customer") return <Badge>not billed</Badge>;
  return (
    <>
      <Badge tone="good">has it</Badge> <span class="muted small">since {<Instant at={at} />}</span>
    </>
  );
}

/** GET /app/:tenantId/reports/:reportId */
export async function showReportPage(
  c: HttpContext,
  { query }: { query: z.infer<typeof ReportView> },
): Promise<Response> {
  const id = c.req.param("reportId") ?? "";
  const page = { after: query.after ?? null, limit: PAGE };
  const found =
    id === "unreported" ? undefined : await callsOfReport(c.get("context").control, tenantOf(c), id, page, {});
  if (found?.report == null) throw new Problem("not_found", "The account has no such report.");
  const { report, calls, next } = found;
  const isReport = "minute" in report;
  return accountPage(
    c,
    {
      ...{ title: isReport ? "Report to Stripe" : "Usage on a later invoice", section: "/invoices" },
      lead: (
        <>
          {isReport ? <Instant at={report.minute} /> : report.day} UTC: {units(report.units)} in {count(report.calls)}{" "}
          calls.{" "}
          {isReport ? (
            <Confirmed at={report.confirmedAt} by={report.confirmedBy} />
          ) : (
            <Confirmed at={report.settledAt} by={report.settledBy} />
          )}
        </>
      ),
    },
    <>
      <p>
        Identifier at Stripe: <code>{report.id}</code>
      </p>
      <Table
        caption="Calls"
        hidesCaption
        rows={calls}
        columns={[
          {
            head: "Receipt",
            isHead: true,
            cell: (call) => (
              <a class="code" href={`${accountPath(c, "/calls")}/${encodeURIComponent(call.id)}`}>
                {call.id}
              </a>
            ),
          },
          { head: "Admitted", cell: ({ at }) => <Instant at={at} hasSeconds /> },
          { head: "Tool", cell: ({ tool }) => tool },
          { head: "Units", isNumber: true, cell: (call) => count(call.units) },
        ]}
      />
      <NextPage url={`${accountPath(c, "/reports")}/${encodeURIComponent(id)}`} next={next} />
    </>,
  );
}
