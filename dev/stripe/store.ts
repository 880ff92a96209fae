// All state in one SQLite file. One transaction commits a request's effect, its events, their deliveries and its stored
// answer, so a kill at any moment loses no answered request and leaves none half done. `put` alone writes the JSON, so reads
// do not validate it.
import { randomBytes } from "node:crypto";
import { DatabaseSync, type SQLInputValue, type SQLTagStore } from "node:sqlite";
import type { Stripe } from "stripe";
import { badRequest, noSuch } from "./errors.ts";
import type { Kind, Kinds, StoredObject } from "./objects.ts";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, json TEXT NOT NULL,
  due_s INTEGER);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_due ON objects (due_s) WHERE due_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_customer ON objects (kind, json_extract(json, '$.customer'));
CREATE INDEX IF NOT EXISTS objects_email ON objects (kind, json_extract(json, '$.email'));
CREATE INDEX IF NOT EXISTS objects_event_name ON objects (kind, json_extract(json, '$.event_name'));
CREATE TABLE IF NOT EXISTS meter_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, identifier TEXT NOT NULL, event_name TEXT NOT NULL, meter TEXT NOT NULL,
  customer TEXT NOT NULL, value INTEGER NOT NULL, timestamp INTEGER NOT NULL, received_ms INTEGER NOT NULL,
  visible_ms INTEGER NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS meter_events_identifier ON meter_events (identifier, received_ms);
