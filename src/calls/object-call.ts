// Sends a call to the tenant's object and decides what a lost answer means. A call is sent again only if its tool says that
// it may run twice. When the object cannot be reached, the Worker runs the call without it (fallback-call.ts). An
// overloaded object is never bypassed.
//
// No error of a stub proves that the object did not admit the call: the runtime also calls errors retryable when it does
// not know whether the request arrived. Only a call that was never sent is certain. So an object that was lost lately gets
// a probe, a method that does nothing, and is sent a call only if it answers the probe.
import { newTimedId } from "../adapters/ids.ts";
import { withTimeout } from "../adapters/timeout.ts";
import type { Context } from "../control/context.ts";
import { BoundedMap } from "../core/concurrency/bounded-map.ts";
import type {
  Asking,
  Authorization,
  CallOutcome,
  CallRequest,
  Caller,
  Progress,
  QuotaStatus,
  Refusal,
} from "../core/call.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { type ErrorCode, errors } from "../core/errors.ts";
import { currentRequestId, currentTraceId, describeError, log } from "../log.ts";
import { TOOL_TIMEOUT_MS, type Tool } from "../tools/tool.ts";
import { authorizeWithoutObject, callWithoutObject } from "./fallback-call.ts";
import { keyedCall } from "./keyed-calls.ts";
import { mayBeCharged, plainRefusal, refusedOutcome } from "./refusal.ts";
import { ASK_WAIT_MS, type SendQuestion } from "./tenant-calls.ts";

/** An object that answers later than its tool's time limit plus this counts as lost. */
const ANSWER_MARGIN_MS = 5_000;
/** The object may first have to read its tenant from the control tables, which have 10 s to answer. */
const AUTHORIZE_TIMEOUT_MS = 15_000;
/** An object wakes in well under a second. The platform itself reports one with a long queue as overloaded. */
const PROBE_TIMEOUT_MS = 5_000;
/** How long a lost object is probed before each call. An answered probe ends it earlier. */
const LOST_FOR_MS = 10_000;
/** Losses that one isolate remembers. A forgotten one costs only a call that is sent without a probe. */
const MAX_LOST = 1_000;
/** How long the Worker itself repeats an object's `rate_limited`. Short, because a change of plan ends the limit. */
const FLOOD_MS = 1_000;
/** Refusals within that time from which on a tenant counts as flooding. A client that retries by itself sends fewer. */
const FLOOD_REFUSALS = 10;
/** Long beside a call, and short beside what a client waits for. A waiting request takes no CPU time. */
const FLOOD_PAUSE_MS = 500;
/** Flooding tenants that one isolate remembers. A forgotten one costs only an RPC. */
const MAX_FLOODS = 1_000;
/** An overloaded object works off its load in seconds. */
const OVERLOADED_RETRY_SECONDS = 5;

export interface ObjectCall {
  tool: Tool;
  args: Readonly<Record<string, unknown>>;
  caller: Caller;
  /** The client's own, as it sent it. */
  idempotencyKey?: string | undefined;
  /** How long the call waits for someone to raise the limit that refuses it. */
  waitsMs?: number | undefined;
  /** How its tool can ask the person who uses it. */
  asking?: Asking | undefined;
  /** Sends a question on the call's stream. The answer comes in a message of its own. */
  sendQuestion?: SendQuestion | undefined;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  /** Aborted when the client disconnects. */
  signal: AbortSignal;
}

/** How this isolate last lost an object, by tenant. An answered probe removes the entry. */
const lost = new BoundedMap<TenantId, { atMs: number; overloadedAtMs: number }>(MAX_LOST);

interface Flood {
  /** Refusals since `sinceMs`. */
  count: number;
  sinceMs: number;
  /** Until when the tenant counts as flooding. */
  untilMs: number;
  /** Calls that the Worker itself has refused since its last call to the object, which counts them. */
  refusedHere: number;
  /** The last `rate_limited`, and until when the object would repeat it. */
  limited: { refusal: Refusal; quota: QuotaStatus | undefined; untilMs: number } | undefined;
}

/** Tenants that were refused lately. */
const floods = new BoundedMap<TenantId, Flood>(MAX_FLOODS);

/** Whether a refusal is of the tenant's making. A client that reads it waits, or stops. An outage is not the tenant's. */
const isOwnFault = (code: ErrorCode): boolean => errors[code].status < 500;

/**
 * A flooding tenant's `rate_limited`, which its object is certain to repeat: no request of the minute becomes free before
 * its time. So a flood does not occupy the tenant's object, which leaves the machine to the others.
 */
