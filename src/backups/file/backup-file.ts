// The format of a backup file: NDJSON with one header, one line for each row and each document, and one footer.
// A value is PostgreSQL's own text in a JSON string, so that every type is restored exactly; SQL NULL is JSON null.
// The footer proves that the file is complete: row count and SHA-256 of each table's lines, and the SHA-256 of all bytes
// before the footer (`head -n -1 file | sha256sum`). Readers skip blank lines and those of the audit log.
// Invariant: a value is read as exactly the value of the line, or the line is refused with a sentence that says why.
import * as z from "zod";
import { MAX_DOCUMENT_BYTES, normalisePath, refusedContentType, utf8Bytes } from "../../core/text/document-path.ts";
import { strategies } from "../../core/plans/plans.ts";
import { brokenText, membersOf, refusedTextIn, storable } from "../../core/text/text.ts";
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
  /** Whether the file has the tenant's audit log. */
  audit: z.boolean().default(false),
});
export type Header = z.infer<typeof Header>;

interface AboutDocument {
  path: string;
  contentType: string;
}
export type FileDocument = (AboutDocument & { text: string }) | (AboutDocument & { base64: string });

const Sum = z.object({ lines: z.int().nonnegative(), sha256: z.string() });
export const Footer = z.object({
  tables: z.record(z.string(), Sum),
  documents: Sum,
  rows: z.int().nonnegative(),
  sha256: z.string(),
});
export type Footer = z.infer<typeof Footer>;

/** A value of a row that names its columns. Which form counts depends on the column's type. */
export interface NamedCell {
  column: string;
  /** For all types but JSON: the text itself, the JSON source of any other value, and `null` for NULL. */
  text: string | null;
  /** For JSON columns: the JSON source of the value, and `null` for NULL. */
  json: string | null;
}
/** A row's values: a list in the order of the table's columns, or by column name. */
export type Cells = { list: readonly (string | null)[] } | { named: readonly NamedCell[] };

export type Line =
  | { kind: "header"; header: Header }
  | { kind: "row"; table: string; cells: Cells }
  | { kind: "document"; document: FileDocument }
  | { kind: "footer"; footer: Footer }
  | { kind: "blank" }
  /** `isHeader`: the line was meant to be a header. */
  | { kind: "bad"; reason: string; isHeader?: true };

export function headerLine(header: Header): string {
  return `${JSON.stringify({ tollgate: header })}\n`;
}

export function documentLine(document: FileDocument): string {
  return `${JSON.stringify({ document })}\n`;
}

/** A row of the tenant's audit log. It is for the customer: no reader stores it. */
export function auditLine(event: object): string {
  return `${JSON.stringify({ audit: event })}\n`;
}

export function footerLine(footer: Footer): string {
  return `${JSON.stringify({ end: footer })}\n`;
}

/**
 * Parses a line. A row is `["table", [values]]`. An import may also use `{"table": "…", "row": {"column": value}}` with any
 * JSON values: a JSON column gets the value itself, any other column the text of a string or the digits of a number.
 */
export function parseLine(line: string): Line {
  // A byte order mark is not part of the text: some editors write it before the first line.
  const text = line.replace(/^\uFEFF/, "");
  if (text.trim() === "") return { kind: "blank" };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return bad(`The line is not JSON.${hintOf(text)}`);
  }
  if (Array.isArray(json)) return listedRow(json);
  if (typeof json !== "object" || json === null) return bad(NO_KIND);
  if ("table" in json || "row" in json) return namedRow(json, text);
  if ("document" in json) return documentOf(json);
  if ("audit" in json && Object.keys(json).length === 1) return { kind: "blank" };
  if ("tollgate" in json) {
    const header = Header.safeParse(json.tollgate);
    if (header.success) return { kind: "header", header: header.data };
    return { ...bad("The header is not one that this version reads."), isHeader: true };
  }
  const footer = Footer.safeParse("end" in json ? json.end : undefined);
  return footer.success ? { kind: "footer", footer: footer.data } : bad(NO_KIND);
}

const NO_KIND =
  'The line is none of ["table", [values]], {"table": "…", "row": {…}}, {"document": {…}}, a header and a footer.';

function bad(reason: string): Extract<Line, { kind: "bad" }> {
  return { kind: "bad", reason };
}

/** What is often wrong with a line that is not JSON. Empty: nothing to add. Never a part of the line. */
function hintOf(text: string): string {
  if (/\}\s*,\s*$/.test(text)) return " Put no comma at the end of a line.";
  if (/\}\s*\{/.test(text)) return " Put each JSON value on a line of its own.";
  return text.trim().includes("\r") ? " End each line with LF." : "";
}

function listedRow(json: unknown[]): Line {
  const [table, cells, ...more] = json;
  const isRow = typeof table === "string" && Array.isArray(cells) && more.length === 0;
  if (!isRow || !cells.every((cell): cell is string | null => cell === null || typeof cell === "string"))
    return bad('The line is not ["table", [strings and nulls]].');
  return storableRow(table, { list: cells }, cells);
}

function namedRow(json: object, text: string): Line {
  const fields = membersOf(text);
  const source = fields.get("row");
  const { table, row } = json as { table?: unknown; row?: unknown };
  if (typeof table !== "string" || typeof row !== "object" || row === null || Array.isArray(row) || fields.size !== 2)
    return bad('The line is not {"table": "…", "row": {"column": value}}.');
  const members = source === undefined ? undefined : membersOf(source);
  if (members === undefined || fields.twice !== undefined)
    return bad("The line has the same name twice, so it is not clear which value counts.");
  if (members.twice !== undefined) return bad(`The row names the column ${shown(members.twice)} twice.`);
  const named = Array.from(members, ([column, value]): NamedCell => {
    const content = (row as Record<string, unknown>)[column];
    if (content === null) return { column, text: null, json: null };
    return { column, text: typeof content === "string" ? content : value, json: value };
  });
  return storableRow(table, { named }, row);
}

