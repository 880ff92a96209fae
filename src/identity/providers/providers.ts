// Rules about the providers that tenants bring: which ones Tollgate accepts, whom they speak for, and what a person may type to find
// one. Pure.
//
// Invariants: a tenant's provider speaks for that tenant only, also if its tokens claim more. Its people have identities of their own,
// named after the tenant and the provider, so they are never mistaken for people of another provider with the same issuer.
// A stored client secret is sent to the issuer and the client that it was given for, and to no other.
import * as z from "zod";
import { TenantId } from "../../core/tenant/tenant.ts";
import { isPublicHost, loopbackHosts } from "../../core/text/web-url.ts";
import { MANY_DIRECTORIES, acceptedAlgorithms } from "../tokens/issuers.ts";

export const providerKinds = ["oidc", "auth0", "cognito", "entra"] as const;
export type ProviderKind = (typeof providerKinds)[number];

/** Each costs a look-up in the DNS when it is proved. Companies have a few. */
export const MAX_DOMAINS = 20;

/** A host name of at least two labels, in lower case. Names in other scripts are in their ASCII form (`xn--`). */
export const Domain = z
  .string()
  .max(253)
  .transform((domain) => domain.trim().toLowerCase().replace(/\.$/, ""))
  .refine(
    (domain) => /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/.test(domain),
    "is not a domain, such as example.com",
  );

/** An organisation's name at the sign-in. It has the form of a tenant's id, which is the default. */
const Slug = z.string().regex(/^[a-z0-9][a-z0-9-]{1,39}$/, "must be 2 to 40 lower-case letters, digits and dashes");

const printable = z.string().regex(/^[\x21-\x7e]+$/, "must be printable ASCII without spaces");

export const ProviderRequest = z.strictObject({
  kind: z.enum(providerKinds),
  issuer: z.string().max(500),
  clientId: printable.max(300),
  /** Absent: the stored one stays, if the issuer and the client are the same. `null`: a public client. */
  clientSecret: z.string().min(1).max(1_000).nullable().optional(),
  /** The claim that names a person for good. Only the kind `oidc` has a choice. */
  subjectClaim: printable.max(100).optional(),
  slug: Slug.optional(),
  domains: z
    .array(Domain)
    .max(MAX_DOMAINS)
    .default([])
    .transform((domains) => [...new Set(domains)]),
  idJag: z.boolean().default(false),
});
export type ProviderRequest = z.infer<typeof ProviderRequest>;

// ---- whom a provider speaks for

/** Begins the issuer in the identities of people who signed in at a tenant's provider. No URL of an issuer begins so. */
const PREFIX = "provider:";

/** The issuer in the identities of a tenant's provider. */
export function identityIssuer(tenantId: TenantId, providerId: string): string {
  return `${PREFIX}${tenantId}:${providerId}`;
}

/** The tenant and the provider of such an issuer; `undefined` for an issuer that the operator has configured. */
export function ownProviderOf(issuer: string): { tenantId: TenantId; providerId: string } | undefined {
  if (!issuer.startsWith(PREFIX)) return undefined;
  const [tenant, providerId = ""] = issuer.slice(PREFIX.length).split(":");
  const tenantId = TenantId.safeParse(tenant);
  return tenantId.success ? { tenantId: tenantId.data, providerId } : undefined;
}

/** Whether people of this issuer may be members of the tenant. The database holds the same, as a constraint. */
export function speaksFor(issuer: string, tenantId: TenantId): boolean {
  return !issuer.startsWith(PREFIX) || issuer.startsWith(`${PREFIX}${tenantId}:`);
}

/**
 * SQL: whether the issuer (a parameter) may name members of the tenant (a parameter) now. A tenant's provider may while it is not
 * removed. The statement runs under the lock of the tenant, under which providers are removed, too.
 */
export function speaksNow(issuer: string, tenantId: string): string {
  return `(${isConfigured(issuer)} OR EXISTS (SELECT FROM providers p WHERE p.tenant_id = ${tenantId}
    AND p.removed_at IS NULL AND ${issuer} = ${identityOf("p")}))`;
}

/** SQL: whether the issuer in an identity is one that the operator has configured. */
export function isConfigured(issuer: string): string {
  return `NOT starts_with(${issuer}, '${PREFIX}')`;
}

/** SQL: the issuer in the identities of a row of `providers`. */
export function identityOf(row: string): string {
  return `'${PREFIX}' || ${row}.tenant_id || ':' || ${row}.id`;
}

/** The claim that names a person, by the kind of provider. Entra's `sub` differs for each client; `oid` does not. */
export function subjectClaimOf({ kind, subjectClaim }: Pick<ProviderRequest, "kind" | "subjectClaim">): string {
  return subjectClaim ?? (kind === "entra" ? "oid" : "sub");
}

/** What decides who the people of a provider are. */
export interface PeopleOfProvider {
  issuer: string;
  clientId: string;
  subjectClaim: string;
}

/** Whether two settings name the same people by the same subjects. A subject can differ for each client. */
export function hasSamePeople(before: PeopleOfProvider, now: PeopleOfProvider): boolean {
  return before.issuer === now.issuer && before.clientId === now.clientId && before.subjectClaim === now.subjectClaim;
}

/** Whether an address is in one of the domains. Both are in lower case. */
export function isInDomains(email: string | null, domains: readonly string[]): boolean {
  return email !== null && domains.includes(email.slice(email.lastIndexOf("@") + 1));
}

// ---- what Tollgate accepts

