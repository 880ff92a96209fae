// Sets up in databases what migrations do not: passwords of logins, context keys, the canaries' rows, and the shards in the
// control tables. Every step can be repeated, also concurrently. `bootstrapCluster` and `prepareDatabases` do what a host's
// console does. They are only for a local cluster.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Client, escapeIdentifier, escapeLiteral } from "pg";
import { giveAnalyticsLogin } from "../../src/tenant-db/dispatch.ts";
import { sharedVersion } from "../../src/tenant-db/branch.ts";
import { type Shard, placementsStore } from "../../src/control/placements-store.ts";
import { prepareShared } from "../../src/tenant-db/isolation.ts";
import type { NeonConnection } from "../../src/adapters/neon.ts";
import { loginPurpose } from "../../src/core/tenant/placement.ts";
import type { Strategy } from "../../src/core/plans/plans.ts";
import { IV_BYTES, type KeyRing, encrypt } from "../../src/core/keys/encryption.ts";
import {
  alone,
  branchMigrations,
  connected,
  controlMigrations,
  hostFunctions,
  inTransaction,
  migrate,
  sharedMigrationsOf,
} from "./apply.ts";
import { appFolder } from "../generate.ts";
import type { Settings } from "../settings.ts";

export interface Login {
  name: string;
  password: string;
}

/** Sends the password as plain text, because Neon accepts nothing else. The server stores a verifier. */
async function setPassword(client: Client, { name, password }: Login): Promise<void> {
  await client.query(`ALTER ROLE ${escapeIdentifier(name)} PASSWORD ${escapeLiteral(password)}`);
}

export interface SharedOptions {
  ownerUrl: string;
  /** `tollgate_app_a`, `tollgate_app_b`, or only the login whose password changes. */
  logins: readonly Login[];
  /** All keys that the shard accepts from now on. It retires every other key. */
  contextKeys: KeyRing;
}

/** Sets up what the isolation proof of a migrated shard needs, and retires the context keys that are not given. */
export async function prepareSharedShard({ ownerUrl, logins, contextKeys }: SharedOptions): Promise<void> {
  await connected(ownerUrl, async (client) => {
    const owner = asConnection(client);
    await prepareShared(owner, { logins, contextKeys });
    await owner.query("SELECT tollgate.retire_context_key(id) FROM tollgate.context_keys WHERE id <> ALL ($1)", [
      contextKeys.map(({ id }) => id),
    ]);
  });
}

/** Sets the password of the login of a migrated control database. */
export async function prepareControl({ ownerUrl, login }: { ownerUrl: string; login: Login }): Promise<void> {
  await connected(ownerUrl, async (client) => {
    await alone(client);
    await setPassword(client, login);
  });
}

export const OWNER = "tollgate_owner";

export interface ClusterOptions {
  superuserUrl: string;
  ownerPassword: string;
  /** `closed`: tenants' statements run in the database, so the superuser closes the host's functions there. */
  databases?: readonly { name: string; closed: boolean }[];
}

/** The databases of a local cluster. */
export const controlDatabase = "tollgate_control";
export const sharedDatabase = "tollgate_shared_1";
export const schemaDatabase = "tollgate_schema_1";

/** The variables that reach the control database of the local system with these settings, as the Worker does. */
export function localControl({ secrets, ports }: Settings): Record<string, string> {
  return {
    CONTROL_DATABASE_URL: `postgresql://tollgate_service:${secrets.servicePassword}@127.0.0.1:${ports["postgres"]}/${controlDatabase}`,
    NEON_FETCH_ENDPOINT: `http://127.0.0.1:${ports["neon"]}/sql`,
  };
}

/** A region that the stand-in of Neon's API accepts. */
export const localRegion = "aws-local";
const localDatabases = [
  { name: controlDatabase, closed: false },
  { name: sharedDatabase, closed: true },
  { name: schemaDatabase, closed: true },
] as const;

/** Creates the owner's role and its databases in a local cluster, as a host's console does. */
export async function bootstrapCluster(options: ClusterOptions): Promise<void> {
  const { superuserUrl, ownerPassword, databases = localDatabases } = options;
  await connected(superuserUrl, async (client) => {
    await alone(client);
    const owner = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [OWNER]);
    if (owner.rowCount === 0) await client.query(`CREATE ROLE ${OWNER} LOGIN CREATEROLE`);
    await setPassword(client, { name: OWNER, password: ownerPassword });
    for (const { name } of databases) {
      const database = await client.query("SELECT FROM pg_database WHERE datname = $1", [name]);
      if (database.rowCount === 0) await client.query(`CREATE DATABASE ${escapeIdentifier(name)} OWNER ${OWNER}`);
    }
    await client.query("REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC");
  });
  for (const { name, closed } of databases) if (closed) await closeHostFunctions({ superuserUrl, database: name });
}

export interface LocalDatabases {
  superuserUrl: string;
  ownerPassword: string;
  servicePassword: string;
  appPassword: string;
  contextKeys: KeyRing;
  encryptionKeys: KeyRing;
  /** The folder of the app whose tables tenants have (app/ or TOLLGATE_APP). */
  app?: string;
}

/**
 * Sets up a local cluster in place of three Neon databases: owner, databases, migrations, logins, context keys, shards.
 * Returns the connection strings. Can be repeated.
 */
