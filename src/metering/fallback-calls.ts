// Tells the tenants' objects of calls that were charged while those could not be reached, so that windows and totals count
// them. An object that still cannot be reached is told by the sweep.
import { connectControl } from "../adapters/neon.ts";
import { fallbackCallsStore } from "../calls/fallback-calls-store.ts";
import type { UncountedCall } from "../control/ledger-store.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { describeError, log } from "../log.ts";

/** Whoever tells an object has others to tell: one that is silent must not keep them waiting. */
export const TELL_WITHIN_MS = 5_000;

/** Tells each object of its calls and notes which of them are counted. Throws when that cannot be noted: all are told again. */
export async function notifyFallbackCalls(env: Env, calls: readonly UncountedCall[]): Promise<void> {
  const counted: string[] = [];
  const tell = async (own: readonly UncountedCall[]): Promise<void> => {
    const [first] = own;
    if (first === undefined) return;
    const { tenantId } = first;
    try {
      const told = own.map(({ callId, tool, units, atMs }) => ({ callId, tool, units, atMs }));
      await withTimeout(TELL_WITHIN_MS, env.TENANT.getByName(tenantId).countFallbackCalls(told));
      counted.push(...own.map(({ callId }) => callId));
    } catch (error) {
      log("warn", "fallback_calls_not_counted", { tenantId, calls: own.length, error: describeError(error) });
    }
  };
  await Promise.all([...Map.groupBy(calls, ({ tenantId }) => tenantId).values()].map(tell));
  if (counted.length > 0) await fallbackCallsStore(connectControl(env)).counted(counted);
}
