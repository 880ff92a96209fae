// Routes for a tenant's own provider: what it is, how it is set, proved and removed. Owners and the operator change it: a provider
// can name an owner. The client secret never comes back.
import * as z from "zod";
import { txtRecords } from "../../adapters/dns.ts";
import { newMemberId } from "../../adapters/ids.ts";
import { decryptSecret, encryptSecret, providerSecretPurpose } from "../../control/encrypted-logins-store.ts";
import { toBase64Url } from "../../core/keys/credentials.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { BadRequest, type HttpContext, Problem, noSuchTenant, tenantOf } from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { enforceChange } from "../members/membership.ts";
import { CALLBACK_PATH } from "../oauth/upstream.ts";
import { checkProvider } from "./discovery.ts";
import { type ProviderRequest, hasSamePeople, proofRecord, providerKinds, subjectClaimOf } from "./providers.ts";
import { type StoredProvider, providersStore } from "./providers-store.ts";

export const ProviderDomain = z.object({
  domain: z.string(),
  isVerified: z.boolean(),
  /** The DNS record that proves the domain. */
  record: z.object({ name: z.string(), type: z.literal("TXT"), value: z.string() }),
});

/** A tenant's provider as its people and the operator see it. */
export const ProviderView = z.object({
  id: z.string(),
  kind: z.enum(providerKinds),
  issuer: z.string(),
  clientId: z.string(),
  hasClientSecret: z.boolean(),
  subjectClaim: z.string(),
  slug: z.string(),
  idJag: z.boolean(),
  domains: z.array(ProviderDomain),
  /** Where people of the organisation sign in without a choice. */
  signInUrl: z.url(),
  /** To register at the provider. */
  redirectUri: z.url(),
  createdAt: z.string(),
  updatedAt: z.string(),
});

export const RemovedProvider = z.object({ id: z.string(), removed: z.literal(true) });

export async function showProvider(c: HttpContext): Promise<Response> {
  return c.json(viewOf(c.env, await requireProvider(c)));
}

/** The provider of the path's tenant; `undefined`: it has none of its own. */
export async function ownProvider(c: HttpContext): Promise<z.infer<typeof ProviderView> | undefined> {
  const stored = await providersStore(c.get("context").control).ofTenant(tenantOf(c));
  return stored && viewOf(c.env, stored);
}

/** Sets the tenant's provider. In force at once; people whose identities it ends sign in again. */
export async function saveProvider(c: HttpContext, { body }: { body: ProviderRequest }): Promise<Response> {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const store = providersStore(context.control);
  const stored = await store.ofTenant(tenantId);
  const slug = body.slug ?? stored?.slug ?? tenantId;
  if (await store.isSlugTaken(slug, tenantId))
    throw new Problem("conflict", "slug: another organisation has this name. Choose another one.");
  const now = { issuer: body.issuer, clientId: body.clientId, subjectClaim: subjectClaimOf(body) };
  const isSame = stored !== undefined && hasSamePeople(stored, now);
  if (stored !== undefined && !isSame) await requireOwnerElsewhere(c, tenantId);
  const checked = await checkProvider(body, c.env.PUBLIC_URL);
  if ("problem" in checked) throw new BadRequest(checked.problem);
  const id = isSame ? stored.id : newMemberId();
  const clientSecret = await secretToStore(c.env, id, body, stored);
  const challenges = new Map(stored?.domains.map(({ domain, challenge }) => [domain, challenge]));
  const { kind, idJag } = body;
  const domains = body.domains.map((domain) => ({ domain, challenge: challenges.get(domain) ?? newChallenge() }));
  const saved = await store.save(
    { id, tenantId, kind, ...now, jwksUrl: checked.jwksUrl, clientSecret, idJag, slug, domains },
    Date.now(),
  );
  if (saved === undefined) throw noSuchTenant();
  const delivered = await enforceChange(context, tenantId, saved.memberIds);
  return c.json({ ...viewOf(c.env, await requireProvider(c)), delivered });
}

