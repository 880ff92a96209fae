// What is asked over a network may stay silent for ever; whoever waits says for how long.

/** No answer came in time. What was asked for may have been done, or may be done yet. */
export class Silence extends Error {
  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
    this.name = "Silence";
  }
}

/** Settles as `answer` does, or rejects with `Silence` after `limitMs`. */
export async function within<T>(limitMs: number, answer: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Silence(limitMs)), limitMs);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
