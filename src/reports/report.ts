// Rules for reporting usage to Stripe. A report is frozen once, in a transaction of the ledger, and never changes. These
// rules decide when usage is old enough to freeze, the next step for a report, and the meaning of Stripe's answers and
// summaries. Tollgate repeats a report without a check only while Stripe is sure to refuse a duplicate. After that the
// summary of the report's own minute decides. It proves that Stripe has the report, or, over a day, that Stripe has nothing.
// In any other case an operator must look. Tollgate never sends a correction.
import type { MeterAnswer } from "../adapters/stripe/meter.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../core/time.ts";

/** Younger usage waits for the next run, because earlier rows may still be in the queue. */
export const FREEZE_AGE_MS = MINUTE_MS;

/**
 * How long a report is repeated without a check. Stripe keeps identifiers for at least 24 hours and refuses a duplicate.
 * Four hours less allow for slow requests and clocks. After that only a summary tells whether Stripe has the report.
 */
export const BLIND_RESEND_MS = 20 * HOUR_MS;

/** Minimum time between two attempts at a report. A run does not repeat a failed report at once; the next run does. */
const ATTEMPT_SPACING_MS = 30_000;

/** Stripe refuses a report until an operator fixes the cause. An hourly attempt finds the fix soon enough. */
const REFUSED_SPACING_MS = HOUR_MS;

/** Summaries follow events within minutes, so an hourly read is enough. */
const READ_SPACING_MS = HOUR_MS;

/** Stripe states no bound for the delay of a summary. A day is far beyond any known delay. */
const ABSENT_FOR_MS = DAY_MS;

/** Stripe takes timestamps of the past 35 calendar days. One day less allows for any time zone. */
const SENDABLE_MS = 34 * DAY_MS;

/** Older usage goes into a carry-forward, because a report would have no time left to be sent and verified. */
export const REPORTABLE_MS = 33 * DAY_MS;

/** Stripe takes timestamps up to five minutes ahead. One minute less allows for its clock. */
const AHEAD_MS = 4 * MINUTE_MS;

/** Maximum difference between reporters' clocks. If an attempt is dated further ahead, the clock has jumped. */
const CLOCK_SLACK_MS = 15 * MINUTE_MS;

/** An unsettled report: the fields that decide its next step. */
export interface OpenReport {
  /** Start of its own minute. */
  readonly slotMs: number;
  readonly units: number;
  /** First attempt of the current series, within which Stripe refuses duplicates. `null`: none yet. */
  readonly firstAttemptAtMs: number | null;
  /** Since when only a summary can tell whether Stripe has it. Older than `firstAttemptAtMs`: a new series has begun. */
  readonly doubtedAtMs: number | null;
  /** Since when summaries have shown nothing. */
  readonly absentSinceMs: number | null;
  /** The invoice of its minute is final, so a meter event would come too late. */
  readonly invoiceFinal: boolean;
  /** These three are as in `ReportProgress`, from the last step. */
  readonly alarm: "refused" | "mismatch" | null;
  readonly stripeUnits: number | null;
  readonly error: string | null;
}

/** The new values of all fields of a report that may change. */
export interface ReportProgress {
  /** The proof that Stripe has it. `null`: no new proof. */
  readonly answer: "accepted" | "duplicate" | "summary" | null;
  readonly firstAttemptAtMs: number | null;
  readonly doubtedAtMs: number | null;
  readonly absentSinceMs: number | null;
  readonly alarm: "refused" | "mismatch" | null;
  /** Stripe's units in its minute, when they are neither 0 nor the report's units. */
  readonly stripeUnits: number | null;
  readonly error: string | null;
  /** `null`: the report is settled. */
  readonly nextAtMs: number | null;
}

/** The next step for a report. */
export function nextStep(report: OpenReport, nowMs: number): "send" | "read" | "wait" {
  if (isDoubted(report)) return "read";
  const { firstAttemptAtMs: first } = report;
  if (first !== null && (nowMs - first >= BLIND_RESEND_MS || first - nowMs > CLOCK_SLACK_MS)) return "read";
  if (!isBillable(report, nowMs)) return "read"; // an attempt that was not recorded may have reached Stripe
  // The minute had begun when the report was frozen. A minute ahead of now means that the clock has gone back.
  return report.slotMs - nowMs > AHEAD_MS ? "wait" : "send";
}

