// Where a tenant's rows are. A shard is a database that holds tenants; a placement is one tenant's place in one. Both are
// rows of the control tables: the dispatcher reads them, tools never do.
import * as z from "zod";
import { type Strategy, strategies } from "./plans.ts";

export const Placement = z.object({
  id: z.int().positive(),
  strategy: z.enum(strategies),
  shardId: z.string(),
  /** `host` or `host:port`. */
  host: z.string(),
  database: z.string(),
  /** Sealed `user:password` of the login that the tenant's tools run as. */
  login: z.string(),
  /** Where analytics reads, as `host`; `null`: there is no replica. */
  replicaHost: z.string().nullable().default(null),
});
export type Placement = z.infer<typeof Placement>;

/** How many tenants a shard of each strategy takes. Neon allows 500 roles a branch: 400 leaves room for those who move. */
export const shardCapacity: Readonly<Record<Strategy, number>> = { shared: 10_000, schema: 400, database: 1 };

/**
 * The name of both the role and the schema of a placement. Made of the placement's id alone: no two tenants share one,
 * whatever their ids are, and whoever reads a catalogue learns nothing from it.
 */
export function ownName(placementId: number): string {
  return `tenant_${placementId}`;
}

/** The shard that is one tenant's own database. */
export function ownShardId(tenantId: string): string {
  return `database-${tenantId}`;
}

/** What a sealed login is sealed for. */
export const loginPurpose = {
  owner: (shardId: string) => `shard:${shardId}:owner`,
  app: (shardId: string) => `shard:${shardId}:app`,
  analytics: (shardId: string) => `shard:${shardId}:analytics`,
  tenant: (placementId: number) => `placement:${placementId}`,
} as const;

/** What the login of a placement's tools is sealed for: shared tables have one for all, the others one each. */
export function purposeOf(placement: Pick<Placement, "id" | "strategy" | "shardId">): string {
  return placement.strategy === "shared" ? loginPurpose.app(placement.shardId) : loginPurpose.tenant(placement.id);
}

/** A connection string of an opened `user:password`. */
export function connectionUrl({ host, database }: { host: string; database: string }, login: string): string {
  const colon = login.indexOf(":");
  const [user, password] = [login.slice(0, colon), login.slice(colon + 1)].map(encodeURIComponent);
  return `postgresql://${user}:${password}@${host}/${encodeURIComponent(database)}`;
}
