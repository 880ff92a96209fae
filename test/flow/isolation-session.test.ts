// Connections are pooled: whoever is next gets what the last statement left. Nothing of it may matter to another tenant.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { CallScopedDb } from "../../src/adapters/tenant-db.ts";
import { enterTenant } from "../../src/adapters/tenant-db.ts";
import { connectNeon } from "../../src/adapters/neon.ts";
import { acme, aContext, globex, type Shard, startShard } from "../support/shard.ts";
import { definitionOf } from "../support/walls.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

const backend = async (db: CallScopedDb) => (await db.query("SELECT pg_backend_pid() AS pid"))[0]?.["pid"];
const leave = (setting: string, value: string) =>
  shard.db(acme).query("SELECT set_config($1, $2, false)", [setting, value]);

/** Runs `work` while every batch is opened by a function with this body instead of by `tollgate.enter`'s own. */
async function enteringBy<Result>(body: string, work: () => Promise<Result>): Promise<Result> {
  const definition = await definitionOf(shard, "tollgate.enter(text, integer)");
  const opening = definition.slice(0, definition.indexOf("AS $function$"));
  await shard.superuser(`${opening} AS $function$ BEGIN ${body} END $function$`);
  try {
    return await work();
  } finally {
    await shard.superuser(definition);
  }
}
const contextAlone = "PERFORM pg_catalog.set_config('tollgate.context', context, true);";

describe("what one tenant's statement leaves on a connection does not reach the next tenant's", () => {
  const value = (sql: string, expected: unknown, params?: unknown[]) => async (db: CallScopedDb) =>
    Object.values((await db.query(sql, params))[0] ?? {})[0] === expected;
  const setting = (name: string, expected: string) => value(`SELECT current_setting('${name}')`, expected);
  const ownRows = value("SELECT count(*)::int FROM products WHERE tenant_id = 'globex'", 2);

  test.each<[string, string, (db: CallScopedDb) => Promise<boolean>]>([
    ["row_security", "off", ownRows],
    ["search_path", "pg_catalog", ownRows],
    // Time enough for the opening of a batch, and too little for the statement.
    ["statement_timeout", "30", value("SELECT count(*)::int FROM generate_series(1, 2000000)", 2_000_000)],
    ["lock_timeout", "1", setting("lock_timeout", "20s")],
    ["client_encoding", "LATIN1", value("SELECT length($1)", 1, ["é"])],
    ["standard_conforming_strings", "off", value(String.raw`SELECT length('a\tb')`, 4)],
    ["transform_null_equals", "on", value("SELECT ('a' = NULL) IS NULL", true)],
    ["TimeZone", "Asia/Tokyo", value("SELECT '2026-01-01 00:00Z'::timestamptz::text", "2026-01-01 00:00:00+00")],
    ["DateStyle", "German", value("SELECT '2026-01-31'::date::text", "2026-01-31")],
    ["bytea_output", "escape", value(String.raw`SELECT '\x00'::bytea::text`, String.raw`\x00`)],
    ["synchronous_commit", "off", setting("synchronous_commit", "on")],
    ["exit_on_error", "on", setting("exit_on_error", "off")],
    ["log_parameter_max_length_on_error", "-1", setting("log_parameter_max_length_on_error", "0")],
    ["plan_cache_mode", "force_generic_plan", setting("plan_cache_mode", "auto")],
    ["my.own", "a letter to the next", setting("my.own", "")],
  ])("%s", async (name, left, undisturbed) => {
    const victim = shard.db(globex);
    const disturbed = () =>
      undisturbed(victim).then(
        (well) => !well,
        () => true,
      );

    await leave(name, left);
    expect(await disturbed(), "with the wall up").toBe(false);

    await enteringBy(contextAlone, async () => {
      await leave(name, left);
      expect(await backend(shard.db(acme)), "the pool hands on the same connection").toBe(await backend(victim));
      expect(await disturbed(), "where a batch sets its context alone").toBe(true);
    });
  });

  test("a context that it left for the session", async () => {
    const left = () => aContext().then((context) => leave("tollgate.context", context));
    const read = () => shard.db(globex).query("SELECT DISTINCT tenant_id FROM products");
    await left();
    expect(await read()).toEqual([{ tenant_id: "globex" }]);
    // What would happen, were a batch ever sent without its context.
    await enteringBy("NULL;", async () => {
      await left();
      expect(await read()).toEqual([{ tenant_id: "acme" }]);
    });
    expect(await read()).toEqual([{ tenant_id: "globex" }]);
  });

  test("an expired context of the next tenant's own", async () => {
    const expired = await aContext({ tenantId: globex, lifeMs: -2_000 });
    await leave("tollgate.context", expired);
    expect(await shard.db(globex).query("SELECT id FROM products WHERE id = 'lamp'")).toEqual([{ id: "lamp" }]);
  });

  test.each([
    ["default_transaction_read_only", "on"],
    ["default_transaction_isolation", "serializable"],
  ])("a default for transactions (%s), which takes hold before a batch can be opened", async (name, left) => {
    const write = { text: "UPDATE products SET stock = stock + 1 WHERE id = 'lamp' RETURNING stock" };
    let roundTrips = 0;
    const victim = shard.db(globex, { onRoundTrip: () => roundTrips++ });
    await leave(name, left);
    if (name === "default_transaction_read_only") {
      const connection = connectNeon(shard.appUrl, shard.fetchEndpoint);
      const unaided = connection.batch([enterTenant(await aContext(), 1_000), write]);
      await expect(unaided, "without sending the batch again").rejects.toMatchObject({ sqlState: "25006" });
    }
    expect(await victim.query(write.text)).toEqual([{ stock: 1 }]);
    expect(roundTrips).toBe(name === "default_transaction_read_only" ? 2 : 1);
    // The batch that got through has cleaned the connection for everybody after it.
    const [modes] = await victim.query(
      "SELECT current_setting('transaction_read_only') AS r, current_setting('transaction_isolation') AS i",
    );
    expect(modes).toEqual({ r: "off", i: "read committed" });
    expect(await victim.query(write.text)).toEqual([{ stock: 2 }]);
  });

  test("its context, once its transaction is over", async () => {
    expect(await shard.db(acme).query("SELECT id FROM products")).toEqual([{ id: "lamp" }]);
    const connection = connectNeon(shard.appUrl, shard.fetchEndpoint);
    expect(
      await connection.query("SELECT current_setting('tollgate.context', true) AS c, count(*)::int FROM products"),
    ).toEqual([{ c: "", count: 0 }]);
  });
});

