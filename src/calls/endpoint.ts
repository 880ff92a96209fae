// Answers a request to `/mcp`: checks it, identifies the caller, then makes one RPC to the tenant's object. The RPC of a tool
// call runs the tool; the RPC of any other method asks whether the caller may use the server. object-call.ts decides
// what happens when the object does not answer.
import type { McpServer } from "@modelcontextprotocol/server";
import type { Context } from "../control/context.ts";
import type { Authorization, CallOutcome, Caller, Refusal } from "../core/call.ts";
import { errorCode, errors } from "../core/errors.ts";
import type { Branding, TenantId } from "../core/tenant/tenant.ts";
import { loopbackHosts } from "../core/text/web-url.ts";
import { OUTAGE_RETRY_SECONDS } from "../http.ts";
import { crossingsStore } from "../identity/audit/crossings-store.ts";
import { ADDRESS_RATE_SECONDS, isOverFailureRate, tooManyFailures } from "../identity/address-rate.ts";
import {
  type Authenticated,
  type Authentication,
  authenticate,
  challenge,
  resourceMetadataUrl,
} from "../identity/tokens/authenticate.ts";
import { type Place, placeOf, tenantOrigins } from "../identity/tokens/tenant-hosts.ts";
import { describeError, log } from "../log.ts";
import { catalogue } from "../tools/catalogue.ts";
import type { ToolUser } from "../tools/offer.ts";
import { AnsweredForm, callStates } from "./mcp/call-state.ts";
import { callsProvided, registerProvided } from "./mcp/provided.ts";
import { type CallTool, calledTool, registerTools, serveMcp, toolsFor } from "./mcp/server.ts";
import { SESSION_HEADER, answerToQuestion, idOf, sessionOf } from "./mcp/message.ts";
import { authorizeCaller, callObject } from "./object-call.ts";
import { plainRefusal } from "./refusal.ts";
import { QUESTION_PREFIX, principalOf } from "./tenant-calls.ts";
import { type McpGuard, answerBatch, corsHeaders, rateLimitHeaders, readMcpRequest } from "./mcp/transport.ts";

/**
 * Answers one request to `/mcp`. `register` adds to the catalogue of the request's server. Only the conformance suite uses
 * it.
 */
export async function handleMcp(
  received: Request,
  context: Context,
  ctx: Pick<ExecutionContext, "waitUntil">,
  register?: (server: McpServer) => void,
): Promise<Response> {
  const { env } = context;
  const guard = guardOf(env);
  const request = plainRequest(received);
  const place = placeOf(env, request.url);
  let identified: Promise<Authentication> | undefined;
  const identify = (): Promise<Authentication> =>
    (identified ??= authenticate(request.headers.get("authorization"), context, Date.now()).then((found) => {
      const here = authenticatedAt(place, found);
      if (here.crossing !== undefined) ctx.waitUntil(countCrossing(context, here.crossing));
      return here.authentication;
    }));
  const read = await readMcpRequest(request, guard, async () => {
    // The answer to an outage names the message, so it waits for the body.
    const authentication = await identify().catch(() => undefined);
    if (authentication === undefined || !("refused" in authentication)) return undefined;
    const { refused: code } = authentication;
    if (errors[code].status !== 401) return undefined;
    const isOver = code === "token_invalid" && (await isOverFailureRate(request.headers, env, "credential"));
    return isOver ? tooManyWrongTokens() : challenge(code, place.origin);
  });
  if ("response" in read) return read.response;
  const { body, finish, streams } = read;
  let tenantId: string | undefined;
  /** Answers with the refusal of what `work` throws. */
  const answer = async (message: unknown, work: () => Promise<Response>): Promise<Response> => {
    try {
      return await work();
    } catch (error) {
      const code = errorCode(error);
      log("error", "mcp_request_failed", { tenantId, code, error: describeError(error) });
      // An error without a code of its own came from the RPC to the tenant's object.
      return refusalResponse(plainRefusal(code === "internal" ? "tenant_unavailable" : code), message, place.origin);
    }
  };
  const response = await answer(body, async () => {
    const authentication = await identify();
    if ("refused" in authentication) return refusalResponse(plainRefusal(authentication.refused), body, place.origin);
    ({ tenantId } = authentication.caller);
    const one = (message: unknown): Promise<Response> =>
      answerMessage({
        ...authentication,
        request,
        body: message,
        streams,
        origin: place.origin,
        context,
        ctx,
        register,
      });
    return Array.isArray(body) ? answerBatch(body, (each) => answer(each, () => one(each))) : one(body);
  });
  return withHeaders(await finish(response), corsHeaders(request, guard.allowedOrigins));
}

