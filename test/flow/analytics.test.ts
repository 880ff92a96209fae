// Analytics: a tool's reads on a real streaming replica, limited to its own tenant, and the operator's questions
// about all tenants, with a login that no tool can use.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { registerReplica } from "../../cli/migrations/prepare.ts";
import { connectControl } from "../../src/adapters/neon.ts";
import { askAllTenants } from "../../src/operations/analytics.ts";
import { type RunningReplica, removeReplica, startReplica } from "../../dev/postgres/replica.ts";
import {
  type TestTenant,
  aTenant,
  asSuperuser,
  callTool,
  controlRows,
  endObject,
  fireCron,
  health,
  operator,
  rowsOf,
  system,
  until,
} from "../support/flow.ts";

const isReplica = "SELECT pg_is_in_recovery() AS replica";
const shards = ["shared-1", "schema-1"];

async function run(tenant: TestTenant, as: "queries" | "analytics", ...statements: string[]) {
  const { data, isError, text } = await callTool(tenant.apiKey, "run_sql", { statements, as });
  return isError === true ? { refused: text } : { results: data?.["results"] };
}

/** The reason and facts of /health's replica check, from a fresh answer. */
async function healthOfReplicas(isIt: (check: ReplicaCheck) => boolean): Promise<ReplicaCheck> {
  let check: ReplicaCheck = { ok: true };
  await until(async () => {
    const report = (await (await health()).json()) as { checks: { replicas: ReplicaCheck } };
    check = report.checks.replicas;
    return isIt(check);
  }, "/health shows it");
  return check;
}
interface ReplicaCheck {
  ok: boolean;
  reason?: string;
  facts?: Record<string, { inRecovery: boolean; lagSeconds: number } | null>;
}

interface Answer {
  rows: { shard: string; tenant: string | null; row: Record<string, unknown> }[];
  truncated: boolean;
  shards: {
    id: string;
    strategy: string;
    readFrom: string;
    rows: number;
    schemas?: number;
    error?: { sqlState?: string; message: string };
  }[];
}
async function ask(sql: string, strategy?: string): Promise<Answer> {
  const response = await operator("POST", "/analytics", { sql, ...(strategy && { strategy }) });
  expect(response.status).toBe(200);
  return (await response.json()) as Answer;
}
const errorsOf = ({ shards: reports }: Answer) => new Set(reports.map(({ error }) => error?.sqlState));

