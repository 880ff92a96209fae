// MCP over HTTP: the checks of a request before anything else (host, origin, method, content type, size, JSON), the headers
// of its answer, and the transport of the older revisions. Every refusal is a JSON-RPC error with a plain message. Only
// this file reads and parses the body; it counts the bytes itself and does not trust `Content-Length`.
import {
  WebStandardStreamableHTTPServerTransport,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJsonContentType,
} from "@modelcontextprotocol/server";
import type { AuthInfo, JSONRPCMessage, McpServer } from "@modelcontextprotocol/server";
import type { QuotaStatus } from "../core/call.ts";
import { decodeUtf8 } from "../core/text.ts";

/** Larger than any sensible set of arguments, small enough that many at once fit into an isolate's 128 MiB. */
export const MAX_BODY_BYTES = 1024 * 1024;

export interface McpGuard {
  /** Host names of this server, lower case and without ports. Any other name is a DNS rebinding attack. */
  allowedHosts: readonly string[];
  /** Origins (`https://app.example`) of browser clients. A request without `Origin` does not come from a browser. */
  allowedOrigins: readonly string[];
}

const PARSE_ERROR = -32700;
const INVALID_REQUEST = -32600;
const INTERNAL_ERROR = -32603;
/** The JSON-RPC code for errors of the server's own. The HTTP status tells them apart. */
const REFUSED = -32000;

/** A JSON-RPC error as a whole HTTP answer, for a failure outside the protocol, where the message's `id` is unknown. */
export function jsonRpcError(status: number, code: number, message: string, headers: HeadersInit = {}): Response {
  return Response.json({ jsonrpc: "2.0", error: { code, message }, id: null }, { status, headers });
}

/** Checks the request and parses its body once: the parsed JSON, or the answer that ends the request. */
export async function readMcpRequest(
  request: Request,
  guard: McpGuard,
): Promise<{ body: unknown } | { response: Response }> {
  const host = request.headers.get("host") ?? new URL(request.url).host;
  if (!guard.allowedHosts.includes(host.replace(/:\d+$/, "").toLowerCase())) {
    return { response: jsonRpcError(403, REFUSED, "This server does not answer to the given Host.") };
  }
  const origin = request.headers.get("origin");
  if (origin !== null && !guard.allowedOrigins.includes(origin)) {
    return { response: jsonRpcError(403, REFUSED, "This Origin may not use the server from a browser.") };
  }
  const cors = corsHeaders(request, guard.allowedOrigins);
  const refuse = (status: number, code: number, message: string, headers: Record<string, string> = {}) => ({
    response: jsonRpcError(status, code, message, { ...cors, ...headers }),
  });

  if (request.method === "OPTIONS") {
    return { response: new Response(null, { status: 204, headers: { ...cors, ...preflightHeaders } }) };
  }
  if (request.method !== "POST") {
    return refuse(405, REFUSED, "Send each MCP message as one POST; there are no sessions and no GET stream.", {
      allow: "POST, OPTIONS",
    });
  }
  if (!isJsonContentType(request.headers.get("content-type"))) {
    return refuse(415, REFUSED, "Send `Content-Type: application/json`.");
  }
  const bytes = await readBytes(request).catch(() => undefined);
  if (bytes === undefined) return refuse(400, PARSE_ERROR, "The request body could not be read.");
  if (bytes === tooLarge) return refuse(413, REFUSED, `The request body is over ${MAX_BODY_BYTES} bytes.`);
  const text = decodeUtf8(bytes, { dropMark: true });
  if (text === undefined) return refuse(400, PARSE_ERROR, "The request body is not UTF-8. Encode it as UTF-8.");
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return refuse(400, PARSE_ERROR, "The request body is not valid JSON.");
  }
  // Only revision 2025-03-26 had batches. One message per request keeps one admission, one charge and one set of headers
  // per answer.
  if (Array.isArray(body)) return refuse(400, INVALID_REQUEST, "Batches are not served; send one message per POST.");
  return { body };
}

const tooLarge = Symbol("too large");

/**
 * The runtime ends a body at its declared length, so a small body is read in one piece. That costs 50 us less CPU than
 * counting chunks, a tenth of this layer's cost. The length is checked again for requests made inside the process.
 */
