// `npm run migrate` over tenants' own schemas, run as a program on real databases. Each test has tenants of its own and
// restricts its runs to them.
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type TestFleet, ended, startFleet } from "../support/fleet.ts";

let fleet: TestFleet;
beforeAll(async () => void (fleet = await startFleet({ shards: ["schema-1", "schema-2"] })));
afterAll(() => fleet.close());

type Tenant = Awaited<ReturnType<TestFleet["addTenant"]>>;

let made = 0;
async function tenantsOf(count: number) {
  const tenants: Tenant[] = [];
  for (let n = 0; n < count; n += 1) tenants.push(await fleet.addTenant(`schema-${(n % 2) + 1}`, `t${(made += 1)}`));
  return {
    tenants,
    only: ["--only", tenants.map(({ id }) => id).join(",")],
    /** The app's files that each schema has applied, from the schema itself. */
    applied: () =>
      Promise.all(
        tenants.map(({ shard, schema }) =>
          fleet.owner(shard, async (client) => {
            const text = `SELECT name FROM ${schema}.schema_migrations WHERE series = 'app' ORDER BY name`;
            return (await client.query<{ name: string }>(text)).rows.map(({ name }) => name);
          }),
        ),
      ),
    /** The last file of each schema by the control tables. */
    versions: async () => {
      const text = `SELECT schema_version AS version FROM placements WHERE tenant_id = ANY ($1) ORDER BY id`;
      const rows = await fleet.controlRows<{ version: string }>(text, [tenants.map(({ id }) => id)]);
      return rows.map(({ version }) => version.split(" ").at(-1) ?? "");
    },
  };
}

/** The only element, or the first. */
function first<Item>(items: readonly Item[]): Item {
  const [item] = items;
  if (item === undefined) throw new Error("There is none.");
  return item;
}

const note = { "0002_note.sql": "ALTER TABLE products ADD COLUMN note text;" };

test("a dry run reports the pending work by shard and changes nothing", async () => {
  const { applied, versions, only } = await tenantsOf(3);
  const runs = () => fleet.controlRows(`SELECT * FROM migration_runs`);
  const before = [await applied(), await versions(), await runs()];
  const { code, output } = await fleet.migrate(
    ...["--dry-run", "--cohort", "1", "--tenant-files", await fleet.filesWith(note), ...only],
  );
  expect(code).toBe(0);
  expect(output).toContain("3 of 3 would be migrated to product/0001_settings.sql, app/0002_note.sql");
  expect(output).toMatch(/schema-1: 2 of 2 {2}app\/0002_note\.sql\n.*schema-2: 1 of 1 {2}app\/0002_note\.sql/);
  expect(output).toMatch(/first: t\d+\n/);
  expect([await applied(), await versions(), await runs()]).toEqual(before);
});

test("every schema gets the file once, and the change log of a table follows its new columns", async () => {
  const { tenants, applied, versions, only } = await tenantsOf(4);
  const files = await fleet.filesWith(note);
  const { code, output } = await fleet.migrate("--tenant-files", files, "--cohort", first(tenants).id, ...only);
  expect(output).toContain("applied 4, up to date 0, failed 0");
  expect(code).toBe(0);
  expect(new Set(await versions())).toEqual(new Set(["app/0002_note.sql"]));
  expect(new Set((await applied()).map(String))).toEqual(new Set(["0001_products.sql,0002_note.sql"]));
  const { shard, schema } = first(tenants);
  const noting = await fleet.owner(shard, async (client) => {
    const text = `SELECT count(*)::int AS n FROM pg_trigger t
                  WHERE t.tgrelid = '${schema}.products'::regclass AND encode(t.tgargs, 'escape') LIKE '%r.note::text%'`;
    return (await client.query<{ n: number }>(text)).rows;
  });
  expect(noting).toEqual([{ n: 3 }]);
  const again = await fleet.migrate("--tenant-files", files, ...only);
  expect(again).toMatchObject({
    code: 0,
    output: expect.stringContaining("all 4 have product/0001_settings.sql, app/0002_note.sql"),
  });
});