/** Without a challenge, so that the client waits before it sends another token. In the form of the challenge's body. */
function tooManyWrongTokens(): Response {
  return Response.json(
    { error: "rate_limited", error_description: tooManyFailures },
    { status: 429, headers: { "retry-after": String(ADDRESS_RATE_SECONDS) } },
  );
}

/** The use of one tenant's credential on another tenant's host. */
interface Crossing {
  tenantId: TenantId;
  target: TenantId;
}

/** On a tenant's host only that tenant's credentials work. Its clients find the metadata of this host. */
function authenticatedAt(
  { origin, tenantId: target }: Place,
  found: Authentication,
): { authentication: Authentication; crossing?: Crossing } {
  if ("refused" in found || target === undefined) return { authentication: found };
  const { caller, authInfo } = found;
  const { tenantId, kind: credential } = caller;
  if (tenantId === target)
    return { authentication: { caller, authInfo: { ...authInfo, resourceMetadataUrl: resourceMetadataUrl(origin) } } };
  log("warn", "cross_tenant_refused", { tenantId, target, credential, route: "/mcp" });
  return { authentication: { refused: "token_invalid" }, crossing: { tenantId, target } };
}

/** Counts an attempt, as the routes of accounts do. Never throws: the refusal stands without it. */
async function countCrossing(context: Context, { tenantId, target }: Crossing): Promise<void> {
  try {
    await crossingsStore(context.control).count(tenantId, target);
  } catch (error) {
    log("warn", "cross_tenant_not_counted", { tenantId, error: describeError(error) });
  }
}

function answerMessage(message: Message): Promise<Response> {
  const answer = answerToQuestion(message.body, QUESTION_PREFIX);
  if (answer !== undefined) return takeAnswer(message, answer);
  const called = calledTool(message.body);
  const isCall = (called !== undefined && catalogue.has(called)) || callsProvided(message.body);
  return isCall ? answerToolCall(message) : answerOther(message);
}

/**
 * The request as the SDK compares it. `/mcp/` is `/mcp`: people and clients add the slash. A revision that a proxy or a client
 * sends twice is that revision, and an empty one is none.
 */
function plainRequest(request: Request): Request {
  const url = new URL(request.url);
  const revision = request.headers.get(REVISION_HEADER);
  const plain = revision === null ? null : plainRevision(revision);
  if (!url.pathname.endsWith("/") && revision === plain) return request;
  url.pathname = url.pathname.replace(/\/+$/, "");
  const headers = new Headers(request.headers);
  if (plain === null) headers.delete(REVISION_HEADER);
  else headers.set(REVISION_HEADER, plain);
  return new Request(new Request(url, request), { headers });
}

const REVISION_HEADER = "mcp-protocol-version";

function plainRevision(value: string): string | null {
  const [first = "", ...more] = value.split(",").map((each) => each.trim());
  if (more.some((each) => each !== first)) return value;
  return first === "" ? null : first;
}

interface Message extends Authenticated {
  request: Request;
  /** Where the request came to. */
  origin: string;
  body: unknown;
  /** Whether the client takes an event stream. */
  streams: boolean;
  context: Context;
  ctx: Pick<ExecutionContext, "waitUntil">;
  register: ((server: McpServer) => void) | undefined;
}

/** Hands a person's answer to the call that has asked. An error, or no answer of a known form, counts as cancelled. */
async function takeAnswer(
  { caller, context }: Message,
  { id, result }: { id: string; result: unknown },
): Promise<Response> {
  const answered = AnsweredForm.safeParse(result).data ?? { action: "cancel" };
  const isTaken = await context.tenantObject(caller.tenantId).answerQuestion(caller, id, answered);
  if (!isTaken) log("info", "answer_without_question", { tenantId: caller.tenantId });
  return new Response(null, { status: 202 });
}

/** Answers any message but the call of a known tool. The caller is authorized first. */
async function answerOther(message: Message): Promise<Response> {
  const { caller, body, context } = message;
  const authorization = await authorizeCaller(context, caller);
  if (authorization.kind === "refused") return refused(authorization, body, message.origin);
  const response = await serve(
    message,
    { user: authorization, branding: authorization.branding },
    callerOfTools(message),
  );
  const session = sessionOf(body);
  return withHeaders(response, {
    ...rateLimitHeaders(authorization.quota),
    ...(session !== undefined && response.ok && { [SESSION_HEADER]: session }),
  });
}

