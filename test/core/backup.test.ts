// The format of backup files: lines are read back as they were written, and the footer detects every change.
import { createHash } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  Tally,
  cellsOf,
  damages,
  documentLine,
  footerLine,
  headerLine,
  parseLine,
} from "../../src/backups/backup-file.ts";
import { Sha256, Sha256State } from "../../src/backups/sha256.ts";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

test("a digest is SHA-256 however the bytes are split and whenever the state is saved and resumed", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (pieces) => {
      let sha = new Sha256();
      for (const piece of pieces) {
        sha.update(piece);
        sha = new Sha256(Sha256State.parse(JSON.parse(JSON.stringify(sha))));
      }
      expect(sha.hex()).toBe(createHash("sha256").update(Buffer.concat(pieces)).digest("hex"));
    }),
  );
});

const anyText = fc.string({ unit: "binary" });

test("a document with any text and a row with any strings and nulls are read back unchanged", () => {
  fc.assert(
    fc.property(anyText, fc.array(fc.option(anyText)), (text, cells) => {
      const document = { path: "a/b.md", contentType: "text/plain", text };
      expect(parseLine(documentLine(document))).toEqual({ kind: "document", document });
      expect(parseLine(JSON.stringify(["t", cells]))).toEqual({ kind: "row", table: "t", cells });
    }),
  );
});

test("a row of an import may name its columns, and any JSON value becomes text", () => {
  const row = { a: "x", n: 1.5, yes: true, none: null, list: [1, { b: "c" }], jsonNull: "null" };
  const line = parseLine(JSON.stringify({ table: "t", row }));
  expect(line).toEqual({
    kind: "row",
    table: "t",
    cells: { a: "x", n: "1.5", yes: "true", none: null, list: '[1,{"b":"c"}]', jsonNull: "null" },
  });
  expect(cellsOf({ a: "x", b: null }, ["b", "c", "a"])).toEqual({ columns: ["a", "b"], values: ["x", null] });
  expect(cellsOf({ z: "x" }, ["a"])).toHaveProperty("wrong");
  expect(cellsOf(["x"], ["a", "b"])).toHaveProperty("wrong");
});

test.each([
  ["{", "bad"],
  ["null", "bad"],
  ["[1,[]]", "bad"],
  ['["t",[1]]', "bad"],
  ['["t",["a"],3]', "bad"],
  ['{"document":{"path":"../x","contentType":"a","text":""}}', "bad"],
  ['{"tollgate":{"format":2}}', "bad"],
  ["   \n", "blank"],
])("the line %s is %s", (text, kind) => expect(parseLine(text).kind).toBe(kind));

const header = {
  format: 1,
  tenant: "acme",
  plan: "free",
  strategy: "shared",
  schemaVersion: null,
  exportedAt: "2026-11-21T00:00:00Z",
  recoveryPoint: { committedBy: "2026-11-21T00:00:00Z" },
  tables: [{ name: "t", columns: [{ name: "a", type: "text" }], keys: [{ name: "a", type: "text" }] }],
  documents: true,
} as const;

test("a footer detects a change of any byte before it", () => {
  const lines: [string, Parameters<Tally["add"]>[1]][] = [
    [
      headerLine({
        ...header,
        tables: [...header.tables].map((t) => ({ ...t, columns: [...t.columns], keys: [...t.keys] })),
      }),
      "other",
    ],
    ['["t",["one"]]\n["t",["two"]]\n', { table: "t", rows: 2 }],
    ["    \n", "other"],
    [documentLine({ path: "a", contentType: "text/plain", text: "b" }), { documents: 1 }],
  ];
  const written = new Tally();
  for (const [text, of] of lines) written.add(bytesOf(text), of);
  const footer = written.footer(header.tables);
  expect(footer.rows).toBe(2);
  expect(parseLine(footerLine(footer))).toEqual({ kind: "footer", footer });

  const read = (change: (text: string, index: number) => string): string[] => {
    let tally = new Tally();
    lines.forEach(([text, of], index) => {
      tally.add(bytesOf(change(text, index)), of);
      tally = new Tally(tally.toJSON());
    });
    return damages(tally.footer(header.tables), footer);
  };
  expect(read((text) => text)).toEqual([]);
  lines.forEach((_, changed) => {
    expect(read((text, index) => (index === changed ? text.replace(/.$/m, "x") : text))).toHaveLength(1);
  });
  expect(
    createHash("sha256")
      .update(lines.map(([text]) => text).join(""))
      .digest("hex"),
  ).toBe(footer.sha256);
});
