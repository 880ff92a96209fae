// Resources and prompts: what a declaration may say, which URI is which resource, and that a read and a prompt are calls with the
// price, the checks and the bounds of a call.
import { expect, test, vi } from "vitest";
import * as z from "zod";
import { callsProvided } from "../../src/calls/mcp/provided.ts";
import { invalidParams } from "../../src/calls/mcp/message.ts";
import {
  callable,
  catalogue,
  checkedNames,
  prompts,
  providedOf,
  resourceOf,
  resources,
} from "../../src/tools/catalogue.ts";
import { type PromptDeclaration, definePrompt, isPrompt } from "../../src/tools/provided/prompt.ts";
import { type ResourceDeclaration, defineResource, isResource } from "../../src/tools/provided/resource.ts";
import { config, request, startHost } from "../support/call-host.ts";
import { callTool, toolContext } from "../support/tool-context.ts";

const about = { title: "A title", description: "A description.", scopes: ["tools:read"] };
const resource = (own: Partial<ResourceDeclaration<z.ZodObject>> = {}) =>
  defineResource({
    ...about,
    name: "a_resource",
    uri: "stock://a",
    units: 1,
    read: async () => ({ text: "a" }),
    ...own,
  });
const prompt = (own: Partial<PromptDeclaration<z.ZodObject>> = {}) =>
  definePrompt({ ...about, name: "a_prompt", arguments: z.strictObject({}), get: async () => [], ...own });

test.each<[string, Partial<ResourceDeclaration<z.ZodObject>>, RegExp]>([
  ["a URL of the web", { uri: "https://example.com/a" }, /Use a scheme of your own/],
  ["a path of this machine", { uri: "file:///etc/passwd" }, /Use a scheme of your own/],
  ["no scheme", { uri: "/a" }, /Use a scheme of your own/],
  ["a URI that parsers write otherwise", { uri: "stock://a b" }, /as URL parsers write it/],
  ["a variable of another form", { uri: "stock://{?id}" }, /A variable is \{name\}/],
  ["a variable twice", { uri: "stock://{id}/{id}" }, /twice/],
  [
    "params of other names",
    { uri: "stock://{id}", params: z.strictObject({ no: z.string() }) },
    /Name exactly.*\[id\]/,
  ],
  ["no description", { description: "" }, /has no description/],
  ["an unknown scope", { scopes: ["fly"] }, /Name at least one of app\/config\.ts/],
  ["part of a unit", { units: 0.5 }, /Use an integer/],
])("a resource with %s is refused with the remedy", (_, own, message) => {
  expect(() => resource(own)).toThrow(message);
});

test("a prompt whose arguments are no texts is refused, and so is one without a title", () => {
  const shape = { n: z.int().describe("N"), yes: z.boolean().describe("Yes"), kind: z.enum(["a"]) };
  expect(() => prompt({ arguments: z.strictObject(shape) })).toThrow(/\[n, yes\], which are no texts/);
  expect(() => prompt({ title: "" })).toThrow(/has no title/);
});

test("a URI is that of one resource: its own before a template, one part of a path or the rest of it", () => {
  const all = [
    resource({ name: "one", uri: "stock://items/{id}" }),
    resource({ name: "rest", uri: "stock://files/{+path}" }),
    resource({ name: "fixed", uri: "stock://items/low" }),
  ];
  const found = (uri: string) => {
    const match = resourceOf(uri, all);
    return match && [match.resource.tool.name, match.params];
  };
  expect(found("stock://items/low")).toEqual(["fixed", {}]);
  expect(found("stock://items/7")).toEqual(["one", { id: "7" }]);
  expect(found("stock://items/gr%C3%BCn%2F1")).toEqual(["one", { id: "grün/1" }]);
  expect(found("stock://files/a/b.md")).toEqual(["rest", { path: "a/b.md" }]);
  for (const none of ["stock://items/7/8", "stock://items/", "stock://items/%", "stock://files/", "other://items/7"])
    expect(found(none), none).toBeUndefined();
});

