// Shards: creates the databases that tenants need, one Neon project each, removes own databases, and repairs shared ones. Neon works on a project for seconds, so a Workflow calls these functions repeatedly and sleeps in between. Each call
// finds earlier work again, by the project's name or in the control tables.
import { connectNeon, isLoginRefused } from "../adapters/neon.ts";
import { GoneFailure, type OpenedProject, connectNeonApi } from "../adapters/neon-api.ts";
import type { Context } from "../control/context.ts";
import { type PlacementsStore, type Shard, type ShardProject, placementsStore } from "../control/placements-store.ts";
import { AppError, isPermanent } from "../core/errors.ts";
import {
  type Occupancy,
  type PooledStrategy,
  connectionUrl,
  loginPurpose,
  ownShardId,
  strategiesToExtend,
} from "../core/tenant/placement.ts";
import type { Strategy } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { parseKeyRing } from "../core/keys/encryption.ts";
import { describeError, log } from "../log.ts";
import { proveBranch, setUpDatabase, sharedVersion } from "./branch.ts";
import { appLoginOf, giveAnalyticsLogin, ownerUrl, proveShard } from "./dispatch.ts";
import { decryptSecret, encryptSecret } from "../control/encrypted-logins-store.ts";
import { prepareShared, restoreCanaries } from "./isolation.ts";
import { branchMigrations, sharedMigrations, tenantMigrations } from "./migrations.ts";

type Databases = Pick<Context, "env" | "control">;

/** The repair of a shared database takes three round trips. A database that is away must not delay the sweep. */
const REPAIR_WITHIN_MS = 5_000;

/** The PostgreSQL version that all tests run on. */
const POSTGRES_VERSION = 18;
/** How long a Workflow sleeps between two calls. Neon needs a few seconds for a project. */
export const OPENING_POLL_MS = 1_000;
/**
 * How long one caller has the claim to create a shard. Longer than a Workflow's step and an object's request may take (30 s), so
 * that a second caller works on it only after the first one died.
 */
const CLAIM_MS = 40_000;

/** Advances the making of room for a tenant of this strategy. Returns whether there is room now. */
export async function makeRoom(
  context: Databases,
  tenantId: TenantId,
  { strategy, region }: { strategy: Strategy; region: string | null },
): Promise<boolean> {
  const placements = placementsStore(context.control);
  const where = region ?? context.env.NEON_REGION;
  if (strategy === "database") {
    return openShard(context, placements, { id: await placements.ownShard(tenantId, where), strategy });
  }
  const known = (await placements.occupancy(region)).find((each) => each.strategy === strategy);
  if (known !== undefined && known.room > 0) return true;
  try {
    return await openNext(context, placements, { strategy, region: where, known });
  } catch (error) {
    // Only the region can be the tenant's fault. All other refusals pass for it when the operator acts.
    if (region !== null || !isPermanent(error)) throw error;
    throw new AppError("placement_unavailable", error instanceof Error ? error.message : undefined);
  }
}

/** Whether no strategy's shards are nearly full, so that `makeRoomAhead` has nothing to do. */
export async function hasRoomAhead({ control }: Pick<Databases, "control">): Promise<boolean> {
  return strategiesToExtend(await placementsStore(control).occupancy()).length === 0;
}

/** Advances the next shards of the strategies whose shards are nearly full. Returns whether there is enough room. */
export async function makeRoomAhead(context: Databases): Promise<boolean> {
  const placements = placementsStore(context.control);
  const occupancy = await placements.occupancy();
  const outcomes = await Promise.allSettled(
    strategiesToExtend(occupancy).map((strategy) => {
      const known = occupancy.find((each) => each.strategy === strategy);
      return openNext(context, placements, { strategy, region: context.env.NEON_REGION, known });
    }),
  );
  // One strategy that fails holds back no other.
  return outcomes
    .map((outcome) => {
      if (outcome.status === "rejected") throw outcome.reason;
      return outcome.value;
    })
    .every(Boolean);
}

/** Advances the next shard of a strategy. `known`: its shards as they were when the caller decided; none when `undefined`. */
async function openNext(
  context: Databases,
  placements: PlacementsStore,
  { strategy, region, known }: { strategy: PooledStrategy; region: string; known: Occupancy | undefined },
): Promise<boolean> {
  const id = await placements.shardToOpen(strategy, region, known?.shards ?? 0);
  return id === undefined ? false : openShard(context, placements, { id, strategy });
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
    const login = await decryptSecret(env, loginPurpose.app(shard.id), shard.appLogin);
    const colon = login.indexOf(":");
    const options = { signal: AbortSignal.timeout(REPAIR_WITHIN_MS) };
    const refused = await isLoginRefused(connectionUrl(shard, login), env.NEON_FETCH_ENDPOINT, options);
    if (refused) log("error", "shared_login_refused", { shard: shard.id });
    const password = refused ? login.slice(colon + 1) : null;
    await owner.query("SELECT tollgate.restore_login($1, $2)", [login.slice(0, colon), password], options);
    await restoreCanaries(owner, contextKeys, options);
  };
  await repairEach(await placementsStore(control).shards("shared"), repair);
}

