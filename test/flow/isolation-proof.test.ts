// At start-up and in /health the program proves that its own login is kept within one tenant. Each protection that the proof
// checks is removed once, and the proof must name it.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Client } from "pg";
import { OWNER } from "../../cli/migrations/prepare.ts";
import { connectNeon } from "../../src/adapters/neon.ts";
import { proveBranch } from "../../src/tenant-db/branch.ts";
import { proveIsolation, proveOwnSchema, restoreCanaries } from "../../src/tenant-db/isolation.ts";
import { acme, aContext, contextKeys, globex, type Shard, startShard } from "../support/shard.ts";
import { wallNames, withoutWall } from "../support/walls.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

describe("the program's proof of isolation", () => {
  const prove = (url = shard.appUrl) =>
    proveIsolation({ url, fetchEndpoint: shard.fetchEndpoint, contextKeys, now: Date.now });

  test("holds for both logins, in one round trip's time and at most six requests", async () => {
    shard.proxy.resetStats();
    expect(await prove()).toEqual({ proven: true, leftOpen: [] });
    expect(shard.proxy.stats().httpBatches).toBe(6);
    expect(await prove(shard.urlOf("tollgate_app_b"))).toEqual({ proven: true, leftOpen: [] });
  });

  test.each(wallNames)("fails and names the missing protection: %s", async (name) => {
    await withoutWall(shard, name, async (check) => {
      const proof = await prove();
      const failed = proof.proven ? [] : proof.failures.map((failure) => failure.check);
      if (check === undefined) expect(failed).toEqual([]);
      else expect(failed).toContain(check);
    });
    expect(await prove()).toMatchObject({ proven: true });
  });

  test("leaves nothing behind where creating was possible", async () => {
    const objects = () => shard.superuser("SELECT relname FROM pg_class WHERE relname = 'tollgate_proof'");
    await withoutWall(shard, "no durable objects", () => prove());
    expect(await objects()).toEqual([]);
  });

  test("fails for the owner's login, and for keys that the database does not know", async () => {
    expect(await prove(shard.ownerUrl)).toMatchObject({ proven: false });
    const unknown = [{ id: "unknown", secret: "a secret that was never installed" }] as const;
    expect(
      await proveIsolation({
        url: shard.appUrl,
        fetchEndpoint: shard.fetchEndpoint,
        contextKeys: unknown,
        now: Date.now,
      }),
    ).toEqual({ proven: false, failures: [{ check: "readable", detail: "ended with SQLSTATE 42501" }] });
  });

  test("is inconclusive while the database is away", async () => {
    await expect(prove(shard.appUrl.replace(":tollgate_app_a@", ":wrong@"))).rejects.toMatchObject({
      code: "database_unavailable",
    });
  });

  test("holds on a host that does not allow revoking functions, and lists the open ones", async () => {
    await shard.createDatabase("shard_hosted", false);
    const proof = await prove(shard.urlOf("tollgate_app_a", "shard_hosted"));
    expect(proof).toEqual({
      proven: true,
      leftOpen: expect.arrayContaining(["lo_create(oid)", "pg_sleep(double precision)"]),
    });
  });
});

/** Runs statements with a login's rights on one connection. */
async function as(url: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const text of statements) ({ rows } = await client.query<Record<string, unknown>>(text));
    return rows;
  } finally {
    await client.end();
  }
}

