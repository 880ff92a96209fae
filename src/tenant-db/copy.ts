// Copies one tenant's rows from one placement to another while the tenant writes. Both sides are read and written as the
// tenant, so that isolation holds for a copy too; only the log of changed keys is read as the owner of the database.
// Values travel as PostgreSQL's own text inside one JSON value, which this code never parses.
import * as z from "zod";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { type NeonConnection, SqlError } from "../adapters/neon.ts";

/** Runs statements as the tenant, in one transaction. */
export type AsTenant = (statements: readonly Statement[]) => Promise<Row[][]>;

const Column = z.object({
  name: z.string(),
  type: z.string(),
  /** The SQL of the default value; `null`: none. */
  fallback: z.string().nullable().exactOptional(),
});
export type Column = z.infer<typeof Column>;

export const Table = z.object({
  name: z.string(),
  columns: z.array(Column).readonly(),
  /** The columns of the primary key, in its order. */
  keys: z.array(Column).readonly(),
});
export type Table = z.infer<typeof Table>;

/** PostgreSQL aggregates no columns to NULL: of a table without columns or without a primary key. */
const columnsOrNone = z
  .array(Column)
  .nullable()
  .transform((columns) => columns ?? []);
const StoredTable = Table.extend({
  columns: columnsOrNone,
  keys: columnsOrNone,
  refersTo: z.array(z.string()),
});

export const Key = z.record(z.string(), z.string()).readonly();
/** A row's key: column names to values as text. */
export type Key = z.infer<typeof Key>;

const ChangedKeys = z.object({ table: z.string(), keys: z.array(Key) });
export type ChangedKeys = z.infer<typeof ChangedKeys>;

/** With more changes than this, copying all rows again is less work than following each change. */
const MAX_CHANGED = 20_000;
/** Rows in one request: far below the size limit of a request, and a few milliseconds of work. */
const CHUNK_ROWS = 1_000;
const CHUNK_BYTES = 2_000_000;
/** Rows deleted by one statement: at most a second's work, well below the statement's time limit. */
const DELETED_AT_ONCE = 10_000;

/** The tenant's tables. Each comes before the tables that refer to it. */
export async function tablesOf(asTenant: AsTenant): Promise<Table[]> {
  const [rows = []] = await asTenant([
    {
      text: `SELECT c.relname AS name,
               (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                  'fallback', (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = c.oid AND d.adnum = a.attnum)) ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
               (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) ORDER BY k.place)
                FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                WHERE i.indrelid = c.oid AND i.indisprimary) AS keys,
               (SELECT coalesce(jsonb_agg(f.confrelid::regclass::text), '[]') FROM pg_constraint f
                WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid <> c.oid) AS "refersTo"
             FROM pg_class c
             WHERE c.relkind = 'r' AND c.oid = to_regclass(quote_ident(c.relname))
               AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
             ORDER BY c.relname`,
    },
  ]);
  const left = rows.map((row) => StoredTable.parse(row));
  const ordered: Table[] = [];
  while (left.length > 0) {
    const next = left.findIndex(({ refersTo }) => !left.some((table) => refersTo.includes(table.name)));
    // Tables that refer to each other in a circle have no order. The copy of the first one may be refused.
    ordered.push(...left.splice(Math.max(0, next), 1).map(({ name, columns, keys }) => ({ name, columns, keys })));
  }
  return ordered;
}

/** Names the tables and columns that the target lacks. Empty when every row of the source fits. */
export function lackingIn(target: readonly Table[], source: readonly Table[]): string[] {
  return source.flatMap((table) => {
    const same = target.find(({ name }) => name === table.name);
    if (same === undefined) return [`table ${table.name}`];
    return table.columns
      .filter(({ name, type }) => !same.columns.some((column) => column.name === name && column.type === type))
      .map(({ name }) => `column ${table.name}.${name}`);
  });
}

/** Reads the next rows of a table after a key, in the form that `applyRows` takes, and the key of the last row. */
export async function readChunk(
  asTenant: AsTenant,
  table: Table,
  after: Key | null,
): Promise<{ rows: string; count: number; last: Key | null }> {
  const keys = table.keys.map(({ name }) => id(name)).join(", ");
  const given = table.keys.map(({ name, type }) => `($1::jsonb ->> ${literal(name)})::${type}`).join(", ");
  const [found = []] = await asTenant([
    {
      text: `SELECT coalesce(jsonb_agg(${valuesOf(table, "r")}), '[]')::text AS rows, count(*)::int AS count,
                    (array_agg(${keyOf(table, "r")} ORDER BY place DESC))[1] AS last
             FROM (SELECT *, row_number() OVER (ORDER BY ${keys}) AS place,
                          sum(octet_length(t::text)) OVER (ORDER BY ${keys}) AS bytes
                   FROM (SELECT * FROM ${id(table.name)} WHERE $1::jsonb IS NULL OR (${keys}) > (${given})
                         ORDER BY ${keys} LIMIT ${CHUNK_ROWS}) AS t) AS r
             WHERE bytes <= ${CHUNK_BYTES} OR place = 1`,
      params: [after === null ? null : JSON.stringify(after)],
    },
  ]);
  const [row] = found;
  return {
    rows: String(row?.["rows"]),
    count: Number(row?.["count"]),
    last: Key.nullable().parse(row?.["last"] ?? null),
  };
}

