// Limits the rate of requests to Stripe's read endpoints, which refuse more than 25 a second.

/** Below Stripe's limit, with room for other requests at the same time. */
const PER_SECOND = 20;

/** Waits until a request may be made. Call it before each request. */
export type Acquire = () => Promise<void>;

/** A limiter that lets requests pass one after the other, at most 20 a second. */
export function rateLimiter(): { acquire: Acquire } {
  let nextAtMs = 0;
  return {
    async acquire() {
      const now = Date.now();
      const startMs = Math.max(now, nextAtMs);
      nextAtMs = startMs + 1000 / PER_SECOND;
      if (startMs > now) await new Promise((resolve) => setTimeout(resolve, startMs - now));
    },
  };
}
