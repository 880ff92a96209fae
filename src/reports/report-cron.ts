// Cron: sends reports, bills carry-forwards, compares the reports with Stripe, then sends tenants' alerts. Each part has a share of the time until
// the next run. A failure of one part does not stop the others.
import { type Acquire, rateLimiter } from "../adapters/stripe/client.ts";
import type { Context } from "../control/context.ts";
import { MINUTE_MS } from "../core/time.ts";
import { describeError, log } from "../log.ts";
import { sendAlerts } from "../metering/alerts.ts";
import { billCarryForwards } from "./carry-forward.ts";
import { reconcile } from "./reconciler.ts";
import { reportUsage } from "./reporter.ts";

export interface ReportRun {
  /** The run's clock. It starts at the scheduled time and advances. */
  nowMs(): number;
  /** Whether the run's time is over. The next run continues. */
  isOver(): boolean;
  /** Await it before each request to Stripe, except meter events. */
  acquire: Acquire;
}

/** The cron runs every five minutes. The parts together take four, which leaves a minute for a last slow request. */
const REPORTING_MS = 150_000;
const CARRYING_MS = 30_000;
const COMPARING_MS = MINUTE_MS;

/** A run whose clock starts at `nowMs` and that lasts at most `lastsMs`. */
export function reportRun(nowMs: number, lastsMs: number, { acquire } = rateLimiter()): ReportRun {
  const startedAtMs = Date.now();
  const elapsedMs = (): number => Math.max(0, Date.now() - startedAtMs);
  return { nowMs: () => nowMs + elapsedMs(), isOver: () => elapsedMs() >= lastsMs, acquire };
}

/** Returns the parts that failed. */
export async function runReportCron(context: Context, nowMs: number): Promise<string[]> {
  const failed: string[] = [];
  const limiter = rateLimiter();
  const startedAtMs = Date.now();
  const parts = [
    { name: "reports", lastsMs: REPORTING_MS, work: reportUsage },
    { name: "carry_forwards", lastsMs: CARRYING_MS, work: billCarryForwards },
    { name: "reconciliation", lastsMs: COMPARING_MS, work: reconcile },
    { name: "alerts", lastsMs: 0, work: (_: Context, run: ReportRun) => sendAlerts(context, run.nowMs()) },
  ];
  for (const { name, lastsMs, work } of parts) {
    try {
      await work(context, reportRun(nowMs + Math.max(0, Date.now() - startedAtMs), lastsMs, limiter));
    } catch (error) {
      log("error", "report_cron_failed", { part: name, error: describeError(error) });
      failed.push(name);
    }
  }
  return failed;
}
