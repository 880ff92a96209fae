// MCP over HTTP: the checks of a request before anything else (host, origin, method, content type, size, JSON), the form and
// the headers of its answer, and the transport of the older revisions. Every refusal is a JSON-RPC error with a plain
// message. Only this file reads and parses the body; it counts the bytes itself and does not trust `Content-Length`.
import {
  WebStandardStreamableHTTPServerTransport,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJsonContentType,
} from "@modelcontextprotocol/server";
import type { AuthInfo, JSONRPCMessage, McpServer } from "@modelcontextprotocol/server";
import type { QuotaStatus } from "../../core/call.ts";
import { decodeUtf8 } from "../../core/text/text.ts";
import { claimsModernEra, dropEmptyMembers, idOf, isObject, keepNumbers } from "./message.ts";
import { QUESTION_PREFIX } from "../tenant-calls.ts";

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

/** A JSON-RPC error as a whole HTTP answer. `id` is that of the message, `null` where it is unknown. */
export function jsonRpcError(
  status: number,
  code: number,
  message: string,
  { headers = {}, id = null }: { headers?: HeadersInit; id?: string | number | null } = {},
): Response {
  return Response.json({ jsonrpc: "2.0", error: { code, message }, id }, { status, headers });
}

export interface McpRequest {
  /** One message, or the messages of a batch. */
  body: unknown;
  /** Whether the client takes an event stream. */
  streams: boolean;
  /** Gives the answer the form that the client accepts. Every answer to `body` goes through it. */
  finish: (answer: Response) => Response | Promise<Response>;
}

/**
 * Checks the request and parses its body once: the message, or the answer that ends the request. `admit` runs before the body
 * is read, and its answer ends the request: a stranger's megabyte of JSON costs nothing.
 */
export async function readMcpRequest(
  request: Request,
  guard: McpGuard,
  admit: () => Promise<Response | undefined> = async () => undefined,
): Promise<McpRequest | { response: Response }> {
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
    response: jsonRpcError(status, code, message, { headers: { ...cors, ...headers } }),
  });

  if (request.method === "OPTIONS") {
    return { response: new Response(null, { status: 204, headers: { ...cors, ...preflightHeaders } }) };
  }
  /** The answer of `admit`, readable by a browser's client. */
  const refusalOfAdmit = async (): Promise<{ response: Response } | undefined> => {
    const response = await admit();
    if (response === undefined) return undefined;
    for (const [name, value] of Object.entries(cors)) response.headers.set(name, value);
    return { response };
  };
  if (request.method !== "POST") {
    // Clients such as mcp-remote find out with a GET whether they must sign in, so 401 comes before 405.
    const message = "Send each MCP message as one POST (Streamable HTTP); there are no sessions and no GET stream.";
    return (await refusalOfAdmit()) ?? refuse(405, REFUSED, message, { allow: "POST, OPTIONS" });
  }
  if (!isJsonContentType(request.headers.get("content-type"))) {
    return refuse(415, REFUSED, "Send `Content-Type: application/json`.");
  }
  const accepted = acceptedTypes(request.headers.get("accept"));
  if (!accepted.json && !accepted.events)
    return refuse(406, REFUSED, "Answers are application/json or text/event-stream. Accept one of them.");
  const encoding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (encoding !== "identity" && encoding !== "")
    return refuse(415, REFUSED, "Send the body without Content-Encoding.", { "accept-encoding": "identity" });
  const refused = await refusalOfAdmit();
  if (refused !== undefined) return refused;
  const bytes = await readBytes(request).catch(() => undefined);
  if (bytes === undefined) return refuse(400, PARSE_ERROR, "The request body could not be read.");
  if (bytes === tooLarge) return refuse(413, REFUSED, `The request body is over ${MAX_BODY_BYTES} bytes.`);
  const text = decodeUtf8(bytes, { dropMark: true });
  if (text === undefined) return refuse(400, PARSE_ERROR, "The request body is not UTF-8. Encode it as UTF-8.");
  let body: unknown;
  let putNumbersBack: ((answer: string) => string) | undefined;
  try {
    body = JSON.parse(text);
    putNumbersBack = keepNumbers(text, body);
  } catch {
    return refuse(400, PARSE_ERROR, "The request body is not valid JSON.");
  }
  if (Array.isArray(body)) {
    const problem = refusedBatch(body, request.headers.get("mcp-protocol-version"));
    if (problem !== undefined) return refuse(400, INVALID_REQUEST, problem);
    for (const message of body) dropEmptyMembers(message, { streams: false });
  } else dropEmptyMembers(body, { streams: accepted.events });
  return {
    body,
    streams: accepted.events && !Array.isArray(body),
    finish: async (answer) => {
      const exact = putNumbersBack === undefined ? answer : await rewritten(answer, putNumbersBack);
      return accepted.json ? exact : asEventStream(exact);
    },
  };
}

