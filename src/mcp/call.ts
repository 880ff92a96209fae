// The straight way of an MCP request: checked, identified, then one RPC to the tenant's object, whatever the method.
// A tool call's RPC runs the tool; any other method's RPC asks whether the caller may use the server at all.
import type { McpServer } from "@modelcontextprotocol/server";
import type { CallOutcome, CallRequest, Caller, Progress, Refusal, Standing } from "../core/call.ts";
import { errorCode, errors } from "../core/errors.ts";
import { plainRefusal, refusedOutcome } from "../core/refusal.ts";
import { describeError, log } from "../log.ts";
import { catalogue } from "../tools/catalogue.ts";
import { TOOL_TIMEOUT_MS, type Tool } from "../tools/tool.ts";
import { type Authenticated, authenticate, challenge } from "./auth.ts";
import { calledTool, registerTools, serveMcp, toolsFor } from "./server.ts";
import { type McpGuard, corsHeaders, jsonRpcError, rateLimitHeaders, readMcpRequest } from "./transport.ts";

/** An object that answers later than its tool's own limit and this is taken for lost. */
const ANSWER_MARGIN_MS = 5_000;
/** An overloaded object sheds its load in seconds. */
const OVERLOADED_RETRY_SECONDS = 5;

/**
 * Answers one request to `/mcp`. `register` adds to what the request's server offers besides the catalogue; the
 * product itself adds nothing.
 */
export async function handleMcp(
  request: Request,
  env: Env,
  ctx: Pick<ExecutionContext, "waitUntil">,
  register?: (server: McpServer) => void,
): Promise<Response> {
  const guard = guardOf(env);
  const read = await readMcpRequest(request, guard);
  if ("response" in read) return read.response;
  const { body } = read;
  let response: Response;
  let tenantId: string | undefined;
  try {
    const authentication = await authenticate(request.headers.get("authorization"), env, Date.now());
    if ("refused" in authentication) response = refusalResponse(plainRefusal(authentication.refused), body, env);
    else {
      ({ tenantId } = authentication.caller);
      response = await answerCaller(authentication, { request, body, env, ctx, register });
    }
  } catch (error) {
    const code = errorCode(error);
    log("error", "mcp_request_failed", { tenantId, code, error: describeError(error) });
    // What has no code of its own came from the way to the tenant's object.
    response = refusalResponse(plainRefusal(code === "internal" ? "tenant_unavailable" : code), body, env);
  }
  return withHeaders(response, corsHeaders(request, guard.allowedOrigins));
}

interface Message {
  request: Request;
  body: unknown;
  env: Env;
  ctx: Pick<ExecutionContext, "waitUntil">;
  register: ((server: McpServer) => void) | undefined;
}

async function answerCaller(
  { caller, authInfo }: Authenticated,
  { request, body, env, ctx, register }: Message,
): Promise<Response> {
  let asked = false;
  let refused: Refusal | undefined;
  let standing: Standing | undefined;
  let allowedTools: readonly string[] | null = null;
  const authorize = async (): Promise<void> => {
    asked = true;
    const authorization = await env.TENANT.getByName(caller.tenantId).authorize(caller);
    if (authorization.kind === "refused") refused = authorization.refusal;
    else allowedTools = authorization.allowedTools;
  };

  const named = calledTool(body);
  if (named === undefined || !catalogue.has(named)) await authorize();
  if (refused !== undefined) return refusalResponse(refused, body, env);

  const response = await serveMcp({
    request,
    body,
    authInfo,
    register: (server) => {
      registerTools(server, toolsFor(body, catalogue, allowedTools), async (tool, args, { progress, signal }) => {
        asked = true;
        const outcome = await callObject(env, ctx, { tool, args, caller, progress, signal });
        standing = outcome.standing;
        if (outcome.kind === "refused" && errors[outcome.refusal.code].status === 401) refused = outcome.refusal;
        return outcome;
      });
      register?.(server);
    },
  });
  // The arguments or the scopes ended the call before it came to the object: it is asked all the same.
  if (!asked) await authorize();
  if (refused !== undefined) return refusalResponse(refused, body, env);
  return standing === undefined ? response : withHeaders(response, rateLimitHeaders(standing));
}

interface ObjectCall {
  tool: Tool;
  args: Readonly<Record<string, unknown>>;
  caller: Caller;
  progress: ((progress: Progress) => Promise<void>) | undefined;
  signal: AbortSignal;
}

