// Decisions about telling Stripe what was used. A report is sealed once in the ledger's transaction and never changes;
// what is decided here is when usage is old enough to seal, how an attempt is identified, and what an answer means.

/** Usage younger than this is left for the next run: its call may still be on the way from the object. */
export const SEAL_AGE_MS = 60_000;

/**
 * Stripe keeps identifiers for at least 24 hours. Within 20 of them an attempt may be repeated blindly, because a
 * duplicate is refused; after that only a summary read can tell whether the first one landed.
 */
export const BLIND_RESEND_MS = 20 * 3_600_000;

/** A report is not sent again before this time has passed since its last attempt, so that two reporters do not race. */
export const ATTEMPT_SPACING_MS = 30_000;

/** The idempotency key of an attempt: v1 of Stripe's API would replay a stored 500 for a key that was used before. */
export function attemptKey(reportId: string, attempt: number): string {
  return `${reportId}.a${attempt}`;
}

export type MeterAnswer =
  /** Stripe has it: now, or from an earlier attempt whose answer was lost. */
  | { kind: "confirmed"; answer: "accepted" | "duplicate" }
  /** Not known or not now: the same report is sent again later. */
  | { kind: "again" }
  /** Stripe will never take it as it stands: an operator must look. */
  | { kind: "refused" };

/** What a failed attempt means, from the HTTP status (`undefined`: no answer) and Stripe's message. */
export function classifyMeterFailure(status: number | undefined, message: string): MeterAnswer {
  if (status === 400 && message.includes("already exists with identifier"))
    return { kind: "confirmed", answer: "duplicate" };
  if (status === undefined || status === 401 || status === 403 || status === 409 || status === 429 || status >= 500) {
    return { kind: "again" };
  }
  return { kind: "refused" };
}
