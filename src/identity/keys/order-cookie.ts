// The cookie in which a browser keeps the tokens of orders that it has made or opened: the set-up token, which makes the first key,
// and the token that shows the progress. So neither stays in an address, which a browser's history and a screen show.
// Pure. The guard verifies each token, so a made-up cookie opens nothing.
import { cookieOf, hostCookie } from "../../core/text/text.ts";
import { DAY_MS } from "../../core/time.ts";

const COOKIE = "__Host-tollgate-orders";
/** As long as a set-up token at least. */
const LIFE_SECONDS = (31 * DAY_MS) / 1_000;
/** Each order has two tokens of some 150 characters, and a cookie has room for 4,096. */
const MOST_TOKENS = 6;
const SEPARATOR = "~";
const kinds = ["tgs_", "tgp_"];

/** Whether the token is of an order: a set-up token or one that shows the progress. */
export function isOrderToken(token: string): boolean {
  return kinds.some((kind) => token.startsWith(kind)) && /^[\w.-]{1,640}$/.test(token);
}

/** The tokens of a `Cookie` header: those of the set-up first, each the newest first. */
export function orderTokensOf(cookies: string | undefined): string[] {
  const sent = (cookieOf(cookies, COOKIE) ?? "").split(SEPARATOR);
  const tokens = sent.filter(isOrderToken).slice(0, MOST_TOKENS);
  return kinds.flatMap((kind) => tokens.filter((token) => token.startsWith(kind)));
}

/** The `Set-Cookie` header that adds a token. Lax: the browser sends it when Stripe's page leads back. */
export function orderCookie(cookies: string | undefined, added: string): string {
  const tokens = [...new Set([added, ...orderTokensOf(cookies)])].slice(0, MOST_TOKENS);
  return hostCookie(COOKIE, tokens.join(SEPARATOR), LIFE_SECONDS);
}
