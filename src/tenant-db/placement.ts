// Makes and removes a tenant's placement. A placement is first reserved in the control tables, with the password of its
// login, then made in the database, then put in force.
// Invariant: each step finds the work of earlier and concurrent attempts, so that every step can be repeated at any point.
// This code runs in the tenant's object, which decrypts logins.
import { newPassword } from "../adapters/ids.ts";
import { type NeonConnection, connectNeon, isLoginRefused, joinBatches } from "../adapters/neon.ts";
import type { Context } from "../control/context.ts";
import { type ReservedPlacement, type Shard, placementsStore } from "../control/placements-store.ts";
import { AppError } from "../core/errors.ts";
import { type Placement, connectionUrl, loginPurpose, ownName } from "../core/tenant/placement.ts";
import type { Strategy } from "../core/plans/plans.ts";
import type { Row, Statement } from "../core/sql.ts";
import { RESERVED_PREFIX, type TenantId } from "../core/tenant/tenant.ts";
import { log } from "../log.ts";
import { type Branch, openBranch, sharedVersion } from "./branch.ts";
import { emptyTables, forgetChanges, setGate, tablesOf, underToken } from "./copy.ts";
import { openTenantDb, ownerUrl } from "./dispatch.ts";
import { decryptSecret, encryptSecret } from "../control/encrypted-logins-store.ts";
import { expectedVersion, missingFiles, tenantMigrations } from "./migrations.ts";
import { closeShard, makeRoom } from "./shards.ts";

type Databases = Pick<Context, "env" | "control">;

/** How long a change of the tenant's write gate waits for a running writer. A longer wait would delay the tenant's calls. */
export const GATE_WAIT_MS = 1_000;

/** Reserves a placement of this strategy. `null`: its database is still being created; call again. */
export async function findPlacement(
  context: Databases,
  tenantId: TenantId,
  wanted: { strategy: Strategy; region: string | null },
): Promise<ReservedPlacement | null> {
  const placements = placementsStore(context.control);
  const reserve = async () => (await placements.reserve(tenantId, wanted.strategy, wanted.region)) ?? null;
  return (await reserve()) ?? ((await makeRoom(context, tenantId, wanted)) ? reserve() : null);
}

/** Makes the tenant's reserved placement and puts it in force. */
export async function placeTenant(context: Databases, tenantId: TenantId, reserved: ReservedPlacement): Promise<void> {
  await makePlacement(context, tenantId, reserved, { inForce: true });
}

/**
 * Makes a reserved placement: outside of shared tables, the tenant's role, schema and tables. A placement that an earlier
 * version of the program has made gets the files that it lacks. `inForce`: also puts it in force, with the same round trip.
 */
export async function makePlacement(
  { env, control }: Databases,
  tenantId: TenantId,
  { id: placementId, shard, state, schemaVersion }: ReservedPlacement,
  { inForce } = { inForce: false },
): Promise<void> {
  const placements = placementsStore(control);
  const finish = async (version: string | null, found?: string): Promise<void> => {
    const joined = placementsStore(joinBatches(control));
    await Promise.all([
      ...(found === undefined ? [] : [joined.recordShardVersion(shard.id, found)]),
      joined.markReady(placementId, version),
      ...(inForce ? [joined.activate(tenantId, placementId)] : []),
    ]);
  };
  if (shard.strategy === "shared") return finish(null, await completeShard({ env, control }, shard));
  if (state === "ready" && missingFiles(schemaVersion).length === 0) {
    if (inForce) await placements.activate(tenantId, placementId);
    return;
  }
  const purpose = loginPurpose.tenant(placementId);
  const password = newPassword();
  const offered = await encryptSecret(env, purpose, `${ownName(placementId)}:${password}`);
  // The first stored login wins: an abandoned attempt may still be running and must set the same password.
  const login = await decryptSecret(env, purpose, await placements.keepLogin(placementId, offered));
  const branch = await branchOf(env, shard);
  await branch.createTenant({ placementId, tenantId, password: login.slice(login.indexOf(":") + 1) });
  await finish(expectedVersion());
}

/**
 * Sets the stored password of a placement's own login again when the server refuses the login: any role may change its
 * password, so a tenant's statement can have done it. Returns whether it did. Throws `AppError` when the database is away.
 */
