// From a placement to the rows behind it: the only place that decrypts the logins of tenants' databases and knows what each
// strategy needs. Invariants: a decrypted login stays in the caller's memory; a tool gets no access to rows unless its login
// was proved to be kept within its tenant during the last `PROOF_TRUSTED_MS`.
import { newPassword } from "../adapters/ids.ts";
import { type NeonConnection, connectNeon, serverOf } from "../adapters/neon.ts";
import { type EncryptionKeys, decryptSecret, encryptAgain, encryptSecret } from "../control/encrypted-logins-store.ts";
import type { PlacementsStore, ReadShard, Shard } from "../control/placements-store.ts";
import { isEncryptedWithNewest, parseKeyRing } from "../core/keys/encryption.ts";
import { AppError, errorCode } from "../core/errors.ts";
import { type Placement, connectionUrl, loginPurpose, ownName, purposeOf } from "../core/tenant/placement.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import { type IsolationProof, proveIsolation, proveOwnSchema } from "./isolation.ts";
import type { SlotShare } from "./database-slots.ts";
import { type Session, openSession } from "./session.ts";
import type { SessionPool } from "./session-pool.ts";
import { type CallScopedDb, contextEntrance, createTenantDb, ownSchemaEntrance } from "./tenant-db.ts";

/** The variables that reaching tenants' databases needs. */
export type TenantDatabases = Pick<Env, "NEON_FETCH_ENDPOINT" | "NEON_WS_PROXY" | "CONTEXT_KEYS" | "ENCRYPTION_KEYS">;

// ---- rows

/**
 * Opens the tenant's rows. Interactive transactions use `sessions`; without it they are refused. `share` is the tenant's claim
 * to database slots; without it, as for Tollgate's own work, statements never wait for one.
 */
export async function openTenantDb(
  env: TenantDatabases,
  tenantId: TenantId,
  placement: Placement,
  { sessions, share }: { sessions?: SessionPool; share?: () => SlotShare } = {},
): Promise<CallScopedDb> {
  const { database, shardId, replicaHost } = placement;
  const now = (): number => Date.now();
  const entrance =
    placement.strategy === "shared"
      ? contextEntrance({ contextKeys: parseKeyRing("CONTEXT_KEYS", env.CONTEXT_KEYS), tenantId, database, now })
      : ownSchemaEntrance(ownName(placement.id));
  return createTenantDb({
    url: await loginUrl(env, placement),
    ...(replicaHost !== null && {
      analyticsUrl: await loginUrl(env, placement, replicaHost),
      onReplicaAway: (error) => log("warn", "replica_away", { tenantId, shardId, error: describeError(error) }),
    }),
    fetchEndpoint: env.NEON_FETCH_ENDPOINT,
    entrance,
    ...(sessions && { sessions }),
    ...(share && { share }),
    now,
  });
}

/** Opens a session of the placement's login. It has entered no tenant yet. */
export async function openTenantSession(env: TenantDatabases, placement: Placement): Promise<Session> {
  const url = await loginUrl(env, placement);
  return openSession({ url, wsProxy: env.NEON_WS_PROXY, server: serverOf(url) });
}

/** The connection string of the login that the placement's tools run as. */
async function loginUrl(env: EncryptionKeys, placement: Placement, host = placement.host): Promise<string> {
  const login = await decryptSecret(env, purposeOf(placement), placement.login);
  return connectionUrl({ host, database: placement.database }, login);
}

// ---- proofs

/** Only migrations and manual changes can break a proof. Both are rare, and /health also proves every few seconds. */
const PROOF_TRUSTED_MS = 5 * 60_000;

/**
 * When this isolate last proved each login. Objects and requests share the time of a proof, but never a proof that is
 * running: the platform cancels the work of an object or request that ends, and its waiters would never resume.
 */
const provenAtMs = new Map<string, number>();

export type ProofOutcome = "proven" | "isolation_unproven" | "database_unavailable" | "database_silent";

/** Names the login that the placement's tools run as. Tenants of a shared shard have one login, other tenants one each. */
export function loginOf({ strategy, shardId, id }: Placement): string {
  return strategy === "shared" ? shardId : `${shardId}/${id}`;
}

/** Whether this isolate proved the placement's login within `PROOF_TRUSTED_MS`. */
export function isProven(placement: Placement, nowMs: number): boolean {
  return nowMs - (provenAtMs.get(loginOf(placement)) ?? -Infinity) < PROOF_TRUSTED_MS;
}

/** Proves the placement's login now. Logs and returns the reason when that fails; never throws. */
export async function proveLogin(
  env: TenantDatabases,
  tenantId: TenantId,
  placement: Placement,
  nowMs: number,
): Promise<ProofOutcome> {
  try {
    const proof = await provePlacement(env, tenantId, placement);
    if (proof.proven) {
      provenAtMs.set(loginOf(placement), nowMs);
      return "proven";
    }
    log("error", "isolation_unproven", { tenantId, checks: proof.failures.map(({ check }) => check).join(",") });
    return "isolation_unproven";
  } catch (error) {
    log("error", "isolation_not_provable", { tenantId, error: describeError(error) });
    return errorCode(error) === "database_silent" ? "database_silent" : "database_unavailable";
  }
}

