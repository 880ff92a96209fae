// The steps of an import, on an in-memory bucket and a database that refuses the rows named `bad`. The flow tests use the
// real ones.
import { expect, test } from "vitest";
import { SqlError } from "../../src/adapters/neon.ts";
import { importStep } from "../../src/backups/import.ts";
import type { JobRun } from "../../src/backups/job.ts";
import type { Statement } from "../../src/core/sql.ts";

const products = {
  name: "products",
  columns: ["tenant_id", "id", "name"].map((name) => ({ name, type: "text" })),
  keys: [{ name: "id", type: "text" }],
  refersTo: [],
};

/** Runs an import to its end. `stepMs` 0 ends a step as soon as it may. */
async function imported(file: string | Uint8Array, { stepMs = 60_000 } = {}) {
  const bytes = Buffer.from(file as string);
  const rows: (string | null)[][] = [];
  const written = new Map<string, unknown>();
  const db = {
    async transaction(statements: readonly Statement[]) {
      const [first, insertion] = statements;
      if (first?.text.includes("pg_class") === true) return [[products]];
      if (insertion?.text.includes("pg_input_is_valid") === true) return [[], [{ name: "name", type: "text" }]];
      const values = JSON.parse(String(insertion?.params?.[0])) as (string | null)[][];
      if (values.some((row) => row.includes("bad"))) throw new SqlError("22P02", undefined, undefined);
      rows.push(...values);
      return [[], values.map(() => ({ added: true }))];
    },
  };
  const get = async (_key: string, { range = {} }: { range?: { offset?: number; length?: number } } = {}) => {
    const { offset = 0, length = bytes.length - offset } = range;
    const part = new Uint8Array(bytes.subarray(offset, offset + length));
    return { size: bytes.length, body: new Blob([part]).stream(), arrayBuffer: async () => part.buffer };
  };
  const env = {
    BACKUPS: { head: async () => ({ size: bytes.length }), get },
    FILES: { head: async () => null, put: async (key: string, body: unknown) => void written.set(key, body) },
  };
  let progress: Record<string, unknown> = {};
  let steps = 0;
  for (let done = false; !done; steps += 1) {
    const work = {
      job: { request: { key: "file", overwrite: false }, progress },
      tenantId: "acme",
      context: { env },
      host: { withPlacement: async () => ({ rows: db }) },
      untilMs: Date.now() + Math.max(stepMs, 1),
      keep: async (kept: Record<string, unknown>) => {
        progress = structuredClone(kept);
      },
      finish: async () => undefined,
    };
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the part of a job's run that an import uses
    ({ done } = await importStep(work as unknown as JobRun));
  }
  const { lines, failed, errors } = progress as {
    lines: unknown;
    failed: number;
    errors: { line: number; error: string }[];
  };
  return { rows, written, lines, failed, errors, steps };
}

const row = (id: string, name = "x"): string => `{"table":"products","row":{"id":"${id}","name":"${name}"}}`;
const list = (id: string): string => JSON.stringify(["products", ["named", id]]);
const header = JSON.stringify({
  tollgate: {
    format: 1,
    tenant: "acme",
    plan: "free",
    strategy: "shared",
    schemaVersion: null,
    exportedAt: "",
    recoveryPoint: { committedBy: "" },
    tables: [{ name: "products", columns: ["name", "id"].map((name) => ({ name, type: "text" })), keys: [] }],
    documents: true,
  },
});

test("the good lines are imported, and each bad line is reported with its number and the reason", async () => {
  const lines = [
    row("a"),
    "",
    row("b", "bad"),
    row("c"),
    "{",
    row("d"),
    '{"table":"nowhere","row":{"id":"x"}}',
    row("e"),
  ];
  const done = await imported(lines.join("\n"));
  expect(done.rows.map(([id]) => id)).toEqual(["a", "c", "d", "e"]);
  expect(done).toMatchObject({ failed: 3, lines: { done: 8, of: 8 } });
  expect(done.errors).toEqual([
    { line: 3, error: "The value of the column name is not a valid text. Correct it. (SQLSTATE 22P02)" },
    { line: 5, error: "The line is not JSON." },
    { line: 7, error: "The table does not exist." },
  ]);
});

test("a header after a byte order mark names the columns of the lists", async () => {
  expect((await imported(`\uFEFF${header}\n${list("1")}`)).rows).toEqual([["named", "1"]]);
});

test.each([
  ["a header of another version", '{"tollgate":{"format":9}}'],
  ["a first line that cannot be read", '{"tollgate":'],
])("no list is imported after %s, because its columns are not known", async (_what, first) => {
  const lines = [first, list("1"), row("a"), row("b"), row("c")];
  const done = await imported(lines.join("\n"));
  expect(done.rows.map(([id]) => id)).toEqual(["a", "b", "c"]);
  expect(done.errors.map(({ line }) => line)).toEqual([1, 2]);
});

test("a file whose lines are bad for the greater part fails, and says how many", async () => {
  const lines = [...Array.from({ length: 504 }, (_, n) => row(`${n}`, "bad")), row("good")];
  await expect(imported(lines.join("\n"))).rejects.toThrow(/^504 of 505 lines were refused.* Line 1: /);
  await expect(imported("not json")).rejects.toThrow(/^1 of 1 lines/);
  await expect(imported("id,name\n1,x\n")).rejects.toThrow(/CSV.* Nothing was imported\.$/);
  await expect(imported(Buffer.from(row("caf\u00e9"), "latin1"))).rejects.toThrow(/UTF-8/);
});

test("a step that ends within a window continues at the next line", async () => {
  const lines = Array.from({ length: 1_000 }, (_, n) => row(`\u00e9-${n}`, n % 7 === 0 ? "bad" : "x"));
  const done = await imported(lines.join("\n"), { stepMs: 0 });
  expect(done.steps).toBeGreaterThan(3);
  expect(done.lines).toEqual({ done: 1_000, of: 1_000 });
  expect(done.failed).toBe(143);
  expect(new Set(done.rows.map(([id]) => id)).size).toBe(1_000 - 143);
  expect(done.rows).toHaveLength(1_000 - 143);
});

test("a document is written under its composed path, exactly", async () => {
  const document = (path: string, more: object): string =>
    JSON.stringify({ document: { path, contentType: "text/plain", ...more } });
  const { written } = await imported(
    [document("re\u0301.txt", { text: "\uFEFFa" }), document("b", { base64: "AP8=" })].join("\n"),
  );
  expect(written.get("tenants/acme/files/r\u00e9.txt")).toBe("\uFEFFa");
  expect(written.get("tenants/acme/files/b")).toEqual(Buffer.from([0, 255]));
});
