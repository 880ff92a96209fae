// What a tool may ask of the outside world: which URLs, methods and headers, and what becomes of a request at a redirect (Fetch
// standard, HTTP-redirect fetch). Rules without I/O. adapters/tool-fetch.ts asks them before each request.
//
// Invariants: a request leaves for a host that the tool declares, over https, and for no address literal in any notation. What
// identifies the tool's account to one host is not sent on to another.
import { isPublicHost } from "../core/text/web-url.ts";

/** Long enough for the query of any API. */
const MAX_URL_CHARS = 8_192;
const MAX_HEADERS = 64;
const MAX_HEADER_CHARS = 16_384;
export const MAX_REDIRECTS = 5;

const methods: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** A request, or one after a redirect. Header names are in lower case. */
export interface OutboundRequest {
  url: URL;
  method: string;
  headers: ReadonlyMap<string, string>;
  body: Uint8Array<ArrayBuffer> | undefined;
}

/** Why a request may not leave, as the end of a sentence that begins with the host. */
export interface Refused {
  refused: string;
}

const listed = /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z](?:[a-z0-9-]*[a-z0-9])?(?::\d{1,5})?$/;

/** Why an entry of a tool's `hosts` cannot be used; `undefined`: it can. */
export function hostProblem(entry: string): string | undefined {
  const name = entry.replace(/^\*\./, "");
  const ascii = URL.canParse(`https://${name}`) ? new URL(`https://${name}`).host : undefined;
  if (!listed.test(entry) || ascii !== name.replace(/:443$/, ""))
    return "is no name of a host. Write api.example.com, *.example.com or api.example.com:8443, in ASCII and lower case.";
  if (!isPublicHost(name.replace(/:\d+$/, ""))) return "is no host on the internet.";
  return entry.startsWith("*.") && !name.includes(".") ? "covers a whole top-level domain. Name the host." : undefined;
}

/** The URL, if it leads to one of these hosts, which are entries of a tool's declaration. */
export function checkedUrl(text: string, hosts: readonly string[]): URL | Refused {
  if (text.length > MAX_URL_CHARS) return { refused: `its URL has more than ${MAX_URL_CHARS} characters` };
  // Readers of such URLs disagree about the host.
  if (/[\s\\\p{Cc}]/u.test(text)) return { refused: "its URL has white space, a backslash or a control character" };
  if (!URL.canParse(text)) return { refused: "its URL cannot be read" };
  const url = new URL(text);
  if (url.protocol !== "https:") return { refused: "only https is allowed" };
  const [, authority = ""] = /^[a-z]+:\/*([^/?#]*)/i.exec(text) ?? [];
  if (url.username + url.password !== "" || authority.includes("@"))
    return { refused: "its URL names a user. Send credentials in a header" };
  // Parsed: in lower case and punycode, and an IPv4 address of any notation in dotted decimals.
  if (url.hostname.endsWith(".")) url.hostname = url.hostname.slice(0, -1);
  if (!isPublicHost(url.hostname)) return { refused: "it is an address, or a name that only a local network knows" };
  const port = url.port === "" ? "443" : url.port;
  if (!hosts.some((entry) => isListed(entry, url.hostname, port)))
    return { refused: `the tool does not list it in its hosts${port === "443" ? "" : ` with the port ${port}`}` };
  return url;
}

function isListed(entry: string, hostname: string, port: string): boolean {
  const [name = "", ownPort = "443"] = entry.split(":");
  if (ownPort !== port) return false;
  return name.startsWith("*.")
    ? hostname.endsWith(name.slice(1)) && hostname.length > name.length - 1
    : hostname === name;
}

/** Headers that the protocol, the platform or a proxy writes. */
const ownHeaders = new Set([
  ...["host", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "expect"],
  ...["via", "forwarded", "x-real-ip", "true-client-ip", "cdn-loop", "date"],
]);
const ownPrefixes = ["cf-", "proxy-", "x-forwarded-", "sec-"];

/** The headers by their names in lower case. */
export function checkedHeaders(given: Iterable<readonly [string, string]>): Map<string, string> | Refused {
  const headers = new Map<string, string>();
  let chars = 0;
  for (const [name, value] of given) {
    const lower = name.toLowerCase();
    if (!/^[a-z0-9!#$%&'*+.^_`|~-]+$/.test(lower)) return { refused: "a header has a name that HTTP does not allow" };
    if (ownHeaders.has(lower) || ownPrefixes.some((prefix) => lower.startsWith(prefix)))
      return { refused: `the header ${lower} is not the tool's to send` };
    if (!/^[\t\u0020-\u007E\u0080-\u00FF]*$/.test(value))
      return { refused: `the header ${lower} has a line break or a character that HTTP does not allow` };
    if (headers.has(lower)) return { refused: `the header ${lower} is given twice` };
    headers.set(lower, value);
    chars += name.length + value.length;
  }
  return headers.size > MAX_HEADERS || chars > MAX_HEADER_CHARS
    ? { refused: "it would get too many headers" }
    : headers;
}

/** The method in capitals. */
export function checkedMethod(method: string, hasBody: boolean): string | Refused {
  const name = method.toUpperCase();
  if (!methods.includes(name)) return { refused: `the method is none of ${methods.join(", ")}` };
  return hasBody && isSafe(name) ? { refused: `a ${name} request has no body` } : name;
}

/** Whether a request of this method changes nothing at its host. */
export function isSafe(method: string): boolean {
  return method === "GET" || method === "HEAD" || method === "OPTIONS";
}

const redirects = new Set([301, 302, 303, 307, 308]);
const credentials = new Set(["authorization", "cookie"]);
const ofBody = (name: string): boolean => name.startsWith("content-");

/**
 * The request that follows an answer, refused or allowed like the first one; `undefined`: the answer is no redirect. `hasSecret`:
 * whether a text has a secret that the call has read.
 */
export function afterRedirect(
  request: OutboundRequest,
  { status, location }: { status: number; location: string | null },
  { hosts, hasSecret }: { hosts: readonly string[]; hasSecret: (text: string) => boolean },
): OutboundRequest | Refused | undefined {
  if (!redirects.has(status) || location === null) return undefined;
  // Checked as it was written: a parser drops what disagreeing readers could read in another way.
  if (/[\s\\\p{Cc}]/u.test(location))
    return { refused: "a redirect's URL has white space, a backslash or a control character" };
  if (/^(?:[a-z][a-z0-9+.-]*:)?\/\/[^/?#]*@/i.test(location)) return { refused: "a redirect's URL names a user" };
  if (!URL.canParse(location, request.url.href)) return { refused: "a redirect's URL cannot be read" };
  const url = checkedUrl(new URL(location, request.url.href).href, hosts);
  if ("refused" in url) return { refused: `a redirect leads on to where ${url.refused}` };
  const { method } = request;
  const becomesGet = (status === 303 && !isSafe(method)) || ((status === 301 || status === 302) && method === "POST");
  const kept = [...request.headers].filter(([name]) => !(becomesGet && ofBody(name)));
  const body = becomesGet ? undefined : request.body;
  const next = { url, method: becomesGet ? "GET" : method, body };
  if (url.host === request.url.host) return { ...next, headers: new Map(kept) };
  if (body !== undefined && hasSecret(new TextDecoder().decode(body)))
    return { refused: "a redirect would send a body with a secret on to another host" };
  return { ...next, headers: new Map(kept.filter(([name, value]) => !credentials.has(name) && !hasSecret(value))) };
}
