// What the local issuer needs to know about a provider that it imitates, and the provider without quirks. auth0.ts, cognito.ts
// and entra.ts differ from it where their quirks say so. All of it is pure: the caller passes people, the time and ids.
import { createHash } from "node:crypto";
import type { OAuthError } from "./clients.ts";
import type { Grant } from "./grants.ts";
import type { Person } from "./people.ts";

export type ProviderName = "plain" | "auth0" | "cognito" | "entra";
export type Claims = Record<string, unknown>;

/** Where a provider is, and the API that its access tokens are for. */
export interface Setting {
  /** Without a trailing slash. */
  baseUrl: string;
  /** Identifies the API: the URL of the MCP endpoint. */
  audience: string;
  /** The scopes of the API. */
  scopes: readonly string[];
  /** The operator's API beside it, at the provider without quirks. Its tokens have the person's roles. */
  operator?: { audience: string; scope: string } | undefined;
}

/** Paths below the base URL. `:directory` is Entra's name or id of a directory. */
export interface Endpoints {
  /** OIDC discovery. */
  discovery: string;
  authorize: string;
  token: string;
  userinfo: string;
  keys: string;
  logout: string;
  /** RFC 7591. `undefined`: clients cannot register themselves. */
  register: string | undefined;
}

/** What a request asks for, as far as scopes, the API and the organisation are concerned. */
export interface Asked {
  /** `undefined`: the request has no `scope`. */
  scopes: readonly string[] | undefined;
  /** Auth0's parameter. */
  audience: string | undefined;
  /** RFC 8707. */
  resources: readonly string[];
  /** Auth0's parameter: the id of an organisation. */
  organization: string | undefined;
}

/** A person with the organisation that they sign in for. */
export interface Identity {
  person: Person;
  organisation: string | undefined;
}

/** What differs between two tokens of one grant. */
export interface Stamp {
  nowS: number;
  lifetimeS: number;
  /** `jti`. */
  id: string;
  /** The request's `nonce`, for the first ID token. */
  nonce: string | undefined;
}

export interface Provider {
  name: ProviderName;
  setting: Setting;
  endpoints: Endpoints;
  /** Whether RFC 8414 metadata exists beside OIDC discovery. Only such metadata mentions PKCE. */
  hasServerMetadata: boolean;
  /** Whether answers of the authorization endpoint have `iss` (RFC 9207). */
  sendsIssuer: boolean;
  /** The value of `iss`. `directory` is Entra's; the others ignore it. */
  issuer(directory: string | undefined): string;
  /** Parts of the discovery document that differ between providers. */
  supported: { scopes: readonly string[]; authMethods: readonly string[]; claims: readonly string[]; subject: string };
  /** Whether the directory of a path exists. Providers without directories say yes. */
  hasDirectory(directory: string | undefined, people: readonly Person[]): boolean;
  /** Who can sign in, and for which organisation. A person of several organisations has one choice for each. */
  choices(asked: Asked, people: readonly Person[], directory: string | undefined): Identity[];
  /** Why a person who has signed in is refused; `undefined`: they are not. */
  refusal(asked: Asked, identity: Identity): OAuthError | undefined;
  /** The API that the access token is for (`undefined`: none), or why the request is refused. */
  audience(asked: Asked): { audience: string | undefined } | { refused: OAuthError };
  /** Why the token endpoint of this directory refuses a grant for this organisation; `undefined`: it does not. */
  directoryProblem(directory: string | undefined, organisation: string | undefined): OAuthError | undefined;
  /** Why a token request's `resource` is refused; `undefined`: it is not. */
  resourceProblem(resources: readonly string[]): OAuthError | undefined;
  /** The scopes that the person grants, of those that the request asks for. */
  grantScopes(asked: Asked, person: Person): string[];
  /** The name in a grant of a scope that a refresh request names. */
  scopeInGrant(scope: string): string;
  givesRefreshToken(scopes: readonly string[]): boolean;
  /** The access token: a JWT with these claims and this `typ`, or a random text that only the userinfo endpoint reads. */
  accessToken(grant: Grant, identity: Identity, stamp: Stamp): { claims: Claims; typ: string | undefined } | "opaque";
  idToken(grant: Grant, identity: Identity, stamp: Stamp): Claims;
  userInfo(grant: Grant, identity: Identity): Claims;
}

export const OIDC_SCOPES: readonly string[] = ["openid", "profile", "email", "offline_access"];