/** Removes the tenant's provider. The sessions and grants of its people end at once. */
export async function removeProvider(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const { id } = await requireProvider(c);
  await requireOwnerElsewhere(c, tenantId);
  const { memberIds } = await providersStore(context.control).remove(tenantId, Date.now());
  const delivered = await enforceChange(context, tenantId, memberIds);
  return c.json({ id, removed: true, delivered });
}

/** Looks for the DNS records of the domains that are not proved yet. */
export async function checkDomains(c: HttpContext): Promise<Response> {
  const { control } = c.get("context");
  const tenantId = tenantOf(c);
  const store = providersStore(control);
  const { domains } = await requireProvider(c);
  const open = domains.filter(({ isVerified }) => !isVerified);
  const found = await Promise.all(
    open.map(async ({ domain, challenge }) => {
      const { name, value } = proofRecord(domain, challenge);
      return { domain, isProved: (await txtRecords(c.env, name)).includes(value) };
    }),
  ).catch((error: unknown) => {
    log("warn", "domains_not_checked", { tenantId, error: describeError(error) });
    throw new Problem("issuer_unavailable", "The DNS does not answer at the moment. Try again in a minute.");
  });
  for (const { domain, isProved } of found) {
    if (!isProved) continue;
    if ((await store.verifyDomain(tenantId, domain, Date.now())) === "taken")
      throw new Problem("conflict", `${domain} belongs to another account. Ask support if it is yours.`);
  }
  return c.json(viewOf(c.env, await requireProvider(c)));
}

async function requireProvider(c: HttpContext): Promise<StoredProvider> {
  const stored = await providersStore(c.get("context").control).ofTenant(tenantOf(c));
  if (stored === undefined)
    throw new Problem("not_found", "The account has no provider of its own. PUT to this path sets one.");
  return stored;
}

/**
 * A tenant keeps an owner who can sign in while its provider is away or gone. The operator can do without: the operator can invite
 * an owner.
 */
async function requireOwnerElsewhere(c: HttpContext, tenantId: TenantId): Promise<void> {
  if (c.get("actor").kind === "operator") return;
  if (await providersStore(c.get("context").control).hasOwnerElsewhere(tenantId)) return;
  throw new Problem(
    "conflict",
    "All owners sign in at this provider, and would lose their access. Make a member an owner who signs in elsewhere, or ask support.",
  );
}

/**
 * The client secret, encrypted for the provider `id`. The stored one is used again only at the same issuer for the same client:
 * otherwise a new issuer would receive it.
 */
async function secretToStore(
  env: Env,
  id: string,
  { issuer, clientId, clientSecret: given }: ProviderRequest,
  stored: StoredProvider | undefined,
): Promise<string | null> {
  if (given === null) return null;
  let secret = given;
  if (secret === undefined) {
    if (stored === undefined || stored.issuer !== issuer || stored.clientId !== clientId)
      throw new BadRequest("clientSecret: is needed for this issuer and client. For a public client it is null.");
    if (stored.clientSecret === null) return null;
    secret = await decryptSecret(env, providerSecretPurpose(stored.id), stored.clientSecret);
  }
  return encryptSecret(env, providerSecretPurpose(id), secret);
}

/** 128 random bits. */
function newChallenge(): string {
  return toBase64Url(crypto.getRandomValues(new Uint8Array(16)));
}

function viewOf({ PUBLIC_URL }: Env, stored: StoredProvider): z.infer<typeof ProviderView> {
  const { id, kind, issuer, clientId, clientSecret, subjectClaim, slug, idJag, domains, createdAt, updatedAt } = stored;
  return {
    ...{ id, kind, issuer, clientId, hasClientSecret: clientSecret !== null, subjectClaim, slug, idJag },
    domains: domains.map(({ domain, challenge, isVerified }) => ({
      ...{ domain, isVerified },
      record: proofRecord(domain, challenge),
    })),
    signInUrl: `${PUBLIC_URL}/sign-in?organisation=${slug}`,
    redirectUri: PUBLIC_URL + CALLBACK_PATH,
    ...{ createdAt, updatedAt },
  };
}
