import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { refuseTakenId } from "../../cli/migrations/databases.ts";
import { prepareSharedShard, registerShard } from "../../cli/migrations/prepare.ts";
import { controlMigrations, migrate, sharedMigrations } from "../../cli/migrations/apply.ts";
import { connectControl } from "../../src/adapters/neon.ts";
import { placementsStore } from "../../src/control/placements-store.ts";
import { findPlacement, placeTenant } from "../../src/tenant-db/placement.ts";
import { acme, contextKeys, type Shard, startShard } from "../support/shard.ts";

let shard: Shard;
let directory: string;
let url: string;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tollgate-migrations-"));
  const name = `migrate_${Math.random().toString(36).slice(2)}`;
  await shard.superuser(`CREATE DATABASE ${name} OWNER tollgate_owner`);
  url = shard.urlOf("tollgate_owner", name);
  return () => rm(directory, { recursive: true });
});

const file = (name: string, sql: string) => writeFile(join(directory, name), sql);
const run = () => migrate({ url, series: [{ name: "product", directory }] });
const tables = async () => {
  const sql = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1";
  return (await shard.plainly(url, undefined, sql)).map((row) => row["relname"]);
};

test("two concurrent runs apply each file once and in order", async () => {
  await file("0002_b.sql", "ALTER TABLE a ADD COLUMN y int;");
  await file("0001_a.sql", "CREATE TABLE a (x int);");
  const applied = await Promise.all([run(), run()]);
  expect(applied.flat()).toEqual(["0001_a.sql", "0002_b.sql"]);
  expect(await run()).toEqual([]);
  await file("0003_c.sql", "CREATE TABLE c ();");
  expect(await run()).toEqual(["0003_c.sql"]);
});

test("a file that fails is rolled back, and the files before it stay applied", async () => {
  await file("0001_a.sql", "CREATE TABLE a ();");
  await file("0002_b.sql", "CREATE TABLE b (); SELECT 1 / 0;");
  await expect(run()).rejects.toThrow(/division by zero/);
  expect(await tables()).toEqual(["a", "schema_migrations"]);
  await file("0002_b.sql", "CREATE TABLE b ();");
  expect(await run()).toEqual(["0002_b.sql"]);
});

test("a run refuses a changed and a missing file, names it, and applies a late one", async () => {
  await file("0001_a.sql", "CREATE TABLE a ();");
  await file("0003_c.sql", "CREATE TABLE c ();");
  await run();
  await file("0001_a.sql", "CREATE TABLE a (x int);");
  await expect(run()).rejects.toThrow(/product\/0001_a\.sql has changed/);
  await file("0001_a.sql", "CREATE TABLE a ();");
  await file("0002_b.sql", "CREATE TABLE b ();");
  expect(await run()).toEqual(["0002_b.sql"]);
  expect(await tables()).toEqual(["a", "b", "c", "schema_migrations"]);
  await rm(join(directory, "0003_c.sql"));
  await expect(run()).rejects.toThrow(/applied product\/0003_c\.sql.*no such file/);
});

test("a second run migrates and prepares the shared tables without a change", async () => {
  const again = () =>
    prepareSharedShard({
      ownerUrl: url,
      logins: [{ name: "tollgate_app_b", password: "tollgate_app_b" }],
      contextKeys,
    });
  await migrate({ url, series: sharedMigrations });
  await Promise.all([again(), again()]);
  expect(await migrate({ url, series: sharedMigrations })).toEqual([]);
  await again();
});

test("a tenant gets no placement on a shard that lacks a file of the bundle, until the shard is migrated", async () => {
  const name = `control_${Math.random().toString(36).slice(2)}`;
  await shard.superuser(`CREATE DATABASE ${name} OWNER tollgate_owner`);
  const controlUrl = shard.urlOf("tollgate_owner", name);
  await migrate({ url: controlUrl, series: controlMigrations });
  await migrate({ url, series: sharedMigrations.filter((series) => series.name !== "app") });
  const encryptionKeys = [{ id: "k1", secret: "an encryption key that only tests know of" }] as const;
  const place = { strategy: "shared", region: "here" } as const;
  const appUrl = shard.urlOf("tollgate_app_a", new URL(url).pathname.slice(1));
  await registerShard({ ...place, id: "behind", controlUrl, encryptionKeys, ownerUrl: url, appUrl });

  const env = {
    CONTROL_DATABASE_URL: controlUrl,
    NEON_FETCH_ENDPOINT: shard.fetchEndpoint,
    ENCRYPTION_KEYS: JSON.stringify(encryptionKeys),
  } as Env;
  const control = connectControl(env);
  await control.query(
    `INSERT INTO tenants (id, name, plan, strategy, state, limits) VALUES ($1, $1, 'free', 'shared', 'provisioning', '{}')`,
    [acme],
  );
  const placed = () => control.query("SELECT state FROM placements WHERE tenant_id = $1", [acme]);
  const reserved = await findPlacement({ env, control }, acme, place);
  if (reserved === null) throw new Error("the shard has no room");
  await expect(placeTenant({ env, control }, acme, reserved)).rejects.toMatchObject({
    code: "placement_unavailable",
    message: expect.stringMatching(/shard behind lacks app\/0001_products\.sql: run npm run migrate/),
  });
  expect(await placed()).toEqual([{ state: "preparing" }]);
  await migrate({ url, series: sharedMigrations });
  await placeTenant({ env, control }, acme, reserved);
  expect(await placed()).toEqual([{ state: "ready" }]);
});

