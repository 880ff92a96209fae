// Who is an operator: a person of the operator's own issuer, a person whom Cloudflare Access let through, or the holder of the
// operator token. Decides the role of each.
// Invariants: a token of a customers' issuer never makes an operator, because issuer and audience are the operator's own. A
// person without a role has no access. The token is for emergencies: each use is counted, unless a setting calls it normal.
import type { JWTPayload } from "jose";
import * as z from "zod";
import { type Operator, type OperatorRole, hasRole, operatorRoles, tokenOperator } from "../../core/actor.ts";
import { bearerToken, isOneOf } from "../../core/keys/credentials.ts";
import { AppError } from "../../core/errors.ts";
import { storable } from "../../core/text/text.ts";
import { MAX_TOKEN_CHARS } from "../tokens/authenticate.ts";
import { SignInSettings } from "../tokens/issuers.ts";
import { CLOCK_TOLERANCE_SECONDS, claimAt, isName, scopesOf } from "../tokens/claims.ts";
import { unverifiedIssuer, verifiedClaims } from "../tokens/issuer-keys.ts";
import { type RefusedToken, VerifiedTokens } from "../tokens/verified-tokens.ts";

/** The scope that a token of the operator issuer needs beside a role. */
export const OPERATOR_SCOPE = "admin:global";
/** Cloudflare Access sends its token in this header. The cookie with the same token is not always sent. */
export const ACCESS_HEADER = "cf-access-jwt-assertion";

const Role = z.enum(operatorRoles);
const url = z.url({ protocol: /^https?$/ });

/** Where a person's role comes from. */
const RoleSource = {
  /** Roles by the values of `rolesClaim`, in any case. A person with several has the highest one. */
  roles: z.record(z.string().min(1), Role),
  /** The role of a token without `rolesClaim`. Default: none, so that the person is refused. */
  defaultRole: Role.optional(),
};

/** The setting `OPERATOR_ISSUER`: the OIDC issuer of the operator's people. */
const OperatorIssuer = z.strictObject({
  issuer: z.url(),
  jwksUrl: url,
  /** `aud` of its tokens for the operator API. Default: PUBLIC_URL/admin/api. */
  audience: z.string().min(1).optional(),
  /** The claim with the person's roles: a text, words, or a list. */
  rolesClaim: z.string().min(1).default("roles"),
  ...RoleSource,
  roles: RoleSource.roles.default({ viewer: "viewer", support: "support", admin: "admin" }),
  /**
   * Tollgate's own client there, with which people sign in to pages. Its secret, if it has one, is in `OIDC_CLIENT_SECRETS` under
   * the issuer.
   */
  clientId: z.string().min(1).optional(),
  /** The issuer's name on the sign-in page. Default: its host. */
  name: SignInSettings.name,
  /** More parameters of the sign-in. */
  signInParameters: SignInSettings.signInParameters,
});
export type OperatorIssuer = z.infer<typeof OperatorIssuer>;

/** The setting `OPERATOR_ACCESS`: the application of Cloudflare Access that protects the operator API. */
const OperatorAccess = z
  .strictObject({
    /** `https://TEAM.cloudflareaccess.com`, the `iss` of its tokens. */
    team: z.url().transform((team) => team.replace(/\/+$/, "")),
    /** The application's AUD tag. */
    audience: z.string().min(1),
    /** Default: the e-mail address. Claims of the identity provider are below `custom`: `custom.groups`. */
    rolesClaim: z.string().min(1).default("email"),
    ...RoleSource,
    /** Default: the team's own address. */
    certsUrl: url.optional(),
  })
  .transform((access) => ({ ...access, certsUrl: access.certsUrl ?? `${access.team}/cdn-cgi/access/certs` }));
export type OperatorAccess = z.infer<typeof OperatorAccess>;

/** What the operator token is. `off`: it is refused. */
export const tokenUses = ["break-glass", "normal", "off"] as const;

export interface OperatorSettings {
  issuer: OperatorIssuer | undefined;
  access: OperatorAccess | undefined;
  tokenUse: (typeof tokenUses)[number];
}