describe("one tenant's statement stops no other tenant", () => {
  test("no tenant but a canary has a row of the isolation proof, and missing rows of canaries are planted again", async () => {
    const write = "INSERT INTO tollgate.isolation_proof (tenant_id, id) VALUES ('acme', 'canary')";
    await expect(shard.plainly(shard.appUrl, await aContext(), write)).rejects.toMatchObject({ code: "23514" });
    const prove = () =>
      proveIsolation({ url: shard.appUrl, fetchEndpoint: shard.fetchEndpoint, contextKeys, now: Date.now });
    await shard.superuser(`DELETE FROM tollgate.isolation_proof WHERE tenant_id = 'canary-a';
      INSERT INTO tollgate.isolation_proof (tenant_id, id) VALUES ('canary-b', 'another')`);
    expect(await prove()).toMatchObject({ proven: false });
    await restoreCanaries(connectNeon(shard.ownerUrl, shard.fetchEndpoint), contextKeys);
    expect(await prove()).toMatchObject({ proven: true });
  });

  test("what a statement changes of the shared login is undone: settings, password, default privileges, large objects", async () => {
    const name = "shard_open";
    await shard.createDatabase(name, false);
    const url = shard.urlOf("tollgate_app_a", name);
    await as(
      url,
      "SELECT lo_create(0)",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
      "ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Tokyo'",
      `ALTER ROLE CURRENT_USER IN DATABASE ${name} SET default_transaction_read_only = on`,
      "ALTER ROLE CURRENT_USER RESET statement_timeout",
      "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
    );
    await expect(as(url, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
    const restore = "SELECT tollgate.restore_login('tollgate_app_a', $1)";
    await connectNeon(shard.urlOf(OWNER, name), shard.fetchEndpoint).query(restore, ["tollgate_app_a"]);
    const [read] = await as(
      url,
      `SELECT current_setting('TimeZone') AS zone, current_setting('default_transaction_read_only') AS "readOnly",
         current_setting('statement_timeout') AS timeout, (SELECT count(*)::int FROM pg_largeobject_metadata) AS objects`,
    );
    expect(read).toMatchObject({ zone: "UTC", readOnly: "off", timeout: "25s", objects: 0 });
    const proof = { url, fetchEndpoint: shard.fetchEndpoint, contextKeys, now: Date.now };
    expect(await proveIsolation(proof)).toMatchObject({ proven: true });
    await expect(as(url, "SET ROLE tollgate_app_b")).rejects.toMatchObject({ code: "42501" });
  });

  test("default privileges that a tenant's own login has set are undone, and its rights stay", async () => {
    const branch = await shard.createBranch("branch_defaults", false);
    await branch.createTenant({ placementId: 911, tenantId: acme, password: "tenant_911" });
    await branch.createTenant({ placementId: 912, tenantId: globex, password: "tenant_912" });
    const url = shard.urlOf("tenant_911", "branch_defaults");
    await as(
      url,
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
      "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO tenant_912 WITH GRANT OPTION",
      "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM tenant_911",
      "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC",
      "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO tenant_912",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON LARGE OBJECTS TO PUBLIC",
    );
    const own = { url, fetchEndpoint: shard.fetchEndpoint, schema: "tenant_911", tenantId: acme };
    const broken = { check: "login_owns_nothing", detail: expect.stringContaining("pg_default_acl") };
    expect(await proveOwnSchema(own)).toEqual({ proven: false, failures: Array.from({ length: 6 }, () => broken) });
    const ownerUrl = shard.urlOf(OWNER, "branch_defaults");
    const reset = () =>
      connectNeon(ownerUrl, shard.fetchEndpoint).query("SELECT DISTINCT tollgate.reset_default_privileges() AS role");
    expect(await reset()).toEqual([{ role: "tenant_911" }]);
    expect(await proveOwnSchema(own)).toMatchObject({ proven: true });
    expect(await proveBranch(ownerUrl, shard.fetchEndpoint)).toMatchObject({ proven: true });
    expect(await as(url, "SELECT count(*)::int AS n FROM tenant_911.products")).toEqual([{ n: 0 }]);
    expect(await reset()).toEqual([]);
  });

  test("a tenant can be removed, with all that its login may own", async () => {
    const branch = await shard.createBranch("branch_open", false);
    const own = (placementId: number) => ({ placementId, password: `tenant_${placementId}` });
    await branch.createTenant({ ...own(901), tenantId: acme });
    await branch.createTenant({ ...own(902), tenantId: globex });
    const everything = [
      "SELECT lo_from_bytea(0, 'kept')",
      "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
      "ALTER ROLE CURRENT_USER SET work_mem = '5MB'",
      "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
    ];
    await as(shard.urlOf("tenant_901", "branch_open"), ...everything);
    // An object in another database, which this owner cannot reach.
    await shard.superuser("GRANT CONNECT ON DATABASE postgres TO tenant_902");
    await as(shard.urlOf("tenant_902", "postgres"), "SELECT lo_create(0)");
    await branch.dropTenant(901);
    await branch.dropTenant(902);
    const roles = "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname IN ('tenant_901', 'tenant_902')";
    expect(await shard.superuser(roles)).toEqual([{ rolname: "tenant_902", rolcanlogin: false }]);
    const left =
      "SELECT count(*)::int AS n FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid WHERE r.rolname = 'tenant_901'";
    expect(await shard.superuser(left)).toEqual([{ n: 0 }]);
  });

  test("the locks that every login can see tell no tenant's id", async () => {
    const client = new Client({ connectionString: shard.appUrl });
    await client.connect();
    try {
      await client.query("BEGIN");
      await client.query("SELECT set_config('tollgate.context', $1, true)", [await aContext({ tenantId: globex })]);
      await client.query("UPDATE products SET stock = 3 WHERE id = 'lamp'");
      const held = await as(
        shard.appUrl,
        `SELECT classid::bigint = hashtext('globex')::bit(32)::bigint OR objid::bigint = hashtext('globex')::bit(32)::bigint
           OR (classid::bigint << 32 | objid::bigint) = hashtextextended('globex', 0) AS "toldBy"
         FROM pg_locks WHERE locktype = 'advisory'`,
      );
      expect(held).toEqual([{ toldBy: false }]);
    } finally {
      await client.end();
    }
  });
});
