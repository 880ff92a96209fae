// Shards and placements in the control tables: where tenants' rows are, and how to reach them.
import * as z from "zod";
import { idOfRow, readableRows } from "./failures-store.ts";
import { Occupancy, type Placement, ownShardId, shardCapacity } from "../core/tenant/placement.ts";
import { type Strategy, strategies } from "../core/plans/plans.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { AppError } from "../core/errors.ts";
import { toIso } from "../core/time.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

export const Shard = z.object({
  id: z.string(),
  strategy: z.enum(strategies),
  region: z.string(),
  host: z.string(),
  database: z.string(),
  /** Encrypted; `null` when the Worker never acts as the owner. */
  ownerLogin: z.string().nullable(),
  appLogin: z.string().nullable(),
});
export type Shard = z.infer<typeof Shard>;

const ReservedPlacement = z.object({
  id: z.int(),
  state: z.enum(["preparing", "ready"]),
  /** The files of the tenant's own schema. `null` before the first file, and on shared tables. */
  schemaVersion: z.string().nullable(),
  shard: Shard,
});
/** A placement that is not in force yet. `preparing`: not made yet. */
export type ReservedPlacement = z.infer<typeof ReservedPlacement>;

/** A shard with what analytics needs to read it. */
export const ReadShard = Shard.extend({
  /** `null`: it has no replica. */
  replicaHost: z.string().nullable(),
  /** Encrypted; `null`: `npm run migrate` has not given the login a password yet. */
  analyticsLogin: z.string().nullable(),
});
export type ReadShard = z.infer<typeof ReadShard>;

const AnalyticsShard = ReadShard.extend({
  /** The tenants whose placement in force is a schema of this shard. */
  tenants: z.array(z.object({ id: TenantId, placementId: z.int() })),
  /** The tenants whose rows here are not in force, such as the copy of a running move. */
  copies: z.array(TenantId),
});
export type AnalyticsShard = z.infer<typeof AnalyticsShard>;

export const ListedShard = z.object({
  id: z.string(),
  strategy: z.enum(strategies),
  region: z.string(),
  /** `creating`: Tollgate works on its project, or cannot. `closed`: it takes no new tenants. */
  state: z.enum(["creating", "open", "closed"]),
  tenants: z.int(),
  capacity: z.int(),
  createdAt: z.string(),
});
/** A shard as the operator sees it. */
export type ListedShard = z.infer<typeof ListedShard>;

const ShardProject = z.object({
  /** `null`: not created yet. */
  projectId: z.string().nullable(),
  region: z.string(),
  /** Whether the shard accepts connections. */
  open: z.boolean(),
});
export type ShardProject = z.infer<typeof ShardProject>;

/** A shard row `s` as JSON, fit for `Shard`. */
export const shardJson = `jsonb_build_object('id', s.id, 'strategy', s.strategy, 'region', s.region, 'host', s.host,
  'database', s.database, 'ownerLogin', s.owner_login, 'appLogin', s.app_login)`;

const readShardJson = `${shardJson} || jsonb_build_object('replicaHost', s.replica_host, 'analyticsLogin', s.analytics_login)`;

/** The placement whose id is in `column`, as JSON, fit for `Placement`; NULL until its shard and login exist. */
export const placementJson = (column: string): string => `(SELECT jsonb_build_object('id', p.id, 'strategy', s.strategy,
    'shardId', s.id, 'host', s.host, 'database', s.database, 'login', coalesce(p.login, s.app_login),
    'replicaHost', s.replica_host)
  FROM placements p JOIN shards s ON s.id = p.shard_id
  WHERE p.id = ${column} AND s.host IS NOT NULL AND coalesce(p.login, s.app_login) IS NOT NULL)`;

