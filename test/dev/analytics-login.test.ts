// The analytics login reads all tenants' rows and can do nothing else. It is no way out for a tool: the isolation proof accepts
// exactly this policy and no similar one.
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { proveIsolation, proveOwnSchema } from "../../src/tenant-db/isolation.ts";
import { startFleet } from "../support/fleet.ts";
import { type Cluster, acme, contextKeys, globex, startCluster } from "../support/shard.ts";

const shared = "analytics_shared";
const schemas = "analytics-schemas";
const password = "known to this test only";
/** The analytics role of each database. Roles belong to the cluster, so each database has a role with its own name. */
const loginOf = { [shared]: "tollgate_analytics", [schemas]: `tollgate_analytics_${schemas}` };

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
  await cluster.createShared(shared);
  const branch = await cluster.createBranch(schemas);
  for (const [index, tenantId] of [acme, globex].entries()) {
    await branch.createTenant({ placementId: index + 1, tenantId, password: `tenant_${index + 1}` });
  }
  for (const name of [shared, schemas])
    await cluster.superuser(name, "SELECT tollgate.set_analytics_password($1)", [password]);
  const products = `(tenant_id, id, name, price_cents) VALUES`;
  await cluster.superuser(shared, `INSERT INTO products ${products} ('acme', 'a', '', 1), ('globex', 'g', '', 1)`);
  await cluster.superuser(
    schemas,
    `SET session_replication_role = replica; INSERT INTO tenant_1.products ${products} ('acme', 'a', '', 1);
     INSERT INTO tenant_2.products ${products} ('globex', 'g', '', 1); RESET session_replication_role`,
  );
}, 30_000);
afterAll(() => cluster[Symbol.asyncDispose]());

async function asAnalytics<Result>(
  database: typeof shared | typeof schemas,
  work: (query: (sql: string) => Promise<Record<string, unknown>[]>) => Promise<Result>,
): Promise<Result> {
  const client = new Client({ host: "127.0.0.1", port: cluster.port, database, user: loginOf[database], password });
  await client.connect();
  try {
    return await work(async (sql) => (await client.query<Record<string, unknown>>(sql)).rows);
  } finally {
    await client.end();
  }
}

test("the analytics login reads every tenant's rows, except those of excluded tenants", async () => {
  await asAnalytics(shared, async (query) => {
    const tenants = "SELECT tenant_id FROM products ORDER BY 1";
    expect(await query(tenants)).toEqual([{ tenant_id: "acme" }, { tenant_id: "globex" }]);
    await query("SET tollgate.left_out = 'initech,globex'");
    expect(await query(tenants)).toEqual([{ tenant_id: "acme" }]);
  });
  const both = "SELECT tenant_id FROM tenant_1.products UNION SELECT tenant_id FROM tenant_2.products ORDER BY 1";
  expect(await asAnalytics(schemas, (query) => query(both))).toEqual([{ tenant_id: "acme" }, { tenant_id: "globex" }]);
});

