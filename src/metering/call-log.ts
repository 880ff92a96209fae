// The rows of a tenant's object. Each charged call is one row: the charge, an entry of the window, and an outbox entry.
// A row is deleted once the ledger has acknowledged it and it has left the window; the same transaction adds it to the total of
// its day, or of the part of the day from the start of a billing period on. Every function is synchronous, so its writes commit
// with the caller's other writes.
// A row names the line of API keys whose units of the month it counts in. The ledger does not need it.
// A fallback call is a row with a negative number: it counts like the others but is not sent to the ledger. It stays until
// its month ends, so that a repeated notification counts it once, and for a day, so that an idempotency key finds it.
import * as z from "zod";
import { periodOf } from "../calls/admission.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../core/time.ts";
import type { ChargedCall, FallbackCall, UsageRow } from "../core/usage.ts";

export interface CallLog {
  readonly epoch: string;
  /** The ledger has every row up to this one. */
  readonly acknowledged: number;
  readonly lastN: number;
  /** Charges a call. The output gate holds every later message of the object back until the row is durable. */
  append(call: Omit<UsageRow, "n">, line: string | undefined): void;
  /** The charge of this call, if it has one. There is no index for it: ask only after a lost answer. */
  find(callId: string): ChargedCall | undefined;
  /** Those of these calls that are fallback calls, which are few. */
  fallbackCalls(callIds: readonly string[]): ChargedCall[];
  /** Counts fallback calls. Returns those that were not counted before. */
  countFallbackCalls(calls: readonly FallbackCall[]): FallbackCall[];
  /** Rows after `n`, in order. */
  after(n: number, limit: number): UsageRow[];
  /** Stores the ledger's watermark and deletes rows that are no longer needed. A lower watermark changes nothing. */
  acknowledge(watermark: number, nowMs: number): void;
  /** Charges of the last hour, oldest first, for the windows. Without `tool`, of all tools. */
  recent(nowMs: number, tool?: string): { atMs: number; units: number }[];
  /** Units charged in the calendar month (UTC) of `nowMs`. */
  monthUsed(nowMs: number): number;
  /**
   * Units charged since the start of a billing period. If the start becomes known an hour late, deleted rows of that whole day
   * count: the count is never too low.
   */
  usedSince(startMs: number, nowMs: number): number;
  /** Units charged in the calendar month (UTC) of `nowMs` by line of API keys. */
  monthByLine(nowMs: number): { lineId: string; units: number }[];
  /** Calls and units of the last hour by tool. */
  history(nowMs: number): { tool: string; calls: number; units: number }[];
  setting(name: string): string | undefined;
  setSetting(name: string, value: string): void;
}

type ChargedRow = ChargedCall & Record<string, SqlStorageValue>;

const SpendStart = z.object({ startMs: z.number(), totalsFromMs: z.number() });

/** Two billing periods that share one payment take two months at most. */
const TOTALS_KEPT_MS = 70 * DAY_MS;

/** Whether the tables exist. Asking creates nothing, so that a mistaken call leaves no storage behind. */
export function hasCallLog(storage: DurableObjectStorage): boolean {
  return storage.sql.exec(`SELECT 1 FROM sqlite_master WHERE name = 'calls'`).toArray().length > 0;
}

