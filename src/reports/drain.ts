// Brings a tenant's usage to where it counts, at once: out of its object, into the ledger, sealed, and confirmed by Stripe.
import { connectControl } from "../adapters/neon.ts";
import type { Flush } from "../metering/outbox.ts";
import type { TenantId } from "../core/tenant.ts";
import { reportRun } from "./report-cron.ts";
import { freezeUsage, sendReports } from "./reporter.ts";
import { reportsStore } from "./reports-store.ts";

/** What the cron is just sending is confirmed after one or two of these. */
const POLL_MS = 100;

/**
 * What is still missing after `withinMs` at most; `undefined`: nothing, up to the last row that the object had when it was
 * asked. `isBilled`: Stripe bills it, and must have confirmed it. `isLast`: no usage follows for a moment, so that all of it
 * is sealed; otherwise only what is sealed already is confirmed, because each seal takes a minute of Stripe's time.
 * `nowMs`: of the object's clock, which has dated the rows.
 */
export async function drainUsage(
  env: Env,
  tenantId: TenantId,
  flush: Flush,
  { isBilled, isLast, nowMs, withinMs }: { isBilled: boolean; isLast: boolean; nowMs: number; withinMs: number },
): Promise<"ledger" | "seal" | "stripe" | undefined> {
  const reports = reportsStore(connectControl(env));
  const untilMs = Date.now() + withinMs;
  const { epoch, lastN, arrived } = await flush(nowMs);
  if (!arrived) return "ledger";
  for (;;) {
    const run = reportRun(nowMs, Math.max(0, untilMs - Date.now()));
    if (isLast) await freezeUsage(env, run, nowMs + 1, tenantId);
    if (isBilled) await sendReports(env, run, tenantId);
    const { unsealed, unconfirmed } = await reports.unsettled(tenantId, epoch, lastN);
    if (isLast && unsealed > 0) return "seal";
    if (!isBilled || unconfirmed === 0) return undefined;
    // What was tried and not confirmed is left alone for longer than anybody here may wait; what the cron has just sent is
    // confirmed in a moment.
    if (!(await tick(untilMs))) return "stripe";
  }
}

/** Waits a little. False: it is too late for that. */
async function tick(untilMs: number): Promise<boolean> {
  if (Date.now() + POLL_MS >= untilMs) return false;
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  return true;
}
