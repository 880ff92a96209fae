// The cron that tells Stripe what was used: seals the ledger into reports, then sends every report that Stripe has not
// confirmed. Two of these at the same time do no harm: sealing takes a lock, and a report that is sent twice carries
// the same identifier twice.
import { type Report, controlUsage } from "../adapters/control-usage.ts";
import { connectControl } from "../adapters/neon.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { SEAL_AGE_MS } from "../core/billing.ts";
import { describeError, log } from "../log.ts";

/** What Stripe has confirmed is recorded after each claim: few enough that a run which is cut short has little to repeat. */
const REPORTS_PER_CLAIM = 50;
/** The next run goes on where this one ended. */
const CLAIMS_PER_RUN = 100;
/** Workers allow six connections at once; Stripe allows one call at a time per customer and meter. */
const CUSTOMERS_AT_ONCE = 5;

/** Runs once. `nowMs` is the time that the run is for. */
export async function reportUsage(env: Env, nowMs: number): Promise<void> {
  const ledger = controlUsage(connectControl(env));
  const stripe = connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE);
  // What was sealed before is sent, also when sealing fails.
  const sealed = await ledger.seal(nowMs - SEAL_AGE_MS, nowMs).catch((error: unknown) => {
    log("error", "usage_not_sealed", { error: describeError(error) });
    return 0;
  });
  let confirmedCount = 0;
  let failedCount = 0;

  for (let claim = 0; claim < CLAIMS_PER_RUN; claim += 1) {
    const reports = await ledger.claimReports(nowMs, REPORTS_PER_CLAIM);
    if (reports.length === 0) break;
    const queue = [...Map.groupBy(reports, (report) => report.customerId).values()];
    const confirmed: { id: string; answer: string }[] = [];
    const failed: { id: string; error: string }[] = [];
    let answers = 0;

    const send = async (report: Report): Promise<void> => {
      const answer = await stripe.sendUnits(report);
      if (answer.kind !== "again") answers += 1;
      if (answer.kind === "confirmed") confirmed.push({ id: report.id, answer: answer.answer });
      else failed.push({ id: report.id, error: `${answer.kind}: ${answer.message ?? ""}`.slice(0, 300) });
    };
    const worker = async (): Promise<void> => {
      for (let own = queue.pop(); own !== undefined; own = queue.pop()) for (const report of own) await send(report);
    };
    await Promise.all(Array.from({ length: CUSTOMERS_AT_ONCE }, worker));

    if (confirmed.length > 0) await ledger.confirmReports(confirmed, nowMs);
    if (failed.length > 0) await ledger.failReports(failed);
    if (answers > 0) await ledger.beat("stripe", nowMs);
    confirmedCount += confirmed.length;
    failedCount += failed.length;
    // Stripe is down or wants us to slow down: the rest would fare no better now.
    if (answers === 0) break;
  }
  await ledger.beat("report", nowMs);
  log(failedCount > 0 ? "warn" : "info", "usage_reported", { sealed, confirmed: confirmedCount, failed: failedCount });
}
