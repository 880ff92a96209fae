// Reads the claims of a verified token: whether it is for this server, its organisation, its user and its scopes, in the forms
// of Auth0, Cognito, Entra and any OIDC issuer. Pure. The claims come from the issuer's signature; only its settings say
// which of them count.
import type { Person } from "../../core/actor.ts";
import { unstorableText } from "../../core/text/text.ts";
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

/** The person of a token for `audience`, also one of no organisation; `undefined` when it is for another server or names no user. */
export function readPerson(claims: Claims, issuer: Issuer, audience: string): Person | undefined {
  return isForAudience(claims, issuer, audience) ? personOf(claims, issuer) : undefined;
}

/** The person of a verified token whose audience was checked; `undefined` when it names no user. */
export function personOf(claims: Claims, issuer: Issuer): Person | undefined {
  const subject = claimAt(claims, issuer.userClaim);
  if (!isName(subject)) return undefined;
  const organisation = claimAt(claims, issuer.tenantClaim);
  const { email, name } = claims;
  const isAddress = isName(email) && /^[^\s@]+@[^\s@]+$/.test(email) && email.length <= MAX_EMAIL_CHARS;
  return {
    issuer: issuer.issuer,
    subject,
    email: isAddress ? email.toLowerCase() : null,
    emailVerified: isAddress && isTrue(claims["email_verified"] ?? claims["xms_edov"]),
    name: isName(name) ? name.trim().slice(0, MAX_NAME_CHARS) || null : null,
    organisation: isName(organisation) ? organisation : null,
  };
}

/** The longest address of a mailbox is shorter (RFC 5321, 4.5.3.1). */
const MAX_EMAIL_CHARS = 320;
/** As long as any name that Tollgate stores. */
const MAX_NAME_CHARS = 200;

/** `email_verified`, and `xms_edov` of Entra. Some issuers write it as a text or a number. */
function isTrue(claim: unknown): boolean {
  return claim === true || claim === "true" || claim === 1 || claim === "1";
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
