// Reads the claims of a verified token: whether it is for this server, its organisation, its user and its scopes, in the forms
// of Auth0, Cognito, Entra and any OIDC issuer. Pure. The claims come from the issuer's signature; only its settings say
// which of them count.
import { unstorableText } from "../core/text.ts";
import type { Issuer } from "./issuers.ts";

type Claims = Readonly<Record<string, unknown>>;

/** Tolerance for the clock of an issuer, which can differ by seconds. */
export const CLOCK_TOLERANCE_SECONDS = 5;

export interface Identity {
  organisation: string;
  user: string;
  scopes: string[];
  /** The token's `exp` and the tolerance: after this instant it is refused everywhere. */
  expiresAtMs: number;
}

/** The identity of a token for `audience`, or `undefined` when it is for another server or a needed claim is missing. */
export function readClaims(claims: Claims, issuer: Issuer, audience: string): Identity | undefined {
  const organisation = claimAt(claims, issuer.tenantClaim);
  const user = claimAt(claims, issuer.userClaim);
  const { exp } = claims;
  if (!isForAudience(claims, issuer, audience)) return undefined;
  if (!isName(organisation) || !isName(user)) return undefined;
  if (typeof exp !== "number") return undefined;
  return {
    organisation,
    user,
    scopes: scopesOf(claims, audience),
    expiresAtMs: (exp + CLOCK_TOLERANCE_SECONDS) * 1_000,
  };
}

/** Whether a claim can name an organisation or a person. A text that PostgreSQL cannot store would be looked up as another one. */
export function isName(claim: unknown): claim is string {
  return typeof claim === "string" && claim !== "" && unstorableText(claim) === undefined;
}

/**
 * Whether the token is meant for this server: by `aud` (RFC 9068), or, where the issuer's clients are listed, as an access
 * token of Cognito, which names its client instead.
 */
function isForAudience(claims: Claims, { clientIds }: Issuer, audience: string): boolean {
  const { aud, token_use: use, client_id: client } = claims;
  if (aud === undefined) return use === "access" && typeof client === "string" && clientIds.includes(client);
  return aud === audience || (Array.isArray(aud) && aud.includes(audience));
}

/**
 * The claim of this name. A name with dots that is no claim itself leads into objects: `organization.id`. Names such as
 * `https://acme.example/org` have dots and are claims themselves.
 */
export function claimAt(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const part of name.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return undefined;
    value = Reflect.get(value, part);
  }
  return value;
}

/**
 * Every scope that the token grants: `scope` (RFC 8693), `scp` of Entra (text) and Okta (list), `permissions` of Auth0, and
 * `roles` of Entra. Cognito writes `<resource server>/<scope>`: the prefix counts only when it is the audience. Only texts
 * are scopes.
 */
export function scopesOf({ scope, scp, permissions, roles }: Claims, audience: string): string[] {
  const named = [scope, scp, permissions, roles].flatMap((claim) =>
    typeof claim === "string" ? claim.split(" ") : Array.isArray(claim) ? claim : [],
  );
  const texts = named.filter((each): each is string => typeof each === "string" && each !== "");
  const prefix = `${audience}/`;
  return [...new Set(texts.map((each) => (each.startsWith(prefix) ? each.slice(prefix.length) : each)))];
}
