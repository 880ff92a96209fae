// The outbox of a tenant's object: sends charged rows that the ledger does not have yet, packed into queue messages by an
// alarm. Sending is repeated until the ledger has acknowledged. A message may be lost, duplicated or late; each of these
// costs a delay and never a charge. The first half of this file decides, the second acts.
import type { Context } from "../control/context.ts";
import { type Ledger, ledgerStore } from "../control/ledger-store.ts";
import type { TenantId } from "../core/tenant.ts";
import { MESSAGES_PER_ALARM, ROWS_PER_MESSAGE, type UsageMessage, packUsage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";
import type { CallLog } from "./call-log.ts";

/** Rows wait this long for others before they are sent: long enough to fill a busy tenant's messages, short for a quiet one. */
export const OUTBOX_DELAY_MS = 2_000;
/** When the watermark has not moved for this long, sent rows count as lost. */
export const ACKNOWLEDGE_WITHIN_MS = 60_000;

export interface OutboxState {
  /** Rows up to this one have been handed to the queue. */
  readonly sentN: number;
  /** Since when the watermark has not moved although rows are out. `undefined`: no rows are out. */
  readonly waitingSinceMs: number | undefined;
}

/** The state after a restart: every row that was not acknowledged is sent again. */
export function freshOutbox(acknowledged: number): OutboxState {
  return { sentN: acknowledged, waitingSinceMs: undefined };
}

/** Rows after this one are sent next: those that were never sent, or all unacknowledged rows when they count as lost. */
export function sendAfter(state: OutboxState, acknowledged: number, nowMs: number): number {
  const lost = state.waitingSinceMs !== undefined && nowMs - state.waitingSinceMs >= ACKNOWLEDGE_WITHIN_MS;
  return lost ? acknowledged : Math.max(state.sentN, acknowledged);
}

/** The queue has taken the rows from `fromN` (exclusive) to `toN`. The ledger may have answered before the queue did. */
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

/** Milliseconds until the outbox must look again. `undefined`: not before the next row. */
export function nextWake(
  state: OutboxState,
  rows: { acknowledged: number; lastN: number },
  nowMs: number,
): number | undefined {
  if (rows.lastN > Math.max(state.sentN, rows.acknowledged)) return 0;
  if (state.waitingSinceMs === undefined) return undefined;
  return Math.max(0, state.waitingSinceMs + ACKNOWLEDGE_WITHIN_MS - nowMs);
}

/** An object's sequence up to its last row, and whether the ledger has all of it. */
export interface UsageStream {
  epoch: string;
  lastN: number;
  arrived: boolean;
}

/** The stream of an object that has not charged a call yet. */
export const NO_USAGE: UsageStream = { epoch: "", lastN: 0, arrived: true };

/** Writes the rows that the ledger lacks. Returns the stream up to its last row. */
export type Flush = (nowMs: number) => Promise<UsageStream>;

/** Wait after the queue refused a batch. */
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

  /** Call it in the turn that appended a row: sets the alarm that sends the row. */
  rowAppended(): void {
    this.#wakeIn(OUTBOX_DELAY_MS);
  }

  /** Applies the ledger's watermark. Ignores one of another epoch: this object no longer writes that sequence. */
  acknowledge(epoch: string, watermark: number, nowMs: number): void {
    const rows = this.#rows;
    if (epoch !== rows.epoch) return;
    const before = rows.acknowledged;
    rows.acknowledge(watermark, nowMs);
    this.#state = afterAcknowledge(this.#state, before, rows.acknowledged, Date.now());
  }

  /** Writes missing rows straight into the ledger, for a caller who cannot wait for the queue. Queued copies are duplicates. */
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

  /** Sends the rows that are due. Never throws: the platform stops its own retries after some failures. */
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
      if (again) await this.#noteLate(); // after sending, so that the rows do not wait for the note
    } catch (error) {
      log("error", "outbox_failed", { tenantId: this.#tenantId, error: describeError(error) });
      this.#wakeIn(OUTBOX_RETRY_MS);
      await this.#noteLate();
    }
  }

  /** Records the oldest late row for the operator's indicator. If that fails, the next alarm records it. */
  async #noteLate(): Promise<void> {
    const [first] = this.#rows.after(this.#rows.acknowledged, 1);
    if (first !== undefined) await this.#ledger.noteLate(this.#stream(), first).catch(() => undefined);
  }

  #stream(): Omit<UsageMessage, "rows"> {
    return { tenantId: this.#tenantId, object: this.#tenantId, epoch: this.#rows.epoch };
  }

  /** Sets the alarm unless an earlier one is set. The alarm commits with the rows of the same turn. */
  #wakeIn(delayMs: number): void {
    const atMs = Date.now() + delayMs;
    if (this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    // Not awaited on purpose: the output gate waits for it, and an await would let other calls in between.
    void this.#storage.setAlarm(atMs);
  }
}
