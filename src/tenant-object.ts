// One object per tenant: it admits the tenant's calls, runs their tools and keeps what they cost.
//
// The order of checks is key or token, state, tool, then the limits; the decision is synchronous and in memory. Holds
// live in memory alone, so an object that dies in the middle of a call charges nothing. A charge is one row, durable
// before the reply leaves. The control tables are the truth about the tenant: the copy here is told of every change
// and asks again by itself before it is `CONFIG_TRUSTED_MS` old.
import { DurableObject } from "cloudflare:workers";
import * as z from "zod";
import { type ControlTenants, tenantsOf } from "./control/tenants-store.ts";
import type { CallScopedDb } from "./tenant-db/tenant-db.ts";
import { type ToolRun, runTool, toolContext } from "./calls/tool-runner.ts";
import { Admission, type Ticket } from "./calls/admission.ts";
import type { Authorization, CallOutcome, CallRequest, Caller, Progress, Refusal } from "./core/call.ts";
import { allowedTools, refusedTool } from "./calls/call-checks.ts";
import { refusedCredential } from "./identity/credential-check.ts";
import { AppError, type ErrorCode } from "./core/errors.ts";
import { limitRefusal, plainRefusal, refusedOutcome } from "./calls/refusal.ts";
import { wayBack } from "./lifecycle/removal.ts";
import { CONFIG_REFRESH_MS, CONFIG_TRUSTED_MS, TenantConfig, type TenantId, refusedByState } from "./core/tenant.ts";
import type { FallbackCall } from "./core/usage.ts";
import { describeError, log } from "./log.ts";
import { catalogue } from "./tools/catalogue.ts";
import { applyBillingEvents } from "./subscriptions/apply-events.ts";
import { PauseGate } from "./core/pause-gate.ts";
import { type CallLog, hasCallLog, openCallLog, spendCanary } from "./metering/call-log.ts";
import { NO_USAGE } from "./reports/drain.ts";
import { startMoving } from "./moves/workflow.ts";
import { placeTenant } from "./tenant-db/placement.ts";
import { startProvisioning } from "./lifecycle/provisioning-start.ts";
import type { ArchiveHost } from "./backups/job.ts";
import { TenantPlan } from "./subscriptions/plan-change.ts";
import { TenantArchive } from "./backups/tenant-jobs.ts";
import { TenantData } from "./tenant-db/tenant-data.ts";
import { checkTenantRows, seedTenant } from "./lifecycle/tenant-defaults.ts";
import { type MoveHost, type Piece, TenantMove } from "./moves/tenant-move.ts";
import { type RemovalHost, TenantRemoval } from "./lifecycle/tenant-removal.ts";
import { Mutex } from "./core/mutex.ts";
import { UsageOutbox } from "./metering/usage-outbox.ts";

const KeptConfig = z.object({ value: TenantConfig, readAtMs: z.number() });

export class TenantObject extends DurableObject<Env> {
  readonly #tenantId: TenantId;
  readonly #admission = new Admission();
  readonly #data: TenantData;
  readonly #move: TenantMove;
  readonly #archive: TenantArchive;
  readonly #removal: TenantRemoval;
  readonly #running = new Map<string, { abort: AbortController; outcome: Promise<CallOutcome> }>();
  #config: { value: TenantConfig; readAtMs: number } | undefined;
  #refreshing: Promise<void> | undefined;
  readonly #gate = new PauseGate();
  readonly #plan: TenantPlan;
  /** What billing decides of the tenant: one after the other, because each decides from what it has read. */
  readonly #billing = new Mutex();
  #nextInbox: Promise<void> | undefined;
  /** Pieces of moves, jobs and the removal: none may find another's work half done. */
  readonly #pieces = new Mutex();
  #log: CallLog | undefined;
  #outbox: UsageOutbox | undefined;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#tenantId = (ctx.id.name ?? "") as TenantId;
    const host: MoveHost & ArchiveHost & RemovalHost = {
      place: () => this.#place(),
      pause: (withinMs) => this.#data.pause(withinMs),
      resume: () => this.#data.resume(),
      expect: (placement) => this.#data.expect(placement, this.now()),
      adopt: async () => {
        await this.#readConfig();
        await this.#rowsOrThrow();
        ctx.waitUntil(this.refresh().catch(() => undefined)); // tells the control tables; the sweep sees to it otherwise
      },
      now: () => this.now(),
      refresh: () => this.refresh(),
      running: () => this.#admission.inFlight,
      flush: async (nowMs) => (await this.#outbox?.flush(nowMs)) ?? NO_USAGE,
      disconnect: () => this.#data.close(),
      forget: () => this.#forget(),
    };
    this.#move = new TenantMove(env, this.#tenantId, host);
    this.#plan = new TenantPlan(env, this.#tenantId, this.#billing, { ...host, gate: this.#gate });
    this.#archive = new TenantArchive(env, this.#tenantId, host);
    this.#removal = new TenantRemoval(env, this.#tenantId, host);
    this.#data = new TenantData(env, this.#tenantId, (left) => this.#move.heal(left));
    if (hasCallLog(ctx.storage)) this.#open();
  }

