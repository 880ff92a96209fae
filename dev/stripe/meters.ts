/**
 * Billing meters, meter events and their summaries.
 *
 * Assumptions, to be probed in a sandbox before anything relies on more than their worst case:
 * identifiers are unique over the whole account for exactly 24 h from receipt, whatever the payload, rejected events included;
 * an unknown customer is accepted and dropped later with an error record; a window without usage has no summary at all.
 * An event belongs to the meter that was active under its name when it was received.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Stripe } from "stripe";
import { nowSeconds } from "./context.ts";
import type { Context } from "./context.ts";
import { ApiError, badRequest } from "./errors.ts";
import { integer, page, text } from "./form.ts";
import type { MeteredLine } from "./objects.ts";
import { newId, where } from "./store.ts";
import type { Store } from "./store.ts";

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;
/** "At least 24 hours" is what Stripe promises; exactly that is the worst case for a sender that repeats itself. */
const IDENTIFIER_TTL_MS = DAY_S * 1000;
const OLDEST_EVENT_S = 35 * DAY_S;
const NEWEST_EVENT_S = 5 * MINUTE_S;

export const meterCreate = z.strictObject({
  customer_mapping: z.strictObject({ event_payload_key: text, type: z.literal("by_id") }).optional(),
  default_aggregation: z.strictObject({ formula: z.enum(["sum", "count", "last"]) }),
  display_name: text.max(250),
  event_name: text.max(100),
  value_settings: z.strictObject({ event_payload_key: text }).optional(),
});
export const meterUpdate = z.strictObject({ display_name: text.max(250).optional() });
export const meterList = z.strictObject({ ...page, status: z.enum(["active", "inactive"]).optional() });

export function createMeter(context: Context, params: z.output<typeof meterCreate>): Stripe.Billing.Meter {
  if (activeMeter(context.store, params.event_name) !== undefined) {
    const message = `There is already an active meter with event_name ${params.event_name}.`;
    throw badRequest(message, { code: "resource_already_exists", param: "event_name" });
  }
  const meter: Stripe.Billing.Meter = {
    id: newId("mtr_test_"),
    object: "billing.meter",
    created: nowSeconds(context),
    customer_mapping: params.customer_mapping ?? { event_payload_key: "stripe_customer_id", type: "by_id" },
    default_aggregation: params.default_aggregation,
    display_name: params.display_name,
    event_name: params.event_name,
    event_time_window: null,
    livemode: false,
    status: "active",
    status_transitions: { deactivated_at: null },
    updated: nowSeconds(context),
    value_settings: params.value_settings ?? { event_payload_key: "value" },
  };
  context.save("billing.meter.created", meter);
  return meter;
}

export function updateMeter(context: Context, params: z.output<typeof meterUpdate>, id: string): Stripe.Billing.Meter {
  const meter = context.store.get("billing.meter", id);
  const updated = { ...meter, display_name: params.display_name ?? meter.display_name, updated: nowSeconds(context) };
  context.save("billing.meter.updated", updated, meter);
  return updated;
}

export function listMeters(context: Context, params: z.output<typeof meterList>) {
  return context.store.list("billing.meter", "/v1/billing/meters", params, [where("status", params.status)]);
}

export function deactivateMeter(context: Context, _params: object, id: string): Stripe.Billing.Meter {
  return setStatus(context, id, "inactive");
}

export function reactivateMeter(context: Context, _params: object, id: string): Stripe.Billing.Meter {
  return setStatus(context, id, "active");
}

function setStatus(context: Context, id: string, status: "active" | "inactive"): Stripe.Billing.Meter {
  const meter = context.store.get("billing.meter", id);
  if (meter.status === status) throw badRequest(`The meter is already ${status}.`);
  if (status === "active" && activeMeter(context.store, meter.event_name) !== undefined) {
    throw badRequest(`There is already an active meter with event_name ${meter.event_name}.`);
  }
  const now = nowSeconds(context);
  const transitions = { deactivated_at: status === "inactive" ? now : null };
  const updated = { ...meter, status, status_transitions: transitions, updated: now };
  context.save(`billing.meter.${status === "active" ? "reactivated" : "deactivated"}`, updated, meter);
  return updated;
}

function activeMeter(store: Store, eventName: string): Stripe.Billing.Meter | undefined {
  return store.all("billing.meter", [where("event_name", eventName), where("status", "active")])[0];
}

