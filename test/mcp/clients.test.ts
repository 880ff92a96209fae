// Requests as real clients send them, each from a public bug report: forms of `Accept`, batches, numbers beyond 2^53, members
// without a value, and arguments that a client adds. Each is served, or refused with the code that the protocol names.
import { expect, test } from "vitest";
import * as z from "zod";
import type { CallTool } from "../../src/calls/mcp/server.ts";
import { acceptedTypes, answerBatch } from "../../src/calls/mcp/transport.ts";
import { aResult, aTool, answer, eras, httpRequest, message, messages } from "../support/mcp-requests.ts";

const ping = { jsonrpc: "2.0", id: 7, method: "ping" };

/** Answers with the arguments that reach the tool. */
function echo(): { callTool: CallTool; seen: Record<string, unknown>[] } {
  const seen: Record<string, unknown>[] = [];
  return {
    seen,
    callTool: (_tool, args) => {
      seen.push({ ...args });
      return Promise.resolve(aResult());
    },
  };
}

async function call(args: unknown, tool = aTool()): Promise<{ isError: boolean; text: string; seen: unknown[] }> {
  const { callTool, seen } = echo();
  const request = message("2025-11-25", "tools/call", { name: tool.name, arguments: args });
  const { last } = await messages(await answer(request, { tools: [tool], callTool }));
  return { isError: last.result?.isError === true, text: JSON.stringify(last.result?.content), seen };
}

// ---- Accept

test.each([
  ["*/*"],
  ["application/*, text/*"],
  ["Application/JSON, Text/Event-Stream"],
  ["application/json"],
  ["application/json;q=0.9, */*;q=0.1"],
  [""],
])("both eras answer %j as JSON", async (accept) => {
  for (const era of eras) {
    const response = await answer(message(era, "tools/list", {}, { headers: { accept } }));
    expect(response.status, era).toBe(200);
    expect((await messages(response)).streamed, era).toBe(false);
  }
});

test.each(eras)("%s answers a client that accepts an event stream alone as one event", async (era) => {
  for (const accept of ["text/event-stream", "application/json;q=0, text/event-stream"]) {
    const { streamed, all } = await messages(await answer(message(era, "tools/list", {}, { headers: { accept } })));
    expect(streamed).toBe(true);
    expect(all).toHaveLength(1);
    expect(all[0]?.result).toHaveProperty("tools");
  }
});

test.each(eras)("%s reports no progress to a client that accepts JSON alone", async (era) => {
  const callTool: CallTool = async (_tool, _args, { progress }) => aResult({ data: { found: progress ? 1 : 0 } });
  const options = { progressToken: "p1", headers: { accept: "application/json" } };
  const request = message(era, "tools/call", { name: "search_products", arguments: { query: "x" } }, options);
  const { streamed, last } = await messages(await answer(request, { callTool }));
  expect(streamed).toBe(false);
  expect(last.result).toMatchObject({ structuredContent: { found: 0 } });
});

test("an answer in a form that the client refuses is 406", async () => {
  for (const accept of ["text/html", "image/*", "application/json;q=0", "*/*;q=0.0"]) {
    const response = await answer(httpRequest(JSON.stringify(ping), { headers: { accept } }));
    expect(response.status, accept).toBe(406);
  }
  expect(acceptedTypes(null)).toEqual({ json: true, events: true });
});

// ---- bodies

test("a compressed body is refused as that, and the answer names what is taken", async () => {
  for (const encoding of ["gzip", "br", "GZIP"]) {
    const response = await answer(httpRequest(JSON.stringify(ping), { headers: { "content-encoding": encoding } }));
    expect(response.status).toBe(415);
    expect(response.headers.get("accept-encoding")).toBe("identity");
  }
  expect(
    (await answer(httpRequest(JSON.stringify(ping), { headers: { "content-encoding": "identity" } }))).status,
  ).toBe(200);
});

// ---- numbers

const bigNumbers = ["9007199254740993", "-9007199254740993", "123456789012345678901234567890", "1.5", "1e400"];

