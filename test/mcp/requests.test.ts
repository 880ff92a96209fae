// Requests that are refused before MCP: foreign hosts and origins, methods other than POST, content other than JSON, bodies
// that are too large or malformed. Also the headers that a browser client of an allowed origin needs.
import { expect, test } from "vitest";
import { calledTool, toolsFor } from "../../src/calls/mcp/server.ts";
import { MAX_BODY_BYTES, corsHeaders, rateLimitHeaders } from "../../src/calls/mcp/transport.ts";
import { aTool, answer, httpRequest, message, messages, quota } from "../support/mcp-requests.ts";

const list = JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/list" });

/** A body of `sizeBytes` that arrives in pieces, without a declared length. */
function chunked(sizeBytes: number): Request {
  let left = sizeBytes;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const size = Math.min(left, 65_536);
      left -= size;
      if (size > 0) controller.enqueue(new Uint8Array(size).fill(0x20));
      else controller.close();
    },
  });
  const headers = { host: "127.0.0.1", "content-type": "application/json" };
  return new Request("http://127.0.0.1/mcp", { method: "POST", headers, body, duplex: "half" } as RequestInit);
}

test.each(["GET", "DELETE", "PUT"])("%s is not allowed, and the answer names the allowed methods", async (method) => {
  const response = await answer(httpRequest("", { method }));
  expect(response.status).toBe(405);
  expect(response.headers.get("allow")).toBe("POST, OPTIONS");
  expect((await messages(response)).last).toMatchObject({ id: null, error: { code: -32000 } });
});

test("a host that is not this server's is refused, with any port", async () => {
  for (const host of ["evil.example", "evil.example:8787", "127.0.0.1.evil.example"]) {
    expect((await answer(httpRequest(list, { headers: { host } }))).status).toBe(403);
  }
  expect((await answer(httpRequest(list, { headers: { host: "127.0.0.1:8787" } }))).status).toBe(200);
});

test("an origin that is not allowed is refused, and a request without one is served", async () => {
  for (const origin of ["https://evil.example", "http://app.example", "https://app.example:8443", "null"]) {
    expect((await answer(httpRequest(list, { headers: { origin } }))).status).toBe(403);
  }
  expect((await answer(httpRequest(list, { headers: { origin: "https://app.example" } }))).status).toBe(200);
  expect((await answer(httpRequest(list))).status).toBe(200);
});

const preflight = (origin: string) => answer(httpRequest("", { method: "OPTIONS", headers: { origin } }));

test("a browser's preflight succeeds for an allowed origin only", async () => {
  const allowed = await preflight("https://app.example");
  expect(allowed.status).toBe(204);
  expect(allowed.headers.get("access-control-allow-origin")).toBe("https://app.example");
  expect(allowed.headers.get("access-control-allow-headers")).toContain("Authorization");
  expect((await preflight("https://evil.example")).headers.has("access-control-allow-origin")).toBe(false);
});

test("a browser client of an allowed origin can read errors and limits", async () => {
  const headers = { origin: "https://app.example" };
  const failed = await answer(httpRequest("{", { headers }));
  expect(failed.status).toBe(400);
  expect(failed.headers.get("access-control-allow-origin")).toBe("https://app.example");
  const shared = corsHeaders(httpRequest(list, { headers }), ["https://app.example"]);
  expect(shared).toMatchObject({
    vary: "Origin",
    "access-control-expose-headers": expect.stringContaining("RateLimit"),
  });
});

test.each(["text/plain", "application/jsonp", ""])("content type %j is refused", async (contentType) => {
  expect((await answer(httpRequest(list, { headers: { "content-type": contentType } }))).status).toBe(415);
});

test("malformed JSON, an empty body, an empty batch and a value that is not a message each get their own error", async () => {
  for (const [body, code] of [
    ['{"jsonrpc"', -32700],
    ["", -32700],
    ["[]", -32600],
    ["42", -32600],
    ["null", -32600],
    ['{"hello":1}', -32600],
  ] as const) {
    const response = await answer(httpRequest(body));
    expect(response.status).toBe(400);
    expect((await messages(response)).last.error).toMatchObject({ code });
  }
});

