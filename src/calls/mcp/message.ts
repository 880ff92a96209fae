// JSON-RPC messages as real clients send them. Decides what Tollgate forgives (members that are null, numbers that JavaScript
// cannot hold) and which parameters it refuses, in words that a client's developer understands.
//
// Invariant: an `id` or a progress token goes back exactly as it came.
import { IDEMPOTENCY_META_KEY, MAX_KEY_LENGTH } from "../keyed-calls.ts";
import type * as z from "zod";
import { inputProblem } from "../../core/text/input-problem.ts";
import { PROTOCOL_VERSION_META_KEY, specTypeSchemas } from "@modelcontextprotocol/server";

type JsonObject = Record<string, unknown>;

/** Whether a parsed JSON value is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The `id` of a message as an error may repeat it, otherwise `null`. */
export function idOf(message: unknown): string | number | null {
  const id = isObject(message) ? message.id : undefined;
  return typeof id === "string" || typeof id === "number" ? id : null;
}

/** Whether a message says that it belongs to revision 2026-07-28 or a later one. */
export function claimsModernEra(message: unknown): boolean {
  const params = isObject(message) ? message.params : undefined;
  const meta = isObject(params) ? params["_meta"] : undefined;
  return isObject(meta) && PROTOCOL_VERSION_META_KEY in meta;
}

// ---- numbers

/** A number as the client wrote it. */
class Written {
  readonly digits: string;
  constructor(digits: string) {
    this.digits = digits;
  }
}

/** Places of numbers that go back to the client. The same text always gives the same places in the same order. */
function echoedNumbers(body: unknown): { holder: JsonObject; name: string }[] {
  const messages = (Array.isArray(body) ? body : [body]).filter(isObject);
  return messages.flatMap((message) => {
    const meta = isObject(message.params) ? message.params["_meta"] : undefined;
    return [{ holder: message, name: "id" }, ...(isObject(meta) ? [{ holder: meta, name: "progressToken" }] : [])];
  });
}

function isInexact(value: unknown): boolean {
  return typeof value === "number" && !Number.isSafeInteger(value);
}

/**
 * Replaces each `id` and progress token that JavaScript cannot hold exactly by a text of its own. `body` is `text`, parsed.
 * Returns the function that puts the numbers back into the text of an answer, or `undefined` when every number is exact,
 * which is the usual case.
 */
export function keepNumbers(text: string, body: unknown): ((answer: string) => string) | undefined {
  const places = echoedNumbers(body);
  if (!places.some(({ holder, name }) => isInexact(holder[name]))) return undefined;
  // `source` is the number's text (ECMAScript, JSON.parse source text access). TypeScript does not know it yet.
  const withSource = (name: string, value: unknown, context?: { source?: string }): unknown =>
    (name === "id" || name === "progressToken") && isInexact(value) ? new Written(context?.source ?? "null") : value;
  const written = echoedNumbers(JSON.parse(text, withSource as Parameters<typeof JSON.parse>[1]));
  const numbers = new Map<string, string>();
  for (const [index, { holder, name }] of places.entries()) {
    const number = written[index]?.holder[name];
    if (!(number instanceof Written)) continue;
    const placeholder = `number-${crypto.randomUUID()}`;
    numbers.set(`"${placeholder}"`, number.digits);
    holder[name] = placeholder;
  }
  return (answer) => {
    let exact = answer;
    for (const [placeholder, digits] of numbers) exact = exact.replaceAll(placeholder, digits);
    return exact;
  };
}

// ---- members without a value

/** The members that a request or notification has. Some clients add others; no revision gives them a meaning. */
const members = new Set(["jsonrpc", "id", "method", "params"]);

/**
 * Removes what a client writes for "no value": `params`, members of `params` and of `_meta` that are null, an empty cursor,
 * and an empty list or text in place of an object (PHP writes `[]` for an object without members). Removes members that no
 * message has, too. Arguments of tools stay: their schema decides about them. Without `streams`, a progress token goes, too,
 * because its notifications need an event stream.
 */
export function dropEmptyMembers(message: unknown, { streams }: { streams: boolean }): void {
  if (!isObject(message) || typeof message.method !== "string") return;
  for (const name of Object.keys(message)) if (!members.has(name)) Reflect.deleteProperty(message, name);
  if (message.params === null || isEmptyList(message.params)) delete message.params;
  const { params } = message;
  if (!isObject(params)) return;
  for (const name of ["_meta", "arguments"]) if (isEmptyList(params[name])) delete params[name];
  if (params["arguments"] === "") delete params["arguments"];
  if (message.method === "initialize" && "capabilities" in params)
    params["capabilities"] = withoutEmptyLists(params["capabilities"]);
  // What a client says about itself comes in objects within objects.
  dropNulls(params, message.method === "initialize" ? Infinity : 1);
  if (params["cursor"] === "") delete params["cursor"];
  const { _meta: meta } = params;
  if (!isObject(meta)) return;
  dropNulls(meta, Infinity);
  if (!streams) delete meta["progressToken"];
}

function isEmptyList(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}

/** Capabilities are objects within objects: an empty list among them is an empty object. */
function withoutEmptyLists(value: unknown, depth = 1): unknown {
  if (isEmptyList(value)) return {};
  if (!isObject(value) || depth > MAX_DEPTH) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, withoutEmptyLists(each, depth + 1)]));
}

/** Only a few levels are ever in use; the bound keeps hostile nesting from the stack. */
const MAX_DEPTH = 8;

function dropNulls(object: JsonObject, levels: number, depth = 1): void {
  for (const [name, value] of Object.entries(object)) {
    if (value === null) delete object[name];
    else if (depth < Math.min(levels, MAX_DEPTH) && isObject(value)) dropNulls(value, levels, depth + 1);
  }
}

