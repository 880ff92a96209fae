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
  refusedFile,
} from "../../src/backups/file/backup-file.ts";
import { MAX_DOCUMENT_BYTES } from "../../src/core/text/document-path.ts";
import { nameTwice, unstorableText } from "../../src/core/text/text.ts";
import { Sha256, Sha256State } from "../../src/backups/file/sha256.ts";

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

/** Any text that UTF-8 can hold, with NUL. */
const anyText = fc.string({ unit: "binary" }).filter((text) => text.isWellFormed());

test("a document with any text and a row with any strings and nulls are read back unchanged", () => {
  fc.assert(
    fc.property(anyText, fc.array(fc.option(fc.string({ unit: "binary" }))), (text, cells) => {
      const document = { path: "a/b.md", contentType: "text/plain", text };
      expect(parseLine(documentLine(document))).toEqual({ kind: "document", document });
      const isStorable = cells.every((cell) => cell === null || unstorableText(cell) === undefined);
      const row = { kind: "row", table: "t", cells: { list: cells } };
      expect(parseLine(JSON.stringify(["t", cells]))).toEqual(
        isStorable ? row : expect.objectContaining({ kind: "bad" }),
      );
    }),
  );
});

/** The values of an import's row for columns `t.c` of this type. */
function imported(value: string, type: string): string | null | undefined {
  const line = parseLine(`{"table":"t","row":{"c":${value}}}`);
  if (line.kind !== "row") return undefined;
  const found = cellsOf(line.cells, [{ name: "c", type }]);
  return "wrong" in found ? undefined : found.values[0];
}

test("a JSON value of an import keeps every digit and its type", () => {
  expect(imported("12345678901234567890", "numeric")).toBe("12345678901234567890");
  expect(imported("1.10", "numeric")).toBe("1.10");
  expect(imported("-0", "text")).toBe("-0");
  expect(imported('{"n": 9007199254740993, "2": 1e400, "1": [1.0]}', "jsonb")).toBe(
    '{"n": 9007199254740993, "2": 1e400, "1": [1.0]}',
  );
  for (const text of ["123", "true", "null", "hello", '{"a":1}', "é\n", String.raw`\"]}`])
    expect(imported(JSON.stringify(text), "jsonb"), text).toBe(JSON.stringify(text));
  expect(imported('"123"', "text")).toBe("123");
  expect(imported("null", "jsonb")).toBe(null);
  expect(imported("true", "boolean")).toBe("true");
  expect(imported('[1,{"b":"c]}"}]', "text")).toBe('[1,{"b":"c]}"}]');
});

test("any JSON value of a JSON column is read back unchanged", () => {
  fc.assert(
    fc.property(fc.json({ stringUnit: "grapheme" }), fc.constantFrom("", " ", "\t"), (json, space) => {
      if (json.includes(String.raw`\u0000`)) return;
      const found = imported(`${space}${json}${space}`, "jsonb");
      if (JSON.parse(json) === null) expect(found).toBe(null);
      else expect(found).toBe(json);
    }),
  );
});

test("a name that any object has twice is found, and equal names of different objects are not", () => {
  const twice = [
    '{"a":1,"a":2}',
    '[{"b":{"a":1,"c":[],"a":2}}]',
    String.raw`{"a":1,"\u0061":2}`,
    '{"__proto__":1,"__proto__":2}',
  ];
  for (const json of twice) expect(nameTwice(json), json).toBeDefined();
  const once = [
    '{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
    '["a","a"]',
    '{"a":"a","b":"\\"a\\":"}',
    "1",
    '""',
    '{"":{"":0}}',
  ];
  for (const json of once) expect(nameTwice(json), json).toBeUndefined();
  fc.assert(fc.property(fc.json(), (json) => nameTwice(json) === undefined));
  expect(nameTwice("[".repeat(100_000) + "]".repeat(100_000))).toBeUndefined();
});

test("the values of a row are paired with their columns", () => {
  const columns = ["b", "c", "a"].map((name) => ({ name, type: "text" }));
  const { cells } = parseLine('{"table":"t","row":{"a":"x","b":null}}') as Extract<
    ReturnType<typeof parseLine>,
    { kind: "row" }
  >;
  expect(cellsOf(cells, columns)).toEqual({ columns: ["a", "b"], values: ["x", null] });
  expect(cellsOf(cells, columns.slice(0, 2))).toHaveProperty("wrong");
  expect(cellsOf({ list: ["x"] }, columns)).toHaveProperty("wrong");
});