test("a file with a lower number that arrives later is applied to existing schemas too", async () => {
  const { applied, versions, only } = await tenantsOf(2);
  const third = { "0003_third.sql": "ALTER TABLE products ADD COLUMN third text;" };
  expect(await fleet.migrate("--tenant-files", await fleet.filesWith(third), ...only)).toMatchObject({ code: 0 });
  const both = await fleet.filesWith({ ...note, ...third });
  const dry = await fleet.migrate("--dry-run", "--tenant-files", both, ...only);
  expect(dry.output).toMatch(/schema-1: 1 of 1 {2}app\/0002_note\.sql\n/);
  const { code, output } = await fleet.migrate("--tenant-files", both, ...only);
  expect(output).toContain("applied 2, up to date 0, failed 0");
  expect(code).toBe(0);
  const files = ["0001_products.sql", "0002_note.sql", "0003_third.sql"];
  expect(await applied()).toEqual([files, files]);
  expect(await versions()).toEqual(["app/0003_third.sql", "app/0003_third.sql"]);
});

test("a schema whose rows violate a change fails alone, its report quotes no row, and it succeeds once the rows fit", async () => {
  const { tenants, versions, only } = await tenantsOf(4);
  const { id, shard, schema } = first(tenants);
  await fleet.owner(shard, async (client) => {
    // The owner is not a tenant, so the check on a tenant's rows is off while the owner inserts the row.
    await client.query(`ALTER TABLE ${schema}.settings DROP CONSTRAINT tenant_id_is_mine`);
    await client.query(
      `INSERT INTO ${schema}.settings (tenant_id, key, value) VALUES ('${id}', 'hush', '"hush-hush"')`,
    );
    await client.query(
      `ALTER TABLE ${schema}.settings ADD CONSTRAINT tenant_id_is_mine CHECK (tenant_id = tollgate.current_tenant()) NOT VALID`,
    );
    await client.query(`UPDATE tollgate.tenants SET structure = tollgate.structure(role) WHERE role = $1`, [schema]);
  });
  const files = await fleet.filesWith({
    "0002_keys.sql":
      "-- allow constraint-not-valid: a test\nALTER TABLE settings ADD CONSTRAINT no_hush CHECK (key <> 'hush');",
  });
  const failing = await fleet.migrate("--tenant-files", files, "--stop-above", "1", ...only);
  expect(failing.code).toBe(1);
  expect(failing.output).toContain(
    `failed: ${id} on schema-1: existing rows break a check (constraint no_hush) (23514)`,
  );
  expect(failing.output).toContain("applied 3, up to date 0, failed 1");
  expect(failing.output).not.toContain("hush-hush");
  expect(await versions()).toEqual(["app/0001_products.sql", ...Array.from({ length: 3 }, () => "app/0002_keys.sql")]);

  const status = await fleet.migrate("status", "--tenant-files", files);
  // The shard's columns: tenants, pending, drifted, failed.
  expect(status.output).toMatch(/schema-1 +\d+ +\d+ +0 +1 /);
  // The failed run's file is pending, also for a program that does not have it.
  const without = await fleet.migrate("status");
  expect(without.output).toMatch(/schema-1 +\d+ +[1-9]\d* +0 +1 /);
  expect(without.output).toMatch(/Run \d+ failed.*\. Its target was .*app\/0002_keys\.sql/);
  await fleet.owner(shard, (client) => client.query(`DELETE FROM ${schema}.settings`));
  expect(await fleet.migrate("--tenant-files", files, ...only)).toMatchObject({ code: 0 });
  expect(new Set(await versions())).toEqual(new Set(["app/0002_keys.sql"]));
});

