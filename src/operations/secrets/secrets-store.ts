// The secrets of tenants in the control tables. Every change raises the tenant's version in the same transaction, so that the
// tenant's object has it on the next call.
import * as z from "zod";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { Statement } from "../../core/sql.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { MAX_TENANT_SECRETS } from "../../core/tenant/tool-secrets.ts";
import { fromMs, toIso } from "../../core/time.ts";
import { lockTenant } from "../../identity/members/invitations-store.ts";

const StoredSecret = z.object({
  name: z.string(),
  setAt: z.string(),
  setBy: z.object({ kind: z.string(), id: z.string().nullable() }),
});
export type StoredSecret = z.infer<typeof StoredSecret>;

const EncryptedSecret = z.object({ tenantId: TenantId, name: z.string(), value: z.string() });
export type EncryptedSecret = z.infer<typeof EncryptedSecret>;

export function secretsStore(control: ControlDatabase) {
  return {
    /** The secrets that the tenant has set, by name. No value is among them. */
    async list(tenantId: TenantId): Promise<StoredSecret[]> {
      const rows = await control.query(
        `SELECT name, ${toIso("set_at")} AS "setAt", jsonb_build_object('kind', set_by_kind, 'id', set_by_id) AS "setBy"
         FROM tenant_secrets WHERE tenant_id = $1 ORDER BY name`,
        [tenantId],
      );
      return rows.map((row) => StoredSecret.parse(row));
    },

    /** Sets a secret to an encrypted value. full: the tenant has as many as it may have. gone: there is no such tenant. */
    async set(
      { tenantId, name, value }: EncryptedSecret,
      by: StoredSecret["setBy"],
      nowMs: number,
    ): Promise<"set" | "full" | "gone"> {
      const [tenant = [], written = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `INSERT INTO tenant_secrets AS s (tenant_id, name, value, set_at, set_by_kind, set_by_id)
                 SELECT t.id, $2, $3, ${fromMs("$4")}, $5, $6 FROM tenants t
                 WHERE t.id = $1 AND t.state <> 'gone'
                   AND (SELECT count(*) FROM tenant_secrets o WHERE o.tenant_id = $1 AND o.name <> $2) < $7
                 ON CONFLICT (tenant_id, name) DO UPDATE SET value = excluded.value, set_at = excluded.set_at,
                   set_by_kind = excluded.set_by_kind, set_by_id = excluded.set_by_id
                 RETURNING s.name`,
          params: [tenantId, name, value, nowMs, by.kind, by.id, MAX_TENANT_SECRETS],
        },
        raiseVersion(tenantId),
      ]);
      if (tenant.length === 0) return "gone";
      return written.length === 0 ? "full" : "set";
    },

    /** Removes a secret. Returns whether the tenant had it. */
    async remove(tenantId: TenantId, name: string): Promise<boolean> {
      const [, removed = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `DELETE FROM tenant_secrets WHERE tenant_id = $1 AND name = $2 RETURNING name`,
          params: [tenantId, name],
        },
        raiseVersion(tenantId),
      ]);
      return removed.length > 0;
    },

    /** Secrets that another key than this one encrypted. */
    async notUnder(keyId: string, limit: number): Promise<EncryptedSecret[]> {
      const rows = await control.query(
        `SELECT tenant_id AS "tenantId", name, value FROM tenant_secrets
         WHERE split_part(value, '.', 2) <> $1 ORDER BY tenant_id, name LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => EncryptedSecret.parse(row));
    },

    /** Replaces a value by the same one under another key, unless it has changed since. Raises the version. */
    async replace({ tenantId, name, value }: EncryptedSecret, encrypted: string): Promise<void> {
      await control.batch([
        {
          text: `UPDATE tenant_secrets SET value = $4 WHERE tenant_id = $1 AND name = $2 AND value = $3`,
          params: [tenantId, name, value, encrypted],
        },
        raiseVersion(tenantId),
      ]);
    },
  };
}

function raiseVersion(tenantId: TenantId): Statement {
  return { text: `UPDATE tenants SET version = version + 1 WHERE id = $1 AND state <> 'gone'`, params: [tenantId] };
}
