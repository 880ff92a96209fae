// The usage of one tenant's object: the rows that charge calls, the windows that admit them, and the outbox that sends the
// rows to the ledger. Nothing is stored before the first use, so that a mistaken request leaves no storage behind.
import { newId } from "../adapters/ids.ts";
import { Admission } from "../calls/admission.ts";
import { KeyedCalls } from "../calls/keyed-calls.ts";
import type { CallUsage } from "../calls/run-call.ts";
import type { Context } from "../control/context.ts";
import { AppError } from "../core/errors.ts";
import type { FinishedCall } from "../core/call.ts";
import { inCents, spentBefore, spentIn } from "../core/plans/money.ts";
import type { TenantConfig, TenantId } from "../core/tenant/tenant.ts";
import type { Charge, ChargedCall, FallbackCall } from "../core/usage.ts";
import { type CallLog, KeyUses, hasCallLog, openCallLog, spendCanary } from "./call-log.ts";
import type { RecentCall } from "./metrics/fold.ts";
import { TenantMetrics } from "./metrics/tenant-metrics.ts";
import { UsageOutbox } from "./outbox.ts";

interface Opened {
  rows: CallLog;
  outbox: UsageOutbox;
  keyUses: KeyUses;
  metrics: TenantMetrics;
}

/** What a tenant's API keys have used: the last use of each key, and the units of this calendar month (UTC) by line. */
export interface KeyUsage {
  lastUses: { keyId: string; atMs: number }[];
  units: { lineId: string; units: number }[];
}

export interface Allowance {
  monthUnits: number;
  spendUnits: number;
}

/** The setting that holds the metrics that the control tables do not have yet, and the last calls. */
const METRICS = "metrics";

export class TenantUsage implements CallUsage {
  readonly admission = new Admission();
  readonly keyed: KeyedCalls;
  readonly #storage: DurableObjectStorage;
  readonly #context: Context;
  readonly #tenantId: TenantId;
  readonly #now: () => number;
  #opened: Opened | undefined;

  constructor(storage: DurableObjectStorage, context: Context, tenantId: TenantId, now: () => number) {
    this.#storage = storage;
    this.keyed = new KeyedCalls(storage.sql);
    this.#context = context;
    this.#tenantId = tenantId;
    this.#now = now;
    if (hasCallLog(storage)) this.#open();
  }

  /** Whether anything is stored. */
  get isOpen(): boolean {
    return this.#opened !== undefined;
  }

  /** Makes `admission` count the stored charges, creating the tables on first use. Call it before each decision. */
  open(): CallUsage {
    this.#open();
    return this;
  }

  chargeOf(callId: string): ChargedCall | undefined {
    return this.#forCall.rows.find(callId);
  }

  fallbackCharges(callIds: readonly string[]): ChargedCall[] {
    return this.#forCall.rows.fallbackCalls(callIds);
  }

