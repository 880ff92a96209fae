// Makes the databases that tenants' schemas are in, on Neon: a project each. Neon works for seconds on one, so this is
// asked again and again by a Workflow that sleeps in between; whatever was done is found again, by name or in the control
// tables.
import { setUpBranch } from "./branch.ts";
import { type ControlPlacements, placementsOf } from "../control/placements-store.ts";
import { encryptLogin, giveAnalyticsLogin } from "./dispatch.ts";
import { connectNeon } from "../adapters/neon.ts";
import { connectNeonApi } from "../adapters/neon-api.ts";
import { AppError } from "../core/errors.ts";
import { connectionUrl, loginPurpose, ownShardId } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { log } from "../log.ts";
import { branchMigrations } from "./migrations.ts";

/** The version that all is tested with. */
const POSTGRES_VERSION = 18;
/** How long a Workflow sleeps before it asks again. */
export const OPENING_POLL_MS = 1_000;
/** With less room than this, the next shard of own schemas is made ahead, so that no sign-up waits for it. */
const ROOM_AHEAD = 40;

/** Goes on with making room for a tenant of this tier. Returns whether there is room now. */
export async function makeRoom(
  env: Env,
  tenantId: TenantId,
  { strategy, region }: { strategy: Strategy; region: string | null },
): Promise<boolean> {
  const placements = placementsOf(env);
  if (strategy === "shared") {
    throw new AppError("placement_unavailable", "no shared shard has room: add one with npm run migrate");
  }
  const where = region ?? env.NEON_REGION;
  const shardId =
    strategy === "database"
      ? await placements.ownShard(tenantId, where)
      : await placements.shardToOpen(strategy, where);
  return openShard(env, placements, { id: shardId, strategy });
}

/** Goes on with making the next shard of own schemas if the others are nearly full. Returns whether that is done. */
export async function makeRoomAhead(env: Env): Promise<boolean> {
  const placements = placementsOf(env);
  if ((await placements.roomLeft("schema")) >= ROOM_AHEAD) return true;
  const id = await placements.shardToOpen("schema", env.NEON_REGION);
  return openShard(env, placements, { id, strategy: "schema" });
}

async function openShard(
  env: Env,
  placements: ControlPlacements,
  { id, strategy }: { id: string; strategy: Strategy },
): Promise<boolean> {
  const known = await placements.projectOf(id);
  if (known === undefined) throw new AppError("placement_unavailable", `there is no shard ${id}`);
  if (known.open) return true;
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  let { projectId } = known;
  if (projectId === null) {
    const opened = await neon.openProject({
      name: projectName(id),
      regionId: known.region,
      pgVersion: POSTGRES_VERSION,
    });
    projectId = await placements.keepProject(id, opened.projectId);
    // Made by an attempt that raced with this one; nothing is in it, but only a person may be sure of that.
    for (const duplicate of opened.duplicates)
      log("error", "neon_project_duplicate", { shard: id, project: duplicate });
  }
  if (!(await neon.projectReady(projectId))) return false;
  const { pooledHost: host, database, user, password } = await neon.ownerConnection(projectId);
  const ownerUrl = connectionUrl({ host, database }, `${user}:${password}`);
  await setUpBranch(ownerUrl, env.NEON_FETCH_ENDPOINT, branchMigrations);
  await giveAnalyticsLogin(env, placements, id, connectNeon(ownerUrl, env.NEON_FETCH_ENDPOINT));
  const ownerLogin = await encryptLogin(env, loginPurpose.owner(id), `${user}:${password}`);
  await placements.registerShard({ id, strategy, region: known.region, host, database, ownerLogin, appLogin: null });
  return true;
}

function projectName(shardId: string): string {
  return `tollgate-${shardId}`;
}

/**
 * Removes the project of a tenant's own database by its name, also one whose id nobody has kept. Returns whether Neon lists
 * none any more; true for a tenant that never had one. May be repeated.
 */
export async function closeOwnShard(env: Env, tenantId: TenantId): Promise<boolean> {
  const placements = placementsOf(env);
  const id = ownShardId(tenantId);
  if ((await placements.projectOf(id)) === undefined) return true;
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  const isGone = await neon.closeProjectsNamed(projectName(id));
  if (isGone) await placements.closeShard(id);
  return isGone;
}

/** Removes a tenant's own database. May be repeated. */
export async function closeShard(env: Env, shardId: string): Promise<void> {
  const placements = placementsOf(env);
  const known = await placements.projectOf(shardId);
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  if (known?.projectId !== null && known?.projectId !== undefined) await neon.closeProject(known.projectId);
  await placements.closeShard(shardId);
}