function repeatedRefusal({ tenantId, kind }: Caller): Flood["limited"] {
  const flood = floods.get(tenantId);
  const nowMs = Date.now();
  if (flood?.limited === undefined || nowMs >= flood.untilMs || kind === "canary") return undefined;
  return nowMs < flood.limited.untilMs ? flood.limited : undefined;
}

/**
 * Holds a request of a flooding tenant, whether it will be refused or not. So clients that ask again at once ask less often,
 * and what a flood may use of its minute does not come all at once, in front of other tenants' calls.
 */
async function slowDown({ tenantId, kind }: Caller): Promise<void> {
  const untilMs = floods.get(tenantId)?.untilMs ?? 0;
  if (kind === "canary" || Date.now() >= untilMs) return;
  // Spread over the pause, so that held requests do not come all at once.
  await new Promise((resolve) => setTimeout(resolve, FLOOD_PAUSE_MS * (0.5 + Math.random())));
}

/** Counts a refusal: enough of them are a flood. */
function counted<Outcome extends Authorization | CallOutcome>({ tenantId, kind }: Caller, outcome: Outcome): Outcome {
  if (outcome.kind !== "refused" || !isOwnFault(outcome.refusal.code) || kind === "canary") return outcome;
  const { refusal, quota } = outcome;
  const nowMs = Date.now();
  const last = floods.get(tenantId);
  const { count, sinceMs } =
    last !== undefined && nowMs - last.sinceMs < FLOOD_MS ? last : { count: 0, sinceMs: nowMs };
  // The refusal's seconds are rounded up, so one of them may have passed already.
  const certainMs = Math.min(((refusal.retryAfterSeconds ?? 0) - 1) * 1_000, FLOOD_MS);
  // A repeated refusal is no news of the object's: it must not prolong itself.
  const isCertain = refusal.code === "rate_limited" && certainMs > 0 && refusal !== last?.limited?.refusal;
  const limited = isCertain ? { refusal, quota, untilMs: nowMs + certainMs } : last?.limited;
  // While the flood lasts, each refusal prolongs it.
  const isFlood = count + 1 >= FLOOD_REFUSALS || nowMs < (last?.untilMs ?? 0);
  const untilMs = isFlood ? nowMs + FLOOD_MS : 0;
  floods.set(tenantId, { count: count + 1, sinceMs, untilMs, limited, refusedHere: last?.refusedHere ?? 0 });
  return outcome;
}

/** A call that this Worker has refused in the object's place: its line in the log, and its place in the metrics. */
function refusedHere({ tool, caller }: ObjectCall, outcome: CallOutcome): CallOutcome {
  const { tenantId, kind: by } = caller;
  const code = outcome.kind === "refused" ? outcome.refusal.code : undefined;
  log("info", "call", { tenantId, tool: tool.name, by, outcome: "refused", code, units: 0, ms: 0 });
  counted(caller, outcome);
  const flood = floods.get(tenantId);
  if (flood !== undefined) flood.refusedHere += 1;
  return outcome;
}

function takeRefusals(tenantId: TenantId): number {
  const flood = floods.get(tenantId);
  const refused = flood?.refusedHere ?? 0;
  if (flood !== undefined) flood.refusedHere = 0;
  return refused;
}

/** Decides whether the caller may use the server, for an MCP method that calls no tool. */
export async function authorizeCaller(context: Context, caller: Caller): Promise<Authorization> {
  const { tenantId } = caller;
  await slowDown(caller);
  const repeated = repeatedRefusal(caller);
  if (repeated !== undefined) {
    const { refusal, quota } = repeated;
    return counted(caller, { kind: "refused", refusal, ...(quota && { quota }) });
  }
  const state = await stateOf(context, tenantId);
  if (state === "overloaded") return { kind: "refused", refusal: overloaded() };
  if (state === "away") return authorizeWithoutObject(context, caller);
  try {
    const answer = context.tenantObject(tenantId).authorize(caller) as Promise<Authorization>;
    return counted(caller, await withTimeout(AUTHORIZE_TIMEOUT_MS, answer));
  } catch (error) {
    recordLoss(tenantId, error);
    return isOverloaded(error) ? { kind: "refused", refusal: overloaded() } : authorizeWithoutObject(context, caller);
  }
}

/**
 * Runs a call in the tenant's object, or without it. After a lost attempt a refusal may be untrue: for a tool that writes it
 * becomes `outcome_unknown`, for any other it says that the call may have been charged.
 */
