// From a placement to the rows behind it: the one place that opens a tenant's sealed login and knows what each strategy
// needs. What is opened stays in the caller's memory and goes nowhere else.
import { parseContextKeys } from "./signed-context.ts";
import { AppError } from "../core/errors.ts";
import { type Placement, connectionUrl, loginPurpose, ownName, purposeOf } from "../core/placement.ts";
import { SEAL_IV_BYTES, parseSealKeys, seal, sealedWithNewest, unseal } from "../core/encryption.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import type { Shard } from "../control/placements-store.ts";
import { type IsolationProof, proveIsolation, proveOwnSchema } from "./isolation.ts";
import { type Session, openSession } from "./session.ts";
import type { SessionPool } from "./session-pool.ts";
import { type CallScopedDb, contextEntrance, createTenantDb, ownSchemaEntrance } from "./tenant-db.ts";

/** What of the environment tenants' databases are reached with. */
export type TenantDatabases = Pick<Env, "NEON_FETCH_ENDPOINT" | "NEON_WS_PROXY" | "CONTEXT_KEYS" | "SEAL_KEYS">;

/** The connection string of the login that the placement's tools run as. */
async function loginUrl(env: TenantDatabases, placement: Placement, host = placement.host): Promise<string> {
  const login = await unsealLogin(env, purposeOf(placement), placement.login);
  return connectionUrl({ host, database: placement.database }, login);
}

/** The tenant's rows, wherever they are. Transactions that take turns use `sessions`; without, they are refused. */
export async function openTenantDb(
  env: TenantDatabases,
  tenantId: TenantId,
  placement: Placement,
  sessions?: SessionPool,
): Promise<CallScopedDb> {
  const { database, shardId, replicaHost } = placement;
  const now = (): number => Date.now();
  const entrance =
    placement.strategy === "shared"
      ? contextEntrance({ contextKeys: parseContextKeys(env.CONTEXT_KEYS), tenantId, database, now })
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
    now,
  });
}

/** A session of the placement's login, in no tenant yet. */
export async function openTenantSession(env: TenantDatabases, placement: Placement): Promise<Session> {
  return openSession({ url: await loginUrl(env, placement), wsProxy: env.NEON_WS_PROXY });
}

/** Proves that the login of this placement is kept within its tenant, or says what stands open. */
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

/** Proves it of the login that the tools of a shared shard run as. */
export async function proveShard(env: TenantDatabases, shard: Shard): Promise<IsolationProof> {
  if (shard.appLogin === null) return { proven: false, failures: [{ check: "registered", detail: shard.id }] };
  const login = await unsealLogin(env, loginPurpose.app(shard.id), shard.appLogin);
  return proveShared(env, connectionUrl(shard, login));
}

function proveShared(env: TenantDatabases, url: string): Promise<IsolationProof> {
  const contextKeys = parseContextKeys(env.CONTEXT_KEYS);
  return proveIsolation({ url, fetchEndpoint: env.NEON_FETCH_ENDPOINT, contextKeys, now: () => Date.now() });
}

/** The tenant's own login sealed with the newest key, or `undefined` when it is already. */
export async function resealed(env: TenantDatabases, placement: Placement): Promise<string | undefined> {
  const keys = parseSealKeys(env.SEAL_KEYS);
  if (placement.strategy === "shared" || sealedWithNewest(keys, placement.login)) return undefined;
  const purpose = purposeOf(placement);
  return seal(keys, purpose, await unseal(keys, purpose, placement.login), newIv());
}

/** Opens a login of the control tables. */
export function unsealLogin(env: Pick<Env, "SEAL_KEYS">, purpose: string, login: string): Promise<string> {
  return unseal(parseSealKeys(env.SEAL_KEYS), purpose, login);
}

/** Seals a login for the control tables. */
export function sealLogin(env: Pick<Env, "SEAL_KEYS">, purpose: string, login: string): Promise<string> {
  return seal(parseSealKeys(env.SEAL_KEYS), purpose, login, newIv());
}

/** The connection string of a shard's owner. Throws for a shard whose owner is not known here. */
export async function ownerUrl(env: Pick<Env, "SEAL_KEYS">, shard: Shard): Promise<string> {
  if (shard.ownerLogin === null)
    throw new AppError("placement_unavailable", `the owner of shard ${shard.id} is unknown`);
  return connectionUrl(shard, await unsealLogin(env, loginPurpose.owner(shard.id), shard.ownerLogin));
}

function newIv(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(SEAL_IV_BYTES));
}
