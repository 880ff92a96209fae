// The providers of tenants in the control tables, with the e-mail domains that tenants have proved.
//
// Invariants: a tenant has one live provider. The end of a provider is one transaction with the end of all that rests on it: the
// sessions of its people end, its people have no identity any more, and their earlier sign-ins do not count. The end raises the
// tenant's version, so that the tenant's object refuses their clients on the next call.
import * as z from "zod";
import type { ControlDatabase, Statement } from "../../adapters/neon.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { fromMs, toIso } from "../../core/time.ts";
import { lockTenant } from "../members/invitations-store.ts";
import { identityOf, isConfigured, providerKinds } from "./providers.ts";

const StoredDomain = z.object({ domain: z.string(), challenge: z.string(), isVerified: z.boolean() });
export const StoredProvider = z.object({
  id: z.string(),
  tenantId: TenantId,
  kind: z.enum(providerKinds),
  issuer: z.string(),
  jwksUrl: z.string(),
  clientId: z.string(),
  /** Encrypted. `null`: a public client. */
  clientSecret: z.string().nullable(),
  subjectClaim: z.string(),
  idJag: z.boolean(),
  slug: z.string(),
  createdAt: z.string(),
  updatedAt: z.string(),
  domains: z.array(StoredDomain),
});
export type StoredProvider = z.infer<typeof StoredProvider>;

/** The settings of a provider, as they are saved. */
export type ProviderSettings = Omit<StoredProvider, "createdAt" | "updatedAt" | "domains"> & {
  domains: readonly { domain: string; challenge: string }[];
};

const columns = `p.id, p.tenant_id AS "tenantId", p.kind, p.issuer, p.jwks_url AS "jwksUrl", p.client_id AS "clientId",
  p.client_secret AS "clientSecret", p.subject_claim AS "subjectClaim", p.id_jag AS "idJag", p.slug,
  ${toIso("p.created_at")} AS "createdAt", ${toIso("p.updated_at")} AS "updatedAt",
  coalesce((SELECT jsonb_agg(jsonb_build_object('domain', d.domain, 'challenge', d.challenge,
      'isVerified', d.verified_at IS NOT NULL) ORDER BY d.domain)
    FROM provider_domains d WHERE d.tenant_id = p.tenant_id), '[]'::jsonb) AS domains`;
/** The live providers of tenants that exist. */
const live = `providers p JOIN tenants t ON t.id = p.tenant_id WHERE p.removed_at IS NULL AND t.state <> 'gone'`;

const Ended = z.object({ memberIds: z.array(z.string()) });