test("a database is not registered under the id of another one that Tollgate has created or is creating", async () => {
  const name = `control_${Math.random().toString(36).slice(2)}`;
  await shard.superuser(`CREATE DATABASE ${name} OWNER tollgate_owner`);
  const controlUrl = shard.urlOf("tollgate_owner", name);
  await migrate({ url: controlUrl, series: controlMigrations });
  const control = connectControl({ CONTROL_DATABASE_URL: controlUrl, NEON_FETCH_ENDPOINT: shard.fetchEndpoint });
  await control.query(
    `INSERT INTO shards (id, strategy, region, capacity, host, database, neon_project_id) VALUES
       ('by-hand', 'shared', 'here', 9, 'ep-old.neon.tech', 'main', NULL), ('opening', 'shared', 'here', 9, NULL, NULL, NULL),
       ('opened', 'shared', 'here', 9, 'ep-own-pooler.neon.tech', 'main', 'project')`,
  );
  const other = "postgresql://owner:secret@ep-other.neon.tech/main";
  await refuseTakenId(controlUrl, { id: "by-hand", url: other });
  await refuseTakenId(controlUrl, { id: "new", url: other });
  await refuseTakenId(controlUrl, { id: "opened", url: "postgresql://owner:secret@ep-own.neon.tech/main" });
  for (const id of ["opened", "opening"])
    await expect(refuseTakenId(controlUrl, { id, url: other })).rejects.toThrow(/choose another id with --shard/);
});

test("callers that find no room at once get one shard to create, and a late one gets none", async () => {
  const name = `control_${Math.random().toString(36).slice(2)}`;
  await shard.superuser(`CREATE DATABASE ${name} OWNER tollgate_owner`);
  const controlUrl = shard.urlOf("tollgate_owner", name);
  await migrate({ url: controlUrl, series: controlMigrations });
  const placements = placementsStore(
    connectControl({ CONTROL_DATABASE_URL: controlUrl, NEON_FETCH_ENDPOINT: shard.fetchEndpoint }),
  );
  const toOpen = (openShards: number) => placements.shardToOpen("shared", "here", openShards);
  expect(await Promise.all(Array.from({ length: 20 }, () => toOpen(0)))).toEqual(Array(20).fill("shared-1"));
  const claims = await Promise.all(Array.from({ length: 20 }, () => placements.claimShard("shared-1", 60_000)));
  const [claim, ...others] = claims.filter((each) => each !== undefined);
  expect(others).toEqual([]);

  // A claim that was taken over is released by its holder only.
  await placements.releaseShard("shared-1", "2026-01-01T00:00:00Z");
  expect(await placements.claimShard("shared-1", 60_000)).toBeUndefined();
  await placements.releaseShard("shared-1", claim ?? "");
  expect(await placements.claimShard("shared-1", 0)).toBeDefined();
  expect(await placements.claimShard("shared-1", 60_000)).toBeDefined(); // the claim before has ended

  const opened = { id: "shared-1", strategy: "shared", region: "here", database: "d", appLogin: null } as const;
  await placements.openShard({ ...opened, host: "first", ownerLogin: "first" });
  await placements.openShard({ ...opened, host: "late", ownerLogin: "late" });
  expect(await placements.shard("shared-1")).toMatchObject({ host: "first", ownerLogin: "first" });
  expect(await toOpen(0)).toBeUndefined();
  expect(await toOpen(1)).toBe("shared-2");
});

test.each([
  ["has no tenant", "CREATE TABLE t (id text PRIMARY KEY)"],
  ["may have no tenant in a row", "CREATE TABLE t (tenant_id text, id text, UNIQUE (tenant_id, id))"],
  ["has a key that spans tenants", "CREATE TABLE t (tenant_id text NOT NULL, id text PRIMARY KEY)"],
  ["has a second key that spans tenants", "CREATE TABLE t (tenant_id text PRIMARY KEY, n int UNIQUE)"],
  [
    "has a key on an expression",
    "CREATE TABLE t (tenant_id text PRIMARY KEY, n text); CREATE UNIQUE INDEX ON t (lower(n))",
  ],
  [
    "refers across tenants",
    "CREATE TABLE r (id text PRIMARY KEY); CREATE TABLE t (tenant_id text PRIMARY KEY, r text REFERENCES r)",
  ],
])("a table that %s cannot be shared by tenants", async (_, create) => {
  await migrate({ url, series: sharedMigrations });
  await expect(shard.plainly(url, undefined, `${create}; SELECT tollgate.isolate('t')`)).rejects.toThrow(/tenant_id/);
});

test("a run creates an index concurrently, and replaces an index that an earlier attempt left invalid", async () => {
  await file("0001_a.sql", "CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1);");
  await file("0002_index.sql", "CREATE UNIQUE INDEX CONCURRENTLY a_x ON a (x);");
  await expect(run()).rejects.toThrow(/could not create unique index/);
  await shard.plainly(url, undefined, "SELECT 1");
  await file("0002_index.sql", "CREATE INDEX CONCURRENTLY a_x ON a (x);");
  expect(await run()).toEqual(["0002_index.sql"]);
  const valid = await shard.plainly(
    url,
    undefined,
    "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_x'::regclass",
  );
  expect(valid).toEqual([{ indisvalid: true }]);
});

test("a migration gives up when its table is in use, so that no other statement queues behind it", async () => {
  await file("0001_a.sql", "CREATE TABLE a (x int);");
  await run();
  await file("0002_b.sql", "ALTER TABLE a ADD COLUMN y int;");
  const busy = new Client({ connectionString: url });
  await busy.connect();
  try {
    await busy.query("BEGIN; LOCK TABLE a IN ACCESS SHARE MODE");
    await expect(run()).rejects.toMatchObject({ code: "55P03" });
  } finally {
    await busy.end();
  }
  expect(await run()).toEqual(["0002_b.sql"]);
});
