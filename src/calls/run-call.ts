// One tool call from its first check to its receipt. This is the only copy of the sequence: the tenant's object and the
// fallback path run it, each with its own `CallHost`.
//
// Invariants:
// - Every successful call is charged exactly once. A call that is refused, fails or is aborted is not charged.
// - Admission is exact: nothing is awaited between the decision and its bookkeeping.
// - A reservation lives in memory only, so an object that dies during a call charges nothing.
// - A canary's token is valid for one call, which is not charged.
// - A call with a client's idempotency key runs once; a later call with the key gets its answer.
import {
  type Answered,
  type Authorization,
  type CallOutcome,
  type CallRequest,
  type CallTrace,
  type Caller,
  type FinishedCall,
  type Progress,
  type Question,
  type QuotaStatus,
  type Receipt,
  type Refusal,
  finishedCall,
  newTrace,
} from "../core/call.ts";
import { type ErrorCode, errorCode } from "../core/errors.ts";
import { type SpendWindow, withReserve } from "../core/plans/money.ts";
import { featuresOf } from "../core/plans/plans.ts";
import type { Charge, ChargedCall } from "../core/usage.ts";
import type { ApiKey, TenantConfig } from "../core/tenant/tenant.ts";
import { isLoopback } from "../core/text/web-url.ts";
import { refusedByState } from "../core/tenant/tenant-state.ts";
import { allowedTools, keyOf, refusedCredential, refusedToolUse } from "../identity/keys/credential-check.ts";
import { rolesNeeded } from "../identity/members/members.ts";
import { describeError, log } from "../log.ts";
import type { CallScopedDb } from "../tenant-db/tenant-db.ts";
import { callable } from "../tools/catalogue.ts";
import { offered } from "../tools/offer.ts";
import { type Tool, type ToolContext, mostUnits } from "../tools/tool.ts";
import type { Admission, Ticket } from "./admission.ts";
import { type Earlier, type KeyedCalls, chargedAs } from "./keyed-calls.ts";
import {
  limitRefusal,
  lostAnswer,
  plainRefusal,
  refusedOutcome,
  requestRefusal,
  scopesNeeded,
  stateRefusal,
  urlsOf,
  withheldRefusal,
} from "./refusal.ts";
import { type ToolEnv, type ToolRun, runTool, timedDb, toolContext } from "./tool-runner.ts";

type Awaitable<Value> = Value | Promise<Value>;

/** Where a call runs: in the tenant's object, or in the Worker while that object cannot be reached. */
export interface CallHost {
  readonly env: ToolEnv;
  /** The clock of every decision, in epoch milliseconds. */
  now(): number;
  /** The tenant's configuration, at most `CONFIG_TRUSTED_MS` old, or why there is none for this caller. */
  tenant(caller: Caller): Awaitable<TenantConfig | NotServed>;
  /** The scopes of the caller's credential, or why this host does not accept it. */
  scopes(caller: Caller): readonly string[] | ErrorCode;
  /** Why this host does not run the tenant's calls, or those of the caller's API key, or `undefined`. */
  refuse(config: TenantConfig, key: ApiKey | undefined): Refusal | undefined;
  /** The tenant's rows through a login whose isolation is proved, or why there are none. */
  rows(config: TenantConfig): Awaitable<CallScopedDb | ErrorCode>;
  /** The tenant's usage. */
  usage(config: TenantConfig): Awaitable<CallUsage | NotServed>;
  /** Counts a call of a tenant that exists, once it has ended. */
  readonly finished?: (call: FinishedCall) => void;
}

/** Why a host cannot run a call at all. */
export interface NotServed {
  refusal: Refusal;
}

