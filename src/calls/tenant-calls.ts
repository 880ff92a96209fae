// The calls that one tenant's object runs. A call id runs at most once at a time, and a plan change can pause new calls. A call
// that a raisable limit refuses can wait until the tenant's people have raised it. It waits outside of the gate and holds nothing.
import type { Answered, CallOutcome, CallRequest, Caller, Progress, Question } from "../core/call.ts";
import { PauseGate } from "../core/concurrency/pause-gate.ts";
import { AppError } from "../core/errors.ts";
import { type CallHost, runCall } from "./run-call.ts";

/** A call that waits costs memory alone. More than this come from a program, which can try again by itself. */
const MAX_WAITING = 100;

/** How long the questions of one call wait for a person, in all. Clients that show a form wait as long; a held call costs a place in flight. */
export const ASK_WAIT_MS = 120_000;
/** Ids of questions begin with it, and those of no other request do. */
export const QUESTION_PREFIX = "ask.";

/** Sends a question on the stream of its call. */
export type SendQuestion = (question: Question & { id: string }) => Promise<void>;

type Report = ((progress: Progress) => Promise<void>) | undefined;

export class TenantCalls {
  /** A plan change pauses it. */
  readonly gate = new PauseGate();
  readonly #host: CallHost;
  readonly #running = new Map<string, RunningCall>();
  #change = Promise.withResolvers<void>();
  /** Calls that wait for a higher limit. */
  #waiting = 0;
  /** Questions that wait for an answer, by id. */
  readonly #questions = new Map<string, { caller: Caller; resolve: (answered: Answered) => void }>();

  constructor(host: CallHost) {
    this.#host = host;
  }

  /** Runs a call, or joins it when an earlier attempt of it still runs: then only its answer was lost. */
  run(request: CallRequest, progress?: Report, sendQuestion?: SendQuestion): Promise<CallOutcome> {
    const running = this.#running.get(request.callId);
    const abort = new AbortController();
    if (running !== undefined) {
      if (request.idempotency === undefined) return running.outcome;
      // Another request with the same idempotency key: its caller is checked, too, before it waits for this outcome.
      running.others += 1;
      return this.#runOrWait(request, abort, progress, sendQuestion);
    }
    const outcome = this.#runOrWait(request, abort, progress, sendQuestion).finally(() =>
      this.#running.delete(request.callId),
    );
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

  /** Hands a person's answer to the call that has asked. Returns whether one waits for it. Only the call's own caller answers. */
  answer(caller: Caller, questionId: string, answered: Answered): boolean {
    const question = this.#questions.get(questionId);
    if (question === undefined || principalOf(question.caller) !== principalOf(caller)) return false;
    question.resolve(answered);
    return true;
  }

  async #runOrWait(
    request: CallRequest,
    abort: AbortController,
    progress: Report,
    sendQuestion: SendQuestion | undefined,
  ): Promise<CallOutcome> {
    const askClient = sendQuestion && this.#asker(request, abort.signal, sendQuestion);
    const untilMs = Date.now() + (request.waitsMs ?? 0);
    const mayWait = (): boolean => !abort.signal.aborted && Date.now() < untilMs && this.#waiting < MAX_WAITING;
    for (;;) {
      // Taken before the decision, so that no change is missed.
      const { promise: changed } = this.#change;
      let waits = false;
      const waitsAfter = ({ raisable }: { raisable?: true }): boolean => (waits = raisable === true && mayWait());
      const outcome = await this.gate.run(() =>
        runCall(this.#host, request, { abort, progress, askClient, waitsAfter }),
      );
      if (!waits) return outcome;
      this.#waiting += 1;
      await firstOf(changed, untilMs - Date.now(), abort.signal);
      this.#waiting -= 1;
    }
  }

  /** Asks the client of one call. All its questions together wait for `ASK_WAIT_MS`. */
  #asker(
    { callId, caller }: CallRequest,
    signal: AbortSignal,
    send: SendQuestion,
  ): (question: Question) => Promise<Answered> {
    let leftMs = ASK_WAIT_MS;
    let asked = 0;
    return async (question) => {
      asked += 1;
      const id = `${QUESTION_PREFIX}${callId}.${asked}`;
      const { promise, resolve } = Promise.withResolvers<Answered>();
      let answered: Answered | undefined;
      this.#questions.set(id, { caller, resolve });
      const startedAtMs = Date.now();
      try {
        await send({ ...question, id });
        await firstOf(
          promise.then((given) => void (answered = given)),
          leftMs,
          signal,
        );
      } finally {
        this.#questions.delete(id);
        leftMs -= Date.now() - startedAtMs;
      }
      if (answered === undefined) throw new AppError("question_unanswered");
      return answered;
    };
  }
}

/** The same for each token of one person, client or key. */
export function principalOf(caller: Caller): string {
  const { kind, tenantId } = caller;
  const id =
    kind === "key"
      ? caller.keyId
      : kind === "user"
        ? JSON.stringify([caller.issuer, caller.subject])
        : kind === "canary"
          ? ""
          : caller.memberId;
  return `${tenantId} ${kind} ${id}`;
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
