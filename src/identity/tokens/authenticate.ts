// Turns a bearer token into a caller. Tollgate's own credentials are verified by their MAC, JWTs by the keys of the trusted
// issuers. Algorithms are fixed and the audience is exact. The tenant comes from the link table, never from the token: an
// issuer speaks only for its own tenants. A verified token is cached for a minute at most. The tenant's object decides on
// every request whether the key is revoked or the tenant suspended.
import { config } from "../../core/app-config.ts";
import {
  type AuthInfo,
  OAuthError,
  OAuthErrorCode,
  bearerAuthChallengeResponse,
  getOAuthProtectedResourceMetadataUrl,
} from "@modelcontextprotocol/server";
import type { JWTPayload } from "jose";
import type { Context } from "../../control/context.ts";
import type { Person } from "../../core/actor.ts";
import { BoundedMap } from "../../core/concurrency/bounded-map.ts";
import type { Caller } from "../../core/call.ts";
import { bearerToken, decodeScopes, verifyCredential } from "../../core/keys/credentials.ts";
import { type ErrorCode, errors } from "../../core/errors.ts";
import { readClaims, readPerson } from "./claims.ts";
import { unverifiedIssuer, verifiedClaims } from "./issuer-keys.ts";
import { type Issuer, isDirect, parseIssuers } from "./issuers.ts";
import { linksStore } from "./links-store.ts";
import { partsOfToken } from "../oauth/keys.ts";
import { resourceOf } from "./tenant-hosts.ts";
import { VerifiedTokens } from "./verified-tokens.ts";

export interface Authenticated {
  caller: Caller;
  authInfo: AuthInfo;
}
export type Authentication = Authenticated | { refused: ErrorCode };

/** Scopes that a key or token can carry. `health_check` needs only the first one. */
export const scopesSupported: readonly string[] = Object.keys(config.scopes);

/** Maximum number of cached tokens. Enough for the agents of one isolate in a minute. */
const MAX_VERIFIED = 5_000;
/**
 * Entra lists up to 200 groups in a token, which makes 11,000 characters, and roles besides. The platform takes headers of
 * 128 KB.
 */
export const MAX_TOKEN_CHARS = 32_768;

/**
 * How long an organisation without a link is remembered, so that its tokens cost no look into the database each. Short: the
 * operator links an organisation and tries it at once.
 */
const UNLINKED_FOR_MS = 5_000;
/** Maximum number of such organisations. Each is a hundred bytes. */
const MAX_UNLINKED = 5_000;

const unlinkedUntilMs = new BoundedMap<string, number>(MAX_UNLINKED);
const verified = new VerifiedTokens<Authenticated>(MAX_VERIFIED);

/** Identifies the sender of a request. Throws `control_unavailable` when a new token's tenant cannot be looked up. */
export async function authenticate(
  authorization: string | null,
  context: Context,
  nowMs: number,
): Promise<Authentication> {
  const { env } = context;
  const token = bearerToken(authorization);
  if (token === undefined) return { refused: isBearer(authorization) ? "token_invalid" : "token_missing" };
  if (token.length > MAX_TOKEN_CHARS) return { refused: "token_invalid" };

  const result = await verified.read(token, nowMs, async (digest) => {
    const caller = token.startsWith("tg")
      ? await ownCaller(token, digest, env, nowMs)
      : await issuedCaller(token, context, nowMs);
    if (typeof caller === "string") return { refused: caller };
    const expiresAtMs = "expiresAtMs" in caller ? caller.expiresAtMs : Infinity;
    const authInfo = {
      token: digest,
      clientId: caller.kind === "key" ? caller.keyId : caller.kind,
      scopes: [...caller.scopes],
      expiresAt: Math.floor(Math.min(expiresAtMs, nowMs + 3_600_000) / 1000),
      resourceMetadataUrl: resourceMetadataUrl(env.PUBLIC_URL),
    };
    return { value: { caller, authInfo }, expiresAtMs };
  });
  return "refused" in result ? result : result.value;
}

/**
 * 401 with the `WWW-Authenticate` challenge (RFC 6750, RFC 9728) and the refusal's advice. The challenge of a request without
 * a token has no error code (RFC 6750, 3.1): some clients throw away a token that they hold when they read `invalid_token`.
 * `origin`: where the request came to.
 */
export function challenge(code: ErrorCode, origin: string): Response {
  const { advice } = errors[code];
  const metadataUrl = resourceMetadataUrl(origin);
  if (code !== "token_missing")
    return bearerAuthChallengeResponse(new OAuthError(OAuthErrorCode.InvalidToken, advice), {
      requiredScopes: [...scopesSupported],
      resourceMetadataUrl: metadataUrl,
    });
  const header = `Bearer scope="${scopesSupported.join(" ")}", resource_metadata="${metadataUrl}"`;
  return Response.json(
    { error: code, error_description: advice },
    { status: 401, headers: { "www-authenticate": header } },
  );
}

/** Whether the header is of the scheme Bearer. Any other scheme counts as no credentials (RFC 6750, 3.1). */
function isBearer(authorization: string | null): boolean {
  return /^Bearer(\s|$)/i.test(authorization ?? "");
}