/** A tenant's usage, and the way to charge a call. */
export interface CallUsage {
  readonly admission: Admission;
  /** The charge of this call, if it has one. */
  chargeOf(callId: string): ChargedCall | undefined;
  /** Those of these calls that were charged without this host. Few calls are, so it is cheaper to ask than `chargeOf`. */
  fallbackCharges(callIds: readonly string[]): readonly ChargedCall[];
  /** The calls with an idempotency key. `undefined`: this host cannot know what became of a key. */
  readonly keyed: KeyedCalls | undefined;
  /** Records that an API key was used. Repeating it costs nothing. */
  keyUsed(keyId: string, nowMs: number): void;
  /** Uses up a canary's token, durably. False: it was used before. */
  spendCanary(canary: { expiresAtMs: number }): boolean;
  /** Units of charged calls from `startMs` on, the start of a billing period. */
  usedSince(startMs: number, nowMs: number): number;
  /** Units below a spend cap that this host does not admit, because it may not know all calls. Absent: none. */
  readonly spendReserve?: (config: TenantConfig) => number;
  /** Charged calls of one tool in the hour up to `nowMs`. */
  recent(nowMs: number, tool: string): Iterable<{ atMs: number; units: number }>;
  /** Calls and units of the hour up to `nowMs`, by tool. */
  history(nowMs: number): ReturnType<ToolContext["history"]>;
  /**
   * Charges a call. The charge is durable before the call's reply leaves. Repeating it charges nothing more. A returned
   * refusal means that the charge may be lost: it is sent in place of the tool's answer, and the units are released. `line`:
   * the line of API keys whose units of the month the call counts in.
   */
  charge(charge: Charge, line: string | undefined): Awaitable<Refusal | undefined>;
}

export interface CallOptions {
  /** Aborted when the client disconnects. The call is then stopped and not charged. */
  abort: AbortController;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  /** Sends a question on the call's stream, and waits for the answer. Absent: this host has no stream for questions. */
  askClient?: ((question: Question) => Promise<Answered>) | undefined;
  /** Whether the call has not ended with this refusal: it waits until the limit is raised, then runs again. */
  waitsAfter?: (refusal: Refusal) => boolean;
}

/** What `authorize` needs of a host. */
export interface AuthorizationHost extends Pick<CallHost, "now" | "tenant" | "scopes"> {
  readonly env: Pick<Env, "PUBLIC_URL">;
  usage(config: TenantConfig): Awaitable<Pick<CallUsage, "admission" | "keyUsed"> | NotServed>;
}

/**
 * Decides whether this caller may use the server, for every MCP method that calls no tool, and counts the message among the
 * requests of the minute.
 */
export async function authorize(host: AuthorizationHost, caller: Caller): Promise<Authorization> {
  const found = served(await host.tenant(caller), host, caller);
  if ("refusal" in found) return { kind: "refused", refusal: found.refusal };
  const { config } = found;
  const usage = await host.usage(config);
  if ("refusal" in usage) return { kind: "refused", refusal: usage.refusal };
  const now = host.now();
  const { admission } = usage;
  if (caller.kind === "key") usage.keyUsed(caller.keyId, now);
  const refused = caller.kind === "canary" ? undefined : admission.request(config.limits, now);
  const quota = admission.quota(config.limits, now);
  if (refused !== undefined) {
    return { kind: "refused", refusal: requestRefusal(refused, { ...urlsOf(host, config), nowMs: now }), quota };
  }
  const { plan, branding } = config;
  const user = { allowedTools: allowedTools(config, caller), plan, features: featuresOf(config), scopes: found.scopes };
  return { kind: "authorized", ...user, branding, quota };
}

/** Admits a call, runs its tool and settles it. Refusals and failed tools are values; a throw is an outage. */
export async function runCall(host: CallHost, request: CallRequest, options: CallOptions): Promise<CallOutcome> {
  const trace: Trace = { ...newTrace(request.callId, host.now()), config: undefined };
  let outcome: CallOutcome | undefined;
  let thrown: ErrorCode | undefined;
  try {
    return (outcome = await admitAndRun(host, request, options, trace));
  } catch (error) {
    thrown = errorCode(error);
    throw error;
  } finally {
    if (outcome?.kind !== "refused" || options.waitsAfter?.(outcome.refusal) !== true)
      finish(host, request, trace, finishedCall(trace, request, outcome, thrown, host.now()), outcome?.kind === "asks");
  }
}

