// What goes on while a tenant's object cannot be reached: paid plans are served here, in the Worker, over HTTP; the free
// plan is refused. Who may call what is read from the control tables for each call, and the login is proved as in the
// object. The reply leaves only after the usage event is in the queue, so that no success goes unbilled; the object counts
// the call when it is back.
//
// Limits hold as far as one isolate can see: the same exact decision as in the object, begun from the ledger, which is
// seconds behind. No isolate knows of calls that run in another one, so a tenant may have more in flight than its plan
// says, by as many times as isolates serve it; nobody is refused who is under the limit.
import { controlOpenCalls } from "./fallback-calls-store.ts";
import { tenantsOf } from "../control/tenants-store.ts";
import { isProven, openTenantDb, proveLogin } from "../tenant-db/dispatch.ts";
import { connectControl } from "../adapters/neon.ts";
import { runTool, toolContext } from "./tool-runner.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { Admission } from "./admission.ts";
import type { Authorization, CallOutcome, Caller, Progress, Refusal } from "../core/call.ts";
import { allowedTools, refusedTool } from "./call-checks.ts";
import { refusedCredential } from "../identity/credential-check.ts";
import { plans } from "../core/plans.ts";
import { limitRefusal, mayBeCharged, plainRefusal, refusedOutcome } from "./refusal.ts";
import { type TenantConfig, type TenantId, refusedByState } from "../core/tenant.ts";
import { fallbackUsage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";
import type { Tool } from "../tools/tool.ts";

/** An object is back within seconds of whatever took it away, or else within minutes. */
const RETRY_SECONDS = 15;
/** A queue takes a message in milliseconds. It is asked twice, for the same message may be sent twice. */
const QUEUE_WITHIN_MS = 3_000;
const QUEUE_ATTEMPTS = 2;
/** From then on the ledger is asked again what a tenant has used, as soon as none of its calls runs here. */
const USED_TRUSTED_MS = 60_000;
/** Tenants whose use one isolate remembers; the one that came first leaves first. */
const MAX_REMEMBERED = 500;

export interface FallbackRequest {
  callId: string;
  tool: Tool;
  args: Readonly<Record<string, unknown>>;
  caller: Caller;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  /** Aborted when the client goes away. */
  signal: AbortSignal;
}

interface Used {
  admission: Admission;
  history: { tool: string; calls: number; units: number }[];
  readAtMs: number;
}

/** Answers an MCP method that calls no tool, which nobody counts, on every plan. */
export async function authorizeOpen(env: Env, caller: Caller): Promise<Authorization> {
  const standing = await standingOf(env, caller);
  if ("refusal" in standing) return { kind: "refused", refusal: standing.refusal };
  return { kind: "authorized", allowedTools: allowedTools(standing.config, caller) };
}

/**
 * Runs a call here. The caller of this knows that the object has not admitted it, or that running it again does no harm.
 * Expected refusals and failures are values, as in the object.
 */
export async function callOpen(env: Env, call: FallbackRequest): Promise<CallOutcome> {
  const { callId, tool, args, caller, progress, signal } = call;
  const request = { callId, attempt: 2 as const, caller, tool: tool.name, args };
  const standing = await standingOf(env, caller);
  if ("refusal" in standing) return refusedOutcome(standing.refusal);
  const { config } = standing;
  const refusal = refusedTool(config, request) ?? refusedByPlan(env, config);
  if (refusal !== undefined) return refusedOutcome(refusal);

  const { placement } = config;
  if (placement === null) return refusedOutcome(plainRefusal("tenant_provisioning"));
  const nowMs = Date.now();
  const proof = isProven(placement, nowMs) ? "proven" : await proveLogin(env, config.id, placement, nowMs);
  if (proof !== "proven") return refusedOutcome(plainRefusal(proof));
  const db = await openTenantDb(env, config.id, placement);
  let used: Used;
  try {
    used = await usedBy(env, config);
  } catch (error) {
    return refusedOutcome(unread(config.id, error));
  }

  const { admission, history } = used;
  const decision = admission.decide(tool.units, config.limits, Date.now(), tool.name);
  if (!decision.admitted) {
    const refused = limitRefusal(tool.name, decision, `${env.PUBLIC_URL}/plans`);
    return refusedOutcome(refused, admission.quota(config.limits, Date.now()));
  }
  const { ticket } = decision;
  const abort = new AbortController();
  const onAbort = (): void => abort.abort("cancelled");
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const context = toolContext(env.FILES, config, request, {
      db: db.forCall(abort.signal),
      usage: () => admission.quota(config.limits, Date.now()),
      history: () => history,
    });
    const { charged, ...answer } = await runTool(tool, args, context, { abort, progress });
    const receipt = charged && tool.units > 0 ? { id: callId, units: tool.units } : undefined;
    if (receipt !== undefined) {
      const event = fallbackUsage(config.id, { callId, tool: tool.name, units: tool.units, atMs: ticket.atMs });
      if (!(await queued(env, event))) return refusedOutcome(uncounted(tool, callId));
    }
    if (charged) admission.settle(ticket);
    log("warn", "call_ran_open", { tenantId: config.id, tool: tool.name, callId, charged });
    return { kind: "result", ...answer, receipt, quota: admission.quota(config.limits, Date.now()) };
  } finally {
    signal.removeEventListener("abort", onAbort);
    admission.release(ticket); // does nothing to a call that was settled
  }
}

