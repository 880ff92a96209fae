// Test databases: one real PostgreSQL behind the proxy, with migrated shards of shared tables and databases of own schemas.
// Tests reach them with the application's login and hand-written SQL, through `ctx.db`, and as the superuser.
// Every login's password is its name.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { OWNER, bootstrapCluster, prepareSharedShard } from "../../cli/migrations/prepare.ts";
import {
  branchMigrations,
  migrate,
  readMigrations,
  sharedMigrations,
  tenantMigrations,
} from "../../cli/migrations/apply.ts";
import { type NeonProxyOptions, startNeonProxy } from "../../dev/neon/proxy.ts";
import { THROWAWAY, removePostgresData, startPostgres } from "../../dev/postgres/postgres.ts";
import { type Branch, openBranch } from "../../src/tenant-db/branch.ts";
import { contextEntrance, createTenantDb } from "../../src/tenant-db/tenant-db.ts";
import type { Key, KeyRing } from "../../src/core/keys/encryption.ts";
import { signContext } from "../../src/tenant-db/signed-context.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

export const acme = TenantId.parse("acme");
export const globex = TenantId.parse("globex");
export const database = "shard_test";
export const contextKeys: KeyRing = [{ id: "k1", secret: "a context key that only tests know of" }];

export type Rows = Record<string, unknown>[];
export type Cluster = Awaited<ReturnType<typeof startCluster>>;
export type Shard = Awaited<ReturnType<typeof startShard>>;

/** The attacker, the victim and their databases. */
export interface Front {
  /** The attacker's database and login, and the schema of its tables. */
  database: string;
  login: string;
  schema: string;
  /** The role that holds the login's rights: the login or its group. */
  grantee: string;
  /** The most privileged role that the login could try to become. */
  otherRole: string;
  /** The login that reads every tenant's rows of the database. */
  analytics: string;
  /** The victim's table. */
  products: string;
  victimSchema: string;
  /** A table that only the owner can read. */
  secrets: string;
  /** libpq connection string with which the server could reach another of its databases as superuser. */
  link: { port: number; database: string; password: string };
}

/** Takes about 2 s. Close it, or the server outlives the test. */
export async function startCluster(proxyOptions: Omit<NeonProxyOptions, "port"> = {}) {
  const dataDir = await mkdtemp(join(tmpdir(), "tollgate-shard-"));
  const postgres = await startPostgres({ dataDir, port: 0, settings: THROWAWAY });
  const proxy = await startNeonProxy({ port: 0, ...proxyOptions });
  const fetchEndpoint = `${proxy.url}/sql`;
  const superusers = new Map<string, Promise<Client>>();

  const urlOf = (user: string, name: string) => `postgresql://${user}:${user}@127.0.0.1:${postgres.port}/${name}`;
  const bootstrap = (name: string, closed: boolean) =>
    bootstrapCluster({
      superuserUrl: postgres.superuserUrl,
      ownerPassword: OWNER,
      databases: [{ name, closed }],
    });

  async function superuserOf(name: string): Promise<Client> {
    const client = new Client({
      connectionString: postgres.superuserUrl.replace(/\/postgres$/, `/${name}`),
      options: "-c synchronous_commit=off", // tests need no durability
    });
    await client.connect();
    return client;
  }

  async function superuser(name: string, sql: string, params?: unknown[]): Promise<Rows> {
    let client = superusers.get(name);
    if (client === undefined) superusers.set(name, (client = superuserOf(name)));
    const result = await (await client).query<Record<string, unknown>>(sql, params);
    return (Array.isArray(result) ? result.at(-1) : result).rows;
  }

  return {
    proxy,
    fetchEndpoint,
    urlOf,
    port: postgres.port,
    /** Password of the superuser `postgres`. */
    password: new URL(postgres.superuserUrl).password,

    /** A shard of shared tables; `closed` says whether the host has closed its functions, too. */
    async createShared(name: string, closed = true): Promise<void> {
      await bootstrap(name, closed);
      await migrate({ url: urlOf(OWNER, name), series: sharedMigrations });
      const logins = ["tollgate_app_a", "tollgate_app_b"].map((login) => ({ name: login, password: login }));
      await prepareSharedShard({ ownerUrl: urlOf(OWNER, name), logins, contextKeys });
    },

    /** A database for own schemas; `closed` as above. */
    async createBranch(name: string, closed = true): Promise<Branch> {
      await bootstrap(name, closed);
      await migrate({ url: urlOf(OWNER, name), series: branchMigrations });
      return openBranch(urlOf(OWNER, name), fetchEndpoint, readMigrations(tenantMigrations));
    },

    /** The name of the login that reads every tenant's rows of a database. */
    async analyticsOf(name: string): Promise<string> {
      const [row] = await superuser(name, "SELECT tollgate.analytics_role() AS role");
      return String(row?.["role"]);
    },

    /** Runs any statements in a database as superuser. Returns the rows of the last one. */
    superuser,

    async [Symbol.asyncDispose](): Promise<void> {
      for (const client of superusers.values()) await (await client).end();
      await proxy.close();
      await postgres.stop();
      await removePostgresData(dataDir);
    },
  };
}

