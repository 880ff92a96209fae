// Requests of tools to the outside world. tools/outbound.ts has the rules for URLs, headers and redirects; this file looks names up,
// sends, follows redirects itself, and bounds the time and the size of each answer.
//
// Two walls keep a request from private addresses. This file asks the resolver DNS_URL before each request, and refuses a name of
// which any address is not public. A Worker cannot pin what it has looked up: `fetch` resolves the name again, and a name that its
// owner changes in between has another address then. The second wall is Cloudflare's network: it routes a Worker's requests to
// public addresses only, also where a name resolves to a private one. Besides, the server must prove the name by a certificate,
// which a service of a private network does not have.
import { AppError, type ErrorCode, ToolProblem } from "../core/errors.ts";
import { isPublicAddress } from "../core/text/ip-address.ts";
import { loopbackHosts } from "../core/text/web-url.ts";
import {
  MAX_REDIRECTS,
  type OutboundRequest,
  type Refused,
  afterRedirect,
  checkedHeaders,
  checkedMethod,
  checkedUrl,
  isSafe,
} from "../tools/outbound.ts";
import type { ToolRequest } from "../tools/tool.ts";
import { addressesOf } from "./dns.ts";
import { wholeBody } from "./provider-http.ts";

/** A person waits for the tool. */
const TIMEOUT_MS = 10_000;
const MAX_REQUEST_BYTES = 1_048_576;
/** Of the answer as the tool reads it, after decompression. */
const MAX_ANSWER_BYTES = 5_242_880;

export interface Outside {
  env: Pick<Env, "DNS_URL" | "PUBLIC_URL" | "TOOL_HOSTS_LOCAL">;
  /** As the tool declares them. */
  hosts: readonly string[];
  /** Whether the tool changes nothing. */
  isReadOnly: boolean;
  /** Aborted when the call ends. */
  signal: AbortSignal;
  /** Whether a text has a secret that the call has read. */
  hasSecret: (text: string) => boolean;
}

/**
 * The answer with its body read. Throws `ToolProblem`: `fetch_refused` for a request that breaks a rule, `fetch_failed` and
 * `fetch_timeout` for a host without an answer, `fetch_too_large`, and `outcome_unknown` where a tool that changes data has sent a
 * request and got no answer.
 */
export async function fetchOutside(
  url: string | URL,
  { method = "GET", headers = {}, body, redirect = "follow", timeoutMs = TIMEOUT_MS }: ToolRequest,
  outside: Outside,
): Promise<Response> {
  const local = localHosts(outside.env);
  let request = firstRequest(String(url), { method, headers, body }, outside);
  const late = AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([outside.signal, late]);
  /** Whether a request that may have changed something was sent. */
  let hasActed = false;
  const failed = (code: "fetch_failed" | "fetch_timeout", rule: string): ToolProblem => {
    const { hostname } = request.url;
    if (!hasActed || outside.isReadOnly) return problem(code, hostname, rule, "temporary");
    return problem(
      "outcome_unknown",
      hostname,
      `${rule}: whether it has done what was asked is not known`,
      "temporary",
    );
  };
  try {
    for (let hops = 0; ; hops += 1) {
      const target = local.get(request.url.hostname);
      if (target === undefined) await requirePublic(request.url.hostname, outside, signal);
      hasActed ||= !isSafe(request.method);
      const response = await send(request, target, signal);
      const next =
        redirect === "manual"
          ? undefined
          : afterRedirect(request, { status: response.status, location: response.headers.get("location") }, outside);
      if (next === undefined) return await wholeAnswer(request, response, signal);
      await response.body?.cancel().catch(() => undefined);
      if ("refused" in next) throw refusal(request.url.hostname, next);
      if (hops === MAX_REDIRECTS)
        throw refusal(request.url.hostname, { refused: `more than ${MAX_REDIRECTS} redirects` });
      request = next;
    }
  } catch (error) {
    if (error instanceof AppError) throw error;
    // The cause may quote the URL, so the tool and the log get the host alone.
    if (late.aborted) throw failed("fetch_timeout", `no answer within ${timeoutMs} ms`);
    throw failed("fetch_failed", outside.signal.aborted ? "the call has ended" : "it cannot be reached");
  }
}

function firstRequest(
  text: string,
  {
    method,
    headers,
    body,
  }: Required<Pick<ToolRequest, "method" | "headers">> & { body: ToolRequest["body"] | undefined },
  { hosts }: Outside,
): OutboundRequest {
  const host = URL.canParse(text) ? new URL(text).hostname : "";
  const url = checkedUrl(text, hosts);
  if ("refused" in url) throw refusal(host, url);
  const pairs = headers instanceof Headers ? [...headers] : Object.entries(headers);
  const checked = checkedHeaders(pairs);
  if ("refused" in checked) throw refusal(host, checked);
  const bytes = bytesOf(body);
  const name = checkedMethod(method, bytes !== undefined);
  if (typeof name !== "string") throw refusal(host, name);
  if (bytes !== undefined && bytes.byteLength > MAX_REQUEST_BYTES)
    throw refusal(host, { refused: "the request's body is over 1 MiB" });
  if (bytes !== undefined && !checked.has("content-type") && typeOf(body) !== undefined)
    checked.set("content-type", typeOf(body) ?? "");
  return { url, method: name, headers: checked, body: bytes };
}