test("a name is given once among tools, resources and prompts, and each file has one", () => {
  expect(() => checkedNames(catalogue, [resource({ name: "get_usage" })])).toThrow(/have the name get_usage/);
  expect(() => checkedNames(catalogue, [resource(), prompt({ name: "a_resource" })])).toThrow(/a_resource/);
  const files = (exports: Record<string, unknown>) => [{ file: "app/resources/x.ts", exports }];
  expect(providedOf(files({ one: resource() }), "resource", isResource).size).toBe(1);
  expect(() => providedOf(files({ one: prompt() }), "resource", isResource)).toThrow(
    /x\.ts exports 0 resources.*defineResource/,
  );
  expect(() => providedOf(files({ a: prompt(), b: prompt() }), "prompt", isPrompt)).toThrow(/x\.ts exports 2 prompts/);
  expect([...resources.keys(), ...prompts.keys()]).toEqual(["document", "low_stock", "stock_review"]);
  expect([callable("low_stock"), callable("nothing")]).toEqual([resources.get("low_stock")?.tool, undefined]);
});

test("a read returns its URI, its media type and its text or bytes; one that finds nothing is free", async () => {
  const { context } = toolContext();
  const read = (own: Partial<ResourceDeclaration<z.ZodObject>>) =>
    callTool(resource({ mimeType: "text/csv", ...own }).tool, { uri: "stock://a" }, context);
  expect(await read({})).toMatchObject({
    units: 1,
    data: { contents: [{ uri: "stock://a", mimeType: "text/csv", text: "a" }] },
  });
  const blob = new Uint8Array([104, 105]);
  expect((await read({ read: async () => ({ blob, mimeType: "image/png" }) })).data).toEqual({
    contents: [{ uri: "stock://a", mimeType: "image/png", blob: "aGk=" }],
  });
  expect(await read({ read: async () => undefined })).toMatchObject({ failed: true, units: 0 });
  await expect(read({ read: async () => ({ text: "a", mimeType: "csv" }) })).rejects.toThrow(/mimeType/);
});

test("a prompt's messages are texts or blocks, each with its role", async () => {
  const { context } = toolContext({ rows: [[{ name: "Lamp", stock: 1 }]] });
  const review = prompts.get("stock_review")?.tool;
  if (review === undefined) throw new Error("The fixture has no stock_review.");
  expect((await callTool(review, {}, context)).data).toMatchObject({
    messages: [
      { role: "user", content: { type: "text", text: expect.stringContaining("- Lamp: 1 in stock") as unknown } },
    ],
  });
  const image = { type: "image" as const, data: new Uint8Array([1]), mimeType: "image/png" };
  const shown = prompt({ get: async () => [{ role: "assistant", content: image }] }).tool;
  expect((await callTool(shown, {}, context)).data).toEqual({
    messages: [{ role: "assistant", content: { ...image, data: "AQ==" } }],
  });
});

test("a read is admitted, charged under the resource's name, and refused by the limits and tools of the account", async () => {
  const read = { ...request, tool: "low_stock", args: { uri: "stock://low" } };
  const limits = { ...config.limits, unitsPerHour: 3 };
  const { call, charges } = startHost({ host: { tenant: () => ({ ...config, limits }) } });
  expect(await call(read)).toMatchObject({ kind: "result", receipt: { units: 2 } });
  expect(charges).toMatchObject([{ tool: "low_stock", units: 2 }]);
  expect(await call({ ...read, callId: "call-2" })).toMatchObject({ refusal: { code: "window_exhausted", cost: 2 } });
  const limited = startHost({ host: { tenant: () => ({ ...config, limits, allowedTools: ["get_usage"] }) } });
  expect(await limited.call(read)).toMatchObject({ refusal: { code: "tool_not_allowed" } });
});

test("a message reads or gets only what exists, and its parameters are refused with words", () => {
  const read = (uri: unknown) => ({ jsonrpc: "2.0", id: 1, method: "resources/read", params: { uri } });
  const get = (name: unknown, args?: unknown) => ({
    ...{ jsonrpc: "2.0", id: 1, method: "prompts/get" },
    params: { name, ...(args !== undefined && { arguments: args }) },
  });
  expect([read("stock://low"), read("documents://files/a/b.md"), get("stock_review")].every(callsProvided)).toBe(true);
  expect(
    [read("stock://high"), read(1), get("none"), get(1), null, { method: "resources/list" }].some(callsProvided),
  ).toBe(false);
  expect(invalidParams(read("low"))).toBe("params.uri must be a URI");
  expect(invalidParams(read("stock://low"))).toBeUndefined();
  expect(invalidParams(get(1))).toBe("params.name must be a prompt's name");
  expect(invalidParams(get("a", []))).toBe("params.arguments must be an object");
  const list = { jsonrpc: "2.0", id: 1, method: "resources/list", params: { cursor: "x" } };
  expect(invalidParams(list)).toMatch(/not a cursor of this server/);
  vi.restoreAllMocks();
});
