// The calls that one tenant's object runs. A call id runs at most once at a time, and a plan change can pause new calls. A call
// that a raisable limit refuses can wait until the tenant's people have raised it. It waits outside of the gate and holds nothing.
import type { CallOutcome, CallRequest, Progress } from "../core/call.ts";
import { PauseGate } from "../core/concurrency/pause-gate.ts";
import { type CallHost, runCall } from "./run-call.ts";

/** A call that waits costs memory alone. More than this come from a program, which can try again by itself. */
const MAX_WAITING = 100;

type Report = ((progress: Progress) => Promise<void>) | undefined;

export class TenantCalls {
  /** A plan change pauses it. */
  readonly gate = new PauseGate();
  readonly #host: CallHost;
  readonly #running = new Map<string, RunningCall>();
  #change = Promise.withResolvers<void>();
  /** Calls that wait for a higher limit. */
  #waiting = 0;

  constructor(host: CallHost) {
    this.#host = host;
  }

  /** Runs a call, or joins it when an earlier attempt of it still runs: then only its answer was lost. */
  run(request: CallRequest, progress?: (progress: Progress) => Promise<void>): Promise<CallOutcome> {
    const running = this.#running.get(request.callId);
    const abort = new AbortController();
    if (running !== undefined) {
      if (request.idempotency === undefined) return running.outcome;
      // Another request with the same idempotency key: its caller is checked, too, before it waits for this outcome.
      running.others += 1;
      return this.#runOrWait(request, abort, progress);
    }
    const outcome = this.#runOrWait(request, abort, progress).finally(() => this.#running.delete(request.callId));
    this.#running.set(request.callId, { abort, outcome, others: 0 });
    return outcome;
  }

  /** The tenant's configuration has changed: calls that wait for a higher limit are decided again. */
  configChanged(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }

  /** Stops a running call, which is then not charged. A call that other requests wait for runs on. */
  cancel(callId: string): void {
    const running = this.#running.get(callId);
    if (running === undefined) return;
    if (running.others > 0) running.others -= 1;
    else running.abort.abort("cancelled");
  }

  /** Stops a running call that was charged without this object. */
  stop(callId: string): void {
    this.#running.get(callId)?.abort.abort("cancelled");
  }

  async #runOrWait(request: CallRequest, abort: AbortController, progress: Report): Promise<CallOutcome> {
    const untilMs = Date.now() + (request.waitsMs ?? 0);
    const mayWait = (): boolean => !abort.signal.aborted && Date.now() < untilMs && this.#waiting < MAX_WAITING;
    for (;;) {
      // Taken before the decision, so that no change is missed.
      const { promise: changed } = this.#change;
      let waits = false;
      const waitsAfter = ({ raisable }: { raisable?: true }): boolean => (waits = raisable === true && mayWait());
      const outcome = await this.gate.run(() => runCall(this.#host, request, { abort, progress, waitsAfter }));
      if (!waits) return outcome;
      this.#waiting += 1;
      await firstOf(changed, untilMs - Date.now(), abort.signal);
      this.#waiting -= 1;
    }
  }
}

/** Waits for the promise, for this long at most, and no longer than until the signal. */
async function firstOf(promise: Promise<void>, ms: number, signal: AbortSignal): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, Math.max(0, ms));
  const end = (): void => resolve();
  signal.addEventListener("abort", end, { once: true });
  await Promise.race([promise, over]);
  clearTimeout(timer);
  signal.removeEventListener("abort", end);
}

interface RunningCall {
  abort: AbortController;
  outcome: Promise<CallOutcome>;
  /** Further requests that wait for it. */
  others: number;
}
