// The daily comparison with Stripe: its last runs, the differences that are open, and the errors of Stripe's meter.
import { joinBatches } from "../../../adapters/neon.ts";
import type { HttpContext } from "../../../http.ts";
import { METER_ERROR_DAYS } from "../../../operations/api.ts";
import { meterErrorsStore } from "../../../reports/meter-errors-store.ts";
import { reconciliationStore } from "../../../reports/reconciliation-store.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, Empty, Notice } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { operatorPage } from "../operator-page.tsx";

const PATH = "/admin/reconciliation";
const SHOWN = 100;
const DAYS = 14;

/** GET /admin/reconciliation */
export async function showReconciliation(c: HttpContext): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const store = reconciliationStore(control);
  const [comparisons, drifts, errors] = await Promise.all([
    store.comparisons(DAYS),
    store.openDrifts(SHOWN),
    meterErrorsStore(control).byDay(METER_ERROR_DAYS),
  ]);
  return operatorPage(
    c,
    {
      ...{ title: "Reconciliation", section: PATH },
      lead: "Each day Tollgate compares its reports and the final invoices with Stripe, minute by minute. Days and times in UTC.",
    },
    <>
      {drifts.length === 0 ? (
        <Notice tone="good">No difference is open.</Notice>
      ) : (
        <Table
          caption="Open differences, the latest first"
          rows={drifts}
          columns={[
            {
              head: "Tenant",
              isHead: true,
              cell: ({ tenantId }) => <a href={`/admin/tenants/${tenantId}`}>{tenantId}</a>,
            },
            { head: "Of", cell: ({ of }) => (of === "usage" ? "the meter" : "an invoice") },
            { head: "Kind", cell: ({ kind }) => <Badge tone="warn">{kind}</Badge> },
            { head: "From", cell: ({ startsAt }) => <Instant at={startsAt} /> },
            { head: "Ours, units", isNumber: true, cell: ({ expectedUnits }) => count(expectedUnits) },
            { head: "Stripe's, units", isNumber: true, cell: ({ stripeUnits }) => count(stripeUnits) },
            { head: "Found", cell: ({ foundAt }) => <Instant at={foundAt} /> },
          ]}
        />
      )}
      <h2>Comparisons</h2>
      <Table
        caption={`The comparisons of the last ${DAYS} days`}
        hidesCaption
        rows={comparisons}
        empty={<Empty title="No comparison yet">The first one runs after midnight (UTC).</Empty>}
        columns={[
          { head: "Usage before", isHead: true, cell: ({ day }) => day },
          {
            head: "State",
            cell: ({ finishedAt }) =>
              finishedAt === null ? <Badge tone="accent">runs</Badge> : <Badge tone="good">done</Badge>,
          },
          { head: "Tenants", isNumber: true, cell: ({ tenants }) => count(tenants) },
          { head: "Not read", isNumber: true, cell: ({ unreadTenants }) => count(unreadTenants) },
          { head: "Requests to Stripe", isNumber: true, cell: ({ requests }) => count(requests) },
          { head: "Finished", cell: ({ finishedAt }) => (finishedAt === null ? "" : <Instant at={finishedAt} />) },
        ]}
      />
      <h2>Errors of Stripe's meter</h2>
      <Table
        caption={`Meter events that Stripe accepted and then dropped, in ${METER_ERROR_DAYS} days`}
        hidesCaption
        rows={errors}
        empty={<Empty title="No error">Stripe has kept every event.</Empty>}
        columns={[
          { head: "Day", isHead: true, cell: ({ day }) => day },
          { head: "Code", cell: ({ code }) => code },
          { head: "Events", isNumber: true, cell: (each) => count(each.errors) },
        ]}
      />
    </>,
  );
}
