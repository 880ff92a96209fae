// Provisioning while the program is newer than its databases, and when no database has room.
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { migrate, sharedMigrationsOf } from "../../cli/migrations/apply.ts";
import {
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  faultsFired,
  fireCron,
  health,
  operator,
  rowsOf,
  status,
  system,
  until,
} from "../support/flow.ts";

const later = {
  name: "9001_reminders.sql",
  text: "CREATE TABLE reminders (tenant_id text PRIMARY KEY); SELECT tollgate.isolate('reminders');",
};

/** Adds these files to the app's migrations in the Worker's bundle. */
const release = (files: (typeof later)[]) =>
  fetch(`${system.publicUrl}/test/migrations`, {
    method: "POST",
    body: JSON.stringify(files.map((file) => ({ series: "app", ...file }))),
  });

test("a new tenant waits while its shard lacks a file of the bundle, and becomes active after migrate", async () => {
  const app = await mkdtemp(join(tmpdir(), "tollgate-app-"));
  try {
    await release([later]);
    const created = await operator("POST", "/tenants", { plan: "free", name: "Ahead of its shard" });
    const { id } = (await created.json()) as { id: string };
    const isolation = async () => (await status(id)).steps.find(({ name }) => name === "isolation");
    await until(async () => (await isolation())?.status === "retrying", "the placement is refused");
    // The operator reads the reason, and the buyer does not.
    const shown = (await (await operator("GET", `/tenants/${id}`)).json()) as {
      provisioning: { attemptLog: { attempt: number; reason: string | null }[] };
    };
    expect(shown.provisioning.attemptLog[0]).toMatchObject({
      attempt: 1,
      reason: expect.stringMatching(/^isolation: .*lacks app\/9001_reminders\.sql: run npm run migrate/),
    });
    expect(JSON.stringify(await status(id))).not.toContain("9001_reminders");
    expect(await isolation()).toMatchObject({ error: expect.stringContaining("cannot be created yet") });
    expect((await status(id)).state).toBe("provisioning");
    expect(await controlRows("SELECT state FROM placements WHERE tenant_id = $1", [id])).toEqual([
      { state: "preparing" },
    ]);

    await cp(resolve("test/support/fixture-app/migrations"), join(app, "migrations"), { recursive: true });
    await writeFile(join(app, "migrations", later.name), later.text);
    expect(await migrate({ url: system.sharedOwnerUrl, series: sharedMigrationsOf(app) })).toEqual([later.name]);
    await until(async () => (await status(id)).state === "active", "the retry finds the table", 30_000);
    const key = (await (await operator("POST", `/tenants/${id}/keys`, { name: "test" })).json()) as { apiKey: string };
    expect((await callTool(key.apiKey, "health_check")).data).toMatchObject({ ok: true });
  } finally {
    await release([]);
    await rowsOf(system.sharedOwnerUrl, "DROP TABLE IF EXISTS reminders");
    await rowsOf(system.sharedOwnerUrl, "DELETE FROM schema_migrations WHERE name = $1", [later.name]);
    await rm(app, { recursive: true });
  }
});

test("a region that Neon does not have ends the provisioning with a reason, without a shard, until the operator acts", async () => {
  const created = await operator("POST", "/tenants", {
    ...{ plan: "enterprise", strategy: "database", region: "moon-1", name: "Far away" },
  });
  const { id } = (await created.json()) as { id: string };
  const shown = async () =>
    (await (await operator("GET", `/tenants/${id}`)).json()) as {
      provisioning: { error: string | null; attempts: number };
      waysBack: { request: string }[];
    };
  await until(async () => (await shown()).provisioning.error !== null, "the provisioning fails");
  const { provisioning, waysBack } = await shown();
  expect(provisioning).toMatchObject({ attempts: 1, error: expect.stringMatching(/refused .*does not try again/) });
  expect(waysBack.map(({ request }) => request)).toEqual([expect.stringContaining(`/tenants/${id}/resume`)]);
  expect(await controlRows("SELECT FROM shards WHERE region = 'moon-1'")).toEqual([]);

  // No sweep repeats it.
  await controlRows(
    "UPDATE provisioning_attempts SET started_at = now() - interval '1 day', progressed_at = now() - interval '1 day' WHERE tenant_id = $1",
    [id],
  );
  await fireCron("* * * * *");
  expect((await shown()).provisioning.attempts).toBe(1);

  // The operator corrects the region and resumes it.
  expect((await operator("PATCH", `/tenants/${id}`, { region: null })).status).toBe(200);
  expect((await operator("POST", `/tenants/${id}/resume`)).status).toBe(200);
  await until(async () => (await status(id)).state === "active", "it is active", 30_000);
});

