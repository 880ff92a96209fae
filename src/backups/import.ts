// Imports a file of rows and documents into a tenant while the tenant works. The rows pass the same gate as the statements
// of its tools. Existing rows stay unless `overwrite` is set. A bad line is reported with its number; all other lines are
// imported. A file of another kind, and one whose lines are bad for the greater part, makes the job fail.
// Invariant: a value is stored as the line has it, or the line is refused.
import * as z from "zod";
import { storable } from "../core/text/text.ts";
import { countLines, readHead, readLines, writeDocument } from "./bucket.ts";
import { type Table, literal, tablesOf } from "../tenant-db/copy.ts";
import { fileColumns, plainText } from "./history.ts";
import { type Line, cellsOf, parseLine, refusedFile } from "./file/backup-file.ts";
import { SqlError } from "../adapters/neon.ts";
import { howToWrite, inexactValue } from "./file/exact-value.ts";
import { addRows } from "./staged-rows.ts";
import type { TenantDb } from "../tools/tool.ts";
import { JobRefused, type JobRun } from "./job.ts";
import { DONE, NEXT, type Step } from "../control/work.ts";

/** Rows in one statement. One bad row among 500 costs about twenty more statements, because the batch is bisected. */
const BATCH_ROWS = 500;
/** Characters in one statement: far below the size limit of a request to Neon. */
const BATCH_CHARS = 500_000;
/** A row of this length still fits into a request of 10 MiB to Neon, in which most characters may need an escape. */
const MAX_ROW_CHARS = 2 * 1024 * 1024;
/** Bad lines that are reported one by one. The rest are only counted, so that the job's row stays small. */
const MAX_ERRORS = 100;

export const ImportRequest = z.object({
  /** The file in the bucket. */
  key: z.string(),
  overwrite: z.boolean(),
});
export type ImportRequest = z.infer<typeof ImportRequest>;

/** Where an import stands. Clients see it. */
export const ImportProgress = z.object({
  /** Lines done, and lines in the file. */
  lines: z.object({ done: z.int(), of: z.int() }),
  /** The table of the newest row. */
  table: z.string().nullable(),
  failed: z.int(),
  /** Rows and documents that were there already and stayed. A step that is repeated counts its own rows, too. */
  kept: z.int(),
  errors: z.array(z.object({ line: z.int(), error: z.string() })),
});
type ImportProgress = z.infer<typeof ImportProgress>;

const Position = ImportProgress.extend({
  offset: z.int(),
  /** Lines that are rows, documents or bad. */
  items: z.int(),
  /**
   * The header's columns of each table, in the order of a list of values. `none`: no header so far. `refused`: the line
   * that is or should be the header cannot be read.
   */
  header: z.union([z.enum(["none", "refused"]), z.record(z.string(), z.array(z.string()))]),
});
type Position = z.infer<typeof Position>;

const atStart = {
  table: null,
  failed: 0,
  kept: 0,
  errors: [],
  offset: 0,
  items: 0,
  header: "none",
} satisfies Partial<Position>;