/** Whether the deployment is one on a developer's machine. Only there may a provider be on the same machine, without TLS. */
export function isLocal(publicUrl: string): boolean {
  const { protocol, hostname } = new URL(publicUrl);
  return protocol === "http:" && loopbackHosts.includes(hostname);
}

/** What is wrong with a URL of a provider, in words that follow its name; `undefined`: nothing. */
function urlProblem(text: unknown, allowsLoopback: boolean): string | undefined {
  if (typeof text !== "string" || !URL.canParse(text) || /[\s\\\p{Cc}]/u.test(text)) return "is not a URL";
  const { protocol, hostname, username, password, hash } = new URL(text);
  if (username !== "" || password !== "") return "names a user";
  if (hash !== "") return "has a fragment";
  if (allowsLoopback && protocol === "http:" && loopbackHosts.includes(hostname)) return undefined;
  if (protocol !== "https:") return "is not an https URL";
  return isPublicHost(hostname) ? undefined : "does not name a host on the internet";
}

/** What is wrong with the request itself, for its sender; `undefined`: nothing. */
export function requestProblem(
  { kind, issuer, subjectClaim, idJag }: Pick<ProviderRequest, "kind" | "issuer" | "subjectClaim" | "idJag">,
  publicUrl: string,
): string | undefined {
  const problem = urlProblem(issuer, isLocal(publicUrl));
  if (problem !== undefined) return `issuer: ${problem}.`;
  const { origin, pathname, search, protocol } = new URL(issuer);
  if (search !== "") return "issuer: has a query.";
  if (origin === new URL(publicUrl).origin) return "issuer: is this server itself.";
  if (MANY_DIRECTORIES.test(issuer) || (kind === "entra" && /\/(common|organizations|consumers)(\/|$)/i.test(pathname)))
    return "issuer: stands for many directories, so that anyone could sign in. Name your directory by its id.";
  if (kind === "entra" && !/\/[^/]+\/v2\.0$/.test(pathname))
    return "issuer: Entra's ends with the directory's id and /v2.0.";
  if (kind === "auth0" && !issuer.endsWith("/")) return "issuer: Auth0's ends with a slash.";
  if (kind !== "oidc" && subjectClaim !== undefined)
    return `subjectClaim: is for the kind oidc alone. ${kind} uses ${subjectClaimOf({ kind })}.`;
  if (idJag && protocol !== "https:") return "idJag: needs an https issuer.";
  return undefined;
}

/** The parts of a discovery document (OpenID Connect Discovery, section 3) that Tollgate relies on. */
export const Discovered = z.looseObject({
  issuer: z.unknown(),
  authorization_endpoint: z.unknown(),
  token_endpoint: z.unknown(),
  jwks_uri: z.unknown(),
  response_types_supported: z.array(z.string()).optional().catch(undefined),
  code_challenge_methods_supported: z.array(z.string()).optional().catch(undefined),
  id_token_signing_alg_values_supported: z.array(z.string()).optional().catch(undefined),
});
export type Discovered = z.infer<typeof Discovered>;

/** Kinds whose documents do not mention PKCE, although they support it. */
const silentAboutPkce: readonly ProviderKind[] = ["cognito", "entra"];

/** What is wrong with a provider's discovery document; `undefined`: nothing. */
export function documentProblem(
  document: Discovered,
  { kind, issuer }: Pick<ProviderRequest, "kind" | "issuer">,
  publicUrl: string,
): string | undefined {
  if (document.issuer !== issuer)
    return "Its document names another issuer. Copy the issuer character by character, with or without its last slash.";
  // A provider with TLS has no endpoint without.
  const allowsLoopback = isLocal(publicUrl) && issuer.startsWith("http:");
  for (const name of ["authorization_endpoint", "token_endpoint", "jwks_uri"] as const) {
    const problem = urlProblem(document[name], allowsLoopback);
    if (problem !== undefined) return `Its ${name} ${problem}.`;
  }
  const {
    response_types_supported: types,
    code_challenge_methods_supported: methods,
    id_token_signing_alg_values_supported: algorithms,
  } = document;
  if (types !== undefined && !types.includes("code")) return "It does not support the authorization code flow.";
  if (methods === undefined ? !silentAboutPkce.includes(kind) : !methods.includes("S256"))
    return "It does not support PKCE with S256.";
  if (algorithms !== undefined && !algorithms.some((each) => acceptedAlgorithms.includes(each)))
    return `It signs with none of ${acceptedAlgorithms.join(", ")}.`;
  return undefined;
}

const KeySet = z.object({ keys: z.array(z.looseObject({ kty: z.enum(["RSA", "EC", "OKP"]) })).min(1) });

/** What is wrong with a provider's key set; `undefined`: nothing. */
export function keySetProblem(keySet: unknown): string | undefined {
  return KeySet.safeParse(keySet).success ? undefined : "Its key set has no public keys.";
}

// ---- how a person finds a provider

/** What a person typed at the sign-in: the domain of their address, or an organisation's name. `undefined`: neither. */
export function homeRealmOf(text: string): { domain: string } | { slug: string } | undefined {
  const typed = text.trim().toLowerCase();
  const at = typed.lastIndexOf("@");
  if (at >= 0) {
    const domain = Domain.safeParse(typed.slice(at + 1));
    return domain.success ? { domain: domain.data } : undefined;
  }
  const slug = Slug.or(TenantId).safeParse(typed);
  return slug.success ? { slug: slug.data } : undefined;
}

/** The record that proves a domain. */
export function proofRecord(domain: string, challenge: string): { name: string; type: "TXT"; value: string } {
  return { name: `_tollgate-challenge.${domain}`, type: "TXT", value: `tollgate-domain=${challenge}` };
}
