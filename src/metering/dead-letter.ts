// A queue message that nobody could take, as text that a person can read and that can be sent again as it was.

/** The text of a message's body, whatever it is: JSON where it can be, and then `bodyOfText` gives the same body back. */
export function textOfBody(body: unknown): string {
  try {
    // Of some values, such as a function, there is no JSON and no exception either.
    return (JSON.stringify(body) as string | undefined) ?? String(body);
  } catch {
    return String(body);
  }
}

/** The body that the text stands for; text that is no JSON stands for itself. */
export function bodyOfText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** Soon after a hiccup, gently in an outage. */
const FIRST_RETRY_SECONDS = 2;
/** The queue allows a hundred waits. Of usage, which many wait for: 23 hours in all. */
export const USAGE_RETRY_SECONDS = 900;
/** Of dead letters, which nothing catches when they fall: longer in all than the four days that a queue keeps anything. */
export const DEAD_RETRY_SECONDS = 3_600;

/** How long a message waits after its `attempt`th delivery (the first is 1) failed, in seconds: doubled up to `longest`. */
export function retryAfterSeconds(attempt: number, longest: number): number {
  return Math.min(longest, FIRST_RETRY_SECONDS * 2 ** Math.min(attempt - 1, 16));
}
