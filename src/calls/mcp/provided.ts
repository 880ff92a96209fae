// The resources and prompts of the app over MCP. A read of a resource and a prompt are calls: the tenant's object checks, runs and
// charges them as it does a tool's. A refusal is a JSON-RPC error with its facts as data, because these methods have no other form.
import {
  type McpServer,
  ProtocolError,
  ProtocolErrorCode,
  ResourceNotFoundError,
  ResourceTemplate,
  requireScopes,
} from "@modelcontextprotocol/server";
import type { GetPromptResult, ReadResourceResult, ServerContext } from "@modelcontextprotocol/server";
import type { CallOutcome, ContentBlock } from "../../core/call.ts";
import { inputProblem } from "../../core/text/input-problem.ts";
import { prompts, resourceOf, resources } from "../../tools/catalogue.ts";
import { type ToolUser, offeredTools } from "../../tools/offer.ts";
import type { Resource } from "../../tools/provided/resource.ts";
import { type Tool, describedWithPrice } from "../../tools/tool.ts";
import { isObject } from "./message.ts";
import { knownBlock, metaOf } from "./result.ts";
import { type CallTool, revisionOf } from "./server.ts";

/** The JSON-RPC code for errors of the server's own. */
const SERVER_ERROR = -32_000;

/** Whether the message reads a resource or gets a prompt that exists. Such a message is a call. */
export function callsProvided(body: unknown): boolean {
  const { method, params } = isObject(body) ? body : {};
  if (!isObject(params)) return false;
  const { uri, name } = params;
  if (method === "resources/read") return typeof uri === "string" && resourceOf(normal(uri)) !== undefined;
  return method === "prompts/get" && typeof name === "string" && prompts.has(name);
}

/**
 * Registers what this message needs: the resource that it reads, the prompt that it gets, or for a list those that `user` may use. A
 * call ignores the user: its own checks refuse with a clearer message than "not found".
 */
export function registerProvided(
  server: McpServer,
  body: unknown,
  { user, callTool, nowMs }: { user: ToolUser | undefined; callTool: CallTool; nowMs: number },
): void {
  const { method, params } = isObject(body) ? body : {};
  const offered = <Each extends { tool: Tool }>(all: ReadonlyMap<string, Each>): { each: Each; tool: Tool }[] => {
    const tools = Array.from(all.values(), ({ tool }) => tool);
    const listed = user === undefined ? tools : offeredTools(tools, user, nowMs);
    return listed.flatMap((tool) => {
      const each = all.get(tool.name);
      return each === undefined ? [] : [{ each, tool }];
    });
  };
  switch (method) {
    case "resources/list":
    case "resources/templates/list":
    case "resources/read": {
      if (resources.size === 0) return;
      const uri = isObject(params) && typeof params["uri"] === "string" ? normal(params["uri"]) : undefined;
      const read = method === "resources/read" && uri !== undefined ? resourceOf(uri) : undefined;
      const found = read === undefined ? offered(resources) : [{ each: read.resource, tool: read.resource.tool }];
      for (const { each, tool } of found)
        registerResource(server, { resource: each, tool, uri: read === undefined ? undefined : uri }, callTool);
      // The SDK knows the methods only when something is registered.
      if (found.length === 0) {
        server.server.setRequestHandler("resources/list", () => ({ resources: [] }));
        server.server.setRequestHandler("resources/templates/list", () => ({ resourceTemplates: [] }));
      }
      return;
    }
    case "prompts/list":
    case "prompts/get": {
      if (prompts.size === 0) return;
      const named = isObject(params) && typeof params["name"] === "string" ? prompts.get(params["name"]) : undefined;
      const found =
        method === "prompts/get" && named !== undefined ? [{ each: named, tool: named.tool }] : offered(prompts);
      for (const { tool } of found) registerPrompt(server, tool, callTool);
      if (found.length === 0) server.server.setRequestHandler("prompts/list", () => ({ prompts: [] }));
      return;
    }
    default:
      return;
  }
}

