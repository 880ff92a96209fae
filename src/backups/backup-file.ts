// The file that a tenant is backed up in: NDJSON, one header, one line for each row and each document, one footer. Values
// are PostgreSQL's own text in JSON strings, so that every type comes back as it was, and SQL's NULL is JSON's null. The
// footer has what proves the file whole: rows and SHA-256 of each table's lines, and the SHA-256 of everything before it
// (`head -n -1 file | sha256sum`). Lines of spaces are skipped.
import * as z from "zod";
import { normalisePath } from "../core/document-path.ts";
import { strategies } from "../core/plans.ts";
import { Sha256, type Sha256State } from "./sha256.ts";

const FileTable = z.object({
  name: z.string(),
  /** In the order of a line's values; the tenant's id is not among them. */
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  keys: z.array(z.object({ name: z.string(), type: z.string() })),
});
export type FileTable = z.infer<typeof FileTable>;

export const Header = z.object({
  format: z.literal(1),
  tenant: z.string(),
  plan: z.string(),
  strategy: z.enum(strategies),
  /** The last migration of the tenant's own schema; `null` on shared tables. */
  schemaVersion: z.string().nullable(),
  exportedAt: z.string(),
  /**
   * Which transactions are in the file, each with all or none of its changes: those that were committed at an instant, or
   * those that began before one. Documents have no history: they are as they were when they were read.
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

/** A row's values: in the order of its table's columns, or by column. */
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
 * Reads a line. Rows are `["table", [values]]`; for data from elsewhere also `{"table": "…", "row": {"column": value}}`,
 * whose values may be any JSON (a number with more digits than a double has must be a string).
 */
export function parseLine(text: string): Line {
  if (text.trim() === "") return { kind: "blank" };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: "bad", reason: "it is not JSON" };
  }
  if (Array.isArray(json)) {
    const [table, cells, ...more] = json as unknown[];
    const isRow = typeof table === "string" && Array.isArray(cells) && more.length === 0;
    if (!isRow || !cells.every((cell) => cell === null || typeof cell === "string"))
      return { kind: "bad", reason: 'it is not ["table", [texts and nulls]]' };
    return { kind: "row", table, cells };
  }
  const { table, row } = (json ?? {}) as { table?: unknown; row?: unknown };
  if (typeof table === "string" && typeof row === "object" && row !== null && !Array.isArray(row)) {
    return { kind: "row", table, cells: Object.fromEntries(Object.entries(row).map(([name, v]) => [name, asText(v)])) };
  }
  return Marked.safeParse(json).data ?? { kind: "bad", reason: "it is no row, document, header or footer" };
}

function asText(value: unknown): string | null {
  if (value === null || typeof value === "string") return value;
  return JSON.stringify(value);
}

/** A row's values with the columns that they are of, or what is wrong. `columns` are those that a list has. */
export function cellsOf(
  cells: Cells,
  columns: readonly string[],
): { columns: readonly string[]; values: readonly (string | null)[] } | { wrong: string } {
  if (Array.isArray(cells)) {
    const values = cells as readonly (string | null)[];
    return values.length === columns.length
      ? { columns, values }
      : { wrong: `it has ${values.length} values for ${columns.length} columns` };
  }
  const names = Object.keys(cells);
  if (names.length === 0) return { wrong: "it has no values" };
  if (names.some((name) => !columns.includes(name))) return { wrong: "its table has no such column" };
  return { columns: names, values: Object.values(cells) };
}

/** What is put away of a tally; plain JSON. */
export interface TallyState {
  all: Sha256State;
  documents: { lines: number; sha: Sha256State };
  tables: Record<string, { lines: number; sha: Sha256State }>;
}

/** Counts and sums a file as it is written or read, so that both come to the same footer. */
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
    return JSON.parse(
      JSON.stringify({ all: this.#all, documents: this.#documents, tables: Object.fromEntries(this.#tables) }),
    ) as TallyState;
  }

  /** Bytes of whole lines: of the header or blank, of documents, or of a table's rows. */
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

  /** How many rows there were so far. */
  get rows(): number {
    return [...this.#tables.values()].reduce((rows, { lines }) => rows + lines, 0);
  }

  /** What the footer says after all that was added. `tables` are those of the header: some may have no rows. */
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

/** What of a file is not as its footer says, in words; nothing when all is. */
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
