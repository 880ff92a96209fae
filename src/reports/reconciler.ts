// Compares each tenant's reports with Stripe's totals once a day, and its calls with its invoices when a period was closed.
// The rules are in reconciliation.ts; this file reads Stripe and records the result. It corrects nothing. It marks a report that Stripe lacks as doubted, and the reporter
// settles it. The next run continues at the next tenant. Comparing a tenant twice gives the same result.
import type { StripeConnection } from "../adapters/stripe/stripe.ts";
import type { Context } from "../control/context.ts";
import { isolated } from "../control/failures-store.ts";
import { log } from "../log.ts";
import { periodsStore } from "./periods-store.ts";
import { type ComparedTenant, reconciliationStore } from "./reconciliation-store.ts";
import { type Drift, type InvoiceDrift, findDrifts, invoiceDrifts, reconciliationDay } from "./reconciliation.ts";
import type { ReportRun } from "./report-cron.ts";

/** Tenants in one query, so that its answer stays small. */
const TENANTS_AT_ONCE = 25;
/** Maximum number of reads for one tenant. It finds about fifty minutes that differ and leaves time for other tenants. */
const MOST_READS = 300;
/** Longer than a run, so that the next run does not compare the same tenants at the same time. */
const CLAIM_MS = 240_000;

/** Continues the comparison of the day until it is finished or the run's time is over. */
export async function reconcile(context: Context, run: ReportRun): Promise<void> {
  const { control, stripe } = context;
  const startedMs = run.nowMs();
  const day = reconciliationDay(startedMs);
  if (day === undefined) return;
  const store = reconciliationStore(control);
  const claimedUntilMs = startedMs + CLAIM_MS;
  const claimed = await store.claim(day, startedMs, claimedUntilMs);
  if (claimed === undefined) return;

  const progress = { doneUntil: claimed.doneUntil, isReachable: true };
  let finished = false;
  while (progress.isReachable && !finished && !run.isOver()) {
    const tenants = await store.tenants(day, progress.doneUntil, run.nowMs(), TENANTS_AT_ONCE);
    finished = tenants.length === 0;
    const alone = { part: "reconciliation", idOf: ({ tenantId }: ComparedTenant) => tenantId, atOnce: 1 };
    await isolated(control, tenants, alone, async (tenant) => {
      if (run.isOver() || !progress.isReachable) return;
      const { startSeconds, endSeconds, tenantId } = tenant;
      const compared = await compare(stripe, run, tenant).catch((error: unknown) => {
        progress.doneUntil = tenantId; // a tenant whose comparison fails is skipped for the day
        throw error;
      });
      if (compared === "unreachable") {
        progress.isReachable = false;
        return;
      }
      progress.doneUntil = tenantId;
      const outcome = { tenantId, days: { startSeconds, endSeconds }, ...compared };
      await store.finishTenant(day, outcome, run.nowMs(), claimedUntilMs);
      if (compared.drifts === undefined) log("warn", "stripe_not_compared", { tenantId });
      else if (compared.drifts.length > 0)
        log("error", "stripe_differs", { tenantId, minutes: compared.drifts.length });
      if (compared.drifts !== undefined) await compareInvoices(context, run, tenant);
    });
  }
  await store.release(day, finished, run.nowMs(), claimedUntilMs);
}

/** Compares the invoices of a tenant's periods that were closed lately with the calls of these periods. */
async function compareInvoices({ control, stripe }: Context, run: ReportRun, tenant: ComparedTenant): Promise<void> {
  const { tenantId, customerId, invoicedFromSeconds: fromSeconds } = tenant;
  if (fromSeconds === null) return;
  await run.acquire();
  const invoiced = await stripe.invoices.usage(customerId, fromSeconds);
  const earned = await periodsStore(control).earnedUnits(tenantId, fromSeconds * 1000);
  const all = invoiceDrifts(earned, invoiced).filter(({ startSeconds }) => startSeconds >= fromSeconds);
  const drifts = all.length === 0 ? [] : await withoutUnpaid(stripe, customerId, all);
  await reconciliationStore(control).recordInvoices(tenantId, fromSeconds, drifts, run.nowMs());
  if (drifts.length > 0) log("error", "invoices_differ", { tenantId, periods: drifts.length });
}

/** Leaves out usage that is on no invoice because its customer did not pay. Stripe then makes no last invoice. */
async function withoutUnpaid(
  stripe: StripeConnection,
  customerId: string,
  drifts: readonly InvoiceDrift[],
): Promise<InvoiceDrift[]> {
  const found = await stripe.subscriptions.ofCustomer(customerId);
  const unpaid = new Set(found.filter(({ endedUnpaid }) => endedUnpaid === true).map(({ id }) => id));
  return drifts.filter(
    ({ subscriptionId, earnedUnits, invoicedUnits }) => invoicedUnits > earnedUnits || !unpaid.has(subscriptionId),
  );
}

/** Compares one tenant. `unreachable`: Stripe does not answer, so the run skips the other tenants, too. */
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