test("a run stops when its first cohort fails, and no other schema is touched", async () => {
  const { tenants, versions, only } = await tenantsOf(6);
  const { id } = first(tenants);
  const files = await fleet.filesWith({ "0002_wrong.sql": "SELECT 1 / 0;" });
  const { code, output } = await fleet.migrate("--tenant-files", files, "--cohort", id, ...only);
  expect(code).toBe(1);
  expect(output).toContain("stopped, because 1 of 1 failed, more than 2% of the first cohort");
  expect(output).toContain("applied 0, up to date 0, failed 1");
  expect(new Set(await versions())).toEqual(new Set(["app/0001_products.sql"]));
});

test("a schema that was changed by hand is reported with its differences, and left alone unless drift is allowed", async () => {
  const { tenants, versions, only } = await tenantsOf(3);
  const { id, shard, schema } = first(tenants);
  await fleet.owner(shard, async (client) => {
    await client.query(`ALTER TABLE ${schema}.products ALTER COLUMN stock TYPE bigint, ADD COLUMN odd text`);
    await client.query(`DROP INDEX ${schema}.products_by_name; GRANT TRUNCATE ON ${schema}.settings TO ${schema}`);
    // Settings that may differ between tenants are not drift.
    await client.query(`ALTER TABLE ${schema}.products SET (autovacuum_vacuum_scale_factor = 0.01)`);
    await client.query(`ALTER ROLE ${schema} CONNECTION LIMIT 7`);
  });
  const { output } = await fleet.migrate("status");
  const story = output.slice(output.indexOf(`${id} on schema-1`)).split("\n\n")[0] ?? "";
  expect(story).toContain(
    "column products.stock\n    expected  integer, not null, default 0\n    found     bigint, not null",
  );
  expect(story).toContain("column products.odd\n    expected  nothing\n    found     text");
  expect(story).toMatch(/index products_by_name\n {4}expected {2}CREATE INDEX .*\n {4}found {5}nothing/);
  expect(story).toMatch(/table settings\n.*\n.*found .*tenant .*truncate/);
  expect(story.match(/expected/g)).toHaveLength(4);

  const files = await fleet.filesWith(note);
  const refused = await fleet.migrate("--tenant-files", files, "--stop-above", "1", ...only);
  expect(refused.code).toBe(1);
  expect(refused.output).toMatch(
    new RegExp(`drifted: ${id} on schema-1: it was changed outside of migrations: column products.odd was added`),
  );
  expect(await versions()).toEqual(["app/0001_products.sql", "app/0002_note.sql", "app/0002_note.sql"]);

  expect(await fleet.migrate("--tenant-files", files, "--allow-drift", ...only)).toMatchObject({ code: 0 });
  const accepted = await fleet.migrate("status", "--tenant-files", files);
  expect(accepted.output).not.toContain(`${id} on schema-1 differs`);
  // The schema is migrated, and still differs from the others.
  expect(accepted.output).toMatch(new RegExp(`app/0002_note.sql: 1 unlike the \\d+ others after .*: ${id}\n`));
});

test("the next run finishes a run that was killed in the middle, and migrates no schema twice", async () => {
  const { applied, versions, only } = await tenantsOf(10);
  const files = await fleet.filesWith({ "0002_slow.sql": "SELECT pg_sleep(0.4);" });
  const flags = ["--tenant-files", files, "--concurrency", "2", ...only];
  const done = async () => (await versions()).filter((version) => version === "app/0002_slow.sql").length;
  const child = fleet.spawnMigrate(flags);
  const killed = ended(child);
  while ((await done()) < 3) await sleep(20);
  child.kill("SIGKILL");
  await killed;
  const before = await done();
  expect(before).toBeLessThan(10);

  const { code, output } = await fleet.migrate(...flags);
  expect(output).toContain("is not finished. Waiting to see");
  expect(code).toBe(0);
  expect(await done()).toBe(10);
  expect(await applied()).toEqual(Array.from({ length: 10 }, () => ["0001_products.sql", "0002_slow.sql"]));
  const results = await fleet.controlRows<{ state: string; n: number; placements: number }>(
    `SELECT m.state, count(*)::int AS n FROM migration_runs m JOIN migration_results r ON r.run_id = m.id
     WHERE m.id > (SELECT max(id) - 2 FROM migration_runs) GROUP BY m.id ORDER BY m.id`,
  );
  expect(results).toEqual([
    { state: "stopped", n: before },
    { state: "done", n: 10 - before },
  ]);
});

