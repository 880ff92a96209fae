// Billing meters, the summaries of their events, and their usage on invoices.
//
// Assumption, to be probed in a sandbox: a window without usage has no summary at all.
// An event belongs to the meter that was active under its name when it was received.
import { createHash } from "node:crypto";
import * as z from "zod";
import type { Stripe } from "stripe";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import { integer, page, text } from "./form.ts";
import type { MeteredLine } from "./objects.ts";
import { newId, type Store, where } from "./store.ts";

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

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

/** The active meter for this event name, if any. */
export function activeMeter(store: Store, eventName: string): Stripe.Billing.Meter | undefined {
  return store.all("billing.meter", [where("event_name", eventName), where("status", "active")])[0];
}

export const summaryList = z.strictObject({
  ...page,
  customer: text,
  end_time: integer,
  start_time: integer,
  value_grouping_window: z.enum(["hour", "day"]).optional(),
});
type Summary = Stripe.Billing.MeterEventSummary;

/** Visible usage in [start_time, end_time), as one sum or by UTC hour or day, newest window first. */
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
 * The usage of a metered item in a period, as an invoice counts it: by timestamp, regardless of the summary delay, and only
 * usage reported since the item has its price.
 */
export function usageOf(store: Store, customer: string, { item, period }: MeteredLine): number {
  const meter = store.find("billing.meter", item.price.recurring?.meter ?? "");
  if (meter === undefined) return 0;
  const row = store.sql.get`SELECT sum(value) AS sum, count(*) AS count, value AS last, max(timestamp) FROM meter_events
    WHERE meter = ${meter.id} AND customer = ${customer} AND timestamp >= ${period.start} AND timestamp < ${period.end}
      AND error IS NULL AND seq > ${item.usage_after_seq ?? 0}`;
  return Number(row?.[meter.default_aggregation.formula] ?? 0);
}

/** The number of the newest meter event; 0 without events. */
export function lastUsageSeq(store: Store): number {
  return Number(store.sql.get`SELECT max(seq) AS seq FROM meter_events`?.["seq"] ?? 0);
}