/** The row, unless PostgreSQL cannot store one of its texts. */
function storableRow(table: string, cells: Cells, values: unknown): Line {
  const refused = refusedTextIn(values);
  if (refused === undefined) return { kind: "row", table, cells };
  return bad(`The value ${shown(refused.path.join("."))} of the row ${refused.reason}.`);
}

/** A name from the file, for a message. No name of PostgreSQL's is longer. */
function shown(name: string): string {
  return storable(name, 63);
}

const DocumentFields = z.strictObject({
  path: z.string(),
  contentType: z.string(),
  text: z.string().optional(),
  base64: z.string().optional(),
});

function documentOf(json: object): Line {
  const found = z.strictObject({ document: DocumentFields }).safeParse(json).data?.document;
  if (found === undefined || (found.text === undefined) === (found.base64 === undefined))
    return bad("A document has `path`, `contentType`, and either `text` or `base64`.");
  const { contentType, text, base64 = "" } = found;
  const path = normalisePath(found.path);
  if (!path.ok) return bad(path.reason);
  const refused = refusedContentType(contentType);
  if (refused !== undefined) return bad(refused);
  const broken = text === undefined ? undefined : brokenText(text);
  if (broken !== undefined) return bad(`The document's text ${broken}.`);
  const bytes = Buffer.from(base64, "base64");
  // The decoder skips what it does not know. Only standard base64 encodes back to itself.
  if (text === undefined && bytes.toString("base64") !== base64)
    return bad("`base64` is not standard base64 with padding and without line breaks (RFC 4648, section 4).");
  const sizeBytes = text === undefined ? bytes.length : utf8Bytes(text);
  if (sizeBytes > MAX_DOCUMENT_BYTES)
    return bad(`The document has ${sizeBytes} bytes. The limit is ${MAX_DOCUMENT_BYTES}. Split it.`);
  const about = { path: path.path, contentType };
  return { kind: "document", document: text === undefined ? { ...about, base64 } : { ...about, text } };
}

/** Pairs a row's values with their columns, or says what is wrong. `columns` are the columns of a list of values. */
export function cellsOf(
  cells: Cells,
  columns: readonly { name: string; type: string }[],
): { columns: readonly string[]; values: readonly (string | null)[] } | { wrong: string } {
  if ("list" in cells) {
    const { list: values } = cells;
    return values.length === columns.length
      ? { columns: columns.map(({ name }) => name), values }
      : { wrong: `The row has ${values.length} values for ${columns.length} columns.` };
  }
  const { named } = cells;
  if (named.length === 0) return { wrong: "The row has no values." };
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  const unknown = named.find(({ column }) => !types.has(column));
  if (unknown !== undefined) return { wrong: `The table has no column ${shown(unknown.column)}.` };
  return {
    columns: named.map(({ column }) => column),
    values: named.map(({ column, text, json }) => (/^jsonb?$/.test(types.get(column) ?? "") ? json : text)),
  };
}

/**
 * Why a file cannot be imported at all, by its first bytes, in words for the sender; `undefined` when its lines may be
 * read. One sentence for each kind of file that people send instead of NDJSON.
 */
export function refusedFile(head: Uint8Array): string | undefined {
  const begins = (...bytes: number[]) => bytes.every((byte, index) => head[index] === byte);
  if (begins(0x1f, 0x8b)) return "The file is compressed with gzip. Decompress it first.";
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return "The file is compressed with zstd. Decompress it first.";
  if (begins(...ascii("BZh"))) return "The file is compressed with bzip2. Decompress it first.";
  if (begins(0xfd, ...ascii("7zXZ"))) return "The file is compressed with xz. Decompress it first.";
  if (begins(...ascii("7z"), 0xbc, 0xaf)) return "The file is a 7-Zip archive. Send NDJSON instead.";
  if (begins(0x50, 0x4b, 0x03, 0x04) || begins(0x50, 0x4b, 0x05, 0x06))
    return "The file is a ZIP archive or an Excel workbook. Send NDJSON instead.";
  if (begins(0xff, 0xfe) || begins(0xfe, 0xff) || head[0] === 0 || head[1] === 0)
    return "The file is not UTF-8 but UTF-16 or binary. Save it as UTF-8.";
  // No line of NDJSON has a control character in its first bytes.
  if (head.slice(0, 16).some((byte) => byte < 0x09 || (byte > 0x0d && byte < 0x1e)))
    return "The file is binary, not text. Send NDJSON instead.";
  const lines = new TextDecoder().decode(head).split("\n");
  const [first = "", second = ""] = lines.map((line) => line.trim()).filter((line) => line !== "");
  if (first === "") return "The file is empty.";
  if (first.startsWith("<")) return "The file is XML or HTML. Send NDJSON instead.";
  if (/^(?:--|\/\*|(?:create|insert|copy|set|begin|select)\s)/i.test(first))
    return "The file is SQL. Send NDJSON instead, one JSON value for each row.";
  if (/^\[\s*(?:$|[[{])/.test(first))
    return "The file is one JSON array. Put each item on a line of its own, for example with `jq -c '.[]'`.";
  if (first === "{")
    return "The file is JSON over several lines. Put each item on one line, for example with `jq -c .`.";
  const isCsv = [first, second].every((line) => /[,;\t]/.test(line) && !/^[[{]/.test(line.replace("\u001E", "")));
  if (isCsv)
    return 'The file looks like CSV. Send one JSON object a line: {"table": "products", "row": {"column": value}}.';
  return undefined;
}

function ascii(text: string): number[] {
  return [...Buffer.from(text)];
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