/** Proves that the placement's login is kept within its tenant, or lists what it can reach. Throws when the database is away. */
export async function provePlacement(
  env: TenantDatabases,
  tenantId: TenantId,
  placement: Placement,
): Promise<IsolationProof> {
  const url = await loginUrl(env, placement);
  const fetchEndpoint = env.NEON_FETCH_ENDPOINT;
  if (placement.strategy !== "shared") {
    return proveOwnSchema({ url, fetchEndpoint, schema: ownName(placement.id), tenantId });
  }
  return proveShared(env, url);
}

/** The same for the login that the tools of a shared shard run as. */
export async function proveShard(env: TenantDatabases, shard: Shard): Promise<IsolationProof> {
  if (shard.appLogin === null) return { proven: false, failures: [{ check: "registered", detail: shard.id }] };
  const login = await decryptSecret(env, loginPurpose.app(shard.id), shard.appLogin);
  return proveShared(env, connectionUrl(shard, login));
}

function proveShared(env: TenantDatabases, url: string): Promise<IsolationProof> {
  const contextKeys = parseKeyRing("CONTEXT_KEYS", env.CONTEXT_KEYS);
  return proveIsolation({ url, fetchEndpoint: env.NEON_FETCH_ENDPOINT, contextKeys, now: () => Date.now() });
}

// ---- logins

/** The tenant's own login encrypted with the newest key, or `undefined` when it already is. */
export async function reencrypted(env: EncryptionKeys, placement: Placement): Promise<string | undefined> {
  const keys = parseKeyRing("ENCRYPTION_KEYS", env.ENCRYPTION_KEYS);
  if (placement.strategy === "shared" || isEncryptedWithNewest(keys, placement.login)) return undefined;
  return encryptAgain(env, purposeOf(placement), placement.login);
}

/** The connection string of a shard's owner. Throws `placement_unavailable` when its owner's login is not stored. */
export async function ownerUrl(env: EncryptionKeys, shard: Shard): Promise<string> {
  if (shard.ownerLogin === null)
    throw new AppError("placement_unavailable", `the owner of shard ${shard.id} is unknown`);
  return connectionUrl(shard, await decryptSecret(env, loginPurpose.owner(shard.id), shard.ownerLogin));
}

/** Connects to a shard and its replica with the analytics login. Throws `placement_unavailable` when it has no password yet. */
export async function analyticsConnections(
  env: EncryptionKeys & Pick<Env, "NEON_FETCH_ENDPOINT">,
  { id, host, replicaHost, database, analyticsLogin }: ReadShard,
): Promise<{ primary: NeonConnection; replica: NeonConnection | undefined }> {
  if (analyticsLogin === null) {
    throw new AppError("placement_unavailable", "the shard has no analytics login yet: run npm run migrate");
  }
  const login = await decryptSecret(env, loginPurpose.analytics(id), analyticsLogin);
  const connect = (to: string): NeonConnection =>
    connectNeon(connectionUrl({ host: to, database }, login), env.NEON_FETCH_ENDPOINT);
  return { primary: connect(host), replica: replicaHost === null ? undefined : connect(replicaHost) };
}

/**
 * Sets the password of a shard's analytics login: the stored one, or a new one that is stored first. Can be repeated and
 * run concurrently: the password that was stored first wins. `owner` is connected to the shard.
 */
export async function giveAnalyticsLogin(
  env: EncryptionKeys,
  placements: Pick<PlacementsStore, "keepAnalyticsLogin">,
  shardId: string,
  owner: NeonConnection,
): Promise<void> {
  const purpose = loginPurpose.analytics(shardId);
  const [row] = await owner.query(`SELECT tollgate.analytics_role() AS name`);
  const offered = `${String(row?.["name"])}:${newPassword()}`;
  const kept = await placements.keepAnalyticsLogin(shardId, await encryptSecret(env, purpose, offered));
  const login = await decryptSecret(env, purpose, kept);
  await owner.query(`SELECT tollgate.set_analytics_password($1)`, [login.slice(login.indexOf(":") + 1)]);
}

/**
 * The login, `user:password`, that the tools of a shared shard run as: the stored one, or a new one that is stored first. The
 * caller sets its password in the database. Can be repeated and run concurrently: the login that was stored first wins.
 */
export async function appLoginOf(
  env: EncryptionKeys,
  placements: Pick<PlacementsStore, "keepAppLogin">,
  shardId: string,
  owner: NeonConnection,
): Promise<{ name: string; password: string; encrypted: string }> {
  const purpose = loginPurpose.app(shardId);
  const [row] = await owner.query(`SELECT tollgate.app_role() || '_a' AS name`);
  const offered = `${String(row?.["name"])}:${newPassword()}`;
  const encrypted = await placements.keepAppLogin(shardId, await encryptSecret(env, purpose, offered));
  const login = await decryptSecret(env, purpose, encrypted);
  const colon = login.indexOf(":");
  return { name: login.slice(0, colon), password: login.slice(colon + 1), encrypted };
}