/** `config`: the tenant's, once it is known. */
type Trace = CallTrace & { config: TenantConfig | undefined };

/**
 * Writes the call's one line into the log, and counts it. A failure here must not change the call's answer. `asks`: the call has not
 * ended, so it is not counted yet.
 */
function finish(
  host: CallHost,
  { caller, attempt }: CallRequest,
  { config }: Trace,
  call: FinishedCall,
  asks: boolean,
): void {
  try {
    const { callId, tool, end, code, units, ms, parts } = call;
    const outcome = asks ? "asked" : end;
    const tenant = { tenantId: caller.tenantId, plan: config?.plan, tier: config?.strategy };
    const receipt = units > 0 ? callId : undefined;
    log("info", "call", {
      callId,
      receipt,
      ...tenant,
      tool,
      by: caller.kind,
      attempt,
      outcome,
      code,
      units,
      ms,
      ...parts,
    });
    if (config !== undefined && caller.kind !== "canary" && !asks) host.finished?.(call);
  } catch (error) {
    log("error", "call_not_counted", { callId: call.callId, error: describeError(error) });
  }
}

async function admitAndRun(
  host: CallHost,
  request: CallRequest,
  { abort, progress, askClient }: CallOptions,
  trace: Trace,
): Promise<CallOutcome> {
  const { caller } = request;

  // Checks: the caller, the tenant's state, the tool.
  const read = await host.tenant(caller);
  if (!("refusal" in read)) trace.config = read;
  const found = served(read, host, caller);
  if ("refusal" in found) return refusedOutcome(found.refusal);
  const { config, scopes } = found;
  const key = keyOf(config, caller);
  const refused = refusedTool(config, request, key) ?? host.refuse(config, key);
  if (refused !== undefined) return refusedOutcome(refused);
  const listed = callable(request.tool);
  if (listed === undefined) return refusedOutcome(plainRefusal("tool_unknown"));
  const notOffered = withheldRefusal(listed, config, { ...urlsOf(host, config), nowMs: host.now() });
  if (notOffered !== undefined) return refusedOutcome(notOffered);
  const tool = offered(listed, config.plan, host.now());
  if (lacksScope(caller, scopes, tool)) return refusedOutcome(scopesNeeded(tool));

  const db = await host.rows(config);
  if (typeof db === "string") return refusedOutcome(plainRefusal(db));

  // Decide. From here to the reservation nothing is awaited.
  const usage = await host.usage(config);
  if ("refusal" in usage) return refusedOutcome(usage.refusal);
  if (caller.kind === "canary" && !usage.spendCanary(caller)) return refusedOutcome(plainRefusal("token_invalid"));
  if (key !== undefined) usage.keyUsed(key.id, host.now());
  const { admission } = usage;
  const { idempotency } = request;
  const keyed = idempotency && usage.keyed?.of(idempotency);
  const earlier = keyed?.find(host.now());
  if (earlier !== undefined && earlier.state !== "none") {
    trace.repeated = true;
    return again(host, config, { admission, request, earlier });
  }
  // The first attempt was charged and its answer was lost: the tool runs again for the answer alone.
  const elsewhere = (): ChargedCall | undefined =>
    keyed && idempotency && chargedAs(usage.fallbackCharges([request.callId, idempotency.earlierId]), host.now());
  let charged = elsewhere() ?? (request.attempt === 2 ? usage.chargeOf(request.callId) : undefined);
  const alreadyCharged = charged !== undefined;
  const callId = (trace.callId = charged?.callId ?? request.callId);
  const spendAt = (now: number): SpendWindow | undefined =>
    admission.spendOf(config, now, (startMs, atMs) => usage.usedSince(startMs, atMs));
  let ticket: Ticket | undefined;
  if (!alreadyCharged && caller.kind !== "canary") {
    const now = host.now();
    if (Object.hasOwn(config.limits.unitsPerHourByTool, tool.name)) {
      admission.watch(tool.name, () => usage.recent(now, tool.name), now);
    }
    const spend = spendAt(now);
    const reserved = spend && withReserve(spend, usage.spendReserve?.(config));
    const decision = admission.decide(mostUnits(tool), config.limits, now, tool.name, { key, spend: reserved });
    if (!decision.admitted) {
      const refusal = limitRefusal(tool.name, decision, { ...urlsOf(host, config), nowMs: now, spend });
      return refusedOutcome(refusal, admission.quota(config.limits, now));
    }
    ({ ticket } = decision);
    trace.admittedAtMs = ticket.atMs;
  }
  trace.decidedAtMs = host.now();

  // Context, run, charge, settle. A call that is not settled gives its units back.
  const { readOnly, idempotent } = tool.annotations;
  const once = !readOnly && !idempotent;
  const endKeyed = keyed?.begin({ callId, nowMs: host.now(), once });
  let run: ToolRun | undefined;
  let outcome: CallOutcome | undefined;
  const over = new AbortController();
  try {
    const made = { callId, caller, tool };
    const context = toolContext(host.env, config, made, {
      db: timedDb(db.forCall(abort.signal), (ms) => (trace.sqlMs += ms)),
      usage: () => admission.quota(config.limits, host.now(), { key, spend: spendAt(host.now()) }),
      history: () => usage.history(host.now()),
      signal: AbortSignal.any([abort.signal, over.signal]),
      fetched: (ms) => Object.assign(trace, { fetches: trace.fetches + 1, fetchMs: trace.fetchMs + ms }),
    });
    const tellsCause = isLoopback(host.env.PUBLIC_URL);
    const { asking } = request;
    run = await runTool(tool, request.args, context, { abort, progress, askClient, asking, tellsCause });
    trace.ranAtMs = host.now();
    if (run.question !== undefined && !alreadyCharged) {
      const quota = admission.quota(config.limits, host.now());
      return (outcome = { kind: "asks", question: run.question, quota });
    }
    trace.answered = run.charged;
    if (run.charged) {
      // The host may have learned of the charge while the tool ran.
      charged ??= elsewhere();
      trace.repeated = charged !== undefined;
      // A repeated run may have found another price: the first one's is charged.
      const { units } = charged ?? run;
      const charging =
        ticket !== undefined && units > 0 && charged === undefined
          ? usage.charge({ callId, atMs: ticket.atMs, tool: tool.name, units }, ticket.line)
          : undefined;
      keyed?.keep({ callId: charged?.callId ?? callId, nowMs: host.now(), units, answer: run });
      // A stored charge is settled without a pause: a count in between would have its units twice.
      const withheld = charging instanceof Promise ? await charging : charging;
      if (withheld !== undefined) return (outcome = refusedOutcome(withheld));
      if (ticket !== undefined && charged === undefined) {
        if (units > 0) charged = { callId, units, atMs: ticket.atMs };
        trace.units = units;
        admission.settle(ticket, units);
      }
    }
    return (outcome = outcomeOf(run, {
      callId,
      alreadyCharged,
      receipt: charged && { id: charged.callId, units: charged.units },
      quota: admission.quota(config.limits, host.now()),
    }));
  } finally {
    over.abort(); // requests that the tool did not wait for
    if (ticket !== undefined) admission.release(ticket); // does nothing to a settled call
    // A tool that must not run twice and may have written keeps its key: nothing is known of the outcome.
    const mayHaveWritten = once && (run === undefined || (run.failure !== undefined && unknownEnds.has(run.failure)));
    if (run?.charged !== true && !mayHaveWritten) keyed?.drop();
    endKeyed?.(outcome);
  }
}

