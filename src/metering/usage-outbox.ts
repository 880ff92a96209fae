// The way of a charge out of the tenant's object: rows that the ledger does not have yet are packed into queue messages
// by an alarm, and sent again when no acknowledgement comes.
import { type Ledger, controlUsage } from "../control/ledger-store.ts";
import { connectControl } from "../adapters/neon.ts";
import {
  OUTBOX_DELAY_MS,
  type OutboxState,
  afterAcknowledge,
  afterSend,
  freshOutbox,
  nextWake,
  sendAfter,
} from "./outbox.ts";
import type { TenantId } from "../core/tenant.ts";
import { MESSAGES_PER_ALARM, ROWS_PER_MESSAGE, type UsageMessage, packUsage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";
import type { CallLog } from "./call-log.ts";
import type { UsageStream } from "../reports/drain.ts";

/** After the queue refused. */
const OUTBOX_RETRY_MS = 5_000;
const ROWS_AT_ONCE = ROWS_PER_MESSAGE * MESSAGES_PER_ALARM;

export class UsageOutbox {
  readonly #storage: DurableObjectStorage;
  readonly #queue: Queue;
  readonly #ledger: Ledger;
  readonly #tenantId: TenantId;
  readonly #rows: CallLog;
  #state: OutboxState;
  /** When the alarm is set for, as far as this instance knows. */
  #alarmAtMs = Infinity;

  constructor(storage: DurableObjectStorage, env: Env, tenantId: TenantId, rows: CallLog) {
    this.#storage = storage;
    this.#queue = env.USAGE;
    this.#ledger = controlUsage(connectControl(env));
    this.#tenantId = tenantId;
    this.#rows = rows;
    this.#state = freshOutbox(rows.acknowledged);
    if (rows.lastN > rows.acknowledged) this.#wakeIn(OUTBOX_DELAY_MS);
  }

  /** A row was appended in this turn: sees to it that it is sent. */
  rowAppended(): void {
    this.#wakeIn(OUTBOX_DELAY_MS);
  }

  /** Takes the ledger's watermark over. One of another epoch is of a sequence that this object no longer writes. */
  acknowledge(epoch: string, watermark: number, nowMs: number): void {
    const rows = this.#rows;
    if (epoch !== rows.epoch) return;
    const before = rows.acknowledged;
    rows.acknowledge(watermark, nowMs);
    this.#state = afterAcknowledge(this.#state, before, rows.acknowledged, Date.now());
  }

  /** Writes what the ledger lacks straight into it, for whoever may not wait for the queue: what is under way there comes again. */
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

  /** Sends what is due. Never throws: the platform's own retries would end, and this must not. */
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
      if (again) await this.#noteLate(); // after the rows, which must not wait for it
    } catch (error) {
      log("error", "outbox_failed", { tenantId: this.#tenantId, error: describeError(error) });
      this.#wakeIn(OUTBOX_RETRY_MS);
      await this.#noteLate();
    }
  }

  /** So that the operator hears of it. What cannot be noted either, the next alarm notes. */
  async #noteLate(): Promise<void> {
    const [first] = this.#rows.after(this.#rows.acknowledged, 1);
    if (first !== undefined) await this.#ledger.noteLate(this.#stream(), first).catch(() => undefined);
  }

  #stream(): Omit<UsageMessage, "rows"> {
    return { tenantId: this.#tenantId, object: this.#tenantId, epoch: this.#rows.epoch };
  }

  /** Sets the alarm unless an earlier one is set. Commits with the rows of the same turn. */
  #wakeIn(delayMs: number): void {
    const atMs = Date.now() + delayMs;
    if (this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    // Unawaited on purpose: the output gate waits for it, and awaiting would let other calls in between.
    void this.#storage.setAlarm(atMs);
  }
}