describe("with a streaming replica", () => {
  const primary = { superuserUrl: system.superuserUrl };
  let dataDir: string;
  let replica: RunningReplica;
  let before: TestTenant;

  beforeAll(async () => {
    dataDir = join(await mkdtemp(join(tmpdir(), "tollgate-flow-replica-")), "replica");
    before = await aTenant({ plan: "pro", strategy: "schema" });
    expect(await run(before, "analytics", isReplica)).toEqual({ results: [[{ replica: false }]] });
    replica = await startReplica({ primary, dataDir, port: 0 });
    const replicaHost = new URL(replica.superuserUrl).host;
    for (const id of shards) await registerReplica({ controlUrl: system.controlUrl, id, replicaHost });
  });
  afterAll(async () => {
    for (const id of shards) await registerReplica({ controlUrl: system.controlUrl, id, replicaHost: null });
    await fireCron("* * * * *");
    await replica.stop();
    await removeReplica({ primary, dataDir });
    await rm(join(dataDir, ".."), { recursive: true });
  });

  test("an existing tenant reads from the replica as soon as the sweep has notified its object", async () => {
    await fireCron("* * * * *");
    expect(await run(before, "analytics", isReplica)).toEqual({ results: [[{ replica: true }]] });
  });

  test.each(["shared", "schema"])(
    "on the %s tier, analytics reads there, its own rows alone, and cannot write",
    async (strategy) => {
      const [tenant, other] = await Promise.all([
        aTenant({ plan: "pro", strategy }),
        aTenant({ plan: "pro", strategy }),
      ]);
      await replica.caughtUp();
      const tenants = "SELECT DISTINCT tenant_id FROM products";
      expect(await run(tenant, "queries", isReplica, tenants)).toEqual({
        results: [[{ replica: false }], [{ tenant_id: tenant.id }]],
      });
      expect(await run(tenant, "analytics", isReplica, tenants)).toEqual({
        results: [[{ replica: true }], [{ tenant_id: tenant.id }]],
      });
      const [place] = await controlRows<{ schema: string }>(
        `SELECT CASE WHEN $2 = 'shared' THEN 'public' ELSE 'tenant_' || placement_id END AS schema FROM tenants WHERE id = $1`,
        [other.id, strategy],
      );
      const foreign = await run(
        tenant,
        "analytics",
        `SELECT * FROM ${place?.schema}.products WHERE tenant_id = '${other.id}'`,
      );
      if (strategy === "shared") expect(foreign).toEqual({ results: [[]] });
      else expect(foreign.refused).toMatch("tool_failed");
      for (const sql of [
        "UPDATE products SET stock = 0",
        "WITH gone AS (DELETE FROM products RETURNING id) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', true)",
      ]) {
        expect((await run(tenant, "analytics", sql)).refused, sql).toMatch("tool_failed");
      }
      expect(await run(tenant, "queries", "SELECT count(*)::int AS n FROM products WHERE stock > 0")).toEqual({
        results: [[{ n: 10 }]],
      });
    },
  );

  test("settings that a statement leaves on a pooled connection of the replica do not stop later reads", async () => {
    const tenant = await aTenant({ plan: "pro", strategy: "schema" });
    await replica.caughtUp();
    const leftovers = [
      "default_transaction_isolation', 'serializable",
      "default_transaction_read_only', 'off",
      "search_path', 'nowhere",
    ];
    const poison = leftovers.map((setting) => `SELECT set_config('${setting}', false)`);
    await Promise.all(Array.from({ length: 8 }, () => run(tenant, "analytics", ...poison)));
    const reads = await Promise.all(
      Array.from({ length: 8 }, () => run(tenant, "analytics", isReplica, "SELECT count(*)::int AS n FROM products")),
    );
    for (const read of reads) expect(read).toEqual({ results: [[{ replica: true }], [{ n: 10 }]] });
  });

  test("the replica answers the operator's questions too", async () => {
    await replica.caughtUp();
    const { rows, shards: reports } = await ask(isReplica, "shared");
    expect(rows).toEqual([{ shard: "shared-1", tenant: null, row: { replica: true } }]);
    expect(reports).toEqual([{ id: "shared-1", strategy: "shared", readFrom: "replica", rows: 1 }]);
  });

  test("/health shows the lag of each replica", async () => {
    const { ok, facts } = await healthOfReplicas(({ facts: found }) => found?.["shared-1"] !== undefined);
    expect({ ok, facts }).toEqual({
      ok: true,
      facts: { "schema-1": { inRecovery: true, lagSeconds: 0 }, "shared-1": { inRecovery: true, lagSeconds: 0 } },
    });
    await rowsOf(replica.superuserUrl, "SELECT pg_wal_replay_pause()");
    await aTenant({ plan: "pro" });
    const behind = await healthOfReplicas(({ facts: found }) => (found?.["shared-1"]?.lagSeconds ?? 0) > 0);
    expect(behind.ok).toBe(true);
    await rowsOf(replica.superuserUrl, "SELECT pg_wal_replay_resume()");
  });

  test("when the replica is away, analytics reads from the primary, no call fails, and /health fails", async () => {
    const tenants = await Promise.all(["shared", "schema"].map((strategy) => aTenant({ plan: "pro", strategy })));
    await replica.caughtUp();
    for (const tenant of tenants)
      expect(await run(tenant, "analytics", isReplica)).toEqual({ results: [[{ replica: true }]] });
    const { port } = replica;
    await replica.stop();
    for (const tenant of tenants) {
      expect(await run(tenant, "analytics", isReplica, "SELECT 1 / 1 AS one")).toEqual({
        results: [[{ replica: false }], [{ one: 1 }]],
      });
      // A statement that the primary refuses is refused.
      expect((await run(tenant, "analytics", "UPDATE products SET stock = 0")).refused).toMatch("tool_failed");
    }
    const { rows, shards: reports } = await ask(isReplica, "shared");
    expect(rows.map(({ row }) => row)).toEqual([{ replica: false }]);
    expect(reports).toMatchObject([{ readFrom: "primary" }]);
    const check = await healthOfReplicas(({ ok }) => !ok);
    expect(check).toMatchObject({ reason: expect.any(String), facts: { "shared-1": null, "schema-1": null } });

    replica = await startReplica({ primary, dataDir, port });
    await replica.caughtUp();
    for (const { id } of tenants) await endObject(id); // a running object skips a failed replica for ten seconds
    for (const tenant of tenants)
      expect(await run(tenant, "analytics", isReplica)).toEqual({ results: [[{ replica: true }]] });
  });
});

