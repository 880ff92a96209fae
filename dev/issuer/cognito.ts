// An imitation of Amazon Cognito.
import { type Claims, type Identity, type Provider, type Setting } from "./provider.ts";
import { guidOf, invalidTarget, nonceOf, plainProvider, timesOf, usualClaims } from "./provider.ts";

/**
 * What Cognito does differently, by its documentation:
 * - Only OIDC discovery, which does not mention PKCE. No RFC 8414 metadata, no `iss` in answers. Dynamic registration of newer
 *   plans is not imitated.
 * - Access tokens name their client in `client_id` and have no `aud`. `token_use` tells access and ID tokens apart.
 * - `custom:tenant_id` is an attribute of the user, so a person has one organisation: the first one.
 * - `cognito:groups` has the roles, in both tokens.
 * - Scopes of an API have its identifier as a prefix: `https://api.example/tools:read`. They belong to the app client, so a
 *   person's permissions do not limit them. A scope that the app client does not have is refused.
 * - With `profile` or `email`, only their attributes are in the ID token; `custom:` belongs to `profile`. With `openid` alone,
 *   all attributes are.
 * - The userinfo endpoint sends `email_verified` as a text.
 */
export interface CognitoQuirks {
  /** A pre token generation trigger copies `custom:tenant_id` into access tokens. Default: it does. */
  copiesTenant: boolean;
  /** Newer plans bind `resource`: the access token then has `aud`. Default: they do not. */
  bindsResource: boolean;
}

export function cognitoProvider(setting: Setting, quirks: Partial<CognitoQuirks> = {}): Provider {
  const { baseUrl, audience } = setting;
  const plain = plainProvider(setting);
  const ownScopes = ["openid", "email", "profile", ...setting.scopes.map((scope) => `${audience}/${scope}`)];
  const attributesOf = ({ organisation }: Identity): Claims =>
    organisation === undefined ? {} : { "custom:tenant_id": organisation };
  const groupsOf = ({ person }: Identity): Claims =>
    person.roles.length === 0 ? {} : { "cognito:groups": person.roles };
  const profile = (
    granted: readonly string[],
    identity: Identity,
    verifiedAs: (verified: boolean) => boolean | string,
  ): Claims => {
    const { sub, name, email, emailVerified } = identity.person;
    const isAlone = !granted.includes("profile") && !granted.includes("email");
    return {
      sub: guidOf(sub),
      ...((isAlone || granted.includes("profile")) && { name, ...attributesOf(identity) }),
      ...((isAlone || granted.includes("email")) && { email, email_verified: verifiedAs(emailVerified) }),
    };
  };
  return {
    ...plain,
    name: "cognito",
    endpoints: {
      ...plain.endpoints,
      authorize: "/oauth2/authorize",
      token: "/oauth2/token",
      userinfo: "/oauth2/userInfo",
      register: undefined,
    },
    hasServerMetadata: false,
    sendsIssuer: false,
    supported: {
      scopes: ownScopes,
      // Public clients are accepted, too. The document does not say so.
      authMethods: ["client_secret_basic", "client_secret_post"],
      claims: [...usualClaims, "email_verified", "auth_time", "nonce"],
      subject: "public",
    },
    choices: (_asked, people) => people.map((person) => ({ person, organisation: person.organisations[0]?.id })),
    audience: ({ scopes, resources }) => {
      const unknown = scopes?.find((scope) => !ownScopes.includes(scope));
      if (unknown !== undefined)
        return {
          refused: { error: "invalid_scope", description: `the app client does not have the scope ${unknown}` },
        };
      if (quirks.bindsResource !== true) return { audience: undefined };
      const foreign = resources.find((each) => each !== audience);
      if (foreign !== undefined) return { refused: invalidTarget(`${foreign} is not a resource server`) };
      return { audience: resources[0] };
    },
    resourceProblem: () => undefined,
    grantScopes: ({ scopes }) => [...(scopes ?? ownScopes)],
    accessToken: (grant, identity, stamp) => ({
      typ: undefined,
      claims: {
        sub: guidOf(identity.person.sub),
        ...groupsOf(identity),
        ...(quirks.copiesTenant !== false && attributesOf(identity)),
        iss: baseUrl,
        version: 2,
        client_id: grant.clientId,
        ...(grant.audience !== undefined && { aud: grant.audience }),
        token_use: "access",
        scope: grant.scopes.join(" "),
        auth_time: grant.authTimeS,
        ...timesOf(stamp),
        jti: stamp.id,
        username: identity.person.sub,
      },
    }),
    idToken: (grant, identity, stamp) => ({
      iss: baseUrl,
      aud: grant.clientId,
      ...timesOf(stamp),
      ...nonceOf(stamp),
      auth_time: grant.authTimeS,
      ...profile(grant.scopes, identity, (verified) => verified),
      ...groupsOf(identity),
      "cognito:username": identity.person.sub,
      token_use: "id",
      jti: stamp.id,
    }),
    userInfo: (grant, identity) => ({ ...profile(grant.scopes, identity, String), username: identity.person.sub }),
  };
}
