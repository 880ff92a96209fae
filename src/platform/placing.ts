// Gives a tenant its place: reserved in the control tables first, with the password of its login, then made, then put in
// force. Each step finds what an earlier attempt has done, and attempts that overlap make the same thing, so that all of
// it can be repeated at any point. It runs in the tenant's object, where logins are opened.
import { type Branch, openBranch } from "../adapters/branch.ts";
import { type PlacedTenant, type Shard, placementsOf } from "../adapters/control-placements.ts";
import { ownerUrl, sealLogin, unsealLogin } from "../adapters/dispatch.ts";
import { AppError } from "../core/errors.ts";
import { type Placement, loginPurpose, ownName } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { closeShard, makeRoom } from "./shard-opening.ts";
import { tenantMigrations } from "./tenant-migrations.ts";

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
  const offered = await sealLogin(env, purpose, `${ownName(placementId)}:${password}`);
  // The first offer stays: an attempt that was given up may still be on its way, and must set the same password.
  const login = await unsealLogin(env, purpose, await placements.keepLogin(placementId, offered));
  const branch = await branchOf(env, shard);
  await branch.createTenant({ placementId, tenantId, password: login.slice(login.indexOf(":") + 1) });
  await placements.ready(placementId, tenantMigrations.at(-1)?.name ?? null);
}

/** Removes a tenant's role and schema with all its rows, or its whole database. */
export async function removePlace(env: Env, placement: Placement): Promise<void> {
  if (placement.strategy === "database") return closeShard(env, placement.shardId);
  const shard = await placementsOf(env).shard(placement.shardId);
  if (shard !== undefined) await (await branchOf(env, shard)).dropTenant(placement.id);
}

async function branchOf(env: Env, shard: Shard): Promise<Branch> {
  return openBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT, tenantMigrations);
}
