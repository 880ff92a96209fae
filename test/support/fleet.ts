// A separate fleet: real PostgreSQL, the proxy in front of it, control tables, and databases with tenants' own schemas, made
// as the product makes them. Used by tests and by the benchmark of fleet migrations.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import pg from "pg";
import { childEnvironment } from "../../dev/child-environment.ts";
import { bootstrapCluster, OWNER, registerShard } from "../../cli/migrations/prepare.ts";
import {
  branchMigrations,
  controlMigrations,
  migrate,
  readMigrations,
  tenantMigrations,
} from "../../cli/migrations/apply.ts";
import { startNeonProxy } from "../../dev/neon/proxy.ts";
import { THROWAWAY, removePostgresData, startPostgres } from "../../dev/postgres/postgres.ts";
import { migrationId, openBranch } from "../../src/tenant-db/branch.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";

const encryptionKeys = [{ id: "k1", secret: "an encryption key that only tests know of, and long" }] as const;
const root = resolve(import.meta.dirname, "../..");

export interface Ended {
  code: number | null;
  output: string;
}

export type TestFleet = Awaited<ReturnType<typeof startFleet>>;

/** `shards` are the ids of databases for own schemas. Takes about 3 s. Close it, or the server outlives the test. */
export async function startFleet({ shards }: { shards: readonly string[] }) {
  const dataDir = await mkdtemp(join(tmpdir(), "tollgate-fleet-"));
  const postgres = await startPostgres({ dataDir, port: 0, settings: THROWAWAY });
  const proxy = await startNeonProxy({ port: 0, maxTotal: 120 }); // with a bound, it counts connections
  const fetchEndpoint = `${proxy.url}/sql`;
  const urlOf = (database: string): string => `postgresql://${OWNER}:owner@127.0.0.1:${postgres.port}/${database}`;
  const controlUrl = urlOf("control");
  const nameOf = (shard: string): string => shard.replaceAll("-", "_");
  await bootstrapCluster({
    superuserUrl: postgres.superuserUrl,
    ownerPassword: "owner",
    databases: ["control", ...shards.map(nameOf)].map((name) => ({ name, closed: false })),
  });
  await migrate({ url: controlUrl, series: controlMigrations });
  for (const id of shards) {
    const ownerUrl = urlOf(nameOf(id));
    await migrate({ url: ownerUrl, series: branchMigrations });
    await registerShard({
      ...{
        controlUrl,
        encryptionKeys: [...encryptionKeys],
        id,
        strategy: "schema",
        region: "here",
        ownerUrl,
        appUrl: undefined,
      },
    });
  }
  const control = new pg.Pool({ connectionString: controlUrl, max: 4 });
  const files = readMigrations(tenantMigrations);
  const branches = new Map(shards.map((id) => [id, openBranch(urlOf(nameOf(id)), fetchEndpoint, files)]));
  const environment = {
    CONTROL_OWNER_URL: controlUrl,
    ENCRYPTION_KEYS: JSON.stringify(encryptionKeys),
    NEON_FETCH_ENDPOINT: fetchEndpoint,
  };

  const spawnMigrate = (flags: readonly string[], nodeFlags: readonly string[] = []) =>
    spawn(
      process.execPath,
      [...nodeFlags, "--import", join(root, "cli/register-app.ts"), join(root, "cli/migrate.ts"), ...flags],
      {
        cwd: dataDir, // where there is no .dev.vars
        env: childEnvironment(environment),
        stdio: ["ignore", "pipe", "pipe"],
      },
    );

  return {
    controlUrl,
    environment,
    proxy,

    /** Adds a tenant with a schema made by the product's own migrations. */
    async addTenant(shard: string, id: string) {
      const branch = branches.get(shard);
      if (branch === undefined) throw new Error(`There is no shard ${shard}.`);
      await control.query(
        `INSERT INTO tenants (id, name, plan, strategy, state, limits) VALUES ($1, $1, 'pro', 'schema', 'active', '{}')`,
        [id],
      );
      const { rows } = await control.query<{ id: number }>(
        `INSERT INTO placements (tenant_id, shard_id) VALUES ($1, $2) RETURNING id::int AS id`,
        [id, shard],
      );
      const placementId = rows[0]?.id ?? 0;
      const startedAtMs = performance.now();
      await branch.createTenant({ placementId, tenantId: TenantId.parse(id), password: randomUUID() });
      const tookMs = performance.now() - startedAtMs;
      await control.query(`UPDATE placements SET state = 'ready', schema_version = $2 WHERE id = $1`, [
        placementId,
        files.map(migrationId).join(" "),
      ]);
      return { id, schema: `tenant_${placementId}`, shard, tookMs };
    },

    /** A folder of the app's migrations: the fixture app's and the given files. */
    async filesWith(more: Record<string, string>): Promise<string> {
      const directory = await mkdtemp(join(dataDir, "files-"));
      const own = files.flatMap(({ series, name, text }) => (series === "app" ? [[name, text] as const] : []));
      for (const [name, text] of [...own, ...Object.entries(more)]) await writeFile(join(directory, name), text);
      return directory;
    },

    /** Rows of the control database, read as its owner. */
    async controlRows<Row extends pg.QueryResultRow>(text: string, params: unknown[] = []): Promise<Row[]> {
      return (await control.query<Row>(text, params)).rows;
    },

    /** A connection as the owner of a shard's schemas. */
    async owner<Result>(shard: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
      const client = new pg.Client({ connectionString: urlOf(nameOf(shard)) });
      await client.connect();
      try {
        return await work(client);
      } finally {
        await client.end();
      }
    },

    spawnMigrate,

    /** Runs `npm run migrate` with these flags and waits for its end. */
    async migrate(...flags: string[]): Promise<Ended> {
      return ended(spawnMigrate(flags));
    },

    async close(): Promise<void> {
      await control.end();
      await proxy.close();
      await postgres.stop();
      await removePostgresData(dataDir);
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** A program's output and exit code. */
export async function ended(child: ReturnType<TestFleet["spawnMigrate"]>): Promise<Ended> {
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text));
  const code = await new Promise<number | null>((settle) => child.once("close", settle));
  return { code, output };
}
