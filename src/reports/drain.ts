// Drains one tenant's usage without waiting for the cron: writes it to the ledger, freezes it into reports, and gets
// Stripe's confirmation. Plan changes and removals use it.
import type { Context } from "../control/context.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { Flush } from "../metering/outbox.ts";
import { reportRun } from "./report-cron.ts";
import { freezeUsage, sendReports } from "./reporter.ts";
import { reportsStore } from "./reports-store.ts";

/** The time between two polls. A report that the cron is already sending is confirmed after one or two. */
const POLL_MS = 100;

/**
 * Returns the first stage that is incomplete after `withinMs`, or `undefined` when all rows up to the object's last row
 * have passed all stages. `isBilled`: Stripe bills this usage and must confirm it. `isLast`: no usage follows, so all of it
 * is frozen. Otherwise only usage that is already frozen is confirmed, because each new report uses up a minute of the
 * tenant's day. `ends`: the subscription is about to end, so usage without a free minute becomes a carry-forward. `nowMs`: the object's clock, which dated the rows.
 */
export async function drainUsage(
  context: Context,
  tenantId: TenantId,
  flush: Flush,
  {
    isBilled,
    isLast,
    ends = false,
    nowMs,
    withinMs,
  }: { isBilled: boolean; isLast: boolean; ends?: boolean; nowMs: number; withinMs: number },
): Promise<"ledger" | "freeze" | "stripe" | undefined> {
  const reports = reportsStore(context.control);
  const untilMs = Date.now() + withinMs;
  const { epoch, lastN, arrived } = await flush(nowMs);
  if (!arrived) return "ledger";
  for (;;) {
    const run = reportRun(nowMs, Math.max(0, untilMs - Date.now()));
    if (isLast) await freezeUsage(context, run, nowMs + 1, { tenantId, waits: !ends });
    if (isBilled) await sendReports(context, run, tenantId);
    const { unfrozen, unconfirmed } = await reports.unsettled(tenantId, epoch, lastN);
    if (isLast && unfrozen > 0) return "freeze";
    if (!isBilled || unconfirmed === 0) return undefined;
    // A failed report is not due again within this wait. A report that the cron has just sent is confirmed soon.
    if (!(await tick(untilMs))) return "stripe";
  }
}

/** Waits for the next poll. Returns false when no time is left. */
async function tick(untilMs: number): Promise<boolean> {
  if (Date.now() + POLL_MS >= untilMs) return false;
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  return true;
}
