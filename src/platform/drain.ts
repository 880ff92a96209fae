// Brings a tenant's usage to where it counts, at once: out of its object, into the ledger, sealed, and confirmed by Stripe.
import { billingOf } from "../adapters/control-billing.ts";
import type { TenantId } from "../core/tenant.ts";
import { billingRun } from "./billing-run.ts";
import { reportTenant, sealUsage } from "./reporter.ts";

/** The last row of an object's sequence, which is on its way to the ledger. */
export interface UsageStream {
  epoch: string;
  lastN: number;
}

/** A batch of the queue waits a second for company. */
const POLL_MS = 100;

/**
 * What is still missing after `withinMs` at most; `undefined`: nothing, up to the last row that the object had when it was
 * asked. `isBilled`: Stripe bills it, and must have confirmed it. `nowMs`: of the object's clock, which has dated the rows.
 */
export async function drainUsage(
  env: Env,
  tenantId: TenantId,
  flush: () => Promise<UsageStream>,
  { isBilled, nowMs, withinMs }: { isBilled: boolean; nowMs: number; withinMs: number },
): Promise<"ledger" | "seal" | "stripe" | undefined> {
  const billing = billingOf(env);
  const untilMs = Date.now() + withinMs;
  const { epoch, lastN } = await flush();
  while (!(await billing.arrived(tenantId, epoch, lastN))) if (!(await tick(untilMs))) return "ledger";
  for (;;) {
    const run = billingRun(nowMs, Math.max(0, untilMs - Date.now()));
    if (isBilled) await reportTenant(env, tenantId, run);
    else await sealUsage(env, run, nowMs + 1, tenantId);
    const { unsealed, unconfirmed } = await billing.unsettled(tenantId, epoch, lastN);
    if (unsealed === 0 && (!isBilled || unconfirmed === 0)) return undefined;
    // What was tried and not confirmed is left alone for longer than anybody here may wait; what the cron has just sent is
    // confirmed in a moment.
    if (!(await tick(untilMs))) return unsealed > 0 ? "seal" : "stripe";
  }
}

/** Waits a little. False: it is too late for that. */
async function tick(untilMs: number): Promise<boolean> {
  if (Date.now() + POLL_MS >= untilMs) return false;
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  return true;
}