/** Failures after which a tool's changes may remain. */
const unknownEnds: ReadonlySet<ErrorCode> = new Set(["outcome_unknown", "tool_timeout", "tool_aborted"]);

function outcomeOf(
  { charged, units: _units, question: _question, ...answer }: ToolRun,
  {
    callId,
    alreadyCharged,
    receipt,
    quota,
  }: { callId: string; alreadyCharged: boolean; receipt: Receipt | undefined; quota: QuotaStatus },
): CallOutcome {
  if (alreadyCharged && !charged) return { ...refusedOutcome(lostAnswer(callId)), receipt };
  return { kind: "result", ...answer, receipt, quota };
}

/** Answers a call whose idempotency key was used before. It is not charged; like any message it counts in the minute. */
async function again(
  host: Pick<CallHost, "env" | "now">,
  config: TenantConfig,
  {
    admission,
    request,
    earlier,
  }: { admission: Admission; request: CallRequest; earlier: Exclude<Earlier, { state: "none" }> },
): Promise<CallOutcome> {
  const now = host.now();
  const isLimited = request.caller.kind !== "canary" && request.attempt === 1;
  const refused = isLimited ? admission.request(config.limits, now) : undefined;
  const quota = admission.quota(config.limits, now);
  if (refused !== undefined) {
    return refusedOutcome(requestRefusal(refused, { ...urlsOf(host, config), nowMs: now }), quota);
  }
  switch (earlier.state) {
    case "other":
      return refusedOutcome(plainRefusal("idempotency_key_reused"), quota);
    case "full":
      return refusedOutcome(plainRefusal("idempotency_keys_exhausted"), quota);
    case "running":
      return earlier.outcome;
    case "unknown":
      return refusedOutcome(
        plainRefusal("outcome_unknown", "The first call with this idempotency key was interrupted."),
        quota,
      );
    case "done": {
      const { callId: id, units, answer } = earlier;
      const receipt: Receipt | undefined = units > 0 ? { id, units } : undefined;
      if (answer === undefined)
        return { ...refusedOutcome(plainRefusal("result_not_kept", `The call's id is ${id}.`), quota), receipt };
      return { kind: "result", ...answer, data: answer.data, failure: undefined, receipt, quota };
    }
    default:
      return earlier satisfies never;
  }
}

