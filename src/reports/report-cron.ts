// One run of the billing cron: reports, then what is carried forward, then the comparison with Stripe, each within its
// share of the time until the next run and none kept from its turn by another's failure.
import { log, describeError } from "../log.ts";
import { billCarryForwards } from "./bill-carry-forwards.ts";
import { rateLimiter } from "../adapters/rate-limiter.ts";
import { reconcile } from "./reconciler.ts";
import { reportUsage } from "./reporter.ts";

export interface ReportRun {
  /** The time that the run is for, going on while it takes. */
  nowMs(): number;
  /** Whether its time is up. What is left is the next run's. */
  isOver(): boolean;
  /** Await it before a request to Stripe that is not a meter event. */
  turn(): Promise<void>;
}

/** The cron comes every five minutes; together these end before the next one, but for a last call that hangs. */
const REPORTING_MS = 150_000;
const CARRYING_MS = 30_000;
const COMPARING_MS = 60_000;

/** A run for the time `nowMs` that lasts at most `lastsMs`. */
export function reportRun(nowMs: number, lastsMs: number, turn = rateLimiter()): ReportRun {
  const startedAtMs = Date.now();
  const elapsedMs = (): number => Math.max(0, Date.now() - startedAtMs);
  return { nowMs: () => nowMs + elapsedMs(), isOver: () => elapsedMs() >= lastsMs, turn };
}

export async function runReportCron(env: Env, nowMs: number): Promise<void> {
  const turn = rateLimiter();
  const startedAtMs = Date.now();
  const parts = [
    { name: "reports", lastsMs: REPORTING_MS, work: reportUsage },
    { name: "carry_forwards", lastsMs: CARRYING_MS, work: billCarryForwards },
    { name: "reconciliation", lastsMs: COMPARING_MS, work: reconcile },
  ];
  for (const { name, lastsMs, work } of parts) {
    try {
      await work(env, reportRun(nowMs + Math.max(0, Date.now() - startedAtMs), lastsMs, turn));
    } catch (error) {
      log("error", "billing_failed", { part: name, error: describeError(error) });
    }
  }
}