/** An empty or absent one is not set. */
interface SettingTexts {
  OPERATOR_ISSUER?: string | undefined;
  OPERATOR_ACCESS?: string | undefined;
  OPERATOR_TOKEN_USE?: string | undefined;
}

/** Reads the settings. Throws for one that is malformed, so that a typing error opens nothing. */
export function parseOperatorSettings(env: SettingTexts): OperatorSettings {
  const { OPERATOR_ISSUER: issuer = "", OPERATOR_ACCESS: access = "", OPERATOR_TOKEN_USE: tokenUse = "" } = env;
  return {
    issuer: issuer === "" ? undefined : OperatorIssuer.parse(JSON.parse(issuer)),
    access: access === "" ? undefined : OperatorAccess.parse(JSON.parse(access)),
    tokenUse: z.enum(tokenUses).parse(tokenUse || "break-glass"),
  };
}

/** The highest role that the claims give, or `undefined`. */
export function roleOf(
  claims: Readonly<Record<string, unknown>>,
  source: Pick<OperatorIssuer, "rolesClaim" | "roles" | "defaultRole">,
): OperatorRole | undefined {
  const claim = claimAt(claims, source.rolesClaim);
  if (claim === undefined) return source.defaultRole;
  const values = (Array.isArray(claim) ? claim : [claim]).flatMap((value: unknown) =>
    typeof value === "string" ? [value, ...value.split(" ")] : [],
  );
  const known = new Map(Object.entries(source.roles).map(([value, role]) => [value.toLowerCase(), role]));
  const held = values.flatMap((value) => known.get(value.toLowerCase()) ?? []);
  return operatorRoles.findLast((role) => held.includes(role));
}

/** The operator whom a verified access token of the operator issuer names, or why there is none. */
export function operatorOfIssuer(
  claims: JWTPayload,
  settings: OperatorIssuer,
  audience: string,
): { operator: Operator } | RefusedToken {
  if (![claims.aud].flat().includes(audience)) return { refused: "token_invalid" };
  return operatorOfClaims(claims, settings, scopesOf(claims, audience));
}

/**
 * The operator whom verified claims of the operator issuer name, or why there is none. `scopes`: those of the token, or, for the
 * ID token of a sign-in, those that the issuer has granted with it.
 */
export function operatorOfClaims(
  claims: JWTPayload,
  settings: OperatorIssuer,
  scopes: readonly string[],
): { operator: Operator } | RefusedToken {
  if (!scopes.includes(OPERATOR_SCOPE))
    return { refused: "scope_missing", detail: `The operator API needs a token with the scope ${OPERATOR_SCOPE}.` };
  // An address that the issuer has not verified is what the person typed.
  if (settings.rolesClaim === "email" && claims["email_verified"] !== true) return noRole;
  return person(claims, roleOf(claims, settings), "oidc");
}

/** The operator whom verified claims of Cloudflare Access name, or why there is none. */
export function operatorOfAccess(claims: JWTPayload, settings: OperatorAccess): { operator: Operator } | RefusedToken {
  if (![claims.aud].flat().includes(settings.audience)) return { refused: "token_invalid" };
  // `org` is the session of the whole team. A service token names no person: it has an empty `sub` and no address.
  if (claims["type"] !== "app") return { refused: "token_invalid" };
  return person(claims, roleOf(claims, settings), "access");
}

const noRole: RefusedToken = {
  refused: "role_missing",
  detail: `Your identity has no role here. An administrator of the identity provider can give you one: ${operatorRoles.join(", ")}.`,
};

function person(
  claims: JWTPayload,
  role: OperatorRole | undefined,
  through: "oidc" | "access",
): { operator: Operator } | RefusedToken {
  const { sub } = claims;
  if (!isName(sub) || sub.length > MAX_ID_CHARS) return { refused: "token_invalid" };
  if (role === undefined) return noRole;
  const name = [claims["name"], claims["email"], sub].find((each) => isName(each) && each.trim() !== "");
  return { operator: { kind: "operator", id: sub, name: storable(String(name), MAX_NAME_CHARS), role, through } };
}

/** OpenID Connect limits `sub` to 255 characters. */
const MAX_ID_CHARS = 255;
const MAX_NAME_CHARS = 200;