export async function restoreLogin(
  { env, control }: Databases,
  tenantId: TenantId,
  placement: Placement,
): Promise<boolean> {
  if (placement.strategy === "shared") return false; // the sweep restores it
  const login = await decryptSecret(env, loginPurpose.tenant(placement.id), placement.login);
  if (!(await isLoginRefused(connectionUrl(placement, login), env.NEON_FETCH_ENDPOINT))) return false;
  const shard = await placementsStore(control).shard(placement.shardId);
  if (shard === undefined) return false;
  const password = login.slice(login.indexOf(":") + 1);
  await (await branchOf(env, shard)).createTenant({ placementId: placement.id, tenantId, password });
  log("error", "tenant_login_restored", { tenantId });
  return true;
}

/** A shared database never loses a file. The trust ends, so that a restore to an earlier time is seen. */
const VERSION_TRUSTED_MS = 60_000;
/** The versions of shared databases that this isolate has read. One read serves a crowd of sign-ups. */
const versionsRead = new Map<string, { version: string; atMs: number }>();

/**
 * Throws `placement_unavailable` when a shared shard lacks tables of the bundle: no tenant starts on it until then. Returns
 * the shard's version when it was read now.
 */
async function completeShard({ env, control }: Databases, shard: Shard): Promise<string | undefined> {
  const known = versionsRead.get(shard.id);
  const isTrusted = known !== undefined && Date.now() - known.atMs < VERSION_TRUSTED_MS;
  if (isTrusted && missingFiles(known.version).length === 0) return undefined;
  const version = await sharedVersion(connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT));
  const missing = missingFiles(version);
  if (missing.length > 0) {
    await placementsStore(control).recordShardVersion(shard.id, version);
    throw new AppError("placement_unavailable", `shard ${shard.id} lacks ${missing.join(", ")}: run npm run migrate`);
  }
  versionsRead.set(shard.id, { version, atMs: Date.now() });
  return version;
}

/**
 * Removes the data of a placement. On shared tables: the tenant's rows, in portions, and the log of their changes. Elsewhere:
 * its role and schema, or its whole database. Can be repeated.
 */
export async function dropPlacement(context: Databases, tenantId: TenantId, placement: Placement): Promise<void> {
  // The type excludes these ids. A mistake here would stop every tenant of the shard.
  if (tenantId.startsWith(RESERVED_PREFIX)) throw new AppError("internal", `${tenantId} is no customer's`);
  switch (placement.strategy) {
    case "database":
      return closeShard(context, placement.shardId);
    case "schema":
      return dropSchema(context, placement);
    case "shared": {
      const [db, owner] = await Promise.all([
        openTenantDb(context.env, tenantId, placement),
        shardOwner(context, placement.shardId),
      ]);
      const asTenant = (statements: readonly Statement[]): Promise<Row[][]> => db.transaction(statements);
      // Marked as a copy, so that the deletes are not logged as the tenant's changes.
      await markAsCopy(owner, tenantId, 0);
      await emptyTables(asTenant, await tablesOf(asTenant), [underToken(0)]);
      return forgetChanges(owner, tenantId);
    }
    default:
      return placement.strategy satisfies never;
  }
}

/** Removes the role and the schema of a placement, whether or not they exist. */
export async function dropSchema(
  { env, control }: Databases,
  placement: Pick<Placement, "id" | "shardId">,
): Promise<void> {
  const shard = await placementsStore(control).shard(placement.shardId);
  if (shard !== undefined) await (await branchOf(env, shard)).dropTenant(placement.id);
}

/** Marks the tenant's rows as a copy: writes to them are not logged as changes. Throws while an earlier copy still writes. */
export async function markAsCopy(owner: NeonConnection, tenantId: TenantId, token: number): Promise<void> {
  if (!(await setGate(owner, tenantId, { state: "loading", token }, GATE_WAIT_MS))) {
    throw new AppError("database_unavailable", "an earlier copy is still being written");
  }
}

/** Connects to a shard as its owner. */
export async function shardOwner({ env, control }: Databases, shardId: string): Promise<NeonConnection> {
  const shard = await placementsStore(control).shard(shardId);
  if (shard === undefined) throw new AppError("placement_unavailable", `there is no shard ${shardId}`);
  return connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
}

async function branchOf(env: Env, shard: Shard): Promise<Branch> {
  return openBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT, tenantMigrations);
}