test("tenants that call at the same time over one pool each see their own rows alone", async () => {
  const dbs = [shard.db(acme), shard.db(globex)] as const;
  const seen = await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const tenant = i % 2 === 0 ? "acme" : "globex";
      const rows = await dbs[i % 2 === 0 ? 0 : 1].query(
        "SELECT DISTINCT tenant_id, tollgate.current_tenant() AS me FROM products",
      );
      return rows.length === 1 && rows[0]?.["tenant_id"] === tenant && rows[0]?.["me"] === tenant;
    }),
  );
  expect(seen.filter(Boolean)).toHaveLength(200);
});

describe("a tool's database", () => {
  test("costs one round trip of two statements a call", async () => {
    const db = shard.db(acme);
    await db.query("SELECT 1");
    shard.proxy.resetStats();
    for (let i = 0; i < 5; i++) await db.query("SELECT id FROM products WHERE id = $1", ["lamp"]);
    expect(shard.proxy.stats()).toMatchObject({ httpBatches: 5, statements: 10 });
  });

  test("fills in the tenant of a new row by itself, and gives values back as they are in JavaScript", async () => {
    const [row] = await shard
      .db(acme)
      .query(
        `INSERT INTO settings (key, value) VALUES ('k', $1::jsonb) RETURNING tenant_id, value, updated_at, 1::int AS one`,
        [JSON.stringify({ a: [1] })],
      );
    expect(row).toEqual({ tenant_id: "acme", value: { a: [1] }, updated_at: expect.any(Date), one: 1 });
  });

  test("stops a statement that takes too long, and serves the next", async () => {
    const db = shard.db(acme, { statementTimeoutMs: 60 });
    await expect(db.query("SELECT count(*) FROM generate_series(1, 1000000000)")).rejects.toMatchObject({
      sqlState: "57014",
    });
    expect(await db.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("gives up when its call is aborted, and the statement changes nothing", async () => {
    const abort = new AbortController();
    const hanging = shard
      .db(acme)
      .forCall(abort.signal)
      .query("UPDATE products SET stock = 9 WHERE (SELECT count(*) FROM generate_series(1, 1000000000)) > 0");
    setTimeout(() => abort.abort(), 50);
    await expect(hanging).rejects.toMatchObject({ code: "database_unavailable" });
    expect(await shard.db(acme).query("SELECT stock FROM products")).toEqual([{ stock: 0 }]);
  });

  test("tells a refused statement by its SQLSTATE and constraint, without the database's own words", async () => {
    const insert = "INSERT INTO products (id, name, price_cents) VALUES ('lamp', 'a private name', 1)";
    const refused = await shard
      .db(acme)
      .query(insert)
      .catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "internal", sqlState: "23505", constraint: "products_pkey" });
    expect(String(refused)).not.toContain("lamp");
  });

  test("is unavailable, not wrong, when the way to it is closed", async () => {
    shard.proxy.setFaults([{ kind: "refuse-before", database: "shard_test" }]);
    await expect(shard.db(acme).query("SELECT 1")).rejects.toMatchObject({ code: "database_unavailable" });
    shard.proxy.setFaults([]);
  });
});
