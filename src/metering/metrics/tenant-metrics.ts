// The metrics of one tenant's object. A call adds to a fold and to the list of last calls, both in memory. The object stores them
// within seconds in one row, which it replaces, and sends a fold to the control tables once a minute.
//
// Invariants: the control tables add each fold once (metrics-store.ts). A frozen fold never changes and stays until it is
// acknowledged. An object that dies loses the calls since the last store, some seconds; the ledger has those that were charged.
// Nothing here can fail a call or delay usage.
import * as z from "zod";
import { withTimeout } from "../../adapters/timeout.ts";
import type { FallbackCall } from "../../core/usage.ts";
import { HOUR_MS, MINUTE_MS } from "../../core/time.ts";
import type { FinishedCall } from "../../core/call.ts";
import type { ErrorCode } from "../../core/errors.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { describeError, log } from "../../log.ts";
import {
  Cell,
  FALLBACK_CALLER,
  FROZEN_AT_MOST,
  Fold,
  MAX_CELLS,
  type MetricsMessage,
  OTHER,
  RecentCall,
  countedCall,
  recentCall,
} from "./fold.ts";

/** The first calls after a pause are stored this soon. The outbox has the same delay, and its alarm stores them, too. */
const STORE_DELAY_MS = 2_000;
/** A busy object stores no more often. A crash can lose the calls of this time. */
export const STORE_EVERY_MS = 10_000;
/** A fold covers at least this long. Pages show hours, so a minute is soon enough. */
export const FOLD_EVERY_MS = MINUTE_MS;
/** A fold that is not acknowledged for this long counts as lost. A queue takes seconds. */
export const RESEND_MS = 10 * MINUTE_MS;
/** Delay after the queue refused a message. */
const RETRY_MS = 5_000;
/** A queue takes a message in milliseconds. The object's alarm, which also sends usage, must not wait for one that does not. */
const SEND_WITHIN_MS = 3_000;
/** Last calls that the object remembers: about 35 KB of the stored row. */
export const RECENT_CALLS = 200;
/** Callers that an object tells apart in an hour. More are one, so that a tenant with many users has no row for each call. */
const CALLERS_AN_HOUR = 200;

const untimed = { ms: 0, dbMs: 0, isTimed: false };
const REFUSED_BY_WORKER = { ...untimed, end: "refused", code: "rate_limited" satisfies ErrorCode, units: 0 } as const;

const Stored = z.object({
  /** The number of the fold that is being filled. Numbers grow within an epoch. */
  n: z.int().positive(),
  cells: z.array(Cell),
  frozen: z.array(z.object({ n: z.int().positive(), cells: z.array(Cell) })),
  recent: z.array(RecentCall),
});
type Stored = z.infer<typeof Stored>;

export interface MetricsHost {
  tenantId: TenantId;
  /** Names the sequence of folds. */
  epoch: string;
  /** The row as it is stored; `undefined`: there is none. */
  stored: string | undefined;
  store(text: string): void;
  send(message: MetricsMessage): Promise<unknown>;
  /** Sets the object's alarm, unless it is set to an earlier time. */
  wakeIn(ms: number): void;
}

export class TenantMetrics {
  readonly #host: MetricsHost;
  #fold = new Fold();
  /** The number of `#fold`. Without a stored one it starts at the clock, so that it grows in any case. */
  #n = Date.now();
  #frozen: Stored["frozen"] = [];
  /** Whether a frozen fold was not sent by this instance. */
  #isUnsent = false;
  #sentAtMs = -Infinity;
  #recent: RecentCall[] = [];
  #isDirty = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #storedAtMs = -Infinity;
  #frozenAtMs = -Infinity;
  readonly #callers = new Set<string>();
  #callersOfHour = 0;

  constructor(host: MetricsHost) {
    this.#host = host;
    const stored = storedOf(host.stored);
    if (stored === undefined) return;
    const { n, cells, frozen, recent } = stored;
    this.#n = n;
    this.#fold = new Fold(cells);
    this.#frozen = frozen;
    this.#isUnsent = frozen.length > 0;
    this.#recent = recent;
  }

