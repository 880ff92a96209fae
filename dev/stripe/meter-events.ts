// Meter events: accepted, refused at once, or accepted and later dropped with an error report.
//
// Assumptions, the worst case of what Stripe documents. Check them in a sandbox before relying on more:
// identifiers are unique over the whole account for exactly 24 h from receipt, with any payload, for rejected and cancelled
// events, too; an unknown customer is accepted and dropped later; each dropped event has an error report of its own.
// When validation is asynchronous (`POST /_sim/meter-validation`), only a repeated identifier is refused at once.
import * as z from "zod";
import type { Stripe } from "stripe";
import { type Context, nowSeconds } from "./context.ts";
import { ApiError, badRequest } from "./errors.ts";
import { integer, text } from "./form.ts";
import { activeMeter } from "./meters.ts";
import { newId, type Store, where } from "./store.ts";
import { errorReport } from "./thin-events.ts";

const DAY_S = 86_400;
/** Stripe promises at least 24 hours. Exactly 24 is the worst case for a sender that repeats an event. */
const IDENTIFIER_TTL_MS = DAY_S * 1000;
const OLDEST_EVENT_S = 35 * DAY_S;
const NEWEST_EVENT_S = 300;
const CANCELED = "canceled";

export const meterEventCreate = z.strictObject({
  event_name: text.max(100),
  identifier: text.max(100).optional(),
  payload: z.record(text, z.string()),
  timestamp: integer.optional(),
});
type MeterEventParams = z.output<typeof meterEventCreate>;
type Meter = Stripe.Billing.Meter;

/** Lock of a call: Stripe allows one at a time for each customer and meter. */
export function meterEventLock(store: Store, params: MeterEventParams): string {
  const key = activeMeter(store, params.event_name)?.customer_mapping.event_payload_key ?? "stripe_customer_id";
  return `${params.event_name} ${params.payload[key] ?? ""}`;
}

export function createMeterEvent(context: Context, params: MeterEventParams): Stripe.Billing.MeterEvent {
  const { store, nowMs } = context;
  const now = nowSeconds(context);
  const timestamp = params.timestamp ?? now;
  const meter = activeMeter(store, params.event_name);
  const fault = faultOf(store, meter, params, timestamp, now);
  if (fault !== undefined && !context.validatesLater && fault.code !== "meter_event_customer_not_found") {
    const { code, message, param } = fault;
    throw badRequest(message, {
      code: code === "no_meter" || code === "archived_meter" ? "resource_missing" : code,
      param,
    });
  }
  const identifier = params.identifier ?? newId("");
  const duplicate = store.sql.get`SELECT 1 FROM meter_events
    WHERE identifier = ${identifier} AND received_ms > ${nowMs - IDENTIFIER_TTL_MS} LIMIT 1`;
  if (duplicate !== undefined) {
    const message = `An event already exists with identifier ${identifier}.`;
    throw new ApiError(400, { type: "invalid_request_error", message }, false);
  }
  const customer = params.payload[meter?.customer_mapping.event_payload_key ?? "stripe_customer_id"] ?? "";
  const counted = meter?.default_aggregation.formula === "count" ? 1 : Number(valueOf(meter, params.payload));
  void store.sql.run`INSERT INTO meter_events
    (identifier, event_name, meter, customer, value, timestamp, received_ms, visible_ms, error) VALUES
    (${identifier}, ${params.event_name}, ${meter?.id ?? ""}, ${customer}, ${Number.isSafeInteger(counted) ? counted : 0},
     ${timestamp}, ${nowMs}, ${nowMs + context.meterLagMs}, ${fault?.code ?? null})`;
  if (fault !== undefined) {
    const blamed = fault.code === "archived_meter" ? namedMeters(store, params.event_name)[0] : meter;
    context.announceThin(errorReport(context, blamed, { ...fault, identifier: context.idempotencyKey ?? identifier }));
  }
  return {
    object: "billing.meter_event",
    created: now,
    event_name: params.event_name,
    identifier,
    livemode: false,
    payload: params.payload,
    timestamp,
  };
}

interface MeterFault {
  code: Stripe.Events.V1BillingMeterErrorReportTriggeredEvent.Data.Reason.ErrorType.Code;
  message: string;
  param: string;
}

