// The arguments of the playground's form: which fields a tool has, and which arguments they make.
import { expect, test } from "vitest";
import * as z from "zod";
import { argumentsOfFields, argumentsOfJson, fieldsOf } from "../../src/pages/app/usage/playground/arguments.ts";
import { defineTool, isFailure } from "../../src/tools/tool.ts";

const tool = defineTool({
  name: "a_tool",
  title: "A tool",
  description: "A tool.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    query: z.string().max(5).describe("Words"),
    limit: z.int().min(1).default(10).describe("How many"),
    kind: z.enum(["new", "old"]).optional(),
    fast: z.boolean().optional().describe("Fast"),
    ids: z.array(z.string()).optional().describe("Ids"),
  }),
  output: z.strictObject({}),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,
  run: async () => ({ data: {} }),
});

test("each argument has the field of its type, with its description, its default and whether it is needed", () => {
  expect(fieldsOf(tool).map(({ name, kind, isRequired }) => [name, kind, isRequired])).toEqual([
    ["query", "text", true],
    ["limit", "number", false],
    ["kind", "choice", false],
    ["fast", "switch", false],
    ["ids", "json", false],
  ]);
  expect(fieldsOf(tool)[1]).toMatchObject({ hint: "How many", byDefault: "10" });
  expect(fieldsOf(tool)[2]).toMatchObject({ choices: ["new", "old"] });
});

test("fields make arguments: numbers, switches and JSON by their kinds, and an empty field is no argument", () => {
  const filled = { query: " lamp ", limit: "3", kind: "old", fast: "false", ids: '["a"]' };
  expect(argumentsOfFields(tool, filled)).toEqual({
    args: { query: "lamp", limit: 3, kind: "old", fast: false, ids: ["a"] },
  });
  const empty = { query: "", limit: "", kind: "", fast: "", ids: "" };
  expect(argumentsOfFields(tool, empty)).toEqual({ args: { query: "", limit: 10 } });
});

test("a wrong field is refused at its place, and nothing is sent", () => {
  expect(argumentsOfFields(tool, { query: "x", ids: "a" })).toEqual({ errors: { ids: "This is no JSON." } });
  for (const limit of ["many", "0", "1.5"])
    expect(argumentsOfFields(tool, { query: "x", limit })).toMatchObject({ errors: { limit: expect.any(String) } });
  expect(argumentsOfFields(tool, { query: "longer" })).toMatchObject({ errors: { query: expect.any(String) } });
});

test("arguments as JSON are one object that matches the schema", () => {
  expect(argumentsOfJson(tool, '{"query": "x"}')).toEqual({ args: { query: "x", limit: 10 } });
  for (const text of ["[]", "1", "{", ""])
    expect(argumentsOfJson(tool, text)).toMatchObject({ errors: { json: expect.any(String) } });
  expect(argumentsOfJson(tool, '{"query": "x", "limit": 0, "tenant_id": "other"}')).toMatchObject({
    errors: { json: expect.stringContaining("limit: This") },
  });
});