function bytesOf(body: ToolRequest["body"] | undefined): Uint8Array<ArrayBuffer> | undefined {
  if (body === undefined) return undefined;
  return new Uint8Array(body instanceof Uint8Array ? body : new TextEncoder().encode(body.toString()));
}

/** The type that `fetch` gives such a body. */
function typeOf(body: ToolRequest["body"] | undefined): string | undefined {
  if (body instanceof URLSearchParams) return "application/x-www-form-urlencoded;charset=UTF-8";
  return typeof body === "string" ? "text/plain;charset=UTF-8" : undefined;
}

/** Throws when an address of the name is not public, or when there is none. */
async function requirePublic(hostname: string, { env }: Outside, signal: AbortSignal): Promise<void> {
  let addresses: string[];
  try {
    addresses = await addressesOf(env, hostname, signal);
  } catch (error) {
    if (signal.aborted) throw new Error("the look-up was aborted", { cause: error });
    throw problem("fetch_failed", hostname, "its address cannot be looked up", "temporary");
  }
  if (addresses.length === 0) throw problem("fetch_failed", hostname, "the DNS has no address of it", "temporary");
  if (!addresses.every(isPublicAddress)) throw refusal(hostname, { refused: "its address is not public" });
}

/** `target`: the stand-in's URL in place of the host's. */
function send(request: OutboundRequest, target: string | undefined, signal: AbortSignal): Promise<Response> {
  const { url, method, headers, body } = request;
  return fetch(target === undefined ? url.href : target + url.pathname + url.search, {
    method,
    headers: [...headers],
    ...(body !== undefined && { body }),
    redirect: "manual",
    // An edge's cache does not know whose answer it keeps.
    cache: "no-store",
    signal,
  });
}

/** The answer with its body in memory. Stops to read as soon as it is too large. */
async function wholeAnswer(
  { url: { hostname }, method }: OutboundRequest,
  response: Response,
  signal: AbortSignal,
): Promise<Response> {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  const hasBody = method !== "HEAD" && response.body !== null && ![204, 205, 304].includes(status);
  const tooLarge = problem("fetch_too_large", hostname, "its answer is over 5 MiB", "permanent");
  if (hasBody && Number(headers.get("content-length")) > MAX_ANSWER_BYTES) {
    await response.body?.cancel().catch(() => undefined);
    throw tooLarge;
  }
  const body =
    hasBody && response.body !== null
      ? await wholeBody(response.body, { maxBytes: MAX_ANSWER_BYTES, tooLarge, signal })
      : null;
  // They describe the body as it was sent.
  for (const name of ["content-encoding", "content-length", "transfer-encoding"]) headers.delete(name);
  return new Response(body, { status, statusText, headers });
}

function refusal(hostname: string, { refused }: Refused): ToolProblem {
  return problem("fetch_refused", hostname, refused, "permanent");
}

/** Names the host and the rule. A path, a query or a header may have a secret. */
function problem(code: ErrorCode, hostname: string, rule: string, kind: ToolProblem["kind"]): ToolProblem {
  return new ToolProblem(code, `Request to ${hostname === "" ? "a host" : hostname.slice(0, 100)}: ${rule}.`, kind);
}

/**
 * Stand-ins of hosts, by host: only in local development, where PUBLIC_URL and the stand-ins are on this machine. Throws otherwise, so
 * that no deployment sends a request of a tool anywhere else by this setting.
 */
export function localHosts({ PUBLIC_URL, TOOL_HOSTS_LOCAL }: Outside["env"]): ReadonlyMap<string, string> {
  if (TOOL_HOSTS_LOCAL === undefined || TOOL_HOSTS_LOCAL === "") return new Map();
  const isLocal = (url: string): boolean =>
    URL.canParse(url) && new URL(url).protocol === "http:" && loopbackHosts.includes(new URL(url).hostname);
  const hosts = new Map(Object.entries(JSON.parse(TOOL_HOSTS_LOCAL) as Record<string, string>));
  if (!isLocal(PUBLIC_URL) || ![...hosts.values()].every(isLocal))
    throw new AppError(
      "internal",
      "TOOL_HOSTS_LOCAL is for local development, and PUBLIC_URL or a stand-in is not on this machine",
    );
  return hosts;
}
