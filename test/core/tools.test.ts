// The rules of a tool's declaration, the catalogue of the app's files, and the answers of the product's own tools.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as z from "zod";
import type { SpendStatus } from "../../src/core/call.ts";
import { catalogue, catalogueOf } from "../../src/tools/catalogue.ts";
import { getUsage } from "../../src/tools/get-usage.ts";
import { healthCheck } from "../../src/tools/health-check.ts";
import { type Tool, defineTool, describedWithPrice, isFailure } from "../../src/tools/tool.ts";
import { callTool, toolContext } from "../support/tool-context.ts";

// ---- declarations

const declared = {
  name: "count_orders",
  title: "Count orders",
  description: "Counts the orders of a day. Call it before a report.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({ day: z.iso.date().describe("The day") }),
  output: z.strictObject({ orders: z.int() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,
  run: async () => ({ data: { orders: 1 } }),
};

test("a tool that follows the rules is defined", () => {
  expect(defineTool(declared).name).toBe("count_orders");
});

test.each<[string, Record<string, unknown>, RegExp]>([
  ["a name in capitals", { name: "countOrders" }, /countOrders has a name that some clients refuse/],
  ["no name", { name: "" }, /without a name has a name/],
  ["a long name", { name: "a".repeat(41) }, /41 characters\. Use at most 40/],
  ["no title", { title: " " }, /count_orders has no title/],
  ["no description", { description: "" }, /count_orders has no description/],
  ["part of a unit", { units: 0.5 }, /costs 0\.5 units\. Use an integer/],
  ["no scope", { scopes: [] }, /Name at least one of app\/config\.ts: tools:read, tools:write/],
  ["an unknown scope", { scopes: ["tools:fly"] }, /\[tools:fly\]/],
  ["an undeclared secret", { secrets: ["api_key"] }, /uses the secrets \[api_key\]\. Add each.*secrets\.tenant/],
  ["an open input", { input: z.object({ day: z.string().describe("The day") }) }, /open input.*z\.strictObject/],
  ["an open output", { output: z.object({ orders: z.int() }) }, /open output.*z\.strictObject/],
  [
    "an undescribed input",
    { input: z.strictObject({ day: z.string().default("today"), kind: z.enum(["new"]).optional() }) },
    /does not describe its input day\. /,
  ],
  [
    "annotations that contradict each other",
    { annotations: { readOnly: true, idempotent: true, destructive: true } },
    /Make the annotations agree/,
  ],
])("a tool with %s is refused with the remedy", (_, change, message) => {
  expect(() => defineTool({ ...declared, ...change } as Tool)).toThrow(message);
});

test("a description inside a default or an optional input counts", () => {
  const input = z.strictObject({
    day: z.string().describe("The day").optional(),
    limit: z.int().default(1).describe("Orders"),
  });
  expect(() => defineTool({ ...declared, input })).not.toThrow();
});

test("clients read the price after the description", () => {
  const priced = (units: number) => describedWithPrice(defineTool({ ...declared, description: "Counts.", units }));
  expect([priced(0), priced(1), priced(20)]).toEqual([
    "Counts. Free.",
    "Counts. Costs 1 unit.",
    "Counts. Costs 20 units.",
  ]);
});

// ---- the catalogue

test("the catalogue has the product's tools first, then those of the app by file", () => {
  expect([...catalogue.keys()]).toEqual([
    "health_check",
    "get_usage",
    "delete_document",
    "export_products",
    "generate_report",
    "list_documents",
    "read_document",
    "restock_product",
    "search_products",
    "write_document",
  ]);
});

test("a file without a tool, a file with two, and a repeated tool name are refused with the file's name", () => {
  const [one, two] = [defineTool(declared), defineTool({ ...declared, name: "other" })];
  const files = (exports: Record<string, unknown>, file = "app/tools/x.ts") => [{ file, exports }];
  expect([...catalogueOf([], files({ one, helper: () => 1 })).keys()]).toEqual(["count_orders"]);
  expect(() => catalogueOf([], files({ notDefined: { ...declared } }))).toThrow(/x\.ts exports 0 tools/);
  expect(() => catalogueOf([], files({ one, two }))).toThrow(/x\.ts exports 2 tools/);
  expect(() => catalogueOf([], [...files({ one }), ...files({ one }, "app/tools/y.ts")])).toThrow(
    /count_orders is in app\/tools\/x\.ts and in app\/tools\/y\.ts/,
  );
  expect(() => catalogueOf([one], files({ one }))).toThrow(/src\/tools/);
});

test("the product's tools import nothing but the core, the config and their libraries", async () => {
  const directory = join(import.meta.dirname, "../../src/tools");
  for (const file of await readdir(directory, { recursive: true })) {
    if (file === "catalogue.ts" || !file.endsWith(".ts")) continue;
    const source = await readFile(join(directory, file), "utf8");
    for (const [, from = ""] of source.matchAll(/from "([^"]+)"/g)) {
      expect(from, file).toMatch(
        /^(zod|#app\/config|drizzle-orm(\/[a-z-]+)?|\.\.?\/(tool|content|question|offer|drizzle|call-secrets|outbound)\.ts|\.\.\/core\/([a-z-]+\/)?[a-z-]+\.ts)$/,
      );
    }
  }
});

test.each([...catalogue.values()])("$name refuses unknown arguments, such as another tenant", (tool) => {
  expect(() => tool.input.parse({ tenant_id: "other" })).toThrow();
});

test.each([...catalogue.values()])("$name's failures are free and its answers are charged", (tool) => {
  expect(tool.failed({ isError: true, text: "no" })).toBe(true);
  // What a tool answers when it did its work; `delete_document` is free when there was no document.
  expect(tool.failed({ data: { existed: true } })).toBe(false);
});

// ---- answers

test("health_check answers from the tenant's own rows and files", async () => {
  const checkedAt = "2026-11-30T20:00:00.000Z";
  const { context, seen } = toolContext({ rows: [[{ checkedAt, settings: 3 }]] });
  const { data } = await callTool(healthCheck, {}, context);
  expect(data).toEqual({ ok: true, tenant: "acme", checkedAt, settings: 3, files: "empty" });
  expect(seen.queries).toHaveLength(1);
});

test("health_check fails when it sees no settings", async () => {
  const { context } = toolContext({ rows: [[{ checkedAt: "2026-11-30T20:00:00.000Z", settings: 0 }]] });
  expect(await callTool(healthCheck, {}, context)).toMatchObject({ failed: true, data: undefined });
});

test("get_usage returns the units left, and null without a limit", async () => {
  const { data } = await callTool(getUsage, {}, toolContext({ used: 120 }).context);
  expect(data).toEqual({
    plan: "free",
    hour: { limit: 100, used: 120, left: 0, resetSeconds: 90 },
    month: { limit: null, used: 120, left: null, resetSeconds: 4_000 },
  });
});

test("get_usage tells the spend cap and what is left of it, and says when there is none", async () => {
  const { context } = toolContext();
  const spend = { capCents: 1_000, spentCents: "12.5", leftCents: "987.5", leftUnits: 9_875, resetSeconds: 172_800 };
  const asked = (of: SpendStatus): ReturnType<typeof callTool> =>
    callTool(getUsage, {}, { ...context, usage: () => ({ ...context.usage(), spend: of }) });
  const { data, text } = await asked(spend);
  expect(data).toMatchObject({ spend });
  expect(text).toContain(
    "have cost 0.125 USD in this billing period, of a spend cap of 10.00 USD: 9875 units until calls stop. The next billing period begins in 2 days.",
  );
  const uncapped = await asked({ ...spend, capCents: null, leftCents: null, leftUnits: null });
  expect(uncapped.text).toContain("0.125 USD in this billing period, without a spend cap.");
});

test.each([
  [1, "1 second"],
  [119, "119 seconds"],
  [121, "3 minutes"],
  [7_200, "2 hours"],
  [86_400, "24 hours"],
  [172_800, "2 days"],
  [254_909, "2 days 23 hours"],
])("get_usage says %i seconds as %j", async (resetSeconds, words) => {
  const { context } = toolContext();
  const quota = context.usage();
  const month = { ...quota.month, resetSeconds };
  const { text } = await callTool(getUsage, {}, { ...context, usage: () => ({ ...quota, month }) });
  expect(text).toContain(`The next month begins in ${words}.`);
});

test("the product's tools refuse arguments", () => {
  expect(healthCheck.input.safeParse({ tenant: "other" }).success).toBe(false);
});
