// What every tool declares, checked for the whole catalogue at once, and what single tools answer, over small fakes.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as z from "zod";
import type { Progress } from "../../src/core/call.ts";
import { MAX_DOCUMENT_BYTES } from "../../src/core/document-path.ts";
import { TenantId } from "../../src/core/tenant.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import { patternsOf } from "../../src/tools/search-products.ts";
import type { FileInfo, TenantFiles, Tool, ToolContext } from "../../src/tools/tool.ts";
import { contentOf } from "../../src/tools/tool.ts";

const toolsDirectory = join(import.meta.dirname, "../../src/tools");
const tools = [...catalogue.values()];

// ---- declarations

test("every file in src/tools is in the catalogue under its own name", async () => {
  const noTools = ["tool.ts", "catalogue.ts", "drizzle.ts"];
  const files = (await readdir(toolsDirectory)).filter((file) => !noTools.includes(file));
  const declared = files.map((file) => file.replace(/\.ts$/, "").replaceAll("-", "_"));
  expect([...catalogue.keys()].toSorted()).toEqual(declared.toSorted());
});

test("a tool imports nothing but the core, the tool contract, zod and Drizzle", async () => {
  for (const file of await readdir(toolsDirectory)) {
    if (file === "catalogue.ts") continue;
    const source = await readFile(join(toolsDirectory, file), "utf8");
    for (const [, from = ""] of source.matchAll(/from "([^"]+)"/g)) {
      expect(from, file).toMatch(/^(zod|drizzle-orm(\/[a-z-]+)?|\.\/(tool|drizzle)\.ts|\.\.\/core\/[a-z-]+\.ts)$/);
    }
  }
});

test.each(tools)("$name is named, priced and described for a model", (tool) => {
  expect(tool.name).toMatch(/^[a-z]+(_[a-z]+)*$/);
  expect(catalogue.get(tool.name)).toBe(tool);
  expect(Number.isInteger(tool.units) && tool.units >= 0).toBe(true);
  const price = tool.units === 0 ? /\bFree\b/ : new RegExp(`\\bCosts ${tool.units} units?\\b`);
  expect(tool.description).toMatch(price);
  expect(tool.title).not.toBe("");
});

test.each(tools)("$name has closed schemas of plain JSON with every input described", (tool) => {
  const input = z.toJSONSchema(tool.input, { io: "input" });
  const output = z.toJSONSchema(tool.output, { io: "output" });
  for (const schema of [input, output]) {
    expect(schema).toMatchObject({ type: "object", additionalProperties: false });
  }
  for (const [name, property] of Object.entries(input.properties ?? {})) {
    // A choice explains itself.
    const explained = typeof property === "object" && (property.description ?? property.enum);
    expect(explained, name).toBeTruthy();
  }
  expect(() => tool.input.parse({ tenant_id: "other" })).toThrow();
});

test.each(tools)("$name's annotations and scopes agree", ({ annotations, scopes }) => {
  if (annotations.readOnly) expect(annotations).toEqual({ readOnly: true, idempotent: true, destructive: false });
  expect(scopes).toEqual([annotations.readOnly ? "tools:read" : "tools:write"]);
});

test.each(tools)("$name counts its own explained failures as failed, and answers as charged", (tool) => {
  expect(tool.failed({ isError: true, text: "no" })).toBe(true);
  expect(tool.failed({ data: {} })).toBe(false);
});

// ---- answers

interface Fakes {
  rows?: Record<string, unknown>[][];
  documents?: Record<string, string>;
  history?: ReturnType<ToolContext["history"]>;
  used?: number;
}

function info(path: string, text: string): FileInfo {
  return {
    path,
    sizeBytes: new TextEncoder().encode(text).byteLength,
    contentType: "text/plain",
    updatedAt: "2026-11-30T20:00:00.000Z",
  };
}

/** A tenant's context whose database answers `rows` in turn; what the tool did is in `seen`. */
function aContext({ rows = [], documents = {}, history = [], used = 0 }: Fakes = {}) {
  const answers = [...rows];
  const store = new Map(Object.entries(documents));
  const seen = {
    queries: [] as { text: string; params: readonly unknown[] }[],
    progress: [] as Progress[],
    logged: [] as string[],
  };
  const files: TenantFiles = {
    async list({ prefix = "", cursor = "", limit = 1_000 } = {}) {
      const all = [...store.keys()].toSorted().filter((path) => path.startsWith(prefix) && path > cursor);
      const page = all.slice(0, limit);
      return {
        files: page.map((path) => info(path, store.get(path) ?? "")),
        cursor: all.length > limit ? page.at(-1) : undefined,
      };
    },
    async read(path) {
      const text = store.get(path);
      return text === undefined ? undefined : { info: info(path, text), text };
    },
    async write(path, text) {
      store.set(path, text);
      return info(path, text);
    },
    async delete(path) {
      return store.delete(path);
    },
  };
  const context: ToolContext = {
    tenant: { id: TenantId.parse("acme"), name: "Acme", plan: "free", features: {} },
    caller: { kind: "key", id: "k1" },
    callId: "call-1",
    db: {
      async query<Row extends Record<string, unknown>>(text: string, params: readonly unknown[] = []) {
        seen.queries.push({ text, params });
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a statement answers is the test's to say
        return (answers.shift() ?? []) as Row[];
      },
    } as ToolContext["db"], // no tool of the catalogue needs the rest
    files,
    usage: () => ({
      hour: { limit: 100, used, resetSeconds: used === 0 ? 0 : 90 },
      month: { limit: null, used, resetSeconds: 4_000 },
    }),
    history: () => history,
    async progress(step) {
      seen.progress.push(step);
    },
    log: (event) => void seen.logged.push(event),
    signal: new AbortController().signal,
  };
  return { context, seen, store };
}

