// The OAuth server's entries in one object's SQLite: texts under keys, each with an optional expiry and optional metadata for
// lists. The tenant's object and the registry objects have the same table.
//
// Invariants: an expired entry is never returned. A write is visible to the next read. Each write also deletes a few expired
// entries, so that the table does not grow by what has expired. Nothing is stored before the first write: an object that a
// mistaken request wakes stays empty. Anyone can register a client, so a registry object has a fixed number of entries at
// most, and a registration that no user has consented to ends after a day.
import { DAY_MS } from "../../core/time.ts";

/** The part of the platform's `SqlStorage` that the entries need. It is synchronous; writes commit together. */
export interface SqlPort {
  exec(query: string, ...bindings: (string | number | null)[]): { toArray(): Record<string, unknown>[] };
}

export interface NewEntry {
  value: string;
  /** Returned by `list`, so that a reader of the list needs no read of each entry. */
  metadata?: string | undefined;
  /** From this instant on the entry does not exist. `undefined`: it stays until it is deleted. */
  expiresAtMs?: number | undefined;
}

export interface EntryPage {
  keys: { name: string; metadata?: string }[];
  /** For the next page. `undefined`: this is the last one. */
  cursor?: string;
}

/** The largest value. The library's largest are client registrations, whose request is limited to half of this. */
export const MAX_VALUE_CHARS = 32_768;
/** The largest metadata, as in Workers KV, for which the library is written. */
const MAX_METADATA_CHARS = 1_024;
/** Most keys of one page, as in Workers KV. */
export const MAX_PAGE = 1_000;
/** Expired entries that one write deletes. It adds one, so the table shrinks. */
const PRUNED_AT_ONCE = 20;
/** Keys are printable ASCII, so this is behind every key with the same beginning. */
const BEHIND_ALL = "\x7f";
const keyForm = /^[\x21-\x7e]{1,512}$/;

export class OauthEntries {
  readonly #sql: SqlPort;
  readonly #now: () => number;
  #hasTable = false;
  #changes = 0;

  constructor(sql: SqlPort, now: () => number) {
    this.#sql = sql;
    this.#now = now;
  }

  /** Counts the writes that can change what `get` returns. A reader may keep what it has parsed while the number stays. */
  get changes(): number {
    return this.#changes;
  }

  get(key: string): string | null {
    if (!this.#tableExists()) return null;
    const [row] = this.#sql
      .exec(
        `SELECT value FROM oauth_entries WHERE key = ? AND (expires_at_ms IS NULL OR expires_at_ms > ?)`,
        key,
        this.#now(),
      )
      .toArray();
    return typeof row?.["value"] === "string" ? row["value"] : null;
  }

  /** Stores an entry in place of an earlier one. Throws for a key or a value that is too large. */
  put(key: string, { value, metadata, expiresAtMs }: NewEntry): void {
    if (!keyForm.test(key)) throw new RangeError("an OAuth entry has no such key");
    if (value.length > MAX_VALUE_CHARS) throw new RangeError("an OAuth entry has too large a value");
    if ((metadata?.length ?? 0) > MAX_METADATA_CHARS) throw new RangeError("an OAuth entry has too large metadata");
    this.#changes += 1;
    this.#makeTable();
    this.prune(PRUNED_AT_ONCE);
    this.#sql.exec(
      `INSERT INTO oauth_entries (key, value, metadata, expires_at_ms) VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET value = excluded.value, metadata = excluded.metadata,
         expires_at_ms = excluded.expires_at_ms`,
      ...[key, value, metadata ?? null, expiresAtMs === undefined ? null : Math.floor(expiresAtMs)],
    );
  }