test.each(bigNumbers)("the id %s comes back as it was sent", async (id) => {
  for (const method of ["ping", "no/such", "tools/list"]) {
    const response = await answer(httpRequest(`{"jsonrpc":"2.0","id":${id},"method":"${method}","params":{"id":1}}`));
    expect(await response.text(), method).toContain(`"id":${id}`);
  }
  const listed = await message("2026-07-28", "tools/list").text();
  const headers = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list" };
  const response = await answer(httpRequest(listed.replace('"id":7', `"id":${id}`), { headers }));
  expect(await response.text()).toContain(`"id":${id}`);
});

test("a progress token beyond 2^53 comes back as it was sent, in every notification", async () => {
  const token = "9007199254740993";
  const callTool: CallTool = async (_tool, _args, { progress }) => {
    await progress?.({ progress: 1 });
    await progress?.({ progress: 2 });
    return aResult();
  };
  const text = await message("2025-11-25", "tools/call", { name: "search_products", arguments: { query: "x" } }).text();
  const body = text.replace('"_meta":{}', `"_meta":{"progressToken":${token}}`).replace('"id":7', `"id":${token}`);
  const answered = await (await answer(httpRequest(body), { callTool })).text();
  expect(answered.match(new RegExp(`"progressToken":${token}\\b`, "g"))).toHaveLength(2);
  expect(answered).toContain(`"id":${token}`);
});

// ---- batches

const batch = (items: unknown[], revision?: string): Promise<Response> =>
  answer(
    httpRequest(JSON.stringify(items), revision === undefined ? {} : { headers: { "mcp-protocol-version": revision } }),
  );

test("a batch of revision 2025-03-26 gets one answer for each request, in order", async () => {
  const { callTool, seen } = echo();
  const items = [
    { ...ping, id: 1 },
    { jsonrpc: "2.0", method: "notifications/initialized" },
    { jsonrpc: "2.0", id: "two", method: "tools/list" },
    { jsonrpc: "2.0", id: 3, method: "tools/call", params: { name: "search_products", arguments: { query: "a" } } },
    { jsonrpc: "2.0", id: 4, method: "no/such" },
    17,
  ];
  for (const revision of ["2025-03-26", undefined]) {
    const headers = revision === undefined ? {} : { "mcp-protocol-version": revision };
    const response = await answer(httpRequest(JSON.stringify(items), { headers }), { callTool });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject([
      { id: 1, result: {} },
      { id: "two", result: { tools: [{}] } },
      { id: 3, result: { structuredContent: { found: 3 } } },
      { id: 4, error: { code: -32601 } },
      { id: null, error: { code: -32600 } },
    ]);
  }
  expect(seen).toHaveLength(2);
});

test("a batch of notifications alone has no answer", async () => {
  const response = await batch([{ jsonrpc: "2.0", method: "notifications/initialized" }], "2025-03-26");
  expect(response.status).toBe(202);
  expect(await response.text()).toBe("");
});

test("a batch is refused by revisions that have none, when it is empty, and when it is too long", async () => {
  for (const revision of ["2025-06-18", "2025-11-25", "2026-07-28"]) {
    const response = await batch([ping], revision);
    expect(response.status).toBe(400);
    expect((await messages(response)).last.error).toMatchObject({ code: -32600 });
  }
  for (const items of [[], Array.from({ length: 51 }, () => ping)])
    expect((await batch(items, "2025-03-26")).status).toBe(400);
});

test("a batch whose credential is refused gets the challenge, and a missing scope is the error of its own message", async () => {
  const refuse = (status: number) =>
    Response.json({ error: "insufficient_scope", error_description: "It lacks tools:write." }, { status });
  expect((await answerBatch([ping, ping], async () => refuse(401))).status).toBe(401);
  const lacking = await answerBatch([ping], async () => refuse(403));
  expect(lacking.status).toBe(200);
  expect(await lacking.json()).toEqual([
    { jsonrpc: "2.0", id: 7, error: { code: -32000, message: "It lacks tools:write." } },
  ]);
});

