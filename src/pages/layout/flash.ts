// A message for the next page, after a form: the answer to a POST redirects, and the page that follows shows the message once.
// It is in a cookie, which no other site and no sub-domain can set.
import * as z from "zod";
import { fromBase64Url, toBase64Url } from "../../core/keys/credentials.ts";
import { cookieOf, decodeUtf8, hostCookie } from "../../core/text/text.ts";

const COOKIE = "__Host-tollgate-message";
/** A redirect follows at once. A message that no page has shown by then is forgotten. */
const LIFE_SECONDS = 60;

const Flash = z.object({ tone: z.enum(["good", "warn", "bad"]), text: z.string().max(1_000) });
export type Flash = z.infer<typeof Flash>;

/** The `Set-Cookie` header that carries the message. Never a secret: show a new key on the page that answers the form. */
export function flashCookie(flash: Flash): string {
  const value = toBase64Url(new TextEncoder().encode(JSON.stringify(flash)));
  return hostCookie(COOKIE, value, LIFE_SECONDS);
}

/** The `Set-Cookie` header that forgets the message. */
export const shownFlashCookie = hostCookie(COOKIE, "", 0);

/** The message in a `Cookie` header. */
export function flashOf(cookies: string | undefined): Flash | undefined {
  const value = cookieOf(cookies, COOKIE);
  if (value === undefined) return undefined;
  try {
    return Flash.safeParse(JSON.parse(decodeUtf8(fromBase64Url(value)) ?? "")).data;
  } catch {
    return undefined;
  }
}