describe("the operator's questions", () => {
  const counts = "SELECT tenant_id, count(*)::int AS products FROM products GROUP BY tenant_id";
  let tenants: Record<"shared" | "schema" | "database", TestTenant>;
  beforeAll(async () => {
    const [shared, schema, database] = await Promise.all([
      aTenant({ strategy: "shared" }),
      aTenant({ plan: "pro", strategy: "schema" }),
      aTenant({ plan: "enterprise", strategy: "database" }),
    ]);
    tenants = { shared, schema, database };
  });

  test("see every tenant of every tier once, also in a database that Tollgate created", async () => {
    const { rows, shards: reports, truncated } = await ask(counts);
    const of = ({ id }: TestTenant) => rows.filter(({ row }) => row["tenant_id"] === id);
    expect(of(tenants.shared)).toEqual([
      { shard: "shared-1", tenant: null, row: { tenant_id: tenants.shared.id, products: 10 } },
    ]);
    expect(of(tenants.schema)).toEqual([
      { shard: "schema-1", tenant: tenants.schema.id, row: { tenant_id: tenants.schema.id, products: 10 } },
    ]);
    expect(of(tenants.database)).toEqual([
      {
        shard: `database-${tenants.database.id}`,
        tenant: tenants.database.id,
        row: { tenant_id: tenants.database.id, products: 10 },
      },
    ]);
    const served = await controlRows("SELECT FROM tenants WHERE placement_id IS NOT NULL AND state <> 'gone'");
    expect(new Set(rows.map(({ row }) => row["tenant_id"])).size).toBe(rows.length);
    expect(rows.length).toBeLessThanOrEqual(served.length); // no copies
    expect(truncated).toBe(false);
    expect(reports.every(({ error }) => error === undefined)).toBe(true);
    const only = await ask(counts, "schema");
    expect(new Set(only.shards.map(({ strategy }) => strategy))).toEqual(new Set(["schema"]));
  });

  test("count a moved tenant once while its old copy still exists", async () => {
    const tenant = await aTenant({ plan: "pro", strategy: "shared" });
    const moving = await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
    expect(moving.status).toBe(202);
    await until(
      async () =>
        (await controlRows("SELECT FROM moves WHERE tenant_id = $1 AND state = 'moved'", [tenant.id])).length > 0,
      "the tenant has moved",
    );
    const kept = await rowsOf(asSuperuser(system.sharedOwnerUrl), "SELECT FROM products WHERE tenant_id = $1", [
      tenant.id,
    ]);
    expect(kept).toHaveLength(10);
    const { rows } = await ask(`SELECT tenant_id, id FROM products WHERE tenant_id = '${tenant.id}'`);
    expect(rows).toHaveLength(10);
    expect(rows.every(({ shard }) => shard.startsWith("schema-"))).toBe(true);
  });

  test.each([
    ["DELETE FROM products", "no SELECT"],
    ["UPDATE products SET stock = 0", "no SELECT"],
    ["SET ROLE tollgate_owner", "no SELECT"],
    ["WITH gone AS (DELETE FROM products RETURNING 1) SELECT * FROM gone", ["0A000"]],
    ["SELECT 1) AS question) AS page) AS counted; DELETE FROM products; --", ["42601"]],
    ["SELECT 1; DELETE FROM products", ["42601"]],
    ["SELECT set_config('transaction_read_only', 'off', true)", ["25001", "0A000"]],
    ["SELECT * FROM products FOR UPDATE", ["42501", "25006"]],
    ["SELECT * FROM tollgate.context_keys", ["42501", "42P01"]],
    ["SELECT * FROM tollgate.tenants", ["42501", "42P01"]],
    ["SELECT * FROM tollgate.changes", ["42501"]],
    ["SELECT * FROM public.schema_migrations", ["42501"]],
    ["SELECT tollgate.set_analytics_password('mine')", ["42501"]],
    ["SELECT pg_read_file('/etc/passwd')", ["42501"]],
    ["SELECT set_config('role', 'tollgate_owner', true)", ["42501"]],
  ])("cannot write or reach what is not the tenants': %s", async (sql, expected) => {
    if (expected === "no SELECT") {
      expect((await operator("POST", "/analytics", { sql })).status).toBe(400);
      return;
    }
    const answer = await ask(sql);
    expect(answer.rows).toEqual([]);
    for (const sqlState of errorsOf(answer)) expect(expected).toContain(sqlState);
    const { rows } = await ask(`SELECT count(*)::int AS n FROM products WHERE tenant_id = '${tenants.schema.id}'`);
    expect(rows.map(({ row }) => row["n"])).toContain(10);
  });

  test("leave no settings for the next question, and end in time", async () => {
    await Promise.all(
      Array.from({ length: 6 }, () =>
        ask("SELECT set_config('search_path', 'nowhere', false), set_config('statement_timeout', '1', false)"),
      ),
    );
    const { rows } = await ask(
      `SELECT tenant_id, current_setting('transaction_read_only') AS only, extract(epoch FROM current_setting('statement_timeout')::interval)::int AS seconds
       FROM products WHERE tenant_id IN ('${tenants.shared.id}', '${tenants.schema.id}') LIMIT 1; `,
    );
    expect(rows.length).toBeGreaterThanOrEqual(2);
    for (const { row } of rows) {
      expect(row["only"]).toBe("on");
      // The database ends a statement before a client that waits 30 s gives up.
      expect(row["seconds"]).toBeGreaterThan(10);
      expect(row["seconds"]).toBeLessThanOrEqual(20);
    }
  });

  test("that take too long end within their bound, and the error names it", async () => {
    const env = {
      CONTROL_DATABASE_URL: system.serviceUrl,
      NEON_FETCH_ENDPOINT: `${system.proxyUrl}/sql`,
      ENCRYPTION_KEYS: JSON.stringify(system.encryptionKeys),
    } as Env;
    const startedAtMs = Date.now();
    // The databases that Tollgate created itself let every login call this function.
    const answer = await askAllTenants({ env, control: connectControl(env) }, "SELECT pg_sleep(30)", "database", 500);
    expect(Date.now() - startedAtMs).toBeLessThan(5_000);
    expect(answer.rows).toEqual([]);
    expect(answer.shards.length).toBeGreaterThan(0);
    for (const { error } of answer.shards) expect(error?.message).toMatch(/longer than the 0\.5 s/);
  });

  test("are answered up to 10,000 rows and 5 MB, and report when there is more", async () => {
    const many = await ask("SELECT n FROM generate_series(1, 20000) AS n", "shared");
    expect(many).toMatchObject({ truncated: true, shards: [{ rows: 10_000 }] });
    expect(many.rows.at(-1)?.row).toEqual({ n: 10_000 });
    const exactly = await ask("SELECT n FROM generate_series(1, 10000) AS n", "shared");
    expect([exactly.rows.length, exactly.truncated]).toEqual([10_000, false]);
    // More than a schema's share of the answer: the schema is then asked alone.
    const large = await ask("SELECT repeat('x', 400000) AS x FROM generate_series(1, 2)", "schema");
    const sizes = large.rows.map(({ row }) => String(row["x"]).length);
    expect(new Set(sizes)).toEqual(new Set([400_000]));
    expect(sizes.length).toBeLessThanOrEqual(12);
    const schemas = await controlRows(
      "SELECT FROM tenants t JOIN placements p ON p.id = t.placement_id WHERE p.login IS NOT NULL",
    );
    expect(sizes.length).toBeGreaterThanOrEqual(Math.min(schemas.length, 6));
    const tooLarge = await ask("SELECT repeat('x', 6000000) AS x", "shared");
    expect([tooLarge.rows.length, tooLarge.truncated]).toEqual([0, true]);
  });

  test("return numbers of any size and names of any kind", async () => {
    const response = await operator("POST", "/analytics", {
      sql: `SELECT 9007199254740993 AS n, 'ü"\\' AS "question", NULL AS nothing -- and a comment`,
      strategy: "shared",
    });
    const text = await response.text();
    expect(text).toContain("9007199254740993");
    expect((JSON.parse(text) as Answer).rows[0]?.row).toMatchObject({ question: 'ü"\\', nothing: null });
  });

  test("return the other shards' rows and the error when a shard fails", async () => {
    await controlRows(
      `INSERT INTO shards (id, strategy, region, host, database, capacity, accepts)
       VALUES ('analytics-broken', 'shared', 'nowhere', '127.0.0.1:1', 'nothing', 1, false)`,
    );
    try {
      const { rows, shards: reports } = await ask("SELECT 1 AS one", "shared");
      expect(rows).toEqual([{ shard: "shared-1", tenant: null, row: { one: 1 } }]);
      expect(reports.find(({ id }) => id === "analytics-broken")).toMatchObject({
        rows: 0,
        error: { message: expect.stringMatching(/analytics login/) },
      });
      const wrong = await ask("SELECT missing FROM products", "schema");
      expect(wrong.shards[0]?.error).toEqual({ sqlState: "42703", message: expect.stringContaining("missing") });
    } finally {
      await controlRows("DELETE FROM shards WHERE id = 'analytics-broken'");
    }
  });

  test("are allowed for the operator only", async () => {
    for (const token of [tenants.schema.apiKey, "op_wrong", ""]) {
      expect((await operator("POST", "/analytics", { sql: "SELECT 1" }, token)).status).toBe(401);
    }
  });

  test.each(["shared", "schema", "database"] as const)(
    "are nothing that a tool of the %s tier can ask",
    async (tier) => {
      const tenant = tenants[tier];
      const [login] = await rowsOf<{ name: string }>(
        asSuperuser(tier === "shared" ? system.sharedOwnerUrl : system.schemaOwnerUrl),
        "SELECT tollgate.analytics_role() AS name",
      );
      for (const name of new Set(["tollgate_analytics", login?.name ?? ""])) {
        for (const as of ["queries", "analytics"] as const) {
          for (const sql of [
            `SET ROLE ${name}`,
            `SELECT set_config('role', '${name}', true)`,
            `SELECT set_config('session_authorization', '${name}', true)`,
          ]) {
            expect((await run(tenant, as, sql)).refused, sql).toMatch("tool_failed");
          }
        }
        // The tenant's own login ignores the setting, which only affects analytics.
        const named = await run(
          tenant,
          "queries",
          "WITH s AS (SELECT set_config('tollgate.left_out', '', true)) SELECT DISTINCT tenant_id FROM products, s",
        );
        expect(named).toEqual({ results: [[{ tenant_id: tenant.id }]] });
      }
      await expect(rowsOf(system.appUrl, `SET ROLE tollgate_analytics`)).rejects.toMatchObject({ code: "42501" });
      const guess = new URL(system.appUrl);
      guess.username = "tollgate_analytics";
      await expect(rowsOf(guess.href, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
    },
  );
});
