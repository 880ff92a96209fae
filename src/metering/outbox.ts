// What an object's outbox sends next. Sending is repeated until the ledger has acknowledged: a message may be lost,
// doubled or late, and each of these costs a delay and nothing else.

/** Rows wait this long for company before they are sent: long enough to pack a busy tenant's, short for a quiet one's. */
export const OUTBOX_DELAY_MS = 2_000;
/** Without any progress of the watermark in this time, what was sent counts as lost. */
export const ACKNOWLEDGE_WITHIN_MS = 60_000;

export interface OutboxState {
  /** Rows up to this one have been handed to the queue. */
  readonly sentN: number;
  /** Since when the watermark has not moved although rows are out. `undefined`: none are out. */
  readonly waitingSinceMs: number | undefined;
}

/** Nothing is known to be out: after a restart everything that was not acknowledged is sent again. */
export function freshOutbox(acknowledged: number): OutboxState {
  return { sentN: acknowledged, waitingSinceMs: undefined };
}

/** Send the rows after this one: those that were never sent, or all unacknowledged ones when they count as lost. */
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

/** The watermark has come to `acknowledged`, which was `before`. */
export function afterAcknowledge(state: OutboxState, before: number, acknowledged: number, nowMs: number): OutboxState {
  const sentN = Math.max(state.sentN, acknowledged);
  if (acknowledged >= sentN) return { sentN, waitingSinceMs: undefined };
  return { sentN, waitingSinceMs: acknowledged > before ? nowMs : state.waitingSinceMs };
}

/** In how many milliseconds the outbox must look again; `undefined`: not before the next row. */
export function nextWake(
  state: OutboxState,
  rows: { acknowledged: number; lastN: number },
  nowMs: number,
): number | undefined {
  if (rows.lastN > Math.max(state.sentN, rows.acknowledged)) return 0;
  if (state.waitingSinceMs === undefined) return undefined;
  return Math.max(0, state.waitingSinceMs + ACKNOWLEDGE_WITHIN_MS - nowMs);
}