/** Reads the rows that have these keys now, in the form that `applyRows` takes. */
export async function readKeys(asTenant: AsTenant, table: Table, keys: readonly Key[]): Promise<string> {
  const [found = []] = await asTenant([
    {
      text: `SELECT coalesce(jsonb_agg(${valuesOf(table, "r")}), '[]')::text AS rows FROM ${id(table.name)} r
             WHERE ${keyOf(table, "r")} IN (SELECT k FROM jsonb_array_elements($1::jsonb) AS k)`,
      params: [JSON.stringify(keys)],
    },
  ]);
  return String(found[0]?.["rows"]);
}

/** Inserts rows or replaces those with the same keys. Deletes the rows of `keys` that are not among `rows`. */
export function applyRows(table: Table, rows: string, keys: readonly Key[] = []): Statement[] {
  const columns = table.columns.map(({ name }) => id(name));
  const values = table.columns.map(({ type }, index) => `(v ->> ${index})::${type}`);
  const isKey = new Set(table.keys.map(({ name }) => name));
  const others = table.columns
    .filter(({ name }) => !isKey.has(name))
    .map(({ name }) => `${id(name)} = excluded.${id(name)}`);
  const upsert: Statement = {
    text: `INSERT INTO ${id(table.name)} (${columns.join(", ")}) OVERRIDING SYSTEM VALUE
           SELECT ${values.join(", ")} FROM jsonb_array_elements($1::jsonb) AS v
           ON CONFLICT (${table.keys.map(({ name }) => id(name)).join(", ")})
           DO ${others.length === 0 ? "NOTHING" : `UPDATE SET ${others.join(", ")}`}`,
    params: [rows],
  };
  if (keys.length === 0) return [upsert];
  const place = new Map(table.columns.map(({ name }, index) => [name, index]));
  const keyOfValue = table.keys.map(({ name }) => `${literal(name)}, v ->> ${place.get(name)}`).join(", ");
  const removal: Statement = {
    text: `DELETE FROM ${id(table.name)} r WHERE ${keyOf(table, "r")} IN (SELECT k FROM jsonb_array_elements($1::jsonb) AS k)
             AND ${keyOf(table, "r")} NOT IN (SELECT jsonb_build_object(${keyOfValue}) FROM jsonb_array_elements($2::jsonb) AS v)`,
    params: [JSON.stringify(keys), rows],
  };
  return [removal, upsert];
}

/** Deletes all of the tenant's rows in portions, referring tables first. `before` precedes each delete in its transaction. */
export async function emptyTables(
  asTenant: AsTenant,
  tables: readonly Table[],
  before: readonly Statement[],
): Promise<void> {
  for (const { name } of tables.toReversed()) {
    const some: Statement = {
      text: `WITH gone AS (DELETE FROM ${id(name)} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${id(name)} LIMIT ${DELETED_AT_ONCE}))
                           RETURNING 1) SELECT count(*)::int AS count FROM gone`,
    };
    for (;;) {
      const results = await asTenant([...before, some]);
      if (Number(results.at(-1)?.[0]?.["count"]) < DELETED_AT_ONCE) break;
    }
  }
}

/** For each table, the number of rows and a checksum of all values. The order of the rows does not matter. */
export async function sumsOf(asTenant: AsTenant, tables: readonly Table[]): Promise<Record<string, string>> {
  if (tables.length === 0) return {};
  const sums = tables.map(
    (table) => `SELECT ${literal(table.name)} AS name, count(*) || ':' ||
      coalesce(sum(hashtextextended(${valuesOf(table, "r")}::text, 0)::numeric), 0) AS sum FROM ${id(table.name)} r`,
  );
  const [rows = []] = await asTenant([{ text: sums.join(" UNION ALL ") }]);
  return Object.fromEntries(rows.map((row) => [String(row["name"]), String(row["sum"])]));
}

/** Goes before the writes of a copy. The database refuses it once a newer copy has started. */
export function underToken(token: number): Statement {
  return { text: `SELECT tollgate.loading($1)`, params: [token] };
}

// ---- as the owner of the database

/** The changes since a mark, and the next mark. Transactions that were still open are reported again after the next mark. */
export interface Changes {
  mark: string;
  changed: ChangedKeys[];
}

/** The keys that changed in transactions from `mark` on. `undefined`: more than `MAX_CHANGED`, so copy all rows again. */
export async function changesSince(
  owner: NeonConnection,
  tenantId: TenantId,
  mark: string,
): Promise<Changes | undefined> {
  const [rows = []] = await owner.batch([changesQuery(tenantId, mark)]);
  return changesOf(rows);
}

