// Codes and tokens that the local issuer has given out. Decides whether a code or a refresh token may still be used.
// Invariants: a code works once, for a minute, for the client that asked for it, with its redirect URI and its PKCE verifier;
// a refresh token works once, and the answer has the next one; a code or a refresh token that comes a second time revokes all
// tokens of its grant. All state is in memory and bounded; the caller passes the time.
import { createHash, randomBytes } from "node:crypto";
import type { OAuthError } from "./clients.ts";

/** RFC 6749, section 4.1.2, allows ten minutes; clients need seconds. */
export const CODE_LIFETIME_MS = 60_000;
export const ACCESS_LIFETIME_MS = 3_600_000;
export const REFRESH_LIFETIME_MS = 30 * 86_400_000;
/** Far more than a test or a demonstration has at the same time. */
const MAX_ENTRIES = 10_000;

/** A map that forgets its oldest entries beyond a bound. */
export class BoundedMap<V> {
  readonly #entries = new Map<string, V>();
  readonly #max: number;

  constructor(max = MAX_ENTRIES) {
    this.#max = max;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: V): void {
    this.#entries.set(key, value);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#max) break;
      this.#entries.delete(oldest);
    }
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }
}

/** What a person granted a client when they signed in. */
export interface Grant {
  clientId: string;
  sub: string;
  organisation: string | undefined;
  /** The scopes that count, in the provider's form. */
  scopes: readonly string[];
  /** `undefined`: the access token is for no API (Auth0). */
  audience: string | undefined;
  nonce: string | undefined;
  authTimeS: number;
  /** Whether the request had `max_age`. Some providers send `auth_time` only then. */
  hasMaxAge: boolean;
}

/** A grant in use. `revoked` ends all of its tokens at once. */
export interface LiveGrant extends Grant {
  revoked: boolean;
}

interface Code {
  grant: LiveGrant;
  redirectUri: string;
  challenge: string;
  expiresAtMs: number;
  used: boolean;
}

interface RefreshToken {
  grant: LiveGrant;
  expiresAtMs: number;
  used: boolean;
}

export type Redeemed = { grant: LiveGrant } | { refused: OAuthError };

export class Grants {
  readonly #codes = new BoundedMap<Code>();
  readonly #refreshTokens = new BoundedMap<RefreshToken>();
  readonly #accessTokens = new BoundedMap<{ grant: LiveGrant; scopes: readonly string[]; expiresAtMs: number }>();

  /** A code for this grant. `challenge` is the S256 challenge of the request. */
  issueCode(grant: Grant, request: { redirectUri: string; challenge: string }, nowMs: number): string {
    const code = randomToken();
    this.#codes.set(code, {
      grant: { ...grant, revoked: false },
      redirectUri: request.redirectUri,
      challenge: request.challenge,
      expiresAtMs: nowMs + CODE_LIFETIME_MS,
      used: false,
    });
    return code;
  }

  /** The grant of a code. A client has one attempt: a wrong redirect URI or verifier uses the code up. */
  redeemCode(
    request: { code: string; clientId: string; redirectUri: string | undefined; verifier: string | undefined },
    nowMs: number,
  ): Redeemed {
    const code = this.#codes.get(request.code);
    if (code === undefined || code.grant.clientId !== request.clientId) return invalidGrant("the code is unknown");
    if (code.used) {
      code.grant.revoked = true;
      return invalidGrant("the code was used before; its tokens are revoked");
    }
    code.used = true;
    if (nowMs >= code.expiresAtMs) return invalidGrant("the code has expired");
    if (request.redirectUri !== code.redirectUri)
      return invalidGrant("redirect_uri differs from the authorization request");
    if (request.verifier === undefined || !verifiesChallenge(request.verifier, code.challenge))
      return invalidGrant("code_verifier does not belong to the code_challenge");
    return { grant: code.grant };
  }

  issueRefreshToken(grant: LiveGrant, nowMs: number): string {
    const token = randomToken();
    this.#refreshTokens.set(token, { grant, expiresAtMs: nowMs + REFRESH_LIFETIME_MS, used: false });
    return token;
  }

  /** The grant of a refresh token, with `scopes` of it when the client asks for fewer. */
  redeemRefreshToken(
    request: { token: string; clientId: string; scopes: readonly string[] | undefined },
    nowMs: number,
  ): Redeemed & { scopes?: readonly string[] } {
    const held = this.#refreshTokens.get(request.token);
    if (held === undefined || held.grant.clientId !== request.clientId)
      return invalidGrant("the refresh token is unknown");
    const { grant } = held;
    if (held.used) {
      grant.revoked = true;
      return invalidGrant("the refresh token was used before; its tokens are revoked");
    }
    if (grant.revoked) return invalidGrant("the grant was revoked");
    if (nowMs >= held.expiresAtMs) return invalidGrant("the refresh token has expired");
    const scopes = request.scopes ?? grant.scopes;
    const extra = scopes.find((scope) => !grant.scopes.includes(scope));
    if (extra !== undefined)
      return { refused: { error: "invalid_scope", description: `${extra} was not granted to this client` } };
    held.used = true;
    return { grant, scopes };
  }

  /** Remembers an access token with these scopes of the grant, so that the userinfo endpoint accepts it. */
  addAccessToken(token: string, grant: LiveGrant, scopes: readonly string[], nowMs: number): void {
    this.#accessTokens.set(token, { grant, scopes, expiresAtMs: nowMs + ACCESS_LIFETIME_MS });
  }

  /** The grant of an access token that is valid now, with the token's own scopes. */
  findByAccessToken(token: string, nowMs: number): Grant | undefined {
    const held = this.#accessTokens.get(token);
    if (held === undefined || held.grant.revoked || nowMs >= held.expiresAtMs) return undefined;
    return { ...held.grant, scopes: held.scopes };
  }
}

/** Whether a verifier belongs to an S256 challenge (RFC 7636, section 4.6). */
export function verifiesChallenge(verifier: string, challenge: string): boolean {
  if (!/^[\w.~-]{43,128}$/.test(verifier)) return false;
  return createHash("sha256").update(verifier).digest("base64url") === challenge;
}

/** 256 random bits, as a text for URLs. */
export function randomToken(): string {
  return randomBytes(32).toString("base64url");
}

function invalidGrant(description: string): { refused: OAuthError } {
  return { refused: { error: "invalid_grant", description } };
}
