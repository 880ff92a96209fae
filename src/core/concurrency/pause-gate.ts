// Pauses work for a moment: a plan change pauses a tenant's calls while it commits, and a move pauses the tenant's
// statements while it switches to the new placement. Work that arrives during a pause waits and runs afterwards; none fails.
// At most one caller pauses a gate at a time.

export class PauseGate {
  #running = 0;
  #onIdle: (() => void) | undefined;
  #paused: PromiseWithResolvers<void> | undefined;

  get isPaused(): boolean {
    return this.#paused !== undefined;
  }

  /** Runs `work` once no pause is in force. `wait` may throw to end the wait early. */
  async run<Result>(
    work: () => Promise<Result>,
    wait: (resumed: Promise<void>) => Promise<void> = untilResumed,
  ): Promise<Result> {
    while (this.#paused !== undefined) await wait(this.#paused.promise);
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#onIdle?.();
    }
  }

  /**
   * Holds back new work until `resume` and waits up to `drainMs` for running work to end. Returns whether all of it
   * ended. The pause is in force either way. A second call during a pause does not extend it.
   */
  async pause(drainMs: number): Promise<boolean> {
    this.#paused ??= Promise.withResolvers();
    if (this.#running === 0) return true;
    const drained = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => drained.resolve(false), drainMs);
    this.#onIdle = () => drained.resolve(true);
    try {
      return await drained.promise;
    } finally {
      clearTimeout(timer);
      this.#onIdle = undefined;
    }
  }

  /** Ends the pause, if there is one. */
  resume(): void {
    this.#paused?.resolve();
    this.#paused = undefined;
  }

  /**
   * Pauses while `work` runs, for `maxMs` at most. `work` begins when running work has ended, or after `drainMs`. If it
   * outlasts `maxMs`, new work runs beside it.
   */
  async pauseFor<Result>({ maxMs, drainMs }: PauseBounds, work: () => Promise<Result>): Promise<Result> {
    const timer = setTimeout(() => this.resume(), maxMs);
    try {
      await this.pause(drainMs);
      return await work();
    } finally {
      clearTimeout(timer);
      this.resume();
    }
  }
}

function untilResumed(resumed: Promise<void>): Promise<void> {
  return resumed;
}

export interface PauseBounds {
  maxMs: number;
  drainMs: number;
}
