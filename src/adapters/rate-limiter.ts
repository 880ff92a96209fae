// Stripe answers 25 requests a second at its endpoints for reading; who asks faster is turned away.

/** Stays below Stripe's limit, with room for whatever else asks at the time. */
const PER_SECOND = 20;

/** Gives out turns, one after the other and at most so many a second. Await one before each request. */
export function rateLimiter(): () => Promise<void> {
  let nextAtMs = 0;
  return async () => {
    const now = Date.now();
    const turnMs = Math.max(now, nextAtMs);
    nextAtMs = turnMs + 1000 / PER_SECOND;
    if (turnMs > now) await new Promise((resolve) => setTimeout(resolve, turnMs - now));
  };
}
