// The tools' schemas by the rules of the providers of models: the product's tools and the example app's are refused by none of them,
// and each form that a provider refuses is found with its place.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import * as z from "zod";
import { catalogue } from "../../src/tools/catalogue.ts";
import { type Finding, findingsOf, listedTool } from "../../src/tools/model-schemas.ts";
import { type Tool, isTool } from "../../src/tools/tool.ts";

const found = (shape: z.ZodRawShape, name = "a_tool"): Finding[] =>
  findingsOf(listedTool({ name, input: z.strictObject(shape) }));
const refused = (shape: z.ZodRawShape, name?: string): string[] =>
  found(shape, name).flatMap(({ weight, provider, path }) => (weight === "refused" ? [`${provider} ${path}`] : []));
const changed = (shape: z.ZodRawShape): string[] =>
  found(shape).flatMap(({ weight, provider, path, says }) =>
    weight === "changed" ? [`${provider} ${path}: ${says}`] : [],
  );

/** Every tool of app/, which operators copy. */
async function exampleTools(): Promise<Tool[]> {
  const folder = join(import.meta.dirname, "../../app/tools");
  const files = (await readdir(folder)).filter((name) => name.endsWith(".ts"));
  const modules = await Promise.all(
    files.map((name) => import(pathToFileURL(join(folder, name)).href) as Promise<Record<string, unknown>>),
  );
  return modules.flatMap((exports) => Object.values(exports).filter(isTool));
}

test("no provider refuses a tool of the product or of the example app", async () => {
  const tools = [...catalogue.values(), ...(await exampleTools())];
  expect(tools.length).toBeGreaterThan(12);
  const problems = tools.flatMap((tool) =>
    findingsOf(listedTool(tool))
      .filter(({ weight }) => weight === "refused")
      .map((finding) => [tool.name, finding]),
  );
  expect(problems).toEqual([]);
});

test("arguments of plain types, lists, nested objects and enums are refused by none", () => {
  const item = z.strictObject({ name: z.string(), kind: z.enum(["a", "b"]), at: z.iso.datetime().nullable() });
  expect(
    refused({ text: z.string(), n: z.int(), yes: z.boolean(), items: z.array(item), item: item.optional() }),
  ).toEqual([]);
  expect(refused({})).toEqual([]);
});

test.each<[string, z.ZodRawShape, string[]]>([
  ["any value", { a: z.unknown() }, ["OpenAI a", "Gemini a"]],
  ["members of any name", { a: z.record(z.string(), z.string()) }, ["OpenAI a", "OpenAI a", "Gemini a", "Gemini a"]],
  ["an open object", { a: z.looseObject({ b: z.string() }) }, ["OpenAI a"]],
  ["an object without members", { a: z.strictObject({}) }, ["Gemini a"]],
  ["a tuple", { a: z.tuple([z.string(), z.int()]) }, ["OpenAI a", "Gemini a", "Gemini a"]],
  ["numbers in an enum", { a: z.literal([1, 2]) }, ["Gemini a"]],
  ["a name with a blank", { "the name": z.string() }, ["Anthropic the name"]],
  [
    "a union by a tag",
    {
      a: z.discriminatedUnion("kind", [
        z.strictObject({ kind: z.literal("x") }),
        z.strictObject({ kind: z.literal("y") }),
      ]),
    },
    ["OpenAI a", "Gemini a"],
  ],
])("%s is refused at its place", (_, shape, places) => {
  expect(refused(shape)).toEqual(places);
});

test("a schema that contains itself is refused, and so is a name that a provider does not take", () => {
  const Node = z.strictObject({
    name: z.string(),
    get children() {
      return z.array(Node);
    },
  });
  expect(refused({ tree: Node })).toEqual(
    expect.arrayContaining([expect.stringMatching(/^Gemini/), expect.stringMatching(/^Anthropic/)]),
  );
  expect(refused({}, "a".repeat(65))).toEqual(["OpenAI ", "Gemini ", "Anthropic "]);
  expect(refused({}, "1st")).toEqual(["Gemini "]);
  expect(refused({}, "a.b")).toEqual(["OpenAI ", "Anthropic "]);
  const union = { type: "object", anyOf: [{ required: ["a"] }, { required: ["b"] }] };
  const weights = findingsOf({ name: "a", inputSchema: union }).filter(({ path }) => path === "");
  expect(weights.map(({ provider, weight }) => `${provider} ${weight}`)).toEqual(
    expect.arrayContaining(["OpenAI refused", "Anthropic refused"]),
  );
});

test("an intersection and a negation within are refused at their places", () => {
  const inputSchema = {
    type: "object",
    properties: { a: { allOf: [{ type: "string" }] }, b: { type: "array", items: { not: { type: "string" } } } },
    required: ["a", "b"],
    additionalProperties: false,
  };
  const places = findingsOf({ name: "a", inputSchema }).map(({ provider, path }) => `${provider} ${path}`);
  expect(places).toEqual(expect.arrayContaining(["OpenAI a", "OpenAI b.items", "Gemini a", "Gemini b.items"]));
});

test("deep nesting and long enums are refused at the provider's bound, not below it", () => {
  const nested = (levels: number): z.ZodType =>
    levels === 1 ? z.strictObject({ a: z.string() }) : z.strictObject({ a: nested(levels - 1) });
  // The arguments are the first level.
  expect(refused({ a: nested(9) })).toEqual([]);
  expect(refused({ a: nested(10) })).toHaveLength(1);
  const values = (many: number) => z.enum(Array.from({ length: many }, (_, n) => `v${n}`) as [string, ...string[]]);
  expect(refused({ a: values(1_000) })).toEqual([]);
  expect(refused({ a: values(1_001) })).toEqual(["OpenAI "]);
});

test("what clients leave out or rewrite is said for each argument", () => {
  expect(changed({ limit: z.int().min(1).max(50).default(10), site: z.url().min(3).optional() })).toEqual([
    "OpenAI limit: The argument becomes required, and null means no value. Tollgate takes null for it.",
    "OpenAI site: The argument becomes required, and null means no value. Tollgate takes null for it.",
    "OpenAI limit: Left out: default.",
    "OpenAI site: Left out: minLength.",
    "OpenAI site: The format uri is left out. Name it in the description.",
    "Gemini site: The format uri is left out. Name it in the description.",
    "Anthropic limit: Left out: minimum, maximum. Only for strict tools.",
    "Anthropic site: Left out: minLength. Only for strict tools.",
  ]);
});
