// The format of a backup file: NDJSON with one header, one line for each row and each document, and one footer.
// A value is PostgreSQL's own text in a JSON string, so that every type is restored exactly; SQL NULL is JSON null.
// The footer proves that the file is complete: row count and SHA-256 of each table's lines, and the SHA-256 of all bytes
// before the footer (`head -n -1 file | sha256sum`). Readers skip blank lines.
import * as z from "zod";
import { normalisePath } from "../core/document-path.ts";
import { strategies } from "../core/plans.ts";
import { Sha256, Sha256State } from "./sha256.ts";

const FileTable = z.object({
  name: z.string(),
  /** In the order of a line's values. Without `tenant_id`. */
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  keys: z.array(z.object({ name: z.string(), type: z.string() })),
});
export type FileTable = z.infer<typeof FileTable>;

export const Header = z.object({
  format: z.literal(1),
  tenant: z.string(),
  plan: z.string(),
  strategy: z.enum(strategies),
  /** The newest migration of the tenant's own schema; `null` on shared tables. */
  schemaVersion: z.string().nullable(),
  exportedAt: z.string(),
  /**
   * Which transactions the file contains: those committed by an instant, or those that began before one. A transaction is
   * in the file with all of its changes or with none. Documents have no history: each is as it was when it was read.
   */
  recoveryPoint: z.union([z.object({ committedBy: z.string() }), z.object({ begunBefore: z.string() })]),
  tables: z.array(FileTable),
  documents: z.boolean(),
});
export type Header = z.infer<typeof Header>;

const about = {
  path: z.string().refine((path) => normalisePath(path).ok),
  contentType: z.string(),
};
export const FileDocument = z.union([
  z.object({ ...about, text: z.string() }),
  z.object({ ...about, base64: z.string() }),
]);
export type FileDocument = z.infer<typeof FileDocument>;

const Sum = z.object({ lines: z.int().nonnegative(), sha256: z.string() });
export const Footer = z.object({
  tables: z.record(z.string(), Sum),
  documents: Sum,
  rows: z.int().nonnegative(),
  sha256: z.string(),
});
export type Footer = z.infer<typeof Footer>;

/** A row's values: a list in the order of the table's columns, or by column name. */
export type Cells = readonly (string | null)[] | Readonly<Record<string, string | null>>;

export type Line =
  | { kind: "header"; header: Header }
  | { kind: "row"; table: string; cells: Cells }
  | { kind: "document"; document: FileDocument }
  | { kind: "footer"; footer: Footer }
  | { kind: "blank" }
  | { kind: "bad"; reason: string };

const Marked = z.union([
  z.object({ tollgate: Header }).transform(({ tollgate }) => ({ kind: "header", header: tollgate }) as const),
  z.object({ document: FileDocument }).transform(({ document }) => ({ kind: "document", document }) as const),
  z.object({ end: Footer }).transform(({ end }) => ({ kind: "footer", footer: end }) as const),
]);

export function headerLine(header: Header): string {
  return `${JSON.stringify({ tollgate: header })}\n`;
}

export function documentLine(document: FileDocument): string {
  return `${JSON.stringify({ document })}\n`;
}

export function footerLine(footer: Footer): string {
  return `${JSON.stringify({ end: footer })}\n`;
}

/**
 * Parses a line. A row is `["table", [values]]`. An import may also use `{"table": "…", "row": {"column": value}}` with any
 * JSON values; a number with more digits than a double holds must be a string.
 */
export function parseLine(text: string): Line {
  if (text.trim() === "") return { kind: "blank" };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: "bad", reason: "the line is not JSON" };
  }
  if (Array.isArray(json)) {
    const [table, cells, ...more] = json as unknown[];
    const isRow = typeof table === "string" && Array.isArray(cells) && more.length === 0;
    if (!isRow || !cells.every((cell) => cell === null || typeof cell === "string"))
      return { kind: "bad", reason: 'the line is not ["table", [strings and nulls]]' };
    return { kind: "row", table, cells };
  }
  const { table, row } = (json ?? {}) as { table?: unknown; row?: unknown };
  if (typeof table === "string" && typeof row === "object" && row !== null && !Array.isArray(row)) {
    return { kind: "row", table, cells: Object.fromEntries(Object.entries(row).map(([name, v]) => [name, asText(v)])) };
  }
  return Marked.safeParse(json).data ?? { kind: "bad", reason: "the line is not a row, document, header or footer" };
}

