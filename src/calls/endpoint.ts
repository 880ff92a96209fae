// The straight way of an MCP request: checked, identified, then one RPC to the tenant's object, whatever the method.
// A tool call's RPC runs the tool; any other method's RPC asks whether the caller may use the server at all. What happens
// when the object does not answer is object-call.ts's to decide.
import type { McpServer } from "@modelcontextprotocol/server";
import type { Refusal, QuotaStatus } from "../core/call.ts";
import { errorCode, errors } from "../core/errors.ts";
import { plainRefusal } from "./refusal.ts";
import { describeError, log } from "../log.ts";
import { catalogue } from "../tools/catalogue.ts";
import { type Authenticated, authenticate, challenge } from "../identity/authenticate.ts";
import { authorizeCaller, callObject } from "./object-call.ts";
import { calledTool, registerTools, serveMcp, toolsFor } from "./mcp-server.ts";
import { type McpGuard, corsHeaders, jsonRpcError, rateLimitHeaders, readMcpRequest } from "./transport.ts";

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
  let quota: QuotaStatus | undefined;
  let allowedTools: readonly string[] | null = null;
  const authorize = async (): Promise<void> => {
    asked = true;
    const authorization = await authorizeCaller(env, caller);
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
        quota = outcome.quota;
        if (outcome.kind === "refused" && errors[outcome.refusal.code].status === 401) refused = outcome.refusal;
        return outcome;
      });
      register?.(server);
    },
  });
  // The arguments or the scopes ended the call before it came to the object: it is asked all the same.
  if (!asked) await authorize();
  if (refused !== undefined) return refusalResponse(refused, body, env);
  return quota === undefined ? response : withHeaders(response, rateLimitHeaders(quota));
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
