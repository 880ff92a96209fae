// The outbox of a tenant's object. An alarm packs charged rows into queue messages and sends them again until the ledger
// acknowledges them. A lost, duplicated or late message costs a delay, never a charge.
// The first half of this file decides, the second half acts.
import type { Context } from "../control/context.ts";
import { type Ledger, ledgerStore } from "../control/ledger-store.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { MESSAGES_PER_ALARM, ROWS_PER_MESSAGE, type UsageMessage, packUsage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";
import type { CallLog } from "./call-log.ts";

/** Delay before rows are sent. Long enough to fill a busy tenant's messages, short enough for a quiet tenant. */
export const OUTBOX_DELAY_MS = 2_000;
/** Sent rows count as lost when the watermark has not moved for this long. The queue usually takes seconds. */
export const ACKNOWLEDGE_WITHIN_MS = 60_000;

export interface OutboxState {
  /** The queue has accepted rows up to this one. */
  readonly sentN: number;
  /** Since when sent rows wait without a move of the watermark. `undefined`: no sent rows wait. */
  readonly waitingSinceMs: number | undefined;
}

/** The state after a restart: every unacknowledged row is sent again. */
export function freshOutbox(acknowledged: number): OutboxState {
  return { sentN: acknowledged, waitingSinceMs: undefined };
}

/** Returns the row after which to send: unsent rows only, or every unacknowledged row if sent rows count as lost. */
export function sendAfter(state: OutboxState, acknowledged: number, nowMs: number): number {
  const lost = state.waitingSinceMs !== undefined && nowMs - state.waitingSinceMs >= ACKNOWLEDGE_WITHIN_MS;
  return lost ? acknowledged : Math.max(state.sentN, acknowledged);
}

/** The queue has accepted the rows from `fromN` (exclusive) to `toN`. The ledger may have acknowledged them already. */
export function afterSend(
  state: OutboxState,
  { fromN, toN, acknowledged }: { fromN: number; toN: number; acknowledged: number },
  nowMs: number,
): OutboxState {
  if (acknowledged >= toN) return { sentN: acknowledged, waitingSinceMs: undefined };
  const again = fromN < state.sentN;
  return { sentN: toN, waitingSinceMs: again ? nowMs : (state.waitingSinceMs ?? nowMs) };
}

/** The watermark has moved from `before` to `acknowledged`. */
export function afterAcknowledge(state: OutboxState, before: number, acknowledged: number, nowMs: number): OutboxState {
  const sentN = Math.max(state.sentN, acknowledged);
  if (acknowledged >= sentN) return { sentN, waitingSinceMs: undefined };
  return { sentN, waitingSinceMs: acknowledged > before ? nowMs : state.waitingSinceMs };
}

/** Milliseconds until the next alarm. `undefined`: the next row sets it. */
export function nextWake(
  state: OutboxState,
  rows: { acknowledged: number; lastN: number },
  nowMs: number,
): number | undefined {
  if (rows.lastN > Math.max(state.sentN, rows.acknowledged)) return 0;
  if (state.waitingSinceMs === undefined) return undefined;
  return Math.max(0, state.waitingSinceMs + ACKNOWLEDGE_WITHIN_MS - nowMs);
}

/** The rows of an object, and whether the ledger has all of them. */
export interface UsageStream {
  epoch: string;
  lastN: number;
  arrived: boolean;
}

/** The stream of an object that has not charged a call yet. */
export const NO_USAGE: UsageStream = { epoch: "", lastN: 0, arrived: true };

/** Writes missing rows to the ledger. Returns the stream as it was at the call. */
export type Flush = (nowMs: number) => Promise<UsageStream>;

/** Delay after the queue refused a batch: an outage of seconds ends within one or two attempts. */
const OUTBOX_RETRY_MS = 5_000;
const ROWS_AT_ONCE = ROWS_PER_MESSAGE * MESSAGES_PER_ALARM;

export class UsageOutbox {
  readonly #storage: DurableObjectStorage;
  readonly #queue: Queue;
  readonly #ledger: Ledger;
  readonly #tenantId: TenantId;
  readonly #rows: CallLog;
  #state: OutboxState;
  /** The time of the next alarm, as far as this instance knows. */
  #alarmAtMs = Infinity;