describe.each([shared, schemas] as const)("in %s", (database) => {
  const products = database === shared ? "public.products" : "tenant_1.products";

  test("it has no attributes, owns nothing and may only read", async () => {
    const rights = await asAnalytics(database, (query) =>
      query(`
        SELECT 'power' AS what FROM pg_roles WHERE rolname = current_user
          AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
        UNION ALL SELECT 'member of ' || rolname FROM pg_roles WHERE pg_has_role(oid, 'MEMBER') AND rolname <> current_user
        UNION ALL SELECT 'owns ' || objid FROM pg_shdepend
          WHERE refclassid = 'pg_authid'::regclass AND refobjid = current_user::regrole AND deptype = 'o'
        UNION ALL SELECT p || ' here' FROM unnest(ARRAY['CREATE', 'TEMPORARY']) p
          WHERE has_database_privilege(current_database(), p)
        UNION ALL SELECT 'CREATE in ' || nspname FROM pg_namespace WHERE has_schema_privilege(oid, 'CREATE')
        UNION ALL SELECT 'changes ' || oid::regclass FROM pg_class
          WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace <> 'pg_catalog'::regnamespace
            AND (has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN')
              OR has_any_column_privilege(oid, 'INSERT, UPDATE, REFERENCES'))
        UNION ALL SELECT 'reads ' || oid::regclass FROM pg_class
          WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege(oid, 'SELECT')
            AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            AND relname NOT IN ('products', 'settings')
        UNION ALL SELECT 'runs ' || oid::regprocedure FROM pg_proc
          WHERE prosecdef AND has_function_privilege(oid, 'EXECUTE') AND proname NOT IN ('current_tenant', 'loading', 'staged_rows', 'put_back')`),
    );
    expect(rights).toEqual([]);
  });

  test.each([
    `INSERT INTO ${products} (tenant_id, id, name, price_cents) VALUES ('acme', 'new', '', 1)`,
    `UPDATE ${products} SET stock = 0`,
    `DELETE FROM ${products}`,
    `TRUNCATE ${products}`,
    `SELECT * FROM ${products} FOR UPDATE`,
    `COPY ${products} TO PROGRAM 'cat'`,
    "CREATE TABLE public.mine ()",
    "CREATE TEMPORARY TABLE mine ()",
    "CREATE SCHEMA mine",
    "SELECT lo_create(0)",
    "SET ROLE tollgate_owner",
    "SET SESSION AUTHORIZATION tollgate_owner",
    "SELECT * FROM tollgate.changes",
    "SELECT * FROM tollgate.gates",
    "SELECT * FROM public.schema_migrations",
    "SELECT tollgate.set_analytics_password('mine')",
    ...(database === shared
      ? [
          "SELECT * FROM tollgate.context_keys",
          "SELECT tollgate.install_context_key('x', repeat('x', 32))",
          "SET ROLE tollgate_app",
        ]
      : ["SELECT * FROM tollgate.tenants", "SELECT * FROM tenant_1.schema_migrations", "SET ROLE tenant_1"]),
  ])("it is refused: %s", async (sql) => {
    await asAnalytics(database, async (query) => {
      await query("SET default_transaction_read_only = off"); // which is a backstop, and no wall
      await expect(query(sql)).rejects.toMatchObject({ code: "42501" });
    });
  });

  test("its transactions are read-only by default, and its password opens only this database", async () => {
    await asAnalytics(database, async (query) => {
      expect(await query("SHOW transaction_read_only")).toEqual([{ transaction_read_only: "on" }]);
    });
    const other = database === shared ? schemas : shared;
    const elsewhere = new Client({
      connectionString: `postgresql://${loginOf[database]}:${encodeURIComponent(password)}@127.0.0.1:${cluster.port}/${other}`,
    });
    await expect(elsewhere.connect()).rejects.toMatchObject({ code: "42501" });
  });
});

test("future tables are readable too", async () => {
  const create = "(tenant_id text NOT NULL, id text, PRIMARY KEY (tenant_id, id))";
  await cluster.superuser(
    shared,
    `CREATE TABLE later ${create}; SELECT tollgate.isolate('later'); INSERT INTO later VALUES ('acme', 'x')`,
  );
  expect(await asAnalytics(shared, (query) => query("SELECT id FROM later"))).toEqual([{ id: "x" }]);
});

test("tenants' schemas are readable, and none of them counts as drifted", async () => {
  const name = "analytics_schemas";
  const branch = await cluster.createBranch(name);
  await branch.createTenant({ placementId: 11, tenantId: acme, password: "x" });
  await branch.createTenant({ placementId: 12, tenantId: globex, password: "x" });
  const readable = `SELECT has_table_privilege(r, schema || '.products', 'SELECT') AND has_schema_privilege(r, schema, 'USAGE') AS readable
    FROM tollgate.analytics_role() AS r, unnest(ARRAY['tenant_11', 'tenant_12']) AS schema`;
  expect(await cluster.superuser(name, readable)).toEqual([{ readable: true }, { readable: true }]);
  expect(await branch.compare([11, 12])).toMatchObject([{ differences: null }, { differences: null }]);
  // Any right except reading counts as drift.
  await cluster.superuser(name, `GRANT INSERT ON tenant_11.products TO tollgate_analytics_${name}`);
  expect(await branch.compare([11])).toMatchObject([{ differences: [{ object: "table products" }] }]);
});

