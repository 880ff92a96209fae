// Stripe's Billing Meter: sends units, reads the totals that Stripe has counted, and fetches its error reports.
import type Stripe from "stripe";
import { type NoAnswer, failureOf, mayPassLater, noAnswer } from "./client.ts";

/** The meter's event name. One unit of any tool is one unit of the meter. */
export const METER_EVENT = "mcp_units";

export type MeterAnswer =
  /** Stripe has it, from this attempt or from an earlier one whose answer was lost. */
  | { kind: "confirmed"; answer: "accepted" | "duplicate" }
  /** The outcome is unknown, or Stripe was busy: send the same report again later. */
  | { kind: "again" }
  /** Stripe does not take a timestamp that old. An earlier attempt may have landed. */
  | { kind: "too_old" }
  /** Stripe refuses it for good: an operator must look. */
  | { kind: "refused" };

export interface Range {
  readonly startSeconds: number;
  /** Exclusive. */
  readonly endSeconds: number;
}

/** Totals to read: one for the whole range, or one for each UTC day or hour in it. */
export interface SummaryRequest extends Range {
  readonly by: "whole" | "hour" | "day";
}

export type UnitsRead = { kind: "read"; units: ReadonlyMap<number, number> } | NoAnswer;

/** Errors that Stripe found in meter events after it had accepted them. */
export interface MeterErrors {
  fromAt: string;
  untilAt: string;
  byCode: { code: string; errors: number; identifiers: string[] }[];
}

/** The idempotency key of an attempt. Each attempt has its own, because Stripe's v1 API replays a stored 500. */
export function attemptKey(reportId: string, attempt: number): string {
  return `${reportId}.a${attempt}`;
}

/** The meaning of a failed attempt, from the HTTP status (`undefined`: no answer), Stripe's message and its error code. */
export function classifyMeterFailure(status: number | undefined, message: string, code?: string): MeterAnswer {
  if (status === 400 && message.includes("already exists with identifier"))
    return { kind: "confirmed", answer: "duplicate" };
  if (mayPassLater(status)) return { kind: "again" };
  if (status === 400 && (code === "timestamp_too_far_in_past" || message.includes("35 calendar days"))) {
    return { kind: "too_old" };
  }
  return { kind: "refused" };
}

export function connectMeter(stripe: Stripe) {
  /** Id of the meter that totals are read from. It never changes. */
  let meterId: string | undefined;

  return {
    /** Reports units. Never throws: the caller decides from the answer. */
    async send(report: {
      id: string;
      customerId: string;
      stampSeconds: number;
      units: number;
      attempt: number;
    }): Promise<MeterAnswer & { message?: string }> {
      try {
        await stripe.billing.meterEvents.create(
          {
            event_name: METER_EVENT,
            identifier: report.id,
            timestamp: report.stampSeconds,
            payload: { stripe_customer_id: report.customerId, value: String(report.units) },
          },
          { idempotencyKey: attemptKey(report.id, report.attempt) },
        );
        return { kind: "confirmed", answer: "accepted" };
      } catch (error) {
        const { status, message, code } = failureOf(error);
        return { ...classifyMeterFailure(status, message, code), message };
      }
    },

    /**
     * The units that Stripe has counted for a customer, by the start of each range in epoch seconds. A range without units
     * is absent. Takes whole minutes, hours or UTC days, at most 100 of them. Never throws.
     */
    async readUnits(customerId: string, request: SummaryRequest): Promise<UnitsRead> {
      const { startSeconds, endSeconds, by } = request;
      try {
        meterId ??= (await findMeter(stripe))?.id;
        if (meterId === undefined)
          return { kind: "refused", message: "there is no meter at Stripe: run npm run stripe:setup" };
        const { data } = await stripe.billing.meters.listEventSummaries(meterId, {
          customer: customerId,
          start_time: startSeconds,
          end_time: endSeconds,
          limit: 100,
          ...(by === "whole" ? {} : { value_grouping_window: by }),
        });
        return { kind: "read", units: new Map(data.map((each) => [each.start_time, each.aggregated_value])) };
      } catch (error) {
        return noAnswer(error);
      }
    },

    /** The content of an error report of the meter. `undefined`: the event is of another kind. */
    async errors(eventId: string): Promise<MeterErrors | undefined> {
      const event = await stripe.v2.core.events.retrieve(eventId);
      if (event.type !== "v1.billing.meter.error_report_triggered" && event.type !== "v1.billing.meter.no_meter_found")
        return undefined;
      const { reason, validation_start: fromAt, validation_end: untilAt } = event.data;
      return {
        fromAt,
        untilAt,
        byCode: reason.error_types.map(({ code, error_count: errors, sample_errors: samples }) => ({
          code,
          errors,
          identifiers: samples.map(({ request }) => request.identifier),
        })),
      };
    },
  };
}

export type Meter = ReturnType<typeof connectMeter>;

export async function findMeter(stripe: Stripe): Promise<Stripe.Billing.Meter | undefined> {
  for await (const meter of stripe.billing.meters.list({ status: "active", limit: 100 })) {
    if (meter.event_name === METER_EVENT) return meter;
  }
  return undefined;
}