const document = (fields: Record<string, unknown>): string =>
  JSON.stringify({ document: { path: "a/b.md", contentType: "text/plain", ...fields } });

test.each([
  ["{", "bad"],
  ["null", "bad"],
  ["[1,[]]", "bad"],
  ['["t",[1]]', "bad"],
  ['["t",["a"],3]', "bad"],
  ['["t",["a\\u0000"]]', "bad"],
  ['["t",["\\ud83d"]]', "bad"],
  ['{"table":"t","row":{"a":"x\\u0000"}}', "bad"],
  ['{"table":"t","row":{"a":{"b":["\\udc00"]}}}', "bad"],
  ['{"table":"t","row":{"a":1,"a":2}}', "bad"],
  ['{"table":"t","row":{"a":1},"row":{"a":2}}', "bad"],
  ['{"table":"t","row":{"a":1},"op":"delete"}', "bad"],
  ['{"table":"t","row":[1]}', "bad"],
  [document({ text: "", path: "../x" }), "bad"],
  [document({ text: "\ud83d" }), "bad"],
  [document({ text: "a", base64: "YQ==" }), "bad"],
  [document({ text: "a", size: 1 }), "bad"],
  [document({}), "bad"],
  [document({ base64: "!!not base64!!" }), "bad"],
  [document({ base64: "YQ" }), "bad"],
  [document({ base64: "YR==" }), "bad"],
  [document({ base64: "YWJj\nYWJj" }), "bad"],
  [document({ base64: "_-_-" }), "bad"],
  [document({ text: "x".repeat(MAX_DOCUMENT_BYTES + 1) }), "bad"],
  [document({ base64: Buffer.alloc(MAX_DOCUMENT_BYTES + 1).toString("base64") }), "bad"],
  [document({ text: "", contentType: "text/plain\r\nX-Other: 1" }), "bad"],
  [document({ text: "", contentType: "text/html" }), "bad"],
  [document({ text: "x".repeat(MAX_DOCUMENT_BYTES) }), "document"],
  [document({ text: "\0\uFEFF" }), "document"],
  [document({ base64: "AP8=" }), "document"],
  ['{"tollgate":{"format":2}}', "bad"],
  ["   \n", "blank"],
  ['\uFEFF["t",["a"]]', "row"],
])("the line %.80s is %s", (text, kind) => {
  const line = parseLine(text);
  expect(line.kind).toBe(kind);
  if (line.kind === "bad") expect(line.reason).toMatch(/^[A-Z`].*\.$/);
});

test("a decomposed path of a document is stored under its composed name", () => {
  expect(parseLine(document({ path: "re\u0301sume\u0301.txt", text: "" }))).toMatchObject({
    document: { path: "r\u00e9sum\u00e9.txt" },
  });
});

test.each([
  [Buffer.from([0x1f, 0x8b, 8, 0]), /gzip/],
  [Buffer.from("PK\u0003\u0004"), /ZIP/],
  [Buffer.from("\uFEFF{}", "utf16le"), /UTF-16/],
  [Buffer.from("{}", "utf16le"), /UTF-16/],
  ["id,name\n1,Lamp\n", /CSV/],
  ["\uFEFFid;name\r\n1;Lamp\r\n", /CSV/],
  ['[{"table":"t","row":{}},{}]', /array/],
  ['[\n{"table":"t","row":{}}]', /array/],
  ['[["t",["a"]]]', /array/],
  ['{\n  "table": "t"\n}', /several lines/],
  ["", /empty/],
  ["\uFEFF\r\n \n", /empty/],
  ["BZh91AY", /bzip2/],
  [Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), /xz/],
  [Buffer.from([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]), /7-Zip/],
  ["PK\u0005\u0006", /ZIP/],
  ["SQLite format 3\0", /binary/],
  ["PGDMP\u0001\u000e", /binary/],
  ['<?xml version="1.0"?>\n<a/>', /XML/],
  ["--\n-- PostgreSQL database dump\n", /SQL/],
  ["INSERT INTO products VALUES (1);", /SQL/],
])("a file that is no NDJSON is refused as a whole, with a sentence: %s", (file, words) => {
  expect(refusedFile(Buffer.from(file))).toMatch(words);
});

test.each([
  '\u001e["t",["a","b"]]\n\u001e["t",["c","d"]]',
  '["t",["a"]]',
  '\uFEFF{"table":"t","row":{}}',
  "not json",
  "one, bad line\n{}",
  "a\nb",
])("the lines of the file %j are read", (file) => expect(refusedFile(Buffer.from(file))).toBe(undefined));

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
  audit: false,
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