async function readBytes(request: Request): Promise<Uint8Array | typeof tooLarge> {
  const declaredBytes = request.headers.get("content-length");
  if (declaredBytes !== null && Number(declaredBytes) <= MAX_BODY_BYTES) {
    const bytes = new Uint8Array(await request.arrayBuffer());
    return bytes.length > MAX_BODY_BYTES ? tooLarge : bytes;
  }
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  // Leaving the loop early cancels the rest of the body.
  for await (const chunk of (request.body ?? []) as AsyncIterable<Uint8Array>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_BODY_BYTES) return tooLarge;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** `*` does not cover `Authorization` (Fetch standard), and `Mcp-Param-*` has no fixed list of names. */
const preflightHeaders = {
  "access-control-allow-methods": "POST",
  "access-control-allow-headers": "Authorization, *",
  "access-control-max-age": "86400", // a day; browsers cap it at less
};

/** The CORS headers for a browser client of an allowed origin; none for any other client. */
export function corsHeaders(request: Request, allowedOrigins: readonly string[]): Record<string, string> {
  const origin = request.headers.get("origin");
  if (origin === null || !allowedOrigins.includes(origin)) return {};
  return {
    "access-control-allow-origin": origin,
    "access-control-expose-headers": "WWW-Authenticate, RateLimit, RateLimit-Policy",
    vary: "Origin",
  };
}

const HOUR_SECONDS = 3600;
/** The longest month, so that a client which spreads its calls over it is not refused. `t` is exact. */
const MONTH_SECONDS = 31 * 24 * HOUR_SECONDS;

/**
 * `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers for every limit that the tenant has.
 * The draft's `qu` has no value for Tollgate's units, so `tollgate-unit` says what `q` and `r` count.
 */
export function rateLimitHeaders(quota: QuotaStatus): Record<string, string> {
  const policies: string[] = [];
  const states: string[] = [];
  for (const [name, seconds] of [["hour", HOUR_SECONDS] as const, ["month", MONTH_SECONDS] as const]) {
    const { limit, used, resetSeconds } = quota[name];
    if (limit === null) continue;
    policies.push(`"${name}";q=${limit};w=${seconds};tollgate-unit="units"`);
    states.push(`"${name}";r=${Math.max(0, limit - used)};t=${Math.max(0, Math.ceil(resetSeconds))}`);
  }
  if (policies.length === 0) return {};
  return { "ratelimit-policy": policies.join(", "), ratelimit: states.join(", ") };
}

// ---- older revisions

/** nginx's status for a client that has disconnected. The SDK uses it, too. No client reads it. */
const CLIENT_CLOSED_REQUEST = 499;

/**
 * Serves one message of an older revision (2025-11-25 and before), without a session, on a server made for this request
 * alone. The SDK's transport answers in JSON; the answer becomes an event stream only when the handler sends a
 * notification before its result. A request to the client, which a stateless server cannot send, fails at once instead of
 * waiting for an answer that reaches another isolate. The server is not closed after a whole answer: nothing runs any more.
 */
export async function serveLegacy(
  server: McpServer,
  { request, body, authInfo }: { request: Request; body: unknown; authInfo: AuthInfo | undefined },
): Promise<Response> {
  const gone = Promise.withResolvers<Response>();
  const abandon = () => {
    gone.resolve(new Response(null, { status: CLIENT_CLOSED_REQUEST }));
    void server.close();
  };
  if (request.signal.aborted) return new Response(null, { status: CLIENT_CLOSED_REQUEST });
  request.signal.addEventListener("abort", abandon, { once: true });

  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  const streaming = Promise.withResolvers<Response>();
  let events: EventStream | undefined;
  const sendWhole = transport.send.bind(transport);
  transport.send = async (message, options) => {
    if (isJSONRPCRequest(message)) {
      const error = { code: INTERNAL_ERROR, message: "A stateless server cannot send requests to its client." };
      transport.onmessage?.({ jsonrpc: "2.0", id: message.id, error });
      return;
    }
    const isNotification = isJSONRPCNotification(message);
    // It belongs to no request, so only a GET stream could carry it.
    if (isNotification && options?.relatedRequestId === undefined) return;
    if (events === undefined) {
      if (!isNotification) return sendWhole(message, options);
      events = openEventStream(abandon);
      streaming.resolve(events.response);
    }
    events.write(message);
    if (!isNotification) events.close();
  };

  await server.connect(transport);
  const answer = transport.handleRequest(request, { parsedBody: body, ...(authInfo && { authInfo }) });
  return Promise.race([answer, streaming.promise, gone.promise]);
}

interface EventStream {
  readonly response: Response;
  write(message: JSONRPCMessage): void;
  close(): void;
}

/** It sends no keep-alive comments: a tool that reports progress ends long before a proxy considers it idle. */
function openEventStream(onCancel: () => void): EventStream {
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({
    start: (streamController) => {
      controller = streamController;
    },
    cancel: () => {
      controller = undefined;
      onCancel();
    },
  });
  return {
    response: new Response(body, {
      headers: { "content-type": "text/event-stream", "cache-control": "no-cache, no-transform" },
    }),
    write: (message) => controller?.enqueue(encoder.encode(`event: message\ndata: ${JSON.stringify(message)}\n\n`)),
    close: () => {
      controller?.close();
      controller = undefined;
    },
  };
}
