// Rows that a new tenant starts with: the settings and the seed of app/config.ts. Writing them also proves that the tenant
// can write.
import { config } from "../core/app-config.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { TenantDb } from "../tools/tool.ts";

/** Writes the rows that are missing. A row that the tenant has changed stays as it is. */
export async function seedTenant(db: TenantDb): Promise<void> {
  await db.transaction([
    {
      text: `INSERT INTO settings (key, value) SELECT key, value FROM jsonb_each($1::jsonb) ON CONFLICT DO NOTHING`,
      params: [JSON.stringify(config.settings)],
    },
    ...(config.seed ?? []),
  ]);
}

/** The fault in the rows that a tenant sees, in Tollgate's words. `undefined`: there is none. */
export async function checkTenantRows(db: TenantDb, tenantId: TenantId): Promise<string | undefined> {
  const [row] = await db.query<{ own: number; foreign: number }>(
    `SELECT count(*) FILTER (WHERE tenant_id = $1)::int AS own,
            count(*) FILTER (WHERE tenant_id <> $1)::int AS "foreign" FROM settings`,
    [tenantId],
  );
  if (row === undefined || row.foreign > 0) return "rows of another tenant are visible";
  return row.own > 0 ? undefined : "the tenant's settings are missing";
}