export async function prepareDatabases(options: LocalDatabases) {
  const { superuserUrl, ownerPassword, servicePassword, appPassword, contextKeys, encryptionKeys } = options;
  const { host } = new URL(superuserUrl);
  const login = (user: string, password: string, database: string): string =>
    `postgresql://${user}:${password}@${host}/${database}`;
  const controlUrl = login(OWNER, ownerPassword, controlDatabase);
  const sharedOwnerUrl = login(OWNER, ownerPassword, sharedDatabase);
  const schemaOwnerUrl = login(OWNER, ownerPassword, schemaDatabase);
  const service: Login = { name: "tollgate_service", password: servicePassword };
  const app: Login = { name: "tollgate_app_a", password: appPassword };

  await bootstrapCluster({ superuserUrl, ownerPassword });
  await migrate({ url: controlUrl, series: controlMigrations });
  await migrate({ url: sharedOwnerUrl, series: sharedMigrationsOf(options.app ?? appFolder()) });
  await migrate({ url: schemaOwnerUrl, series: branchMigrations });
  await prepareControl({ ownerUrl: controlUrl, login: service });
  await prepareSharedShard({ ownerUrl: sharedOwnerUrl, logins: [app], contextKeys });
  const appUrl = login(app.name, app.password, sharedDatabase);
  const known = { controlUrl, region: localRegion, encryptionKeys };
  await registerShard({ ...known, id: "shared-1", strategy: "shared", ownerUrl: sharedOwnerUrl, appUrl });
  await registerShard({ ...known, id: "schema-1", strategy: "schema", ownerUrl: schemaOwnerUrl, appUrl: undefined });
  return {
    controlUrl,
    sharedOwnerUrl,
    schemaOwnerUrl,
    serviceUrl: login(service.name, service.password, controlDatabase),
    appUrl,
  };
}

/**
 * Closes the host's functions to tenants' statements. Only a superuser can do this, so it is impossible on many hosts;
 * migrations/shared/0005_host_functions.sql says what is then open.
 */
export async function closeHostFunctions({
  superuserUrl,
  database,
}: {
  superuserUrl: string;
  database: string;
}): Promise<void> {
  const url = new URL(superuserUrl);
  url.pathname = `/${database}`;
  const text = readFileSync(hostFunctions, "utf8");
  await connected(url.href, (client) => inTransaction(client, async () => void (await client.query(text))));
}

/**
 * Registers a shard in the control tables, with its logins encrypted, and gives it an analytics login. `appUrl` is the login of
 * tools on shared tables.
 */
export async function registerShard(options: {
  controlUrl: string;
  encryptionKeys: KeyRing;
  id: string;
  strategy: Strategy;
  region: string;
  ownerUrl: string;
  appUrl: string | undefined;
}): Promise<void> {
  const { controlUrl, encryptionKeys, id, strategy, region } = options;
  const encrypted = (purpose: string, url: string): Promise<string> => {
    const { name, password } = loginOf(url);
    return encrypt(encryptionKeys, purpose, `${name}:${password}`, randomBytes(IV_BYTES));
  };
  const owner = new URL(options.ownerUrl);
  const shard: Shard = {
    id,
    strategy,
    region,
    host: owner.host,
    database: decodeURIComponent(owner.pathname.slice(1)),
    ownerLogin: await encrypted(loginPurpose.owner(id), options.ownerUrl),
    appLogin: options.appUrl === undefined ? null : await encrypted(loginPurpose.app(id), options.appUrl),
  };
  await connected(controlUrl, (client) => placementsStore(asConnection(client)).registerShard(shard));
  if (strategy === "shared") await recordShardVersion(options);
  await giveAnalytics(options);
}

/** Records in the control tables which files a shared shard has. /health reads them there. */
export async function recordShardVersion(shard: { controlUrl: string; id: string; ownerUrl: string }): Promise<void> {
  const version = await connected(shard.ownerUrl, (owner) => sharedVersion(asConnection(owner)));
  await connected(shard.controlUrl, (control) =>
    placementsStore(asConnection(control)).recordShardVersion(shard.id, version),
  );
}

/** Gives a known shard an analytics login. When it has one, sets that login's stored password again. */
export async function giveAnalytics({
  controlUrl,
  encryptionKeys,
  id,
  ownerUrl,
}: {
  controlUrl: string;
  encryptionKeys: KeyRing;
  id: string;
  ownerUrl: string;
}): Promise<void> {
  const env = { ENCRYPTION_KEYS: JSON.stringify(encryptionKeys) };
  await connected(controlUrl, (control) =>
    connected(ownerUrl, (owner) =>
      giveAnalyticsLogin(env, placementsStore(asConnection(control)), id, asConnection(owner)),
    ),
  );
}

/** Stores the address of a shard's replica in the control tables, `host` or `host:port`. `null` removes the replica. */
export async function registerReplica({
  controlUrl,
  id,
  replicaHost,
}: {
  controlUrl: string;
  id: string;
  replicaHost: string | null;
}): Promise<void> {
  if (replicaHost !== null && !/^[\w.-]+(:\d+)?$/.test(replicaHost)) {
    throw new Error(`${replicaHost} is not the host of a replica. Use host or host:port; the default port is 5432.`);
  }
  const known = await connected(controlUrl, (client) =>
    placementsStore(asConnection(client)).setReplica(id, replicaHost),
  );
  if (!known) throw new Error(`There is no shard ${id}.`);
}

/** Wraps a plain connection as the stores expect it. Each batch is one transaction. */
function asConnection(client: Client): NeonConnection {
  const batch: NeonConnection["batch"] = async (statements) => {
    const results: Record<string, unknown>[][] = [];
    await inTransaction(client, async () => {
      for (const { text, params = [] } of statements) {
        results.push((await client.query<Record<string, unknown>>(text, [...params])).rows);
      }
    });
    return results;
  };
  return {
    database: client.database ?? "",
    batch,
    query: async (text, params = []) => (await batch([{ text, params }]))[0] ?? [],
  };
}

/** Returns the login of a connection string. */
export function loginOf(url: string): Login {
  const { username, password } = new URL(url);
  return { name: decodeURIComponent(username), password: decodeURIComponent(password) };
}
