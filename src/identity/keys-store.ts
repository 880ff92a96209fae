// API keys and the generation of monitor tokens, in the control tables. Every change of a key raises the tenant's version in the same transaction, so that the tenant's
// object reads its keys again.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import type { TenantId } from "../core/tenant.ts";
import { toIso } from "../core/time.ts";

const KeySummary = z.object({
  id: z.string(),
  name: z.string(),
  scopes: z.array(z.string()),
  createdAt: z.string(),
  expiresAt: z.string().nullable(),
  revokedAt: z.string().nullable(),
});
export type KeySummary = z.infer<typeof KeySummary>;

const Generation = z.object({ generation: z.int() });

export function keysStore(control: ControlDatabase) {
  return {
    /**
     * Adds a key and raises the version. With `first`, only when the tenant never had a key. Returns whether the tenant has
     * this key now, so that the caller may repeat it after a lost answer.
     */
    async add(
      tenantId: TenantId,
      key: { id: string; name: string; hash: string; scopes: readonly string[]; expiresAt: string | null },
      options: { first: boolean; maxKeys: number },
    ): Promise<boolean> {
      const [, , , rows = []] = await control.batch([
        // A statement of its own: the next one must count the keys that stand once the lock is held.
        { text: `SELECT FROM tenants WHERE id = $1 FOR UPDATE`, params: [tenantId] },
        {
          text: `WITH held AS (SELECT count(*) FILTER (WHERE revoked_at IS NULL) AS live, count(*) AS ever
                               FROM api_keys WHERE tenant_id = $1)
                 INSERT INTO api_keys (id, tenant_id, name, hash, scopes, expires_at)
                 SELECT $2, t.id, $3, $4, $5::text[], $6::timestamptz FROM tenants t, held
                 WHERE t.id = $1 AND t.state <> 'gone' AND held.live < $7 AND (NOT $8::boolean OR held.ever = 0)
                 ON CONFLICT (id) DO NOTHING`,
          params: [
            tenantId,
            key.id,
            key.name,
            key.hash,
            [...key.scopes],
            key.expiresAt,
            options.maxKeys,
            options.first,
          ],
        },
        raiseVersion(tenantId),
        { text: `SELECT FROM api_keys WHERE id = $1 AND hash = $2`, params: [key.id, key.hash] },
      ]);
      return rows.length > 0;
    },

    /** The tenant's keys, the oldest first, revoked ones included. */
    async list(tenantId: TenantId): Promise<KeySummary[]> {
      const rows = await control.query(
        `SELECT id, name, scopes, ${toIso("created_at")} AS "createdAt", ${toIso("expires_at")} AS "expiresAt",
                ${toIso("revoked_at")} AS "revokedAt" FROM api_keys WHERE tenant_id = $1 ORDER BY created_at, id`,
        [tenantId],
      );
      return rows.map((row) => KeySummary.parse(row));
    },

    /** Revokes a key and raises the version. Returns whether the tenant has such a key. Repeating it changes nothing. */
    async revoke(tenantId: TenantId, keyId: string): Promise<boolean> {
      const [rows = []] = await control.batch([
        {
          text: `UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id = $1 AND id = $2 RETURNING id`,
          params: [tenantId, keyId],
        },
        raiseVersion(tenantId),
      ]);
      return rows.length > 0;
    },

    /** The generation of the tenant's monitor tokens; `undefined` for a tenant that does not exist. */
    async monitorGeneration(tenantId: TenantId): Promise<number | undefined> {
      const [row] = await control.query(`SELECT monitor_generation AS generation FROM tenants WHERE id = $1`, [
        tenantId,
      ]);
      return row === undefined ? undefined : Generation.parse(row).generation;
    },

    /** Revokes every monitor token of the tenant. The monitor counts as not registered until it has a new one. */
    async revokeMonitorTokens(tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `UPDATE tenants SET monitor_generation = monitor_generation + 1, monitored_at = NULL
         WHERE id = $1 AND state <> 'gone' RETURNING id`,
        [tenantId],
      );
      return rows.length > 0;
    },
  };
}

function raiseVersion(tenantId: TenantId): { text: string; params: unknown[] } {
  return { text: `UPDATE tenants SET version = version + 1 WHERE id = $1`, params: [tenantId] };
}