export async function callObject(
  context: Context,
  ctx: Pick<ExecutionContext, "waitUntil">,
  call: ObjectCall,
): Promise<CallOutcome> {
  const { tool, args, caller, progress, signal, asking, sendQuestion } = call;
  const { tenantId } = caller;
  const { readOnly, idempotent } = tool.annotations;
  await slowDown(caller);
  const repeated = repeatedRefusal(caller);
  if (repeated !== undefined) return refusedHere(call, refusedOutcome(repeated.refusal, repeated.quota));
  const nowMs = Date.now();
  const key = call.idempotencyKey;
  const { callId, idempotency } =
    key === undefined
      ? { callId: newTimedId(nowMs), idempotency: undefined }
      : await keyedCall(tenantId, { key, tool: tool.name, args, nowMs });
  const cancel = (): void => ctx.waitUntil(context.tenantObject(tenantId).cancel(callId));
  const attempt = (number: CallRequest["attempt"]): Promise<CallOutcome> => {
    // A stub that has failed keeps failing, so each attempt has its own.
    const object = context.tenantObject(tenantId);
    const requestId = currentRequestId();
    const request: CallRequest = {
      ...{ callId, idempotency, attempt: number, caller, tool: tool.name, args, asking },
      ...{ requestId, traceId: currentTraceId(), refusedBefore: takeRefusals(tenantId), waitsMs: call.waitsMs },
    };
    const answer = object.call(request, progress, sendQuestion) as Promise<CallOutcome>;
    // A client that disconnects ends the request's context, and with it the RPC that cancels the call. This keeps both.
    ctx.waitUntil(answer.catch(() => undefined));
    if (signal.aborted) cancel(); // the client disconnected before the call was sent
    const waitsMs = (call.waitsMs ?? 0) + (asking?.form === "stream" ? ASK_WAIT_MS : 0);
    return withTimeout(waitsMs + (tool.timeoutMs ?? TOOL_TIMEOUT_MS) + ANSWER_MARGIN_MS, answer);
  };
  signal.addEventListener("abort", cancel, { once: true });
  /** An attempt was lost: it may have written, and it may have been charged. */
  let isUnsure = false;
  const refuse = (refusal: Refusal): CallOutcome => {
    if (!isUnsure) return refusedOutcome(refusal);
    return readOnly ? refusedOutcome(mayBeCharged(refusal, callId)) : outcomeUnknown(callId);
  };
  try {
    for (const number of [1, 2] as const) {
      const state = await stateOf(context, tenantId);
      if (state === "overloaded") return refuse(overloaded());
      if (state === "away") break;
      try {
        return counted(caller, await attempt(number));
      } catch (error) {
        recordLoss(tenantId, error, { tool: tool.name, callId });
        if (isOverloaded(error)) return refuse(overloaded());
        isUnsure = true;
        // With an idempotency key the object knows whether the first attempt started.
        if (!readOnly && !idempotent && idempotency === undefined) return outcomeUnknown(callId);
      }
    }
    const outcome = await callWithoutObject(context, { ...call, callId, idempotency, isUnsure });
    return outcome.kind === "refused" ? refuse(outcome.refusal) : outcome;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** Probes an object that was lost lately; assumes that any other can be reached. */
async function stateOf(context: Context, tenantId: TenantId): Promise<"reachable" | "away" | "overloaded"> {
  const loss = lost.get(tenantId);
  if (loss === undefined) return "reachable";
  try {
    if (isRecent(loss.atMs)) await withTimeout(PROBE_TIMEOUT_MS, context.tenantObject(tenantId).probe());
    // Another call may have lost the object meanwhile.
    if (lost.get(tenantId) === loss) lost.delete(tenantId);
    return "reachable";
  } catch (error) {
    recordLoss(tenantId, error);
    // An object that was overloaded a moment ago and is silent now still has its load.
    return isOverloaded(error) || isRecent(loss.overloadedAtMs) ? "overloaded" : "away";
  }
}

function isRecent(atMs: number): boolean {
  return Date.now() - atMs < LOST_FOR_MS;
}

function recordLoss(tenantId: TenantId, error: unknown, call: { tool?: string; callId?: string } = {}): void {
  const atMs = Date.now();
  lost.set(tenantId, {
    atMs,
    overloadedAtMs: isOverloaded(error) ? atMs : (lost.get(tenantId)?.overloadedAtMs ?? -Infinity),
  });
  log("error", "object_call_lost", { tenantId, ...call, error: describeError(error) });
}

function outcomeUnknown(callId: string): CallOutcome {
  return refusedOutcome(mayBeCharged(plainRefusal("outcome_unknown"), callId));
}

function overloaded(): Refusal {
  return { ...plainRefusal("tenant_unavailable"), retryAfterSeconds: OVERLOADED_RETRY_SECONDS };
}

function isOverloaded(error: unknown): boolean {
  return typeof error === "object" && error !== null && "overloaded" in error && error.overloaded === true;
}