export function placementsStore(control: ControlDatabase) {
  /** Stores a value of a shard unless one is stored: concurrent attempts agree on the first. Returns the stored one. */
  async function keepFirst(
    shardId: string,
    column: "neon_project_id" | "app_login" | "analytics_login",
    value: string,
  ): Promise<string> {
    const [row] = await control.query(
      `UPDATE shards SET ${column} = coalesce(${column}, $2) WHERE id = $1 RETURNING ${column} AS kept`,
      [shardId, value],
    );
    if (row === undefined) throw new AppError("placement_unavailable", `the entry of shard ${shardId} was removed`);
    return String(row["kept"]);
  }

  return {
    /**
     * The tenant's placement of a strategy, reserved now when it has none. `undefined`: no shard of that strategy (in
     * `region`, unless that is `null`) has room. Schemas fill one shard before the next; shared tables spread over shards.
     */
    async reserve(
      tenantId: TenantId,
      strategy: Strategy,
      region: string | null,
    ): Promise<ReservedPlacement | undefined> {
      const [, , rows = []] = await control.batch([
        // One reservation at a time for a strategy, so that the count below is exact.
        { text: `SELECT pg_advisory_xact_lock(hashtext('placements.' || $1))`, params: [strategy] },
        {
          // An own database belongs to its tenant only.
          text: `WITH room AS (
                   SELECT s.id FROM shards s CROSS JOIN LATERAL (
                     SELECT count(*) AS tenants FROM placements p WHERE p.shard_id = s.id AND p.state <> 'dropped') AS held
                   WHERE s.strategy = $2 AND s.accepts AND s.host IS NOT NULL AND ($3::text IS NULL OR s.region = $3)
                     AND ($2 <> 'database' OR s.id = 'database-' || $1)
                     AND held.tenants < s.capacity
                   ORDER BY CASE WHEN $2 = 'shared' THEN held.tenants ELSE -held.tenants END, s.id LIMIT 1)
                 INSERT INTO placements (tenant_id, shard_id) SELECT $1, id FROM room
                 WHERE NOT EXISTS (SELECT FROM placements p JOIN shards s ON s.id = p.shard_id
                                   WHERE p.tenant_id = $1 AND p.state <> 'dropped' AND s.strategy = $2)`,
          params: [tenantId, strategy, region],
        },
        {
          text: `SELECT jsonb_build_object('id', p.id, 'state', p.state, 'schemaVersion', p.schema_version, 'shard', ${shardJson}) AS placed
                 FROM placements p JOIN shards s ON s.id = p.shard_id
                 WHERE p.tenant_id = $1 AND p.state <> 'dropped' AND s.strategy = $2 ORDER BY p.id DESC LIMIT 1`,
          params: [tenantId, strategy],
        },
      ]);
      return rows[0] === undefined ? undefined : ReservedPlacement.parse(rows[0]["placed"]);
    },

    /** The placement that a move has reserved. */
    async reservedFor(moveId: number): Promise<ReservedPlacement | undefined> {
      const [row] = await control.query(
        `SELECT jsonb_build_object('id', p.id, 'state', p.state, 'schemaVersion', p.schema_version, 'shard', ${shardJson}) AS placed
         FROM moves m JOIN placements p ON p.id = m.to_placement JOIN shards s ON s.id = p.shard_id WHERE m.id = $1`,
        [moveId],
      );
      return row === undefined ? undefined : ReservedPlacement.parse(row["placed"]);
    },

    /** The id of the placement in force. */
    async inForce(tenantId: TenantId): Promise<number | undefined> {
      const [row] = await control.query(`SELECT placement_id::int AS id FROM tenants WHERE id = $1`, [tenantId]);
      return typeof row?.["id"] === "number" ? row["id"] : undefined;
    },

    /** A shard, `undefined` while it cannot be reached. */
    async shard(shardId: string): Promise<Shard | undefined> {
      const [row] = await control.query(
        `SELECT ${shardJson} AS shard FROM shards s WHERE s.id = $1 AND s.host IS NOT NULL`,
        [shardId],
      );
      return row === undefined ? undefined : Shard.parse(row["shard"]);
    },

    /** Stores the encrypted login of the tenant's own role, unless one is stored. Returns the stored one. */
    async keepLogin(placementId: number, login: string): Promise<string> {
      const [row] = await control.query(
        `UPDATE placements SET login = coalesce(login, $2) WHERE id = $1 RETURNING login`,
        [placementId, login],
      );
      return String(row?.["login"]);
    },

    /** Records that a placement is made, and the files of its own schema. A schema never loses a file by this. */
    async markReady(placementId: number, schemaVersion: string | null): Promise<void> {
      await control.query(
        `UPDATE placements SET state = 'ready', schema_version = $2, ready_at = coalesce(ready_at, now())
         WHERE id = $1 AND (state = 'preparing' OR state = 'ready'
           AND string_to_array(coalesce(schema_version, ''), ' ') <@ string_to_array($2, ' '))`,
        [placementId, schemaVersion],
      );
    },

    /** Records the files that a shared database has. */
    async recordShardVersion(shardId: string, schemaVersion: string): Promise<void> {
      await control.query(
        `UPDATE shards SET schema_version = $2 WHERE id = $1 AND schema_version IS DISTINCT FROM $2`,
        [shardId, schemaVersion],
      );
    },

    /** Makes a tenant's first placement the one that its calls use. Changes nothing when the tenant has one. */
    async activate(tenantId: TenantId, placementId: number): Promise<void> {
      await control.query(
        `UPDATE tenants SET placement_id = $2, version = version + 1 WHERE id = $1 AND placement_id IS NULL`,
        [tenantId, placementId],
      );
    },

    /** Replaces a login by the same one under a newer key, unless the login has changed since. */
    async replaceLogin(placement: Pick<Placement, "id" | "login">, login: string): Promise<void> {
      await control.query(`UPDATE placements SET login = $3 WHERE id = $1 AND login = $2`, [
        placement.id,
        placement.login,
        login,
      ]);
    },

    /** The shards of a strategy that can be reached. */
    async shards(strategy: Strategy): Promise<Shard[]> {
      const rows = await control.query(
        `SELECT ${shardJson} AS shard FROM shards s WHERE s.strategy = $1 AND s.host IS NOT NULL ORDER BY s.id`,
        [strategy],
      );
      return rows.map((row) => Shard.parse(row["shard"]));
    },

    /** Every shard that has tenants or will take some. */
    async summaries(): Promise<ListedShard[]> {
      const rows = await control.query(
        `SELECT s.id, s.strategy, s.region, s.capacity, held.tenants, ${toIso("s.created_at")} AS "createdAt",
                CASE WHEN NOT s.accepts THEN 'closed' WHEN s.host IS NULL THEN 'creating' ELSE 'open' END AS state
         FROM shards s CROSS JOIN LATERAL (
           SELECT count(*)::int AS tenants FROM placements p WHERE p.shard_id = s.id AND p.state <> 'dropped') AS held
         WHERE s.accepts OR held.tenants > 0 ORDER BY s.strategy, s.created_at, s.id`,
      );
      return readableRows(control, rows, ListedShard, { part: "shards", idOf: idOfRow });
    },

    /**
     * How full the shards are that new tenants go to, by strategy; `room` only in a region, unless that is `null`. A tenant's
     * own database is always full and left out.
     */
    async occupancy(region: string | null = null): Promise<Occupancy[]> {
      const rows = await control.query(
        `SELECT s.strategy, count(*)::int AS shards, sum(held.tenants)::int AS tenants, sum(s.capacity)::int AS capacity,
                coalesce(sum(greatest(s.capacity - held.tenants, 0)) FILTER (WHERE $1::text IS NULL OR s.region = $1), 0)::int AS room
         FROM shards s CROSS JOIN LATERAL (
           SELECT count(*) AS tenants FROM placements p WHERE p.shard_id = s.id AND p.state <> 'dropped') AS held
         WHERE s.strategy <> 'database' AND s.accepts AND s.host IS NOT NULL GROUP BY s.strategy`,
        [region],
      );
      return rows.map((row) => Occupancy.parse(row));
    },

    /**
     * The shard of a strategy that is being created in a region, or a new entry for the next one. Adds no entry when the
     * number of open shards is not `openShards` any more: the caller found no room before a concurrent caller opened one.
     */
    async shardToOpen(strategy: Strategy, region: string, openShards: number): Promise<string | undefined> {
      const [, , rows = []] = await control.batch([
        { text: `SELECT pg_advisory_xact_lock(hashtext('shards.' || $1))`, params: [strategy] },
        {
          text: `INSERT INTO shards (id, strategy, region, capacity)
                 SELECT $1 || '-' || (SELECT coalesce(max(substring(id FROM '[0-9]+$')::integer), 0) + 1 FROM shards WHERE strategy = $1), $1, $2, $3
                 WHERE NOT EXISTS (SELECT FROM shards WHERE strategy = $1 AND region = $2 AND host IS NULL AND accepts)
                   AND $4 = (SELECT count(*) FROM shards WHERE strategy = $1 AND host IS NOT NULL AND accepts)`,
          params: [strategy, region, shardCapacity[strategy], openShards],
        },
        {
          text: `SELECT id FROM shards WHERE strategy = $1 AND region = $2 AND host IS NULL AND accepts ORDER BY id LIMIT 1`,
          params: [strategy, region],
        },
      ]);
      return rows[0] === undefined ? undefined : String(rows[0]["id"]);
    },

    /** The shard that is one tenant's own database, added when it is missing. */
    async ownShard(tenantId: TenantId, region: string): Promise<string> {
      const id = ownShardId(tenantId);
      await control.query(
        `INSERT INTO shards (id, strategy, region, capacity) VALUES ($1, 'database', $2, 1)
         ON CONFLICT (id) DO UPDATE SET accepts = true`,
        [id, region],
      );
      return id;
    },

    /** The regions of the shards of a strategy that can be reached. */
    async regions(strategy: Strategy): Promise<string[]> {
      const rows = await control.query(
        `SELECT DISTINCT region FROM shards WHERE strategy = $1 AND host IS NOT NULL ORDER BY region`,
        [strategy],
      );
      return rows.map((row) => String(row["region"]));
    },

    /** The Neon project of a shard. */
    async projectOf(shardId: string): Promise<ShardProject | undefined> {
      const [row] = await control.query(
        `SELECT neon_project_id AS "projectId", region, host IS NOT NULL AS open FROM shards WHERE id = $1`,
        [shardId],
      );
      return row && ShardProject.parse(row);
    },

    /**
     * Claims the creation of a shard for one caller, so that concurrent callers create one project. Returns what
     * `releaseShard` needs, and `undefined` while another caller has the claim. A claim ends by itself after `forMs`.
     */
    async claimShard(shardId: string, forMs: number): Promise<string | undefined> {
      const [row] = await control.query(
        `UPDATE shards SET claimed_until = now() + $2 * interval '1 millisecond'
         WHERE id = $1 AND (claimed_until IS NULL OR claimed_until < now()) RETURNING claimed_until::text AS claim`,
        [shardId, forMs],
      );
      return row === undefined ? undefined : String(row["claim"]);
    },

    /** Ends a claim, unless another caller has taken it over. */
    async releaseShard(shardId: string, claim: string): Promise<void> {
      await control.query(`UPDATE shards SET claimed_until = NULL WHERE id = $1 AND claimed_until = $2::timestamptz`, [
        shardId,
        claim,
      ]);
    },

    /** Removes a shard that never had a database. */
    async forgetShard(shardId: string): Promise<void> {
      await control.query(
        `DELETE FROM shards s WHERE s.id = $1 AND s.host IS NULL AND s.neon_project_id IS NULL
           AND NOT EXISTS (SELECT FROM placements p WHERE p.shard_id = s.id)`,
        [shardId],
      );
    },

    /** Stores the Neon project of a shard, unless one is stored. Returns the stored one. */
    async keepProject(shardId: string, projectId: string): Promise<string> {
      return keepFirst(shardId, "neon_project_id", projectId);
    },

    /** Forgets a project that is gone, and its logins, before the shard was opened. The next attempt creates another one. */
    async forgetProject(shardId: string, projectId: string): Promise<void> {
      await control.query(
        `UPDATE shards SET neon_project_id = NULL, app_login = NULL, analytics_login = NULL, schema_version = NULL
         WHERE id = $1 AND neon_project_id = $2 AND host IS NULL`,
        [shardId, projectId],
      );
    },

    /** Records that a shard is removed: it accepts no tenants and has no address. */
    async closeShard(shardId: string): Promise<void> {
      await control.query(
        `UPDATE shards SET accepts = false, host = NULL, owner_login = NULL, neon_project_id = NULL,
           replica_host = NULL, analytics_login = NULL WHERE id = $1`,
        [shardId],
      );
    },

    /**
     * Adds a shard, or changes its address or logins. A changed address raises the version of the shard's tenants, so that
     * their objects read it, and removes the replica and the analytics login, which belonged to the old database.
     */
    async registerShard(shard: Shard): Promise<void> {
      await control.batch([
        {
          text: `UPDATE tenants t SET version = t.version + 1 FROM placements p JOIN shards s ON s.id = p.shard_id
                 WHERE p.id = t.placement_id AND s.id = $1 AND (s.host, s.database) IS DISTINCT FROM ($2, $3)`,
          params: [shard.id, shard.host, shard.database],
        },
        {
          text: `INSERT INTO shards (id, strategy, region, host, database, owner_login, app_login, capacity)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (id) DO UPDATE SET host = excluded.host, database = excluded.database,
                   owner_login = excluded.owner_login, app_login = excluded.app_login,
                   replica_host = CASE WHEN (shards.host, shards.database) = (excluded.host, excluded.database)
                     THEN shards.replica_host END,
                   analytics_login = CASE WHEN shards.host IS NULL OR (shards.host, shards.database) = (excluded.host, excluded.database)
                     THEN shards.analytics_login END`,
          params: [
            shard.id,
            shard.strategy,
            shard.region,
            shard.host,
            shard.database,
            shard.ownerLogin,
            shard.appLogin,
            shardCapacity[shard.strategy],
          ],
        },
      ]);
    },

    /**
     * Opens a shard that Tollgate has created: tenants are placed there from now on. Changes nothing when it is open, so that
     * a late attempt replaces no newer login, nor when it was closed meanwhile.
     */
    async openShard(shard: Shard): Promise<void> {
      await control.query(
        `UPDATE shards SET host = $2, database = $3, owner_login = $4, app_login = $5
         WHERE id = $1 AND host IS NULL AND accepts`,
        [shard.id, shard.host, shard.database, shard.ownerLogin, shard.appLogin],
      );
    },

    /** Sets the address of a shard's replica; `null` removes it. False when there is no such shard. */
    async setReplica(shardId: string, replicaHost: string | null): Promise<boolean> {
      const [, rows = []] = await control.batch([
        {
          text: `UPDATE tenants t SET version = t.version + 1 FROM placements p JOIN shards s ON s.id = p.shard_id
                 WHERE p.id = t.placement_id AND s.id = $1 AND s.replica_host IS DISTINCT FROM $2`,
          params: [shardId, replicaHost],
        },
        {
          text: `UPDATE shards SET replica_host = $2 WHERE id = $1 RETURNING id`,
          params: [shardId, replicaHost],
        },
      ]);
      return rows.length > 0;
    },

    /** Stores the encrypted analytics login of a shard, unless one is stored. Returns the stored one. */
    async keepAnalyticsLogin(shardId: string, login: string): Promise<string> {
      return keepFirst(shardId, "analytics_login", login);
    },

    /** Stores the encrypted login of a shared shard's tools, unless one is stored. Returns the stored one. */
    async keepAppLogin(shardId: string, login: string): Promise<string> {
      return keepFirst(shardId, "app_login", login);
    },

    /** The shards that have a replica. */
    async replicated(): Promise<ReadShard[]> {
      const rows = await control.query(
        `SELECT ${readShardJson} AS shard FROM shards s
         WHERE s.host IS NOT NULL AND s.replica_host IS NOT NULL ORDER BY s.id`,
      );
      return rows.map((row) => ReadShard.parse(row["shard"]));
    },

    /** All shards, or those of one strategy, with the tenants to read or to leave out, so that each tenant counts once. */
    async analyticsShards(strategy: Strategy | null): Promise<AnalyticsShard[]> {
      const rows = await control.query(
        `SELECT ${readShardJson} || jsonb_build_object('tenants', coalesce(held.tenants, '[]'), 'copies', coalesce(held.copies, '[]')) AS shard
         FROM shards s CROSS JOIN LATERAL (
           SELECT jsonb_agg(jsonb_build_object('id', t.id, 'placementId', p.id) ORDER BY p.id)
                    FILTER (WHERE s.strategy <> 'shared' AND t.placement_id = p.id) AS tenants,
                  jsonb_agg(t.id) FILTER (WHERE s.strategy = 'shared' AND t.placement_id IS DISTINCT FROM p.id) AS copies
           FROM placements p JOIN tenants t ON t.id = p.tenant_id WHERE p.shard_id = s.id AND p.state <> 'dropped') AS held
         WHERE s.host IS NOT NULL AND ($1::text IS NULL OR s.strategy = $1) ORDER BY s.id`,
        [strategy],
      );
      return rows.map((row) => AnalyticsShard.parse(row["shard"]));
    },
  };
}

export type PlacementsStore = ReturnType<typeof placementsStore>;