/** Tenants' own databases in one sweep, chosen at random: there may be hundreds. A change there stops only its own tenant. */
const OWN_DATABASES_AT_ONCE = 25;

/**
 * Repairs what a tenant's statement can have done to its own login in a database with schemas of tenants: the isolation proof,
 * and with it /health, refuses a login with default privileges. One database that fails holds back no other.
 */
export async function repairOwnLogins({ env, control }: Databases): Promise<void> {
  const placements = placementsStore(control);
  const [own, alone] = await Promise.all([placements.shards("schema"), placements.shards("database")]);
  const some = alone.toSorted(() => Math.random() - 0.5).slice(0, OWN_DATABASES_AT_ONCE);
  const repair = async (shard: Shard): Promise<void> => {
    const owner = connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
    const options = { signal: AbortSignal.timeout(REPAIR_WITHIN_MS) };
    const reset = await owner.query("SELECT tollgate.reset_default_privileges() AS role", [], options);
    if (reset.length > 0) log("warn", "default_privileges_reset", { shard: shard.id, logins: reset.length });
  };
  await repairEach([...own, ...some], repair);
}

async function repairEach(shards: readonly Shard[], repair: (shard: Shard) => Promise<void>): Promise<void> {
  const attempt = (shard: Shard): Promise<void> =>
    repair(shard).catch((error: unknown) =>
      log("error", "shard_not_repaired", { shard: shard.id, error: describeError(error) }),
    );
  await Promise.all(shards.map(attempt));
}

async function openShard(
  context: Databases,
  placements: PlacementsStore,
  { id, strategy }: { id: string; strategy: Strategy },
): Promise<boolean> {
  const known = await placements.projectOf(id);
  if (known === undefined) throw new AppError("placement_unavailable", `there is no shard ${id}`);
  if (known.open) return true;
  // Sign-ups that come at once would each create a project. An own database has one tenant only.
  const claim = strategy === "database" ? null : await placements.claimShard(id, CLAIM_MS);
  if (claim === undefined) return false;
  try {
    return await createShard(context, placements, { ...known, id, strategy });
  } catch (error) {
    log("error", "shard_not_opened", { shard: id, error: describeError(error) });
    throw error;
  } finally {
    // A claim that cannot be released ends by itself.
    if (claim !== null) await placements.releaseShard(id, claim).catch(() => undefined);
  }
}

/**
 * Advances the creation of a claimed shard: project, migrations, logins, proof. The shard takes tenants only after the proof.
 * A caller whose claim has ended may still run, so that each step can be repeated, also concurrently.
 */
async function createShard(
  { env }: Databases,
  placements: PlacementsStore,
  { id, strategy, region, projectId: knownProject }: ShardProject & { id: string; strategy: Strategy },
): Promise<boolean> {
  const neon = connectNeonApi({ apiKey: env.NEON_API_KEY, apiBase: env.NEON_API_BASE });
  let projectId = knownProject;
  if (projectId === null) {
    const opened = await openProject(neon, placements, id, region);
    projectId = await placements.keepProject(id, opened.projectId);
    // A concurrent attempt created them. They should be empty, but only a person may decide to delete them.
    for (const duplicate of opened.duplicates)
      log("error", "neon_project_duplicate", { shard: id, project: duplicate });
  }
  try {
    if (!(await neon.projectReady(projectId))) return false;
  } catch (error) {
    if (strategy === "database" || !(error instanceof GoneFailure)) throw error;
    // A person has deleted it, such as one whose creation had failed at Neon.
    await placements.forgetProject(id, projectId);
    return false;
  }
  const { pooledHost: host, database, user, password } = await neon.ownerConnection(projectId);
  const url = connectionUrl({ host, database }, `${user}:${password}`);
  const owner = connectNeon(url, env.NEON_FETCH_ENDPOINT);
  await setUpDatabase(owner, strategy === "shared" ? [...sharedMigrations, ...tenantMigrations] : branchMigrations);
  await giveAnalyticsLogin(env, placements, id, owner);
  const ownerLogin = await encryptSecret(env, loginPurpose.owner(id), `${user}:${password}`);
  const shard: Shard = { id, strategy, region, host, database, ownerLogin, appLogin: null };
  if (strategy === "shared") {
    const login = await appLoginOf(env, placements, id, owner);
    await prepareShared(owner, { logins: [login], contextKeys: parseKeyRing("CONTEXT_KEYS", env.CONTEXT_KEYS) });
    await placements.recordShardVersion(id, await sharedVersion(owner));
    shard.appLogin = login.encrypted;
  }
  const proof = await (strategy === "shared" ? proveShard(env, shard) : proveBranch(url, env.NEON_FETCH_ENDPOINT));
  if (!proof.proven) {
    log("error", "isolation_unproven", { shard: id, checks: proof.failures.map(({ check }) => check).join(",") });
    throw new AppError("isolation_unproven");
  }
  await placements.openShard(shard);
  log("info", "shard_opened", { shard: id });
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
