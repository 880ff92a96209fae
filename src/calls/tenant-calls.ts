// The calls that one tenant's object runs. A call id runs at most once at a time, and a plan change can pause new calls.
import type { CallOutcome, CallRequest, Progress } from "../core/call.ts";
import { PauseGate } from "../core/pause-gate.ts";
import { type CallHost, runCall } from "./run-call.ts";

export class TenantCalls {
  /** A plan change pauses it. */
  readonly gate = new PauseGate();
  readonly #host: CallHost;
  readonly #running = new Map<string, { abort: AbortController; outcome: Promise<CallOutcome> }>();

  constructor(host: CallHost) {
    this.#host = host;
  }

  /** Runs a call, or joins it when an earlier attempt of it still runs: then only its answer was lost. */
  run(request: CallRequest, progress?: (progress: Progress) => Promise<void>): Promise<CallOutcome> {
    const running = this.#running.get(request.callId);
    if (running !== undefined) return running.outcome;
    const abort = new AbortController();
    const outcome = this.gate
      .run(() => runCall(this.#host, request, { abort, progress }))
      .finally(() => this.#running.delete(request.callId));
    this.#running.set(request.callId, { abort, outcome });
    return outcome;
  }

  /** Stops a running call, which is then not charged. */
  cancel(callId: string): void {
    this.#running.get(callId)?.abort.abort("cancelled");
  }
}
