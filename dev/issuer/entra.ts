// An imitation of Microsoft Entra ID with its v2.0 endpoints.
import { createHash } from "node:crypto";
import type { OAuthError } from "./clients.ts";
import { OIDC_SCOPES, type Asked, type Claims, type Identity, type Provider, type Setting } from "./provider.ts";
import {
  forEachOrganisation,
  guidOf,
  invalidTarget,
  nonceOf,
  plainProvider,
  timesOf,
  usualClaims,
} from "./provider.ts";

/**
 * What Entra ID does differently, by its documentation and by reports of MCP clients:
 * - Each directory (an organisation here) has an issuer of its own, with the directory's id in its path. Only its members sign
 *   in there. The metadata of `/common` has the issuer `…/{tenantid}/v2.0`, literally: no token has it.
 * - OIDC discovery only, which does not mention PKCE. No dynamic registration, no `iss` in answers.
 * - A person is `tid` and `oid`. `sub` differs for each client, and `oid` for each directory.
 * - `roles` has the app roles, `scp` the scopes without their prefix. `aud` of a v2.0 access token is the application id.
 * - A request needs `scope`. Scopes of an API have its application ID URI as a prefix; `/.default` means all. A bare scope is
 *   looked up at Microsoft Graph, where it does not exist: AADSTS650053.
 * - `resource` must be the application ID URI, exactly, and the scopes must belong to it. Otherwise: AADSTS9010010.
 * - There is no `email_verified`, and no `auth_time` without `max_age`. A refresh token needs `offline_access`.
 */
export interface EntraQuirks {
  /** Default: the URL of the MCP endpoint. */
  applicationIdUri: string;
  /** `aud` of access tokens. Default: a GUID that is the same in each run. */
  applicationId: string;
}

/** Microsoft Graph. Access tokens are for it when a request has no scope of an API. */
export const GRAPH_ID = "00000003-0000-0000-c000-000000000000";

/** The names that stand for any directory. */
const anyDirectory = new Set<string | undefined>(["common", "organizations"]);

