// The way to a tenant's object and what a lost answer means. A call is sent again only if its tool says that this is safe
// (DESIGN.md I8); when the object stays away, the Worker takes over what it may (open-call.ts). An overloaded object is
// never passed by.
//
// No error of a stub says for certain that an object did not admit a call: the runtime calls one retryable, too, when it
// cannot tell whether the request arrived. What is certain is a call that was never sent. So an object that was lost
// lately is looked for first, by a method that does nothing, and is sent a call only if it answers.
import type { Authorization, CallOutcome, CallRequest, Caller, Progress, Refusal } from "../core/call.ts";
import { mayBeCharged, plainRefusal, refusedOutcome } from "./refusal.ts";
import type { TenantId } from "../core/tenant.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { describeError, log } from "../log.ts";
import { TOOL_TIMEOUT_MS, type Tool } from "../tools/tool.ts";
import { authorizeOpen, callOpen } from "./fallback-call.ts";

/** An object that answers later than its tool's own limit and this is taken for lost. */
const ANSWER_MARGIN_MS = 5_000;
/** An object may have to read its tenant from the control tables first, which has 10 s to answer. */
const AUTHORIZE_WITHIN_MS = 15_000;
/** Waking an object takes well under a second; the platform itself says of one with a long queue that it is overloaded. */
const LOOK_WITHIN_MS = 5_000;
/** For so long an object that was lost is looked for before it is sent anything; an answer ends it. */
const LOST_FOR_MS = 10_000;
/** An overloaded object sheds its load in seconds. */
const OVERLOADED_RETRY_SECONDS = 5;

export interface ObjectCall {
  tool: Tool;
  args: Readonly<Record<string, unknown>>;
  caller: Caller;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  signal: AbortSignal;
}

/** How this isolate last lost a tenant's object. Few at a time: an entry leaves when the object answers a look. */
const lost = new Map<TenantId, { atMs: number; overloadedAtMs: number }>();

/** Whether the caller may use the server at all. */
export async function authorizeCaller(env: Env, caller: Caller): Promise<Authorization> {
  const { tenantId } = caller;
  const found = await find(env, tenantId);
  if (found === "overloaded") return { kind: "refused", refusal: overloaded() };
  if (found === "away") return authorizeOpen(env, caller);
  try {
    const answer = env.TENANT.getByName(tenantId).authorize(caller) as Promise<Authorization>;
    return await withTimeout(AUTHORIZE_WITHIN_MS, answer);
  } catch (error) {
    lose(tenantId, error);
    return isOverloaded(error) ? { kind: "refused", refusal: overloaded() } : authorizeOpen(env, caller);
  }
}

/** Calls the tenant's object, or does without it. A refusal that may be a lie is told as `outcome_unknown`. */
export async function callObject(
  env: Env,
  ctx: Pick<ExecutionContext, "waitUntil">,
  call: ObjectCall,
): Promise<CallOutcome> {
  const { tool, args, caller, progress, signal } = call;
  const { tenantId } = caller;
  const { readOnly, idempotent } = tool.annotations;
  const callId = newCallId(Date.now());
  const attempt = (number: CallRequest["attempt"]): Promise<CallOutcome> => {
    // A stub that has failed keeps failing: each attempt has its own.
    const object = env.TENANT.getByName(tenantId);
    const request: CallRequest = { callId, attempt: number, caller, tool: tool.name, args };
    const answer = object.call(request, progress) as Promise<CallOutcome>;
    // A client that goes away takes the request's context with it, and with the context the RPC that says so.
    ctx.waitUntil(answer.catch(() => undefined));
    return withTimeout((tool.timeoutMs ?? TOOL_TIMEOUT_MS) + ANSWER_MARGIN_MS, answer);
  };
  const cancel = (): void => ctx.waitUntil(env.TENANT.getByName(tenantId).cancel(callId));
  signal.addEventListener("abort", cancel, { once: true });
  /** An attempt was lost: it may have written, and it may have been charged. */
  let unsure = false;
  const refuse = (refusal: Refusal): CallOutcome => {
    if (!unsure) return refusedOutcome(refusal);
    return readOnly ? refusedOutcome(mayBeCharged(refusal, callId)) : outcomeUnknown(callId);
  };
  try {
    for (const number of [1, 2] as const) {
      const found = await find(env, tenantId);
      if (found === "overloaded") return refuse(overloaded());
      if (found === "away") break;
      try {
        return await attempt(number);
      } catch (error) {
        lose(tenantId, error, { tool: tool.name, callId });
        if (isOverloaded(error)) return refuse(overloaded());
        unsure = true;
        if (!readOnly && !idempotent) return outcomeUnknown(callId);
      }
    }
    const outcome = await callOpen(env, { ...call, callId });
    return outcome.kind === "refused" ? refuse(outcome.refusal) : outcome;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** Looks for an object that was lost lately; any other is taken to be there. */
async function find(env: Env, tenantId: TenantId): Promise<"there" | "away" | "overloaded"> {
  const known = lost.get(tenantId);
  if (known === undefined) return "there";
  try {
    if (isRecent(known.atMs)) await withTimeout(LOOK_WITHIN_MS, env.TENANT.getByName(tenantId).probe());
    // Unless another call has lost it meanwhile.
    if (lost.get(tenantId) === known) lost.delete(tenantId);
    return "there";
  } catch (error) {
    lose(tenantId, error);
    // One that was overloaded a moment ago and is silent now has not shed its load.
    return isOverloaded(error) || isRecent(known.overloadedAtMs) ? "overloaded" : "away";
  }
}

function isRecent(atMs: number): boolean {
  return Date.now() - atMs < LOST_FOR_MS;
}

function lose(tenantId: TenantId, error: unknown, call: { tool?: string; callId?: string } = {}): void {
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

/** A UUID of version 7 (RFC 9562): ids of one time lie together in the ledger's index. */
export function newCallId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
