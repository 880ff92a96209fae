// Serves the catalogue over MCP, without sessions and for both eras of the protocol. Each request gets a server of its own
// with only the tools that it needs. An isolate makes costly parts that are the same for every caller (JSON schemas, a
// validator) once; nothing that belongs to a caller outlives its request.
import { config } from "../../core/app-config.ts";
import { McpServer, PROTOCOL_VERSION_META_KEY, ProtocolError, isLegacyRequest } from "@modelcontextprotocol/server";
import type { AuthInfo, ServerContext } from "@modelcontextprotocol/server";
import { CfWorkerJsonSchemaValidator } from "@modelcontextprotocol/server/validators/cf-worker";
import { createMcpHandler } from "agents/mcp/server";
import packageJson from "../../../package.json" with { type: "json" };
import type { Asking, CallOutcome, Progress } from "../../core/call.ts";
import { type ErrorCode, errorCode, errors } from "../../core/errors.ts";
import type { Branding } from "../../core/tenant/tenant.ts";
import { currentRequestId, describeError, log, markRequest, traceOf } from "../../log.ts";
import { prompts, resources } from "../../tools/catalogue.ts";
import { type ToolUser, endNotice, offeredTools } from "../../tools/offer.ts";
import type { Tool } from "../../tools/tool.ts";
import { IDEMPOTENCY_META_KEY } from "../keyed-calls.ts";
import type { SendQuestion } from "../tenant-calls.ts";
import type { CallStates } from "./call-state.ts";
import { declarationOf } from "./declaration.ts";
import { claimsModernEra, idOf, invalidParams, isObject, malformedMessage } from "./message.ts";
import { UNNAMED_REVISION, refusalResult, toResult } from "./result.ts";
import { RAISE_WAIT_MS, type Round, offerToRaise, questionFor, questionsTo, roundOf } from "./rounds.ts";
import { jsonRpcError, serveLegacy } from "./transport.ts";

const INVALID_REQUEST = -32600;
const INVALID_PARAMS = -32602;

type Register = (server: McpServer) => void;

const jsonSchemaValidator = new CfWorkerJsonSchemaValidator();
/** The list of tools depends on the tenant. A client may see a changed plan up to a minute late. */
const perTenantForAMinute = { ttlMs: 60_000, cacheScope: "private" } as const;

/** The product's name for programs: `Acme Tools` becomes `acme-tools`. */
const serverName = config.product.name.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, "-");

function newServer({ register, branding: { productName, logoUrl } = {} }: Pick<McpExchange, "register" | "branding">) {
  const server = new McpServer(
    {
      name: serverName,
      title: productName ?? config.product.name,
      version: packageJson.version,
      ...(logoUrl !== undefined && { icons: [{ src: logoUrl }] }),
    },
    {
      // The list changes with the tenant's plan, outside any request: a client learns of it when it lists again.
      capabilities: {
        tools: { listChanged: false },
        ...(resources.size > 0 && { resources: { listChanged: false } }),
        ...(prompts.size > 0 && { prompts: { listChanged: false } }),
      },
      instructions:
        "These tools work on your own organisation's data. A successful call costs the units its tool names; " +
        "get_usage shows what is left. A refusal says when to try again.",
      cacheHints: {
        "tools/list": perTenantForAMinute,
        "resources/list": perTenantForAMinute,
        "resources/templates/list": perTenantForAMinute,
        "prompts/list": perTenantForAMinute,
        "server/discover": perTenantForAMinute,
      },
      jsonSchemaValidator,
    },
  );
  register(server);
  return server;
}

/** Hands a request's tools and branding to the server factory of the handler that the isolate shares. */
const registrations = new WeakMap<Request, Pick<McpExchange, "register" | "branding">>();

const modern = createMcpHandler(
  ({ requestInfo }) => {
    const registration = requestInfo && registrations.get(requestInfo);
    if (registration === undefined) throw new Error("This request has no registered tools");
    return newServer(registration);
  },
  {
    legacy: "reject",
    responseMode: "auto",
    // `readMcpRequest` checks these and adds the headers.
    corsOptions: false,
    allowedOriginHostnames: "*",
    // Its text may quote the client.
    onerror: (error) => log("warn", "mcp_rejected", { name: error.name }),
  },
);

export interface McpExchange {
  request: Request;
  /** As `readMcpRequest` parsed it. */
  body: unknown;
  authInfo: AuthInfo | undefined;
  /** Registers the tools that this request may use. Called once, before the message is handled. */
  register: Register;
  /** How the tenant's agents show this server. Known for every message that calls no tool. */
  branding?: Branding | undefined;
}

/** Answers one message: JSON, or an event stream when its tool reports progress that the client asked for. */
export async function serveMcp({ request, body, authInfo, ...registration }: McpExchange): Promise<Response> {
  const malformed = malformedMessage(body);
  if (malformed !== undefined) return jsonRpcError(400, INVALID_REQUEST, malformed, { id: idOf(body) });
  const problem = invalidParams(body);
  if (problem !== undefined)
    return jsonRpcError(200, INVALID_PARAMS, `Invalid params: ${problem}.`, { id: idOf(body) });
  try {
    // The claim alone decides for the newer era. Asking the SDK as well would classify each such call twice (45 us).
    if (!claimsModernEra(body) && (await isLegacyRequest(request, body))) {
      return await serveLegacy(newServer(registration), { request, body, authInfo });
    }
    registrations.set(request, registration);
    return await modern.fetch(request, { parsedBody: body, ...(authInfo && { authInfo }) });
  } catch (error) {
    log("error", "mcp_failed", { error: describeError(error) });
    return jsonRpcError(500, -32603, withRequestId("internal"));
  }
}

