// `ctx.db`, the tools' access to their rows, over real PostgreSQL: what a call costs, what it returns, and how it ends.
// Its isolation is tested in test/attack.
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { acme, globex, type Shard, startShard } from "../support/shard.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()));
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

describe("a tool's database", () => {
  test("costs one round trip of two statements a call", async () => {
    const db = shard.db(acme);
    await db.query("SELECT 1");
    shard.proxy.resetStats();
    for (let i = 0; i < 5; i++) await db.query("SELECT id FROM products WHERE id = $1", ["lamp"]);
    expect(shard.proxy.stats()).toMatchObject({ httpBatches: 5, statements: 10 });
  });

  test("sets the tenant of a new row by itself, and returns values as JavaScript values", async () => {
    const [row] = await shard
      .db(acme)
      .query(
        `INSERT INTO settings (key, value) VALUES ('k', $1::jsonb) RETURNING tenant_id, value, updated_at, 1::int AS one`,
        [JSON.stringify({ a: [1] })],
      );
    expect(row).toEqual({ tenant_id: "acme", value: { a: [1] }, updated_at: expect.any(Date), one: 1 });
  });

  test("stops a statement that takes too long, and runs the next one", async () => {
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

  test("reports a refused statement by its SQLSTATE and constraint, without the database's text", async () => {
    const insert = "INSERT INTO products (id, name, price_cents) VALUES ('lamp', 'a private name', 1)";
    const refused = await shard
      .db(acme)
      .query(insert)
      .catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "internal", sqlState: "23505", constraint: "products_pkey" });
    expect(String(refused)).not.toContain("lamp");
  });

  test("is unavailable, not wrong, when it cannot be reached", async () => {
    shard.proxy.setFaults([{ kind: "refuse-before", database: "shard_test" }]);
    await expect(shard.db(acme).query("SELECT 1")).rejects.toMatchObject({ code: "database_unavailable" });
    shard.proxy.setFaults([]);
  });

  test("says within 3 s that a frozen database does not answer, and waits for a slow one", async () => {
    const db = shard.db(acme);
    await db.query("SELECT 1");
    shard.proxy.setFaults([{ kind: "slow", sql: "slow", ms: 3_300 }]);
    const slow = db.query("SELECT 'slow' AS answer");
    await expect(slow).resolves.toEqual([{ answer: "slow" }]);
    shard.proxy.setFaults([]);
    const [{ directory } = {}] = await shard
      .superuser("SHOW data_directory")
      .then((rows) => rows.map((row) => ({ directory: String(row["data_directory"]) })));
    const backends = await shard.superuser("SELECT pid FROM pg_stat_activity");
    const [postmaster] = (await readFile(`${directory}/postmaster.pid`, "utf8")).split("\n");
    const pids = [postmaster, ...backends.map(({ pid }) => pid)].map(Number);
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    const startedAtMs = performance.now();
    try {
      await expect(db.query("SELECT 1")).rejects.toMatchObject({ name: "AnswerLost", code: "database_silent" });
    } finally {
      for (const pid of pids) process.kill(pid, "SIGCONT");
    }
    expect(performance.now() - startedAtMs).toBeLessThan(3_400);
    expect(await db.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("sends only one data statement", async () => {
    const attempts = [
      "ALTER ROLE tollgate_app_a PASSWORD 'mine'",
      "SET row_security = off",
      "COMMIT",
      "/**/ COMMIT",
      "",
      "selected",
    ];
    const db = shard.db(acme);
    for (const sql of attempts) await expect(db.query(sql), sql).rejects.toMatchObject({ code: "tool_failed" });
    await expect(db.query("SELECT 1; COMMIT"), "two in one message").rejects.toMatchObject({ sqlState: "42601" });
  });
});

test("a statement of a transaction cannot lift the time limit of later ones", async () => {
  const db = shard.db(acme, { statementTimeoutMs: 200 });
  const lift = "SELECT set_config('statement_timeout', '0', true)";
  const long = "SELECT count(*) FROM generate_series(1, 1000000000)";
  await expect(db.transaction([{ text: lift }, { text: long }])).rejects.toMatchObject({ sqlState: "57014" });
  expect(await db.transaction([{ text: "SELECT 1 AS one" }, { text: lift }, { text: "SELECT 3 AS three" }])).toEqual([
    [{ one: 1 }],
    [{ set_config: "0" }],
    [{ three: 3 }],
  ]);
});

test("a row that could not be recorded or copied is refused when it is written", async () => {
  const db = shard.db(acme);
  const big = "INSERT INTO products (id, name, price_cents, description) VALUES ('big', 'x', 1, repeat('x', $1::int))";
  await expect(db.query(big, [9_000_000])).rejects.toMatchObject({ sqlState: "54000" });
  await db.query(big, [5_000_000]);
  await db.query("UPDATE products SET stock = 1 WHERE id = 'big'");
  expect(await db.query("DELETE FROM products WHERE id = 'big' RETURNING stock")).toEqual([{ stock: 1 }]);
});

test("tenants that call at the same time over one pool see only their own rows", async () => {
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