test("a schema whose answer was lost, or whose database was briefly away, is migrated once", async () => {
  const { applied, only } = await tenantsOf(3);
  const files = await fleet.filesWith(note);
  const sql = "tollgate.migrate";
  fleet.proxy.setFaults([
    { kind: "lose-after", sql, times: 1 },
    { kind: "refuse-before", sql, times: 2 },
  ]);
  const { code, output } = await fleet.migrate("--tenant-files", files, "--concurrency", "1", ...only);
  expect(output).toContain("applied 2, up to date 1, failed 0");
  expect(code).toBe(0);
  expect(await applied()).toEqual(Array.from({ length: 3 }, () => ["0001_products.sql", "0002_note.sql"]));
});

test("a second run names the active run and exits", async () => {
  const { versions, only } = await tenantsOf(8);
  // Takes twelve seconds: on a busy machine the second program needs five to start and three to see a heartbeat.
  const files = await fleet.filesWith({ "0002_slow.sql": "SELECT pg_sleep(1.5);" });
  const flags = ["--tenant-files", files, "--concurrency", "1", ...only];
  const child = fleet.spawnMigrate(flags);
  const one = ended(child);
  // A test that killed its run may have left another row in this state.
  const itsRun = `SELECT FROM migration_runs WHERE state = 'running' AND started_by LIKE 'process ${child.pid} %'`;
  while ((await fleet.controlRows(itsRun)).length === 0) await sleep(20);
  const two = await fleet.migrate(...flags);
  expect(two.code).toBe(1);
  expect(two.output).toMatch(/Run \d+, started by process \d+ on .*, is still active/);
  expect(await one).toMatchObject({ code: 0 });
  expect(new Set(await versions())).toEqual(new Set(["app/0002_slow.sql"]));
});

test("a signal stops a run after its running schemas", async () => {
  const { versions, only } = await tenantsOf(6);
  const files = await fleet.filesWith({ "0002_slow.sql": "SELECT pg_sleep(0.5);" });
  const child = fleet.spawnMigrate(["--tenant-files", files, "--concurrency", "1", ...only]);
  const run = ended(child);
  while (!(await versions()).includes("app/0002_slow.sql")) await sleep(20);
  child.kill("SIGINT");
  const { code, output } = await run;
  expect(code).toBe(1);
  expect(output).toContain("stopped, because the operator stopped it");
  expect(await versions()).toContain("app/0001_products.sql");
});

test("a shard that a run cannot set up is refused, with what to do instead", async () => {
  for (const [shard, words] of [
    ["database-t1", /own database.*--only t1/],
    ["schema-1", /neither is set.*Leave --shard out/],
  ] as const) {
    const { code, output } = await fleet.migrate("--shard", shard);
    expect(code).toBe(1);
    expect(output).toMatch(words);
  }
});

test("a file that has changed since it was applied is refused by name", async () => {
  const { versions, only } = await tenantsOf(2);
  expect(await fleet.migrate("--tenant-files", await fleet.filesWith(note), ...only)).toMatchObject({ code: 0 });
  const changed = await fleet.filesWith({
    "0002_note.sql": "ALTER TABLE products ADD COLUMN other text;",
    "0003_c.sql": "SELECT 1;",
  });
  const { code, output } = await fleet.migrate("--tenant-files", changed, "--stop-above", "100%", ...only);
  expect(code).toBe(1);
  expect(output).toContain("app/0002_note.sql has changed since it was applied");
  expect(await versions()).toEqual(["app/0002_note.sql", "app/0002_note.sql"]);
  // The same when no file is pending.
  const edited = await fleet.filesWith({ "0002_note.sql": "ALTER TABLE products ADD COLUMN other text;" });
  for (const flags of [[], ["--dry-run"]]) {
    const run = await fleet.migrate("--tenant-files", edited, ...flags, ...only);
    expect(run, flags.join()).toMatchObject({
      code: 1,
      output: expect.stringMatching(/Nothing was done[^]*0002_note\.sql has changed/),
    });
  }
  expect((await fleet.migrate("status", "--tenant-files", edited)).output).toContain("app/0002_note.sql has changed");
});

