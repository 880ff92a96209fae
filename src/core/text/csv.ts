// Tables as CSV (RFC 4180) that a spreadsheet opens. Pure.
//
// Invariant: no cell is a formula. Spreadsheets run a text that begins with one of these signs, so it gets an apostrophe before it.

/** A text or a number. `null`: an empty cell. */
export type CsvCell = string | number | null;

const FORMULA = /^\s*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/;
const NEEDS_QUOTES = /[",\r\n]|^\s|\s$/;

/** The table with its header. Each line, the last one too, ends with CRLF. */
export function csvOf(header: readonly string[], rows: Iterable<readonly CsvCell[]>): string {
  return [header, ...rows].map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");
}

/** A number is never a formula, and keeps its sign. */
function csvCell(cell: CsvCell): string {
  if (cell === null) return "";
  if (typeof cell === "number") return String(cell);
  const safe = FORMULA.test(cell) ? `'${cell}` : cell;
  return NEEDS_QUOTES.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