/** A provider as the specifications describe it. Its tokens name one organisation, in `tenant_id`. */
export function plainProvider(setting: Setting): Provider {
  const { baseUrl, audience, operator } = setting;
  const scopes = [...setting.scopes, ...(operator === undefined ? [] : [operator.scope])];
  const profile = (granted: readonly string[], { person, organisation }: Identity): Claims => ({
    sub: person.sub,
    ...(granted.includes("profile") && { name: person.name }),
    ...(granted.includes("email") && { email: person.email, email_verified: person.emailVerified }),
    ...(organisation !== undefined && { tenant_id: organisation }),
  });
  const resourceProblem = (resources: readonly string[]): OAuthError | undefined => {
    const foreign = resources.find((each) => each !== audience && each !== operator?.audience);
    return foreign === undefined ? undefined : invalidTarget(`${foreign} is not ${audience}`);
  };
  return {
    name: "plain",
    setting,
    endpoints: {
      discovery: "/.well-known/openid-configuration",
      authorize: "/authorize",
      token: "/token",
      userinfo: "/userinfo",
      keys: "/.well-known/jwks.json",
      logout: "/logout",
      register: "/register",
    },
    hasServerMetadata: true,
    sendsIssuer: true,
    issuer: () => baseUrl,
    supported: {
      scopes: [...OIDC_SCOPES, ...scopes],
      authMethods: ["client_secret_basic", "client_secret_post", "none"],
      claims: [...usualClaims, "email_verified", "auth_time", "nonce", "tenant_id", "roles"],
      subject: "public",
    },
    hasDirectory: () => true,
    choices: (_asked, people) =>
      people.flatMap((person): Identity[] =>
        person.organisations.length > 0 ? forEachOrganisation(person) : [{ person, organisation: undefined }],
      ),
    refusal: () => undefined,
    audience: ({ resources }) => {
      const problem = resourceProblem(resources);
      return problem === undefined ? { audience: resources[0] ?? audience } : { refused: problem };
    },
    directoryProblem: () => undefined,
    resourceProblem,
    // A request without scopes gets all that the person may use (RFC 6749, section 3.3: a default of the server).
    grantScopes: ({ scopes: asked }, { permissions }) => [
      ...OIDC_SCOPES.filter((scope) => asked?.includes(scope)),
      ...scopes.filter((scope) => permissions.includes(scope) && (asked === undefined || asked.includes(scope))),
    ],
    scopeInGrant: (scope) => scope,
    givesRefreshToken: () => true,
    accessToken: (grant, { person, organisation }, stamp) => ({
      typ: "at+jwt", // RFC 9068
      claims: {
        iss: baseUrl,
        aud: grant.audience,
        sub: person.sub,
        client_id: grant.clientId,
        scope: grant.scopes.join(" "),
        auth_time: grant.authTimeS,
        ...timesOf(stamp),
        jti: stamp.id,
        ...(organisation !== undefined && { tenant_id: organisation }),
        ...(operator !== undefined &&
          grant.audience === operator.audience && { roles: person.roles, name: person.name }),
      },
    }),
    idToken: (grant, identity, stamp) => ({
      iss: baseUrl,
      aud: grant.clientId,
      ...timesOf(stamp),
      ...nonceOf(stamp),
      auth_time: grant.authTimeS,
      ...profile(grant.scopes, identity),
      roles: identity.person.roles,
    }),
    userInfo: (grant, identity) => profile(grant.scopes, identity),
  };
}

/** The discovery document of a provider. `directory` is Entra's. */
export function metadataOf(provider: Provider, directory: string | undefined): Claims {
  const { endpoints, supported, setting, hasServerMetadata } = provider;
  const at = (path: string): string => `${setting.baseUrl}${path.replace(":directory", directory ?? "")}`;
  return {
    issuer: provider.issuer(directory),
    authorization_endpoint: at(endpoints.authorize),
    token_endpoint: at(endpoints.token),
    userinfo_endpoint: at(endpoints.userinfo),
    jwks_uri: at(endpoints.keys),
    end_session_endpoint: at(endpoints.logout),
    ...(endpoints.register !== undefined && { registration_endpoint: at(endpoints.register) }),
    scopes_supported: supported.scopes,
    response_types_supported: ["code"],
    response_modes_supported: ["query"],
    grant_types_supported: ["authorization_code", "refresh_token"],
    subject_types_supported: [supported.subject],
    id_token_signing_alg_values_supported: ["RS256"],
    token_endpoint_auth_methods_supported: supported.authMethods,
    claims_supported: supported.claims,
    prompt_values_supported: ["none", "login", "select_account", "consent"],
    request_parameter_supported: false,
    request_uri_parameter_supported: false,
    ...(hasServerMetadata && { code_challenge_methods_supported: ["S256"] }),
    ...(provider.sendsIssuer && { authorization_response_iss_parameter_supported: true }),
  };
}

// ---- parts that providers share

/** Claims that each provider lists. */
export const usualClaims: readonly string[] = ["sub", "iss", "aud", "exp", "iat", "name", "email"];

/** One choice for each organisation of a person. */
export function forEachOrganisation(person: Person): Identity[] {
  return person.organisations.map(({ id }) => ({ person, organisation: id }));
}

export function timesOf({ nowS, lifetimeS }: Stamp): { iat: number; exp: number } {
  return { iat: nowS, exp: nowS + lifetimeS };
}

export function nonceOf({ nonce }: Stamp): Claims {
  return nonce === undefined ? {} : { nonce };
}

export function invalidTarget(description: string): OAuthError {
  return { error: "invalid_target", description };
}

/** A GUID that is always the same for a text. */
export function guidOf(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    "-",
  );
}