/** Opens the rows and creates the tables on first use. `newEpoch` names a new sequence of rows. */
export function openCallLog(storage: DurableObjectStorage, newEpoch: string): CallLog {
  const { sql } = storage;
  if (!hasCallLog(storage)) {
    storage.transactionSync(() => {
      // `n` is the rowid and there is no other index: the platform then bills one written row per insert and per delete.
      sql.exec(
        `CREATE TABLE calls (n INTEGER PRIMARY KEY, call_id TEXT NOT NULL, at_ms INTEGER NOT NULL, tool TEXT NOT NULL,
                             units INTEGER NOT NULL, line TEXT)`,
      );
      sql.exec(`CREATE TABLE totals (from_ms INTEGER PRIMARY KEY, units INTEGER NOT NULL)`);
      sql.exec(
        `CREATE TABLE line_months (month TEXT, line TEXT, units INTEGER NOT NULL, PRIMARY KEY (month, line)) WITHOUT ROWID`,
      );
      sql.exec(`CREATE TABLE key_uses (key_id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID`);
      sql.exec(`CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID`);
      sql.exec(`INSERT INTO settings VALUES ('epoch', ?), ('acknowledged', '0')`, newEpoch);
    });
  }

  const setting = (name: string): string | undefined => {
    const [row] = sql.exec<{ value: string }>(`SELECT value FROM settings WHERE name = ?`, name).toArray();
    return row?.value;
  };
  const setSetting = (name: string, value: string): void => {
    sql.exec(`INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value);
  };

  const epoch = setting("epoch") ?? newEpoch;
  let acknowledged = Number(setting("acknowledged") ?? 0);
  let lastN = Math.max(acknowledged, sql.exec<{ n: number | null }>(`SELECT max(n) AS n FROM calls`).one().n ?? 0);

  let lowestN = Math.min(0, sql.exec<{ n: number | null }>(`SELECT min(n) AS n FROM calls`).one().n ?? 0);
  const startOfMonth = (nowMs: number): number => Date.parse(`${periodOf(nowMs).period}-01T00:00:00Z`);

  /** The start of the billing period that `usedSince` was last asked for, and the instant from which the totals count to it. */
  let spend = SpendStart.safeParse(JSON.parse(setting("spend") ?? "null")).data;

  const totalsIn = (fromMs: number, toMs: number): number =>
    sql
      .exec<{ units: number }>(
        `SELECT coalesce(sum(units), 0) AS units FROM totals WHERE from_ms >= ? AND from_ms < ?`,
        fromMs,
        toMs,
      )
      .one().units;
  const unitsSince = (startMs: number, totalsFromMs: number): number =>
    totalsIn(totalsFromMs, Number.MAX_SAFE_INTEGER) +
    sql.exec<{ units: number }>(`SELECT coalesce(sum(units), 0) AS units FROM calls WHERE at_ms >= ?`, startMs).one()
      .units;

  const fold = (upTo: number, nowMs: number): void => {
    const gone = `n <= ? AND at_ms <= ? AND (n > 0 OR at_ms < ?)`;
    const bounds = [upTo, nowMs - HOUR_MS, startOfMonth(nowMs - DAY_MS)];
    const totals = sql
      .exec<{ fromMs: number; units: number }>(
        `SELECT CASE WHEN at_ms >= ?4 THEN max(at_ms - at_ms % ${DAY_MS}, ?4) ELSE at_ms - at_ms % ${DAY_MS} END AS fromMs,
                sum(units) AS units FROM calls WHERE n <= ?1 AND at_ms <= ?2 AND (n > 0 OR at_ms < ?3) GROUP BY fromMs`,
        ...bounds,
        spend?.startMs ?? Number.MAX_SAFE_INTEGER,
      )
      .toArray();
    if (totals.length === 0) return;
    for (const { fromMs, units } of totals) {
      sql.exec(
        `INSERT INTO totals VALUES (?, ?) ON CONFLICT (from_ms) DO UPDATE SET units = units + excluded.units`,
        fromMs,
        units,
      );
    }
    sql.exec(`DELETE FROM totals WHERE from_ms < ?`, nowMs - TOTALS_KEPT_MS);
    sql.exec(
      `INSERT INTO line_months SELECT strftime('%Y-%m', at_ms / 1000, 'unixepoch') AS month, line, sum(units) FROM calls
       WHERE ${gone} AND line IS NOT NULL GROUP BY month, line
       ON CONFLICT (month, line) DO UPDATE SET units = units + excluded.units`,
      ...bounds,
    );
    sql.exec(`DELETE FROM calls WHERE ${gone}`, ...bounds);
    // Only the current month decides. The clock may be set back by less than a day.
    sql.exec(`DELETE FROM line_months WHERE month < ?`, periodOf(nowMs - DAY_MS).period);
  };

  return {
    epoch,
    get acknowledged() {
      return acknowledged;
    },
    get lastN() {
      return lastN;
    },
    append({ callId, atMs, tool, units }, line) {
      sql.exec(`INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?)`, lastN + 1, callId, atMs, tool, units, line ?? null);
      lastN += 1;
    },
    find(callId) {
      const [row] = sql
        .exec<ChargedRow>(`SELECT call_id AS callId, at_ms AS atMs, units FROM calls WHERE call_id = ?`, callId)
        .toArray();
      return row;
    },
    fallbackCalls(callIds) {
      return sql
        .exec<ChargedRow>(
          `SELECT call_id AS callId, at_ms AS atMs, units FROM calls WHERE n < 0 AND call_id IN (SELECT value FROM json_each(?))`,
          JSON.stringify(callIds),
        )
        .toArray();
    },
    countFallbackCalls(calls) {
      const ids = JSON.stringify(calls.map(({ callId }) => callId));
      const known = new Set(
        sql
          .exec<{ id: string }>(
            `SELECT call_id AS id FROM calls WHERE call_id IN (SELECT value FROM json_each(?))`,
            ids,
          )
          .toArray()
          .map(({ id }) => id),
      );
      const counted = calls.filter(({ callId }) => !known.has(callId));
      storage.transactionSync(() => {
        for (const [index, { callId, atMs, tool, units }] of counted.entries()) {
          sql.exec(`INSERT INTO calls VALUES (?, ?, ?, ?, ?, NULL)`, lowestN - 1 - index, callId, atMs, tool, units);
        }
      });
      lowestN -= counted.length; // only after they are stored
      return counted;
    },
    after(n, limit) {
      return sql
        .exec<{ n: number; callId: string; atMs: number; tool: string; units: number }>(
          `SELECT n, call_id AS callId, at_ms AS atMs, tool, units FROM calls WHERE n > ? ORDER BY n LIMIT ?`,
          n,
          limit,
        )
        .toArray();
    },
    acknowledge(watermark, nowMs) {
      const reached = Math.max(acknowledged, Math.min(watermark, lastN));
      storage.transactionSync(() => {
        if (reached > acknowledged) setSetting("acknowledged", String(reached));
        fold(reached, nowMs);
      });
      acknowledged = reached; // only after it is stored
    },
    recent(nowMs, tool) {
      return sql
        .exec<{ atMs: number; units: number }>(
          `SELECT at_ms AS atMs, units FROM calls WHERE at_ms > ?1 AND tool = coalesce(?2, tool) ORDER BY at_ms`,
          nowMs - HOUR_MS,
          tool ?? null,
        )
        .toArray();
    },
    monthUsed(nowMs) {
      const startMs = startOfMonth(nowMs);
      return unitsSince(startMs, startMs);
    },
    usedSince(startMs, nowMs) {
      if (spend?.startMs !== startMs) {
        // Rows of the last hour are in no total. An older start may be inside of a day's total.
        const dayMs = startMs - (startMs % DAY_MS);
        const isKnown = nowMs - startMs < HOUR_MS || totalsIn(dayMs, startMs) === 0;
        spend = { startMs, totalsFromMs: isKnown ? startMs : dayMs };
        setSetting("spend", JSON.stringify(spend));
      }
      return unitsSince(startMs, spend.totalsFromMs);
    },
    monthByLine(nowMs) {
      return sql
        .exec<{ lineId: string; units: number }>(
          `SELECT line AS lineId, sum(units) AS units FROM
             (SELECT line, units FROM calls WHERE at_ms >= ? AND line IS NOT NULL
              UNION ALL SELECT line, units FROM line_months WHERE month = ?) GROUP BY line`,
          startOfMonth(nowMs),
          periodOf(nowMs).period,
        )
        .toArray();
    },
    history(nowMs) {
      return sql
        .exec<{ tool: string; calls: number; units: number }>(
          `SELECT tool, count(*) AS calls, sum(units) AS units FROM calls WHERE at_ms > ? GROUP BY tool ORDER BY tool`,
          nowMs - HOUR_MS,
        )
        .toArray();
    },
    setting,
    setSetting,
  };
}

/**
 * Accepts a canary's token once: each token must expire later than the last one that was accepted. That expiry is durable,
 * so a restart of the object does not allow a second use. Returns whether the token was accepted.
 */
export function spendCanary(rows: CallLog, { expiresAtMs }: { expiresAtMs: number }): boolean {
  if (expiresAtMs <= Number(rows.setting("canary") ?? 0)) return false;
  rows.setSetting("canary", String(expiresAtMs));
  return true;
}

/** Nothing decides by a last use: people look for keys that were not used for weeks. */
const STORE_EVERY_MS = MINUTE_MS;

/**
 * When each API key of a tenant was last used. The instants are in memory, and in the object's storage at most once a minute for
 * each key, so that a call writes no row for them. An object that dies loses a minute of precision, never the key's use.
 */
export class KeyUses {
  readonly #sql: Pick<SqlStorage, "exec">;
  readonly #uses = new Map<string, { atMs: number; storedAtMs: number }>();

  constructor(sql: Pick<SqlStorage, "exec">) {
    this.#sql = sql;
    const rows = sql.exec<{ keyId: string; atMs: number }>(`SELECT key_id AS keyId, at_ms AS atMs FROM key_uses`);
    for (const { keyId, atMs } of rows) this.#uses.set(keyId, { atMs, storedAtMs: atMs });
  }

  /** Records a use. A use before the last one changes nothing. */
  note(keyId: string, nowMs: number): void {
    const known = this.#uses.get(keyId);
    const atMs = Math.max(nowMs, known?.atMs ?? nowMs);
    const isDue = known === undefined || atMs - known.storedAtMs >= STORE_EVERY_MS;
    this.#uses.set(keyId, { atMs, storedAtMs: isDue ? atMs : known.storedAtMs });
    if (!isDue) return;
    this.#sql.exec(
      `INSERT INTO key_uses VALUES (?, ?) ON CONFLICT (key_id) DO UPDATE SET at_ms = excluded.at_ms`,
      keyId,
      atMs,
    );
  }

  all(): { keyId: string; atMs: number }[] {
    return Array.from(this.#uses, ([keyId, { atMs }]) => ({ keyId, atMs }));
  }
}
