// Answers to `context.fetch` of a real HTTP server on this machine: too large, too slow, compressed, cut off. And the setting that leads
// a host to this machine, which no deployment takes.
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";
import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import * as z from "zod";
import { listenOnLoopback } from "../../dev/loopback.ts";
import { type Outside, localHosts } from "../../src/adapters/tool-fetch.ts";
import { catalogue } from "../../src/tools/catalogue.ts";
import { type Tool, type ToolContext, defineTool, isFailure } from "../../src/tools/tool.ts";
import { request as aCall, startHost } from "../support/call-host.ts";
import { ask, env, problemOf, world } from "../support/outside-world.ts";

afterEach(() => void vi.restoreAllMocks());

/** A server on this machine, in the place of shipping.example. */
async function aServer(answer: Parameters<typeof createServer>[1] & object): Promise<Partial<Outside>> {
  const listening = await listenOnLoopback(createServer(answer as never), 0);
  onTestFinished(() => listening.close());
  const local = {
    PUBLIC_URL: "http://127.0.0.1:8787",
    TOOL_HOSTS_LOCAL: JSON.stringify({ "shipping.example": listening.url }),
  };
  return { env: { ...env, ...local }, hosts: ["shipping.example"] };
}

test("a local stand-in answers in place of its host, with path, query, headers and body", async () => {
  const own = await aServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () =>
      response
        .writeHead(201, { "x-a": "b" })
        .end(`${request.method} ${request.url} ${String(request.headers["x-key"])} ${Buffer.concat(parts).toString()}`),
    );
  });
  const response = await ask(
    "https://shipping.example/a?b=c",
    { method: "POST", headers: { "x-key": "k" }, body: "hello" },
    own,
  );
  expect([response.status, response.headers.get("x-a"), await response.text()]).toEqual([
    201,
    "b",
    "POST /a?b=c k hello",
  ]);
});

test("an answer over 5 MiB ends while it is read: declared, undeclared, and inside of 6 KB of gzip", async () => {
  const cases: [string, Parameters<typeof aServer>[0]][] = [
    ["declared", (_, response) => void response.writeHead(200, { "content-length": 6_000_000 }).write("a")],
    [
      "undeclared",
      (_, response) => {
        const more = (): void =>
          void (response.writableEnded || response.write("a".repeat(262_144), () => setImmediate(more)));
        response.on("close", () => response.end());
        more();
      },
    ],
    [
      "a bomb",
      (_, response) =>
        void response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(Buffer.alloc(6_000_000))),
    ],
  ];
  for (const [what, answer] of cases) {
    const own = await aServer(answer);
    expect(await problemOf(ask("https://shipping.example/", {}, own)), what).toMatchObject({
      ...{ code: "fetch_too_large", kind: "permanent" },
      message: "Request to shipping.example: its answer is over 5 MiB.",
    });
  }
  const whole = await aServer((_, response) => void response.end(Buffer.alloc(5_242_880)));
  expect((await (await ask("https://shipping.example/", {}, whole)).arrayBuffer()).byteLength).toBe(5_242_880);
});

test("a silent host and a slow drip end with the time, and a call that ends takes its request along", async () => {
  const drip = await aServer((_, response) => {
    const timer = setInterval(() => response.write("."), 20);
    response.on("close", () => clearInterval(timer));
  });
  const silent = await aServer(() => undefined);
  for (const own of [drip, silent])
    expect(await problemOf(ask("https://shipping.example/", { timeoutMs: 200 }, own))).toMatchObject({
      ...{ code: "fetch_timeout", kind: "temporary", message: "Request to shipping.example: no answer within 200 ms." },
    });
  const abort = new AbortController();
  const ended = problemOf(ask("https://shipping.example/", {}, { ...silent, signal: abort.signal }));
  setTimeout(() => abort.abort("cancelled"), 50);
  expect(await ended).toMatchObject({ code: "fetch_failed" });
});

