// The providers at which people can sign in: those of the deployment's configuration, and those that tenants bring. A sign-in keeps
// the name of the one where it began: the issuer of a configured one, and the name in the identities of a tenant's own. So a
// tenant that names a configured issuer neither replaces it nor is replaced by it: each has its own client and its own people.
import type { Context } from "../../control/context.ts";
import { decryptSecret, providerSecretPurpose } from "../../control/encrypted-logins-store.ts";
import type { SignInRules } from "../members/members.ts";
import type { UpstreamClient } from "../oauth/upstream.ts";
import { type Issuer, clientSecret, signInIssuers } from "../tokens/issuers.ts";
import { homeRealmOf, identityIssuer, isInDomains, ownProviderOf } from "./providers.ts";
import { type StoredProvider, providersStore } from "./providers-store.ts";

/** The provider with this name, if people can sign in there now. */
export async function signInProvider(context: Context, name: string): Promise<UpstreamClient | undefined> {
  const { env } = context;
  const own = ownProviderOf(name);
  if (own === undefined) {
    const issuer = signInIssuers(env.OIDC_ISSUERS).find((each) => each.issuer === name);
    return issuer && configuredClient(env, issuer);
  }
  const stored = await providersStore(context.control).find(own.tenantId, own.providerId);
  return stored && ownClient(env, stored);
}

/** Tollgate's client at an issuer of the configuration. */
export function configuredClient(env: Env, issuer: Issuer): UpstreamClient {
  return { issuer, secret: clientSecret(env.OIDC_CLIENT_SECRETS, issuer.issuer), publicUrl: env.PUBLIC_URL };
}

/** The provider of the organisation that a person has typed: by its name, or by the domain of an e-mail address. */
export function organisationProvider(context: Context, typed: string): Promise<StoredProvider | undefined> {
  const realm = homeRealmOf(typed);
  const store = providersStore(context.control);
  if (realm === undefined) return Promise.resolve(undefined);
  return "domain" in realm ? store.byDomain(realm.domain) : store.bySlug(realm.slug);
}

/** The client at a tenant's provider, as the tenant has configured it. */
export async function ownClient(env: Env, stored: StoredProvider): Promise<UpstreamClient> {
  const { id, tenantId, kind, clientSecret: encrypted } = stored;
  return {
    issuer: issuerOf(stored),
    secret: encrypted === null ? undefined : await decryptSecret(env, providerSecretPurpose(id), encrypted),
    publicUrl: env.PUBLIC_URL,
    own: { kind, identityIssuer: identityIssuer(tenantId, id), domains: provedDomains(stored) },
  };
}

/** The provider as an issuer. Its organisations mean nothing: it speaks for the tenant that has brought it. */
export function issuerOf({ issuer, jwksUrl, clientId, subjectClaim }: StoredProvider): Issuer {
  return {
    ...{ issuer, jwksUrl, clientId, userClaim: subjectClaim, tenantClaim: "org_id", clientIds: [] },
    ...{ linkNewTenants: false, linksMembers: false, verifiesEmails: false },
  };
}

export function provedDomains({ domains }: Pick<StoredProvider, "domains">): string[] {
  return domains.filter(({ isVerified }) => isVerified).map(({ domain }) => domain);
}

/**
 * What a sign-in of this person may do. At a tenant's provider a person with a verified address in a domain of the tenant becomes a
 * member without an invitation; others need one.
 */
export function rulesOf(
  { issuer, own }: UpstreamClient,
  person: { email: string | null; emailVerified: boolean },
): SignInRules {
  if (own === undefined) return { rules: issuer };
  const speaksFor = ownProviderOf(own.identityIssuer)?.tenantId;
  const linksMembers = person.emailVerified && isInDomains(person.email, own.domains);
  return { rules: { linksMembers, verifiesEmails: false }, ...(speaksFor !== undefined && { speaksFor }) };
}