/** A doubt that is older than the first attempt is settled: Stripe had nothing, and a new series of attempts has begun. */
function isDoubted({ doubtedAtMs, firstAttemptAtMs }: OpenReport): boolean {
  return doubtedAtMs !== null && firstAttemptAtMs !== null && doubtedAtMs >= firstAttemptAtMs;
}

/** Whether Stripe would take a meter event now and put it on an invoice. */
function isBillable(report: OpenReport, nowMs: number): boolean {
  return !report.invoiceFinal && nowMs - report.slotMs < SENDABLE_MS;
}

/** Leaves a report unchanged until `nextAtMs`. */
export function postponedUntil(report: OpenReport, nextAtMs: number, error = report.error): ReportProgress {
  const { firstAttemptAtMs, doubtedAtMs, absentSinceMs, alarm, stripeUnits } = report;
  return { answer: null, firstAttemptAtMs, doubtedAtMs, absentSinceMs, alarm, stripeUnits, error, nextAtMs };
}

/** The progress after an attempt that was made at `nowMs`. A first attempt starts the series at `nowMs`. */
export function afterSend(report: OpenReport, answer: MeterAnswer, error: string, nowMs: number): ReportProgress {
  const first = report.firstAttemptAtMs ?? nowMs;
  const waiting = { ...postponedUntil(report, nowMs + ATTEMPT_SPACING_MS, error), firstAttemptAtMs: first };
  switch (answer.kind) {
    case "confirmed":
      return settledBy(report, answer.answer, first);
    case "again":
      return waiting;
    case "refused":
      return { ...waiting, alarm: "refused", nextAtMs: nowMs + REFUSED_SPACING_MS };
    case "too_old":
      return { ...waiting, doubtedAtMs: nowMs };
    default:
      return answer satisfies never;
  }
}

function settledBy(
  report: OpenReport,
  answer: "accepted" | "duplicate" | "summary",
  firstAttemptAtMs = report.firstAttemptAtMs,
): ReportProgress {
  return {
    answer,
    firstAttemptAtMs,
    doubtedAtMs: null,
    absentSinceMs: null,
    alarm: null,
    stripeUnits: null,
    error: null,
    nextAtMs: null,
  };
}

/**
 * The progress after a read of the report's minute, in which Stripe has `foundUnits`. After a day with no units, Tollgate
 * sends the same report again, and a new series of attempts begins. `carry`: sending is too late for the invoice or for
 * Stripe, so a carry-forward bills the usage.
 */
export function afterRead(report: OpenReport, foundUnits: number, nowMs: number): ReportProgress | "carry" {
  if (foundUnits === report.units) return settledBy(report, "summary");
  const doubted = doubtedUntil(report, nowMs + READ_SPACING_MS, nowMs);
  if (foundUnits !== 0) return { ...doubted, absentSinceMs: null, alarm: "mismatch", stripeUnits: foundUnits };
  const absentSinceMs = report.absentSinceMs ?? nowMs;
  const alarm = report.alarm === "refused" ? "refused" : null;
  const absent = { ...doubted, absentSinceMs, alarm, stripeUnits: null } as const;
  if (nowMs - absentSinceMs < ABSENT_FOR_MS) return absent;
  if (!isBillable(report, nowMs)) return "carry";
  return { ...absent, absentSinceMs: null, firstAttemptAtMs: null, nextAtMs: nowMs };
}

/** Dates an attempt in the future back to now: the clock that recorded it had jumped. */
function doubtedUntil(report: OpenReport, nextAtMs: number, nowMs: number, error = report.error): ReportProgress {
  const { firstAttemptAtMs: first } = report;
  const doubtedAtMs = isDoubted(report) && first !== null && first <= nowMs ? report.doubtedAtMs : nowMs;
  const firstAttemptAtMs = first === null ? null : Math.min(first, nowMs);
  return { ...postponedUntil(report, nextAtMs, error), firstAttemptAtMs, doubtedAtMs };
}

/** The progress after a failed read, which is repeated. `refused`: Stripe refused the read, so a quick retry is useless. */
export function afterFailedRead(report: OpenReport, error: string, refused: boolean, nowMs: number): ReportProgress {
  return doubtedUntil(report, nowMs + (refused ? READ_SPACING_MS : ATTEMPT_SPACING_MS), nowMs, error);
}