test("a request that the tool did not wait for ends with its call, and none begins after it", async () => {
  const closed = Promise.withResolvers<void>();
  const { env: bindings } = await aServer((request) => request.socket.on("close", () => closed.resolve()));
  let late: Promise<{ code: string }> | undefined;
  let fetch: ToolContext["fetch"] | undefined;
  const tool = defineTool({
    ...{ name: "asks_late", title: "Asks late", description: "Asks.", units: 1, scopes: ["tools:read"] },
    hosts: ["shipping.example"],
    input: z.strictObject({}),
    output: z.strictObject({}),
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: isFailure,
    run: async (_input, context) => {
      ({ fetch } = context);
      late = problemOf(fetch("https://shipping.example/"));
      await new Promise((resolve) => setTimeout(resolve, 50));
      return { data: {} };
    },
  });
  (catalogue as Map<string, Tool>).set(tool.name, tool);
  onTestFinished(() => void (catalogue as Map<string, Tool>).delete(tool.name));
  const info = vi.spyOn(console, "info").mockImplementation(() => undefined);
  const { call } = startHost({ host: { env: bindings as never } });
  expect(await call({ ...aCall, tool: tool.name, args: {} })).toMatchObject({ receipt: { units: 1 } });
  expect((await late)?.code).toBe("fetch_failed");
  await closed.promise;
  expect(
    (await problemOf(fetch?.("https://shipping.example/") ?? Promise.reject(new Error("it did not run")))).code,
  ).toBe("fetch_failed");
  expect(info.mock.calls.map(([line]) => JSON.parse(String(line)) as unknown)).toContainEqual(
    expect.objectContaining({ event: "call", outcome: "ok" }),
  );
});

test("a tool that changes data and sends a request without an answer does not know the outcome", async () => {
  const cut = await aServer((request) => request.socket.destroy());
  const lost = { ...cut, isReadOnly: false };
  expect(await problemOf(ask("https://shipping.example/", { method: "POST", body: "x" }, lost))).toMatchObject({
    code: "outcome_unknown",
    message: "Request to shipping.example: it cannot be reached: whether it has done what was asked is not known.",
  });
  expect((await problemOf(ask("https://shipping.example/", {}, lost))).code).toBe("fetch_failed");
  expect((await problemOf(ask("https://shipping.example/", { method: "POST" }, cut))).code).toBe("fetch_failed");
});

test("a compressed answer comes in clear, and an answer without a body has none", async () => {
  const own = await aServer((request, response) => {
    if (request.url === "/none") response.writeHead(204).end();
    else response.writeHead(404, { "content-encoding": "gzip" }).end(gzipSync("no such thing"));
  });
  const response = await ask("https://shipping.example/", {}, own);
  expect([response.status, response.headers.get("content-encoding"), await response.text()]).toEqual([
    404,
    null,
    "no such thing",
  ]);
  expect((await ask("https://shipping.example/none", {}, own)).status).toBe(204);
  expect((await ask("https://shipping.example/", { method: "HEAD" }, own)).status).toBe(404);
});

test.each([
  ["https://tollgate.example", { "shipping.example": "http://127.0.0.1:1" }],
  ["https://127.0.0.1.example.com", { "shipping.example": "http://127.0.0.1:1" }],
  ["http://127.0.0.1:8787", { "shipping.example": "https://evil.example" }],
  ["http://127.0.0.1:8787", { "shipping.example": "http://10.0.0.1" }],
])("a deployment at %s refuses the stand-ins %j, and sends nothing", async (PUBLIC_URL, hosts) => {
  const { sent } = world();
  const own = { ...env, PUBLIC_URL, TOOL_HOSTS_LOCAL: JSON.stringify(hosts) };
  expect(() => localHosts(own)).toThrow("TOOL_HOSTS_LOCAL is for local development");
  expect((await problemOf(ask("https://api.example.com/", {}, { env: own }))).code).toBe("internal");
  expect(sent).toEqual([]);
});
