// The Durable Object of one tenant. It admits the tenant's calls, runs their tools and stores their charges. It is also the
// tenant's lock for plan changes, moves, jobs and the removal. This file has only the RPC methods.
//
// Invariants: a charge is one row, durable before the reply leaves; reservations live in memory only, so an object that
// dies during a call charges nothing. The control tables are the truth about the tenant.
import { DurableObject } from "cloudflare:workers";
import { BackupJobs } from "./backups/backup-jobs.ts";
import type { JobHost } from "./backups/job.ts";
import { plainRefusal } from "./calls/refusal.ts";
import { type CallHost, type NotServed, authorize } from "./calls/run-call.ts";
import { type SendQuestion, TenantCalls } from "./calls/tenant-calls.ts";
import { type Context, createContext, runInRequests } from "./control/context.ts";
import type { ReservedPlacement } from "./control/placements-store.ts";
import type { Step, TenantWork } from "./control/work.ts";
import { TenantConfigCopy } from "./control/tenant-config.ts";
import { type TenantsStore, tenantsStore } from "./control/tenants-store.ts";
import type { Answered, Authorization, CallOutcome, CallRequest, Caller, Progress, QuotaStatus } from "./core/call.ts";
import { AppError, type ErrorCode } from "./core/errors.ts";
import { Mutex } from "./core/concurrency/mutex.ts";
import type { AdmissionLimits } from "./core/plans/plans.ts";
import type { TenantConfig, TenantId } from "./core/tenant/tenant.ts";
import { allows, refusedByState } from "./core/tenant/tenant-state.ts";
import type { FallbackCall } from "./core/usage.ts";
import { countsSignIn, refusedCredential } from "./identity/keys/credential-check.ts";
import type { EntryPage, NewEntry } from "./identity/oauth/entries.ts";
import {
  type GrantPage,
  type PresentedToken,
  type RevokedGrants,
  TenantGrants,
  type ValidToken,
  memberOfSubject,
} from "./identity/oauth/grants.ts";
import type { OauthAnswer, TokenRequest } from "./identity/oauth/server.ts";
import { type CostlyRequest, RequestRate, costlyPerMinute } from "./identity/request-rate.ts";
import { startProvisioning } from "./lifecycle/provisioning.ts";
import { checkTenantRows, seedTenant } from "./lifecycle/tenant-defaults.ts";
import { type RemovalHost, TenantRemoval } from "./lifecycle/tenant-removal.ts";
import { inRequest } from "./log.ts";
import type { RecentCall } from "./metering/metrics/fold.ts";
import { type Allowance, type KeyUsage, TenantUsage } from "./metering/tenant-usage.ts";
import { type MoveHost, TenantMove } from "./moves/tenant-move.ts";
import { NO_USAGE } from "./metering/outbox.ts";
import { applyStripeEvents, syncSubscription } from "./subscriptions/apply-events.ts";
import { TenantPlanChange } from "./subscriptions/plan-change.ts";
import { placeTenant } from "./tenant-db/placement.ts";
import { CurrentRows, TenantData } from "./tenant-db/tenant-data.ts";

