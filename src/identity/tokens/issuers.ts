// The identity providers that this deployment trusts, read from its configuration.
import * as z from "zod";
import { config } from "../../core/app-config.ts";

/** Signature algorithms that are accepted: asymmetric ones only, fixed here and never taken from a token. */
export const acceptedAlgorithms = [
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  ...["ES256", "ES384", "ES512", "Ed25519", "EdDSA"],
];

/** Parameters that the sign-in sets itself, each for a reason of security. */
const RESERVED_PARAMETERS =
  /^(client_id|client_secret|redirect_uri|response_type|response_mode|scope|state|nonce|code_challenge|code_challenge_method|request|request_uri)$/;

/**
 * Entra ID's addresses of all directories at once. Their tokens name another issuer for each directory, so that anyone with a
 * directory of their own could sign in.
 */
export const MANY_DIRECTORIES = /\{|\/(common|organizations|consumers)\/v2\.0\/?$/i;

/** What a sign-in at an issuer takes beside Tollgate's own client there. */
export const SignInSettings = {
  /** The provider's name on the page where people choose one. Default: the issuer's host. */
  name: z.string().trim().min(1).max(60).optional(),
  /** More parameters of the sign-in, such as Auth0's `organization` or `connection`. */
  signInParameters: z
    .record(z.string().min(1), z.string())
    .refine(
      (given) => !Object.keys(given).some((name) => RESERVED_PARAMETERS.test(name)),
      "sets a parameter of Tollgate's own",
    )
    .optional(),
};

const Issuer = z
  .strictObject({
    issuer: z
      .url()
      .refine((url) => !MANY_DIRECTORIES.test(url), "stands for many directories. Name one directory by its id"),
    jwksUrl: z.url({ protocol: /^https?$/ }),
    /**
     * The claim that names the customer's organisation at this issuer: `org_id`, `tid`, `custom:tenant_id`, or a claim within
     * a claim, `organization.id`. Default: `issuers.tenantClaim` of app/config.ts.
     */
    tenantClaim: z.string().min(1).default(config.issuers.tenantClaim),
    /** The claim that names the user. Default: `oid` beside Entra's `tid`, whose `sub` differs for each client; else `sub`. */
    userClaim: z.string().min(1).optional(),
    /** Default: the URL of the MCP endpoint. */
    audience: z.string().min(1).optional(),
    /**
     * Clients whose access tokens are accepted without `aud`. Cognito's name their `client_id` instead. Default: none.
     */
    clientIds: z.array(z.string().min(1)).default([]),
    /** New tenants are linked to this issuer under their own id. For an issuer that the operator runs for its customers. */
    linkNewTenants: z.boolean().default(false),
    /** A person who signs in at a linked organisation becomes a member of its tenant, with the role `member`. */
    linksMembers: z.boolean().default(true),
    /**
     * A verified e-mail address of this issuer makes its person a member wherever the address is invited. Only for an issuer
     * that verifies addresses itself: where customers bring their own directories, each could claim any address. Without
     * it, an address counts in the tenant of the person's own organisation only.
     */
    verifiesEmails: z.boolean().default(false),
    /**
     * Tollgate's own client at this provider. People sign in through each issuer that has one. The client's secret, if it has
     * one, is in `OIDC_CLIENT_SECRETS`.
     */
    clientId: z.string().min(1).optional(),
    ...SignInSettings,
  })
  .transform((issuer) => ({
    ...issuer,
    userClaim: issuer.userClaim ?? (issuer.tenantClaim === "tid" ? "oid" : "sub"),
  }));
export type Issuer = z.infer<typeof Issuer>;

/** Parses the `OIDC_ISSUERS` setting. Throws on malformed configuration, so that a deployment does not start with only some of its issuers. */
export function parseIssuers(json: string): Issuer[] {
  return z.array(Issuer).parse(JSON.parse(json));
}

/** The issuers that new tenants are linked to. */
export function linkingIssuers(json: string): string[] {
  return parseIssuers(json)
    .filter((issuer) => issuer.linkNewTenants)
    .map((issuer) => issuer.issuer);
}

/** The issuers through which people sign in. */
export function signInIssuers(json: string): Issuer[] {
  return parseIssuers(json).filter(({ clientId }) => clientId !== undefined);
}

/** The provider's name for people. */
export function issuerName({ name, issuer }: Pick<Issuer, "name" | "issuer">): string {
  return name ?? new URL(issuer).host;
}

const Secrets = z.record(z.string(), z.string().min(1));

/**
 * The secret of Tollgate's client at an issuer, from the setting `OIDC_CLIENT_SECRETS`: JSON, from issuer to secret. `undefined`:
 * a public client. Throws on malformed configuration; the message has no part of it.
 */
export function clientSecret(json: string | undefined, issuer: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json || "{}");
  } catch {
    throw new Error("OIDC_CLIENT_SECRETS is not JSON"); // the parser's own message quotes its input
  }
  const secrets = Secrets.safeParse(value);
  if (!secrets.success) throw new Error("OIDC_CLIENT_SECRETS is not an object of texts");
  return Object.hasOwn(secrets.data, issuer) ? secrets.data[issuer] : undefined;
}

/** Whether agents use the provider's own tokens (`OAUTH_MODE` is `direct`) in place of Tollgate's OAuth server. */
export function isDirect(env: Pick<Env, "OAUTH_MODE">): boolean {
  return env.OAUTH_MODE === "direct";
}