/** Leaves no room on the shared shards until disposed, which forgets the shards that Tollgate created meanwhile. */
async function fullSharedShards(): Promise<AsyncDisposable> {
  await controlRows(
    `UPDATE shards s SET capacity = (SELECT count(*) FROM placements WHERE shard_id = s.id AND state <> 'dropped')
     WHERE strategy = 'shared' AND accepts`,
  );
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await controlRows("UPDATE shards SET capacity = 10000 WHERE id = 'shared-1'");
      await controlRows(
        "UPDATE shards SET accepts = false, host = NULL WHERE strategy = 'shared' AND id <> 'shared-1'",
      );
    },
  };
}

/** The databases of the projects at Neon. */
const neonDatabases = async (): Promise<number> =>
  (await rowsOf(system.superuserUrl, "SELECT FROM pg_database WHERE datname LIKE 'neon\\_%'")).length;

/** The shards on which these tenants are. */
async function shardsOf(tenants: readonly { id: string }[]): Promise<{ shard: string; version: string | null }[]> {
  return controlRows(
    `SELECT DISTINCT s.id AS shard, s.schema_version AS version FROM placements p JOIN shards s ON s.id = p.shard_id
     WHERE p.tenant_id = ANY ($1)`,
    [tenants.map(({ id }) => id)],
  );
}

test("sign-ups that find the shared shards full wait for one shard that Tollgate creates, where tenants are apart", async () => {
  const shards = async () => {
    const answer = await (await operator("GET", "/shards")).json();
    return (answer as { shards: { id: string; state: string; tenants: number }[] }).shards;
  };
  const run = async (apiKey: string, ...statements: string[]) =>
    (await callTool(apiKey, "run_sql", { statements })).data?.["results"];
  const first = await aTenant({ plan: "free" });
  await run(first.apiKey, "INSERT INTO products (id, name, price_cents, stock) VALUES ('first', 'First', 1, 1)");
  await using _full = await fullSharedShards();
  const before = await neonDatabases();
  // Neon creates the project, and the answer is lost.
  const lost = [{ kind: "lose-after", method: "POST", path: "/projects", times: 1 }];
  await fetch(new URL("/_neon/faults", system.neonApiUrl), { method: "POST", body: JSON.stringify(lost) });
  const tenants = await Promise.all(Array.from({ length: 8 }, () => aTenant({ plan: "free" })));
  const [shard, ...others] = await shardsOf(tenants);
  expect(shard).toEqual({ shard: expect.stringMatching(/^shared-[2-9]$/), version: expect.stringContaining("app/") });
  expect(others).toEqual([]);
  expect(await neonDatabases()).toBe(before + 1);
  expect(await shards()).toContainEqual(expect.objectContaining({ id: shard?.shard, state: "open", tenants: 8 }));

  // The own row, no row of a neighbour's, and none of the first shard.
  await Promise.all(
    tenants.map(async ({ id, apiKey }) => {
      await run(apiKey, `INSERT INTO products (id, name, price_cents, stock) VALUES ('${id}', 'Own', 1, 1)`);
      const seen = await run(
        apiKey,
        "SELECT DISTINCT tenant_id FROM products",
        "SELECT id FROM products WHERE price_cents = 1",
      );
      expect(seen).toEqual([[{ tenant_id: id }], [{ id }]]);
    }),
  );
  expect(await run(first.apiKey, "SELECT id FROM products WHERE price_cents = 1")).toEqual([[{ id: "first" }]]);
  expect(await (await health()).json()).toMatchObject({ checks: { isolation: { ok: true, facts: { shared: 2 } } } });
  const migrations = await (await operator("GET", "/migrations")).json();
  expect(migrations).toMatchObject({ behind: [] });
  const counted = await operator("POST", "/analytics", { sql: "SELECT count(*) FROM products", strategy: "shared" });
  expect(JSON.stringify(await counted.json())).not.toContain("error");
});

