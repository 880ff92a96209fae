// Reads a tenant's rows as of one moment, in chunks, while the tenant writes. No snapshot stays open.
// A chunk is read as the rows are now, as the tenant. Then the owner reads the change log, and the changes after the moment
// are undone. The log is read after the rows, and undoing a change that has not happened has no effect, so a chunk is exact
// whenever it is read. Many changes may have followed an earlier moment: the rows before those changes are collected from
// the log once, and become the end of their table.
// Invariant: for each key, every undone change is later than every kept change. The row before the first undone change is
// therefore the row at the moment.
import * as z from "zod";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { NeonConnection } from "../adapters/neon.ts";
import { type AsTenant, type Column, type Key as RowKey, type Table, id, keyOf, literal } from "../tenant-db/copy.ts";

/**
 * How far back Tollgate can restore a tenant: a week. Most losses are noticed within days. The log of a week is about as
 * large as the rows of a tenant that changes each of them once in that time.
 */
export const POINTS_KEPT_MS = 7 * 86_400_000;
/** The log is kept one day longer, so that a restore that has started still finds all the changes it needs. */
export const CHANGES_KEPT_MS = 8 * 86_400_000;

const Snapshot = z.object({
  /** Changes of transactions that are not visible in this `pg_snapshot` are undone. */
  snapshot: z.string(),
  /** The oldest transaction id that can be undone. Bounds the scan of the log. */
  lowest: z.string(),
  /** When the snapshot was taken, by the database's clock. */
  takenAt: z.string(),
});
const Undone = z.object({
  /** Transactions that began before `since`, then changed a row that a later transaction had changed. They are undone, too. */
  dragged: z.array(z.string()),
  /** The newest change in the log when the snapshot was taken. */
  newest: z.number(),
});
const EarlierPoint = Undone.extend({
  /** Transactions that began at this instant or later are undone. */
  since: z.string(),
  /** The job whose id the collected rows carry. */
  job: z.int(),
});
type EarlierPoint = z.infer<typeof EarlierPoint>;

/** Which changes are undone. */
export const RecoveryPoint = Snapshot.extend({
  /** Set when the rows are read as of an earlier moment. */
  earlier: EarlierPoint.nullable(),
});
export type RecoveryPoint = z.infer<typeof RecoveryPoint>;

/** Where the change log is, and the schema of the tenant's tables there. */
export interface History {
  owner: NeonConnection;
  schema: string;
  tenantId: TenantId;
  /** Rows in one request. Tests make it small. */
  chunkRows?: number;
}

/** Bounds of one request: about a fifth of the largest answer that the database returns over HTTP. */
const CHUNK_ROWS = 4_000;
const CHUNK_BYTES = 2_000_000;

const ISO_INSTANT = `'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'`;

/** Runs before statements that read or write values as text, so that the text is the same in every database and session. */
export const plainText: Statement = {
  text: `SELECT set_config('datestyle', 'ISO, MDY', true), set_config('intervalstyle', 'postgres', true),
           set_config('timezone', 'UTC', true), set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true)`,
};

/** How far from a point its transactions can have begun. Far above the time limit of a transaction. */
const LONGEST_TRANSACTION = `interval '10 minutes'`;

/**
 * Fixes the moment to read: now, with all committed transactions, or an earlier one, with every transaction that began
 * before `since`. A transaction is kept or undone as a whole. A transaction that began before `since`, but changed a row
 * after a later transaction had changed it, is undone together with that one.
 */
export async function recoveryPoint(
  { owner, tenantId }: History,
  earlier: { since: string; job: number } | null,
): Promise<RecoveryPoint> {
  const [row] = await owner.query(
    `WITH RECURSIVE near AS MATERIALIZED (
       SELECT xid, n, at >= $2::timestamptz AS late, table_name, key FROM tollgate.changes
       WHERE tenant_id = $1 AND at BETWEEN $2::timestamptz - ${LONGEST_TRANSACTION} AND $2::timestamptz + ${LONGEST_TRANSACTION}
     ), undone (xid) AS (
       SELECT DISTINCT xid FROM near WHERE late
       UNION
       SELECT e.xid FROM undone u JOIN near l ON l.xid = u.xid
       JOIN near e ON NOT e.late AND e.table_name = l.table_name AND e.key = l.key AND e.n > l.n
     )
     SELECT pg_current_snapshot()::text AS snapshot, pg_snapshot_xmin(pg_current_snapshot())::text AS lowest,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', ${ISO_INSTANT}) AS "takenAt",
       (SELECT coalesce(jsonb_agg(DISTINCT n.xid::text), '[]') FROM near n JOIN undone u ON u.xid = n.xid WHERE NOT n.late) AS dragged,
       (SELECT coalesce(max(n), 0)::float8 FROM tollgate.changes WHERE tenant_id = $1) AS newest`,
    [tenantId, earlier?.since ?? null],
  );
  return { ...Snapshot.parse(row), earlier: earlier === null ? null : { ...earlier, ...Undone.parse(row) } };
}

