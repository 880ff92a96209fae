// Sends single MCP messages of any revision through the product's request checks and protocol layer, in this process. The
// test provides its own tool, and a `callTool` in place of the tenant's object.
import type { AuthInfo } from "@modelcontextprotocol/server";
import * as z from "zod";
import { callStates } from "../../src/calls/mcp/call-state.ts";
import type { CallOutcome, QuotaStatus } from "../../src/core/call.ts";
import { type CallTool, registerTools, serveMcp, toolsFor } from "../../src/calls/mcp/server.ts";
import { answerBatch, readMcpRequest } from "../../src/calls/mcp/transport.ts";
import { type Tool, defineTool } from "../../src/tools/tool.ts";

export const eras = ["2025-11-25", "2026-07-28"] as const;
export type Era = (typeof eras)[number];

export const quota: QuotaStatus = {
  minute: { limit: 60, used: 20, resetSeconds: 40 },
  hour: { limit: 100, used: 40, resetSeconds: 30 },
  month: { limit: 1_000, used: 400, resetSeconds: 5_000 },
};

export function aTool(overrides: Partial<Tool> = {}): Tool {
  const tool = defineTool({
    name: "search_products",
    title: "Search products",
    description: "Finds products by their name.",
    units: 1,
    scopes: ["tools:read"],
    input: z.strictObject({
      query: z.string().describe("Words to look for"),
      limit: z.int().max(50).default(10).describe("Products a page"),
    }),
    output: z.strictObject({ found: z.int() }),
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: () => false,
    run: () => Promise.reject(new Error("This layer runs no tool itself")),
  });
  return { ...tool, scopes: [], ...overrides };
}

export function aResult(
  overrides: Partial<Extract<CallOutcome, { kind: "result" }>> = {},
): Exclude<CallOutcome, { kind: "asks" }> {
  const content = [{ type: "text" as const, text: "3 found" }];
  return {
    kind: "result",
    content,
    data: { found: 3 },
    isError: false,
    failure: undefined,
    receipt: undefined,
    quota,
    ...overrides,
  };
}

/** What callers of these tests keep for the server between two rounds of a call. */
export const states = callStates({ CREDENTIAL_KEY: "a secret of these tests alone, of 40 bytes" }, "c");

export interface Setting {
  tools?: readonly Tool[];
  callTool?: CallTool;
  scopes?: string[];
}

/** The server's answer to a request. */
export async function answer(request: Request, setting: Setting = {}): Promise<Response> {
  const { tools = [aTool()], callTool = () => Promise.resolve(aResult()), scopes = [] } = setting;
  const guard = { allowedHosts: ["127.0.0.1"], allowedOrigins: ["https://app.example"] };
  const read = await readMcpRequest(request, guard);
  if ("response" in read) return read.response;
  const { body, finish, streams } = read;
  const catalogue = new Map(tools.map((tool) => [tool.name, tool]));
  const resource = new URL("http://127.0.0.1/mcp");
  const authInfo: AuthInfo = { token: "t", clientId: "c", scopes, expiresAt: 4_000_000_000, resource };
  const serve = (each: unknown): Promise<Response> =>
    serveMcp({
      request,
      body: each,
      authInfo,
      register: (server) =>
        registerTools(server, toolsFor(each, catalogue, undefined, Date.now()), { callTool, states, streams }),
    });
  return finish(await (Array.isArray(body) ? answerBatch(body, serve) : serve(body)));
}

export function httpRequest(body: string | Uint8Array<ArrayBuffer>, init: RequestInit = {}): Request {
  const headers = new Headers({
    host: "127.0.0.1",
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
  });
  for (const [name, value] of new Headers(init.headers)) headers.set(name, value);
  const method = init.method ?? "POST";
  return new Request("http://127.0.0.1/mcp", { ...init, method, headers, ...(method === "POST" && { body }) });
}

interface MessageOptions {
  progressToken?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Of a client of the newest revision. */
  capabilities?: Record<string, unknown>;
}

/** One message with its headers, as a client of the revision sends it. */
export function message(
  era: Era,
  method: string,
  params: Record<string, unknown> = {},
  { progressToken, headers = {}, signal, capabilities = {} }: MessageOptions = {},
): Request {
  const isModern = era === "2026-07-28";
  const meta = {
    ...(progressToken !== undefined && { progressToken }),
    ...(isModern && {
      "io.modelcontextprotocol/protocolVersion": era,
      "io.modelcontextprotocol/clientCapabilities": capabilities,
    }),
  };
  const body = { jsonrpc: "2.0", id: 7, method, params: { ...params, _meta: meta } };
  const routing = isModern
    ? { "mcp-method": method, ...(typeof params.name === "string" && { "mcp-name": params.name }) }
    : {};
  return httpRequest(JSON.stringify(body), {
    headers: { "mcp-protocol-version": era, ...routing, ...headers },
    ...(signal && { signal }),
  });
}

/** The JSON-RPC messages of an answer, in order, and whether they came as an event stream. */
export async function messages(response: Response): Promise<{ streamed: boolean; all: Message[]; last: Message }> {
  const streamed = response.headers.get("content-type") === "text/event-stream";
  const text = await response.text();
  const parts = streamed ? [...text.matchAll(/^data: (?<json>.+)$/gm)].map(({ groups }) => groups?.json ?? "") : [text];
  const all = parts.map((part) => Message.parse(JSON.parse(part)));
  const last = all.at(-1);
  if (last === undefined) throw new Error("The answer holds no message");
  return { streamed, all, last };
}

const Message = z.looseObject({
  id: z.union([z.number(), z.string(), z.null()]).optional(),
  method: z.string().optional(),
  params: z.record(z.string(), z.unknown()).optional(),
  result: z.record(z.string(), z.unknown()).optional(),
  error: z.looseObject({ code: z.int(), message: z.string() }).optional(),
});
export type Message = z.infer<typeof Message>;