test("a dry run refuses what the real run refuses", async () => {
  const { only } = await tenantsOf(1);
  const files = await fleet.filesWith({ "0002_unsafe.sql": "ALTER TABLE products ADD COLUMN n bigserial;" });
  for (const flags of [["--dry-run"], []]) {
    const { code, output } = await fleet.migrate("--tenant-files", files, ...flags, ...only);
    expect(code, flags.join()).toBe(1);
    expect(output, flags.join()).toMatch(/Nothing was done[^]*0002_unsafe\.sql/);
  }
});

test("a migration waits one second at a time for a table in use, so that its tenant keeps working, and retries", async () => {
  const { tenants, versions, only } = await tenantsOf(2);
  const { shard, schema } = first(tenants);
  const files = await fleet.filesWith(note);
  const { code, output, longestMs } = await fleet.owner(shard, async (client) => {
    await client.query(`BEGIN; SELECT FROM ${schema}.products`);
    const run = fleet.migrate("--tenant-files", files, ...only);
    const longest = await fleet.owner(shard, async (other) => {
      let waited = 0;
      let migrationWaits = false;
      // Hold the table until the first attempt, which waits for one second, has given up.
      for (let endMs = performance.now() + 30_000; performance.now() < endMs;) {
        if (!migrationWaits && (await waitsForLock(other))) {
          migrationWaits = true;
          endMs = performance.now() + 1_500;
        }
        const startedAtMs = performance.now();
        await other.query(`SELECT FROM ${schema}.products`);
        waited = Math.max(waited, performance.now() - startedAtMs);
        await sleep(100);
      }
      return waited;
    });
    await client.query("COMMIT");
    return { ...(await run), longestMs: longest };
  });
  expect(longestMs).toBeLessThan(2_500);
  expect(output).toContain("retried 1");
  expect(code).toBe(0);
  expect(await versions()).toEqual(["app/0002_note.sql", "app/0002_note.sql"]);
});

/** Whether a session of this database waits for a table. */
async function waitsForLock(client: Client): Promise<boolean> {
  const { rows } = await client.query(
    `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
  );
  return rows.length > 0;
}

test("a file that would break the running program is refused before any change, with the safe alternative", async () => {
  const { versions, only } = await tenantsOf(1);
  const files = await fleet.filesWith({ "0009_bad.sql": "ALTER TABLE products ADD COLUMN must text NOT NULL;" });
  const { code, output } = await fleet.migrate("--tenant-files", files, ...only);
  expect(code).toBe(1);
  expect(output).toMatch(/^Nothing was done\.[^]*0009_bad\.sql:1[^]*Instead:/);
  expect(await versions()).toEqual(["app/0001_products.sql"]);
});

test.each([
  [["--concurrency", "0"], "--concurrency"],
  [["--stop-above", "200%"], "--stop-above"],
  [["--cohort", "No Such"], "--cohort"],
  [["--only", "nobody"], "no schema of their own: nobody"],
  [["--unknown"], "--unknown"],
  [["perhaps"], "no command perhaps"],
  [["--local"], "Run npm start first"],
])("%j is refused with the reason", async (flags, said) => {
  const { code, output } = await fleet.migrate(...flags);
  expect(code).toBe(1);
  expect(output).toContain(said);
  expect(output).not.toContain("    at ");
});