test("a body over the limit is refused with any declared length", async () => {
  const tooLarge = " ".repeat(MAX_BODY_BYTES + 1);
  for (const request of [
    httpRequest(tooLarge, { headers: { "content-length": String(tooLarge.length) } }),
    httpRequest(tooLarge, { headers: { "content-length": "17" } }),
    httpRequest(tooLarge, { headers: { "content-length": "a lot" } }),
    chunked(tooLarge.length),
  ]) {
    const response = await answer(request);
    expect(response.status).toBe(413);
    expect((await messages(response)).last.error?.message).toContain(String(MAX_BODY_BYTES));
  }
});

test("arguments that nest far deeper than any schema get an answer", async () => {
  const depth = 200_000;
  const nested = `${"[".repeat(depth)}${"]".repeat(depth)}`;
  for (const era of ["2025-11-25", "2026-07-28"] as const) {
    const plain = await message(era, "tools/call", { name: "search_products", arguments: { query: "QUERY" } }).text();
    const headers = { "mcp-protocol-version": era, "mcp-method": "tools/call", "mcp-name": "search_products" };
    const response = await answer(httpRequest(plain.replace('"QUERY"', nested), { headers }));
    const { last } = await messages(response);
    expect(last.result?.isError ?? last.error !== undefined).toBe(true);
  }
});

test("only a call names a tool, and its server has that tool alone", () => {
  const catalogue = new Map([aTool(), aTool({ name: "other_tool" })].map((tool) => [tool.name, tool]));
  const called = { method: "tools/call", params: { name: "other_tool" } };
  expect(calledTool(called)).toBe("other_tool");
  const now = Date.UTC(2026, 10, 30);
  const user = { plan: "free", features: {}, scopes: [] };
  const namesFor = (body: unknown, allowedTools: string[] | null): string[] =>
    toolsFor(body, catalogue, { ...user, allowedTools }, now).map(({ name }) => name);
  expect(namesFor(called, ["search_products"])).toEqual(["other_tool"]);
  expect(namesFor({ method: "tools/call", params: { name: "missing" } }, null)).toEqual([]);
  expect(namesFor({ method: "tools/list" }, null)).toEqual(["search_products", "other_tool"]);
  expect(namesFor({ method: "tools/list" }, ["other_tool"])).toEqual(["other_tool"]);
  for (const body of [null, 1, [], {}, { method: "tools/call" }, { method: "prompts/get", params: { name: "x" } }]) {
    expect(calledTool(body)).toBeUndefined();
    expect(namesFor(body, null)).toEqual([]);
  }
});

test("the rate limit headers name each limit of the tenant and the rest of it", () => {
  expect(rateLimitHeaders(quota)).toEqual({
    "ratelimit-policy":
      '"minute";q=60;w=60;qu="requests", "hour";q=100;w=3600;tollgate-unit="units", "month";q=1000;w=2678400;tollgate-unit="units"',
    ratelimit: '"minute";r=40;t=40, "hour";r=60;t=30, "month";r=600;t=5000',
  });
  const unlimited = { limit: null, used: 5, resetSeconds: 1 };
  const over = { minute: unlimited, hour: { limit: 10, used: 12, resetSeconds: 1.2 }, month: unlimited };
  expect(rateLimitHeaders(over).ratelimit).toBe('"hour";r=0;t=2');
  expect(rateLimitHeaders({ minute: unlimited, hour: unlimited, month: unlimited })).toEqual({});
});

test("a body that is not UTF-8 is refused, and a byte order mark is not", async () => {
  const text = `{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":"caf\u00e9"}}`;
  const send = (bytes: Buffer<ArrayBuffer>, headers: Record<string, string>) => answer(httpRequest(bytes, { headers }));
  for (const sized of [true, false]) {
    const refused = Buffer.from(text, "latin1");
    const headers = (bytes: Buffer): Record<string, string> =>
      sized ? { "content-length": String(bytes.length) } : {};
    const response = await send(refused, headers(refused));
    expect(response.status).toBe(400);
    expect((await messages(response)).last).toMatchObject({
      error: { code: -32700, message: expect.stringContaining("UTF-8") },
    });
    const marked = Buffer.from(`\uFEFF${text}`);
    expect((await send(marked, headers(marked))).status).toBe(200);
  }
});
