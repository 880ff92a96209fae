// The rates of requests outside the MCP endpoint. Those of one tenant's admin in the last minute are held by the tenant's object.
// Calls of agents do not count there: an agent that uses up its rate must not keep the admin from the usage, the invoices and
// the export. Those of strangers are counted by the platform, for each source of requests.
// Invariant: no more requests are admitted in any minute than the limit, and a refused request does not count.
import { MINUTE_MS } from "../core/time.ts";

/**
 * Pages of Stripe (portal, Checkout) a minute. Each costs two or three requests to Stripe, which allows the whole account 25 a
 * second. No person needs as many.
 */
export const STRIPE_PAGES_PER_MINUTE = 10;
/** For a plan without a limit of requests a minute: more than any page or script of an admin needs. */
export const UNLIMITED_PER_MINUTE = 600;

/** The period of `ADDRESS_RATE` in wrangler.toml. The platform does not say when it admits the next request. */
export const ADDRESS_RATE_SECONDS = 60;

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

export class RequestRate {
  #admittedAtMs: number[] = [];

  /** Admits a request and returns 0, or returns after how many milliseconds the next one is admitted. */
  admit(perMinute: number, nowMs: number): number {
    // An instant in the future is of a clock that was set back.
    this.#admittedAtMs = this.#admittedAtMs.filter((atMs) => atMs <= nowMs && nowMs - atMs < MINUTE_MS);
    const blocking = this.#admittedAtMs.at(-perMinute);
    if (blocking !== undefined && this.#admittedAtMs.length >= perMinute) return blocking + MINUTE_MS - nowMs;
    this.#admittedAtMs.push(nowMs);
    return 0;
  }
}
