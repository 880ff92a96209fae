// Which URLs a client may give Tollgate. Browsers, servers and apps read some URLs in different ways: one goes to the host before
// a backslash, one to that after it. Such URLs are refused, so that every reader of a stored URL finds the same host.
import * as z from "zod";

/** No page, picture or webhook needs as many. Stripe's return URLs have at most 5,000, with what it adds. */
const MAX_URL_CHARS = 2_000;

/** A URL of these protocols. */
export function webUrl(protocols: readonly ("http" | "https")[]) {
  const words = protocols.length === 1 ? `an ${protocols.join()} URL` : `an ${protocols.join(" or ")} URL`;
  return z
    .url({ protocol: new RegExp(`^(?:${protocols.join("|")})$`), error: `must be ${words}` })
    .max(MAX_URL_CHARS, `must have at most ${MAX_URL_CHARS} characters`)
    .regex(/^[^\s\\\p{Cc}]*$/u, "must contain no white space and no backslash")
    .refine((url) => !URL.canParse(url) || new URL(url).username + new URL(url).password === "", "must name no user");
}

/** The names of the loopback interface, as the host of a URL. */
export const loopbackHosts: readonly string[] = ["127.0.0.1", "localhost", "[::1]"];

/** Whether a URL leads to this machine, as that of a developer's own system does. */
export function isLoopback(url: string): boolean {
  return URL.canParse(url) && loopbackHosts.includes(new URL(url).hostname);
}

/** An https URL of a host on the internet: not an address, and no name that only a local network knows. */
export const PublicUrl = webUrl(["https"]).refine(
  (url) => !URL.canParse(url) || isPublicHost(new URL(url).hostname),
  "must name a host on the internet",
);

/** Whether a URL's host is a name on the internet, as far as the name tells. */
export function isPublicHost(hostname: string): boolean {
  const name = hostname.replace(/\.$/, "");
  const isAddress = /^\[|^[\d.]+$/.test(name); // the URL parser has made dotted decimals of every form of IPv4
  return !isAddress && name.includes(".") && !/\.(?:local|localhost|internal|home\.arpa|test|invalid)$/.test(name);
}
