// Shards: creates the databases that tenants' schemas and own databases need, one Neon project each, removes them, and repairs
// shared ones. Neon works on a project for seconds, so a Workflow calls these functions repeatedly and sleeps in between. Each call
// finds earlier work again, by the project's name or in the control tables.
import { connectNeon, isLoginRefused } from "../adapters/neon.ts";
import { type OpenedProject, connectNeonApi } from "../adapters/neon-api.ts";
import type { Context } from "../control/context.ts";
import { type PlacementsStore, type Shard, placementsStore } from "../control/placements-store.ts";
import { AppError, isPermanent } from "../core/errors.ts";
import { connectionUrl, loginPurpose, ownShardId } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { parseKeyRing } from "../core/encryption.ts";
import { describeError, log } from "../log.ts";
import { setUpBranch } from "./branch.ts";
import { decryptLogin, encryptLogin, giveAnalyticsLogin, ownerUrl } from "./dispatch.ts";
import { restoreCanaries } from "./isolation.ts";
import { branchMigrations } from "./migrations.ts";

type Databases = Pick<Context, "env" | "control">;

/** The repair of a shared database takes three round trips. A database that is away must not delay the sweep. */
const REPAIR_WITHIN_MS = 5_000;

/** The PostgreSQL version that all tests run on. */
const POSTGRES_VERSION = 18;
/** How long a Workflow sleeps between two calls. Neon needs a few seconds for a project. */
export const OPENING_POLL_MS = 1_000;
/** With less room than this, the next shard for schemas is created ahead, so that no sign-up waits for it. */
const ROOM_AHEAD = 40;

/** Advances the making of room for a tenant of this strategy. Returns whether there is room now. */
export async function makeRoom(
  context: Databases,
  tenantId: TenantId,
  { strategy, region }: { strategy: Strategy; region: string | null },
): Promise<boolean> {
  const placements = placementsStore(context.control);
  if (strategy === "shared") {
    throw new AppError("placement_unavailable", "no shared shard has room: add one with npm run migrate");
  }
  const where = region ?? context.env.NEON_REGION;
  const shardId =
    strategy === "database"
      ? await placements.ownShard(tenantId, where)
      : await placements.shardToOpen(strategy, where);
  return openShard(context, placements, { id: shardId, strategy });
}

/** Advances the next shard for schemas when the others are nearly full. Returns whether there is enough room. */
export async function makeRoomAhead(context: Databases): Promise<boolean> {
  const placements = placementsStore(context.control);
  if ((await placements.roomLeft("schema")) >= ROOM_AHEAD) return true;
  const id = await placements.shardToOpen("schema", context.env.NEON_REGION);
  return openShard(context, placements, { id, strategy: "schema" });
}

/**
 * Repairs what a tenant's statement can have done to all tenants of a shared database: changed the login that they share, or
 * removed the rows that the isolation proof needs. Each monitored tenant keeps its database awake, so that the sweep does
 * not wake it. One database that fails holds back no other.
 */
export async function repairShared({ env, control }: Databases): Promise<void> {
  const contextKeys = parseKeyRing("CONTEXT_KEYS", env.CONTEXT_KEYS);
  const repair = async (shard: Shard): Promise<void> => {
    if (shard.appLogin === null) return;
    const owner = connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
    const login = await decryptLogin(env, loginPurpose.app(shard.id), shard.appLogin);
    const colon = login.indexOf(":");
    const options = { signal: AbortSignal.timeout(REPAIR_WITHIN_MS) };
    const refused = await isLoginRefused(connectionUrl(shard, login), env.NEON_FETCH_ENDPOINT, options);
    if (refused) log("error", "shared_login_refused", { shard: shard.id });
    const password = refused ? login.slice(colon + 1) : null;
    await owner.query("SELECT tollgate.restore_login($1, $2)", [login.slice(0, colon), password], options);
    await restoreCanaries(owner, contextKeys, options);
  };
  const attempt = (shard: Shard): Promise<void> =>
    repair(shard).catch((error: unknown) =>
      log("error", "shard_not_repaired", { shard: shard.id, error: describeError(error) }),
    );
  await Promise.all((await placementsStore(control).shards("shared")).map(attempt));
}

async function openShard(
  { env }: Databases,
  placements: PlacementsStore,
  { id, strategy }: { id: string; strategy: Strategy },
): Promise<boolean> {
  const known = await placements.projectOf(id);
  if (known === undefined) throw new AppError("placement_unavailable", `there is no shard ${id}`);
  if (known.open) return true;
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  let { projectId } = known;
  if (projectId === null) {
    const opened = await openProject(neon, placements, id, known.region);
    projectId = await placements.keepProject(id, opened.projectId);
    // A concurrent attempt created them. They should be empty, but only a person may decide to delete them.
    for (const duplicate of opened.duplicates)
      log("error", "neon_project_duplicate", { shard: id, project: duplicate });
  }
  if (!(await neon.projectReady(projectId))) return false;
  const { pooledHost: host, database, user, password } = await neon.ownerConnection(projectId);
  const projectUrl = connectionUrl({ host, database }, `${user}:${password}`);
  await setUpBranch(projectUrl, env.NEON_FETCH_ENDPOINT, branchMigrations);
  await giveAnalyticsLogin(env, placements, id, connectNeon(projectUrl, env.NEON_FETCH_ENDPOINT));
  const ownerLogin = await encryptLogin(env, loginPurpose.owner(id), `${user}:${password}`);
  await placements.registerShard({ id, strategy, region: known.region, host, database, ownerLogin, appLogin: null });
  return true;
}

/** Opens the shard's project. Forgets a shard that Neon refuses for good, such as one in an unknown region. */
async function openProject(
  neon: ReturnType<typeof connectNeonApi>,
  placements: PlacementsStore,
  id: string,
  regionId: string,
): Promise<OpenedProject> {
  try {
    return await neon.openProject({ name: projectName(id), regionId, pgVersion: POSTGRES_VERSION });
  } catch (error) {
    if (isPermanent(error)) await placements.forgetShard(id);
    throw error;
  }
}

function projectName(shardId: string): string {
  return `tollgate-${shardId}`;
}

/**
 * Removes the project of a tenant's own database by its name, also when its id was never stored. Returns whether Neon lists
 * none any more; true for a tenant without a database of its own. Can be repeated.
 */
export async function closeOwnShard({ env, control }: Databases, tenantId: TenantId): Promise<boolean> {
  const placements = placementsStore(control);
  const id = ownShardId(tenantId);
  if ((await placements.projectOf(id)) === undefined) return true;
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  const isGone = await neon.closeProjectsNamed(projectName(id));
  if (isGone) await placements.closeShard(id);
  return isGone;
}

/** Removes a tenant's own database by its project's id. Can be repeated. */
export async function closeShard({ env, control }: Databases, shardId: string): Promise<void> {
  const placements = placementsStore(control);
  const known = await placements.projectOf(shardId);
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  if (known?.projectId !== null && known?.projectId !== undefined) await neon.closeProject(known.projectId);
  await placements.closeShard(shardId);
}
