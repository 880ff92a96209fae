// Gives a tenant its place: reserved in the control tables first, with the password of its login, then made, then put in
// force. Each step finds what an earlier attempt has done, and attempts that overlap make the same thing, so that all of
// it can be repeated at any point. It runs in the tenant's object, where logins are opened.
import { type Branch, openBranch } from "./branch.ts";
import { type PlacedTenant, type Shard, placementsOf } from "../control/placements-store.ts";
import { openTenantDb, ownerUrl, encryptLogin, decryptLogin } from "./dispatch.ts";
import { type NeonConnection, connectNeon } from "../adapters/neon.ts";
import { emptyTables, forgetChanges, setGate, tablesOf, underToken } from "./copy.ts";
import { AppError } from "../core/errors.ts";
import { type Placement, loginPurpose, ownName } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant.ts";
import { closeShard, makeRoom } from "./shards.ts";
import { tenantMigrations } from "./migrations.ts";

/** How long a writer that is under way is waited for when the tenant's gate moves. */
export const GATE_WAIT_MS = 1_000;

/** Goes on with finding the tenant a place of this strategy. False: a database for it is being made; ask again. */
export async function findPlace(
  env: Env,
  tenantId: TenantId,
  wanted: { strategy: Strategy; region: string | null },
): Promise<boolean> {
  const find = () => placementsOf(env).place(tenantId, wanted.strategy, wanted.region);
  if ((await find()) !== undefined) return true;
  return (await makeRoom(env, tenantId, wanted)) && (await find()) !== undefined;
}

/** Makes the place that was found, and puts it in force. Throws `placement_unavailable` when none was found. */
export async function placeTenant(
  env: Env,
  tenantId: TenantId,
  { strategy, region }: { strategy: Strategy; region: string | null },
): Promise<void> {
  const placements = placementsOf(env);
  const placed = await placements.place(tenantId, strategy, region);
  if (placed === undefined) {
    throw new AppError(
      "placement_unavailable",
      `no ${strategy} shard has room${region === null ? "" : ` in ${region}`}`,
    );
  }
  await makePlace(env, tenantId, placed);
  await placements.settle(tenantId, placed.id);
}

/** Makes a reserved place: for a schema of its own, the tenant's role, schema and tables. */
export async function makePlace(env: Env, tenantId: TenantId, placed: PlacedTenant): Promise<void> {
  const { id: placementId, shard } = placed;
  const placements = placementsOf(env);
  if (placed.state === "ready") return;
  if (shard.strategy === "shared") return placements.ready(placementId, null);
  const purpose = loginPurpose.tenant(placementId);
  const password = crypto.randomUUID() + crypto.randomUUID();
  const offered = await encryptLogin(env, purpose, `${ownName(placementId)}:${password}`);
  // The first offer stays: an attempt that was given up may still be on its way, and must set the same password.
  const login = await decryptLogin(env, purpose, await placements.keepLogin(placementId, offered));
  const branch = await branchOf(env, shard);
  await branch.createTenant({ placementId, tenantId, password: login.slice(login.indexOf(":") + 1) });
  await placements.ready(placementId, tenantMigrations.at(-1)?.name ?? null);
}

/**
 * Removes what is at a place: a tenant's rows, some at a time, with what was noted of their changes; its role and schema
 * with all that is in it; or its whole database. May be repeated.
 */
export async function dropPlace(env: Env, tenantId: TenantId, placement: Placement): Promise<void> {
  switch (placement.strategy) {
    case "database":
      return closeShard(env, placement.shardId);
    case "schema":
      return dropSchema(env, placement);
    case "shared": {
      const [db, owner] = await Promise.all([
        openTenantDb(env, tenantId, placement),
        placeOwner(env, placement.shardId),
      ]);
      const asTenant = (statements: readonly Statement[]): Promise<Row[][]> => db.transaction(statements);
      // As a copy, so that its end is not noted as the tenant's changes.
      await markAsCopy(owner, tenantId, 0);
      await emptyTables(asTenant, await tablesOf(asTenant), [underToken(0)]);
      return forgetChanges(owner, tenantId);
    }
    default:
      return placement.strategy satisfies never;
  }
}

/** Removes the role and the schema of a placement, which need not have been made. */
export async function dropSchema(env: Env, placement: Pick<Placement, "id" | "shardId">): Promise<void> {
  const shard = await placementsOf(env).shard(placement.shardId);
  if (shard !== undefined) await (await branchOf(env, shard)).dropTenant(placement.id);
}

/** Has what is written to a tenant's rows count as a copy, which is not noted. */
export async function markAsCopy(owner: NeonConnection, tenantId: TenantId, token: number): Promise<void> {
  if (!(await setGate(owner, tenantId, { state: "loading", token }, GATE_WAIT_MS))) {
    throw new AppError("database_unavailable", "an earlier copy is still being written");
  }
}

/** A shard as its owner. */
export async function placeOwner(env: Env, shardId: string): Promise<NeonConnection> {
  const shard = await placementsOf(env).shard(shardId);
  if (shard === undefined) throw new AppError("placement_unavailable", `there is no shard ${shardId}`);
  return connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
}

async function branchOf(env: Env, shard: Shard): Promise<Branch> {
  return openBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT, tenantMigrations);
}