CREATE INDEX IF NOT EXISTS meter_events_window ON meter_events (meter, customer, timestamp);
CREATE TABLE IF NOT EXISTS deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, extra INTEGER NOT NULL, state TEXT NOT NULL,
  attempts INTEGER NOT NULL, due_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_result TEXT);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due_ms);
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries (event_id);
CREATE TABLE IF NOT EXISTS idempotency (
  key TEXT PRIMARY KEY, path TEXT NOT NULL, params TEXT NOT NULL, answer TEXT NOT NULL, created_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
`;
const TABLES = ["objects", "meter_events", "deliveries", "idempotency", "settings"];

export interface Page {
  limit: number;
  starting_after?: string | undefined;
  ending_before?: string | undefined;
}
/** One SQL condition over the column `json`, `id` or `seq`. */
export interface Filter {
  sql: string;
  values: readonly SQLInputValue[];
}
type Bounds = { [K in "gt" | "gte" | "lt" | "lte"]?: number | undefined };

export class Store {
  readonly #db: DatabaseSync;
  /** Tagged templates; values are bound, statements cached. `void` marks an unused result. */
  sql: SQLTagStore;

  constructor(databaseFile: string) {
    this.#db = new DatabaseSync(databaseFile);
    // NORMAL can lose commits on power loss, but not when the process is killed, which is all the simulator promises.
    this.#db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 2000;");
    this.#db.exec(SCHEMA);
    this.sql = this.#db.createTagStore();
  }

  close(): void {
    this.#db.close();
  }

  /** Runs `work` in one transaction: committed when it returns, rolled back when it throws. Not nestable. */
  transaction<T>(work: () => T): T {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#db.exec("COMMIT");
      return result;
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  /**
   * Inserts the object, or replaces the one with its id and keeps its position in lists. `dueSeconds` is its next scheduled
   * change, if any.
   */
  put(object: StoredObject, dueSeconds: number | null): void {
    const json = JSON.stringify(object);
    void this.sql
      .run`INSERT INTO objects (id, kind, json, due_s) VALUES (${object.id}, ${object.object}, ${json}, ${dueSeconds})
      ON CONFLICT (id) DO UPDATE SET json = excluded.json, due_s = excluded.due_s`;
  }

  /** The first scheduled change at or before an instant: the object and the time. */
  nextDue(seconds: number): { object: StoredObject; atSeconds: number } | undefined {
    const row = this.sql.get`SELECT json, due_s FROM objects WHERE due_s <= ${seconds} ORDER BY due_s, seq LIMIT 1`;
    if (row === undefined) return undefined;
    return { object: JSON.parse(String(row["json"])), atSeconds: Number(row["due_s"]) };
  }

  remove(id: string): void {
    void this.sql.run`DELETE FROM objects WHERE id = ${id}`;
  }

  find<K extends Kind>(kind: K, id: string): Kinds[K] | undefined {
    const row = this.sql.get`SELECT json FROM objects WHERE id = ${id} AND kind = ${kind}`;
    return row === undefined ? undefined : JSON.parse(String(row["json"]));
  }

  /** Finds an object of any kind. For `expand`. */
  findAny(id: string): unknown {
    const row = this.sql.get`SELECT json FROM objects WHERE id = ${id}`;
    return row === undefined ? null : JSON.parse(String(row["json"]));
  }

  /** The object or Stripe's resource_missing; `param` names the request parameter that held the id, if not the path. */
  get<K extends Kind>(kind: K, id: string, param?: string): Kinds[K] {
    const object = this.find(kind, id);
    if (object === undefined) throw noSuch(kind, id, param);
    return object;
  }

  /** All matches, oldest first. */
  all<K extends Kind>(kind: K, filters: readonly (Filter | undefined)[]): Kinds[K][] {
    return this.#select(kind, filters, "ORDER BY seq", []);
  }

  /** One page, newest first, like all of Stripe's lists. */
  list<K extends Kind>(
    kind: K,
    url: string,
    page: Page,
    filters: readonly (Filter | undefined)[],
  ): Stripe.ApiList<Kinds[K]> {
    const backwards = page.ending_before !== undefined;
    const bounds = [this.#beyond("<", "starting_after", page), this.#beyond(">", "ending_before", page)];
    const order = `ORDER BY seq ${backwards ? "ASC" : "DESC"} LIMIT ?`;
    const rows = this.#select(kind, [...filters, ...bounds], order, [page.limit + 1]);
    const data = rows.slice(0, page.limit);
    return { object: "list", data: backwards ? data.toReversed() : data, has_more: rows.length > page.limit, url };
  }

  #beyond(operator: "<" | ">", param: "starting_after" | "ending_before", page: Page): Filter | undefined {
    const id = page[param];
    if (id === undefined) return undefined;
    const seq = this.sql.get`SELECT seq FROM objects WHERE id = ${id}`?.["seq"];
    if (typeof seq !== "number") throw badRequest(`No such object: '${id}'`, { code: "resource_missing", param });
    return { sql: `seq ${operator} ?`, values: [seq] };
  }

  #select<K extends Kind>(
    kind: K,
    filters: readonly (Filter | undefined)[],
    tail: string,
    tailValues: readonly SQLInputValue[],
  ): Kinds[K][] {
    const given = filters.filter((filter) => filter !== undefined);
    const conditions = ["kind = ?", ...given.map(({ sql }) => sql)].join(" AND ");
    const values = [kind, ...given.flatMap((filter) => filter.values), ...tailValues];
    return this.#db
      .prepare(`SELECT json FROM objects WHERE ${conditions} ${tail}`)
      .all(...values)
      .map((row): Kinds[K] => JSON.parse(String(row["json"])));
  }

  setting(name: string): string | undefined {
    const value = this.sql.get`SELECT value FROM settings WHERE name = ${name}`?.["value"];
    return value === undefined ? undefined : String(value);
  }

  setSetting(name: string, value: string): void {
    void this.sql
      .run`INSERT INTO settings VALUES (${name}, ${value}) ON CONFLICT (name) DO UPDATE SET value = excluded.value`;
  }

  /** Row counts: objects by kind, then the other tables. */
  counts(): Record<string, number> {
    const kinds = this.sql.all`SELECT kind, count(*) AS n FROM objects GROUP BY kind ORDER BY kind`;
    const deliveries = this.sql.all`SELECT 'webhooks ' || state AS kind, count(*) AS n FROM deliveries GROUP BY state`;
    const meters = this.sql.all`SELECT 'meter_event' || iif(error IS NULL, '', ' rejected') AS kind, count(*) AS n
      FROM meter_events GROUP BY error IS NULL`;
    return Object.fromEntries(
      [...kinds, ...meters, ...deliveries].map((row) => [String(row["kind"]), Number(row["n"])]),
    );
  }

  clear(): void {
    for (const table of TABLES) this.#db.exec(`DELETE FROM ${table}`);
  }
}

/** Matches a top-level or dotted field; an undefined value matches everything. */
export function where(field: string, value: string | number | boolean | undefined): Filter | undefined {
  if (value === undefined) return undefined;
  // SQLite's JSON has no booleans: json_extract gives 1 and 0.
  return { sql: `json_extract(json, '$.${field}') = ?`, values: [typeof value === "boolean" ? Number(value) : value] };
}

/** Matches any of the given values; undefined matches everything. */
export function whereIn(field: string, values: readonly string[] | undefined): Filter | undefined {
  if (values === undefined) return undefined;
  return { sql: `json_extract(json, '$.${field}') IN (${values.map(() => "?").join(",")})`, values };
}

const OPERATORS = { gt: ">", gte: ">=", lt: "<", lte: "<=" } as const;

/** Stripe's `created`: one instant, or bounds, in seconds. */
export function whereRange(field: string, range: number | Bounds | undefined): Filter | undefined {
  if (range === undefined) return undefined;
  const bounds: Bounds = typeof range === "number" ? { gte: range, lte: range } : range;
  const names = (["gt", "gte", "lt", "lte"] as const).filter((name) => bounds[name] !== undefined);
  const sql = names.map((name) => `json_extract(json, '$.${field}') ${OPERATORS[name]} ?`).join(" AND ");
  return { sql: sql || "TRUE", values: names.map((name) => bounds[name] ?? null) };
}

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** A new id in Stripe's form, for instance `cus_` and 24 characters. */
export function newId(prefix: string): string {
  // 62 does not divide 256: the slight bias is harmless here.
  return prefix + Array.from(randomBytes(24), (byte) => ALPHABET.charAt(byte % ALPHABET.length)).join("");
}
