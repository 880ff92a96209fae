// An imitation of Auth0.
import { OIDC_SCOPES, type Claims, type Identity, type Provider, type Setting } from "./provider.ts";
import { forEachOrganisation, nonceOf, plainProvider, timesOf, usualClaims } from "./provider.ts";

/**
 * What Auth0 does differently, by its documentation:
 * - `iss` ends with a slash.
 * - A request needs `audience`, the identifier of an API, for a JWT. Without it the access token is opaque: only the userinfo
 *   endpoint reads it. An unknown API is refused with "Service not found".
 * - `resource` counts only with the compatibility profile, and `audience` wins.
 * - With `organization` the tokens have `org_id`, and a person who is no member of it is refused after the sign-in. Without
 *   it there is no `org_id`, even for a person of one organisation.
 * - Access tokens have `permissions` (RBAC) beside `scope`, and name the client in `azp`. `sub` begins with the connection.
 * - `auth_time` is there only when the request has `max_age`. A refresh token needs `offline_access`.
 * - Answers of the authorization endpoint have no `iss`.
 */
export interface Auth0Quirks {
  /** The application asks for the organisation when the request names none. Default: it does not. */
  requiresOrganization: boolean;
  /** The tenant uses the compatibility profile for `resource`. Default: it does not. */
  readsResource: boolean;
}

export function auth0Provider(setting: Setting, quirks: Partial<Auth0Quirks> = {}): Provider {
  const { baseUrl, audience, scopes } = setting;
  const plain = plainProvider(setting);
  const issuer = `${baseUrl}/`;
  const subOf = ({ person }: Identity): string => `auth0|${person.sub}`;
  const organisationOf = ({ organisation }: Identity): Claims =>
    organisation === undefined ? {} : { org_id: organisation };
  const profile = (granted: readonly string[], identity: Identity): Claims => {
    const { name, email, emailVerified } = identity.person;
    return {
      sub: subOf(identity),
      ...(granted.includes("profile") && { name, nickname: email.split("@")[0] }),
      ...(granted.includes("email") && { email, email_verified: emailVerified }),
      ...organisationOf(identity),
    };
  };
  return {
    ...plain,
    name: "auth0",
    endpoints: { ...plain.endpoints, token: "/oauth/token", logout: "/oidc/logout", register: "/oidc/register" },
    sendsIssuer: false,
    issuer: () => issuer,
    supported: {
      ...plain.supported,
      claims: [...usualClaims, "email_verified", "auth_time", "nonce", "nickname"],
    },
    choices: ({ organization }, people) => {
      // Auth0 signs a person in first, and then looks whether they are a member.
      if (organization !== undefined) return people.map((person) => ({ person, organisation: organization }));
      if (quirks.requiresOrganization === true) return people.flatMap(forEachOrganisation);
      return people.map((person) => ({ person, organisation: undefined }));
    },
    refusal: ({ organization }, { person }) => {
      if (organization === undefined || person.organisations.some(({ id }) => id === organization)) return undefined;
      return { error: "access_denied", description: `the user is not a member of the organization ${organization}` };
    },
    audience: (asked) => {
      const api = asked.audience ?? (quirks.readsResource === true ? asked.resources[0] : undefined);
      if (api === undefined || api === audience) return { audience: api };
      return { refused: { error: "access_denied", description: `Service not found: ${api}` } };
    },
    resourceProblem: () => undefined,
    givesRefreshToken: (granted) => granted.includes("offline_access"),
    accessToken: (grant, identity, stamp) => {
      if (grant.audience === undefined) return "opaque";
      return {
        typ: "JWT",
        claims: {
          iss: issuer,
          sub: subOf(identity),
          aud: grant.scopes.includes("openid") ? [grant.audience, `${baseUrl}/userinfo`] : grant.audience,
          ...timesOf(stamp),
          scope: grant.scopes.join(" "),
          azp: grant.clientId,
          ...organisationOf(identity),
          permissions: scopes.filter((scope) => identity.person.permissions.includes(scope)),
        },
      };
    },
    idToken: (grant, identity, stamp) => ({
      iss: issuer,
      aud: grant.clientId,
      ...timesOf(stamp),
      ...nonceOf(stamp),
      ...(grant.hasMaxAge && { auth_time: grant.authTimeS }),
      ...profile(grant.scopes, identity),
      sid: stamp.id,
    }),
    userInfo: (grant, identity) => profile(grant.scopes, identity),
    grantScopes: (asked, person) => {
      const granted = plain.grantScopes(asked, person);
      // Scopes of an API need the API.
      return asked.audience === undefined && quirks.readsResource !== true
        ? granted.filter((scope) => OIDC_SCOPES.includes(scope))
        : granted;
    },
  };
}
