// Rules for reporting usage to Stripe. A report is frozen once, in a transaction of the ledger, and never changes. These
// rules decide when usage is old enough to freeze, the next step with a report, and the meaning of Stripe's answers and
// summaries. A report is repeated blindly only while Stripe is sure to refuse a duplicate. After that a summary of the
// report's own minute decides: it proves the report, or it proves over a day that Stripe has nothing, or an operator must
// look. Tollgate never sends a correction.
import type { MeterAnswer } from "../adapters/stripe-meter.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Younger usage waits for the next run, because earlier rows may still be on the way from the object. */
export const FREEZE_AGE_MS = MINUTE_MS;

/**
 * Stripe keeps identifiers for at least 24 hours. Within 20 of them an attempt may be repeated blindly, because a
 * duplicate is refused; after that only a summary read can tell whether the first one landed.
 */
export const BLIND_RESEND_MS = 20 * HOUR_MS;

/** Minimum time between two attempts at a report. */
export const ATTEMPT_SPACING_MS = 30_000;

/** Stripe refuses a report until an operator fixes the cause. An hourly attempt notices the fix soon enough. */
const REFUSED_SPACING_MS = HOUR_MS;

/** Summaries follow events within minutes, so hourly reads find a late one within the hour. */
const READ_SPACING_MS = HOUR_MS;

/** Stripe states no bound for the delay of a summary. A day is far beyond any known delay. */
const ABSENT_FOR_MS = DAY_MS;

/** Stripe takes timestamps of the past 35 calendar days. One day less allows for time zones of "calendar day". */
const SENDABLE_MS = 34 * DAY_MS;

/** Older usage goes into a carry-forward: a report would have no time left to be sent and verified. */
export const REPORTABLE_MS = 33 * DAY_MS;

/** Stripe takes timestamps up to five minutes ahead. */
const AHEAD_MS = 4 * MINUTE_MS;

/** Maximum difference of reporters' clocks. An attempt dated further ahead was recorded by a clock that jumped. */
const CLOCK_SLACK_MS = 15 * MINUTE_MS;

/** An unsettled report: the fields that decide its next step. */
export interface OpenReport {
  /** Start of its own minute. */
  readonly slotMs: number;
  readonly units: number;
  /** First attempt of the current series, within which Stripe refuses duplicates. `null`: none yet. */
  readonly firstAttemptAtMs: number | null;
  /** Since when only a summary can tell whether Stripe has it. Ends when the report is settled or a new series begins. */
  readonly doubtedAtMs: number | null;
  /** Since when summaries have shown nothing. */
  readonly absentSinceMs: number | null;
  /** The invoice of its minute is final: a meter event would come too late for it. */
  readonly invoiceFinal: boolean;
  /** As in `ReportProgress`, from the last time. */
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

/** The next step with a report. */
export function nextStep(report: OpenReport, nowMs: number): "send" | "read" | "wait" {
  if (isDoubted(report)) return "read";
  const { firstAttemptAtMs: first } = report;
  if (first !== null && (nowMs - first >= BLIND_RESEND_MS || first - nowMs > CLOCK_SLACK_MS)) return "read";
  if (!counts(report, nowMs)) return "read"; // an attempt that nobody remembers may have landed: read before giving up
  // The minute was over when the report was frozen, so the clock has gone back since.
  return report.slotMs - nowMs > AHEAD_MS ? "wait" : "send";
}

/** A doubt that is older than the first attempt was answered by a proof that Stripe had nothing: these attempts are new. */
function isDoubted({ doubtedAtMs, firstAttemptAtMs }: OpenReport): boolean {
  return doubtedAtMs !== null && firstAttemptAtMs !== null && doubtedAtMs >= firstAttemptAtMs;
}

/** Whether a meter event sent now would be taken and come into an invoice. */
function counts(report: OpenReport, nowMs: number): boolean {
  return !report.invoiceFinal && nowMs - report.slotMs < SENDABLE_MS;
}

/** Leaves a report unchanged until `nextAtMs`. */
export function leftUntil(report: OpenReport, nextAtMs: number, error = report.error): ReportProgress {
  const { firstAttemptAtMs, doubtedAtMs, absentSinceMs, alarm, stripeUnits } = report;
  return { answer: null, firstAttemptAtMs, doubtedAtMs, absentSinceMs, alarm, stripeUnits, error, nextAtMs };
}

/** After an attempt. `nowMs` is when it was made, which is also what `firstAttemptAtMs` says after a first one. */
export function afterSend(report: OpenReport, answer: MeterAnswer, error: string, nowMs: number): ReportProgress {
  const first = report.firstAttemptAtMs ?? nowMs;
  const waiting = { ...leftUntil(report, nowMs + ATTEMPT_SPACING_MS, error), firstAttemptAtMs: first };
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
 * After a read of the report's minute, in which Stripe has `foundUnits`. Nothing for a whole day: the same identifier is
 * sent again, with which a new time of blind repetition begins; or, when that would come too late for the invoice or
 * for Stripe, the report is `carry`: billed another way.
 */
export function afterRead(report: OpenReport, foundUnits: number, nowMs: number): ReportProgress | "carry" {
  if (foundUnits === report.units) return settledBy(report, "summary");
  const doubted = doubtedUntil(report, nowMs + READ_SPACING_MS, nowMs);
  if (foundUnits !== 0) return { ...doubted, absentSinceMs: null, alarm: "mismatch", stripeUnits: foundUnits };
  const absentSinceMs = report.absentSinceMs ?? nowMs;
  const alarm = report.alarm === "refused" ? "refused" : null;
  const absent = { ...doubted, absentSinceMs, alarm, stripeUnits: null } as const;
  if (nowMs - absentSinceMs < ABSENT_FOR_MS) return absent;
  if (!counts(report, nowMs)) return "carry";
  return { ...absent, absentSinceMs: null, firstAttemptAtMs: null, nextAtMs: nowMs };
}

/** An attempt that a clock which jumped has dated in the future was made before now. */
function doubtedUntil(report: OpenReport, nextAtMs: number, nowMs: number, error = report.error): ReportProgress {
  const { firstAttemptAtMs: first } = report;
  const doubtedAtMs = isDoubted(report) && first !== null && first <= nowMs ? report.doubtedAtMs : nowMs;
  const firstAttemptAtMs = first === null ? null : Math.min(first, nowMs);
  return { ...leftUntil(report, nextAtMs, error), firstAttemptAtMs, doubtedAtMs };
}

/** After a read that failed: it is repeated. `refused`: Stripe answered, and will not answer otherwise by itself. */
export function afterFailedRead(report: OpenReport, error: string, refused: boolean, nowMs: number): ReportProgress {
  return doubtedUntil(report, nowMs + (refused ? READ_SPACING_MS : ATTEMPT_SPACING_MS), nowMs, error);
}
