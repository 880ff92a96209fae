// Stripe's events that wait to be applied or were set aside, with the reason. An operator retries or dismisses them.
import * as z from "zod";
import { Flag, type HttpContext, pageOf, pageQuery } from "../../../http.ts";
import { dismissStripeEvents, retryStripeEvents } from "../../../subscriptions/api.ts";
import { type StripeEvent, inboxStore } from "../../../subscriptions/inbox-store.ts";
import { orBlank } from "../../layout/form-body.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { ItemButton, RowActs, itemAct } from "../item-act.tsx";
import { operatorPage } from "../operator-page.tsx";
import { AllToggle } from "../parts.tsx";

const PATH = "/admin/stripe-events";
export const EventsPageQuery = pageQuery(100).extend({ all: orBlank(Flag) });
const Item = z.strictObject({ id: z.string().min(1).max(255) });

export const retryEvent = itemAct({
  ...{ path: `${PATH}/retry`, action: "retryStripeEvents", role: "support", label: "Retry", back: PATH, schema: Item },
  run: (c, { id }) => retryStripeEvents(c, { body: { ids: [id] } }),
  done: "Tollgate applies the event again.",
});

export const retryAllEvents = itemAct({
  ...{ path: `${PATH}/retry-all`, action: "retryStripeEvents", role: "support", label: "Retry all", back: PATH },
  schema: z.strictObject({}),
  run: (c) => retryStripeEvents(c, { body: { all: true } }),
  done: "Tollgate applies the events again.",
});

export const dismissEvent = itemAct({
  ...{
    path: `${PATH}/dismiss`,
    action: "dismissStripeEvents",
    role: "admin",
    label: "Dismiss",
    back: PATH,
    schema: Item,
  },
  question:
    "The event stays on record and is never applied. Stripe's present state of the object still counts when another event brings it.",
  run: (c, { id }) => dismissStripeEvents(c, { body: { ids: [id] } }),
  done: "The event is dismissed.",
});

/** GET /admin/stripe-events */
export async function showStripeEvents(
  c: HttpContext,
  { query: { all = false, after, limit } }: { query: z.infer<typeof EventsPageQuery> },
): Promise<Response> {
  const rows = await inboxStore(c.get("context").control).list(limit + 1, { after, all });
  const { events, next } = pageOf("events", rows, limit, ({ id }) => id);
  const isOpen = (event: StripeEvent): boolean => event.dismissedAt === null && event.outcome !== "applied";
  return operatorPage(
    c,
    {
      ...{
        title: "Stripe events",
        section: PATH,
        lead: "Stored before they are acknowledged, and applied once. Times in UTC.",
      },
      actions: events.length > 0 && !all && <ItemButton c={c} to={retryAllEvents} item={{}} isTiny={false} />,
    },
    <>
      <AllToggle path={PATH} isAll={all} open="Open ones" every="All events" />
      <Table
        caption="Stripe's events"
        hidesCaption
        rows={events}
        empty={<Empty title="No event waits">Each event of Stripe is applied or needs no work.</Empty>}
        columns={[
          {
            head: "Event",
            isHead: true,
            cell: ({ id, type }) => (
              <span class="entry">
                <strong>{type}</strong>
                <small>{id}</small>
              </span>
            ),
          },
          {
            head: "Tenant",
            cell: ({ tenantId, namedTenant }) =>
              tenantId === null ? (namedTenant ?? "unknown") : <a href={`/admin/tenants/${tenantId}`}>{tenantId}</a>,
          },
          {
            head: "Outcome",
            cell: ({ outcome, dismissedAt }) =>
              dismissedAt !== null ? (
                <Badge>dismissed</Badge>
              ) : outcome === null ? (
                <Badge tone="warn">waits</Badge>
              ) : (
                <Badge>{outcome.replaceAll("_", " ")}</Badge>
              ),
          },
          { head: "Attempts", isNumber: true, cell: ({ attempts }) => count(attempts) },
          { head: "Why", cell: ({ error }) => error ?? "" },
          { head: "Received", cell: ({ receivedAt }) => <Instant at={receivedAt} /> },
          {
            head: "",
            cell: (event) =>
              isOpen(event) && (
                <RowActs>
                  <ItemButton c={c} to={retryEvent} item={{ id: event.id }} />
                  <ItemButton c={c} to={dismissEvent} item={{ id: event.id }} />
                </RowActs>
              ),
          },
        ]}
      />
      <NextPage url={`${PATH}${all ? "?all=true" : ""}`} next={next} />
    </>,
  );
}