export const meterEventCreate = z.strictObject({
  event_name: text.max(100),
  identifier: text.max(100).optional(),
  payload: z.record(text, z.string()),
  timestamp: integer.optional(),
});
type MeterEventParams = z.output<typeof meterEventCreate>;

/** What a call on a meter locks: Stripe allows one at a time for a customer and meter. */
export function meterEventLock(store: Store, params: MeterEventParams): string {
  const key = activeMeter(store, params.event_name)?.customer_mapping.event_payload_key ?? "stripe_customer_id";
  return `${params.event_name} ${params.payload[key] ?? ""}`;
}

export function createMeterEvent(context: Context, params: MeterEventParams): Stripe.Billing.MeterEvent {
  const { store, nowMs } = context;
  const now = nowSeconds(context);
  const meter = activeMeter(store, params.event_name);
  if (meter === undefined) {
    throw badRequest(`No active meter found for event name ${params.event_name}.`, {
      code: "resource_missing",
      param: "event_name",
    });
  }
  const timestamp = params.timestamp ?? now;
  if (timestamp < now - OLDEST_EVENT_S) {
    const message = "The timestamp must be within the past 35 calendar days.";
    throw badRequest(message, { code: "timestamp_too_far_in_past", param: "timestamp" });
  }
  if (timestamp > now + NEWEST_EVENT_S) {
    const message = "The timestamp must be at most 5 minutes in the future.";
    throw badRequest(message, { code: "timestamp_in_future", param: "timestamp" });
  }
  const customerKey = meter.customer_mapping.event_payload_key;
  const customer = params.payload[customerKey];
  if (customer === undefined || customer === "") {
    const message = `The payload must have the customer under the key ${customerKey}.`;
    throw badRequest(message, { code: "meter_event_no_customer_defined", param: `payload[${customerKey}]` });
  }
  const value = eventValue(meter, params.payload);
  const identifier = params.identifier ?? newId("");
  const duplicate = store.sql.get`SELECT 1 FROM meter_events
    WHERE identifier = ${identifier} AND received_ms > ${nowMs - IDENTIFIER_TTL_MS} LIMIT 1`;
  if (duplicate !== undefined) {
    const message = `An event already exists with identifier ${identifier}.`;
    throw new ApiError(400, { type: "invalid_request_error", message }, false);
  }
  const error = store.find("customer", customer) === undefined ? "meter_event_customer_not_found" : null;
  void store.sql.run`INSERT INTO meter_events
    (identifier, event_name, meter, customer, value, timestamp, received_ms, visible_ms, error) VALUES
    (${identifier}, ${meter.event_name}, ${meter.id}, ${customer}, ${value}, ${timestamp}, ${nowMs},
     ${nowMs + context.meterLagMs}, ${error})`;
  return {
    object: "billing.meter_event",
    created: now,
    event_name: meter.event_name,
    identifier,
    livemode: false,
    payload: params.payload,
    timestamp,
  };
}

function eventValue(meter: Stripe.Billing.Meter, payload: Record<string, string>): number {
  if (meter.default_aggregation.formula === "count") return 1;
  const key = meter.value_settings.event_payload_key;
  const value = payload[key];
  if (value === undefined) {
    throw badRequest(`The payload must have the value under the key ${key}.`, {
      code: "meter_event_value_not_found",
      param: `payload[${key}]`,
    });
  }
  if (!/^-?\d{1,15}$/.test(value)) {
    throw badRequest(`The value must be a whole number: ${value}.`, {
      code: "meter_event_invalid_value",
      param: `payload[${key}]`,
    });
  }
  return Number(value);
}

export const summaryList = z.strictObject({
  ...page,
  customer: text,
  end_time: integer,
  start_time: integer,
  value_grouping_window: z.enum(["hour", "day"]).optional(),
});
type Summary = Stripe.Billing.MeterEventSummary;

