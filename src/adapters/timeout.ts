// Bounds the wait for an answer. A network call may stay silent for ever, so every caller names a limit.

/** No answer came in time. The work may have been done, or may still be done later. */
export class TimeoutError extends Error {
  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
    this.name = "TimeoutError";
  }
}

/** Settles as `answer` does, or rejects with `TimeoutError` after `limitMs`. Does not stop the work itself. */
export async function withTimeout<T>(limitMs: number, answer: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new TimeoutError(limitMs)), limitMs);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
