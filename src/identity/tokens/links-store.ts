// Links organisations of issuers to tenants. An issuer speaks only for the tenants that are linked to it. Every change raises
// the tenant's version, and the tenant's object reads its links with its configuration: a removed link is refused on the
// next request, also where a verified token is cached.
import * as z from "zod";
import { readableRows } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { toIso } from "../../core/time.ts";

/** Organisations of one tenant: companies have a few identity providers. The tenant's object reads all of them. */
export const MAX_LINKS = 50;

const LinkRow = z.object({ tenant_id: TenantId });

export const Link = z.object({ issuer: z.string(), organisation: z.string(), createdAt: z.string() });
export type Link = z.infer<typeof Link>;

const linkedTenant = `SELECT tenant_id FROM tenant_links WHERE issuer = $1 AND organisation = $2`;

export function linksStore(control: ControlDatabase) {
  return {
    /**
     * Links an issuer's organisation to a tenant. An existing link stays. Returns the tenant that it is linked to now, or
     * `undefined` when the tenant has as many links as it may have.
     */
    async link(issuer: string, organisation: string, tenantId: TenantId): Promise<TenantId | undefined> {
      const [, rows = []] = await control.batch([
        {
          text: `WITH added AS (
                   INSERT INTO tenant_links (issuer, organisation, tenant_id)
                   SELECT $1, $2, $3 WHERE (SELECT count(*) FROM tenant_links WHERE tenant_id = $3) < $4
                   ON CONFLICT DO NOTHING RETURNING tenant_id)
                 UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM added)`,
          params: [issuer, organisation, tenantId, MAX_LINKS],
        },
        { text: linkedTenant, params: [issuer, organisation] },
      ]);
      return rows[0] === undefined ? undefined : LinkRow.parse(rows[0]).tenant_id;
    },

    /** Removes a link of the tenant. Returns whether there was one. */
    async unlink(issuer: string, organisation: string, tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `WITH removed AS (
           DELETE FROM tenant_links WHERE issuer = $1 AND organisation = $2 AND tenant_id = $3 RETURNING tenant_id)
         UPDATE tenants SET version = version + 1 WHERE id IN (SELECT tenant_id FROM removed) RETURNING id`,
        [issuer, organisation, tenantId],
      );
      return rows.length > 0;
    },

    /** The tenant's links, the oldest first. */
    async list(tenantId: TenantId): Promise<Link[]> {
      const rows = await control.query(
        `SELECT issuer, organisation, ${toIso("created_at")} AS "createdAt" FROM tenant_links WHERE tenant_id = $1
         ORDER BY created_at, issuer, organisation`,
        [tenantId],
      );
      return readableRows(control, rows, Link, { part: "links", idOf: () => tenantId });
    },

    /** The tenant that the organisation is linked to, if any. */
    async tenant(issuer: string, organisation: string): Promise<TenantId | undefined> {
      const [row] = await control.query(linkedTenant, [issuer, organisation]);
      return row === undefined ? undefined : LinkRow.parse(row).tenant_id;
    },
  };
}
