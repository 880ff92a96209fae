// The calls that one tenant's object runs. A call id runs at most once at a time, and a plan change can pause new calls.
import type { CallOutcome, CallRequest, Progress } from "../core/call.ts";
import { PauseGate } from "../core/pause-gate.ts";
import { type CallHost, runCall } from "./run-call.ts";

export class TenantCalls {
  /** A plan change pauses it. */
  readonly gate = new PauseGate();
  readonly #host: CallHost;
  readonly #running = new Map<string, RunningCall>();

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
      return this.gate.run(() => runCall(this.#host, request, { abort, progress }));
    }
    const outcome = this.gate
      .run(() => runCall(this.#host, request, { abort, progress }))
      .finally(() => this.#running.delete(request.callId));
    this.#running.set(request.callId, { abort, outcome, others: 0 });
    return outcome;
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
}

interface RunningCall {
  abort: AbortController;
  outcome: Promise<CallOutcome>;
  /** Further requests that wait for it. */
  others: number;
}
