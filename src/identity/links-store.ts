// Links an organisation of an issuer to a tenant. An issuer speaks only for the tenants that are linked to it.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant.ts";

const LinkRow = z.object({ tenant_id: TenantId });

const linkedTenant = `SELECT tenant_id FROM tenant_links WHERE issuer = $1 AND organisation = $2`;

export function linksStore(control: ControlDatabase) {
  return {
    /** Links an issuer's organisation to a tenant. An existing link stays. Returns the tenant that it is linked to now. */
    async link(issuer: string, organisation: string, tenantId: TenantId): Promise<TenantId> {
      const [, rows = []] = await control.batch([
        {
          text: `INSERT INTO tenant_links (issuer, organisation, tenant_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
          params: [issuer, organisation, tenantId],
        },
        { text: linkedTenant, params: [issuer, organisation] },
      ]);
      return LinkRow.parse(rows[0]).tenant_id;
    },

    /** The tenant that the organisation is linked to, if any. */
    async tenant(issuer: string, organisation: string): Promise<TenantId | undefined> {
      const [row] = await control.query(linkedTenant, [issuer, organisation]);
      return row === undefined ? undefined : LinkRow.parse(row).tenant_id;
    },
  };
}
