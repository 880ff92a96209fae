// Imports a file of rows and documents into a tenant while the tenant works. The rows pass the same gate as the statements
// of its tools. Existing rows stay unless `overwrite` is set. A bad line is reported with its number; all other lines are
// imported.
import * as z from "zod";
import { countLines, readLines, writeDocument } from "./bucket.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { type Table, tablesOf } from "../tenant-db/copy.ts";
import { fileColumns, plainText } from "./history.ts";
import { addRows } from "./staged-rows.ts";
import { type Line, cellsOf, parseLine } from "./backup-file.ts";
import type { TenantDb } from "../tools/tool.ts";
import { JobRefused, type JobRun } from "./job.ts";
import { DONE, NEXT, type Step } from "../control/work.ts";

/** Rows in one statement. One bad row among 500 costs about twenty more statements, because the batch is bisected. */
const BATCH_ROWS = 500;
/** Characters in one statement: far below the size limit of a request to Neon. */
const BATCH_CHARS = 500_000;
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
  errors: z.array(z.object({ line: z.int(), error: z.string() })),
});
type ImportProgress = z.infer<typeof ImportProgress>;

const Position = ImportProgress.extend({
  offset: z.int(),
  /** The header's columns of each table, in the order of a list of values. */
  columns: z.record(z.string(), z.array(z.string())),
});
type Position = z.infer<typeof Position>;

interface Batch {
  target: Table;
  columns: readonly string[];
  rows: { line: number; values: readonly (string | null)[] }[];
  chars: number;
}

/** Runs the next step of an import. Throws `JobRefused` when the file does not exist. */
export async function importStep(work: JobRun): Promise<Step> {
  const { job, host } = work;
  const { env } = work.context;
  const { key, overwrite } = ImportRequest.parse(job.request);
  if (!("offset" in job.progress)) {
    const of = await countLines(env.BACKUPS, key);
    if (of === undefined) throw new JobRefused("The file does not exist.");
    const start: Position = { lines: { done: 0, of }, table: null, failed: 0, errors: [], offset: 0, columns: {} };
    await work.keep(start);
    return NEXT;
  }
  const position = Position.parse(job.progress);
  const { rows: db } = await host.withPlacement();
  const tables = await tablesOf((statements) => db.transaction(statements));
  const targets = new Map(tables.map((table) => [table.name, table]));
  const bad = (line: number, error: string): void => {
    position.failed += 1;
    if (position.errors.length < MAX_ERRORS) position.errors.push({ line, error });
  };

  while (Date.now() < work.untilMs) {
    const window = await readLines(env.BACKUPS, key, position.offset);
    if (window === undefined) throw new JobRefused("The file no longer exists.");
    let batch: Batch | undefined;
    const flush = async (): Promise<void> => {
      if (batch !== undefined) await add(db, batch, overwrite, bad);
      batch = undefined;
    };
    for (const { text } of window.lines) {
      position.lines.done += 1;
      const line = position.lines.done;
      const parsed = parseLine(text);
      if (parsed.kind !== "row") {
        if (parsed.kind === "bad") bad(line, parsed.reason);
        if (parsed.kind === "document")
          await writeDocument(env.FILES, work.tenantId, parsed.document, { keep: !overwrite });
        if (parsed.kind === "header") position.columns = columnsOf(parsed.header.tables);
        continue;
      }
      const row = rowOf(parsed, targets, position.columns);
      if ("wrong" in row) {
        bad(line, row.wrong);
        continue;
      }
      const fits = batch?.target === row.target && batch.columns.join() === row.columns.join();
      if (!fits || (batch?.rows.length ?? 0) >= BATCH_ROWS || (batch?.chars ?? 0) > BATCH_CHARS) await flush();
      batch ??= { target: row.target, columns: row.columns, rows: [], chars: 0 };
      batch.rows.push({ line, values: row.values });
      batch.chars += text.length;
      position.table = row.target.name;
    }
    await flush();
    position.errors.sort((one, other) => one.line - other.line);
    position.offset = window.end;
    if (window.atEnd) {
      const { lines, table, failed, errors } = position;
      await work.keep(position);
      await work.finish({ lines, table, failed, errors } satisfies ImportProgress);
      return DONE;
    }
    await work.keep(position);
  }
  return NEXT;
}

function columnsOf(
  tables: readonly { name: string; columns: readonly { name: string }[] }[],
): Record<string, string[]> {
  return Object.fromEntries(tables.map(({ name, columns }) => [name, columns.map((column) => column.name)]));
}

function rowOf(
  { table, cells }: Extract<Line, { kind: "row" }>,
  targets: ReadonlyMap<string, Table>,
  listed: Readonly<Record<string, string[]>>,
): { target: Table; columns: readonly string[]; values: readonly (string | null)[] } | { wrong: string } {
  const target = targets.get(table);
  if (target === undefined) return { wrong: "the table does not exist" };
  const own = fileColumns(target).map(({ name }) => name);
  const found = cellsOf(cells, Array.isArray(cells) ? (listed[table] ?? own) : own);
  if ("wrong" in found) return found;
  return found.columns.every((name) => own.includes(name))
    ? { target, ...found }
    : { wrong: "the table has no such column" };
}

/** Inserts rows. When the database refuses a batch, bisects it until the bad rows are found. */
async function add(
  db: TenantDb,
  { target, columns, rows }: Batch,
  overwrite: boolean,
  bad: (line: number, error: string) => void,
): Promise<void> {
  const [first] = rows;
  if (first === undefined) return;
  const values = rows.map((row) => row.values);
  try {
    await db.transaction([plainText, addRows(target, columns, values, { overwrite })]);
  } catch (error) {
    const sqlState = sqlStateOf(error) ?? "";
    // Only these classes blame a row: 21 and 22 bad values, 23 a broken constraint, 54 a row that is too large.
    if (!/^(2[123]|54)/.test(sqlState)) throw error;
    if (rows.length === 1) return bad(first.line, `the table refused the row (SQLSTATE ${sqlState})`);
    const half = rows.length >> 1;
    await add(db, { target, columns, rows: rows.slice(0, half), chars: 0 }, overwrite, bad);
    await add(db, { target, columns, rows: rows.slice(half), chars: 0 }, overwrite, bad);
  }
}
