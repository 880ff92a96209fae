// Decisions about telling Stripe what was used. A report is sealed once in the ledger's transaction and never changes;
// what is decided here is when usage is old enough to seal, what is done with a report next, and what Stripe's answers
// and summaries mean for it. Sent again blindly only while Stripe surely refuses a duplicate; after that a summary of
// the report's own minute decides. What the summary shows is never "corrected": either it proves the report, or it
// proves over a day that Stripe has nothing, or somebody must look.
import type { MeterAnswer } from "../adapters/stripe-meter.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Usage younger than this is left for the next run: its call may still be on the way from the object. */
export const FREEZE_AGE_MS = MINUTE_MS;

/**
 * Stripe keeps identifiers for at least 24 hours. Within 20 of them an attempt may be repeated blindly, because a
 * duplicate is refused; after that only a summary read can tell whether the first one landed.
 */
export const BLIND_RESEND_MS = 20 * HOUR_MS;

/** A report is not sent again before this time has passed since its last attempt. */
export const ATTEMPT_SPACING_MS = 30_000;

/** What Stripe refuses stays refused until somebody mends something: asking each hour notices that soon enough. */
const REFUSED_SPACING_MS = HOUR_MS;

/** Summaries follow events within minutes; hourly reads of one that is missing see it the same hour. */
const READ_SPACING_MS = HOUR_MS;

/** Stripe states no bound for how late a summary may be. A day is far beyond any lag that was heard of. */
const ABSENT_FOR_MS = DAY_MS;

/** Stripe takes timestamps of the past 35 calendar days; a day less leaves room for what a calendar day is. */
const SENDABLE_MS = 34 * DAY_MS;

/** Older usage is not sealed into a report: there would be no time left to send it and to find out what became of it. */
export const REPORTABLE_MS = 33 * DAY_MS;

/** Stripe takes timestamps up to five minutes ahead. */
const AHEAD_MS = 4 * MINUTE_MS;

/** Reporters' clocks may differ by this much. An attempt that lies further ahead was recorded by a clock that jumped. */
const CLOCK_SLACK_MS = 15 * MINUTE_MS;

/** A report that is not settled, as far as what happens to it next depends on it. */
export interface OpenReport {
  /** Start of its own minute. */
  readonly slotMs: number;
  readonly units: number;
  /** Of the attempts since when duplicates have been refused without a gap. `null`: there was none. */
  readonly firstAttemptAtMs: number | null;
  /** Since when only a summary tells whether Stripe has it: until it is settled, or attempts after that begin anew. */
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

/** All of a report that may change, as it is to be from now on. */
export interface ReportProgress {
  /** How it is known that Stripe has it; `null`: nothing new is known. */
  readonly answer: "accepted" | "duplicate" | "summary" | null;
  readonly firstAttemptAtMs: number | null;
  readonly doubtedAtMs: number | null;
  readonly absentSinceMs: number | null;
  readonly alarm: "refused" | "mismatch" | null;
  /** What Stripe has in its minute, when that is neither nothing nor its units. */
  readonly stripeUnits: number | null;
  readonly error: string | null;
  /** `null`: there is nothing more to do. */
  readonly nextAtMs: number | null;
}

/** What is done with a report now. */
export function nextStep(report: OpenReport, nowMs: number): "send" | "read" | "wait" {
  if (isDoubted(report)) return "read";
  const { firstAttemptAtMs: first } = report;
  if (first !== null && (nowMs - first >= BLIND_RESEND_MS || first - nowMs > CLOCK_SLACK_MS)) return "read";
  if (!counts(report, nowMs)) return "read"; // an attempt that nobody remembers may have landed: read before giving up
  // Its minute was over when it was sealed, so that the clock has gone back since.
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

/** A report of which nothing new is known, until `nextAtMs`. */
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