/** Runs the next step of an import. Throws `JobRefused` when the file does not exist or cannot be imported. */
export async function importStep(work: JobRun): Promise<Step> {
  const { job, host } = work;
  const { env } = work.context;
  const { key, overwrite } = ImportRequest.parse(job.request);
  if (!("offset" in job.progress)) {
    const head = await readHead(env.BACKUPS, key);
    const of = await countLines(env.BACKUPS, key);
    if (head === undefined || of === undefined) throw new JobRefused("The file does not exist.");
    const refused = refusedFile(head);
    if (refused !== undefined) throw new JobRefused(`${refused} Nothing was imported.`);
    await work.keep({ ...atStart, lines: { done: 0, of } } satisfies Position);
    return NEXT;
  }
  const position = Position.parse(job.progress);
  const { rows: db } = await host.withPlacement();
  const tables = await tablesOf((statements) => db.transaction(statements));
  const targets = new Map(tables.map((table) => [table.name, table]));
  const report = {
    get isFull(): boolean {
      return position.errors.length >= MAX_ERRORS;
    },
    add(line: number, error: string): void {
      position.failed += 1;
      if (!report.isFull) position.errors.push({ line, error });
    },
  };

  while (Date.now() < work.untilMs) {
    const window = await readLines(env.BACKUPS, key, position.offset);
    if (window === undefined) throw new JobRefused("The file no longer exists.");
    let batch: Batch | undefined;
    const flush = async (): Promise<void> => {
      if (batch !== undefined) position.kept += await addBatch(db, batch, { overwrite, report });
      batch = undefined;
    };
    let read = 0;
    for (const { bytes, content } of window.lines) {
      // Rows that are refused one by one take long, so a step may end within a window.
      if (read > 0 && Date.now() >= work.untilMs) break;
      read += 1;
      position.offset += bytes.length;
      position.lines.done += 1;
      const line = position.lines.done;
      const parsed = "text" in content ? parseLine(content.text) : ({ kind: "bad", reason: content.refused } as const);
      if (parsed.kind === "header") position.header = columnsOf(parsed.header.tables);
      if (parsed.kind === "header" || parsed.kind === "blank" || parsed.kind === "footer") continue;
      position.items += 1;
      if (parsed.kind === "bad") {
        report.add(line, parsed.reason);
        // A list after it would be read with the wrong columns.
        if ("isHeader" in parsed || (position.items === 1 && position.header === "none")) position.header = "refused";
        continue;
      }
      if (parsed.kind === "document") {
        const isKept = await writeDocument(env.FILES, work.tenantId, parsed.document, { keep: !overwrite });
        if (isKept) position.kept += 1;
        continue;
      }
      const row = rowOf(parsed, targets, position.header);
      const chars = "text" in content ? content.text.length : 0;
      if ("wrong" in row || chars > MAX_ROW_CHARS) {
        report.add(line, "wrong" in row ? row.wrong : `The row is longer than ${MAX_ROW_CHARS} characters.`);
        continue;
      }
      const fits = batch?.target === row.target && batch.columns.join() === row.columns.join();
      if (!fits || (batch?.rows.length ?? 0) >= BATCH_ROWS || (batch?.chars ?? 0) > BATCH_CHARS) await flush();
      batch ??= { target: row.target, columns: row.columns, rows: [], chars: 0 };
      batch.rows.push({ line, values: row.values });
      batch.chars += chars;
      position.table = row.target.name;
    }
    await flush();
    position.errors.sort((one, other) => one.line - other.line);
    const isWhole = read === window.lines.length;
    if (isWhole) position.offset = window.end;
    await work.keep(position);
    if (isWhole && window.atEnd) {
      const { lines, table, failed, kept, errors, items } = position;
      if (failed * 2 > items) throw new JobRefused(mostlyRefused(position));
      await work.finish({ lines, table, failed, kept, errors } satisfies ImportProgress);
      return DONE;
    }
  }
  return NEXT;
}

function mostlyRefused({ failed, items, errors: [first] }: Position): string {
  const example = first === undefined ? "" : ` Line ${first.line}: ${first.error}`;
  return `${failed} of ${items} lines were refused; the others are imported. Correct the file and import it again.${example}`;
}

function columnsOf(
  tables: readonly { name: string; columns: readonly { name: string }[] }[],
): Record<string, string[]> {
  return Object.fromEntries(tables.map(({ name, columns }) => [name, columns.map((column) => column.name)]));
}

