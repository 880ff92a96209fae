// Records meter events that Stripe accepted and refused afterwards. The notification names only the occurrence, so Tollgate
// fetches the details. No invoice carries a refused unit unless its report is sent again.
import type { Context } from "../control/context.ts";
import { log } from "../log.ts";
import { meterErrorsStore } from "./meter-errors-store.ts";

/** Fetches and stores the errors that a notification announces. A repetition changes nothing. Returns the event's outcome. */
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
 * The report that a sample of Stripe's names, if any. The sample has the identifier of the request. This is the meter
 * event's identifier or the idempotency key of the attempt. Both begin with the report's id.
 */
export function reportIdOf(identifier: string): string | undefined {
  return /^(u1\.[a-z0-9][a-z0-9_-]{0,39}\.\d+)(?:\.a\d+)?$/.exec(identifier)?.[1];
}