  /** Prolongs the life of an entry that would expire. One that stays, and one that there is not, remain as they are. */
  extend(key: string, expiresAtMs: number): void {
    this.#changes += 1;
    if (!this.#tableExists()) return;
    this.#sql.exec(
      `UPDATE oauth_entries SET expires_at_ms = max(expires_at_ms, ?) WHERE key = ? AND expires_at_ms > ?`,
      ...[Math.floor(expiresAtMs), key, this.#now()],
    );
  }

  /** Notes that the entry was used. A later `put` keeps the note. */
  touch(key: string, atMs: number): void {
    if (this.#tableExists()) this.#sql.exec(`UPDATE oauth_entries SET used_at_ms = ? WHERE key = ?`, atMs, key);
  }

  /** When the entry was last used, as far as it was noted. */
  usedAt(key: string): number | null {
    if (!this.#tableExists()) return null;
    const [row] = this.#sql.exec(`SELECT used_at_ms FROM oauth_entries WHERE key = ?`, key).toArray();
    return typeof row?.["used_at_ms"] === "number" ? row["used_at_ms"] : null;
  }

  delete(key: string): void {
    this.#changes += 1;
    if (this.#tableExists()) this.#sql.exec(`DELETE FROM oauth_entries WHERE key = ?`, key);
  }

  /** Deletes all entries whose keys begin so. */
  deleteAll(prefix: string): void {
    this.#changes += 1;
    if (!this.#tableExists()) return;
    this.#sql.exec(`DELETE FROM oauth_entries WHERE key >= ? AND key < ?`, prefix, prefix + BEHIND_ALL);
  }

  /** A page of the keys that begin so, in the order of their bytes. `cursor` is that of the page before. */
  list(prefix: string, { limit, cursor }: { limit: number; cursor?: string | undefined }): EntryPage {
    const size = Math.max(1, Math.min(limit, MAX_PAGE));
    if (!this.#tableExists()) return { keys: [] };
    // One more than the page has shows whether there is a next one.
    const rows = this.#sql
      .exec(
        `SELECT key, metadata FROM oauth_entries
         WHERE key >= ? AND key < ? AND key > ? AND (expires_at_ms IS NULL OR expires_at_ms > ?) ORDER BY key LIMIT ?`,
        ...[prefix, prefix + BEHIND_ALL, cursor ?? "", this.#now(), size + 1],
      )
      .toArray();
    const keys = rows.slice(0, size).map(({ key, metadata }) => ({
      name: String(key),
      ...(typeof metadata === "string" && { metadata }),
    }));
    const last = keys.at(-1);
    return rows.length > size && last !== undefined ? { keys, cursor: last.name } : { keys };
  }

  /** Entries, expired ones included. */
  count(): number {
    if (!this.#tableExists()) return 0;
    return Number(this.#sql.exec(`SELECT count(*) AS n FROM oauth_entries`).toArray()[0]?.["n"]);
  }

  /** Deletes up to `most` expired entries. */
  prune(most: number): void {
    if (!this.#tableExists()) return;
    this.#sql.exec(
      `DELETE FROM oauth_entries WHERE key IN (
         SELECT key FROM oauth_entries WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)`,
      this.#now(),
      most,
    );
  }

  #tableExists(): boolean {
    // Only a found table is remembered: emptying the object deletes the table, and `forget` ends this memory.
    this.#hasTable ||=
      this.#sql.exec(`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'oauth_entries'`).toArray().length >
      0;
    return this.#hasTable;
  }

  /** The object was emptied. */
  forget(): void {
    this.#changes += 1;
    this.#hasTable = false;
  }

  #makeTable(): void {
    if (this.#tableExists()) return;
    this.#sql.exec(
      `CREATE TABLE oauth_entries (
         key TEXT PRIMARY KEY, value TEXT NOT NULL, metadata TEXT, expires_at_ms INTEGER, used_at_ms INTEGER)`,
    );
    this.#sql.exec(`CREATE INDEX oauth_entries_by_expiry ON oauth_entries (expires_at_ms)`);
    this.#hasTable = true;
  }
}

/** A registration without a consent. People finish a sign-in within minutes, and some leave it until the next morning. */
const UNUSED_REGISTRATION_MS = DAY_MS;
/** About 1 KB each. All registry objects together hold 800,000, and a stranger's address is limited to a few a second. */
const MAX_ENTRIES = 50_000;
/** Expired entries that one alarm deletes: a few milliseconds of work. */
const PRUNED_BY_ALARM = 1_000;

/** One registry object's entries, and their limits. */
export class RegistryEntries {
  readonly #entries: OauthEntries;
  readonly #now: () => number;

  constructor(sql: SqlPort, now: () => number) {
    this.#entries = new OauthEntries(sql, now);
    this.#now = now;
  }

  get(key: string): string | null {
    return this.#entries.get(key);
  }

  /** Stores an entry. Throws when the object is full. */
  put(key: string, entry: NewEntry): void {
    const isRegistration = key.startsWith("client:") && this.#entries.get(key) === null;
    if (isRegistration && this.#entries.count() >= MAX_ENTRIES) throw new Error("the OAuth registry is full");
    const untilMs = this.#now() + UNUSED_REGISTRATION_MS;
    // A permanent registration is the operator's own.
    const isLong = isRegistration && entry.expiresAtMs !== undefined && entry.expiresAtMs > untilMs;
    this.#entries.put(key, isLong ? { ...entry, expiresAtMs: untilMs } : entry);
  }

  /** Stores an entry, unless there is one. Returns the value of the one that there was, or `null`. */
  claim(key: string, entry: NewEntry): string | null {
    const known = this.#entries.get(key);
    if (known === null) this.put(key, entry);
    return known;
  }

  /** A user has consented to the client: its registration now lives until `expiresAtMs` at least. */
  extend(key: string, expiresAtMs: number): void {
    this.#entries.extend(key, expiresAtMs);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  /** Deletes some expired entries. Returns whether any entry is left. */
  prune(): boolean {
    this.#entries.prune(PRUNED_BY_ALARM);
    return this.#entries.count() > 0;
  }
}
