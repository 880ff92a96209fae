// Notifies tenants' objects of fallback calls, so that their windows and totals count them. The sweep notifies an object
// that still cannot be reached.
import { fallbackCallsStore } from "../calls/fallback-calls-store.ts";
import type { Context } from "../control/context.ts";
import type { UncountedCall } from "../control/ledger-store.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { describeError, log } from "../log.ts";

/** An object answers in milliseconds. One that stays silent must not delay the rest of the batch. */
export const NOTIFY_WITHIN_MS = 5_000;

/**
 * Sends each object the calls that ran without it, then records them as counted. Throws if that cannot be recorded; repeating the
 * notification counts nothing twice.
 */
export async function notifyFallbackCalls(context: Context, calls: readonly UncountedCall[]): Promise<void> {
  const counted: string[] = [];
  const notify = async (own: readonly UncountedCall[]): Promise<void> => {
    const [first] = own;
    if (first === undefined) return;
    const { tenantId } = first;
    try {
      const charges = own.map(({ callId, tool, units, atMs }) => ({ callId, tool, units, atMs }));
      await withTimeout(NOTIFY_WITHIN_MS, context.tenantObject(tenantId).countFallbackCalls(charges));
      counted.push(...own.map(({ callId }) => callId));
    } catch (error) {
      log("warn", "fallback_calls_not_counted", { tenantId, calls: own.length, error: describeError(error) });
    }
  };
  await Promise.all([...Map.groupBy(calls, ({ tenantId }) => tenantId).values()].map(notify));
  if (counted.length > 0) await fallbackCallsStore(context.control).counted(counted);
}