  spendCanary(canary: { expiresAtMs: number }): boolean {
    return spendCanary(this.#forCall.rows, canary);
  }

  keyUsed(keyId: string, nowMs: number): void {
    this.#opened?.keyUses.note(keyId, nowMs);
  }

  keyUsage(nowMs: number): KeyUsage {
    if (this.#opened === undefined) return { lastUses: [], units: [] };
    return { lastUses: this.#opened.keyUses.all(), units: this.admission.usedByLine(nowMs) };
  }

  usedSince(startMs: number, nowMs: number): number {
    return this.#forCall.rows.usedSince(startMs, nowMs);
  }

  /**
   * What the plan in force has cost in the billing period, for the plan that replaces it now: until when its calls count, and the
   * price of its units beyond the included ones. Running calls count under the next plan.
   */
  spentAt(config: TenantConfig, nowMs: number): { sinceMs: number; spentCents: string } {
    const { admission } = this.open();
    const window = admission.spendOf(config, nowMs, (startMs, atMs) => this.usedSince(startMs, atMs));
    const { held } = admission;
    const sinceMs = Math.min(nowMs, ...held.map(({ atMs }) => atMs));
    if (window === undefined) return { sinceMs, spentCents: spentBefore(config, nowMs) };
    const running = held.reduce((sum, { atMs, units }) => sum + (atMs >= window.startMs ? units : 0), 0);
    return { sinceMs, spentCents: inCents(spentIn(window, admission.spendUsed - running)) };
  }

  /** What the tenant has used of its limits. `spendUnits`: in the billing period, for a plan with a price per unit. */
  allowance(config: TenantConfig, nowMs: number): Allowance {
    if (this.#opened === undefined) return { monthUnits: 0, spendUnits: 0 };
    const { admission } = this;
    admission.spendOf(config, nowMs, (startMs, atMs) => this.usedSince(startMs, atMs));
    return { monthUnits: admission.quota(config.limits, nowMs).month.used, spendUnits: admission.spendUsed };
  }

  recent(nowMs: number, tool: string): { atMs: number; units: number }[] {
    return this.#forCall.rows.recent(nowMs, tool);
  }

  history(nowMs: number): { tool: string; calls: number; units: number }[] {
    return this.#forCall.rows.history(nowMs);
  }

  /** Writes one row, synchronously. The output gate holds the call's reply back until the row is durable. */
  charge(charge: Charge, line: string | undefined): undefined {
    const { rows, outbox } = this.#forCall;
    rows.append(charge, line);
    outbox.rowAppended();
  }

  /** Counts fallback calls. Repeating it counts nothing twice. */
  countFallbackCalls(calls: readonly FallbackCall[]): void {
    const { rows, metrics } = this.#open();
    const counted = rows.countFallbackCalls(calls);
    this.admission.include(counted, this.#now());
    metrics.addFallbackCalls(counted);
  }

  /** Counts a call that has ended in the tenant's metrics. A call that ended before the first use is not counted. */
  finished(call: FinishedCall): void {
    this.#opened?.metrics.add(call);
  }

  /** The control tables have the folds of metrics up to `n`. */
  acknowledgeMetrics(epoch: string, n: number): void {
    this.#opened?.metrics.acknowledge(epoch, n);
  }

  /** The last calls, also those that failed or were refused. */
  recentCalls(): RecentCall[] {
    return this.#opened?.metrics.recent() ?? [];
  }

  /** Applies the ledger's watermark: it has this object's rows up to there. */
  acknowledge(epoch: string, watermark: number): void {
    this.#opened?.outbox.acknowledge(epoch, watermark, this.#now());
  }

  /** Writes missing rows to the ledger without the queue. Returns `undefined` if the object has charged nothing. */
  async flush(nowMs: number): Promise<Awaited<ReturnType<UsageOutbox["flush"]>> | undefined> {
    return this.#opened?.outbox.flush(nowMs);
  }

  async alarm(): Promise<void> {
    await this.#opened?.outbox.alarm();
    await this.#opened?.metrics.run();
  }

  setting(name: string): string | undefined {
    return this.#opened?.rows.setting(name);
  }

  setSetting(name: string, value: string): void {
    this.#open().rows.setSetting(name, value);
  }

  /** Deletes everything that the object has stored, including its alarm. Refused until all its charges are in the ledger. */
  async forget(): Promise<void> {
    const rows = this.#opened?.rows;
    if (rows !== undefined && rows.lastN > rows.acknowledged) {
      throw new AppError("conflict", "the ledger does not have all charges yet");
    }
    this.#opened = undefined;
    await this.#storage.deleteAll();
  }

  /** The rows for a running call. Opens nothing: `forget` may have run during the call, and the object must stay empty. */
  get #forCall(): Opened {
    if (this.#opened === undefined) throw new AppError("tenant_gone", "the object was emptied during the call");
    return this.#opened;
  }

  #open(): Opened {
    if (this.#opened !== undefined) return this.#opened;
    const now = this.#now();
    const rows = openCallLog(this.#storage, newId());
    this.admission.restore(rows.recent(now), rows.monthUsed(now), now, rows.monthByLine(now));
    this.#opened = {
      rows,
      outbox: new UsageOutbox(this.#storage, this.#context, this.#tenantId, rows),
      keyUses: new KeyUses(this.#storage.sql),
      metrics: new TenantMetrics({
        tenantId: this.#tenantId,
        epoch: rows.epoch,
        stored: rows.setting(METRICS),
        // An object that was emptied stays empty.
        store: (text) => this.#opened?.rows.setSetting(METRICS, text),
        send: (message) => this.#context.env.USAGE.sendBatch([{ body: message }]),
        wakeIn: (ms) => this.#opened?.outbox.wakeIn(ms),
      }),
    };
    return this.#opened;
  }
}
