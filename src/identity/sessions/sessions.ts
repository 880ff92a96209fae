// Sessions of people who sign in to pages. Pure.
//
// Invariants: a session's token is random and new at each sign-in, so that a token that was planted before is worth nothing. Only
// its digest is stored. A session ends 12 hours after the sign-in, an hour after its last use, and at the sign-out.
import { toBase64Url } from "../../core/keys/credentials.ts";
import { cookieOf, hostCookie } from "../../core/text/text.ts";
import { HOUR_MS } from "../../core/time.ts";

/** A working day. The provider then says anew who the person is. */
export const SESSION_MS = 12 * HOUR_MS;
/** A browser that was left alone. */
export const SESSION_IDLE_MS = HOUR_MS;

/** The prefix makes browsers refuse the cookie from any other host and path, and without TLS (RFC 6265bis, 4.1.3.2). */
const COOKIE = "__Host-tollgate-session";
const tokenForm = /^[A-Za-z0-9_-]{43}$/;

/** A new session's token: 256 random bits. */
export function newSessionToken(): string {
  return toBase64Url(crypto.getRandomValues(new Uint8Array(32)));
}

/** The session's token in a `Cookie` header; `undefined` without a well-formed one. `cookie`: another kind of session's. */
export function sessionTokenOf(cookies: string | undefined, cookie = COOKIE): string | undefined {
  const value = cookieOf(cookies, cookie);
  return value !== undefined && tokenForm.test(value) ? value : undefined;
}

/** The `Set-Cookie` header of a session. Lax: the browser sends it when a client's link opens the sign-in. */
export function sessionCookie(token: string): string {
  return hostCookie(COOKIE, token, SESSION_MS / 1_000);
}

/** The `Set-Cookie` header that removes the session's cookie. */
export const endedSessionCookie = hostCookie(COOKIE, "", 0);
