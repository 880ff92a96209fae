// Imports run in the background while the tenant works. Bad lines are reported by number, and all others are imported.
import { expect, test } from "vitest";
import { type TestTenant, aTenant, callTool, endObject, operator, status, system, until } from "../support/flow.ts";

interface Import {
  state: string;
  error: string | null;
  lines: { done: number; of: number } | null;
  table: string | null;
  failed: number;
  errors: { line: number; error: string }[];
}

const generous = { limits: { unitsPerHour: 1_000_000, callsPerMinute: 100_000, callsInFlight: 50 } };

async function imported(tenantId: string): Promise<Import | null> {
  return ((await status(tenantId)) as unknown as { import: Import | null }).import;
}

async function over(tenantId: string): Promise<Import> {
  await until(async () => ["done", "failed"].includes((await imported(tenantId))?.state ?? ""), "the import");
  const found = await imported(tenantId);
  if (found === null) throw new Error("the tenant has no import");
  return found;
}

function upload(tenant: { id: string }, lines: readonly string[] | Uint8Array, options = ""): Promise<Response> {
  return fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/import${options}`, {
    method: "POST",
    headers: { authorization: `Bearer ${system.operatorToken}`, "content-type": "application/x-ndjson" },
    body: lines instanceof Uint8Array ? lines : lines.join("\n"),
  });
}

async function query(tenant: TestTenant, statement: string): Promise<Record<string, unknown>[]> {
  const answer = await callTool(tenant.apiKey, "run_sql", { statements: [statement] });
  if (answer.isError === true) throw new Error(answer.text);
  const results = (answer.data?.["results"] ?? []) as Record<string, unknown>[][];
  return results[0] ?? [];
}

const product = (id: string, more: Record<string, unknown> = {}): string =>
  JSON.stringify({ table: "products", row: { id, name: `Product ${id}`, price_cents: 100, ...more } });

test("good lines are imported, bad lines are reported by number, and existing rows stay", async () => {
  const tenant = await aTenant({ plan: "pro", ...generous });
  expect(await imported(tenant.id)).toBe(null);
  const lines = [
    product("a", { description: 'né "quoted"\n\u2028', updated_at: "2026-01-02T03:04:05Z" }),
    "not json",
    product("mug-steel", { name: "Another mug" }), // exists from the start
    product("b", { price_cents: -1 }),
    product("c", { price_cents: "many" }),
    JSON.stringify({ table: "nowhere", row: { id: "x" } }),
    product("d", { nothing: 1 }),
    product("e", { tenant_id: "another" }),
    "",
    JSON.stringify(["settings", ["theme", '{"dark": true, "n": 12345678901234567890.10}', "2026-01-02 03:04:05+00"]]),
    JSON.stringify(["settings", ["too few"]]),
    JSON.stringify({ document: { path: "in/a.md", contentType: "text/markdown", text: "# in" } }),
    product("f"),
    product("g"),
    product("h"),
    product("i"),
  ];
  expect((await upload(tenant, lines)).status).toBe(202);
  const done = await over(tenant.id);
  expect(done).toMatchObject({ state: "done", lines: { done: 16, of: 16 }, table: "products", failed: 7 });
  expect(done.errors.map(({ line }) => line)).toEqual([2, 4, 5, 6, 7, 8, 11]);
  expect(done.errors.find(({ line }) => line === 4)?.error).toMatch(/23514/);
  expect(await query(tenant, `SELECT id, description FROM products WHERE length(id) = 1 ORDER BY id`)).toEqual([
    { id: "a", description: 'né "quoted"\n\u2028' },
    ...["f", "g", "h", "i"].map((id) => ({ id, description: "" })),
  ]);
  expect(await query(tenant, `SELECT name FROM products WHERE id = 'mug-steel'`)).toEqual([{ name: "Steel mug" }]);
  expect(await query(tenant, `SELECT value ->> 'n' AS n FROM settings WHERE key = 'theme'`)).toEqual([
    { n: "12345678901234567890.10" },
  ]);
  expect((await callTool(tenant.apiKey, "read_document", { path: "in/a.md" })).text).toContain("# in");

  expect((await upload(tenant, [product("mug-steel", { name: "Another mug" })], "?overwrite=true")).status).toBe(202);
  await until(async () => (await imported(tenant.id))?.lines?.of === 1, "the second import");
  expect(await over(tenant.id)).toMatchObject({ state: "done", failed: 0 });
  expect(await query(tenant, `SELECT name FROM products WHERE id = 'mug-steel'`)).toEqual([{ name: "Another mug" }]);
});

test.each([{ plan: "starter" }, { plan: "pro" }])(
  "an import on $plan resumes after the object dies, and the tenant works meanwhile",
  async ({ plan }) => {
    const tenant = await aTenant({ plan, ...generous });
    const lines = Array.from({ length: 40_000 }, (_, n) => product(`i-${n}`, { description: "x".repeat(150) }));
    lines[20_000] = "bad";
    expect((await upload(tenant, lines)).status).toBe(202);
    const seen = new Set<number>();
    let kills = 0;
    for (;;) {
      const now = await imported(tenant.id);
      if (now?.state === "done") break;
      expect(now?.error ?? "A step failed.").toMatch(/^A step failed\./);
      if (now?.lines !== null && now?.lines !== undefined) seen.add(now.lines.done);
      if (seen.size > kills + 1 && kills < 2) {
        kills += 1;
        await endObject(tenant.id);
      }
      expect(await query(tenant, `UPDATE products SET stock = stock WHERE id = 'mug-steel' RETURNING id`)).toHaveLength(
        1,
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(kills).toBe(2);
    expect(seen.size).toBeGreaterThan(2); // the status showed progress
    expect(await over(tenant.id)).toMatchObject({
      lines: { done: 40_000, of: 40_000 },
      failed: 1,
      errors: [{ line: 20_001, error: "The line is not JSON." }],
    });
    expect(await query(tenant, `SELECT count(*)::int AS n FROM products WHERE id LIKE 'i-%'`)).toEqual([{ n: 39_999 }]);
  },
);

test("a new tenant is active at once, and a backup of another tenant is imported into it afterwards", async () => {
  const old = await aTenant({ plan: "starter", ...generous });
  await query(
    old,
    `INSERT INTO products (id, name, price_cents) SELECT 'o-' || n, 'Old', n FROM generate_series(1, 3000) n RETURNING 1`,
  );
  const { name } = (await (await operator("POST", `/tenants/${old.id}/backups`, {})).json()) as { name: string };
  const key = `backups/${old.id}/${name}`;
  await until(
    async () =>
      (
        await fetch(`${system.publicUrl}/admin/api/tenants/${old.id}/backups/${name}`, {
          method: "HEAD",
          headers: { authorization: `Bearer ${system.operatorToken}` },
        })
      ).ok,
    "the backup",
  );
  const created = await operator("POST", "/tenants", {
    name: "Brings data",
    plan: "pro",
    importFrom: key,
    features: { beta: true, theme: "dark" },
    ...generous,
  });
  expect(created.status).toBe(201);
  const { id, features } = (await created.json()) as { id: string; features: unknown };
  expect(features).toEqual({ beta: true, theme: "dark" });
  await until(async () => (await status(id)).state === "active", `${id} is active`);
  expect(await over(id)).toMatchObject({ state: "done", failed: 0 });
  const made = (await (await operator("POST", `/tenants/${id}/keys`, { name: "test" })).json()) as { apiKey: string };
  const tenant = { id, apiKey: made.apiKey };
  expect(await query(tenant, `SELECT count(*)::int AS n FROM products WHERE id LIKE 'o-%'`)).toEqual([{ n: 3_000 }]);
});

/** Imports lines into a tenant and waits for the end. */
async function importLines(tenant: TestTenant, lines: readonly string[] | Uint8Array, options = ""): Promise<Import> {
  const opened = await upload(tenant, lines, options);
  expect(opened.status, await opened.clone().text()).toBe(202);
  const { id } = (await opened.json()) as { id: number };
  await until(async () => {
    const now = (await imported(tenant.id)) as (Import & { id: number }) | null;
    return now?.id === id && now.state !== "running";
  }, "the import");
  return over(tenant.id);
}

test("an import stores what the line holds, or refuses the line and says what to do", async () => {
  const tenant = await aTenant({ plan: "starter", ...generous });
  const setting = (key: string, value: string): string =>
    `{"table":"settings","row":{"key":"${key}","value":${value}}}`;
  const document = (path: string, more: Record<string, unknown>): string =>
    JSON.stringify({ document: { path, contentType: "text/plain", ...more } });
  const good = [
    `\uFEFF${product("a")}`,
    setting("j-1", '"123"'),
    setting("j-2", '"null"'),
    setting("j-3", "12345678901234567890.10"),
    setting("j-4", '{"n": 9007199254740993}'),
    document("in/re\u0301sume\u0301.txt", { text: "\uFEFFcomposed" }),
    document("in/a.bin", { base64: "AP8=", contentType: "application/octet-stream" }),
    product("far", { updated_at: "infinity" }),
    product("old", { updated_at: "0044-03-15 12:00:00+00 BC" }),
    product("late", { updated_at: "12026-01-01 00:00:00+00" }),
    product("late", { name: "A row that is there already" }),
    product("more-1"),
    product("more-2"),
  ];
  const refused: [string, RegExp][] = [
    [product("b", { price_cents: "many" }), /price_cents is not a valid integer.*22P02/],
    [product("c", { price_cents: null }), /price_cents needs a value/],
    [product("d\0"), /NUL/],
    [product("e", { name: "x".repeat(501) }), /rule of the table/],
    [product("now", { updated_at: "now" }), /updated_at cannot hold the value exactly/],
    [product("day", { updated_at: "02.01.2026" }), /order of day and month/],
    [setting("twice", '{"a":1,"a":2}'), /name a twice/],
    ['{"table":"products","row":{"id":"half","name":"\\ud83d","price_cents":1}}', /surrogate/],
    [document("in/b.bin", { base64: "!!" }), /base64/],
    [document("in/b.html", { text: "", contentType: "text/html" }), /browser/],
    [document("in/../b", { text: "" }), /path/],
    [document("in/b", { text: "x".repeat(600 * 1024) }), /limit/],
  ];
  const done = await importLines(tenant, [...good, ...refused.map(([line]) => line)]);
  expect(done).toMatchObject({ state: "done", failed: refused.length, kept: 1 });
  for (const [index, [line, words]] of refused.entries())
    expect(done.errors[index], line.slice(0, 60)).toMatchObject({
      line: good.length + index + 1,
      error: expect.stringMatching(words),
    });
  expect(
    await query(tenant, `SELECT key, value::text AS value FROM settings WHERE key LIKE 'j-%' ORDER BY key`),
  ).toEqual([
    { key: "j-1", value: '"123"' },
    { key: "j-2", value: '"null"' },
    { key: "j-3", value: "12345678901234567890.10" },
    { key: "j-4", value: '{"n": 9007199254740993}' },
  ]);
  // A row with an unusual instant does not end the page that it is on.
  const page = await callTool(tenant.apiKey, "search_products", { query: "", limit: 50 });
  expect(page.data).toMatchObject({
    products: expect.arrayContaining(
      ["far", "old", "late"].map((id) => expect.objectContaining({ id, updatedAt: null })),
    ),
  });
  const read = await callTool(tenant.apiKey, "read_document", { path: "in/re\u0301sume\u0301.txt" });
  expect(read.data).toMatchObject({ path: "in/r\u00e9sum\u00e9.txt", text: "\uFEFFcomposed" });
  expect((await callTool(tenant.apiKey, "read_document", { path: "in/a.bin" })).text).toContain("not UTF-8 text");
});

test("an import whose lines are bad for the greater part fails, and so does a file of another kind", async () => {
  const tenant = await aTenant({ plan: "starter", ...generous });
  const bad = Array.from({ length: 504 }, (_, n) => product(`bad-${n}`, { price_cents: -1 }));
  const mostly = await importLines(tenant, [...bad, product("good")]);
  expect(mostly).toMatchObject({
    state: "failed",
    failed: 504,
    error: expect.stringMatching(/^504 of 505 lines .*Line 1:/),
  });
  expect(await query(tenant, `SELECT id FROM products WHERE id IN ('good', 'bad-1')`)).toEqual([{ id: "good" }]);
  const files: [Uint8Array, RegExp][] = [
    [Buffer.from([0x1f, 0x8b, 8, 0, 0]), /gzip/],
    [Buffer.from("\n"), /empty/],
    [Buffer.from("id,name\n1,Lamp\n"), /CSV/],
    [Buffer.from(`[${product("x")},${product("y")}]`), /array/],
    [Buffer.from(product("latin", { name: "caf\u00e9" }), "latin1"), /UTF-8/],
  ];
  for (const [file, words] of files)
    expect(await importLines(tenant, file)).toMatchObject({ state: "failed", error: expect.stringMatching(words) });
  const header = '\uFEFF{"tollgate":{"format":9}}';
  const lists = await importLines(tenant, [header, JSON.stringify(["settings", ["listed", "1", "2026-01-01"]])]);
  expect(lists).toMatchObject({ state: "failed", failed: 2, errors: [{ line: 1 }, { line: 2 }] });
  expect(await query(tenant, `SELECT key FROM settings WHERE key = 'listed'`)).toEqual([]);
});

test("a line that is too long is refused by its number, and an import can be cancelled", async () => {
  const tenant = await aTenant({ plan: "starter", ...generous });
  const long = product("long", { description: "x".repeat(17 * 1024 * 1024) });
  const done = await importLines(tenant, [product("before"), long, product("after")]);
  expect(done).toMatchObject({
    state: "done",
    failed: 1,
    errors: [{ line: 2, error: expect.stringContaining("16 MiB") }],
  });
  expect(await query(tenant, `SELECT id FROM products WHERE id IN ('before', 'after') ORDER BY id`)).toHaveLength(2);

  const lines = Array.from({ length: 200_000 }, (_, n) => product(`k-${n}`));
  expect((await upload(tenant, lines)).status).toBe(202);
  const cancelled = await operator("DELETE", `/tenants/${tenant.id}/import`);
  expect(await cancelled.json()).toMatchObject({ state: "cancelled" });
  expect((await operator("DELETE", `/tenants/${tenant.id}/import`)).status).toBe(404);
  expect(await importLines(tenant, [product("next")])).toMatchObject({ state: "done", failed: 0 });
  const [rows] = await query(tenant, `SELECT count(*)::int AS n FROM products WHERE id LIKE 'k-%'`);
  expect(rows?.["n"]).toBeLessThan(200_000);
});

test("an import without a file, without a tenant, or beside another import is refused", async () => {
  const tenant = await aTenant(generous);
  expect((await operator("POST", `/tenants/none/import`, { importFrom: "x" })).status).toBe(404);
  expect((await operator("POST", `/tenants/${tenant.id}/import`, {})).status).toBe(400);
  expect((await operator("POST", `/tenants/${tenant.id}/import`, { importFrom: "imports/none" })).status).toBe(202);
  expect(await over(tenant.id)).toMatchObject({ state: "failed", error: "The file does not exist." });
  const lines = Array.from({ length: 30_000 }, (_, n) => product(`j-${n}`));
  const answers = await Promise.all([upload(tenant, lines), upload(tenant, lines)]);
  expect(new Set(answers.map(({ status: code }) => code))).toEqual(new Set([202, 409]));
  expect(await over(tenant.id)).toMatchObject({ state: "done", failed: 0 });
});