/** The error of an event, if it has one. */
function faultOf(
  store: Store,
  meter: Meter | undefined,
  { event_name: name, payload }: MeterEventParams,
  timestamp: number,
  now: number,
): MeterFault | undefined {
  if (meter === undefined) {
    const message = `No active meter found for event name ${name}.`;
    return { code: namedMeters(store, name).length > 0 ? "archived_meter" : "no_meter", message, param: "event_name" };
  }
  if (timestamp < now - OLDEST_EVENT_S) {
    const message = "The timestamp must be within the past 35 calendar days.";
    return { code: "timestamp_too_far_in_past", message, param: "timestamp" };
  }
  if (timestamp > now + NEWEST_EVENT_S) {
    const message = "The timestamp must be at most 5 minutes in the future.";
    return { code: "timestamp_in_future", message, param: "timestamp" };
  }
  const customerKey = meter.customer_mapping.event_payload_key;
  const customer = payload[customerKey] ?? "";
  if (customer === "") {
    const message = `Customer mapping key ${customerKey} not found in payload.`;
    return { code: "meter_event_no_customer_defined", message, param: `payload[${customerKey}]` };
  }
  const value = valueOf(meter, payload);
  if (meter.default_aggregation.formula !== "count" && !/^-?\d{1,15}$/.test(value ?? "")) {
    const param = `payload[${meter.value_settings.event_payload_key}]`;
    const message =
      value === undefined ? `The payload must have ${param}.` : `The value must be a whole number: ${value}.`;
    return { code: "meter_event_invalid_value", message, param };
  }
  if (store.find("customer", customer) !== undefined) return undefined;
  const message = `Customer ${customer} not found.`;
  return { code: "meter_event_customer_not_found", message, param: `payload[${customerKey}]` };
}

function valueOf(meter: Meter | undefined, payload: Record<string, string>): string | undefined {
  return payload[meter?.value_settings.event_payload_key ?? "value"];
}

function namedMeters(store: Store, name: string): Meter[] {
  return store.all("billing.meter", [where("event_name", name)]);
}

export const adjustmentCreate = z.strictObject({
  cancel: z.strictObject({ identifier: text.max(100) }),
  event_name: text.max(100),
  type: z.literal("cancel"),
});

/** Cancels one event within 24 hours of its receipt. A finalized invoice does not change. */
export function adjustMeterEvent(
  context: Context,
  params: z.output<typeof adjustmentCreate>,
): Stripe.Billing.MeterEventAdjustment {
  const { sql } = context.store;
  const { identifier } = params.cancel;
  const row = sql.get`SELECT seq FROM meter_events WHERE identifier = ${identifier} AND error IS NULL
    AND event_name = ${params.event_name} AND received_ms > ${context.nowMs - IDENTIFIER_TTL_MS}`;
  if (row === undefined) {
    const message = `No event of the last 24 hours found with identifier ${identifier}.`;
    throw badRequest(message, { code: "resource_missing", param: "cancel[identifier]" });
  }
  void sql.run`UPDATE meter_events SET error = ${CANCELED} WHERE seq = ${Number(row["seq"])}`;
  return {
    object: "billing.meter_event_adjustment",
    cancel: { identifier },
    event_name: params.event_name,
    livemode: false,
    status: "pending",
    type: "cancel",
  };
}

/** Sum of the accepted events by customer and event name, without the summary delay. For tests. */
export function meterTotals(store: Store): Record<string, Record<string, number>> {
  const totals: Record<string, Record<string, number>> = {};
  const rows = store.sql.all`SELECT customer, event_name, sum(value) AS total FROM meter_events
    WHERE error IS NULL GROUP BY customer, event_name`;
  for (const row of rows) {
    (totals[String(row["customer"])] ??= {})[String(row["event_name"])] = Number(row["total"]);
  }
  return totals;
}

/** Accepted events in the order of receipt. */
export function meterEvents(store: Store) {
  return store.sql.all`SELECT identifier, event_name, customer, value, timestamp FROM meter_events
    WHERE error IS NULL ORDER BY seq`;
}

/** Events that were answered with 200 and then dropped. */
export function meterErrors(store: Store) {
  return store.sql.all`SELECT identifier, event_name, customer, value, timestamp, error FROM meter_events
    WHERE error IS NOT NULL AND error <> ${CANCELED} ORDER BY seq`;
}
