// A tenant's rows as they were at one moment, read in pieces while the tenant writes: no snapshot is held open. A piece is
// read as the rows are now, as the tenant itself; then, as the owner, what the log of changes says of them, and what came
// after the moment is undone. The log is read later than the rows, and undoing what has not happened yet changes nothing,
// so a piece is exact whenever it is read, and reads the same each time. For an earlier moment, which many changes may have
// followed, the rows before those are collected from the log first, once; they make up the end of their table.
// Invariant: for each key, all changes that are undone are later than all that are not. Then a row is what it was before
// the first of them.
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant.ts";
import type { NeonConnection } from "../adapters/neon.ts";
import { type AsTenant, type Column, type Key, type Table, id, keyOf, literal } from "../tenant-db/copy.ts";

/**
 * How far back Tollgate can restore a tenant: a week. Most losses are noticed within days. The log of a week is about as
 * large as the rows of a tenant that changes each of them once in that time.
 */
export const POINTS_KEPT_MS = 7 * 86_400_000;
/** The log is kept one day longer, so that a restore that has started still finds all the changes it needs. */
export const CHANGES_KEPT_MS = 8 * 86_400_000;

/** Which changes are undone. */
export interface RecoveryPoint {
  /** Those of transactions that had not committed in this snapshot of the database (`pg_snapshot`). */
  snapshot: string;
  /** None of an older transaction than this is among them. */
  lowest: string;
  /** When the snapshot was taken, by the database's clock. */
  takenAt: string;
  /** An earlier moment, if the rows are read as they were then. */
  earlier: EarlierPoint | null;
}

interface EarlierPoint {
  /** Changes of transactions that began at this instant or later are undone, too. */
  since: string;
  /** And those of transactions that began before it and then changed what a later one had changed. */
  dragged: string[];
  /** The newest change in the log by then. */
  newest: number;
  /** The rows before such changes are kept under its id. */
  job: number;
}

/** Where the log is, and how the tenant's tables are found there. */
export interface History {
  owner: NeonConnection;
  schema: string;
  tenantId: TenantId;
  /** Of rows in one request. */
  chunkRows?: number;
}

/** Of rows in one request: a fifth of what an answer may hold. */
const CHUNK_ROWS = 4_000;
const CHUNK_BYTES = 2_000_000;

const ISO_INSTANT = `'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'`;

/** Goes before statements that read or write values as text: it must be the same text in every database and session. */
export const plainText: Statement = {
  text: `SELECT set_config('datestyle', 'ISO, MDY', true), set_config('intervalstyle', 'postgres', true),
           set_config('timezone', 'UTC', true), set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true)`,
};

/** A point is looked for among changes of transactions that begin within this of it; none lasts as long. */
const LONGEST_TRANSACTION = `interval '10 minutes'`;

/**
 * The moment to read the rows of: now, with all that has been committed; or an earlier one, with every transaction that
 * began before it. Each transaction is in or out with all of its changes: one that began before `since`, but changed a row
 * after a later one had, cannot stay without it and is out as well.
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
  const { dragged, newest, ...now } = row as unknown as Omit<RecoveryPoint, "earlier"> & EarlierPoint;
  return { ...now, earlier: earlier === null ? null : { ...earlier, dragged, newest } };
}

/** Of the log in one request. */
const COLLECT_ROWS = 20_000;

/** Keeps the rows before the next changes of the log after `after`. Returns the last of those; `null`: that was all. */
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

/** Forgets what was collected for a job. */
export async function forgetUndone({ owner, tenantId }: History, job: number): Promise<void> {
  await owner.query(`DELETE FROM tollgate.undone WHERE tenant_id = $1 AND job = $2`, [tenantId, job]);
}

function sumOf(key: string): string {
  return `sha256(convert_to(${key}::text, 'UTF8'))`;
}

export interface Chunk {
  /** Lines of the file, each with its end. */
  text: string;
  rows: number;
  /** Where the next chunk begins; `null`: the table is at its end. */
  next: Key | null;
}

