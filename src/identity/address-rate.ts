// The rates of strangers: what one source of requests may send a minute. The platform counts, at each of its locations, by the
// numbers of `[[ratelimits]]` in wrangler.toml.
// Invariants: a wrong credential counts, a right one does not: it never pays for the failures of others at its address. The
// loopback address has no rate, because only a local system sees it.
import type { MiddlewareHandler } from "hono";
import { createMiddleware } from "hono/factory";
import { type HttpContext, type HttpEnv, type Rate, TooManyRequests } from "../http.ts";
import { describeError, log } from "../log.ts";

/** The period of each rate in wrangler.toml. The platform does not say when it admits the next request. */
export const ADDRESS_RATE_SECONDS = 60;

const bindings = { address: "ADDRESS_RATE", registration: "REGISTRATION_RATE", failure: "FAILURE_RATE" } as const;

/**
 * The source that an address belongs to: an IPv4 address itself, and the first 64 bits of an IPv6 address, which are the least
 * that a customer of a network gets. Another text is its own source.
 */
export function sourceOf(address: string): string {
  const text = address.trim().toLowerCase();
  const v4 = /^(?:::ffff:)?(\d{1,3}(?:\.\d{1,3}){3})$/.exec(text)?.[1];
  if (v4 !== undefined || !text.includes(":")) return v4 ?? text;
  const [head = "", tail] = text.split("::");
  const groups = head.split(":").filter((group) => group !== "");
  const missing = tail === undefined ? 0 : 8 - groups.length - tail.split(":").filter((group) => group !== "").length;
  const all = [...groups, ...Array.from({ length: Math.max(0, missing) }, () => "0"), ...(tail?.split(":") ?? [])];
  return all
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":");
}

/** The loopback addresses as sources. Cloudflare names no client by them. */
const isLocal = (source: string): boolean => /^127\.|^0:0:0:0$/.test(source);

/** Counts a request, and says whether its source has sent too many. `what` has a count of its own. */
async function isOver(headers: Headers, env: Env, rate: keyof typeof bindings, what: string): Promise<boolean> {
  const source = sourceOf(headers.get("cf-connecting-ip") ?? "");
  if (isLocal(source)) return false;
  try {
    return !(await env[bindings[rate]].limit({ key: `${what} ${source}` })).success;
  } catch (error) {
    // A buyer is worth more than the count.
    log("warn", "address_rate_not_counted", { rate, error: describeError(error) });
    return false;
  }
}

const tooMany = (): TooManyRequests =>
  new TooManyRequests("Your address sends too many requests a minute.", ADDRESS_RATE_SECONDS);

/** Throws `rate_limited` when strangers at one address have sent too many requests to the route in the last minute. */
async function requireAddressRate(c: HttpContext, rate: Rate): Promise<void> {
  const { tenantId = "" } = c.req.param() as { tenantId?: string };
  // Of a tenant's route each tenant has a rate: buyers in one building do not wait for each other.
  const what = `${c.req.routePath} ${tenantId.slice(0, 60)}`;
  if (await isOver(c.req.raw.headers, c.env, rate, what)) throw tooMany();
}

const byRate: Readonly<Record<Rate, MiddlewareHandler<HttpEnv>>> = {
  address: addressRate("address"),
  registration: addressRate("registration"),
};

function addressRate(rate: Rate): MiddlewareHandler<HttpEnv> {
  return createMiddleware<HttpEnv>(async (c, next) => {
    // The operator looks after many tenants.
    if (c.get("actor").kind !== "operator") await requireAddressRate(c, rate);
    await next();
  });
}

/** The middleware of a route with this rate, if it has one. Runs after the guard and before the body is read. */
export function rateOf(rate: Rate | undefined): MiddlewareHandler<HttpEnv>[] {
  return rate === undefined ? [] : [byRate[rate]];
}

/** Counts a wrong credential of this kind, and says whether its source has sent too many of them. */
export function isOverFailureRate(headers: Headers, env: Env, kind: "operator" | "credential"): Promise<boolean> {
  return isOver(headers, env, "failure", kind);
}

export const tooManyFailures = "Your address sends too many wrong credentials a minute.";

/**
 * Counts the request if its credential was wrong. Over the rate it returns the refusal that takes the place of the answer. A token
 * that has expired or was revoked is genuine, and does not count: its holder has to learn that, in order to sign in again.
 */
export async function refusedFailure(c: HttpContext): Promise<TooManyRequests | undefined> {
  if (c.get("code") !== "token_invalid" && c.get("hasWrongCredential") !== true) return undefined;
  const kind = c.req.path.startsWith("/admin/") ? "operator" : "credential";
  if (!(await isOverFailureRate(c.req.raw.headers, c.env, kind))) return undefined;
  return new TooManyRequests(tooManyFailures, ADDRESS_RATE_SECONDS);
}