/** Runs a tool as the object does: arguments parsed before, the answer held against its schema after. */
async function call(name: string, args: Record<string, unknown>, context: ToolContext) {
  const tool = catalogue.get(name);
  if (tool === undefined) throw new Error(`no tool ${name}`);
  const result = await tool.run(tool.input.parse(args), context);
  const [content] = contentOf(result);
  if ("isError" in result) return { failed: tool.failed(result), text: result.text, data: undefined };
  return { failed: tool.failed(result), text: content?.text ?? "", data: tool.output.parse(result.data) as Answer };
}
type Answer = Record<string, unknown>;

test("health_check answers from the tenant's own rows and files", async () => {
  const checkedAt = "2026-11-30T20:00:00.000Z";
  const { context, seen } = aContext({ rows: [[{ checkedAt, settings: 3 }]] });
  const { data } = await call("health_check", {}, context);
  expect(data).toEqual({ ok: true, tenant: "acme", checkedAt, settings: 3, files: "empty" });
  expect(seen.queries).toHaveLength(1);
});

test("health_check does not succeed by seeing nothing", async () => {
  const { context } = aContext({ rows: [[{ checkedAt: "2026-11-30T20:00:00.000Z", settings: 0 }]] });
  expect(await call("health_check", {}, context)).toMatchObject({ failed: true, data: undefined });
});

test("get_usage tells what is left, and null where nothing is limited", async () => {
  const { data } = await call("get_usage", {}, aContext({ used: 120 }).context);
  expect(data).toEqual({
    plan: "free",
    hour: { limit: 100, used: 120, left: 0, resetSeconds: 90 },
    month: { limit: null, used: 120, left: null, resetSeconds: 4_000 },
  });
});

const product = (id: string) => ({
  id,
  name: `Product ${id}`,
  description: "",
  category: "c",
  priceCents: 100,
  stock: 1,
  updatedAt: "2026-11-30T20:00:00.000Z",
});

test("search_products pages with one statement each, by name and id", async () => {
  const { context, seen } = aContext({ rows: [[product("1"), product("2"), product("3")], [product("3")]] });
  const first = await call("search_products", { query: "pro", limit: 2 }, context);
  expect(first.data).toMatchObject({ products: [{ id: "1" }, { id: "2" }], nextCursor: '["Product 2","2"]' });
  const second = await call("search_products", { query: "pro", limit: 2, cursor: first.data?.nextCursor }, context);
  expect(second.data).toMatchObject({ products: [{ id: "3" }], nextCursor: null });
  expect(seen.queries.map(({ params }) => params)).toEqual([
    [["%pro%"], null, null, null, null, 3],
    [["%pro%"], null, null, "Product 2", "2", 3],
  ]);
  expect(seen.queries[1]?.text).toBe(seen.queries[0]?.text);
});

test.each(["", "x", "[]", '["a"]', "[1,2]", '["a","b","c"]', '{"0":"a"}', String.raw`["a\u0000","b"]`])(
  "search_products refuses the foreign cursor %j and asks no database",
  async (cursor) => {
    const { context, seen } = aContext();
    expect(await call("search_products", { query: "a", cursor }, context)).toMatchObject({ failed: true });
    expect(seen.queries).toEqual([]);
  },
);

test("the words of a search mean themselves", () => {
  expect(patternsOf(String.raw`  50% off_a \b `)).toEqual([
    String.raw`%50\%%`,
    String.raw`%off\_a%`,
    String.raw`%\\b%`,
  ]);
  expect(patternsOf(" ")).toEqual([]);
});

test("generate_report adds up, tells its progress and the calls of the hour", async () => {
  const figures = { products: 2, stock: 5, stockValueCents: 700 };
  const calls = [{ tool: "search_products", calls: 3, units: 3 }];
  const { context, seen } = aContext({
    rows: [
      [
        { category: "", isTotal: true, generatedAt: "2026-11-30T20:00:00.000Z", ...figures },
        { category: "c", isTotal: false, generatedAt: "2026-11-30T20:00:00.000Z", ...figures },
      ],
      [{ id: "1", name: "One", category: "c", stock: 4 }],
    ],
    history: calls,
  });
  const { data } = await call("generate_report", { lowStockBelow: 5 }, context);
  expect(data).toEqual({
    generatedAt: "2026-11-30T20:00:00.000Z",
    totals: figures,
    categories: [{ category: "c", ...figures }],
    lowStock: [{ id: "1", name: "One", category: "c", stock: 4 }],
    calls,
  });
  expect(seen.queries[1]?.params).toEqual([5]);
  expect(seen.progress.map(({ progress, total }) => `${progress}/${total}`)).toEqual(["0/3", "1/3", "2/3", "3/3"]);
});

