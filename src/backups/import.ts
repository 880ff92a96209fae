// Imports data that a tenant brings: rows of a file are added to the tenant's while it works, through the same gate as its
// tools' statements. Rows that are there already stay, unless it was asked otherwise. What is wrong with a line is said of
// that line, and all others go in.
import { countLines, readLines, writeDocument } from "./bucket.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { type Table, tablesOf } from "../tenant-db/copy.ts";
import { fileColumns, plainText } from "./history.ts";
import { addRows } from "./staged-rows.ts";
import { type Line, cellsOf, parseLine } from "./backup-file.ts";
import type { TenantDb } from "../tools/tool.ts";
import { DONE, GOES_ON, JobRefused, type Work } from "./job.ts";
import type { Piece } from "../moves/tenant-move.ts";

/** Of rows in one statement: a bad one among them costs some twenty more. */
const BATCH_ROWS = 500;
const BATCH_CHARS = 500_000;
/** Of bad lines that are told one by one. */
const MAX_ERRORS = 100;

interface ImportRequest {
  key: string;
  overwrite: boolean;
}

export interface ImportProgress {
  /** Lines that were handled, and all that there are. */
  lines: { done: number; of: number };
  /** The table of the last row. */
  table: string | null;
  failed: number;
  errors: { line: number; error: string }[];
}

interface Position extends ImportProgress {
  offset: number;
  /** The header's columns, which say what a list of values means. */
  columns: Record<string, string[]>;
}

interface Batch {
  target: Table;
  columns: readonly string[];
  rows: { line: number; values: readonly (string | null)[] }[];
  chars: number;
}

export async function importPiece(work: Work): Promise<Piece> {
  const { env, job, host } = work;
  const { key, overwrite } = job.request as unknown as ImportRequest;
  if (!("offset" in job.progress)) {
    const of = await countLines(env.BACKUPS, key);
    if (of === undefined) throw new JobRefused("There is no such file.");
    const start: Position = { lines: { done: 0, of }, table: null, failed: 0, errors: [], offset: 0, columns: {} };
    await work.keep(start);
    return GOES_ON;
  }
  const position = structuredClone(job.progress) as unknown as Position;
  const { rows: db } = await host.place();
  const tables = await tablesOf((statements) => db.transaction(statements));
  const targets = new Map(tables.map((table) => [table.name, table]));
  const bad = (line: number, error: string): void => {
    position.failed += 1;
    if (position.errors.length < MAX_ERRORS) position.errors.push({ line, error });
  };

  while (Date.now() < work.untilMs) {
    const window = await readLines(env.BACKUPS, key, position.offset);
    if (window === undefined) throw new JobRefused("The file is gone.");
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
  return GOES_ON;
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
  if (target === undefined) return { wrong: "there is no such table" };
  const own = fileColumns(target).map(({ name }) => name);
  const found = cellsOf(cells, Array.isArray(cells) ? (listed[table] ?? own) : own);
  if ("wrong" in found) return found;
  return found.columns.every((name) => own.includes(name))
    ? { target, ...found }
    : { wrong: "its table has no such column" };
}

/** Adds rows; when the database refuses them, halves of them, until it is known which are bad. */
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
    // A row twice among them, a value that is none of its column's, a rule of the table that is broken, a row too large.
    if (!/^(2[123]|54)/.test(sqlState)) throw error;
    if (rows.length === 1) return bad(first.line, `the table does not take it (SQLSTATE ${sqlState})`);
    const half = rows.length >> 1;
    await add(db, { target, columns, rows: rows.slice(0, half), chars: 0 }, overwrite, bad);
    await add(db, { target, columns, rows: rows.slice(half), chars: 0 }, overwrite, bad);
  }
}
