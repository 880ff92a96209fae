// Tables as CSV: a reader gets back what was written, and a spreadsheet runs nothing of it.
import fc from "fast-check";
import { expect, test } from "vitest";
import { csvOf } from "../../src/core/text/csv.ts";

/** A reader of RFC 4180, as strict as its grammar. */
function read(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  const cell = /(?:"(?<quoted>(?:[^"]|"")*)"|(?<plain>[^",\r\n]*))(?<end>,|\r\n)/gy;
  let at = 0;
  while (at < text.length) {
    cell.lastIndex = at;
    const { groups } = cell.exec(text) ?? {};
    if (groups === undefined) throw new Error(`not CSV at ${at}: ${JSON.stringify(text.slice(at, at + 20))}`);
    at = cell.lastIndex;
    row.push(groups["quoted"]?.replaceAll('""', '"') ?? groups["plain"] ?? "");
    if (groups["end"] === ",") continue;
    rows.push(row);
    row = [];
  }
  return rows;
}

test("a reader gets every text back, with an apostrophe only before what a spreadsheet would run", () => {
  const texts = fc.array(fc.string({ unit: "grapheme" }), { minLength: 2, maxLength: 2 });
  fc.assert(
    fc.property(fc.array(texts), (rows) => {
      const [, ...back] = read(csvOf(["a", "b"], rows));
      const unmarked = back.map((row) =>
        row.map((text) => text.replace(/^'(?=\s*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])/, "")),
      );
      expect(unmarked).toEqual(rows);
    }),
  );
});

test.each([
  "=1+1",
  "+1",
  "-1",
  "@SUM(A1)",
  "\t=1",
  "\r=1",
  "\n=1",
  " =1",
  "＝1",
  `=HYPERLINK("https://evil.example","x")`,
])("no spreadsheet runs the text %j", (text) => {
  const [, [cell] = []] = read(csvOf(["name"], [[text]]));
  expect(cell).toBe(`'${text}`);
});

test("numbers keep their sign, and lines end as the standard says", () => {
  expect(
    csvOf(
      ["a", "b"],
      [
        [-1.5, null],
        [0, 'say "hi", twice'],
      ],
    ),
  ).toBe('a,b\r\n-1.5,\r\n0,"say ""hi"", twice"\r\n');
  expect(csvOf(["a"], [])).toBe("a\r\n");
});
