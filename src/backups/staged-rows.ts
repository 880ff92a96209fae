// Writes the rows of a file into a tenant's tables. A restore first stages all rows, as the owner. Then one transaction,
// as the tenant, makes the tables equal to the staged rows and proves it, or changes nothing. It touches only rows that
// differ. The change log records it like any other transaction, so that a later restore can undo it.
import type { FileTable } from "./file/backup-file.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { Statement } from "../core/sql.ts";
import { type NeonConnection, sqlStateOf } from "../adapters/neon.ts";
import { type AsTenant, type Table, id } from "../tenant-db/copy.ts";
import { plainText } from "./history.ts";

export interface StagedRow {
  line: number;
  table: string;
  cells: readonly (string | null)[];
}

/** Time limit of the replacing transaction: enough for some hundred thousand changed rows. The tenant's calls wait for it. */
const REPLACE_TIMEOUT_MS = 60_000;
/** How long the caller waits for the answer. Longer than the transaction, so that the database ends it first. */
export const REPLACE_ANSWER_TIMEOUT_MS = REPLACE_TIMEOUT_MS + 5_000;
/** Maximum wait for a lock. Only a statement that did not run in the tenant's object can hold one. */
const LOCK_TIMEOUT_MS = 2_000;
const UNIQUE_VIOLATION = "23505";

/** Stages rows of a job. Can be repeated. */
export async function stageRows(
  owner: NeonConnection,
  { tenantId, job }: { tenantId: TenantId; job: number },
  rows: readonly StagedRow[],
): Promise<void> {
  await owner.query(
    `INSERT INTO tollgate.staged (tenant_id, job, line, table_name, cells)
     SELECT $1, $2, (v ->> 0)::bigint, v ->> 1, v -> 2 FROM jsonb_array_elements($3::jsonb) AS v ON CONFLICT DO NOTHING`,
    [tenantId, job, JSON.stringify(rows.map(({ line, table, cells }) => [line, table, cells]))],
  );
}

/**
 * Starts attempt number `attempt` to replace a job's rows. From now on no earlier attempt can commit. Returns whether an
 * earlier attempt has committed already: its answer may have been lost.
 */
export async function beginAttempt(
  owner: NeonConnection,
  { tenantId, job }: { tenantId: TenantId; job: number },
  attempt: number,
): Promise<boolean> {
  await stageRows(owner, { tenantId, job }, [{ line: -attempt, table: "", cells: [] }]);
  const done = await owner.query(`SELECT FROM tollgate.staged WHERE tenant_id = $1 AND job = $2 AND line = 0`, [
    tenantId,
    job,
  ]);
  return done.length > 0;
}

/** Deletes the staged rows of a job. */
export async function deleteStaged(
  owner: NeonConnection,
  { tenantId, job }: { tenantId: TenantId; job: number },
): Promise<void> {
  await owner.query(`DELETE FROM tollgate.staged WHERE tenant_id = $1 AND job = $2`, [tenantId, job]);
}

/**
 * Makes the tenant's tables equal to the staged rows, in an attempt started by `beginAttempt`. A column that the file lacks
 * keeps its value in existing rows and takes its default in new ones. A table that the file lacks stays as it is. Throws
 * `SqlError`; then nothing has changed.
 */
export async function replaceRows(
  asTenant: AsTenant,
  { job, attempt }: { job: number; attempt: number },
  tables: readonly { file: FileTable; rows: number; target: Table }[],
): Promise<void> {
  const before: Statement[] = [
    {
      text: `SELECT set_config('statement_timeout', $1, true), set_config('transaction_timeout', $1, true), set_config('lock_timeout', $2, true)`,
      params: [String(REPLACE_TIMEOUT_MS), String(LOCK_TIMEOUT_MS)],
    },
    plainText,
  ];
  const end: Statement = { text: `SELECT tollgate.put_back($1, $2)`, params: [job, attempt] };
  const after = [...tables.map((each) => upsert(job, each)), ...tables.map((each) => proof(job, each)), end];
  try {
    await asTenant([...before, ...tables.toReversed().map((each) => removal(job, each)), ...after]);
  } catch (error) {
    // Rows that exchanged a unique value cannot be updated one after the other. Delete all rows first, then insert.
    if (sqlStateOf(error) !== UNIQUE_VIOLATION) throw error;
    const emptied = tables.toReversed().map(({ file }) => ({ text: `DELETE FROM ${id(file.name)}` }));
    await asTenant([...before, ...emptied, ...after]);
  }
}

interface Replaced {
  file: FileTable;
  rows: number;
  target: Table;
}

function removal(job: number, { file, target }: Replaced): Statement {
  const same = typed(file.columns, target).filter(({ isKey }) => isKey);
  const matches = same.map(({ name, value }) => `r.${id(name)} = ${value}`).join(" AND ");
  return {
    text: `DELETE FROM ${id(file.name)} r
           WHERE NOT EXISTS (SELECT FROM tollgate.staged_rows($1, $2) AS s (cells) WHERE ${matches || "true"})`,
    params: [job, file.name],
  };
}