export class TenantObject extends DurableObject<Env> {
  readonly #tenantId: TenantId;
  readonly #context: Context;
  readonly #config: TenantConfigCopy;
  readonly #usage: TenantUsage;
  readonly #data: TenantData;
  readonly #rows: CurrentRows;
  readonly #host: CallHost;
  readonly #calls: TenantCalls;
  readonly #planChange: TenantPlanChange;
  readonly #move: TenantMove;
  readonly #jobs: BackupJobs;
  readonly #removal: TenantRemoval;
  readonly #grants: TenantGrants;
  /** Serialises decisions about the subscription: each reads, decides, then writes. */
  readonly #billing = new Mutex();
  /** Serialises the steps of moves, jobs and the removal: no step sees another one's unfinished work. */
  readonly #steps = new Mutex();
  readonly #adminRequests = new RequestRate();
  readonly #costlyRequests: Readonly<Record<CostlyRequest, RequestRate>> = {
    stripePage: new RequestRate(),
    document: new RequestRate(),
  };
  #nextInbox: Promise<void> | undefined;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const tenantId = (this.#tenantId = (ctx.id.name ?? "") as TenantId);
    const context = (this.#context = createContext(env));
    const now = (): number => this.now();
    this.#usage = new TenantUsage(ctx.storage, context, tenantId, now);
    this.#config = new TenantConfigCopy({
      tenantId,
      now,
      read: () => this.#tenants().config(tenantId),
      onRead: (config, stored) => {
        // The emptied object of a tenant that is gone stays empty.
        if (config.state === "gone" && !this.#usage.isOpen) return;
        this.#data.resize(config);
        this.#usage.setSetting("config", stored);
        this.#calls.configChanged();
      },
      waitUntil: (work) => ctx.waitUntil(work),
    });
    const host: MoveHost & JobHost & RemovalHost = {
      withPlacement: () => this.#rows.withPlacement(),
      pause: (withinMs) => this.#data.pause(withinMs),
      resume: () => this.#data.resume(),
      prewarm: (placement) => this.#data.prewarm(placement, this.now()),
      adopt: async () => {
        await this.#config.read();
        await this.#rows.open();
        ctx.waitUntil(this.refresh().catch(() => undefined)); // tells the control tables; the sweep repeats it
      },
      now,
      refresh: () => this.refresh(),
      running: () => this.#usage.admission.inFlight,
      flush: async (nowMs) => (await this.#usage.flush(nowMs)) ?? NO_USAGE,
      disconnect: () => this.#data.close(),
      forget: async () => {
        if ((await this.#config.read())?.state !== "gone") throw new AppError("conflict", "the tenant is not gone");
        await this.#usage.forget();
        this.#grants.forget();
      },
    };
    this.#host = {
      env,
      now,
      // The usual call finds a fresh copy and waits for nothing.
      tenant: () => this.#config.fresh() ?? this.#currentConfig(),
      scopes: (caller) => {
        if (caller.kind !== "grant") return caller.scopes;
        const token = this.#validToken(caller);
        if (token === undefined) return "token_invalid";
        this.#grants.noteUse(caller);
        return token.scopes;
      },
      refuse: () => undefined,
      rows: (config) => this.#rows.of(config),
      usage: () => this.#usage.open(),
      finished: (call) => this.#usage.finished(call),
    };
    this.#calls = new TenantCalls(this.#host);
    this.#move = new TenantMove(context, tenantId, host);
    this.#planChange = new TenantPlanChange(context, tenantId, this.#billing, {
      ...host,
      gate: this.#calls.gate,
      spentAt: (nowMs) => this.#config.latest && this.#usage.spentAt(this.#config.latest, nowMs),
    });
    this.#jobs = new BackupJobs(context, tenantId, host);
    this.#removal = new TenantRemoval(context, tenantId, host);
    this.#data = new TenantData(context, tenantId, (left) => this.#move.recover(left));
    this.#rows = new CurrentRows(this.#data, this.#config, now);
    this.#grants = new TenantGrants({
      tenantId,
      sql: ctx.storage.sql,
      site: env,
      credentialKey: env.CREDENTIAL_KEY,
      registry: (name) => context.oauthRegistry(name),
      isMember: (memberId, signedInAtMs) => this.#hasMember(memberId, signedInAtMs),
      now,
    });
    const stored = this.#usage.setting("config");
    if (stored !== undefined) this.#config.restore(stored);
    if (this.#config.latest !== undefined) this.#data.resize(this.#config.latest);
  }

  #tenants(): TenantsStore {
    return tenantsStore(this.#context.control);
  }

  /** What the token is good for, if the sign-in that it rests on still counts. */
  #validToken(token: PresentedToken): ValidToken | undefined {
    const found = this.#grants.find(token);
    const member = this.#config.latest?.members.find(({ id }) => id === memberOfSubject(token.subject));
    return found !== undefined && countsSignIn(member, found.createdAtMs) ? found : undefined;
  }

  /** Whether the tenant exists and has this member, whose sign-ins of this instant count. Throws when that is not known. */
  async #hasMember(memberId: string, signedInAtMs: number): Promise<boolean> {
    const config = await this.#config.current();
    if (config === "control_unavailable") throw new AppError(config);
    if (typeof config === "string" || config.state === "gone") return false;
    const member = config.members.find(({ id }) => id === memberId);
    return member !== undefined && countsSignIn(member, signedInAtMs);
  }

  async #currentConfig(): Promise<TenantConfig | NotServed> {
    const config = await this.#config.current();
    return typeof config === "string" ? { refusal: plainRefusal(config) } : config;
  }

  /** The clock of every decision of this object. */
  protected now(): number {
    return Date.now();
  }

  /** Decides whether this caller may use the server. Asked once for every MCP method that calls no tool. */
  authorize(caller: Caller): Promise<Authorization> {
    return authorize(this.#host, caller);
  }

  /** Runs a tool. Refusals and failed tools are values; a throw is an outage. */
  call(
    request: CallRequest,
    progress?: (progress: Progress) => Promise<void>,
    sendQuestion?: SendQuestion,
  ): Promise<CallOutcome> {
    const run = () => this.#calls.run(request, progress, sendQuestion);
    return inRequest(request.requestId, run, { traceId: request.traceId });
  }

  /** A person's answer to a question that a running call has sent. Returns whether the call waits for it. */
  answerQuestion(caller: Caller, questionId: string, answered: Answered): boolean {
    return this.#calls.answer(caller, questionId, answered);
  }

  /** Stops a call whose client has gone. The call is then not charged. */
  cancel(callId: string): void {
    this.#calls.cancel(callId);
  }

  /** Reads the tenant's configuration again. Returns its version: a change is done once its version is in force here. */
  async refresh(): Promise<number | undefined> {
    const config = await this.#config.refresh();
    if (config === undefined) return undefined;
    if (config.placement !== null) await this.#data.reencryptLogin(config.placement);
    await this.#tenants().delivered(this.#tenantId, config.version);
    return config.version;
  }

  /** The ledger has this object's rows up to `watermark`. A watermark of another epoch changes nothing. */
  acknowledge(epoch: string, watermark: number): void {
    this.#usage.acknowledge(epoch, watermark);
  }

  /** The control tables have this object's folds of metrics up to `n`. */
  acknowledgeMetrics(epoch: string, n: number): void {
    this.#usage.acknowledgeMetrics(epoch, n);
  }

  /** The use of these limits, which are the tenant's as the caller has just read them. */
  quota(limits: AdmissionLimits): QuotaStatus {
    return this.#usage.admission.quota(limits, this.now());
  }

  /** The tenant's last calls, also those that failed or were refused. */
  recentCalls(): RecentCall[] {
    return this.#usage.recentCalls();
  }

  /** Counts calls that were charged without this object, once each. One that still runs here is stopped, not charged again. */
  countFallbackCalls(calls: readonly FallbackCall[]): void {
    for (const { callId } of calls) this.#calls.stop(callId);
    this.#usage.countFallbackCalls(calls);
  }

  /**
   * Admits a request of the tenant's admin and returns 0, or returns after how many milliseconds one is admitted. Requests of
   * an expensive kind have a lower limit besides.
   */
  admitAdmin(request: { costly: CostlyRequest | undefined; perMinute: number; keyId: string | undefined }): number {
    const { costly, perMinute, keyId } = request;
    if (keyId !== undefined) this.#usage.keyUsed(keyId, this.now());
    const waitMs = costly === undefined ? 0 : this.#costlyRequests[costly].admit(costlyPerMinute[costly], this.now());
    return waitMs > 0 ? waitMs : this.#adminRequests.admit(perMinute, this.now());
  }

  /** What the tenant's API keys have used, for the list of keys. */
  keyUsage(): KeyUsage {
    return this.#usage.keyUsage(this.now());
  }

  /** What the tenant has used of its month and of its spend cap, running calls included. */
  async allowance(): Promise<Allowance> {
    const config = await this.#config.current();
    if (typeof config === "string") throw new AppError(config);
    return this.#usage.allowance(config, this.now());
  }

  /** Applies the tenant's waiting Stripe events in turn. */
  applyInbox(): Promise<void> {
    // A run that has not begun yet will find this event, too.
    return (this.#nextInbox ??= this.#billing.run(async () => {
      this.#nextInbox = undefined;
      // Also covers a change of an earlier attempt that died before its refresh.
      if ((await applyStripeEvents(this.#context, this.#tenantId)).isUndelivered) await this.refresh();
    }));
  }

  /** Reads the tenant's subscription at Stripe and applies it, without waiting for an event. */
  followSubscription(): Promise<void> {
    return this.#billing.run(async () => {
      await syncSubscription(this.#context, this.#tenantId);
      if (await this.#tenants().isUndelivered(this.#tenantId)) await this.refresh();
    });
  }

  /** Lets a paused subscription run again, and applies the outcome. `collection`: also ends a pause of the collection. */
  resumeSubscription(options: { collection: boolean }): Promise<void> {
    return this.#billing.run(async () => {
      const { subscriptionId } = (await this.#tenants().facts(this.#tenantId)) ?? { subscriptionId: null };
      if (subscriptionId !== null) await this.#context.stripe.subscriptions.resume(subscriptionId, options);
      await syncSubscription(this.#context, this.#tenantId);
      if (await this.#tenants().isUndelivered(this.#tenantId)) await this.refresh();
    });
  }

  /** Does the next step of the tenant's work. A step that fails throws; the Workflow repeats it. */
  advance(work: TenantWork): Promise<Step> {
    switch (work.kind) {
      case "move":
        return this.#steps.run(() => this.#move.advance());
      case "removal":
        return this.#steps.run(() => this.#removal.advance());
      case "job":
        return this.#steps.run(() => this.#jobs.advance(work.jobId));
      case "plan_change":
        return this.#planChange.advance();
      default:
        return work satisfies never;
    }
  }

  /** Does steps of the open plan change while the HTTP request may wait, then leaves the rest to a Workflow. */
  changePlan(): Promise<void> {
    return this.#planChange.advanceWithinRequest();
  }

  /** Cancels the open plan change. Returns false when it has taken effect already. */
  cancelPlanChange(): Promise<boolean> {
    return this.#planChange.cancel();
  }

  /** Starts an attempt to provision the tenant, unless one is alive or none is needed. */
  async provision(): Promise<boolean> {
    return startProvisioning(this.#context, this.#tenantId);
  }

  /** Prepares the tenant's rows for its first call: makes the placement, proves its isolation, and seeds the rows. */
  async prepareRows(reserved: ReservedPlacement): Promise<void> {
    await placeTenant(this.#context, this.#tenantId, reserved);
    // Activation tells the control tables.
    if ((await this.#config.refresh()) === undefined) throw new AppError("tenant_unknown");
    const rows = await this.#rows.open();
    await seedTenant(rows);
    // The buyer does not wait for it.
    this.ctx.waitUntil(this.#data.prewarmSession());
  }

  /** Checks the tenant's access to its rows. Returns the fault in Tollgate's words; `undefined`: there is none. */
  async checkRows(): Promise<string | undefined> {
    return checkTenantRows(await this.#rows.open(), this.#tenantId);
  }

  /** Ends the tenant's move: confirms it, or undoes it. Undoing may leave steps to do. */
  endMove(how: "confirm" | "undo"): Promise<Step> {
    return this.#steps.run(() => this.#move[how]());
  }

  /** Reactivates a tenant that leaves. `again`: the sweep repeats a request. Returns why it cannot be, or `undefined`. */
  reactivate(options: { again: boolean }): Promise<ErrorCode | undefined> {
    // Stripe's events about the new subscription wait until the tenant has it.
    return this.#steps.run(() => this.#billing.run(() => this.#removal.reactivate(options)));
  }

  /** The tenant's rows and documents, for a key of the tenant or (`null`) for the operator; otherwise the code of the refusal. `export_runs`: another export of the tenant is not finished. */
  async export(caller: Caller | null): Promise<ReadableStream<Uint8Array> | ErrorCode | "export_runs"> {
    const config = await this.#config.current();
    if (typeof config === "string") return config;
    const refused = caller === null ? undefined : refusedCredential(config, caller, this.now());
    if (refused !== undefined) return refused;
    // A tenant that is being set up has no rows yet, and one that is gone has none any more.
    if (!allows(config, "export", this.now())) return refusedByState(config, this.now()) ?? "conflict";
    return this.#jobs.stream();
  }

  /** Answers the OAuth server's token or revocation endpoint for a member of this tenant. */
  oauthToken(request: TokenRequest): Promise<OauthAnswer> {
    return this.#grants.answerToken(request);
  }

  /** An entry of the OAuth server for this tenant, or `null`. The Worker's side of a sign-in reads and writes them. */
  oauthGet(key: string): Promise<string | null> {
    return this.#grants.get(key);
  }

  oauthPut(key: string, entry: NewEntry): Promise<void> {
    return this.#grants.put(key, entry);
  }

  oauthDelete(key: string): Promise<void> {
    return this.#grants.delete(key);
  }

  oauthList(prefix: string, options: { limit: number; cursor?: string | undefined }): Promise<EntryPage> {
    return this.#grants.list(prefix, options);
  }

  /**
   * What a client's access token is good for now; `undefined` when it is revoked, expired or for another resource. For routes of
   * the account: a call checks its token itself.
   */
  findGrant(token: PresentedToken): ValidToken | undefined {
    const found = this.#validToken(token);
    if (found !== undefined) this.#grants.noteUse(token);
    return found;
  }

  /** A page of the grants that the tenant's members have given to clients; `undefined` when `after` names no grant. */
  listGrants(options: { limit: number; after?: string | undefined }): Promise<GrantPage | undefined> {
    return this.#grants.grants(options);
  }

  /** Revokes a grant, or all of some members. Returns how many there were. Their tokens are refused on the next request. */
  revokeGrants(which: RevokedGrants): Promise<number> {
    return this.#grants.revoke(which);
  }

  /** Closes idle sessions: other tenants wait for one from the session budget. */
  yieldSessions(): void {
    this.#data.yieldSessions();
  }

  /** Shows that the object and its storage answer. /health calls it on an object of no tenant. */
  probe(): { rows: number } {
    return { rows: this.ctx.storage.sql.exec(`SELECT count(*) AS rows FROM sqlite_master`).toArray().length };
  }

  override async alarm(): Promise<void> {
    await this.#usage.alarm();
  }
}

runInRequests(TenantObject.prototype);