/** A cluster with one shard of shared tables. */
export async function startShard() {
  const cluster = await startCluster();
  const shard = await openShard(cluster);
  return { ...shard, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

/** A shard of shared tables in a cluster. */
async function openShard(cluster: Cluster) {
  const { proxy, fetchEndpoint } = cluster;
  const urlOf = (user: string, name = database) => cluster.urlOf(user, name);
  const appUrl = urlOf("tollgate_app_a");
  await cluster.createShared(database);
  const front: Front = {
    database,
    login: "tollgate_app_a",
    schema: "public",
    grantee: "tollgate_app",
    otherRole: "tollgate_app",
    analytics: await cluster.analyticsOf(database),
    products: "public.products",
    victimSchema: "public",
    secrets: "tollgate.context_keys",
    link: { port: cluster.port, database, password: cluster.password },
  };

  return {
    front,
    ownerUrl: urlOf(OWNER),
    appUrl,
    fetchEndpoint,
    proxy,
    urlOf,
    createDatabase: (name: string, closed: boolean) => cluster.createShared(name, closed),
    createBranch: (name: string, closed: boolean) => cluster.createBranch(name, closed),

    /** Runs any statements as superuser. */
    superuser: (sql: string, params?: unknown[]) => cluster.superuser(database, sql, params),

    /** Runs one statement with a login's rights on its own connection, in a transaction that is rolled back. */
    async plainly(url: string, context: string | undefined, sql: string): Promise<Rows> {
      const client = new Client({ connectionString: url });
      await client.connect();
      try {
        await client.query("BEGIN");
        if (context !== undefined) await client.query("SELECT set_config('tollgate.context', $1, true)", [context]);
        return (await client.query<Record<string, unknown>>(sql)).rows;
      } finally {
        await client.end(); // which rolls back
      }
    },

    db(tenantId: TenantId, options: { keys?: KeyRing; statementTimeoutMs?: number; onRoundTrip?: () => void } = {}) {
      const { keys = contextKeys, ...rest } = options;
      const entrance = contextEntrance({ contextKeys: keys, tenantId, database, now: Date.now });
      return createTenantDb({ url: appUrl, fetchEndpoint, entrance, now: Date.now, ...rest });
    },

    /** Resets the two tenants' rows to their initial state. */
    async seed(): Promise<void> {
      await cluster.superuser(
        database,
        `DELETE FROM products; DELETE FROM settings;
        INSERT INTO products (tenant_id, id, name, price_cents) VALUES
          ('acme', 'lamp', 'Acme lamp', 100), ('globex', 'lamp', 'Globex lamp', 900), ('globex', 'secret-1', 'Globex plan', 1);
        INSERT INTO settings (tenant_id, key, value) VALUES ('acme', 'plan', '"a"'), ('globex', 'plan', '"g"');
        ANALYZE products;`,
      );
    },
  };
}

/** A context as the program signs it, with overrides. */
export async function aContext(
  overrides: { tenantId?: TenantId; database?: string; key?: Key; lifeMs?: number } = {},
): Promise<string> {
  const { id: keyId, secret } = overrides.key ?? contextKeys[0];
  return signContext({
    keyId,
    secret,
    tenantId: overrides.tenantId ?? acme,
    database: overrides.database ?? database,
    expiresAtMs: Date.now() + (overrides.lifeMs ?? 120_000),
  });
}