/** Usage visible by now in [start_time, end_time), whole or by UTC hour or day, newest window first. */
export function listSummaries(
  context: Context,
  params: z.output<typeof summaryList>,
  id: string,
): Stripe.ApiList<Summary> {
  const { start_time: start, end_time: end, value_grouping_window: grouping, customer } = params;
  const meter = context.store.get("billing.meter", id);
  context.store.get("customer", customer, "customer");
  const alignment = grouping === "day" ? DAY_S : grouping === "hour" ? HOUR_S : MINUTE_S;
  for (const param of ["start_time", "end_time"] as const) {
    if (params[param] % alignment !== 0) {
      throw badRequest(`${param} must be aligned with ${grouping ?? "minute"} boundaries.`, { param });
    }
  }
  if (end <= start) throw badRequest("end_time must be after start_time.", { param: "end_time" });
  const width = grouping === undefined ? end - start : alignment;
  // SQLite takes the bare `value` from the row that max() chose.
  const rows = context.store.sql.all`SELECT CAST((timestamp - ${start}) / ${width} AS INTEGER) AS slot,
      sum(value) AS sum, count(*) AS count, value AS last, max(timestamp)
    FROM meter_events
    WHERE meter = ${meter.id} AND customer = ${customer} AND timestamp >= ${start} AND timestamp < ${end}
      AND error IS NULL AND visible_ms <= ${context.nowMs}
    GROUP BY slot ORDER BY slot DESC`;
  const formula = meter.default_aggregation.formula;
  const all = rows.map((row): Summary => {
    const from = start + Number(row["slot"]) * width;
    const name = createHash("sha256").update(`${meter.id} ${customer} ${from} ${width}`).digest("hex");
    return {
      id: `mtrusg_test_${name.slice(0, 40)}`,
      object: "billing.meter_event_summary",
      aggregated_value: Number(row[formula]),
      end_time: from + width,
      livemode: false,
      meter: meter.id,
      start_time: from,
    };
  });
  return { ...paged(all, params), url: `/v1/billing/meters/${meter.id}/event_summaries` };
}

function paged(all: Summary[], params: z.output<typeof summaryList>): Omit<Stripe.ApiList<Summary>, "url"> {
  const after = all.findIndex(({ id }) => id === params.starting_after);
  const before = all.findIndex(({ id }) => id === params.ending_before);
  if (before >= 0) {
    return {
      object: "list",
      data: all.slice(Math.max(0, before - params.limit), before),
      has_more: before > params.limit,
    };
  }
  const rest = all.slice(after + 1);
  return { object: "list", data: rest.slice(0, params.limit), has_more: rest.length > params.limit };
}

/**
 * The usage of a metered item in a period, as an invoice counts it: by timestamp, whatever its lag in summaries, and only
 * what was reported since the item has its price.
 */
export function usageOf(store: Store, customer: string, { item, period }: MeteredLine): number {
  const meter = store.find("billing.meter", item.price.recurring?.meter ?? "");
  if (meter === undefined) return 0;
  const row = store.sql.get`SELECT sum(value) AS sum, count(*) AS count, value AS last, max(timestamp) FROM meter_events
    WHERE meter = ${meter.id} AND customer = ${customer} AND timestamp >= ${period.start} AND timestamp < ${period.end}
      AND error IS NULL AND seq > ${item.usage_after_seq ?? 0}`;
  return Number(row?.[meter.default_aggregation.formula] ?? 0);
}

/** The number of the newest meter event; 0 while there is none. */
export function lastUsageSeq(store: Store): number {
  return Number(store.sql.get`SELECT max(seq) AS seq FROM meter_events`?.["seq"] ?? 0);
}

/** What was accepted and counts, summary lag aside: customer -> event name -> sum. For tests. */
export function meterTotals(store: Store): Record<string, Record<string, number>> {
  const totals: Record<string, Record<string, number>> = {};
  const rows = store.sql.all`SELECT customer, event_name, sum(value) AS total FROM meter_events
    WHERE error IS NULL GROUP BY customer, event_name`;
  for (const row of rows) {
    (totals[String(row["customer"])] ??= {})[String(row["event_name"])] = Number(row["total"]);
  }
  return totals;
}

/** Events that count, as they came. */
export function meterEvents(store: Store) {
  return store.sql.all`SELECT identifier, event_name, customer, value, timestamp FROM meter_events
    WHERE error IS NULL ORDER BY seq`;
}

/** Events that were answered with 200 and then dropped. */
export function meterErrors(store: Store) {
  return store.sql.all`SELECT identifier, event_name, customer, value, timestamp, error FROM meter_events
    WHERE error IS NOT NULL ORDER BY seq`;
}
