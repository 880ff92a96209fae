// The identity providers that this deployment trusts, read from its configuration.
import * as z from "zod";
import { config } from "../core/app-config.ts";

/** Signature algorithms that are accepted: asymmetric ones only, fixed here and never taken from a token. */
export const acceptedAlgorithms = [
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  ...["ES256", "ES384", "ES512", "Ed25519", "EdDSA"],
];

const Issuer = z
  .strictObject({
    issuer: z.url(),
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