function rowOf(
  { table, cells }: Extract<Line, { kind: "row" }>,
  targets: ReadonlyMap<string, Table>,
  header: Position["header"],
): { target: Table; columns: readonly string[]; values: readonly (string | null)[] } | { wrong: string } {
  const target = targets.get(table);
  if (target === undefined) return { wrong: "The table does not exist." };
  const own = fileColumns(target);
  if ("named" in cells) {
    const found = cellsOf(cells, own);
    return "wrong" in found ? found : exactRow(target, found);
  }
  if (header === "refused")
    return { wrong: "The columns of the list are not known, because the header cannot be read. Correct the header." };
  const listed = header === "none" ? own.map(({ name }) => name) : header[table];
  if (listed === undefined) return { wrong: "The header does not list the table." };
  if (new Set(listed).size < listed.length) return { wrong: "The header names a column of the table twice." };
  const found = cellsOf(
    cells,
    listed.map((name) => ({ name, type: "text" })),
  );
  if ("wrong" in found) return found;
  const unknown = found.columns.find((name) => !own.some((column) => column.name === name));
  return unknown === undefined
    ? exactRow(target, found)
    : { wrong: `The table has no column ${storable(unknown, 63)}.` };
}

/** The row, unless a column would hold another value than the line has. */
function exactRow(target: Table, row: { columns: readonly string[]; values: readonly (string | null)[] }) {
  const types = new Map(target.columns.map(({ name, type }) => [name, type]));
  for (const [index, name] of row.columns.entries()) {
    const value = row.values[index] ?? null;
    const reason = value === null ? undefined : inexactValue(value, types.get(name) ?? "text");
    if (reason !== undefined) return { wrong: `The column ${name} cannot hold the value exactly. ${reason}` };
  }
  return { target, ...row };
}

// ---- the rows of a batch. Invariant: a report contains names of columns and constraints, never a value.

interface Batch {
  target: Table;
  columns: readonly string[];
  rows: { line: number; values: readonly (string | null)[] }[];
  chars: number;
}

/** Takes the refused lines. While it is full, it only counts them. */
interface Report {
  readonly isFull: boolean;
  add(line: number, error: string): void;
}

/**
 * SQLSTATE classes that blame a row: 21 and 22 bad values, 23 and 44 a broken constraint, 54 a row that is too large, P0001
 * a refusal by the table's own trigger.
 */
const blamesRow = /^(2[123]|44|54|P0001)/;

/**
 * Inserts the rows of a batch. Returns how many of them were there already and stayed. Throws when the database refuses it
 * for a reason that is in no row.
 */
async function addBatch(db: TenantDb, batch: Batch, options: { overwrite: boolean; report: Report }): Promise<number> {
  const { target, columns, rows } = batch;
  const [first] = rows;
  if (first === undefined) return 0;
  const values = rows.map((row) => row.values);
  try {
    const [, added = []] = await db.transaction([plainText, addRows(target, columns, values, options)]);
    return rows.length - added.length;
  } catch (error) {
    if (!(error instanceof SqlError) || !blamesRow.test(error.sqlState)) throw error;
    const { report } = options;
    if (rows.length === 1) {
      const why = report.isFull ? "" : await whyRefused(db, error, target, columns, first.values);
      report.add(first.line, `${why} (SQLSTATE ${error.sqlState})`);
      return 0;
    }
    const half = rows.length >> 1;
    const kept = await addBatch(db, { ...batch, rows: rows.slice(0, half) }, options);
    return kept + (await addBatch(db, { ...batch, rows: rows.slice(half) }, options));
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
  return `The value of the column ${name} is not a valid ${type}${others}. Correct it.${howToWrite(type)}`;
}

const Wrong = z.object({ name: z.string(), type: z.string() });
type Wrong = z.infer<typeof Wrong>;

/** The columns whose values are no texts of their types. Empty when the database does not say. */
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
  try {
    const [, rows = []] = await db.transaction([plainText, { text: checks.join(" UNION ALL "), params: [values] }]);
    return rows.map((row) => Wrong.parse(row));
  } catch (error) {
    if (error instanceof SqlError) return [];
    throw error;
  }
}