/**
 * Calls the tenant's object. When the answer is lost, the call is made again only if the tool says that this is safe;
 * otherwise the client is told that the outcome is not known (DESIGN.md I8).
 */
async function callObject(env: Env, ctx: Pick<ExecutionContext, "waitUntil">, call: ObjectCall): Promise<CallOutcome> {
  const { tool, args, caller, progress, signal } = call;
  const callId = newCallId(Date.now());
  const attempt = (number: CallRequest["attempt"]): Promise<CallOutcome> => {
    // A stub that has failed keeps failing: each attempt has its own.
    const object = env.TENANT.getByName(caller.tenantId);
    const request: CallRequest = { callId, attempt: number, caller, tool: tool.name, args };
    const answer = object.call(request, progress) as Promise<CallOutcome>;
    // A client that goes away takes the request's context with it, and with the context the RPC that says so.
    ctx.waitUntil(answer.catch(() => undefined));
    return within((tool.timeoutMs ?? TOOL_TIMEOUT_MS) + ANSWER_MARGIN_MS, answer);
  };
  const cancel = (): void => ctx.waitUntil(env.TENANT.getByName(caller.tenantId).cancel(callId));
  signal.addEventListener("abort", cancel, { once: true });
  try {
    return await attempt(1);
  } catch (error) {
    const lost = { tenantId: caller.tenantId, tool: tool.name, callId };
    log("error", "object_call_lost", { ...lost, error: describeError(error) });
    if (isOverloaded(error)) {
      const refusal = { ...plainRefusal("tenant_unavailable"), retryAfterSeconds: OVERLOADED_RETRY_SECONDS };
      return refusedOutcome(refusal);
    }
    if (!tool.annotations.readOnly && !tool.annotations.idempotent) return outcomeUnknown(callId);
    try {
      return await attempt(2);
    } catch (again) {
      log("error", "object_call_lost", { ...lost, error: describeError(again) });
      return tool.annotations.readOnly ? refusedOutcome(plainRefusal("tenant_unavailable")) : outcomeUnknown(callId);
    }
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

function outcomeUnknown(callId: string): CallOutcome {
  return refusedOutcome(plainRefusal("outcome_unknown", `The call's id is ${callId}.`));
}

function isOverloaded(error: unknown): boolean {
  return typeof error === "object" && error !== null && "overloaded" in error && error.overloaded === true;
}

async function within<T>(limitMs: number, answer: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A UUID of version 7 (RFC 9562): ids of one time lie together in the ledger's index. */
export function newCallId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}

/** A refusal outside a tool call: a challenge for who is calling, otherwise a JSON-RPC error that carries the facts. */
function refusalResponse(refusal: Refusal, body: unknown, env: Env): Response {
  const { status } = errors[refusal.code];
  if (status === 401) return challenge(refusal.code, env);
  const id = typeof body === "object" && body !== null && "id" in body ? body.id : null;
  if (id === null || id === undefined) return jsonRpcError(status, SERVER_ERROR, refusal.message);
  const { message, ...data } = refusal;
  return Response.json({ jsonrpc: "2.0", id, error: { code: SERVER_ERROR, message, data } }, { status });
}

/** JSON-RPC leaves -32000 to servers. */
const SERVER_ERROR = -32_000;

function withHeaders(response: Response, headers: Readonly<Record<string, string>>): Response {
  for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
  return response;
}

let guardFor: { env: Env; guard: McpGuard } | undefined;
function guardOf(env: Env): McpGuard {
  if (guardFor?.env !== env) guardFor = { env, guard: makeGuard(env) };
  return guardFor.guard;
}

function makeGuard(env: Env): McpGuard {
  const url = new URL(env.PUBLIC_URL);
  const configured = env.ALLOWED_ORIGINS.split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  const loopback = ["127.0.0.1", "localhost", "[::1]"];
  // On one's own machine all names of the loopback are the same server.
  const hosts = loopback.includes(url.hostname) ? loopback : [url.hostname];
  return {
    allowedHosts: hosts,
    allowedOrigins: [
      ...hosts.map((host) => new URL(url.protocol + "//" + host + (url.port === "" ? "" : `:${url.port}`)).origin),
      ...configured,
    ],
  };
}
