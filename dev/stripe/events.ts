// Events: snapshots of an object at the moment of a change. Stored for good, listed for 30 days.
// As with Stripe, `created` has whole seconds and ids have no order, so neither gives the order of events.
import { isDeepStrictEqual } from "node:util";
import * as z from "zod";
import type { Stripe } from "stripe";
import { type Context, nowSeconds } from "./context.ts";
import { created, flag, page, text } from "./form.ts";
import { API_VERSION, type Event } from "./objects.ts";
import { type Filter, newId, type Store, whereIn, whereRange } from "./store.ts";

const LISTED_FOR_S = 30 * 86_400;
const UNDELIVERED = "SELECT 1 FROM deliveries WHERE event_id = id AND extra = 0 AND state <> 'delivered'";

export const eventList = z.strictObject({
  ...page,
  created: created.optional(),
  delivery_success: flag.optional(),
  type: text.optional(),
  types: z.array(text).max(20).optional(),
});

/** Makes the event of a change. `snapshot` and `previous` are public forms. Without `previous`, no changes are listed. */
export function newEvent(
  atSeconds: number,
  type: Stripe.Event.Type,
  snapshot: object,
  previous: object | undefined,
  request: Stripe.Event.Request,
): Event {
  return {
    id: newId("evt_"),
    object: "event",
    api_version: API_VERSION,
    created: atSeconds,
    data: {
      object: snapshot,
      ...(previous === undefined ? {} : { previous_attributes: changedFrom(previous, snapshot) }),
    },
    livemode: false,
    pending_webhooks: 0,
    request,
    type,
  };
}

/** The top-level attributes that changed, with their old values. */
function changedFrom(previous: object, next: object): object {
  const after = new Map<string, unknown>(Object.entries(next));
  return Object.fromEntries(
    Object.entries(previous).filter(([key, value]) => !isDeepStrictEqual(value, after.get(key))),
  );
}

export function retrieveEvent(context: Context, _params: object, id: string): Event {
  return withPending(context.store, context.store.get("event", id));
}

export function listEvents(context: Context, params: z.output<typeof eventList>) {
  const { type, delivery_success: success } = params;
  const byType: Filter | undefined =
    type === undefined
      ? undefined
      : { sql: "json_extract(json, '$.type') GLOB ?", values: [type.replaceAll(/[[?]/g, "[$&]")] };
  const list = context.store.list("event", "/v1/events", params, [
    byType,
    whereIn("type", params.types),
    whereRange("created", params.created),
    whereRange("created", { gte: nowSeconds(context) - LISTED_FOR_S }),
    success === undefined ? undefined : { sql: `${success ? "NOT " : ""}EXISTS (${UNDELIVERED})`, values: [] },
  ]);
  return { ...list, data: list.data.map((event) => withPending(context.store, event)) };
}

function withPending(store: Store, event: Event): Event {
  const row = store.sql
    .get`SELECT count(*) AS n FROM deliveries WHERE event_id = ${event.id} AND extra = 0 AND state <> 'delivered'`;
  return { ...event, pending_webhooks: Number(row?.["n"] ?? 0) };
}