test("generate_report stops between its steps when the client has gone", async () => {
  const total = {
    category: "",
    isTotal: true,
    generatedAt: "2026-11-30T20:00:00.000Z",
    products: 0,
    stock: 0,
    stockValueCents: 0,
  };
  const { context, seen } = aContext({ rows: [[total]] });
  const signal = AbortSignal.abort();
  await expect(call("generate_report", {}, { ...context, signal })).rejects.toThrow();
  expect(seen.queries).toHaveLength(1);
});

test("documents are written, listed in pages, read and deleted", async () => {
  const { context, store } = aContext();
  for (const path of ["a.md", "notes/b.md", "notes/c.md"]) await call("write_document", { path, text: path }, context);
  const first = await call("list_documents", { prefix: "notes/", limit: 1 }, context);
  expect(first.data).toMatchObject({ documents: [{ path: "notes/b.md" }], nextCursor: "notes/b.md" });
  const rest = await call("list_documents", { prefix: "notes/", cursor: first.data?.nextCursor }, context);
  expect(rest.data).toMatchObject({ documents: [{ path: "notes/c.md", sizeBytes: 10 }], nextCursor: null });
  expect(await call("read_document", { path: "a.md" }, context)).toMatchObject({
    text: "a.md",
    data: { path: "a.md", text: "a.md", nextOffset: null },
  });
  expect(await call("delete_document", { path: "a.md" }, context)).toMatchObject({ data: { existed: true } });
  expect(await call("delete_document", { path: "a.md" }, context)).toMatchObject({
    failed: false,
    data: { existed: false },
  });
  expect([...store.keys()]).toEqual(["notes/b.md", "notes/c.md"]);
});

test("a document that is not there is a failure that says what to do", async () => {
  const answer = await call("read_document", { path: "none.md" }, aContext().context);
  expect(answer).toMatchObject({ failed: true, text: expect.stringContaining("list_documents") });
});

test("the pieces of a long document make up the document, and no piece breaks a character or the bound", async () => {
  const text = `x${"😀".repeat(100_000)}${"\u0001".repeat(70_000)}`;
  const { context } = aContext({ documents: { long: text } });
  let read = "";
  let offset: unknown = 0;
  while (offset !== null) {
    const { data } = await call("read_document", { path: "long", offset }, context);
    const piece = String(data?.text);
    expect(piece.isWellFormed()).toBe(true);
    expect(JSON.stringify([piece, data]).length).toBeLessThan(1_048_576);
    read += piece;
    offset = data?.nextOffset;
  }
  expect(read).toBe(text);
});

test.each(["../x", "/x", "a/../../b", "%2e%2e/x", "a\\b"])(
  "no document tool goes to %j, and the attempt is logged",
  async (path) => {
    const { context, seen, store } = aContext({ documents: { x: "x" } });
    const answers = [
      await call("read_document", { path }, context),
      await call("write_document", { path, text: "" }, context),
      await call("delete_document", { path }, context),
      await call("list_documents", { prefix: path }, context),
      await call("list_documents", { cursor: path }, context),
    ];
    for (const answer of answers) expect(answer.failed).toBe(true);
    expect(seen.logged).toEqual(Array.from(answers, () => "path_refused"));
    expect([...store]).toEqual([["x", "x"]]);
  },
);

test("a document is bounded in bytes, not in characters", async () => {
  const { context, store } = aContext();
  const text = "é".repeat(MAX_DOCUMENT_BYTES / 2);
  expect(await call("write_document", { path: "fits", text }, context)).toMatchObject({ failed: false });
  expect(await call("write_document", { path: "over", text: `${text}a` }, context)).toMatchObject({ failed: true });
  expect([...store.keys()]).toEqual(["fits"]);
});

test("an argument outside its bounds never reaches a tool", () => {
  const refused: [string, Record<string, unknown>][] = [
    ["search_products", {}],
    ["search_products", { query: "a", limit: 51 }],
    ["search_products", { query: "a", limit: 0 }],
    ["search_products", { query: "a\0" }],
    ["search_products", { query: "a".repeat(201) }],
    ["search_products", { query: "a", maxPriceCents: -1 }],
    ["generate_report", { lowStockBelow: 1.5 }],
    ["list_documents", { limit: 101 }],
    ["write_document", { path: "a", text: "", contentType: "text/html" }],
    ["health_check", { tenant: "other" }],
  ];
  for (const [name, args] of refused) expect(schemaOf(name).safeParse(args).success, name).toBe(false);
});

function schemaOf(name: string): Tool["input"] {
  const tool = catalogue.get(name);
  if (tool === undefined) throw new Error(`no tool ${name}`);
  return tool.input;
}