function changesQuery(tenantId: TenantId, mark: string): Statement {
  return {
    text: `WITH keys AS (SELECT DISTINCT table_name, key FROM tollgate.changes
                   WHERE tenant_id = $1 AND xid >= $2::xid8 LIMIT ${MAX_CHANGED + 1})
     SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark, (SELECT count(*)::int FROM keys) AS count,
            coalesce((SELECT jsonb_agg(jsonb_build_object('table', c.table_name, 'keys', c.keys))
                      FROM (SELECT table_name, jsonb_agg(key) AS keys FROM keys GROUP BY table_name) AS c), '[]') AS changed`,
    params: [tenantId, mark],
  };
}

function changesOf([row]: readonly Row[]): Changes | undefined {
  if (Number(row?.["count"]) > MAX_CHANGED) return undefined;
  return { mark: String(row?.["mark"]), changed: z.array(ChangedKeys).parse(row?.["changed"] ?? []) };
}

const markQuery: Statement = { text: `SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark` };

/** The mark from which a copy that begins now has to follow changes. */
export async function markOf(owner: NeonConnection): Promise<string> {
  const [rows = []] = await owner.batch([markQuery]);
  return String(rows[0]?.["mark"]);
}

/** The write gate of a tenant's rows in one database. `shut`: writes are refused. `loading`: writes belong to a copy. */
type Gate = { state: "shut" | "loading"; token: number } | null;

const LOCK_NOT_AVAILABLE = "55P03";

/**
 * Sets the tenant's write gate; `null` opens it. Returns false when a running writer did not end within `waitMs`.
 */
export async function setGate(owner: NeonConnection, tenantId: TenantId, gate: Gate, waitMs: number): Promise<boolean> {
  return (await whenFree(owner, moveGate(tenantId, gate, waitMs))) !== undefined;
}

/**
 * Shuts the tenant's write gate and returns the changes since the mark, in one round trip. `busy`: a running writer did not
 * end within `waitMs`, and the gate is unchanged.
 */
export async function shutGate(
  owner: NeonConnection,
  tenantId: TenantId,
  { token, mark, waitMs }: { token: number; mark: string; waitMs: number },
): Promise<Changes | undefined | "busy"> {
  const shut = moveGate(tenantId, { state: "shut", token }, waitMs);
  const results = await whenFree(owner, [...shut, changesQuery(tenantId, mark)]);
  return results === undefined ? "busy" : changesOf(results.at(-1) ?? []);
}

/** Opens the write gate of a finished copy. Returns the mark from which the tenant's own changes begin, in one round trip. */
export async function openGate(owner: NeonConnection, tenantId: TenantId, waitMs: number): Promise<string> {
  const results = await owner.batch([markQuery, ...moveGate(tenantId, null, waitMs)]);
  return String(results[0]?.[0]?.["mark"]);
}

function moveGate(tenantId: TenantId, gate: Gate, waitMs: number): Statement[] {
  return [
    { text: `SELECT set_config('lock_timeout', $1, true)`, params: [String(waitMs)] },
    { text: `SELECT tollgate.set_gate($1, $2, $3)`, params: [tenantId, gate?.state ?? null, gate?.token ?? null] },
  ];
}

async function whenFree(owner: NeonConnection, statements: readonly Statement[]): Promise<Row[][] | undefined> {
  try {
    return await owner.batch(statements);
  } catch (error) {
    if (error instanceof SqlError && error.sqlState === LOCK_NOT_AVAILABLE) return undefined;
    throw error;
  }
}

/** Deletes the tenant's change log in portions and opens its write gate. */
export async function forgetChanges(owner: NeonConnection, tenantId: TenantId): Promise<void> {
  await forgetNotes(owner, tenantId, ["changes"]);
  await owner.query(`SELECT tollgate.set_gate($1, NULL, NULL)`, [tenantId]);
}

/** The internal tables that may hold values of a tenant's rows. */
export const notes = ["changes", "staged", "undone"] as const;

/** Deletes a tenant's rows of such tables in portions. */
export async function forgetNotes(
  owner: NeonConnection,
  tenantId: TenantId,
  tables: readonly (typeof notes)[number][],
): Promise<void> {
  for (const table of tables) {
    for (;;) {
      const [row] = await owner.query(
        `WITH gone AS (DELETE FROM tollgate.${table} WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM tollgate.${table} WHERE tenant_id = $1 LIMIT ${DELETED_AT_ONCE})) RETURNING 1)
         SELECT count(*)::int AS count FROM gone`,
        [tenantId],
      );
      if (Number(row?.["count"]) < DELETED_AT_ONCE) break;
    }
  }
}

// ---- SQL

/** A quoted identifier. */
export function id(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A quoted string literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** SQL for all values of a row, as a JSON list of texts. */
function valuesOf(table: Table, row: string): string {
  return `to_jsonb(ARRAY[${table.columns.map(({ name }) => `${row}.${id(name)}::text`).join(", ")}])`;
}

/** SQL for a row's key in the form of the change log. */
export function keyOf(table: Pick<Table, "keys">, row: string): string {
  return `jsonb_build_object(${table.keys.map(({ name }) => `${literal(name)}, ${row}.${id(name)}::text`).join(", ")})`;
}
