// Where a tenant's rows are. A shard is a database that holds tenants; a placement is one tenant's part of a shard. Both are
// rows of the control tables: the dispatcher (tenant-db/dispatch.ts) reads them, tools never do.
import * as z from "zod";
import { type Strategy, strategies } from "../plans/plans.ts";

export const Placement = z.object({
  id: z.int().positive(),
  strategy: z.enum(strategies),
  shardId: z.string(),
  /** `host` or `host:port`. */
  host: z.string(),
  database: z.string(),
  /** Encrypted `user:password` of the login that the tenant's tools run as. */
  login: z.string(),
  /** The `host` or `host:port` that analytics reads from; `null`: the shard has no replica. */
  replicaHost: z.string().nullable().default(null),
});
export type Placement = z.infer<typeof Placement>;

/**
 * How many tenants a shard of each strategy takes. Neon allows 500 roles in a database with schemas: 400 leaves room for
 * tenants that move in while others move out.
 */
export const shardCapacity: Readonly<Record<Strategy, number>> = { shared: 10_000, schema: 400, database: 1 };

/** The strategies whose shards take many tenants, in the order in which Tollgate makes room. */
const pooledStrategies = ["shared", "schema"] as const satisfies readonly Strategy[];
export type PooledStrategy = (typeof pooledStrategies)[number];

/** How many tenants the shards of a strategy have and take. `room`: how many more, in a region if one was named. */
export const Occupancy = z.object({
  strategy: z.enum(pooledStrategies),
  shards: z.int().positive(),
  tenants: z.int(),
  capacity: z.int().positive(),
  room: z.int(),
});
export type Occupancy = z.infer<typeof Occupancy>;

/**
 * Tollgate creates the next shard of a strategy when the others are this full, so that no sign-up waits for it. The alarm about
 * full shards starts at 90: then Tollgate could not create the next one.
 */
const NEXT_SHARD_PERCENT = 85;

/** How full the shards of the fullest strategy are, in whole percent. `null`: there are no shards. */
export function fullestPercent(shards: readonly Occupancy[]): number | null {
  return shards.length === 0 ? null : Math.max(...shards.map(percentOf));
}

/** The strategies that need their next shard, or their first one. `shards` has each strategy once at most. */
export function strategiesToExtend(shards: readonly Occupancy[]): PooledStrategy[] {
  return pooledStrategies.filter((strategy) => {
    const known = shards.find((each) => each.strategy === strategy);
    return known === undefined || percentOf(known) >= NEXT_SHARD_PERCENT;
  });
}

function percentOf({ tenants, capacity }: Occupancy): number {
  return Math.floor((100 * tenants) / capacity);
}

/**
 * The name of both the role and the schema of a placement. It contains the placement's id only, so that no two tenants
 * share a name and a reader of the catalogue learns no tenant's id.
 */
export function ownName(placementId: number): string {
  return `tenant_${placementId}`;
}

/** The shard that is one tenant's own database. */
export function ownShardId(tenantId: string): string {
  return `database-${tenantId}`;
}

/** The tenant whose own database this shard is; `undefined` for a shard of many tenants. */
export function ownerOfShard(shardId: string): string | undefined {
  const prefix = ownShardId("");
  return shardId.startsWith(prefix) ? shardId.slice(prefix.length) : undefined;
}

/** The purpose that each encrypted login is bound to. A login decrypts for its own purpose only. */
export const loginPurpose = {
  owner: (shardId: string) => `shard:${shardId}:owner`,
  app: (shardId: string) => `shard:${shardId}:app`,
  analytics: (shardId: string) => `shard:${shardId}:analytics`,
  tenant: (placementId: number) => `placement:${placementId}`,
} as const;

/** The purpose of the login that a placement's tools run as. Placements on shared tables share one login. */
export function purposeOf(placement: Pick<Placement, "id" | "strategy" | "shardId">): string {
  return placement.strategy === "shared" ? loginPurpose.app(placement.shardId) : loginPurpose.tenant(placement.id);
}

/** A connection string for a decrypted `user:password`. */
export function connectionUrl({ host, database }: { host: string; database: string }, login: string): string {
  const colon = login.indexOf(":");
  const [user, password] = [login.slice(0, colon), login.slice(colon + 1)].map(encodeURIComponent);
  return `postgresql://${user}:${password}@${host}/${encodeURIComponent(database)}`;
}