function upsert(job: number, { file, target }: Replaced): Statement {
  const columns = typed(file.columns, target);
  const others = columns.filter(({ isKey }) => !isKey).map(({ name }) => id(name));
  const texts = (row: string) => others.map((name) => `${row}.${name}::text`).join(", ");
  return {
    text: `${insertion(target, columns, "tollgate.staged_rows($1, $2)")}
           ${overwriting(target, columns)} ${others.length === 0 ? "" : `WHERE ROW(${texts("r")}) IS DISTINCT FROM ROW(${texts("excluded")})`}`,
    params: [job, file.name],
  };
}

function proof(job: number, { file, rows, target }: Replaced): Statement {
  const columns = typed(file.columns, target);
  const list = (texts: string[]) => `array_to_json(ARRAY[${texts.join(", ")}]::text[])::text`;
  const table = id(file.name);
  return {
    text: `SELECT tollgate.insist((SELECT count(*) FROM ${table}) = $3 AND NOT EXISTS (
             SELECT ${list(columns.map(({ value }) => `${value}::text`))} FROM tollgate.staged_rows($1, $2) AS s (cells)
             EXCEPT ALL SELECT ${list(columns.map(({ name }) => `r.${id(name)}::text`))} FROM ${table} r))`,
    params: [job, file.name, rows],
  };
}

interface TypedColumn {
  name: string;
  isKey: boolean;
  /** SQL that reads the value from a list `cells`. */
  value: string;
}

/** The columns of a file with the types that they have in this placement. */
function typed(columns: readonly { name: string }[], target: Table): TypedColumn[] {
  const keys = new Set(target.keys.map(({ name }) => name));
  return columns.map(({ name }, index) => {
    const { type = "text" } = target.columns.find((column) => column.name === name) ?? {};
    return { name, isKey: keys.has(name), value: `(cells ->> ${index})::${type}` };
  });
}

/** Reads the tenant once in a subquery. As the column's default, the signed context would be verified for every row. */
function insertion(target: Table, columns: readonly TypedColumn[], from: string): string {
  return `INSERT INTO ${id(target.name)} AS r (tenant_id, ${columns.map(({ name }) => id(name)).join(", ")}) OVERRIDING SYSTEM VALUE
          SELECT (SELECT tollgate.current_tenant()), ${columns.map(({ value }) => value).join(", ")} FROM ${from} AS s (cells)`;
}

function overwriting(target: Table, columns: readonly TypedColumn[]): string {
  const others = columns.filter(({ isKey }) => !isKey).map(({ name }) => `${id(name)} = excluded.${id(name)}`);
  const keys = target.keys.map(({ name }) => id(name)).join(", ");
  return `ON CONFLICT (${keys}) DO ${others.length === 0 ? "NOTHING" : `UPDATE SET ${others.join(", ")}`}`;
}

/**
 * SQL for a value of an import in its column's type. A cast to a type with a length or a precision cuts and rounds without
 * an error, so the value first gets the type without it. Assigning it to the column then refuses a longer text; a number or
 * time that would be rounded is refused here, by a text that no such type accepts.
 */
function exactly(value: string, type: string): string {
  const cell = `(${value})`;
  const modifier = /\(\d+(?:,-?\d+)?\)/;
  if (!modifier.test(type) || type.includes('"')) return `${cell}::${type}`;
  const list = type.endsWith("[]") ? "[]" : "";
  if (type.startsWith("character")) return `${cell}::text${list}`;
  if (type.startsWith("bit")) return `${cell}::bit varying${list}`;
  const same = `${cell}::${type.replace(modifier, "")} IS NOT DISTINCT FROM ${cell}::${type}`;
  return `CASE WHEN ${same} THEN ${cell}::${type} ELSE (${cell} || ' would be rounded')::${type} END`;
}

/**
 * Inserts rows of an import. An existing row stays as it is, or is replaced with `overwrite`. Returns one row for each that
 * was inserted or replaced.
 */
export function addRows(
  target: Table,
  columns: readonly string[],
  rows: readonly (readonly (string | null)[])[],
  { overwrite }: { overwrite: boolean },
): Statement {
  const types = new Map(target.columns.map(({ name, type }) => [name, type]));
  const cells = typed(
    columns.map((name) => ({ name })),
    target,
  ).map((column, index) => ({ ...column, value: exactly(`cells ->> ${index}`, types.get(column.name) ?? "text") }));
  const conflict = overwrite ? overwriting(target, cells) : "ON CONFLICT DO NOTHING";
  return {
    text: `${insertion(target, cells, "jsonb_array_elements($1::jsonb)")} ${conflict} RETURNING true AS added`,
    params: [JSON.stringify(rows)],
  };
}
