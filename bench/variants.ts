// The compared variants: the same tool with the same arguments for the same tenants, on paths that do more or less work.
import type { BenchTenant } from "./ground.ts";

export type RuntimeName = "product" | "floor" | "constant";

export interface Variant {
  name: string;
  says: string;
  runtime: RuntimeName;
  /** A tenant's call as a whole HTTP request. */
  request(tenant: BenchTenant): string;
  /** How many of `--calls` it makes: the faster, the more, so that its CPU is many ticks of the kernel's clock. */
  times: number;
  /** Its charges travel on to the ledger, which is waited for and belongs to its cost. */
  metered: boolean;
}

const tool = "search_products";
const args = { query: "oak", limit: 10 };

function post(path: string, headers: Record<string, string>, body: unknown): string {
  const text = JSON.stringify(body);
  const all = {
    host: "127.0.0.1",
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "content-length": String(Buffer.byteLength(text)),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n${text}`;
}

function modern(token: string): string {
  const version = "2026-07-28";
  const headers = { "mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": tool };
  const meta = {
    "io.modelcontextprotocol/protocolVersion": version,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": { name: "bench", version: "1.0.0" },
  };
  const params = { name: tool, arguments: args, _meta: meta };
  return post(
    "/mcp",
    { ...headers, authorization: `Bearer ${token}` },
    { jsonrpc: "2.0", id: 1, method: "tools/call", params },
  );
}

function legacy(token: string): string {
  const headers = { "mcp-protocol-version": "2025-11-25", authorization: `Bearer ${token}` };
  return post("/mcp", headers, {
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name: tool, arguments: args },
  });
}

const plain = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: tool, arguments: args } };

export const variants: readonly Variant[] = [
  {
    name: "product",
    says: "2026-07-28, API key",
    runtime: "product",
    request: ({ apiKey }) => modern(apiKey),
    times: 1,
    metered: true,
  },
  {
    name: "product-oauth",
    says: "2026-07-28, access token of an OAuth client",
    runtime: "product",
    request: ({ accessToken }) => modern(accessToken),
    times: 1,
    metered: true,
  },
  {
    name: "product-legacy",
    says: "2025-11-25, API key",
    runtime: "product",
    request: ({ apiKey }) => legacy(apiKey),
    times: 1,
    metered: true,
  },
  {
    name: "product-jwt",
    says: "2026-07-28, JWT",
    runtime: "product",
    request: ({ jwt }) => modern(jwt),
    times: 1,
    metered: true,
  },
  {
    name: "floor",
    says: "one RPC, one row, one round trip",
    runtime: "floor",
    request: ({ id }) => post("/", { "x-tenant": id }, plain),
    times: 1,
    metered: false,
  },
  {
    name: "floor-callback",
    says: "the object calls the tool back in the Worker",
    runtime: "floor",
    request: ({ id }) => post("/callback", { "x-tenant": id }, plain),
    times: 1,
    metered: false,
  },
  {
    name: "constant",
    says: "a Worker that answers a constant",
    runtime: "constant",
    request: () => post("/", {}, plain),
    times: 10,
    metered: false,
  },
];