interface AcceptedTypes {
  json: boolean;
  events: boolean;
}

/**
 * Which forms of an answer the client accepts (RFC 9110, 12.5.1): wildcards count, letter case does not, and a client that
 * sends no `Accept` takes both.
 */
export function acceptedTypes(accept: string | null): AcceptedTypes {
  if (accept === null || accept.trim() === "") return { json: true, events: true };
  const ranges = new Map<string, boolean>();
  for (const part of accept.toLowerCase().split(",")) {
    const [range = "", ...parameters] = part.split(";").map((each) => each.trim());
    ranges.set(range, !parameters.some((parameter) => /^q\s*=\s*0(\.0*)?$/.test(parameter)));
  }
  // The most specific range decides.
  const accepts = (kind: string, type: string): boolean =>
    ranges.get(`${kind}/${type}`) ?? ranges.get(`${kind}/*`) ?? ranges.get("*/*") ?? false;
  return { json: accepts("application", "json"), events: accepts("text", "event-stream") };
}

/** Puts a JSON answer into an event stream with one event, for a client that accepts nothing else. Errors stay JSON. */
async function asEventStream(answer: Response): Promise<Response> {
  if (answer.status !== 200 || !isJsonContentType(answer.headers.get("content-type"))) return answer;
  const headers = new Headers(answer.headers);
  headers.set("content-type", "text/event-stream");
  headers.set("cache-control", "no-cache, no-transform");
  const messages: unknown = await answer.json();
  const events = (Array.isArray(messages) ? messages : [messages]).map(
    (message) => `event: message\ndata: ${JSON.stringify(message)}\n\n`,
  );
  return new Response(events.join(""), { headers });
}

/** Applies `rewrite` to the text of an answer, event by event where it streams. */
async function rewritten(answer: Response, rewrite: (text: string) => string): Promise<Response> {
  if (answer.body === null) return answer;
  if (isJsonContentType(answer.headers.get("content-type"))) return new Response(rewrite(await answer.text()), answer);
  let pending = "";
  const events = new TransformStream<string, string>({
    transform(text, controller) {
      const parts = (pending + text).split("\n\n");
      pending = parts.pop() ?? "";
      for (const event of parts) controller.enqueue(`${rewrite(event)}\n\n`);
    },
    flush: (controller) => controller.enqueue(rewrite(pending)),
  });
  const stream = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(events);
  return new Response(stream.pipeThrough(new TextEncoderStream()), answer);
}

// ---- batches

/** The only revision with batches, and the one of a client that names none. */
const BATCH_REVISION = "2025-03-26";
/** More than any client is known to send. The calls of a batch run one after the other. */
const MAX_BATCH_MESSAGES = 50;

/** Why a batch is not served, or `undefined`. */
function refusedBatch(messages: readonly unknown[], revision: string | null): string | undefined {
  if (revision !== null && revision !== BATCH_REVISION)
    return `Revision ${revision} has no batches; send one message per POST.`;
  if (messages.length === 0) return "The batch is empty.";
  return messages.length > MAX_BATCH_MESSAGES ? `A batch has at most ${MAX_BATCH_MESSAGES} messages.` : undefined;
}

/**
 * Answers the messages of a batch one after the other, so that each is admitted and charged as if it came alone. The answer
 * has the headers of the last message's answer.
 */
export async function answerBatch(
  messages: readonly unknown[],
  answerOne: (message: unknown) => Promise<Response>,
): Promise<Response> {
  const answers: unknown[] = [];
  const headers = new Headers();
  for (const message of messages) {
    const answer = refusedInBatch(message) ?? (await answerOne(message));
    // The credential is good for no other message either, and the client must see the challenge.
    if (answer.status === 401) return answer;
    for (const name of ["ratelimit-policy", "ratelimit", "retry-after"]) {
      const value = answer.headers.get(name);
      if (value !== null) headers.set(name, value);
    }
    const text = await answer.text();
    if (text !== "") answers.push(inBatch(message, text));
  }
  return answers.length === 0 ? new Response(null, { status: 202 }) : Response.json(answers, { headers });
}