/** Operators are few. */
const MAX_VERIFIED = 200;
const fromIssuer = new VerifiedTokens<Operator>(MAX_VERIFIED);
const fromAccess = new VerifiedTokens<Operator>(MAX_VERIFIED);

/** What a request shows of itself. */
export interface OperatorCredentials {
  authorization: string | undefined;
  /** The token of Cloudflare Access. */
  assertion: string | undefined;
}

export interface OperatorEnv extends SettingTexts {
  PUBLIC_URL: string;
  /** Absent: there is none. */
  OPERATOR_TOKEN?: string | undefined;
}

/**
 * The operator who sends a request, or why there is none; `token_missing` without any credential. A bearer token decides before
 * Access. Throws `issuer_unavailable`.
 */
export async function identifyOperator(
  { authorization, assertion }: OperatorCredentials,
  env: OperatorEnv,
  nowMs: number,
): Promise<{ operator: Operator } | RefusedToken> {
  const token = bearerToken(authorization);
  const isStatic = token !== undefined && (await isOneOf(env.OPERATOR_TOKEN ?? "", token));
  // The token must work while another setting is malformed.
  if (isStatic) return env.OPERATOR_TOKEN_USE === "off" ? { refused: "token_invalid" } : { operator: tokenOperator };
  const { issuer, access } = operatorSettings(env);
  if (token !== undefined) {
    if (issuer === undefined || unverifiedIssuer(token) !== issuer.issuer) return { refused: "token_invalid" };
    const audience = issuer.audience ?? `${env.PUBLIC_URL}/admin/api`;
    return verifiedOperator(fromIssuer, token, { issuer: issuer.issuer, jwksUrl: issuer.jwksUrl }, nowMs, (claims) =>
      operatorOfIssuer(claims, issuer, audience),
    );
  }
  if (assertion !== undefined && access !== undefined)
    return verifiedOperator(fromAccess, assertion, { issuer: access.team, jwksUrl: access.certsUrl }, nowMs, (claims) =>
      operatorOfAccess(claims, access),
    );
  // Another scheme than Bearer counts as no credentials (RFC 6750, 3.1).
  return { refused: /^Bearer(\s|$)/i.test(authorization ?? "") ? "token_invalid" : "token_missing" };
}

async function verifiedOperator(
  cache: VerifiedTokens<Operator>,
  token: string,
  keys: { issuer: string; jwksUrl: string },
  nowMs: number,
  read: (claims: JWTPayload) => { operator: Operator } | RefusedToken,
): Promise<{ operator: Operator } | RefusedToken> {
  if (token.length > MAX_TOKEN_CHARS) return { refused: "token_invalid" };
  const result = await cache.read(token, nowMs, async () => {
    const claims = await verifiedClaims(token, keys, nowMs);
    if (typeof claims === "string") return { refused: claims };
    const found = read(claims);
    if ("refused" in found) return found;
    return { value: found.operator, expiresAtMs: ((claims.exp ?? 0) + CLOCK_TOLERANCE_SECONDS) * 1_000 };
  });
  return "refused" in result ? result : { operator: result.value };
}

/** Why the operator may not use a route that needs this role, in words; `undefined`: they may. */
export function refusedRole({ role }: Operator, needed: OperatorRole): string | undefined {
  return hasRole(role, needed) ? undefined : `This needs the role ${needed}. You have the role ${role}.`;
}

let parsed: { texts: string; settings: OperatorSettings } | undefined;

/** The settings. Throws `internal` when one is malformed. */
export function operatorSettings(env: OperatorEnv): OperatorSettings {
  const texts = JSON.stringify([env.OPERATOR_ISSUER, env.OPERATOR_ACCESS, env.OPERATOR_TOKEN_USE]);
  if (parsed?.texts !== texts) {
    try {
      parsed = { texts, settings: parseOperatorSettings(env) };
    } catch (error) {
      throw new AppError("internal", "OPERATOR_ISSUER, OPERATOR_ACCESS or OPERATOR_TOKEN_USE is malformed", {
        cause: error,
      });
    }
  }
  return parsed.settings;
}