/** OAuth 2.0 Protected Resource Metadata (RFC 9728, section 3.2) of the MCP endpoint at an origin of this deployment. */
export function protectedResourceMetadata(env: Env, origin: string): Record<string, unknown> {
  return {
    resource: resourceOf(origin),
    // Tollgate itself, so that the metadata never lists customers' providers.
    authorization_servers: isDirect(env)
      ? issuersOf(env)
          .slice(0, 1)
          .map(({ issuer }) => issuer)
      : [env.PUBLIC_URL],
    scopes_supported: scopesSupported,
    bearer_methods_supported: ["header"],
    resource_name: config.product.name,
    resource_policy_uri: config.product.privacyUrl,
    resource_tos_uri: config.product.termsUrl,
  };
}

export function resourceMetadataUrl(origin: string): string {
  return getOAuthProtectedResourceMetadataUrl(new URL(resourceOf(origin)));
}

async function ownCaller(token: string, digest: string, env: Env, nowMs: number): Promise<Caller | ErrorCode> {
  // A token of the OAuth server is the member's credential and a secret behind it.
  const parts = partsOfToken(token);
  const credential = await verifyCredential(env.CREDENTIAL_KEY, parts?.subject ?? token);
  if (credential === undefined) return "token_invalid";
  const { kind, tenantId, fields } = credential;
  if (parts !== undefined) {
    const { subject, grantId } = parts;
    const [memberId = ""] = fields;
    return { kind: "grant", tenantId, memberId, subject, grantId, tokenHash: digest, scopes: scopesSupported };
  }
  if (kind === "key") {
    const [keyId = "", scopes = ""] = fields;
    return { kind, tenantId, keyId, keyHash: digest, scopes: decodeScopes(scopes) };
  }
  if (kind !== "canary") return "token_invalid";
  const expiresAtMs = Number(fields[0]);
  return nowMs < expiresAtMs ? { kind, tenantId, scopes: ["tools:read"], expiresAtMs } : "token_expired";
}

async function issuedCaller(token: string, context: Context, nowMs: number): Promise<Caller | ErrorCode> {
  const { env } = context;
  const verifiedToken = await trustedClaims(token, env, nowMs);
  if (typeof verifiedToken === "string") return verifiedToken;
  const { issuer, claims } = verifiedToken;
  const identity = readClaims(claims, issuer, audienceOf(issuer, env));
  if (identity === undefined) return "token_invalid";
  const { organisation, user, scopes, expiresAtMs } = identity;
  const link = linkKey(issuer.issuer, organisation);
  if (nowMs < (unlinkedUntilMs.get(link) ?? 0)) return "tenant_unknown";
  const tenantId = await linksStore(context.control).tenant(issuer.issuer, organisation);
  if (tenantId === undefined) {
    unlinkedUntilMs.set(link, nowMs + UNLINKED_FOR_MS);
    return "tenant_unknown";
  }
  return { kind: "user", tenantId, issuer: issuer.issuer, organisation, subject: user, scopes, expiresAtMs };
}

/** The claims of a token that a trusted issuer has signed and that has not expired, or why it is refused. */
async function trustedClaims(
  token: string,
  env: Env,
  nowMs: number,
): Promise<{ issuer: Issuer; claims: JWTPayload } | ErrorCode> {
  const issuer = issuersOf(env).find((each) => each.issuer === unverifiedIssuer(token));
  if (issuer === undefined) return "token_invalid";
  const claims = await verifiedClaims(token, issuer, nowMs);
  return typeof claims === "string" ? claims : { issuer, claims };
}

function audienceOf(issuer: Issuer, env: Env): string {
  return issuer.audience ?? resourceOf(env.PUBLIC_URL);
}

/**
 * Identifies a person by an access token of a trusted issuer, whether or not the person's organisation is linked to a tenant.
 * Keys name no person. `rules` are the issuer's, for a sign-in.
 */
export async function identifyPerson(
  authorization: string | null,
  { env }: Context,
  nowMs: number,
): Promise<{ person: Person; rules: Pick<Issuer, "linksMembers" | "verifiesEmails"> } | { refused: ErrorCode }> {
  const token = bearerToken(authorization);
  if (token === undefined) return { refused: isBearer(authorization) ? "token_invalid" : "token_missing" };
  if (token.length > MAX_TOKEN_CHARS || token.startsWith("tg")) return { refused: "token_invalid" };
  const verifiedToken = await trustedClaims(token, env, nowMs);
  if (typeof verifiedToken === "string") return { refused: verifiedToken };
  const { issuer, claims } = verifiedToken;
  const person = readPerson(claims, issuer, audienceOf(issuer, env));
  return person === undefined ? { refused: "token_invalid" } : { person, rules: issuer };
}

/** Ends the memory that an organisation has no link. Other isolates forget it within `UNLINKED_FOR_MS`. */
export function forgetUnlinked(issuer: string, organisation: string): void {
  unlinkedUntilMs.delete(linkKey(issuer, organisation));
}

function linkKey(issuer: string, organisation: string): string {
  return JSON.stringify([issuer, organisation]);
}

let parsedIssuers: { json: string; issuers: Issuer[] } | undefined;
function issuersOf(env: Env): readonly Issuer[] {
  if (parsedIssuers?.json !== env.OIDC_ISSUERS)
    parsedIssuers = { json: env.OIDC_ISSUERS, issuers: parseIssuers(env.OIDC_ISSUERS) };
  return parsedIssuers.issuers;
}