/** Changes of the log in one request: some hundred milliseconds of work. */
const COLLECT_ROWS = 20_000;

/**
 * Collects, from the next changes of the log after `after`, the rows as they were before. Returns the last of these
 * changes, or `null` when the log is at its end.
 */
export async function collectUndone(
  { owner, tenantId, chunkRows: limit = COLLECT_ROWS }: History,
  { since, dragged, newest, job }: EarlierPoint,
  after: number,
): Promise<number | null> {
  const [row] = await owner.query(
    `WITH changes AS MATERIALIZED (
       SELECT * FROM tollgate.changes WHERE tenant_id = $1 AND n > $2 AND n <= $3 ORDER BY n LIMIT ${limit}
     ), collected AS (
       INSERT INTO tollgate.undone (tenant_id, job, table_name, key_sum, before)
       SELECT DISTINCT ON (table_name, key) $1, $4, table_name, ${sumOf("key")}, before FROM changes
       WHERE at >= $5::timestamptz OR xid = ANY ($6::xid8[]) ORDER BY table_name, key, n
       ON CONFLICT DO NOTHING
     )
     SELECT max(n)::float8 AS n FROM changes`,
    [tenantId, after, newest, job, since, dragged],
  );
  return typeof row?.["n"] === "number" ? row["n"] : null;
}

/** Deletes the rows collected for a job. */
export async function forgetUndone({ owner, tenantId }: History, job: number): Promise<void> {
  await owner.query(`DELETE FROM tollgate.undone WHERE tenant_id = $1 AND job = $2`, [tenantId, job]);
}

function sumOf(key: string): string {
  return `sha256(convert_to(${key}::text, 'UTF8'))`;
}

export interface Chunk {
  /** Lines of the file, each with its line end. */
  text: string;
  rows: number;
  /** The key after which the next chunk begins; `null` at the end of the table. */
  next: RowKey | null;
}

/** Reads the rows of a table after a key, as of the point. */
export async function readChunkAt(
  history: History,
  asTenant: AsTenant,
  table: Table,
  point: RecoveryPoint,
  after: RowKey | null,
): Promise<Chunk> {
  const { chunkRows: limit = CHUNK_ROWS } = history;
  for (let upTo: RowKey | null = null; ;) {
    const rows = await readRows(asTenant, table, { after, upTo }, limit);
    const end: RowKey | null = rows.more ? rows.last : upTo;
    const undone = await readUndone(history, table, point, { after, upTo: end }, limit);
    if (undone.more) {
      upTo = undone.last;
      continue;
    }
    if (point.earlier !== null) undone.found.push(...(await collectedAmong(history, table, point.earlier, rows.keys)));
    const lines = undone.found.length === 0 ? rows.lines : await merged(asTenant, table, rows, undone.found);
    return { text: lines.map((line) => `${line}\n`).join(""), rows: lines.length, next: end };
  }
}

/** Merges current and undone lines in key order, so that the same rows always make the same file. */
async function merged(
  asTenant: AsTenant,
  table: Table,
  rows: Rows,
  undone: readonly [key: string, line: string | null][],
): Promise<string[]> {
  const lines = new Map<string, string | null>(rows.keys.map((key, index) => [key, rows.lines[index] ?? null]));
  for (const [key, line] of undone) lines.set(key, line);
  const were = [...lines].filter((entry): entry is [string, string] => entry[1] !== null);
  const order = table.keys.map(({ name, type }) => `(key ->> ${literal(name)})::${type}`).join(", ");
  const [, found = []] = await asTenant([
    plainText,
    {
      text: `SELECT coalesce(jsonb_agg(n - 1 ORDER BY ${order}), '[]') AS places
             FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS k (key, n)`,
      params: [`[${were.map(([key]) => key).join(",")}]`],
    },
  ]);
  return Places.parse(found[0]).places.map((place) => were[place]?.[1] ?? "");
}

const Places = z.object({ places: z.array(z.int()) });
const Key = z.record(z.string(), z.string()).nullable();

interface Range {
  after: RowKey | null;
  upTo: RowKey | null;
}

interface Rows {
  lines: string[];
  keys: string[];
  last: RowKey | null;
  more: boolean;
}

const RowsFound = z.object({
  lines: z.string(),
  keys: z.string(),
  last: Key,
  count: z.int(),
  seen: z.int().nullable(),
});