/**
 * The tenant's configuration and the scopes of the caller's credential, if the caller is valid and the tenant is served.
 * Otherwise the refusal.
 */
function served(
  config: TenantConfig | NotServed,
  host: Pick<AuthorizationHost, "env" | "now" | "scopes">,
  caller: Caller,
): { config: TenantConfig; scopes: readonly string[] } | NotServed {
  if ("refusal" in config) return config;
  const now = host.now();
  // Provisioning calls the tenant before it is active.
  const isSetUp = caller.kind === "canary" && config.state === "provisioning";
  // A closed account has no keys any more: say that it is closed, and not that its key was revoked.
  const isGone = config.state === "gone";
  // Asked once a call: the tenant's object looks a grant's token up.
  const scopes = isGone ? [] : (refusedCredential(config, caller, now) ?? host.scopes(caller));
  const refused = (code: ErrorCode): NotServed => ({
    refusal: stateRefusal(config, code, { publicUrl: host.env.PUBLIC_URL, nowMs: now }),
  });
  if (typeof scopes === "string") return refused(scopes);
  if (!isGone && refusedToolUse(config, caller) !== undefined)
    return { refusal: plainRefusal("role_missing", rolesNeeded("tools:use")) };
  const code = isSetUp ? undefined : refusedByState(config, now);
  return code === undefined ? { config, scopes } : refused(code);
}

/** The Worker has compared the scopes of every other caller: it reads them from the credential. */
function lacksScope(caller: Caller, scopes: readonly string[], tool: Tool): boolean {
  return caller.kind === "grant" && !tool.scopes.every((scope) => scopes.includes(scope));
}

function refusedTool(
  config: TenantConfig,
  { caller, tool }: CallRequest,
  key: ApiKey | undefined,
): Refusal | undefined {
  const allowed = allowedTools(config, caller);
  if (allowed === null || allowed.includes(tool)) return undefined;
  const isAllowed = config.allowedTools === null || config.allowedTools.includes(tool);
  if (key === undefined || !isAllowed) return plainRefusal("tool_not_allowed");
  const names = allowed.length === 0 ? "It may call no tool." : `It may call: ${allowed.join(", ")}.`;
  return plainRefusal("tool_not_in_key", `${names} An administrator of the account can change the key's tools.`);
}
