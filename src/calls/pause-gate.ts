// What a tenant's calls pass on their way in. It is shut for the moment in which a change of plan takes effect: calls wait
// and then go on, whatever became of the change; none fails for it.

/** What a client notices of it is a slow call. Long enough for the last rows to be confirmed; well below any client's patience. */
export const HOLD_MS = 5_000;

export class CallGate {
  #running = 0;
  #ended: (() => void) | undefined;
  #shut: PromiseWithResolvers<void> | undefined;

  /** Runs a call, once calls are let in. */
  async through<Result>(work: () => Promise<Result>): Promise<Result> {
    while (this.#shut !== undefined) await this.#shut.promise;
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#ended?.();
    }
  }

  /**
   * Holds back calls that come while `work` runs, for `HOLD_MS` at most, and runs it when those that run already have
   * ended, or after `drainMs`. `work` is told how long calls will still wait.
   */
  async hold<Result>(drainMs: number, work: (leftMs: () => number) => Promise<Result>): Promise<Result> {
    const shut = Promise.withResolvers<void>();
    this.#shut = shut;
    const untilMs = Date.now() + HOLD_MS;
    const open = (): void => {
      if (this.#shut === shut) this.#shut = undefined;
      shut.resolve();
    };
    const timer = setTimeout(open, HOLD_MS);
    try {
      await this.#drained(drainMs);
      return await work(() => untilMs - Date.now());
    } finally {
      clearTimeout(timer);
      open();
    }
  }

  async #drained(withinMs: number): Promise<void> {
    if (this.#running === 0) return;
    const ended = Promise.withResolvers<void>();
    this.#ended = ended.resolve;
    const timer = setTimeout(ended.resolve, withinMs);
    await ended.promise;
    clearTimeout(timer);
    this.#ended = undefined;
  }
}