/** The advice of a code. Where it asks the reader to send the message to support, the message names the request. */
function withRequestId(code: ErrorCode): string {
  const requestId = currentRequestId();
  const isAsked = code === "internal" && requestId !== undefined;
  return `${errors[code].advice}${isAsked ? ` Request: ${requestId}.` : ""}`;
}

/** The name of the tool that the message calls, known or not; `undefined` for any other message. */
export function calledTool(body: unknown): string | undefined {
  if (!isObject(body) || body.method !== "tools/call" || !isObject(body.params)) return undefined;
  return typeof body.params.name === "string" ? body.params.name : undefined;
}

/**
 * The tools that this message needs: the called one, those that `user` may use for `tools/list`, otherwise none. A call ignores
 * the user: its own checks refuse with a clearer message than "not found".
 */
export function toolsFor(
  body: unknown,
  catalogue: ReadonlyMap<string, Tool>,
  user: ToolUser | undefined,
  nowMs: number,
): readonly Tool[] {
  const called = calledTool(body);
  if (called !== undefined) {
    const tool = catalogue.get(called);
    return tool === undefined ? [] : [tool];
  }
  if (!isObject(body) || body.method !== "tools/list") return [];
  return user === undefined ? [...catalogue.values()] : offeredTools(catalogue.values(), user, nowMs);
}

export interface ToolCallOptions {
  /** Set when the client sent one. `readMcpRequest`'s checks have passed. */
  idempotencyKey?: string;
  /** How long the call waits for someone to raise the limit that refuses it. */
  waitsMs?: number;
  /** Set when the client can show a form to a person. */
  asking?: Asking;
  /** Sends a question on the call's stream. Set for clients of older revisions. */
  sendQuestion?: SendQuestion;
  /** Set when the client asked for progress. Never rejects, so a client that stops listening fails no tool. */
  progress?: (progress: Progress) => Promise<void>;
  /** Aborted when the client disconnects. */
  signal: AbortSignal;
}

/** Runs a tool. `args` match the tool's input schema and include its defaults. */
export type CallTool = (
  tool: Tool,
  args: Readonly<Record<string, unknown>>,
  options: ToolCallOptions,
) => Promise<CallOutcome>;

export interface ToolHost {
  callTool: CallTool;
  /** What the caller keeps for the server between two rounds of a call. */
  states: CallStates;
  /** Whether the client takes an event stream. */
  streams: boolean;
}

/**
 * Registers tools on a request's server. A caller without all of a tool's scopes gets 403 `insufficient_scope`, which
 * names the scopes. Arguments that break the schema give a result with `isError` that names the fields. In both cases
 * `callTool` is not called. A refusal or a failure is a result with `isError` and its facts under
 * `_meta["tollgate/refusal"]`. Only a charged call has a receipt, under `_meta["tollgate/receipt"]`.
 */
export function registerTools(
  server: McpServer,
  tools: readonly Tool[],
  { callTool, states, streams }: ToolHost,
): void {
  for (const tool of tools) {
    server.registerTool(tool.name, declarationOf(tool), async (args, context) => {
      const progress = progressTo(context);
      try {
        const meta = context.mcpReq._meta;
        const traceId = traceOf(meta?.["traceparent"]);
        if (traceId !== undefined) markRequest({ traceId });
        const round = await roundOf(context, { states, streams });
        const key = meta?.[IDEMPOTENCY_META_KEY] ?? round.key;
        const sendQuestion = round.asking?.form === "stream" ? questionsTo(server, context) : undefined;
        const options: ToolCallOptions = {
          signal: context.mcpReq.signal,
          ...(typeof key === "string" && { idempotencyKey: key }),
          ...(round.raise === "accept" && { waitsMs: RAISE_WAIT_MS }),
          ...(round.asking && { asking: round.asking }),
          ...(sendQuestion && { sendQuestion }),
          ...(progress && { progress }),
        };
        const outcome = await callTool(tool, args, options);
        const mint = (answers: Round["answers"]): Promise<string> =>
          states.mint({ key: round.key ?? crypto.randomUUID(), answers }, context);
        if (outcome.kind === "asks") return await questionFor(outcome.question, round, mint);
        return (
          (await offerToRaise(outcome, round, mint)) ??
          toResult(outcome, revisionOf(context), endingOf(tool, Date.now()))
        );
      } catch (error) {
        if (error instanceof ProtocolError) throw error;
        const code = errorCode(error);
        log("error", "tool_call_threw", { tool: tool.name, code, error: describeError(error) });
        return refusalResult(withRequestId(code), { code });
      }
    });
  }
}

/** The facts of a tool that is ending, for the answers of its calls. */
function endingOf(tool: Tool, nowMs: number): Record<string, unknown> | undefined {
  const message = endNotice(tool, nowMs);
  return message === undefined ? undefined : { ...tool.deprecated, message };
}

/** The revision of the message: the envelope's, or that of the header. */
export function revisionOf({ mcpReq: { envelope }, http }: ServerContext): string {
  const named: unknown = envelope && Reflect.get(envelope, PROTOCOL_VERSION_META_KEY);
  if (typeof named === "string") return named;
  return http?.req?.headers.get("mcp-protocol-version") ?? UNNAMED_REVISION;
}

function progressTo({ mcpReq }: ServerContext): ((progress: Progress) => Promise<void>) | undefined {
  const { _meta: meta } = mcpReq;
  const progressToken = meta?.progressToken;
  if (progressToken === undefined) return undefined;
  return async (progress) => {
    await mcpReq.notify({ method: "notifications/progress", params: { ...progress, progressToken } }).catch(() => {});
  };
}
