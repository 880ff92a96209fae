// Runs calls in the Worker while a tenant's object cannot be reached. A plan whose price is 0 is refused then. Each call
// reads the tenant from the control tables and proves the login, as the object does. The reply leaves only after the queue
// has the charge, so that every success is billed. The object counts the call when it can be reached again.
//
// The limits hold as far as one isolate can see: it makes the same exact decision as the object, starting from the ledger,
// which is seconds behind. An isolate does not know the calls that run in another one, so more calls may be in flight
// than the plan allows. A tenant that is under its limits is never refused, with one exception: an hour's units below the spend
// cap wait for the object, so that isolates that do not see each other exceed no cap.
import { withTimeout } from "../adapters/timeout.ts";
import type { Context } from "../control/context.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { BoundedMap } from "../core/concurrency/bounded-map.ts";
import type { Authorization, CallOutcome, CallRequest, Caller, Progress, Refusal } from "../core/call.ts";
import type { ErrorCode } from "../core/errors.ts";
import { spendWindow } from "../core/plans/money.ts";
import { planOf, weightOf } from "../core/plans/plans.ts";
import type { ApiKey, TenantConfig, TenantId } from "../core/tenant/tenant.ts";
import { type UsageMessage, fallbackUsage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";
import { isProven, openTenantDb, proveLogin } from "../tenant-db/dispatch.ts";
import type { CallScopedDb } from "../tenant-db/tenant-db.ts";
import { hasOnePrice } from "../tools/offer.ts";
import type { Tool } from "../tools/tool.ts";
import { Admission } from "./admission.ts";
import { fallbackCallsStore } from "./fallback-calls-store.ts";
import { chargedAs, mayRunWithoutObject } from "./keyed-calls.ts";
import { mayBeCharged, plainRefusal, refusedOutcome } from "./refusal.ts";
import {
  type AuthorizationHost,
  type CallHost,
  type CallUsage,
  type NotServed,
  authorize,
  runCall,
} from "./run-call.ts";

/** A lost object is usually back within seconds, otherwise within minutes. */
const RETRY_SECONDS = 15;
/** A queue takes a message in milliseconds. The same message may be sent twice, so a lost answer costs a second attempt. */
const QUEUE_TIMEOUT_MS = 3_000;
const QUEUE_ATTEMPTS = 2;
/** After this, the isolate reads a tenant's usage from the ledger again, once none of the tenant's calls runs here. */
const USAGE_TRUSTED_MS = 60_000;
/** Tenants whose usage one isolate remembers; each takes some 10 KB at most. */
const MAX_REMEMBERED = 500;

export interface FallbackRequest extends Pick<CallRequest, "callId" | "idempotency" | "caller" | "args" | "asking"> {
  tool: Tool;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  /** Whether an attempt in the object was lost: the object may have charged the call. */
  isUnsure: boolean;
  /** Aborted when the client disconnects. */
  signal: AbortSignal;
}

/** Authorizes an MCP method that calls no tool. Such a method costs nothing, so it works on every plan. */
export function authorizeWithoutObject(context: Context, caller: Caller): Promise<Authorization> {
  const { env } = context;
  const host: AuthorizationHost = {
    env,
    now: () => Date.now(),
    tenant: (each) => readTenant(context, each),
    scopes: ({ scopes }) => scopes,
    usage: async (config) => {
      try {
        return { ...(await usageOf(context, config)), keyUsed };
      } catch (error) {
        return controlUnavailable(config.id, error);
      }
    },
  };
  return authorize(host, caller);
}

/**
 * Runs a call in the Worker. The caller of this function knows that the object did not admit the call, or that the tool
 * may run twice. Refusals and failed tools are values, as in the object.
 */
export async function callWithoutObject(context: Context, call: FallbackRequest): Promise<CallOutcome> {
  const { idempotency, tool, args, caller, progress, signal, asking } = call;
  const refused = refusedPrice(call) ?? (idempotency && refusedKey(tool, idempotency.atMs, Date.now()));
  if (refused !== undefined) return refusedOutcome(refused);
  const callId = await chargeId(context, call);
  if (typeof callId !== "string") return refusedOutcome(callId.refusal);
  const request = { callId, idempotency, attempt: 2 as const, caller, tool: tool.name, args, asking };
  const abort = new AbortController();
  const onAbort = (): void => abort.abort("cancelled");
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const outcome = await runCall(workerHost(context, tool), request, { abort, progress });
    if (outcome.kind === "result") {
      const { tenantId } = caller;
      log("warn", "fallback_call_ran", { tenantId, tool: tool.name, callId, charged: outcome.receipt !== undefined });
    }
    return outcome;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Runs calls of `tool` in this Worker, each charged by a queue message. */
function workerHost(context: Context, tool: Tool): CallHost {
  const { env } = context;
  return {
    env,
    now: () => Date.now(),
    tenant: (caller) => readTenant(context, caller),
    scopes: ({ scopes }) => scopes,
    refuse: (config, key) => refusedByPlan(env, config) ?? refusedByBudget(key),
    rows: (config) => openRows(env, config),
    usage: async (config) => {
      try {
        return chargedByQueue(env, config.id, tool, await usageOf(context, config));
      } catch (error) {
        return controlUnavailable(config.id, error);
      }
    },
  };
}

/** The tenant as the control tables have it now. */
async function readTenant(context: Context, { kind, tenantId }: Caller): Promise<TenantConfig | NotServed> {
  // Only the object knows whether a canary's token was used, and whether a grant's token was revoked.
  if (kind === "canary" || kind === "grant") return { refusal: retryLater(plainRefusal("tenant_unavailable")) };
  try {
    return (await tenantsStore(context.control).config(tenantId)) ?? { refusal: plainRefusal("tenant_unknown") };
  } catch (error) {
    return controlUnavailable(tenantId, error);
  }
}

/** The id under which the call is charged: of its key's charge on the day before, if the ledger has one. */
async function chargeId(
  context: Context,
  { callId, idempotency, caller }: FallbackRequest,
): Promise<string | NotServed> {
  if (idempotency === undefined) return callId;
  try {
    const charges = await fallbackCallsStore(context.control).charges([callId, idempotency.earlierId]);
    return chargedAs(charges, Date.now())?.callId ?? callId;
  } catch (error) {
    return controlUnavailable(caller.tenantId, error);
  }
}

/**
 * Why a call with an idempotency key does not run here. Only the object knows what became of a key. A tool that may run twice
 * runs again for the answer, and the ledger takes the call's id once; around midnight the two may have two ids.
 */
function refusedKey({ annotations }: Tool, sentAtMs: number, nowMs: number): Refusal | undefined {
  const { readOnly, idempotent } = annotations;
  if ((readOnly || idempotent) && mayRunWithoutObject(sentAtMs, nowMs)) return undefined;
  return retryLater(
    plainRefusal("tenant_unavailable", "Whether this idempotency key was used cannot be known right now."),
  );
}

/**
 * Why a call whose price can differ does not run here: its tool decides the price, or plans have prices of their own and the plan may
 * have changed. Only the object knows what an earlier attempt was charged. So the Worker runs such a call only if there is none.
 */
function refusedPrice({
  tool,
  idempotency,
  isUnsure,
}: Pick<FallbackRequest, "tool" | "idempotency" | "isUnsure">): Refusal | undefined {
  if (hasOnePrice(tool) || (!isUnsure && idempotency === undefined)) return undefined;
  return retryLater(plainRefusal("tenant_unavailable", "What an earlier attempt cost cannot be known right now."));
}

function refusedByPlan(env: Env, { plan }: TenantConfig): Refusal | undefined {
  // `null`: the price is in the tenant's contract.
  if (planOf(plan).amountCents !== 0) return undefined;
  const detail = `Try again in ${RETRY_SECONDS} seconds. Paid plans are still served.`;
  return { ...retryLater(plainRefusal("metering_unavailable", detail)), upgradeUrl: `${env.PUBLIC_URL}/plans` };
}

/** Only the object knows how much of a budget is left. Any other key is served. */
function refusedByBudget(key: ApiKey | undefined): Refusal | undefined {
  if (key === undefined || key.unitsPerMonth === null) return undefined;
  const detail = `This API key has a monthly budget, which cannot be checked now. Try again in ${RETRY_SECONDS} seconds.`;
  return retryLater(plainRefusal("metering_unavailable", detail));
}

/** A key's last use is recorded in the tenant's object. A use without it is missing until the next one. */
function keyUsed(): void {}

async function openRows(env: Env, { id, plan, placement }: TenantConfig): Promise<CallScopedDb | ErrorCode> {
  if (placement === null) return "tenant_provisioning";
  const nowMs = Date.now();
  const proof = isProven(placement, nowMs) ? "proven" : await proveLogin(env, id, placement, nowMs);
  if (proof !== "proven") return proof;
  return openTenantDb(env, id, placement, { share: () => ({ tenant: id, weight: weightOf(plan) }) });
}

// ---- usage

interface Usage {
  admission: Admission;
  /** Calls and units of the hour before `readAtMs`, by tool: the ledger's seconds of 500 busy tenants would fill an isolate. */
  history: ReturnType<CallUsage["history"]>;
  readAtMs: number;
  /** The start of the billing period that `admission` counts. */
  spendStartMs: number | undefined;
}

const remembered = new BoundedMap<TenantId, Usage>(MAX_REMEMBERED);

/** The tenant's usage as this isolate knows it: from the ledger, plus the calls that ran here since. */
async function usageOf(context: Context, config: TenantConfig): Promise<Usage> {
  const { id, limits } = config;
  const nowMs = Date.now();
  const spendStartMs = spendWindow(config, nowMs)?.startMs;
  const known = trustedUsage(id);
  if (known !== undefined && known.spendStartMs === spendStartMs) return known;
  const {
    hour,
    monthUnits,
    units: spendUnits,
  } = await fallbackCallsStore(context.control).usedLately(id, nowMs, spendStartMs ?? nowMs);
  // Another call may have read it meanwhile, and its reservation is in that copy.
  const first = trustedUsage(id);
  if (first !== undefined) {
    if (spendStartMs !== undefined) first.admission.watchSpend(spendStartMs, () => spendUnits);
    return Object.assign(first, { spendStartMs });
  }

  const admission = new Admission();
  if (spendStartMs !== undefined) admission.watchSpend(spendStartMs, () => spendUnits);
  admission.restore(eachCall(hour), monthUnits, nowMs);
  for (const tool of Object.keys(limits.unitsPerHourByTool)) {
    admission.watch(tool, () => hour.filter((each) => each.tool === tool), nowMs);
  }
  const history = [...Map.groupBy(hour, ({ tool }) => tool)].map(([tool, seconds]) => ({
    tool,
    calls: seconds.reduce((sum, { calls }) => sum + calls, 0),
    units: seconds.reduce((sum, { units }) => sum + units, 0),
  }));
  const usage = { admission, history, readAtMs: nowMs, spendStartMs };
  remembered.set(id, usage);
  return usage;
}

/** The remembered usage while it is fresh or while calls run here: forgetting it would lose their reservations. */
function trustedUsage(id: TenantId): Usage | undefined {
  const usage = remembered.get(id);
  if (usage === undefined) return undefined;
  return usage.admission.inFlight > 0 || Date.now() - usage.readAtMs < USAGE_TRUSTED_MS ? usage : undefined;
}

/** The ledger sums calls by second: the first call of each second gets the second's units. */
function* eachCall(seconds: readonly { atMs: number; calls: number; units: number }[]) {
  for (const { atMs, calls, units } of seconds) {
    yield { atMs, units };
    for (let other = 1; other < calls; other += 1) yield { atMs, units: 0 };
  }
}

function chargedByQueue(env: Env, tenantId: TenantId, tool: Tool, { admission, history }: Usage): CallUsage {
  return {
    admission,
    // The ledger takes a call id once, so that a call which its object has charged as well is charged once.
    chargeOf: () => undefined,
    fallbackCharges: () => [],
    keyed: undefined,
    keyUsed,
    spendCanary: () => false,
    // `usageOf` has counted the billing period. One that began since then has no other calls yet.
    usedSince: () => 0,
    spendReserve: ({ limits: { unitsPerHour } }) => unitsPerHour ?? Infinity,
    // `usageOf` has started the windows of the limited tools. A limit set since then counts calls from its first call on.
    recent: () => [],
    history: () => history,
    charge: async (charge) =>
      (await enqueue(env, fallbackUsage(tenantId, charge))) ? undefined : notCounted(tool, charge.callId),
  };
}

/** Returns whether the queue is certain to have the message. */
async function enqueue(env: Env, message: UsageMessage): Promise<boolean> {
  for (let attempt = 1; attempt <= QUEUE_ATTEMPTS; attempt += 1) {
    try {
      await withTimeout(QUEUE_TIMEOUT_MS, env.USAGE.send(message));
      return true;
    } catch (error) {
      log("error", "fallback_call_not_queued", { tenantId: message.tenantId, attempt, error: describeError(error) });
    }
  }
  return false;
}

// ---- refusals

/** The tool has run and its answer is withheld. The queue may still have taken the message. */
function notCounted(tool: Tool, callId: string): Refusal {
  const { readOnly, idempotent } = tool.annotations;
  const detail = readOnly ? undefined : "The tool has run, and its changes remain.";
  const refusal = mayBeCharged(plainRefusal("metering_unavailable", detail), callId);
  return readOnly || idempotent ? retryLater(refusal) : refusal;
}

function controlUnavailable(tenantId: TenantId, error: unknown): NotServed {
  log("error", "control_not_read", { tenantId, error: describeError(error) });
  return { refusal: retryLater(plainRefusal("control_unavailable")) };
}

function retryLater(refusal: Refusal): Refusal {
  return { ...refusal, retryAfterSeconds: RETRY_SECONDS };
}