/** The tenant as the control tables have it at this moment, if the caller is good and the tenant is served. */
async function standingOf(env: Env, caller: Caller): Promise<{ config: TenantConfig } | { refusal: Refusal }> {
  const { tenantId } = caller;
  // A canary's token is good once, which the object alone can tell.
  if (caller.kind === "canary") return { refusal: later(plainRefusal("tenant_unavailable")) };
  let config: TenantConfig | undefined;
  try {
    config = await tenantsOf(env).config(tenantId);
  } catch (error) {
    return { refusal: unread(tenantId, error) };
  }
  if (config === undefined) return { refusal: plainRefusal("tenant_unknown") };
  const nowMs = Date.now();
  const code = refusedCredential(config, caller, nowMs) ?? refusedByState(config, nowMs);
  return code === undefined ? { config } : { refusal: plainRefusal(code) };
}

function refusedByPlan(env: Env, { plan }: TenantConfig): Refusal | undefined {
  // An enterprise's price is in its contract.
  if (plans[plan].amountCents !== 0) return undefined;
  const detail = `Try again in ${RETRY_SECONDS} seconds. Paid plans are served meanwhile.`;
  return { ...later(plainRefusal("metering_unavailable", detail)), upgradeUrl: `${env.PUBLIC_URL}/plans` };
}

/** What the tenant has used, as this isolate knows it: from the ledger, and what ran here since. */
async function usedBy(env: Env, { id, limits }: TenantConfig): Promise<Used> {
  const known = trusted(id);
  if (known !== undefined) return known;
  const nowMs = Date.now();
  const { hour, monthUnits } = await controlOpenCalls(connectControl(env)).usedLately(id, nowMs);
  // Another call may have read it meanwhile, and hold its place in flight there.
  const first = trusted(id);
  if (first !== undefined) return first;

  const admission = new Admission();
  admission.restore(eachCall(hour), monthUnits, nowMs);
  for (const tool of Object.keys(limits.unitsPerHourByTool)) {
    admission.watch(tool, () => hour.filter((each) => each.tool === tool), nowMs);
  }
  const history = Map.groupBy(hour, ({ tool }) => tool);
  const used: Used = {
    admission,
    history: [...history].map(([tool, seconds]) => ({
      tool,
      calls: seconds.reduce((sum, { calls }) => sum + calls, 0),
      units: seconds.reduce((sum, { units }) => sum + units, 0),
    })),
    readAtMs: nowMs,
  };
  remembered.delete(id);
  remembered.set(id, used);
  if (remembered.size > MAX_REMEMBERED) for (const oldest of remembered.keys()) if (remembered.delete(oldest)) break;
  return used;
}

const remembered = new Map<TenantId, Used>();

function trusted(id: TenantId): Used | undefined {
  const used = remembered.get(id);
  if (used === undefined) return undefined;
  return used.admission.inFlight > 0 || Date.now() - used.readAtMs < USED_TRUSTED_MS ? used : undefined;
}

/** Calls that the ledger told by the second: the first of each second has its units. */
function* eachCall(seconds: readonly { atMs: number; calls: number; units: number }[]) {
  for (const { atMs, calls, units } of seconds) {
    yield { atMs, units };
    for (let other = 1; other < calls; other += 1) yield { atMs, units: 0 };
  }
}

/** Whether the queue has the event for certain. */
async function queued(env: Env, event: ReturnType<typeof fallbackUsage>): Promise<boolean> {
  for (let attempt = 1; attempt <= QUEUE_ATTEMPTS; attempt += 1) {
    try {
      await withTimeout(QUEUE_WITHIN_MS, env.USAGE.send(event));
      return true;
    } catch (error) {
      log("error", "open_call_not_queued", { tenantId: event.tenantId, attempt, error: describeError(error) });
    }
  }
  return false;
}

/** The tool has run, and its answer is withheld: the queue may have taken the event, and may not. */
function uncounted({ annotations }: Tool, callId: string): Refusal {
  const stands = annotations.readOnly ? undefined : "The tool has run, and what it wrote stands.";
  const refusal = mayBeCharged(plainRefusal("metering_unavailable", stands), callId);
  return annotations.readOnly || annotations.idempotent ? later(refusal) : refusal;
}

function unread(tenantId: TenantId, error: unknown): Refusal {
  log("error", "control_not_read", { tenantId, error: describeError(error) });
  return later(plainRefusal("control_unavailable"));
}

function later(refusal: Refusal): Refusal {
  return { ...refusal, retryAfterSeconds: RETRY_SECONDS };
}
