// What Stripe's meter refused after it had taken it. The notification says hardly more than that; what it is about is
// fetched, kept, and told: a unit that Stripe has refused is a unit that no invoice will have.
import type { Context } from "../control/context.ts";
import { meterErrorsStore } from "./meter-errors-store.ts";
import { log } from "../log.ts";

/** Fetches and keeps what a notification of the meter is about. May be repeated. */
export async function recordMeterErrors({ control, stripe }: Context, eventId: string): Promise<string> {
  const found = await stripe.meter.errors(eventId);
  if (found === undefined) return "not_used";
  const byCode = found.byCode.map(({ code, errors, identifiers }) => ({
    code,
    errors,
    reportIds: identifiers.flatMap((identifier) => reportIdOf(identifier) ?? []),
  }));
  await meterErrorsStore(control).keep(eventId, found.fromAt, found.untilAt, byCode);
  for (const { code, errors, reportIds } of byCode)
    log("error", "meter_events_refused", { code, errors, reports: reportIds.join(",") });
  return "kept";
}

/**
 * The reports that Stripe's samples name. Stripe calls it the request's identifier, which may be the event's own or the
 * idempotency key of its attempt; both begin with the report's id.
 */
export function reportIdOf(identifier: string): string | undefined {
  return /^(u1\.[a-z0-9][a-z0-9_-]{0,39}\.\d+)(?:\.a\d+)?$/.exec(identifier)?.[1];
}
