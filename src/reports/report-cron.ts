// One run of the report cron: sends reports, bills carry-forwards, then compares with Stripe. Each part has its share of the
// time until the next run, and a failure of one part does not stop the others.
import type { Context } from "../control/context.ts";
import { type Acquire, rateLimiter } from "../adapters/rate-limiter.ts";
import { describeError, log } from "../log.ts";
import { billCarryForwards } from "./carry-forward.ts";
import { reconcile } from "./reconciler.ts";
import { reportUsage } from "./reporter.ts";

export interface ReportRun {
  /** The time of the run. It advances while the run lasts. */
  nowMs(): number;
  /** Whether the run's time is up. The next run takes what is left. */
  isOver(): boolean;
  /** Await it before every request to Stripe that is not a meter event. */
  acquire: Acquire;
}

/** The cron runs every five minutes. Together the parts end before the next run, unless a last call hangs. */
const REPORTING_MS = 150_000;
const CARRYING_MS = 30_000;
const COMPARING_MS = 60_000;

/** A run for the time `nowMs` that lasts `lastsMs` at most. */
export function reportRun(nowMs: number, lastsMs: number, { acquire } = rateLimiter()): ReportRun {
  const startedAtMs = Date.now();
  const elapsedMs = (): number => Math.max(0, Date.now() - startedAtMs);
  return { nowMs: () => nowMs + elapsedMs(), isOver: () => elapsedMs() >= lastsMs, acquire };
}

export async function runReportCron(context: Context, nowMs: number): Promise<void> {
  const limiter = rateLimiter();
  const startedAtMs = Date.now();
  const parts = [
    { name: "reports", lastsMs: REPORTING_MS, work: reportUsage },
    { name: "carry_forwards", lastsMs: CARRYING_MS, work: billCarryForwards },
    { name: "reconciliation", lastsMs: COMPARING_MS, work: reconcile },
  ];
  for (const { name, lastsMs, work } of parts) {
    try {
      await work(context, reportRun(nowMs + Math.max(0, Date.now() - startedAtMs), lastsMs, limiter));
    } catch (error) {
      log("error", "report_cron_failed", { part: name, error: describeError(error) });
    }
  }
}
