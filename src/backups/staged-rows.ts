// Puts rows of a file into a tenant's tables. A restore lays all of them ready first, as the owner; then one transaction,
// as the tenant, makes the tables equal to them and proves that they are, or changes nothing. It touches only rows that
// differ, and the log notes it as it notes every change, so that it can be undone like any other.
import type { FileTable } from "./backup-file.ts";
import type { TenantId } from "../core/tenant.ts";
import type { Statement } from "../core/sql.ts";
import { type NeonConnection, sqlStateOf } from "../adapters/neon.ts";
import { type AsTenant, type Table, id } from "../tenant-db/copy.ts";
import { plainText } from "./history.ts";

export interface StagedRow {
  line: number;
  table: string;
  cells: readonly (string | null)[];
}

/** Some hundred thousand rows that differ: about what one UPDATE of as many takes. The tenant's calls wait for it. */
const REPLACE_WITHIN_MS = 60_000;
/** For its answer: later than that, so that it is the database that ends it. */
export const REPLACED_WITHIN_MS = REPLACE_WITHIN_MS + 5_000;
/** For a statement that runs outside of the tenant's object. */
const LOCK_WITHIN_MS = 2_000;
const UNIQUE_VIOLATION = "23505";

/** Lays rows ready; may be repeated. */
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
 * Begins the `tries`th try to put a job's rows in place: no earlier one commits any more. Returns whether one has, which
 * its answer may not have told.
 */
export async function beginTry(
  owner: NeonConnection,
  { tenantId, job }: { tenantId: TenantId; job: number },
  tries: number,
): Promise<boolean> {
  await stageRows(owner, { tenantId, job }, [{ line: -tries, table: "", cells: [] }]);
  const done = await owner.query(`SELECT FROM tollgate.staged WHERE tenant_id = $1 AND job = $2 AND line = 0`, [
    tenantId,
    job,
  ]);
  return done.length > 0;
}

/** Forgets what was laid ready for a job. */
export async function forgetStaged(
  owner: NeonConnection,
  { tenantId, job }: { tenantId: TenantId; job: number },
): Promise<void> {
  await owner.query(`DELETE FROM tollgate.staged WHERE tenant_id = $1 AND job = $2`, [tenantId, job]);
}

/**
 * Makes the tenant's tables equal to what was laid ready, in a try that was begun. Columns that the file lacks keep what
 * they have in rows that stay, and take their defaults in new ones; tables that it lacks stay as they are. Throws
 * `SqlError`, and then nothing has changed.
 */
export async function replaceRows(
  asTenant: AsTenant,
  { job, tries }: { job: number; tries: number },
  tables: readonly { file: FileTable; rows: number; target: Table }[],
): Promise<void> {
  const before: Statement[] = [
    {
      text: `SELECT set_config('statement_timeout', $1, true), set_config('transaction_timeout', $1, true), set_config('lock_timeout', $2, true)`,
      params: [String(REPLACE_WITHIN_MS), String(LOCK_WITHIN_MS)],
    },
    plainText,
  ];
  const end: Statement = { text: `SELECT tollgate.put_back($1, $2)`, params: [job, tries] };
  const after = [...tables.map((each) => putBack(job, each)), ...tables.map((each) => proof(job, each)), end];
  try {
    await asTenant([...before, ...tables.toReversed().map((each) => removal(job, each)), ...after]);
  } catch (error) {
    // Rows that exchange a unique value cannot take their places one after the other.
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

function putBack(job: number, { file, target }: Replaced): Statement {
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
  /** SQL, of a list `cells`. */
  value: string;
}

/** Columns of a file as this place has them. */
function typed(columns: readonly { name: string }[], target: Table): TypedColumn[] {
  const keys = new Set(target.keys.map(({ name }) => name));
  return columns.map(({ name }, index) => {
    const { type = "text" } = target.columns.find((column) => column.name === name) ?? {};
    return { name, isKey: keys.has(name), value: `(cells ->> ${index})::${type}` };
  });
}

/** Says the tenant once for all rows: as the column's default it would be proved for each of them. */
function insertion(target: Table, columns: readonly TypedColumn[], from: string): string {
  return `INSERT INTO ${id(target.name)} AS r (tenant_id, ${columns.map(({ name }) => id(name)).join(", ")}) OVERRIDING SYSTEM VALUE
          SELECT (SELECT tollgate.current_tenant()), ${columns.map(({ value }) => value).join(", ")} FROM ${from} AS s (cells)`;
}

function overwriting(target: Table, columns: readonly TypedColumn[]): string {
  const others = columns.filter(({ isKey }) => !isKey).map(({ name }) => `${id(name)} = excluded.${id(name)}`);
  const keys = target.keys.map(({ name }) => id(name)).join(", ");
  return `ON CONFLICT (${keys}) DO ${others.length === 0 ? "NOTHING" : `UPDATE SET ${others.join(", ")}`}`;
}

/** Adds rows from elsewhere. A row that is there already stays as it is, or with `overwrite` is replaced. */
export function addRows(
  target: Table,
  columns: readonly string[],
  rows: readonly (readonly (string | null)[])[],
  { overwrite }: { overwrite: boolean },
): Statement {
  const cells = typed(
    columns.map((name) => ({ name })),
    target,
  );
  const conflict = overwrite ? overwriting(target, cells) : "ON CONFLICT DO NOTHING";
  return {
    text: `${insertion(target, cells, "jsonb_array_elements($1::jsonb)")} ${conflict}`,
    params: [JSON.stringify(rows)],
  };
}