export function entraProvider(setting: Setting, quirks: Partial<EntraQuirks> = {}): Provider {
  const { applicationIdUri = setting.audience, applicationId = guidOf(setting.audience) } = quirks;
  const prefix = `${applicationIdUri}/`;
  const plain = plainProvider(setting);
  const issuer = (directory: string | undefined): string =>
    `${setting.baseUrl}/${anyDirectory.has(directory) ? "{tenantid}" : directory}/v2.0`;
  const scopeInGrant = (scope: string): string => (scope.startsWith(prefix) ? scope.slice(prefix.length) : scope);
  const profile = (granted: readonly string[], { person }: Identity): Claims => ({
    ...(granted.includes("profile") && { name: person.name, preferred_username: person.email }),
    ...(granted.includes("email") && { email: person.email }),
  });
  return {
    ...plain,
    name: "entra",
    endpoints: {
      discovery: "/:directory/v2.0/.well-known/openid-configuration",
      authorize: "/:directory/oauth2/v2.0/authorize",
      token: "/:directory/oauth2/v2.0/token",
      userinfo: "/:directory/oidc/userinfo",
      keys: "/:directory/discovery/v2.0/keys",
      logout: "/:directory/oauth2/v2.0/logout",
      register: undefined,
    },
    hasServerMetadata: false,
    sendsIssuer: false,
    issuer,
    supported: {
      scopes: OIDC_SCOPES,
      // Public clients are accepted, too. The document does not say so.
      authMethods: ["client_secret_post", "client_secret_basic"],
      claims: [...usualClaims, "auth_time", "nonce", "preferred_username", "tid", "oid", "ver"],
      subject: "pairwise",
    },
    hasDirectory: (directory, people) =>
      anyDirectory.has(directory) ||
      people.some(({ organisations }) => organisations.some(({ id }) => id === directory)),
    choices: (_asked, people, directory) =>
      people
        .flatMap(forEachOrganisation)
        .filter(({ organisation }) => anyDirectory.has(directory) || organisation === directory),
    audience: (asked) => {
      const problem = scopeProblem(asked, { applicationIdUri, applicationId, scopes: setting.scopes });
      if (problem !== undefined) return { refused: problem };
      const isForApi = asked.scopes?.some((scope) => scope.startsWith(prefix)) ?? false;
      return { audience: isForApi ? applicationId : GRAPH_ID };
    },
    directoryProblem: (directory, organisation) => {
      if (anyDirectory.has(directory) || directory === organisation) return undefined;
      return { error: "invalid_grant", description: "AADSTS700005: The code is for another tenant." };
    },
    resourceProblem: (resources) =>
      resources.every((each) => each === applicationIdUri) ? undefined : RESOURCE_MISMATCH,
    grantScopes: ({ scopes = [] }) => {
      const api = scopes.filter((scope) => scope.startsWith(prefix)).map(scopeInGrant);
      return [
        ...OIDC_SCOPES.filter((scope) => scopes.includes(scope)),
        ...(api.includes(".default") ? setting.scopes : api),
      ];
    },
    scopeInGrant,
    givesRefreshToken: (granted) => granted.includes("offline_access"),
    accessToken: (grant, identity, stamp) => ({
      typ: "JWT",
      claims: {
        aud: grant.audience,
        iss: issuer(identity.organisation),
        ...timesOf(stamp),
        nbf: stamp.nowS,
        azp: grant.clientId,
        name: identity.person.name,
        preferred_username: identity.person.email,
        ...idsOf(identity, grant.clientId),
        ...rolesOf(identity),
        scp: grant.scopes.filter((scope) => !OIDC_SCOPES.includes(scope)).join(" "),
        uti: stamp.id,
        ver: "2.0",
      },
    }),
    idToken: (grant, identity, stamp) => ({
      iss: issuer(identity.organisation),
      aud: grant.clientId,
      ...timesOf(stamp),
      nbf: stamp.nowS,
      ...nonceOf(stamp),
      ...(grant.hasMaxAge && { auth_time: grant.authTimeS }),
      ...profile(grant.scopes, identity),
      ...idsOf(identity, grant.clientId),
      ...rolesOf(identity),
      uti: stamp.id,
      ver: "2.0",
    }),
    userInfo: (grant, identity) => ({
      sub: idsOf(identity, grant.clientId).sub,
      ...profile(grant.scopes, identity),
    }),
  };
}

const RESOURCE_MISMATCH = invalidTarget(
  "AADSTS9010010: The resource parameter provided in the request doesn't match with the requested scopes.",
);

/** Why Entra refuses the scopes and the resource of a request; `undefined`: it does not. */
function scopeProblem(
  { scopes: asked, resources }: Asked,
  { applicationIdUri, applicationId, scopes }: EntraQuirks & { scopes: readonly string[] },
): OAuthError | undefined {
  if (asked === undefined)
    return {
      error: "invalid_request",
      description: "AADSTS900144: The request body must contain the following parameter: 'scope'.",
    };
  const prefix = `${applicationIdUri}/`;
  const wanted = asked.filter((scope) => !OIDC_SCOPES.includes(scope));
  if (resources.length > 0) {
    const isOurs = resources.every((each) => each === applicationIdUri);
    if (!isOurs || wanted.length === 0 || !wanted.every((scope) => scope.startsWith(prefix))) return RESOURCE_MISMATCH;
  }
  const known = new Set([...scopes, ".default"].map((scope) => `${prefix}${scope}`));
  const unknown = wanted.find((scope) => !known.has(scope));
  if (unknown === undefined) return undefined;
  const [bare, resource] = unknown.startsWith(prefix)
    ? [unknown.slice(prefix.length), applicationId]
    : [unknown, GRAPH_ID];
  return {
    error: "invalid_client",
    description: `AADSTS650053: The application asked for scope '${bare}' that doesn't exist on the resource '${resource}'.`,
  };
}

function idsOf({ person, organisation }: Identity, clientId: string): { tid: unknown; oid: string; sub: string } {
  return {
    tid: organisation,
    oid: guidOf(`${organisation} ${person.sub}`),
    sub: createHash("sha256").update(`${clientId} ${organisation} ${person.sub}`).digest("base64url"),
  };
}

function rolesOf({ person }: Identity): Claims {
  return person.roles.length === 0 ? {} : { roles: person.roles };
}