  constructor(storage: DurableObjectStorage, context: Context, tenantId: TenantId, rows: CallLog) {
    this.#storage = storage;
    this.#queue = context.env.USAGE;
    this.#ledger = ledgerStore(context.control);
    this.#tenantId = tenantId;
    this.#rows = rows;
    this.#state = freshOutbox(rows.acknowledged);
    if (rows.lastN > rows.acknowledged) this.#wakeIn(OUTBOX_DELAY_MS);
  }

  /** Sets the alarm that sends a new row. Call it without an `await` after the row was appended. */
  rowAppended(): void {
    this.#wakeIn(OUTBOX_DELAY_MS);
  }

  /** Sets the object's only alarm for other work. Rows that wait are then sent earlier, which is harmless. */
  wakeIn(delayMs: number): void {
    this.#wakeIn(delayMs);
  }

  /** Applies the ledger's watermark. Ignores a watermark of an earlier epoch. */
  acknowledge(epoch: string, watermark: number, nowMs: number): void {
    const rows = this.#rows;
    if (epoch !== rows.epoch) return;
    const before = rows.acknowledged;
    rows.acknowledge(watermark, nowMs);
    this.#state = afterAcknowledge(this.#state, before, rows.acknowledged, Date.now());
  }

  /** Writes missing rows to the ledger at once, for a caller that cannot wait for the queue. Queued copies are harmless. */
  async flush(nowMs: number): Promise<UsageStream> {
    const rows = this.#rows;
    const { epoch, lastN } = rows;
    for (let before = -1; before < rows.acknowledged && rows.acknowledged < lastN;) {
      before = rows.acknowledged;
      const { watermarks } = await this.#ledger.record(packUsage(this.#stream(), rows.after(before, ROWS_AT_ONCE)));
      for (const { watermark } of watermarks) this.acknowledge(epoch, watermark, nowMs);
    }
    return { epoch, lastN, arrived: rows.acknowledged >= lastN };
  }

  /** Sends the rows that are due. Never throws: the platform gives up an alarm after six failures. */
  async alarm(): Promise<void> {
    this.#alarmAtMs = Infinity;
    const rows = this.#rows;
    try {
      const from = sendAfter(this.#state, rows.acknowledged, Date.now());
      const again = from < this.#state.sentN;
      const unsent = rows.after(from, ROWS_AT_ONCE);
      const last = unsent.at(-1);
      if (last !== undefined) {
        await this.#queue.sendBatch(packUsage(this.#stream(), unsent).map((body) => ({ body })));
        this.#state = afterSend(this.#state, { fromN: from, toN: last.n, acknowledged: rows.acknowledged }, Date.now());
      }
      const wakeInMs = nextWake(this.#state, rows, Date.now());
      if (wakeInMs !== undefined) this.#wakeIn(wakeInMs);
      if (again) await this.#noteLate(); // after sending, so that a slow control database does not delay the rows
    } catch (error) {
      log("error", "outbox_failed", { tenantId: this.#tenantId, error: describeError(error) });
      this.#wakeIn(OUTBOX_RETRY_MS);
      await this.#noteLate();
    }
  }

  /** Records the oldest late row for the operator's indicator. If that fails, the next alarm tries again. */
  async #noteLate(): Promise<void> {
    const [first] = this.#rows.after(this.#rows.acknowledged, 1);
    if (first !== undefined) await this.#ledger.noteLate(this.#stream(), first).catch(() => undefined);
  }

  #stream(): Omit<UsageMessage, "rows"> {
    return { tenantId: this.#tenantId, object: this.#tenantId, epoch: this.#rows.epoch };
  }

  /** Sets the alarm unless an earlier one is set. The alarm commits together with the rows. */
  #wakeIn(delayMs: number): void {
    const atMs = Date.now() + delayMs;
    if (this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    // Not awaited: the output gate waits for it, and an `await` would let other calls run in between.
    void this.#storage.setAlarm(atMs);
  }
}