  /** The clock of every decision here. */
  protected now(): number {
    return Date.now();
  }

  /** Whether this caller may use the server at all; asked once for every MCP method that calls no tool. */
  async authorize(caller: Caller): Promise<Authorization> {
    const known = this.#freshConfig() ?? (await this.#currentConfig());
    if ("refusal" in known) return { kind: "refused", refusal: known.refusal };
    const refusal = this.#refusedCaller(known, caller);
    if (refusal !== undefined) return { kind: "refused", refusal };
    return { kind: "authorized", allowedTools: allowedTools(known, caller) };
  }

  /** Admits a call, runs its tool and settles it. Expected refusals and failures are values; a throw is an outage. */
  call(request: CallRequest, progress?: (progress: Progress) => Promise<void>): Promise<CallOutcome> {
    // A second attempt finds the first still running when only its answer was lost: one call runs and is charged once.
    const running = this.#running.get(request.callId);
    if (running !== undefined) return running.outcome;
    const abort = new AbortController();
    const outcome = this.#gate
      .run(() => this.#call(request, abort, progress))
      .finally(() => this.#running.delete(request.callId));
    this.#running.set(request.callId, { abort, outcome });
    return outcome;
  }

  async #call(
    request: CallRequest,
    abort: AbortController,
    progress: ((progress: Progress) => Promise<void>) | undefined,
  ): Promise<CallOutcome> {
    // Awaited only when there is something to wait for: the decision itself is synchronous.
    const config = this.#freshConfig() ?? (await this.#currentConfig());
    if ("refusal" in config) return refusedOutcome(config.refusal);
    const refusal = this.#refusedCaller(config, request.caller) ?? refusedTool(config, request);
    const tool = catalogue.get(request.tool);
    if (refusal !== undefined || tool === undefined) return refusedOutcome(refusal ?? plainRefusal("tool_unknown"));
    const db = this.#data.atHand(config.placement, this.now()) ?? (await this.#openRows(config));
    if (typeof db === "string") return refusedOutcome(plainRefusal(db));
    const rows = this.#open();
    if (request.caller.kind === "canary" && !spendCanary(rows, request.caller)) {
      return refusedOutcome(plainRefusal("token_invalid"));
    }
    // The answer to a call that was charged is lost: it is run again for the answer alone.
    const alreadyCharged = request.attempt === 2 && rows.has(request.callId);
    const now = this.now();
    let ticket: Ticket | undefined;
    // Provisioning's own call takes nothing of what the customer has bought.
    if (!alreadyCharged && request.caller.kind !== "canary") {
      if (Object.hasOwn(config.limits.unitsPerHourByTool, tool.name)) {
        this.#admission.watch(tool.name, () => rows.recent(now, tool.name), now);
      }
      const decision = this.#admission.decide(tool.units, config.limits, now, tool.name);
      if (!decision.admitted) {
        const refused = limitRefusal(tool.name, decision, `${this.env.PUBLIC_URL}/plans`);
        return refusedOutcome(refused, this.#admission.quota(config.limits, now));
      }
      ({ ticket } = decision);
    }
    let run: ToolRun;
    try {
      const context = toolContext(this.env.FILES, config, request, {
        db: db.forCall(abort.signal),
        usage: () => this.#admission.quota(config.limits, this.now()),
        history: () => rows.history(this.now()),
      });
      run = await runTool(tool, request.args, context, { abort, progress });
      if (run.charged && ticket !== undefined) {
        if (tool.units > 0) {
          rows.append({ callId: request.callId, atMs: ticket.atMs, tool: tool.name, units: tool.units });
          this.#outbox?.rowAppended();
        }
        this.#admission.settle(ticket);
      }
    } finally {
      if (ticket !== undefined) this.#admission.release(ticket); // does nothing to a call that was settled
    }
    const { charged, ...answer } = run;
    const hasRow = alreadyCharged || (charged && ticket !== undefined && tool.units > 0);
    const receipt = hasRow ? { id: request.callId, units: tool.units } : undefined;
    if (alreadyCharged && !charged) return { ...refusedOutcome(lostAnswer(request.callId)), receipt };
    const quota = this.#admission.quota(config.limits, this.now());
    return { kind: "result", ...answer, receipt, quota };
  }

  /** The client has gone: its call is stopped, and then is not charged. */
  cancel(callId: string): void {
    this.#running.get(callId)?.abort.abort("cancelled");
  }

  /** Reads the tenant again. Returns the version in force, which is what a change must wait for before it is done. */
  async refresh(): Promise<number | undefined> {
    // A read that is under way may have started before the change that this is called for.
    await this.#refreshing?.catch(() => undefined);
    const config = await this.#readConfig();
    if (config === undefined) return undefined;
    if (config.placement !== null) await this.#data.reencryptLogin(config.placement);
    await this.#tenants().delivered(this.#tenantId, config.version);
    return config.version;
  }

  /** Takes the ledger's watermark over. One of another epoch is of a sequence that this object no longer writes. */
  acknowledge(epoch: string, watermark: number): void {
    this.#outbox?.acknowledge(epoch, watermark, this.now());
  }

  /**
   * Counts calls that were charged while this object could not be reached. Told again, it changes nothing. One that still
   * runs here has been answered there: it is stopped, and then is not charged again.
   */
  countFallbackCalls(calls: readonly FallbackCall[]): void {
    for (const { callId } of calls) this.cancel(callId);
    this.#admission.include(this.#open().countFallbackCalls(calls), this.now());
  }

  /** Applies the tenant's waiting Stripe events, one after the other: this object is the tenant's lock. */
  applyInbox(): Promise<void> {
    // One that has not begun yet will find this event, too.
    return (this.#nextInbox ??= this.#billing.run(async () => {
      this.#nextInbox = undefined;
      await applyBillingEvents(this.env, this.#tenantId);
      // Also what an earlier attempt has changed and could not tell.
      if (await this.#tenants().isUndelivered(this.#tenantId)) await this.refresh();
    }));
  }

  /** Goes on with the tenant's change of plan, for a piece or for as long as somebody may wait, or takes it back. */
  planOn(what: "advance" | "advanceForAMoment" | "cancel"): Promise<Piece> {
    return this.#plan[what]();
  }

  /** Sets the tenant up, unless that is going on or done. */
  async provision(): Promise<boolean> {
    return startProvisioning(this.env, this.#tenantId);
  }

  /** Makes the tenant's rows ready for its first call: a place for them, proved to be its own, and what it starts with. */
  async prepareRows(): Promise<void> {
    const tenant = await this.#tenants().summary(this.#tenantId);
    if (tenant === undefined) throw new AppError("tenant_unknown");
    await placeTenant(this.env, this.#tenantId, tenant);
    await this.refresh();
    const rows = await this.#rowsOrThrow();
    await this.#data.warm();
    await seedTenant(rows);
  }

  /** Whether the tenant's own way to its rows works. Returns what is wrong in our words, or nothing. */
  async checkRows(): Promise<string | undefined> {
    return checkTenantRows(await this.#rowsOrThrow(), this.#tenantId);
  }

  /** Has the tenant's open move gone on with. */
  startMove(): Promise<void> {
    return startMoving(this.env, this.#tenantId);
  }

  /** Does the next piece of the tenant's move, or ends the move. */
  moveOn(what: "advance" | "confirm" | "undo"): Promise<Piece> {
    return this.#pieces.run(() => this.#move[what]());
  }

  /** Does the next piece of a backup, a restore or an import. */
  jobOn(jobId: number): Promise<Piece> {
    return this.#pieces.run(() => this.#archive.advance(jobId));
  }

  /** Does the next piece of the tenant's removal. */
  removeOn(): Promise<Piece> {
    return this.#pieces.run(() => this.#removal.advance());
  }

  /** Takes a tenant that leaves back. Returns why not, or nothing. */
  reactivate(): Promise<ErrorCode | undefined> {
    // Stripe's events about the new subscription wait until the tenant has it.
    return this.#pieces.run(() => this.#billing.run(() => this.#removal.comeBack()));
  }

  /** The tenant's rows and documents, for a key of its own or, without one, for the operator; or why not. */
  async export(caller: Caller | null): Promise<ReadableStream<Uint8Array> | ErrorCode> {
    const config = this.#freshConfig() ?? (await this.#currentConfig());
    if ("refusal" in config) return config.refusal.code;
    const refused = caller === null ? undefined : refusedCredential(config, caller, this.now());
    return refused ?? (config.state === "gone" ? "tenant_gone" : this.#archive.stream());
  }

  /** Others wait for a session of the fleet's: idle ones are closed. */
  yieldSessions(): void {
    this.#data.yieldSessions();
  }

  /** Whether objects answer and their storage does; for the health page, which asks an object of no tenant. */
  probe(): { rows: number } {
    return { rows: this.ctx.storage.sql.exec(`SELECT count(*) AS rows FROM sqlite_master`).toArray().length };
  }

  override async alarm(): Promise<void> {
    await this.#outbox?.alarm();
  }

  // ---- the tenant as the control tables have it

  #freshConfig(): TenantConfig | undefined {
    if (this.#config === undefined) return undefined;
    const age = this.now() - this.#config.readAtMs;
    if (age >= CONFIG_TRUSTED_MS) return undefined;
    if (age >= CONFIG_REFRESH_MS) this.ctx.waitUntil(this.#refreshOnce().catch(() => undefined));
    return this.#config.value;
  }

  /** The trusted copy, read anew when it is too old, or why there is none. */
  async #currentConfig(): Promise<TenantConfig | { refusal: Refusal }> {
    try {
      await this.#refreshOnce();
    } catch (error) {
      log("error", "config_not_read", { tenantId: this.#tenantId, error: describeError(error) });
      return { refusal: plainRefusal("control_unavailable") };
    }
    return this.#freshConfig() ?? { refusal: plainRefusal("tenant_unknown") };
  }

  #refreshOnce(): Promise<void> {
    this.#refreshing ??= this.#readConfig()
      .then(() => undefined)
      .finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  async #readConfig(): Promise<TenantConfig | undefined> {
    const askedAtMs = this.now();
    const read = await this.#tenants().config(this.#tenantId);
    if (read === undefined) return undefined;
    const known = this.#config;
    // Which was asked for later decides, not the version: after a restore of the control tables versions go back.
    if (known !== undefined && known.readAtMs > askedAtMs) return known.value;
    this.#config = { value: read, readAtMs: askedAtMs };
    // An object that was emptied stays empty, whoever asks it.
    if (read.state === "gone" && this.#log === undefined) return read;
    this.#data.resize(read.limits);
    this.#open().setSetting("config", JSON.stringify(this.#config));
    return read;
  }

  #tenants(): ControlTenants {
    return tenantsOf(this.env);
  }

  // ---- the checks before admission

  #refusedCaller(config: TenantConfig, caller: Caller): Refusal | undefined {
    const now = this.now();
    const settingUp = caller.kind === "canary" && config.state === "provisioning";
    const code = refusedCredential(config, caller, now) ?? (settingUp ? undefined : refusedByState(config, now));
    if (code !== "tenant_leaving") return code === undefined ? undefined : plainRefusal(code);
    return plainRefusal(code, wayBack(this.#tenantId, config.leavingUntilMs, this.env.PUBLIC_URL));
  }

  /** The tenant's rows, proved to be nobody else's, or why they cannot be had. */
  async #openRows({ placement }: TenantConfig): Promise<CallScopedDb | ErrorCode> {
    return placement === null ? "tenant_provisioning" : this.#data.open(placement, this.now());
  }

  /** Where the rows are, and the rows, when it was proved lately that nobody else gets at them. */
  async #place(): ReturnType<ArchiveHost["place"]> {
    const known = this.#data.atHand(this.#freshConfig()?.placement ?? null, this.now());
    const rows = known ?? (await this.#rowsOrThrow());
    const placement = this.#config?.value.placement ?? null;
    if (placement === null) throw new AppError("tenant_provisioning");
    return { placement, rows };
  }

  async #rowsOrThrow(): Promise<CallScopedDb> {
    const config = this.#freshConfig() ?? (await this.#currentConfig());
    if ("refusal" in config) throw new AppError(config.refusal.code);
    const db = await this.#openRows(config);
    if (typeof db === "string") throw new AppError(db);
    return db;
  }

  // ---- rows and outbox

  #open(): CallLog {
    if (this.#log === undefined) {
      const now = this.now();
      const rows = openCallLog(this.ctx.storage, crypto.randomUUID());
      this.#admission.restore(rows.recent(now), rows.monthUsed(now), now);
      // A copy that an earlier version of this program kept may lack what this one asks for.
      const kept = rows.setting("config");
      if (kept !== undefined) this.#config = KeptConfig.safeParse(JSON.parse(kept)).data;
      if (this.#config !== undefined) this.#data.resize(this.#config.value.limits);
      this.#log = rows;
      this.#outbox = new UsageOutbox(this.ctx.storage, this.env, this.#tenantId, rows);
    }
    return this.#log;
  }

  /** Deletes all that is stored here, the alarm included. */
  async #forget(): Promise<void> {
    if ((await this.#readConfig())?.state !== "gone") throw new AppError("conflict", "the tenant is not gone");
    const rows = hasCallLog(this.ctx.storage) ? this.#open() : undefined;
    if (rows !== undefined && rows.lastN > rows.acknowledged)
      throw new AppError("conflict", "the ledger does not have all charges yet");
    this.#log = this.#outbox = undefined;
    await this.ctx.storage.deleteAll();
  }
}

function lostAnswer(callId: string): Refusal {
  return plainRefusal("outcome_unknown", `It was charged, and its answer was lost. The call's id is ${callId}.`);
}
