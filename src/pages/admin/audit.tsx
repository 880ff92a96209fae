// Search of the audit log, of all tenants and of the deployment; and the attempts at other tenants' resources.
import type * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import type { HttpContext } from "../../http.ts";
import { AllAuditQuery, type auditAnswer, eventsOf } from "../../identity/audit/api.ts";
import { auditOutcomes } from "../../identity/audit/audit.ts";
import { crossingsStore } from "../../identity/audit/crossings-store.ts";
import { orBlank } from "../layout/form-body.ts";
import { Instant, count } from "../parts/figures.tsx";
import { Badge, Empty, type Tone } from "../parts/notice.tsx";
import { NextPage, Table } from "../parts/table.tsx";
import { Choice } from "./tenants/tenants.tsx";
import { operatorPage } from "./operator-page.tsx";

const PATH = "/admin/audit";
const CROSSINGS = 20;

const { tenant, actor, action, outcome, from, to, requestId } = AllAuditQuery.shape;
export const AuditPageQuery = AllAuditQuery.extend({
  ...{ tenant: orBlank(tenant), actor: orBlank(actor), action: orBlank(action), outcome: orBlank(outcome) },
  ...{ from: orBlank(from), to: orBlank(to), requestId: orBlank(requestId) },
});

const tones: Readonly<Record<(typeof auditOutcomes)[number], Tone>> = {
  ...{ succeeded: "good", refused: "warn", failed: "bad", unknown: "warn" },
};

type Event = ReturnType<typeof auditAnswer>;

/** GET /admin/audit */
export async function showAudit(
  c: HttpContext,
  { query }: { query: z.infer<typeof AuditPageQuery> },
): Promise<Response> {
  const { tenant: tenantId, ...search } = query;
  const { after: _, limit: __, ...shown } = query;
  const control = joinBatches(c.get("context").control);
  const [{ events, next }, crossings] = await Promise.all([
    eventsOf(control, search, tenantId, undefined),
    crossingsStore(control).list(CROSSINGS),
  ]);
  const params = new URLSearchParams(
    Object.entries(shown).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  );
  return operatorPage(
    c,
    {
      ...{ title: "Audit log", section: PATH },
      lead: "Each act and each refusal, in chains that prove themselves. Times in UTC.",
    },
    <>
      <form method="get" action={PATH} class="search" role="search">
        <Filter label="Tenant" name="tenant" value={tenantId} />
        <Filter label="Actor" name="actor" value={query.actor} />
        <Filter label="Action" name="action" value={query.action} />
        <Choice label="Outcome" name="outcome" value={query.outcome} options={auditOutcomes} />
        <Filter label="Request" name="requestId" value={query.requestId} />
        <Filter label="From" name="from" value={query.from} placeholder="2026-11-28T00:00:00Z" />
        <Filter label="To" name="to" value={query.to} placeholder="2026-11-29T00:00:00Z" />
        <p class="actions">
          <button>Search</button>
        </p>
      </form>
      <Table
        caption="Events, the newest first"
        hidesCaption
        rows={events}
        empty={
          <Empty title="No event fits">
            <a href={PATH}>Show all events</a>
          </Empty>
        }
        columns={[
          { head: "When", cell: ({ at }) => <Instant at={at} /> },
          {
            head: "Action",
            isHead: true,
            cell: (event) => (
              <details>
                <summary>{event.action}</summary>
                <Details event={event} />
              </details>
            ),
          },
          { head: "Actor", cell: ({ actor: who }) => who.name ?? who.id ?? who.kind },
          {
            head: "Tenant",
            cell: ({ tenantId: of }) =>
              of === null ? <span class="muted">deployment</span> : <a href={`/admin/tenants/${of}`}>{of}</a>,
          },
          { head: "Target", cell: ({ target }) => target ?? "" },
          { head: "Outcome", cell: (event) => <Badge tone={tones[event.outcome]}>{event.outcome}</Badge> },
        ]}
      />
      <NextPage url={`${PATH}${params.size === 0 ? "" : `?${params.toString()}`}`} next={next} />
      <h2>Attempts at other tenants' resources</h2>
      <Table
        caption="Attempts by tenant and day, the latest first"
        hidesCaption
        rows={crossings}
        empty={<Empty title="No attempt">No credential was used on another tenant.</Empty>}
        columns={[
          {
            head: "Tenant",
            isHead: true,
            cell: (each) => <a href={`/admin/tenants/${each.tenantId}`}>{each.tenantId}</a>,
          },
          { head: "Day", cell: ({ day }) => day },
          { head: "Attempts", isNumber: true, cell: ({ attempts }) => count(attempts) },
          { head: "Last", cell: ({ lastAt }) => <Instant at={lastAt} /> },
        ]}
      />
    </>,
  );
}

interface FilterProps {
  label: string;
  name: string;
  value: string | undefined;
  placeholder?: string;
}

const Filter = ({ label, name, value = "", placeholder }: FilterProps) => (
  <label class="field">
    <span>{label}</span>
    <input name={name} value={value} placeholder={placeholder} autocomplete="off" />
  </label>
);

const Details = ({ event }: { event: Event }) => {
  const facts: [string, string | null | undefined][] = [
    ["Request", event.requestId],
    ["Address", event.address],
    ["Status", event.status === null ? null : `${event.status}${event.code === null ? "" : ` ${event.code}`}`],
    ["On behalf of", event.actor.onBehalfOf],
    ["Actor", `${event.actor.kind}${event.actor.id === null ? "" : ` ${event.actor.id}`}`],
    ...Object.entries(event.detail).map(([name, value]): [string, string] => [name, String(value)]),
    ["Hash", event.hash],
  ];
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== null && value !== undefined)
        .map(([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        ))}
    </dl>
  );
};