// ---- the form of a message

/** Why a value is no message of JSON-RPC 2.0, in words; `undefined`: it is one. */
export function malformedMessage(message: unknown): string | undefined {
  if (!isObject(message)) return "A message must be a JSON object.";
  if (message["jsonrpc"] !== "2.0") return 'The member `jsonrpc` must be "2.0".';
  const isResponse = "result" in message || "error" in message;
  if (!isResponse && typeof message.method !== "string") return "The member `method` must be a string.";
  const isId = typeof message.id === "string" || typeof message.id === "number";
  if ("id" in message && !isId && !(isResponse && message.id === null))
    return "The member `id` must be a string or a number. A notification has none.";
  return undefined;
}

// ---- parameters

/**
 * What is wrong with a request's parameters, or `undefined`. Covers the methods that Tollgate serves, for which the SDK would
 * answer with the code of a broken server and its validator's output.
 */
export function invalidParams(message: unknown): string | undefined {
  if (!isObject(message) || typeof message.method !== "string" || !("id" in message)) return undefined;
  const { method, params = {} } = message;
  if (!isObject(params)) return "params must be an object";
  const { _meta: meta = {} } = params;
  if (!isObject(meta)) return "params._meta must be an object";
  const { progressToken } = meta;
  if (progressToken !== undefined && typeof progressToken !== "string" && !Number.isSafeInteger(progressToken))
    return "params._meta.progressToken must be a string or an integer";
  switch (method) {
    case "initialize":
      // The newer era has no such method.
      return claimsModernEra(message) ? undefined : problemsOfInitialize(params);
    case "tools/list":
    case "resources/list":
    case "resources/templates/list":
    case "prompts/list":
      // The list has one page, so no cursor was ever given out.
      if (params["cursor"] !== undefined) return "params.cursor is not a cursor of this server. List again without it";
      return undefined;
    case "tools/call":
      if (typeof params["name"] !== "string") return "params.name must be a tool's name";
      if (params["arguments"] !== undefined && !isObject(params["arguments"]))
        return "params.arguments must be an object";
      return problemOfKey(meta[IDEMPOTENCY_META_KEY]);
    case "resources/read":
      return typeof params["uri"] === "string" && URL.canParse(params["uri"]) ? undefined : "params.uri must be a URI";
    case "prompts/get":
      if (typeof params["name"] !== "string") return "params.name must be a prompt's name";
      if (params["arguments"] !== undefined && !isObject(params["arguments"]))
        return "params.arguments must be an object";
      return undefined;
    default:
      return undefined;
  }
}

function problemOfKey(key: unknown): string | undefined {
  if (key === undefined || (typeof key === "string" && key.length > 0 && key.length <= MAX_KEY_LENGTH))
    return undefined;
  return `params._meta["${IDEMPOTENCY_META_KEY}"] must be a text of 1 to ${MAX_KEY_LENGTH} characters`;
}

function problemsOfInitialize(params: JsonObject): string | undefined {
  // A Zod schema, which checks without waiting.
  const checked = specTypeSchemas.InitializeRequestParams["~standard"].validate(params);
  if (checked instanceof Promise || checked.issues === undefined) return undefined;
  return checked.issues
    .map((issue) => {
      const names = (issue.path ?? []).map((part) => String(typeof part === "object" ? part.key : part));
      // The SDK's schemas are Zod schemas.
      return `${["params", ...names].join(".")}: ${inputProblem(issue as z.core.$ZodIssue)}`;
    })
    .join("; ");
}

// ---- clients that can show a page or a form to a person

/** Whether the client that has these capabilities can open a URL (elicitation in URL mode). */
export function opensUrls(capabilities: unknown): boolean {
  const elicitation = isObject(capabilities) ? capabilities["elicitation"] : undefined;
  return isObject(elicitation) && isObject(elicitation["url"]);
}

/** Whether the client that has these capabilities can show a form. One that names no mode can: forms were the first. */
export function showsForms(capabilities: unknown): boolean {
  const elicitation = isObject(capabilities) ? capabilities["elicitation"] : undefined;
  return isObject(elicitation) && (isObject(elicitation["form"]) || !isObject(elicitation["url"]));
}

export const SESSION_HEADER = "mcp-session-id";
/**
 * A session id of the older revisions, in which a client names its capabilities once: it says what the client can show to a person.
 * There is nothing behind it, so it works in every isolate and never ends.
 */
const sessionForm = /^(url|form|url-form)-elicitation\./;

/** The session id for the answer to this message, if it is an `initialize` of a client that can show something to a person. */
export function sessionOf(message: unknown): string | undefined {
  if (!isObject(message) || message.method !== "initialize" || !isObject(message.params)) return undefined;
  const { capabilities } = message.params;
  const modes = [opensUrls(capabilities) && "url", showsForms(capabilities) && "form"].filter((mode) => mode !== false);
  return modes.length === 0 ? undefined : `${modes.join("-")}-elicitation.${crypto.randomUUID()}`;
}

/** What the client of a session can show to a person. */
export function sessionShows(headers: Headers | undefined): { urls: boolean; forms: boolean } {
  const modes = sessionForm.exec(headers?.get(SESSION_HEADER) ?? "")?.[1]?.split("-") ?? [];
  return { urls: modes.includes("url"), forms: modes.includes("form") };
}

/** A client's answer to a question of a running call: the question's id, and what the client has sent. */
export function answerToQuestion(message: unknown, prefix: string): { id: string; result: unknown } | undefined {
  if (!isObject(message) || "method" in message || typeof message.id !== "string") return undefined;
  if (!message.id.startsWith(prefix) || !("result" in message || "error" in message)) return undefined;
  return { id: message.id, result: message["result"] };
}