function refusedInBatch(message: unknown): Response | undefined {
  const id = idOf(message);
  const isInitialize = isObject(message) && message.method === "initialize";
  if (isInitialize) return jsonRpcError(400, INVALID_REQUEST, "`initialize` must not be part of a batch.", { id });
  if (claimsModernEra(message))
    return jsonRpcError(400, INVALID_REQUEST, "This message's revision has no batches.", { id });
  return undefined;
}

/** The answer of one message as JSON-RPC. A challenge is no JSON-RPC, and a batch has no status for one of its messages. */
function inBatch(message: unknown, text: string): unknown {
  const answer: unknown = JSON.parse(text);
  if (isObject(answer) && answer["jsonrpc"] === "2.0") return answer;
  const words = isObject(answer) ? answer["error_description"] : undefined;
  const error = { code: REFUSED, message: typeof words === "string" ? words : "The message was refused." };
  return { jsonrpc: "2.0", id: idOf(message), error };
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
    "access-control-expose-headers":
      "WWW-Authenticate, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, Mcp-Session-Id",
    vary: "Origin",
  };
}

const HOUR_SECONDS = 3600;
/** The longest month, so that a client which spreads its calls over it is not refused. `t` is exact. */
const MONTH_SECONDS = 31 * 24 * HOUR_SECONDS;

/** The draft's `qu` has no value for Tollgate's units, so `tollgate-unit` says what `q` and `r` count. */
const UNITS = `tollgate-unit="units"`;
const policies = [
  ["minute", 60, `qu="requests"`],
  ["hour", HOUR_SECONDS, UNITS],
  ["month", MONTH_SECONDS, UNITS],
] as const;

/**
 * `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers for every limit that the tenant has.
 */
export function rateLimitHeaders(quota: QuotaStatus): Record<string, string> {
  const limited = policies.flatMap(([name, seconds, unit]) => {
    const { limit, used, resetSeconds } = quota[name];
    if (limit === null) return [];
    const left = `"${name}";r=${Math.max(0, limit - used)};t=${Math.max(0, Math.ceil(resetSeconds))}`;
    return [{ policy: `"${name}";q=${limit};w=${seconds};${unit}`, left }];
  });
  if (limited.length === 0) return {};
  return {
    "ratelimit-policy": limited.map(({ policy }) => policy).join(", "),
    ratelimit: limited.map(({ left }) => left).join(", "),
  };
}

// ---- older revisions

/** nginx's status for a client that has disconnected. The SDK uses it, too. No client reads it. */
const CLIENT_CLOSED_REQUEST = 499;

/**
 * Serves one message of an older revision (2025-11-25 and before), without a session, on a server made for this request
 * alone. The SDK's transport answers in JSON; the answer becomes an event stream only when the handler sends a
 * notification or a tool's question before its result. The answer to a question comes as a message of its own. Any other request to the
 * client fails at once instead of waiting for an answer that reaches another isolate. The server is not closed after a whole answer: nothing runs any more.
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
    const isQuestion = isJSONRPCRequest(message);
    if (isQuestion && !String(message.id).startsWith(QUESTION_PREFIX)) {
      const error = { code: INTERNAL_ERROR, message: "A stateless server cannot send requests to its client." };
      transport.onmessage?.({ jsonrpc: "2.0", id: message.id, error });
      return;
    }
    const isNotification = isJSONRPCNotification(message);
    // It belongs to no request, so only a GET stream could carry it.
    if (isNotification && options?.relatedRequestId === undefined) return;
    if (events === undefined) {
      if (!isNotification && !isQuestion) return sendWhole(message, options);
      events = openEventStream(abandon);
      streaming.resolve(events.response);
    }
    events.write(message);
    if (!isNotification && !isQuestion) events.close();
  };

  await server.connect(transport);
  const answer = transport.handleRequest(withBothTypes(request), { parsedBody: body, ...(authInfo && { authInfo }) });
  return Promise.race([answer, streaming.promise, gone.promise]);
}

const BOTH_TYPES = "application/json, text/event-stream";

/** The request as the SDK's transport takes it: it compares `Accept` with both types as text. `finish` does what it says. */
function withBothTypes(request: Request): Request {
  const accept = request.headers.get("accept") ?? "";
  if (accept.includes("application/json") && accept.includes("text/event-stream")) return request;
  const headers = new Headers(request.headers);
  headers.set("accept", BOTH_TYPES);
  return new Request(request.url, { method: request.method, headers, signal: request.signal });
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