  /** Counts a call that has ended. Synchronous, and in memory only. */
  add(call: FinishedCall): void {
    this.#recent.push(recentCall(call));
    if (this.#recent.length >= 2 * RECENT_CALLS) this.#recent = this.#recent.slice(-RECENT_CALLS);
    const counted = countedCall(call);
    const caller = this.#distinct(counted.caller, call.atMs);
    this.#fold.add({ ...counted, caller });
    // The Worker knows their number, and that this tool and this caller are of the same flood.
    if (call.refusedBefore > 0)
      this.#fold.add({ ...REFUSED_BY_WORKER, ...{ tool: call.tool, atMs: call.atMs, caller } }, call.refusedBefore);
    this.#changed();
  }

  /** Counts calls that were charged without this object. They were counted by their charge only, so they have no latency. */
  addFallbackCalls(calls: readonly FallbackCall[]): void {
    for (const { tool, atMs, units } of calls)
      this.#fold.add({ ...untimed, caller: FALLBACK_CALLER, end: "ok", code: "", tool, atMs, units });
    if (calls.length > 0) this.#changed();
  }

  /** The last calls, in the order in which they ended. */
  recent(): RecentCall[] {
    return this.#recent.slice(-RECENT_CALLS);
  }

  /** The control tables have every fold up to `n`. A number of another epoch changes nothing. */
  acknowledge(epoch: string, n: number): void {
    if (epoch !== this.#host.epoch) return;
    const before = this.#frozen.length;
    this.#frozen = this.#frozen.filter((fold) => fold.n > n);
    if (this.#frozen.length === 0) this.#isUnsent = false;
    // The next store removes it from the row. Until then a restart sends it again, which changes nothing.
    if (this.#frozen.length < before && this.#fold.size > 0) this.#host.wakeIn(this.#freezesInMs());
  }

  /** Stores and sends what is due. Never throws. The object's alarm and a timer call it; the timer stores in any case. */
  async run({ isDue = false } = {}): Promise<void> {
    try {
      const nowMs = Date.now();
      const mayFreeze = this.#fold.size > 0 && this.#frozen.length < FROZEN_AT_MOST && this.#freezesInMs() === 0;
      if (mayFreeze) this.#freeze(nowMs);
      if (mayFreeze || (this.#isDirty && (isDue || nowMs >= this.#storedAtMs + STORE_EVERY_MS))) this.#store(nowMs);
      const isLate = this.#frozen.length > 0 && nowMs >= this.#sentAtMs + RESEND_MS;
      if (this.#isUnsent || isLate) await this.#send(nowMs);
    } catch (error) {
      log("error", "metrics_failed", { tenantId: this.#host.tenantId, error: describeError(error) });
    }
  }

  /** Takes no storage after its wait: the object may have been emptied meanwhile. */
  async #send(nowMs: number): Promise<void> {
    this.#isUnsent = false;
    this.#sentAtMs = nowMs;
    const { tenantId, epoch } = this.#host;
    const [first, second] = this.#frozen;
    if (first === undefined) return;
    // Two full folds are larger than a message may be. The second one then follows once the first is acknowledged.
    const fits = second !== undefined && first.cells.length + second.cells.length <= MAX_CELLS;
    try {
      const folds = fits ? [first, second] : [first];
      await withTimeout(SEND_WITHIN_MS, this.#host.send({ kind: "metrics", tenantId, epoch, folds }));
    } catch (error) {
      this.#isUnsent = true;
      log("warn", "metrics_not_sent", { tenantId, error: describeError(error) });
      if (this.#frozen.length > 0) this.#host.wakeIn(RETRY_MS);
    }
  }

  #freeze(nowMs: number): void {
    this.#frozen.push({ n: this.#n, cells: this.#fold.cells() });
    this.#n += 1;
    this.#fold = new Fold();
    this.#frozenAtMs = nowMs;
    this.#isUnsent = true;
  }

  #store(nowMs: number): void {
    const stored = { n: this.#n, cells: this.#fold.cells(), frozen: this.#frozen, recent: this.recent() };
    this.#host.store(JSON.stringify(stored satisfies Stored));
    this.#isDirty = false;
    clearTimeout(this.#timer);
    this.#storedAtMs = nowMs;
    // Durable, so that a fold is sent although the object leaves memory. Frozen folds that wait are in the way of a new one.
    if (this.#fold.size > 0 && this.#frozen.length < FROZEN_AT_MOST) this.#host.wakeIn(this.#freezesInMs());
  }

  /** A timer costs no row, unlike an alarm. An object that dies loses it together with what it would have stored. */
  #changed(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    const delayMs = Math.max(STORE_DELAY_MS, this.#storedAtMs + STORE_EVERY_MS - Date.now());
    this.#timer = setTimeout(() => void this.run({ isDue: true }), delayMs);
  }

  /** A fold that no longer tells callers apart is not filled further. */
  #freezesInMs(): number {
    return this.#fold.isFull ? 0 : Math.max(0, this.#frozenAtMs + FOLD_EVERY_MS - Date.now());
  }

  /** The caller's name, while the hour has few enough of them. */
  #distinct(caller: string, atMs: number): string {
    const hour = Math.floor(atMs / HOUR_MS);
    if (hour !== this.#callersOfHour) {
      this.#callers.clear();
      this.#callersOfHour = hour;
    }
    if (this.#callers.has(caller)) return caller;
    if (this.#callers.size >= CALLERS_AN_HOUR) return OTHER;
    this.#callers.add(caller);
    return caller;
  }
}

/** The stored row, unless it is unreadable: then the object starts without it. */
function storedOf(text: string | undefined): Stored | undefined {
  try {
    return text === undefined ? undefined : Stored.parse(JSON.parse(text));
  } catch (error) {
    log("error", "metrics_unreadable", { error: describeError(error) });
    return undefined;
  }
}
