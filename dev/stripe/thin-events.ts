// Thin events and their destinations, in the v2 API. A delivery only names the event; the receiver fetches its data.
// They report meter events that were answered with 200 and dropped later.
import * as z from "zod";
import type { Stripe } from "stripe";
import type { Context } from "./context.ts";
import { badRequest } from "./errors.ts";
import { integer, mergeMetadata, metadata, text } from "./form.ts";
import type { EventDestination, ThinEvent } from "./objects.ts";
import { newId, where, whereIn } from "./store.ts";

const LISTED_FOR_MS = 30 * 86_400_000;

type Report = Stripe.Events.V1BillingMeterErrorReportTriggeredEvent.Data;
interface Dropped {
  code: Report["reason"]["error_types"][number]["code"];
  message: string;
  /** The request's idempotency key, as documented; without one, the event's identifier. */
  identifier: string;
}

/** Makes the event about one dropped meter event. It names a meter if the dropped event did. */
export function errorReport(context: Context, meter: Stripe.Billing.Meter | undefined, dropped: Dropped): ThinEvent {
  const at = new Date(context.nowMs).toISOString();
  const data: Report = {
    developer_message_summary: "There is 1 invalid event",
    reason: {
      error_count: 1,
      error_types: [
        {
          code: dropped.code,
          error_count: 1,
          sample_errors: [{ error_message: dropped.message, request: { identifier: dropped.identifier } }],
        },
      ],
    },
    validation_end: at,
    validation_start: at,
  };
  const about = { id: newId("evt_test_"), object: "v2.core.event", created: at, livemode: false, data } as const;
  if (meter === undefined) return { ...about, type: "v1.billing.meter.no_meter_found", related_object: null };
  return {
    ...about,
    type: "v1.billing.meter.error_report_triggered",
    related_object: { id: meter.id, type: "billing.meter", url: `/v1/billing/meters/${meter.id}` },
  };
}

/** The delivered form of an event, without its data. */
export function notification(event: ThinEvent): Omit<ThinEvent, "data"> {
  const { id, object, created, livemode, type, related_object } = event;
  return { id, object, created, livemode, type, related_object };
}

export const thinEventList = z.strictObject({
  limit: integer.optional(),
  object_id: text.optional(),
  types: z.array(text).max(20).optional(),
});

export function listThinEvents(context: Context, params: z.output<typeof thinEventList>) {
  const since = new Date(context.nowMs - LISTED_FOR_MS).toISOString();
  const all = context.store.all("v2.core.event", [
    whereIn("type", params.types),
    where("related_object.id", params.object_id),
    { sql: "json_extract(json, '$.created') >= ?", values: [since] },
  ]);
  // One page holds all destinations of a test system.
  return { data: all.toReversed().slice(0, params.limit), next_page_url: null, previous_page_url: null };
}

export const destinationCreate = z.strictObject({
  description: text.optional(),
  enabled_events: z.array(text).min(1),
  /** A destination of snapshot events is stored but unused: they go to the webhook given at the start. */
  event_payload: z.enum(["snapshot", "thin"]),
  include: z.array(z.enum(["webhook_endpoint.signing_secret", "webhook_endpoint.url"])).optional(),
  metadata: metadata.optional(),
  name: text,
  type: z.literal("webhook_endpoint", "only webhook endpoints are simulated"),
  webhook_endpoint: z.strictObject({ url: z.url() }),
});

/** Registers a destination. The newest destination receives all thin events. */
export function createDestination(context: Context, params: z.output<typeof destinationCreate>): EventDestination {
  const at = new Date(context.nowMs).toISOString();
  const destination: EventDestination = {
    id: newId("ed_test_"),
    object: "v2.core.event_destination",
    created: at,
    description: params.description ?? "",
    enabled_events: params.enabled_events,
    event_payload: params.event_payload,
    livemode: false,
    metadata: mergeMetadata(null, params.metadata),
    name: params.name,
    status: "enabled",
    type: params.type,
    updated: at,
    webhook_endpoint: { signing_secret: newId("whsec_"), url: params.webhook_endpoint.url },
  };
  context.save(null, destination);
  return shown(destination, params.include ?? []);
}

export const destinationRead = z.strictObject({
  include: z.array(z.literal("webhook_endpoint.url")).optional(),
  limit: integer.optional(),
});

export function retrieveDestination(
  context: Context,
  params: z.output<typeof destinationRead>,
  id: string,
): EventDestination {
  return shown(context.store.get("v2.core.event_destination", id), params.include ?? []);
}

export function listDestinations(context: Context, params: z.output<typeof destinationRead>) {
  const all = context.store.all("v2.core.event_destination", []).toReversed();
  const data = all.map((each) => shown(each, params.include ?? []));
  return { data, next_page_url: null, previous_page_url: null };
}

export function switchDestination(status: "enabled" | "disabled") {
  return (context: Context, _params: object, id: string): EventDestination => {
    const current = context.store.get("v2.core.event_destination", id);
    if (current.status === status) throw badRequest(`The event destination is already ${status}.`);
    const switched: EventDestination = { ...current, status, updated: new Date(context.nowMs).toISOString() };
    context.save(null, switched);
    return shown(switched, []);
  };
}

/** The endpoint is in answers only with `include`, the secret only after the creation. */
function shown(destination: EventDestination, include: readonly string[]): EventDestination {
  const { webhook_endpoint: endpoint, ...rest } = destination;
  const fields = {
    ...(include.includes("webhook_endpoint.url") ? { url: endpoint.url } : {}),
    ...(include.includes("webhook_endpoint.signing_secret") ? { signing_secret: endpoint.signing_secret } : {}),
  };
  return { ...rest, webhook_endpoint: fields };
}
