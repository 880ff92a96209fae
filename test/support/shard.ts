// A shard of shared tables as tests use it: real PostgreSQL, the proxy in front of it, migrated and prepared, and the
// ways to reach it: as the application's login with hand-written SQL, through `ctx.db`, and as whoever owns the walls.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { bootstrapCluster, prepareShared } from "../../dev/databases.ts";
import { migrate, sharedMigrations } from "../../dev/migrations.ts";
import { startNeonProxy } from "../../dev/neon-proxy.ts";
import { removePostgresData, startPostgres } from "../../dev/postgres.ts";
import { contextEntrance, createTenantDb } from "../../src/adapters/tenant-db.ts";
import { type ContextKey, type ContextKeys, signContext } from "../../src/core/context.ts";
import { TenantId } from "../../src/core/tenant.ts";

export const acme = TenantId.parse("acme");
export const globex = TenantId.parse("globex");
export const database = "shard_test";
export const contextKeys: ContextKeys = [{ id: "k1", secret: "a context key that only tests know of" }];

export type Shard = Awaited<ReturnType<typeof startShard>>;

/** Takes about 2 s. Close it, or the server outlives the test. */
export async function startShard() {
  const dataDir = await mkdtemp(join(tmpdir(), "tollgate-shard-"));
  const postgres = await startPostgres({ dataDir, port: 0 });
  const proxy = await startNeonProxy({ port: 0 });
  const fetchEndpoint = `${proxy.url}/sql`;

  const urlOf = (user: string, name = database) => `postgresql://${user}:${user}@127.0.0.1:${postgres.port}/${name}`;
  const superuserUrl = postgres.superuserUrl.replace(/\/postgres$/, `/${database}`);
  const ownerUrl = urlOf("tollgate_owner");
  const appUrl = urlOf("tollgate_app_a");
  const logins = ["tollgate_app_a", "tollgate_app_b"].map((name) => ({ name, password: name }));

  /** A database of its own owner's making; `closed` says whether the host has closed its functions, too. */
  async function createDatabase(name: string, closed: boolean): Promise<void> {
    const databases = [{ name, closed }];
    await bootstrapCluster({ superuserUrl: postgres.superuserUrl, ownerPassword: "tollgate_owner", databases });
    await migrate({ url: urlOf("tollgate_owner", name), directory: sharedMigrations });
    await prepareShared({ ownerUrl: urlOf("tollgate_owner", name), logins, contextKeys });
  }
  await createDatabase(database, true);

  const superuser = new Client({ connectionString: superuserUrl });
  await superuser.connect();

  return {
    ownerUrl,
    appUrl,
    fetchEndpoint,
    proxy,
    urlOf,
    createDatabase,

    /** Any statements, as the superuser. */
    async superuser(sql: string, params?: unknown[]): Promise<Record<string, unknown>[]> {
      return (await superuser.query<Record<string, unknown>>(sql, params)).rows;
    },

    /** One statement with a login's own rights on a connection of its own, in a transaction that is rolled back. */
    async plainly(url: string, context: string | undefined, sql: string): Promise<Record<string, unknown>[]> {
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

    db(
      tenantId: TenantId,
      options: { keys?: ContextKeys; statementTimeoutMs?: number; onRoundTrip?: () => void } = {},
    ) {
      const { keys = contextKeys, ...rest } = options;
      const entrance = contextEntrance({ contextKeys: keys, tenantId, database, now: Date.now });
      return createTenantDb({ url: appUrl, fetchEndpoint, entrance, now: Date.now, ...rest });
    },

    /** The two tenants' rows as every test finds them. */
    async seed(): Promise<void> {
      await superuser.query(`
        DELETE FROM products WHERE tenant_id NOT LIKE 'canary-%'; DELETE FROM settings;
        INSERT INTO products (tenant_id, id, name, price_cents) VALUES
          ('acme', 'lamp', 'Acme lamp', 100), ('globex', 'lamp', 'Globex lamp', 900), ('globex', 'secret-1', 'Globex plan', 1);
        INSERT INTO settings (tenant_id, key, value) VALUES ('acme', 'plan', '"a"'), ('globex', 'plan', '"g"');
        ANALYZE products;`);
    },

    async [Symbol.asyncDispose](): Promise<void> {
      await superuser.end();
      await proxy.close();
      await postgres.stop();
      await removePostgresData(dataDir);
    },
  };
}

/** A context as the program signs it, with overrides. */
export async function aContext(
  overrides: { tenantId?: TenantId; database?: string; key?: ContextKey; lifeMs?: number } = {},
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