function asText(value: unknown): string | null {
  if (value === null || typeof value === "string") return value;
  return JSON.stringify(value);
}

/** Pairs a row's values with their columns, or says what is wrong. `columns` are the columns of a list of values. */
export function cellsOf(
  cells: Cells,
  columns: readonly string[],
): { columns: readonly string[]; values: readonly (string | null)[] } | { wrong: string } {
  if (Array.isArray(cells)) {
    const values = cells as readonly (string | null)[];
    return values.length === columns.length
      ? { columns, values }
      : { wrong: `the row has ${values.length} values for ${columns.length} columns` };
  }
  const names = Object.keys(cells);
  if (names.length === 0) return { wrong: "the row has no values" };
  if (names.some((name) => !columns.includes(name))) return { wrong: "the table has no such column" };
  return { columns: names, values: Object.values(cells) };
}

const SectionState = z.object({ lines: z.int().nonnegative(), sha: Sha256State });
/** The saved state of a tally. Plain JSON. */
export const TallyState = z.object({
  all: Sha256State,
  documents: SectionState,
  tables: z.record(z.string(), SectionState),
});
export type TallyState = z.infer<typeof TallyState>;

/** Counts and hashes the lines of a file. Writer and reader use the same tally, so both compute the same footer. */
export class Tally {
  readonly #all: Sha256;
  readonly #documents: { lines: number; sha: Sha256 };
  readonly #tables: Map<string, { lines: number; sha: Sha256 }>;

  constructor(state?: TallyState) {
    this.#all = new Sha256(state?.all);
    this.#documents = { lines: state?.documents.lines ?? 0, sha: new Sha256(state?.documents.sha) };
    const tables = Object.entries(state?.tables ?? {});
    this.#tables = new Map(tables.map(([name, { lines, sha }]) => [name, { lines, sha: new Sha256(sha) }]));
  }

  toJSON(): TallyState {
    const state = ({ lines, sha }: { lines: number; sha: Sha256 }) => ({ lines, sha: sha.toJSON() });
    return {
      all: this.#all.toJSON(),
      documents: state(this.#documents),
      tables: Object.fromEntries(Array.from(this.#tables, ([name, table]) => [name, state(table)])),
    };
  }

  /** Adds whole lines: documents, rows of a table, or other lines (header, blank). */
  add(bytes: Uint8Array, of: { documents: number } | { table: string; rows: number } | "other"): void {
    this.#all.update(bytes);
    if (of === "other") return;
    const section = "table" in of ? this.#table(of.table) : this.#documents;
    section.lines += "table" in of ? of.rows : of.documents;
    section.sha.update(bytes);
  }

  #table(name: string): { lines: number; sha: Sha256 } {
    const known = this.#tables.get(name) ?? { lines: 0, sha: new Sha256() };
    this.#tables.set(name, known);
    return known;
  }

  /** Number of rows so far. */
  get rows(): number {
    return [...this.#tables.values()].reduce((rows, { lines }) => rows + lines, 0);
  }

  /** The footer of the lines so far. `tables` are the header's, so that a table without rows is listed, too. */
  footer(tables: readonly { name: string }[]): Footer {
    const sum = ({ lines, sha }: { lines: number; sha: Sha256 }) => ({ lines, sha256: sha.hex() });
    for (const { name } of tables) this.#table(name);
    return {
      tables: Object.fromEntries(Array.from(this.#tables, ([name, table]) => [name, sum(table)])),
      documents: sum(this.#documents),
      rows: this.rows,
      sha256: this.#all.hex(),
    };
  }
}

/** Differences between a file and its footer, in words. An empty list means that the file is intact. */
export function damages(found: Footer, footer: Footer): string[] {
  const wrong = Object.keys({ ...found.tables, ...footer.tables }).flatMap((table) => {
    const [is, should] = [found.tables[table], footer.tables[table]];
    if (is?.lines !== should?.lines)
      return [`table ${table} has ${is?.lines ?? 0} rows instead of ${should?.lines ?? 0}`];
    return is?.sha256 === should?.sha256 ? [] : [`the rows of table ${table} have changed`];
  });
  if (found.documents.lines !== footer.documents.lines || found.documents.sha256 !== footer.documents.sha256)
    wrong.push("the documents have changed");
  if (wrong.length === 0 && (found.sha256 !== footer.sha256 || found.rows !== footer.rows))
    wrong.push("the file has changed");
  return wrong;
}