describe("the isolation proof of a tool's login", () => {
  const prove = async (): Promise<string[]> => {
    const url = cluster.urlOf("tollgate_app_a", shared);
    const proof = await proveIsolation({ url, fetchEndpoint: cluster.fetchEndpoint, contextKeys, now: Date.now });
    return proof.proven ? [] : proof.failures.map(({ check }) => check);
  };
  const policy = "CREATE POLICY hole ON products";

  test("accepts the policy of the analytics login", async () => {
    expect(await prove()).toEqual([]);
  });

  test.each([
    ["everyone", `${policy} FOR SELECT USING (true)`],
    ["the tools' group", `${policy} FOR SELECT TO tollgate_app USING (true)`],
    [
      "the analytics login and the tools' group",
      `${policy} FOR SELECT TO tollgate_analytics, tollgate_app USING (true)`,
    ],
    ["another analytics login", `${policy} FOR SELECT TO "tollgate_analytics_${schemas}" USING (true)`],
    ["all verbs", `${policy} FOR ALL TO tollgate_analytics USING (true)`],
  ])("finds a policy for %s", async (_, create) => {
    await cluster.superuser(shared, create);
    try {
      expect(await prove()).toContain("policies");
    } finally {
      await cluster.superuser(shared, "DROP POLICY hole ON products");
    }
  });

  test("finds a tool's login that could become the analytics login, in every tier", async () => {
    const proveOwn = () =>
      proveOwnSchema({
        url: cluster.urlOf("tenant_1", schemas),
        fetchEndpoint: cluster.fetchEndpoint,
        schema: "tenant_1",
        tenantId: acme,
      });
    expect(await proveOwn()).toMatchObject({ proven: true });
    await cluster.superuser(
      shared,
      `GRANT tollgate_analytics TO tollgate_app_a; GRANT "tollgate_analytics_${schemas}" TO tenant_1`,
    );
    try {
      expect(await prove()).toEqual(expect.arrayContaining(["login_memberships", "policies"]));
      expect(await proveOwn()).toMatchObject({
        failures: expect.arrayContaining([expect.objectContaining({ check: "login_memberships" })]),
      });
    } finally {
      await cluster.superuser(
        shared,
        `REVOKE tollgate_analytics FROM tollgate_app_a; REVOKE "tollgate_analytics_${schemas}" FROM tenant_1`,
      );
    }
  });
});

test("npm run migrate registers replicas and gives every known shard its analytics login", async () => {
  const fleet = await startFleet({ shards: ["schema-1", "schema-2"] });
  try {
    const shards = () =>
      fleet.controlRows<{ id: string; replica: string | null; login: string | null }>(
        "SELECT id, replica_host AS replica, analytics_login AS login FROM shards ORDER BY id",
      );
    const before = await shards();
    expect(new Set(before.map(({ login }) => login)).size).toBe(2);
    // A replica that an earlier version registered.
    await fleet.controlRows("UPDATE shards SET analytics_login = NULL WHERE id = 'schema-2'");
    await fleet.addTenant("schema-1", "acme");
    const version = async () => (await fleet.controlRows("SELECT version::int FROM tenants"))[0]?.["version"] as number;
    await fleet.controlRows("UPDATE tenants SET placement_id = (SELECT id FROM placements)");
    const at = await version();

    expect(await fleet.migrate("--replica", "schema-1=127.0.0.1:5999")).toMatchObject({ code: 0 });
    const after = await shards();
    expect(after).toMatchObject([
      { replica: "127.0.0.1:5999", login: before[0]?.login },
      { replica: null, login: expect.stringMatching(/^v1\./) },
    ]);
    expect(await version()).toBe(at + 1); // so that its object reads it
    expect(await fleet.migrate()).toMatchObject({ code: 0 });
    expect(await shards()).toEqual(after);
    expect(await fleet.migrate("--shard", "schema-1", "--replica", "none")).toMatchObject({ code: 0 });
    expect((await shards())[0]).toMatchObject({ replica: null });
    for (const wrong of ["schema-9=127.0.0.1", "schema-1=postgresql://user@host/db"]) {
      expect(await fleet.migrate("--replica", wrong)).toMatchObject({ code: 1 });
    }
  } finally {
    await fleet.close();
  }
}, 180_000); // five runs of a program, each of which takes ten seconds on a busy machine