/** Answers the call of a known tool, resource or prompt. The tenant's object authorizes the caller before it runs the tool. */
async function answerToolCall(message: Message): Promise<Response> {
  const { caller, body, context } = message;
  const call = observed(callerOfTools(message));
  const response = await serve(message, {}, call.callTool);
  const state = call.state();
  // A streamed response begins before the call has ended, so its headers cannot depend on the outcome.
  if (state === "running") return response;
  if (state === "not_called") {
    // The arguments or the scopes were refused before the object was asked. It still has to authorize the caller.
    const authorization = await authorizeCaller(context, caller);
    if (authorization.kind === "refused") return refused(authorization, body, message.origin);
    return withHeaders(response, rateLimitHeaders(authorization.quota));
  }
  if (state.kind === "refused" && errors[state.refusal.code].status === 401) {
    return refusalResponse(state.refusal, body, message.origin);
  }
  return withHeaders(response, {
    ...(state.quota && rateLimitHeaders(state.quota)),
    ...(state.kind === "refused" && retryAfter(state.refusal)),
  });
}

function refused(
  { refusal, quota }: Extract<Authorization, { kind: "refused" }>,
  body: unknown,
  origin: string,
): Response {
  return withHeaders(refusalResponse(refusal, body, origin), quota === undefined ? {} : rateLimitHeaders(quota));
}

/** `Retry-After` (RFC 9110, 10.2.3) of a refusal that waiting ends. */
function retryAfter({ code, retryAfterSeconds }: Refusal): Record<string, string> {
  const seconds = retryAfterSeconds ?? (errors[code].status === 503 ? OUTAGE_RETRY_SECONDS : undefined);
  return seconds === undefined ? {} : { "retry-after": String(seconds) };
}

function serve(
  { request, body, authInfo, register, caller, context, streams }: Message,
  { user, branding }: { user?: ToolUser; branding?: Branding },
  callTool: CallTool,
): Promise<Response> {
  return serveMcp({
    request,
    body,
    authInfo,
    branding,
    register: (server) => {
      const states = callStates(context.env, principalOf(caller));
      const nowMs = Date.now();
      registerTools(server, toolsFor(body, catalogue, user, nowMs), { callTool, states, streams });
      registerProvided(server, body, { user, callTool, nowMs });
      register?.(server);
    },
  });
}

/** Runs tools for this message's caller. */
function callerOfTools({ context, ctx, caller }: Pick<Message, "context" | "ctx"> & { caller: Caller }): CallTool {
  return (tool, args, options) =>
    callObject(context, ctx, {
      ...{ tool, args, caller, progress: options.progress, signal: options.signal },
      ...{ idempotencyKey: options.idempotencyKey, waitsMs: options.waitsMs },
      ...{ asking: options.asking, sendQuestion: options.sendQuestion },
    });
}

type CallState = "not_called" | "running" | CallOutcome;

/** Wraps `callTool` and records its progress, from which the HTTP status follows. */
function observed(callTool: CallTool): { callTool: CallTool; state(): CallState } {
  let state: CallState = "not_called";
  return {
    callTool: async (...call) => {
      state = "running";
      return (state = await callTool(...call));
    },
    state: () => state,
  };
}

/** A refusal outside a tool call: a challenge for a bad credential, otherwise a JSON-RPC error with the facts as data. */
function refusalResponse(refusal: Refusal, body: unknown, origin: string): Response {
  const { status } = errors[refusal.code];
  if (status === 401) return challenge(refusal.code, origin);
  const { message, ...data } = refusal;
  const error = { code: SERVER_ERROR, message, data };
  return Response.json({ jsonrpc: "2.0", id: idOf(body), error }, { status, headers: retryAfter(refusal) });
}

/** The JSON-RPC code for errors of the server's own. */
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
  // On a developer's machine all names of the loopback interface are the same server.
  const hosts = loopbackHosts.includes(url.hostname) ? loopbackHosts : [url.hostname];
  return {
    allowedHosts: [...hosts, ...tenantOrigins(env).map((origin) => new URL(origin).hostname)],
    allowedOrigins: [
      ...hosts.map((host) => new URL(url.protocol + "//" + host + (url.port === "" ? "" : `:${url.port}`)).origin),
      ...tenantOrigins(env),
      ...configured,
    ],
  };
}