test("a batch cannot initialize, and cannot hold messages of the newer era", async () => {
  const params = { protocolVersion: "2025-03-26", capabilities: {}, clientInfo: { name: "x", version: "1" } };
  const modern = JSON.parse(await message("2026-07-28", "tools/list").text());
  const response = await batch([{ ...ping, id: 1, method: "initialize", params }, modern, ping], "2025-03-26");
  expect(await response.json()).toMatchObject([
    { id: 1, error: { code: -32600 } },
    { id: 7, error: { code: -32600 } },
    { id: 7, result: {} },
  ]);
});

// ---- parameters

test.each([
  ["initialize", { protocolVersion: "2025-06-18", capabilities: {} }, "clientInfo"],
  ["initialize", { protocolVersion: 3, capabilities: {}, clientInfo: { name: "x", version: "1" } }, "protocolVersion"],
  ["initialize", { protocolVersion: "2025-06-18", capabilities: null, clientInfo: { name: "x", version: "1" } }, "cap"],
  ["tools/list", { cursor: 7 }, "cursor"],
  ["tools/list", { cursor: "page-7" }, "cursor"],
  ["tools/list", [1], "params"],
  ["tools/list", { _meta: "x" }, "_meta"],
  ["tools/call", { name: 1 }, "name"],
  ["tools/call", {}, "name"],
  ["tools/call", { name: "search_products", arguments: "{}" }, "arguments"],
  ["tools/call", { name: "search_products", _meta: { progressToken: {} } }, "progressToken"],
])("%s with the parameters %j is -32602, in words that name the parameter", async (method, params, named) => {
  const { last } = await messages(await answer(httpRequest(JSON.stringify({ ...ping, method, params }))));
  expect(last).toMatchObject({ id: 7, error: { code: -32602 } });
  expect(last.error?.message).toContain(named);
  expect(last.error?.message).not.toMatch(/[[{\n]/);
});

test("the newer era has no initialize, with any parameters", async () => {
  const response = await answer(message("2026-07-28", "initialize"));
  expect(response.status).toBe(404);
  expect((await messages(response)).last.error).toMatchObject({ code: -32601 });
});

test.each(eras)("%s refuses a cursor that it never gave out", async (era) => {
  const { last } = await messages(await answer(message(era, "tools/list", { cursor: "page-7" })));
  expect(last.error).toMatchObject({ code: -32602 });
});

test.each([
  ["tools/list", null],
  ["tools/list", { cursor: null }],
  ["tools/list", { cursor: "" }],
  ["tools/list", { _meta: null }],
  ["tools/list", { _meta: { progressToken: null } }],
  ["ping", null],
  [
    "initialize",
    {
      protocolVersion: "2025-06-18",
      capabilities: { roots: null, sampling: null },
      clientInfo: { name: "x", version: "1", title: null },
    },
  ],
  ["tools/call", { name: "takes_nothing", arguments: null }],
  ["tools/call", { name: "takes_nothing", arguments: {}, _meta: null }],
  ["tools/call", { name: "takes_nothing" }],
  ["tools/call", { name: "takes_nothing", arguments: "" }],
  ["tools/call", { name: "takes_nothing", arguments: [], _meta: [] }],
  ["tools/list", []],
  [
    "initialize",
    { protocolVersion: "2025-06-18", capabilities: { experimental: [] }, clientInfo: { name: "x", version: "1" } },
  ],
  ["initialize", { protocolVersion: "2025-06-18", capabilities: [], clientInfo: { name: "x", version: "1" } }],
])("%s takes a member that is null or empty as absent: %j", async (method, params) => {
  const tools = [aTool({ name: "takes_nothing", input: z.strictObject({}) })];
  const { last } = await messages(await answer(httpRequest(JSON.stringify({ ...ping, method, params })), { tools }));
  expect(last.error).toBeUndefined();
  expect(last.result).not.toHaveProperty("isError");
});

test("a member that no message has is ignored", async () => {
  const { last } = await messages(await answer(httpRequest(JSON.stringify({ ...ping, extra: 1, error2: null }))));
  expect(last).toMatchObject({ id: 7, result: {} });
});

test.each([
  [{ ...ping, id: null }, "id"],
  [{ ...ping, id: [1] }, "id"],
  [{ ...ping, jsonrpc: "1.0" }, "jsonrpc"],
  [{ jsonrpc: "2.0", id: 7 }, "method"],
  [{ ...ping, method: 5 }, "method"],
  ["ping", "object"],
])("%j is refused, in words that name the member", async (body, named) => {
  const response = await answer(httpRequest(JSON.stringify(body)));
  expect(response.status).toBe(400);
  const { last } = await messages(response);
  expect(last.error).toMatchObject({ code: -32600, message: expect.stringContaining(named) });
});

// ---- arguments

const optional = aTool({
  input: z.strictObject({
    query: z.string().min(1).describe("Words"),
    category: z.enum(["chair", "table"]).optional(),
    limit: z.int().default(10).describe("Products a page"),
    note: z.string().optional().describe("May be empty"),
    range: z
      .strictObject({ from: z.int().optional().describe("From") })
      .optional()
      .describe("Range"),
    nothing: z.string().nullable().optional().describe("May be null"),
  }),
});

test("null or an empty text for an optional argument is no value, where the schema refuses it", async () => {
  const { seen, isError } = await call(
    { query: "x", category: "", limit: null, note: "", range: { from: null }, nothing: null },
    optional,
  );
  expect(isError).toBe(false);
  expect(seen).toEqual([{ query: "x", limit: 10, note: "", range: {}, nothing: null }]);
});

test("arguments that a client adds to every call are ignored", async () => {
  const added = { sessionId: "s", action: "sendMessage", chatInput: "hi", toolCallId: "call_1", tool: "Search" };
  const { seen, isError } = await call({ query: "x", category: null, ...added }, optional);
  expect(isError).toBe(false);
  expect(seen).toEqual([{ query: "x", limit: 10 }]);
});

test("an argument that names a tenant is never ignored", async () => {
  for (const name of ["tenant", "tenant_id", "tenantId"]) {
    const { isError, text, seen } = await call({ query: "x", [name]: "another" }, optional);
    expect(isError).toBe(true);
    expect(text).toContain(name);
    expect(seen).toEqual([]);
    expect((await call({ query: "x", [name]: null }, optional)).isError).toBe(false);
  }
});

test("the refusal of an argument is in words", async () => {
  const { text } = await call({ category: "sofa", limit: "10" }, optional);
  expect(text).toContain("query: is missing");
  expect(text).toContain("must be one of");
  expect(text).toContain("limit: must be a number, not a string");
  expect(text).not.toContain("Invalid input");
});

test("a tool that refuses unknown input still does", async () => {
  const { seen, isError, text } = await call(
    { query: "x", toolCallId: "c" },
    { ...optional, refusesUnknownInput: true },
  );
  expect(isError).toBe(true);
  expect(text).toContain("toolCallId");
  expect(seen).toEqual([]);
});

test.each([
  [{ query: null }, "query"],
  [{ query: "" }, "query"],
  [{}, "query"],
  [{ query: "x", category: "sofa" }, "category"],
  [{ query: "x", limit: "10" }, "limit"],
  [{ query: "x", range: { from: 1, until: 2 } }, "until"],
])("what a tool needs stays strict: %j", async (args, named) => {
  const { isError, text, seen } = await call({ ...args, toolCallId: "c" }, optional);
  expect(isError).toBe(true);
  expect(text).toContain(named);
  expect(text).not.toContain("toolCallId");
  expect(seen).toEqual([]);
});

// ---- schemas

test.each(eras)("%s lists schemas that name no dialect, for validators that know only their own", async (era) => {
  const { last } = await messages(await answer(message(era, "tools/list")));
  expect(JSON.stringify(last.result)).not.toContain("$schema");
});
