// Writes the rows of an import in batches. When the database refuses a batch, it is bisected until the bad rows are found;
// each is reported with what to change. Invariant: a report contains names of columns and constraints, never a value.
import * as z from "zod";
import { SqlError } from "../adapters/neon.ts";
import { type Table, literal } from "../tenant-db/copy.ts";
import type { TenantDb } from "../tools/tool.ts";
import { plainText } from "./history.ts";
import { addRows } from "./staged-rows.ts";

export interface Batch {
  target: Table;
  columns: readonly string[];
  rows: { line: number; values: readonly (string | null)[] }[];
  chars: number;
}

/** Takes the refused lines. While it is full, it only counts them. */
export interface Report {
  readonly isFull: boolean;
  add(line: number, error: string): void;
}

/**
 * SQLSTATE classes that blame a row: 21 and 22 bad values, 23 and 44 a broken constraint, 54 a row that is too large, P0001
 * a refusal by the table's own trigger.
 */
const blamesRow = /^(2[123]|44|54|P0001)/;

/** Inserts the rows of a batch. Throws when the database refuses it for a reason that is in no row. */
export async function addBatch(
  db: TenantDb,
  batch: Batch,
  options: { overwrite: boolean; report: Report },
): Promise<void> {
  const { target, columns, rows } = batch;
  const [first] = rows;
  if (first === undefined) return;
  const values = rows.map((row) => row.values);
  try {
    await db.transaction([plainText, addRows(target, columns, values, options)]);
  } catch (error) {
    if (!(error instanceof SqlError) || !blamesRow.test(error.sqlState)) throw error;
    const { report } = options;
    if (rows.length === 1) {
      const why = report.isFull ? "" : await whyRefused(db, error, target, columns, first.values);
      report.add(first.line, `${why} (SQLSTATE ${error.sqlState})`);
      return;
    }
    const half = rows.length >> 1;
    await addBatch(db, { ...batch, rows: rows.slice(0, half) }, options);
    await addBatch(db, { ...batch, rows: rows.slice(half) }, options);
  }
}

/** Says what is wrong with a row, and what to do. */
async function whyRefused(
  db: TenantDb,
  { sqlState, constraint, column }: SqlError,
  target: Table,
  columns: readonly string[],
  values: readonly (string | null)[],
): Promise<string> {
  const named = constraint === undefined ? "" : ` (constraint ${constraint})`;
  switch (sqlState) {
    case "23502":
      return `The column ${column ?? ""} needs a value.`;
    case "23503":
      return `The row refers to a row that does not exist${named}. Import that row first.`;
    case "23505":
      return `Another row has the same unique value${named}. Change it, or import with \`overwrite\`.`;
    case "23514":
      return `A value breaks a rule of the table${named}. Correct it.`;
    case "P0001":
      return "A trigger of the table refuses the row.";
    default:
  }
  if (sqlState.startsWith("54")) return "The row, or a value that is indexed, is too large. Shorten it.";
  const wrong = await invalidColumns(db, target, columns, values);
  if (wrong.length === 0) return "A value does not fit its column exactly. Correct it.";
  const [{ name, type }, ...more] = wrong as [Wrong, ...Wrong[]];
  const others = more.length === 0 ? "" : `, and so for ${more.map((other) => other.name).join(", ")}`;
  return `The value of the column ${name} is not a valid ${type}${others}. Correct it.`;
}

const Wrong = z.object({ name: z.string(), type: z.string() });
type Wrong = z.infer<typeof Wrong>;

/** The columns whose values are no texts of their types. */
async function invalidColumns(
  db: TenantDb,
  target: Table,
  columns: readonly string[],
  values: readonly (string | null)[],
): Promise<Wrong[]> {
  const types = new Map(target.columns.map(({ name, type }) => [name, type]));
  const checks = columns.map((name, index) => {
    const type = literal(types.get(name) ?? "text");
    return `SELECT ${literal(name)} AS name, ${type} AS type WHERE NOT pg_input_is_valid(($1::text[])[${index + 1}], ${type})`;
  });
  const [, rows = []] = await db.transaction([plainText, { text: checks.join(" UNION ALL "), params: [values] }]);
  return rows.map((row) => Wrong.parse(row));
}
