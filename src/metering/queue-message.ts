// A message of the usage queue: its body as text, and how long it waits before a retry.

/** A body as text for the operator. A JSON value becomes JSON, which `bodyOfText` reads back unchanged. */
export function textOfBody(body: unknown): string {
  try {
    // For a function, for example, `stringify` returns `undefined` and does not throw.
    return (JSON.stringify(body) as string | undefined) ?? String(body);
  } catch {
    return String(body);
  }
}

/** The body to send again. Text that is not JSON is returned as it is. */
export function bodyOfText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** A short failure costs 2 s. In an outage the delay doubles with each attempt. */
const FIRST_RETRY_SECONDS = 2;
/** Retry cap for usage. The queue allows 100 retries, which then cover 23 hours. */
export const USAGE_RETRY_SECONDS = 900;
/**
 * Retry cap for the dead-letter queue, which has no dead-letter queue itself. 100 retries then last as long as a queue
 * keeps a message, four days.
 */
export const DEAD_RETRY_SECONDS = 3_600;

/** Seconds until the retry after attempt number `attempt` (the first is 1). They double up to `longest`. */
export function retryAfterSeconds(attempt: number, longest: number): number {
  return Math.min(longest, FIRST_RETRY_SECONDS * 2 ** Math.min(attempt - 1, 16));
}