/** A URI as URL parsers write it. */
function normal(uri: string): string {
  return URL.canParse(uri) ? new URL(uri).href : uri;
}

/** `uri`: the one that is read, which may be of a template. */
function registerResource(
  server: McpServer,
  { resource, tool, uri }: { resource: Resource; tool: Tool; uri: string | undefined },
  callTool: CallTool,
): void {
  const { mimeType } = resource;
  const about = { ...aboutOf(tool), ...(mimeType !== undefined && { mimeType }) };
  const read = async ({ href }: URL, context: ServerContext): Promise<ReadResourceResult> => {
    const found = resourceOf(href);
    if (found === undefined) throw new ResourceNotFoundError(href);
    const args = argumentsOf(found.resource.tool, { ...found.params, uri: href });
    const outcome = await callTool(found.resource.tool, args, { signal: context.mcpReq.signal });
    const data = dataOf(outcome, () => new ResourceNotFoundError(href));
    return { contents: data.contents as ReadResourceResult["contents"], ...metaOf(undefined, receiptOf(outcome)) };
  };
  if (uri === undefined && resource.isTemplate) {
    const template = new ResourceTemplate(resource.uri, { list: undefined });
    server.registerResource(tool.name, template, about, (given, _variables, context) => read(given, context));
  } else server.registerResource(tool.name, uri ?? normal(resource.uri), about, read);
}

function registerPrompt(server: McpServer, tool: Tool, callTool: CallTool): void {
  const config = { ...aboutOf(tool), argsSchema: tool.input };
  server.registerPrompt(tool.name, config, async (args, context): Promise<GetPromptResult> => {
    const outcome = await callTool(tool, args, { signal: context.mcpReq.signal });
    const data = dataOf(outcome, (text) => new ProtocolError(ProtocolErrorCode.InvalidParams, text));
    const revision = revisionOf(context);
    const messages = (data.messages as { role: string; content: ContentBlock }[]).map(({ role, content }) => ({
      role,
      content: knownBlock(content, revision),
    }));
    return {
      description: tool.description,
      messages: messages as GetPromptResult["messages"],
      ...metaOf(undefined, receiptOf(outcome)),
    };
  });
}

function aboutOf(tool: Tool) {
  const [scope, ...scopes] = tool.scopes;
  return {
    title: tool.title,
    description: describedWithPrice(tool),
    ...(scope !== undefined && { scopeChallenge: requireScopes(scope, ...scopes) }),
  };
}

/** The arguments of a read. Throws when the variables break the resource's schema. */
function argumentsOf(tool: Tool, given: Record<string, string>): Record<string, unknown> {
  const { data, error } = tool.input.safeParse(given);
  if (data !== undefined) return data;
  const problems = error.issues.map((issue) => `${issue.path.join(".")}: ${inputProblem(issue)}`);
  throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Invalid params: ${problems.join("; ")}.`);
}

/** The data of a success. Throws the error for a refusal, a failure, and what the app itself answers with an error. */
function dataOf(outcome: CallOutcome, ownError: (text: string) => ProtocolError): Record<string, unknown> {
  if (outcome.kind === "result") {
    if (outcome.data !== undefined) return outcome.data;
    const [block] = outcome.content;
    const text = block?.type === "text" ? block.text : "";
    if (outcome.failure === undefined) throw ownError(text);
    throw new ProtocolError(ProtocolErrorCode.InternalError, text, { code: outcome.failure });
  }
  if (outcome.kind === "asks") throw new ProtocolError(ProtocolErrorCode.InternalError, "Only a tool can ask.");
  const { message, ...facts } = outcome.refusal;
  throw new ProtocolError(SERVER_ERROR, message, { ...facts, ...(outcome.receipt && { receipt: outcome.receipt }) });
}

function receiptOf(outcome: CallOutcome) {
  return outcome.kind === "result" ? outcome.receipt : undefined;
}