export function providersStore(control: ControlDatabase) {
  const one = async (condition: string, params: unknown[]): Promise<StoredProvider | undefined> => {
    const [row] = await control.query(`SELECT ${columns} FROM ${live} AND ${condition}`, params);
    return row === undefined ? undefined : StoredProvider.parse(row);
  };
  return {
    /** The tenant's provider. */
    ofTenant: (tenantId: TenantId): Promise<StoredProvider | undefined> => one(`p.tenant_id = $1`, [tenantId]),

    /** The provider with this id, if it is the tenant's now. */
    find: (tenantId: TenantId, id: string): Promise<StoredProvider | undefined> =>
      one(`p.tenant_id = $1 AND p.id = $2`, [tenantId, id]),

    /** The provider of the organisation with this name. */
    bySlug: (slug: string): Promise<StoredProvider | undefined> => one(`p.slug = $1`, [slug]),

    /** The provider of the organisation that has proved this e-mail domain. */
    byDomain: (domain: string): Promise<StoredProvider | undefined> =>
      one(
        `EXISTS (SELECT FROM provider_domains d WHERE d.tenant_id = p.tenant_id AND d.domain = $1 AND d.verified_at IS NOT NULL)`,
        [domain],
      ),

    /** Whether any tenant has brought a provider. */
    async hasAny(): Promise<boolean> {
      return (await control.query(`SELECT 1 AS one FROM ${live} LIMIT 1`)).length > 0;
    },

    /** The live providers that take assertions of this issuer, the newest settings first. */
    async byAssertions(issuer: string): Promise<StoredProvider[]> {
      const rows = await control.query(
        `SELECT ${columns} FROM ${live} AND p.issuer = $1 AND p.id_jag ORDER BY p.updated_at DESC`,
        [issuer],
      );
      return rows.map((row) => StoredProvider.parse(row));
    },

    /** Whether another tenant has this name at the sign-in, as the name of its provider or as its id. */
    async isSlugTaken(slug: string, tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `SELECT 1 AS one FROM providers p WHERE p.slug = $1 AND p.tenant_id <> $2 AND p.removed_at IS NULL
         UNION ALL SELECT 1 FROM tenants t WHERE t.id = $1 AND t.id <> $2`,
        [slug, tenantId],
      );
      return rows.length > 0;
    },

    /** Whether an owner can sign in without the tenant's provider. */
    async hasOwnerElsewhere(tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `SELECT 1 AS one FROM members m WHERE m.tenant_id = $1 AND m.role = 'owner' AND m.removed_at IS NULL
           AND m.issuer IS NOT NULL AND ${isConfigured("m.issuer")} LIMIT 1`,
        [tenantId],
      );
      return rows.length > 0;
    },

    /**
     * Saves the tenant's provider. One with another id ends. Domains that are not listed end, too; proved ones stay proved. Returns
     * the members whose identity has ended; `undefined` when the tenant does not exist.
     */
    async save(settings: ProviderSettings, nowMs: number): Promise<{ memberIds: string[] } | undefined> {
      const { tenantId, domains } = settings;
      const names = domains.map(({ domain }) => domain);
      const [tenant = [], ended = []] = await control.batch([
        lockTenant(tenantId),
        endStatement(tenantId, settings.id, nowMs),
        {
          text: `INSERT INTO providers AS p (id, tenant_id, kind, issuer, jwks_url, client_id, client_secret, subject_claim, id_jag, slug,
                   created_at, updated_at)
                 SELECT $2, t.id, $3, $4, $5, $6, $7, $8, $9, $10, ${fromMs("$11")}, ${fromMs("$11")} FROM tenants t
                 WHERE t.id = $1 AND t.state <> 'gone'
                 ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, issuer = excluded.issuer, jwks_url = excluded.jwks_url,
                   client_id = excluded.client_id, client_secret = excluded.client_secret, subject_claim = excluded.subject_claim,
                   id_jag = excluded.id_jag, slug = excluded.slug, updated_at = excluded.updated_at
                 WHERE p.tenant_id = excluded.tenant_id AND p.removed_at IS NULL`,
          params: [
            ...[tenantId, settings.id, settings.kind, settings.issuer, settings.jwksUrl, settings.clientId],
            ...[settings.clientSecret, settings.subjectClaim, settings.idJag, settings.slug, nowMs],
          ],
        },
        {
          text: `DELETE FROM provider_domains WHERE tenant_id = $1 AND domain <> ALL ($2::text[])`,
          params: [tenantId, names],
        },
        {
          text: `INSERT INTO provider_domains (tenant_id, domain, challenge, created_at)
                 SELECT t.id, each.domain, each.challenge, ${fromMs("$4")}
                 FROM tenants t, unnest($2::text[], $3::text[]) AS each (domain, challenge)
                 WHERE t.id = $1 AND t.state <> 'gone' ON CONFLICT DO NOTHING`,
          params: [tenantId, names, domains.map(({ challenge }) => challenge), nowMs],
        },
      ]);
      return tenant.length === 0 ? undefined : Ended.parse(ended[0]);
    },

    /** Removes the tenant's provider, and what rests on it. Returns the members whose identity has ended. */
    async remove(tenantId: TenantId, nowMs: number): Promise<{ memberIds: string[] }> {
      const [, ended = []] = await control.batch([
        lockTenant(tenantId),
        endStatement(tenantId, "", nowMs),
        { text: `DELETE FROM provider_domains WHERE tenant_id = $1`, params: [tenantId] },
      ]);
      return Ended.parse(ended[0]);
    },

    /** Notes that the tenant has proved a domain. taken: another tenant has. gone: the tenant does not claim it any more. */
    async verifyDomain(tenantId: TenantId, domain: string, nowMs: number): Promise<"verified" | "taken" | "gone"> {
      const [, , rows = []] = await control.batch([
        // Two tenants that prove one domain at once come one after the other.
        { text: `SELECT pg_advisory_xact_lock(hashtextextended('provider_domains ' || $1, 0))`, params: [domain] },
        {
          text: `UPDATE provider_domains d SET verified_at = ${fromMs("$3")}
                 WHERE d.tenant_id = $1 AND d.domain = $2 AND d.verified_at IS NULL AND NOT EXISTS (
                   SELECT FROM provider_domains o WHERE o.domain = $2 AND o.verified_at IS NOT NULL)`,
          params: [tenantId, domain, nowMs],
        },
        {
          text: `SELECT verified_at IS NOT NULL AS verified FROM provider_domains WHERE tenant_id = $1 AND domain = $2`,
          params: [tenantId, domain],
        },
      ]);
      if (rows[0] === undefined) return "gone";
      return rows[0]["verified"] === true ? "verified" : "taken";
    },
  };
}

export type ProvidersStore = ReturnType<typeof providersStore>;

/**
 * Ends the tenant's provider unless it has the id `keptId`, and raises the version. A member without an address could not get a new
 * identity, and is removed.
 */
function endStatement(tenantId: TenantId, keptId: string, nowMs: number): Statement {
  return {
    text: `WITH ended AS (
        UPDATE providers p SET removed_at = ${fromMs("$3")}, client_secret = NULL
        WHERE tenant_id = $1 AND removed_at IS NULL AND id <> $2 RETURNING ${identityOf("p")} AS identity),
      people AS (
        UPDATE members m SET issuer = NULL, subject = NULL, sign_ins_since = ${fromMs("$3")},
          removed_at = CASE WHEN m.email IS NULL THEN ${fromMs("$3")} END
        FROM ended e WHERE m.tenant_id = $1 AND m.issuer = e.identity AND m.removed_at IS NULL RETURNING m.id),
      signed_out AS (
        UPDATE sessions s SET ended_at = ${fromMs("$3")} FROM ended e WHERE s.issuer = e.identity AND s.ended_at IS NULL),
      raised AS (UPDATE tenants SET version = version + 1 WHERE id = $1 AND state <> 'gone')
      SELECT coalesce((SELECT jsonb_agg(id) FROM people), '[]'::jsonb) AS "memberIds"`,
    params: [tenantId, keptId, nowMs],
  };
}