async function readRows(asTenant: AsTenant, table: Table, range: Range, limit: number): Promise<Rows> {
  const keys = table.keys.map(({ name }) => `r.${id(name)}`).join(", ");
  const cells = fileColumns(table).map(({ name }) => `r.${id(name)}::text`);
  const [, found = []] = await asTenant([
    plainText,
    {
      text: `SELECT coalesce(string_agg(line, E'\\n' ORDER BY place), '') AS lines, coalesce(string_agg(key::text, E'\\n' ORDER BY place), '') AS keys,
                    (array_agg(key ORDER BY place DESC))[1] AS last, count(*)::int AS count, max(seen)::int AS seen
             FROM (SELECT *, row_number() OVER by_key AS place, sum(octet_length(line)) OVER by_key AS bytes, count(*) OVER () AS seen
                   FROM (SELECT row_number() OVER (ORDER BY ${keys}) AS n, ${keyOf(table, "r")} AS key, ${lineOf(table, cells)} AS line
                         FROM ${id(table.name)} r
                         WHERE ${within(table, (name) => `r.${id(name)}`)} ORDER BY ${keys} LIMIT ${limit}) AS r
                   WINDOW by_key AS (ORDER BY n)) AS r
             WHERE bytes <= ${CHUNK_BYTES} OR place = 1`,
      params: [keyParam(range.after), keyParam(range.upTo)],
    },
  ]);
  const { lines, keys: texts, last, count, seen } = RowsFound.parse(found[0]);
  if (count === 0) return { lines: [], keys: [], last: null, more: false };
  return { lines: lines.split("\n"), keys: texts.split("\n"), last, more: seen === limit || count < (seen ?? 0) };
}

const UndoneFound = z.object({
  found: z.array(z.tuple([z.string(), z.string().nullable()])),
  last: Key,
  count: z.int(),
  seen: z.int().nullable(),
});

/** Reads the keys changed since the snapshot, each with the line of its row before; `null` where no row existed. */
async function readUndone(
  { owner, schema, tenantId }: History,
  table: Table,
  { snapshot, lowest, earlier }: RecoveryPoint,
  range: Range,
  limit: number,
): Promise<{ found: [string, string | null][]; last: RowKey | null; more: boolean }> {
  const keys = table.keys.map((_, index) => `k${index}`).join(", ");
  const typed = table.keys
    .map(({ name, type }, index) => `(key ->> ${literal(name)})::${type} AS k${index}`)
    .join(", ");
  const place = new Map(table.keys.map(({ name }, index) => [name, `k${index}`]));
  const [, , found = []] = await owner.batch([
    inSchema(schema),
    plainText,
    {
      text: `SELECT coalesce(jsonb_agg(jsonb_build_array(key::text, line) ORDER BY place), '[]') AS found,
                    (array_agg(key ORDER BY place DESC))[1] AS last, count(*)::int AS count, max(seen)::int AS seen
             FROM (SELECT *, row_number() OVER by_key AS place, sum(octet_length(line)) OVER by_key AS bytes, count(*) OVER () AS seen
                   FROM (SELECT DISTINCT ON (${keys}) ${keys}, key,
                           CASE WHEN before IS NOT NULL AND (${collectedRow("$3", "$7", "$4", "key")}) IS NULL THEN ${lineOf(table, cellsBefore(table))} END AS line
                         FROM (SELECT n, key, before, ${typed} FROM tollgate.changes
                               WHERE tenant_id = $3 AND table_name = $4 AND xid >= $5::xid8
                                 AND NOT pg_visible_in_snapshot(xid, $6::pg_snapshot)) AS c
                         WHERE ${within(table, (name) => place.get(name) ?? "")} ORDER BY ${keys}, n LIMIT ${limit + 1}) AS c
                   WINDOW by_key AS (ORDER BY ${keys})) AS c
             WHERE place = 1 OR place <= ${limit} AND coalesce(bytes, 0) <= ${CHUNK_BYTES}`,
      params: [
        keyParam(range.after),
        keyParam(range.upTo),
        tenantId,
        table.name,
        lowest,
        snapshot,
        earlier?.job ?? null,
      ],
    },
  ]);
  const { count, seen, ...changed } = UndoneFound.parse(found[0]);
  return { ...changed, more: count < (seen ?? 0) };
}

/** Filters the keys that were collected. Their rows come at the end of the table. */
async function collectedAmong(
  { owner, tenantId }: History,
  table: Table,
  { job }: EarlierPoint,
  keys: readonly string[],
): Promise<[string, null][]> {
  const [row] = await owner.query(
    `SELECT coalesce(jsonb_agg(k.key::text), '[]') AS keys FROM jsonb_array_elements($4::jsonb) AS k (key)
     CROSS JOIN LATERAL (${collectedRow("$1", "$2", "$3", "k.key")}) AS c`,
    [tenantId, job, table.name, `[${keys.join(",")}]`],
  );
  return z
    .object({ keys: z.array(z.string()) })
    .parse(row)
    .keys.map((key) => [key, null]);
}