/** The next rows of a table after a key, as they were. */
export async function readChunkAt(
  history: History,
  asTenant: AsTenant,
  table: Table,
  point: RecoveryPoint,
  after: Key | null,
): Promise<Chunk> {
  const { chunkRows: limit = CHUNK_ROWS } = history;
  for (let upTo: Key | null = null; ;) {
    const rows = await readRows(asTenant, table, { after, upTo }, limit);
    const end: Key | null = rows.more ? rows.last : upTo;
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

/** The lines as they were, in the order of their keys: the same rows make the same file, whatever has happened since. */
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
  return ((found[0]?.["places"] ?? []) as number[]).map((place) => were[place]?.[1] ?? "");
}

interface Range {
  after: Key | null;
  upTo: Key | null;
}

interface Rows {
  lines: string[];
  keys: string[];
  last: Key | null;
  more: boolean;
}

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
  const [row] = found;
  const [count, seen] = [Number(row?.["count"]), Number(row?.["seen"])];
  return {
    lines: count === 0 ? [] : String(row?.["lines"]).split("\n"),
    keys: count === 0 ? [] : String(row?.["keys"]).split("\n"),
    last: (row?.["last"] ?? null) as Key | null,
    more: count > 0 && (seen === limit || count < seen),
  };
}

/** The keys that have changed since the snapshot, with the line of the row before, if there was one. */
async function readUndone(
  { owner, schema, tenantId }: History,
  table: Table,
  { snapshot, lowest, earlier }: RecoveryPoint,
  range: Range,
  limit: number,
): Promise<{ found: [string, string | null][]; last: Key | null; more: boolean }> {
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
  const [row] = found;
  return {
    found: (row?.["found"] ?? []) as [string, string | null][],
    last: (row?.["last"] ?? null) as Key | null,
    more: Number(row?.["count"]) < Number(row?.["seen"]),
  };
}

/** Those of the keys that were collected: their rows come at the end of the table. */
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
  return ((row?.["keys"] ?? []) as string[]).map((key) => [key, null]);
}

/** With a limit, so that each key is looked up: statistics of so fresh a table would have all of it read. */
function collectedRow(tenant: string, job: string, table: string, key: string): string {
  return `SELECT true FROM tollgate.undone
          WHERE tenant_id = ${tenant} AND job = ${job} AND table_name = ${table} AND key_sum = ${sumOf(key)} LIMIT 1`;
}

/** The next of the collected rows of a table after one of them, which is named by its key's sum. */
export async function readCollected(
  { owner, schema, tenantId, chunkRows: limit = CHUNK_ROWS }: History,
  table: Table,
  { job }: EarlierPoint,
  after: string | null,
): Promise<{ text: string; rows: number; next: string | null }> {
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
  return found[0] as unknown as { text: string; rows: number; next: string | null };
}

/** The cells of a row before a change. A column that was added since has what it was added with. */
function cellsBefore(table: Table): string[] {
  return fileColumns(table).map(
    ({ name, fallback = null }) =>
      `CASE WHEN before ? ${literal(name)} THEN before ->> ${literal(name)} ELSE (${fallback ?? "NULL"})::text END`,
  );
}

/** The types of the tenant's columns may be its schema's own. */
function inSchema(schema: string): Statement {
  return {
    text: `SELECT set_config('search_path', $1, true)`,
    params: [`pg_catalog, ${id(schema)}, pg_temp`],
  };
}

/** The columns that a file has: whose rows they are says its header. */
export function fileColumns(table: Pick<Table, "columns">): Column[] {
  return table.columns.filter(({ name }) => name !== "tenant_id");
}

function lineOf(table: Table, cells: readonly string[]): string {
  return `${literal(`[${JSON.stringify(table.name)},`)} || array_to_json(ARRAY[${cells.join(", ")}]::text[])::text || ']'`;
}

/** Whether a row's key is after `$1` and not after `$2`; NULL: no bound. */
function within(table: Table, column: (name: string) => string): string {
  const columns = table.keys.map(({ name }) => column(name)).join(", ");
  const given = (param: string) =>
    table.keys.map(({ name, type }) => `(${param}::jsonb ->> ${literal(name)})::${type}`).join(", ");
  return `($1::jsonb IS NULL OR (${columns}) > (${given("$1")})) AND ($2::jsonb IS NULL OR (${columns}) <= (${given("$2")}))`;
}

function keyParam(key: Key | null): string | null {
  return key === null ? null : JSON.stringify(key);
}

/** What the database's clock says. */
export async function clockOf(owner: NeonConnection): Promise<string> {
  const [row] = await owner.query(
    `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS now`,
  );
  return String(row?.["now"]);
}

/** Deletes what is older than `keptMs`, the oldest `limit` changes, and as many of what jobs have left behind. Returns how many there were. */
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
