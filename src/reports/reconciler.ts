// Compares, once a day, each tenant's reports with what Stripe has counted. It reads and records, and corrects nothing: a
// report that Stripe does not have is doubted, which the reporter settles by its own way. Resumed by whichever run comes
// next, tenant by tenant; a tenant that was compared twice is found in the same state twice.
import { type ComparedTenant, reconciliationStore } from "./reconciliation-store.ts";
import type { StripeConnection } from "../adapters/stripe.ts";
import type { Context } from "../control/context.ts";
import { type Drift, findDrifts, reconciliationDay } from "./reconciliation.ts";
import { log } from "../log.ts";
import type { ReportRun } from "./report-cron.ts";

const TENANTS_AT_ONCE = 25;
/** Of one tenant: enough to find some fifty minutes that differ, few enough that the others get their turn. */
const MOST_READS = 300;
/** Longer than a run, so that the next one does not compare the same tenants beside it. */
const CLAIM_MS = 240_000;

export async function reconcile({ control, stripe }: Context, run: ReportRun): Promise<void> {
  const startedMs = run.nowMs();
  const day = reconciliationDay(startedMs);
  if (day === undefined) return;
  const ledger = reconciliationStore(control);
  const claimedUntilMs = startedMs + CLAIM_MS;
  const claimed = await ledger.claim(day, startedMs, claimedUntilMs);
  if (claimed === undefined) return;

  let { doneUntil } = claimed;
  let finished = false;
  let reachable = true;
  while (reachable && !finished && !run.isOver()) {
    const tenants = await ledger.tenants(day, doneUntil, run.nowMs(), TENANTS_AT_ONCE);
    finished = tenants.length === 0;
    for (const tenant of tenants) {
      if (run.isOver()) break;
      const compared = await compare(stripe, run, tenant);
      reachable = compared !== "unreachable";
      if (compared === "unreachable") break;
      const { startSeconds, endSeconds, tenantId } = tenant;
      const outcome = { tenantId, days: { startSeconds, endSeconds }, ...compared };
      await ledger.finishTenant(day, outcome, run.nowMs(), claimedUntilMs);
      doneUntil = tenantId;
      if (compared.drifts === undefined) log("warn", "stripe_not_compared", { tenantId });
      else if (compared.drifts.length > 0) log("error", "stripe_differs", { tenantId, places: compared.drifts.length });
    }
  }
  await ledger.release(day, finished, run.nowMs(), claimedUntilMs);
}

/** `unreachable`: Stripe does not answer, so that the others would fare no better now. */
async function compare(
  stripe: StripeConnection,
  run: ReportRun,
  tenant: ComparedTenant,
): Promise<{ drifts: Drift[] | undefined; requests: number } | "unreachable"> {
  const finding = findDrifts(tenant.reports, tenant, MOST_READS);
  let requests = 0;
  let step = finding.next();
  while (step.done !== true) {
    await run.acquire();
    const answer = await stripe.meter.readUnits(tenant.customerId, step.value);
    requests += 1;
    if (answer.kind !== "read") return answer.kind === "again" ? "unreachable" : { drifts: undefined, requests };
    step = finding.next(answer.units);
  }
  return { drifts: step.value, requests };
}