test("a shared shard whose creation fails at any step, and runs several times at once, is completed once", async () => {
  await using _full = await fullSharedShards();
  const before = await neonDatabases();
  // From the moment that the project exists, every attempt gets the claim.
  await rowsOf(
    system.controlUrl,
    `CREATE FUNCTION no_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       NEW.claimed_until := now() - interval '1 second'; RETURN NEW; END $$;
     CREATE TRIGGER no_claim BEFORE UPDATE OF claimed_until ON shards FOR EACH ROW
       WHEN (NEW.neon_project_id IS NOT NULL) EXECUTE FUNCTION no_claim()`,
  );
  await databaseFaults([
    { kind: "lose-after", sql: "0001_roles.sql", times: 1 },
    { kind: "lose-after", sql: "SET app_login = coalesce", times: 1 },
    { kind: "refuse-before", sql: "tollgate.restore_login", times: 1 },
    { kind: "lose-after", sql: "INSERT INTO tollgate.isolation_proof", times: 1 },
    { kind: "lose-after", sql: "UPDATE shards SET host = $2", times: 1 },
  ]);
  try {
    const tenants = await Promise.all(Array.from({ length: 4 }, () => aTenant({ plan: "free" })));
    expect(await faultsFired()).toEqual([1, 1, 1, 1, 1]);
    expect(await shardsOf(tenants)).toEqual([
      { shard: expect.stringMatching(/^shared-[2-9]$/), version: expect.stringContaining("app/") },
    ]);
    expect(await neonDatabases()).toBe(before + 1);
    for (const { apiKey } of tenants)
      expect((await callTool(apiKey, "search_products", { query: "lamp" })).data?.["products"]).toHaveLength(2);
  } finally {
    await databaseFaults([]);
    await rowsOf(system.controlUrl, "DROP TRIGGER no_claim ON shards; DROP FUNCTION no_claim");
  }
});

test("a shard whose project fails at Neon refuses no sign-up, and is created again once the operator has deleted the project", async () => {
  const fault = { kind: "fail-operation", action: "create_timeline", times: 1 };
  await using _full = await fullSharedShards();
  await fetch(new URL("/_neon/faults", system.neonApiUrl), { method: "POST", body: JSON.stringify([fault]) });
  const created = await operator("POST", "/tenants", { plan: "free", name: "Waits for a database" });
  const { id } = (await created.json()) as { id: string };
  const placement = async () => (await status(id)).steps.find(({ name }) => name === "placement");
  await until(async () => (await placement())?.status === "retrying", "the step fails, and is retried", 30_000);
  const [project] = await controlRows<{ id: string }>(
    "SELECT neon_project_id AS id FROM shards WHERE strategy = 'shared' AND accepts AND host IS NULL",
  );
  const deleted = await fetch(`${system.neonApiUrl}/projects/${project?.id}`, {
    method: "DELETE",
    headers: { authorization: `Bearer ${system.neonApiKey}` },
  });
  expect(deleted.status).toBe(200);
  await until(async () => (await status(id)).state === "active", "it is active", 30_000);
  const [shard] = await shardsOf([{ id }]);
  expect(shard?.shard).toMatch(/^shared-[2-9]$/);
});
