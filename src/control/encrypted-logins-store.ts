// The sealed logins of the control tables, whatever they are for: found by the key that they are sealed with.
import { loginPurpose } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import type { NeonConnection } from "../adapters/neon.ts";

const shardColumns = { owner_login: "owner", app_login: "app", analytics_login: "analytics" } as const;
type ShardColumn = keyof typeof shardColumns;

export interface SealedShardLogin {
  shardId: string;
  column: ShardColumn;
  purpose: string;
  login: string;
}

export function controlSeals(db: NeonConnection) {
  return {
    /** Shards' logins that are sealed with another key than this one. */
    async shardLoginsNotUnder(keyId: string, limit: number): Promise<SealedShardLogin[]> {
      const selects = Object.keys(shardColumns).map(
        (column) => `SELECT id AS "shardId", '${column}' AS "column", ${column} AS login FROM shards
                     WHERE split_part(${column}, '.', 2) <> $1`,
      );
      const rows = await db.query(`${selects.join(" UNION ALL ")} LIMIT $2`, [keyId, limit]);
      return (rows as unknown as Omit<SealedShardLogin, "purpose">[]).map((row) => ({
        ...row,
        purpose: loginPurpose[shardColumns[row.column]](row.shardId),
      }));
    },

    /** Replaces a shard's login by the same one under another key, unless it has changed since. */
    async resealShard({ shardId, column, login }: SealedShardLogin, sealed: string): Promise<void> {
      await db.query(`UPDATE shards SET ${column} = $3 WHERE id = $1 AND ${column} = $2`, [shardId, login, sealed]);
    },

    /** Tenants whose own login is sealed with another key than this one. Their objects seal it anew. */
    async tenantsNotUnder(keyId: string, limit: number): Promise<TenantId[]> {
      const rows = await db.query(
        `SELECT t.id FROM tenants t JOIN placements p ON p.id = t.placement_id
         WHERE split_part(p.login, '.', 2) <> $1 ORDER BY p.id LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => row["id"] as TenantId);
    },
  };
}
