// `npm run tool`, as a developer uses it: a call of one tool as a customer, with what it returned, what it cost, and what to do when
// it failed.
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { aTenant, system } from "../support/flow.ts";

const root = resolve(import.meta.dirname, "../..");
const directory = await mkdtemp(join(tmpdir(), "tollgate-tool-"));
afterAll(() => rm(directory, { recursive: true }));

const free = await aTenant({ limits: { unitsPerHour: 4 } });
const pro = await aTenant({ plan: "pro" });
const tenants = [
  { ...free, name: "Willow Books", plan: "free" },
  { ...pro, name: "Northwind Trading", plan: "pro" },
];
await writeFile(join(directory, "demo.json"), JSON.stringify({ mcpUrl: `${system.publicUrl}/mcp`, tenants }));

function tool(args: readonly string[], dir = directory): Promise<{ code: unknown; out: string; err: string }> {
  const env = { ...childEnvironment(), TOLLGATE_DIR: dir, TOLLGATE_APP: "test/support/fixture-app" };
  const program = ["--import", "./cli/register-app.ts", "dev/tool.ts", ...args];
  return new Promise((done) => {
    execFile(process.execPath, program, { cwd: root, env }, (error, out, err) =>
      done({ code: error === null ? 0 : error.code, out, err }),
    );
  });
}

test("a call prints content, data, receipt and time, as the customer that was named", async () => {
  const found = await tool(["search_products", '{"query": "lamp", "limit": 1}', "--tenant", "PRO"]);
  expect(found.code, found.err).toBe(0);
  expect(found.out).toMatch(/^search_products as Northwind Trading \(pro\)\n/);
  expect(found.out).toMatch(/\nData\n\{\n {2}"products": \[/);
  expect(found.out).toMatch(/\n1 unit, receipt [0-9a-f-]{36}; \d+ ms\n$/);

  const shown = await tool(["show_stock"]);
  expect(shown.code).toBe(0);
  expect(shown.out).toContain("[image image/png, 70 bytes]");
  expect(shown.out).toContain("[link Stock list: https://example.com/stock.csv]");
  expect(shown.out).toContain("Counted at noon.");
});

test("a failure prints what to do: at a limit, for a plan, for wrong SQL with PostgreSQL's words, for wrong arguments", async () => {
  const limited = await tool(["generate_report"]);
  expect(limited.code).toBe(1);
  expect(limited.out).toContain("cost_over_limit: Change what the message names.");
  const withheld = await tool(["of_two_plans"]);
  expect(withheld.out).toContain("tool_not_in_plan: Call it as another customer: --tenant.");
  const broken = await tool(["run_sql", '{"statements": ["SELECT * FROM no_such_table"]}', "--tenant", "pro"]);
  expect(broken.out).toContain('PostgreSQL: relation "no_such_table" does not exist (SQLSTATE 42P01)');
  expect(broken.out).toContain("not charged");
  expect(broken.out).toContain("tool_failed: The message above and the log of npm start name the cause.");
  const wrong = await tool(["search_products", '{"limit": "many", "query": ""}', "--tenant", "pro"]);
  expect([wrong.code, wrong.out]).toEqual([1, expect.stringContaining("limit")]);
  const unknown = await tool(["search_produce"]);
  expect([unknown.code, unknown.out]).toEqual([
    1,
    expect.stringContaining("There is no tool search_produce. Tools: health_check,"),
  ]);
});

test("the lists name each tool with its price, and what the providers of models do with its arguments", async () => {
  const listed = await tool(["--list", "--tenant", "Willow Books"]);
  expect(listed.out).toContain("search_products(query, category, maxPriceCents, limit, cursor)");
  expect(listed.out).toMatch(/Costs 1 unit\.\n/);
  expect(listed.out).not.toContain("of_two_plans");
  const schemas = await tool(["--schemas"]);
  expect(schemas.code).toBe(0);
  expect(schemas.out).toContain("search_products: every provider accepts it");
  expect(schemas.out).toContain("OpenAI, limit: Left out: default.");
});

test.each<[string, readonly string[], RegExp, string?]>([
  ["no system runs", ["search_products"], /no system runs in .*: run npm start/, tmpdir()],
  [
    "the customer is unknown",
    ["search_products", "{}", "--tenant", "gold"],
    /--tenant gold is no customer of free \(Willow/,
  ],
  ["the arguments are no JSON", ["search_products", "{query: 1}"], /the arguments are no JSON/],
  ["the arguments are a list", ["search_products", "[]"], /must be one JSON object/],
  ["no tool is named", [], /name a tool, or use --list or --schemas/],
])("a wrong command line ends with one line when %s", async (_, args, message, dir) => {
  const { code, out, err } = await tool(args, dir);
  expect([code, out]).toEqual([2, ""]);
  expect(err).toMatch(message);
  expect(err.trim().split("\n")).toHaveLength(1);
});