/** The LIMIT makes PostgreSQL look each key up. Without it, the planner scans the whole table, which has no statistics yet. */
function collectedRow(tenant: string, job: string, table: string, key: string): string {
  return `SELECT true FROM tollgate.undone
          WHERE tenant_id = ${tenant} AND job = ${job} AND table_name = ${table} AND key_sum = ${sumOf(key)} LIMIT 1`;
}

const CollectedFound = z.object({ text: z.string(), rows: z.int(), next: z.string().nullable() });

/** Reads the collected rows of a table, in the order of the hashes of their keys, after the hash `after`. */
export async function readCollected(
  { owner, schema, tenantId, chunkRows: limit = CHUNK_ROWS }: History,
  table: Table,
  { job }: EarlierPoint,
  after: string | null,
): Promise<z.infer<typeof CollectedFound>> {
  const [, , found = []] = await owner.batch([
    inSchema(schema),
    plainText,
    {
      text: `SELECT coalesce(string_agg(line || E'\\n', '' ORDER BY place), '') AS text, count(*)::int AS rows,
                    CASE WHEN count(*) > 0 AND (max(seen) = ${limit} OR count(*) < max(seen)) THEN encode((array_agg(key_sum ORDER BY place DESC))[1], 'hex') END AS next
             FROM (SELECT *, row_number() OVER by_sum AS place, sum(octet_length(line)) OVER by_sum AS bytes, count(*) OVER () AS seen
                   FROM (SELECT key_sum, ${lineOf(table, cellsBefore(table))} AS line FROM tollgate.undone
                         WHERE tenant_id = $1 AND job = $2 AND table_name = $3 AND before IS NOT NULL
                           AND ($4::text IS NULL OR key_sum > decode($4, 'hex')) ORDER BY key_sum LIMIT ${limit}) AS u
                   WINDOW by_sum AS (ORDER BY key_sum)) AS u
             WHERE bytes <= ${CHUNK_BYTES} OR place = 1`,
      params: [tenantId, job, table.name, after],
    },
  ]);
  return CollectedFound.parse(found[0]);
}

/** SQL for the cells of a row before a change. A column that was added since has its default. */
function cellsBefore(table: Table): string[] {
  return fileColumns(table).map(
    ({ name, fallback = null }) =>
      `CASE WHEN before ? ${literal(name)} THEN before ->> ${literal(name)} ELSE (${fallback ?? "NULL"})::text END`,
  );
}

/** Sets the search path: a column's type may belong to the tenant's schema. */
function inSchema(schema: string): Statement {
  return {
    text: `SELECT set_config('search_path', $1, true)`,
    params: [`pg_catalog, ${id(schema)}, pg_temp`],
  };
}

/** The columns in a file: all but `tenant_id`, which the header states once. */
export function fileColumns(table: Pick<Table, "columns">): Column[] {
  return table.columns.filter(({ name }) => name !== "tenant_id");
}

function lineOf(table: Table, cells: readonly string[]): string {
  return `${literal(`[${JSON.stringify(table.name)},`)} || array_to_json(ARRAY[${cells.join(", ")}]::text[])::text || ']'`;
}

/** SQL: the row's key is after `$1` and not after `$2`. NULL is no bound. */
function within(table: Table, column: (name: string) => string): string {
  const columns = table.keys.map(({ name }) => column(name)).join(", ");
  const given = (param: string) =>
    table.keys.map(({ name, type }) => `(${param}::jsonb ->> ${literal(name)})::${type}`).join(", ");
  return `($1::jsonb IS NULL OR (${columns}) > (${given("$1")})) AND ($2::jsonb IS NULL OR (${columns}) <= (${given("$2")}))`;
}

function keyParam(key: RowKey | null): string | null {
  return key === null ? null : JSON.stringify(key);
}

/** The time by the database's clock, to the microsecond. */
export async function clockOf(owner: NeonConnection): Promise<string> {
  const [row] = await owner.query(
    `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS now`,
  );
  return String(row?.["now"]);
}

/**
 * Deletes log entries older than `keptMs`: at most `limit` of the changes, of the staged rows and of the collected rows.
 * Returns the largest of the three counts; `limit` means that there may be more.
 */
export async function pruneLog(owner: NeonConnection, keptMs: number, limit: number): Promise<number> {
  const old = `at < now() - make_interval(secs => $1::double precision / 1000)`;
  const gone = (table: string): Statement => ({
    text: `WITH gone AS (DELETE FROM tollgate.${table} WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM tollgate.${table} WHERE ${old} ORDER BY at LIMIT $2)) RETURNING 1)
           SELECT count(*)::int AS n FROM gone`,
    params: [keptMs, limit],
  });
  const deleted: Row[][] = await owner.batch([gone("changes"), gone("staged"), gone("undone")]);
  return deleted.reduce((most, rows) => Math.max(most, Number(rows[0]?.["n"])), 0);
}
