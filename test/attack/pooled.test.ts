// Connections are pooled, so the next statement meets the session state of the last. Here the pool has one connection: in
// the shared tier the victim always gets the attacker's. In the other tiers each has its own login and connection.
// Leftover state must have no effect. Each test also shows that it has an effect without the opening of a batch.
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { connectNeon } from "../../src/adapters/neon.ts";
import type { Session } from "../../src/tenant-db/session.ts";
import { type CallScopedDb, enterTenant } from "../../src/tenant-db/tenant-db.ts";
import { strategies } from "../../src/core/plans/plans.ts";
import { acme, aContext, globex } from "../support/shard.ts";
import { takeDown } from "../support/walls.ts";
import { marker, startTiers, type Tier } from "./tiers.ts";

const { tiers, cluster, ...ground } = await startTiers();
afterAll(() => ground[Symbol.asyncDispose]());

const { shared } = tiers;
const asGlobex = (tier: Tier): CallScopedDb => tier.db({ tenantId: globex });
const backend = async (db: CallScopedDb) => (await db.query("SELECT pg_backend_pid() AS pid"))[0]?.["pid"];
const leave = (tier: Tier, setting: string, value: string) =>
  tier.db().query("SELECT set_config($1, $2, false)", [setting, value]);

/** Runs `work` with the body of `tollgate.enter` replaced, so that every batch opens with this one. */
async function enteringBy<Result>(body: string, work: () => Promise<Result>): Promise<Result> {
  const enter = "tollgate.enter(text, integer)";
  const [row] = await shared.superuser("SELECT prosrc FROM pg_proc WHERE oid = $1::regprocedure", [enter]);
  const putUp = await takeDown(shared.superuser, {
    function: enter,
    part: String(row?.["prosrc"]),
    by: ` BEGIN ${body} END `,
  });
  try {
    return await work();
  } finally {
    await putUp();
  }
}
const contextAlone = "PERFORM pg_catalog.set_config('tollgate.context', context, true);";

const value = (sql: string, expected: unknown, params?: unknown[]) => async (db: CallScopedDb) =>
  Object.values((await db.query(sql, params))[0] ?? {})[0] === expected;
const setting = (name: string, expected: string) => value(`SELECT current_setting('${name}')`, expected);
const ownRows = value("SELECT count(*)::int FROM products WHERE tenant_id = 'globex'", 2);

const leftSettings: readonly [string, string, (db: CallScopedDb) => Promise<boolean>][] = [
  ["row_security", "off", ownRows],
  ["search_path", "pg_catalog", ownRows],
  // Long enough for the opening of a batch, and too short for the statement.
  [
    "statement_timeout",
    "30",
    value(
      "SELECT (count(*)::int, current_setting('statement_timeout'))::text FROM generate_series(1, 2000000)",
      "(2000000,20s)",
    ),
  ],
  ["lock_timeout", "1", setting("lock_timeout", "20s")],
  ["idle_in_transaction_session_timeout", "1", setting("idle_in_transaction_session_timeout", "10s")],
  ["client_encoding", "LATIN1", value("SELECT length($1)", 1, ["é"])],
  ["standard_conforming_strings", "off", value(String.raw`SELECT length('a\tb')`, 4)],
  ["transform_null_equals", "on", value("SELECT ('a' = NULL) IS NULL", true)],
  ["TimeZone", "Asia/Tokyo", value("SELECT '2026-01-01 00:00Z'::timestamptz::text", "2026-01-01 00:00:00+00")],
  ["DateStyle", "German", value("SELECT '2026-01-31'::date::text", "2026-01-31")],
  ["IntervalStyle", "sql_standard", value("SELECT '1 day'::interval::text", "1 day")],
  ["bytea_output", "escape", value(String.raw`SELECT '\x00'::bytea::text`, String.raw`\x00`)],
  ["extra_float_digits", "-15", value("SELECT (1 / 3::float8)::text", "0.3333333333333333")],
  ["xmlbinary", "hex", setting("xmlbinary", "base64")],
  ["default_text_search_config", "german", value("SELECT to_tsvector('the')::text", "")],
  ["synchronous_commit", "off", setting("synchronous_commit", "on")],
  ["exit_on_error", "on", setting("exit_on_error", "off")],
  ["work_mem", "64kB", setting("work_mem", "4MB")],
  ["enable_indexscan", "off", setting("enable_indexscan", "on")],
  ["log_parameter_max_length_on_error", "-1", setting("log_parameter_max_length_on_error", "0")],
  ["plan_cache_mode", "force_generic_plan", setting("plan_cache_mode", "auto")],
  [
    "application_name",
    "a letter to the next",
    value("SELECT current_setting('application_name') = 'a letter to the next'", false),
  ],
  [
    "my.own",
    "a letter to the next",
    value("SELECT coalesce(current_setting('my.own', true), '') = 'a letter to the next'", false),
  ],
];

describe.each(strategies)("on the only connection of a login, in the %s tier", (name) => {
  const tier = tiers[name];

  test("attacker and victim alternate when they share a login", async () => {
    const [mine, theirs] = [await backend(tier.db()), await backend(asGlobex(tier))];
    expect(mine === theirs).toBe(name === "shared");
  });

  test.each(leftSettings)("a setting of one tenant does not affect the next: %s", async (left, to, undisturbed) => {
    await leave(tier, left, to);
    expect(await undisturbed(asGlobex(tier))).toBe(true);
  });

  test("in a hundred alternating calls, each sees only its own rows", async () => {
    const dbs = [tier.db(), asGlobex(tier)] as const;
    const seen = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const rows = await dbs[i % 2 === 0 ? 0 : 1].query(
          "SELECT DISTINCT tenant_id, tollgate.current_tenant() AS me FROM products",
        );
        const tenant = i % 2 === 0 ? "acme" : "globex";
        return rows.length === 1 && rows[0]?.["tenant_id"] === tenant && rows[0]?.["me"] === tenant;
      }),
    );
    expect(seen.filter(Boolean)).toHaveLength(100);
  });

  test("a seed does not predict the random numbers of the next tenant", async () => {
    const drawn = async () => {
      await tier.db().query("SELECT setseed(0.42)");
      return (await asGlobex(tier).query("SELECT random() AS r"))[0]?.["r"];
    };
    expect(await drawn()).not.toBe(await drawn());
  });
});

describe("in the shared tier, without the opening of a batch, the next tenant is affected by", () => {
  afterEach(() => tiers.shared.mend());

  test.each(leftSettings)("%s", async (left, to, undisturbed) => {
    await enteringBy(contextAlone, async () => {
      await leave(shared, left, to);
      const disturbed = await undisturbed(asGlobex(shared)).then(
        (well) => !well,
        () => true,
      );
      expect(disturbed).toBe(true);
    });
  });

  test("a seed", async () => {
    await enteringBy(contextAlone, async () => {
      const drawn = async () => {
        await shared.db().query("SELECT setseed(0.42)");
        return (await asGlobex(shared).query("SELECT random() AS r"))[0]?.["r"];
      };
      expect(await drawn()).toBe(await drawn());
    });
  });

  test("a context for the session", async () => {
    const left = async () => leave(shared, "tollgate.context", await aContext({ database: shared.target.database }));
    const read = () => asGlobex(shared).query("SELECT DISTINCT tenant_id FROM products");
    await left();
    expect(await read()).toEqual([{ tenant_id: "globex" }]);
    // A batch without its context would read the attacker's rows.
    await enteringBy("NULL;", async () => {
      await left();
      expect(await read()).toEqual([{ tenant_id: "acme" }]);
    });
    expect(await read()).toEqual([{ tenant_id: "globex" }]);
  });
});

describe("in the shared tier", () => {
  test("the next tenant does not inherit its own expired context", async () => {
    await leave(
      shared,
      "tollgate.context",
      await aContext({ tenantId: globex, database: shared.target.database, lifeMs: -2_000 }),
    );
    expect(await asGlobex(shared).query("SELECT id FROM products WHERE id = 'lamp'")).toEqual([{ id: "lamp" }]);
  });

  test("a context ends with its transaction", async () => {
    expect(await shared.db().query("SELECT id FROM products")).toEqual([{ id: "lamp" }]);
    const connection = connectNeon(shared.url(acme), cluster.fetchEndpoint);
    expect(
      await connection.query("SELECT current_setting('tollgate.context', true) AS c, count(*)::int FROM products"),
    ).toEqual([{ c: "", count: 0 }]);
  });

  test.each([
    ["default_transaction_read_only", "on"],
    ["default_transaction_isolation", "serializable"],
    ["default_transaction_isolation", "repeatable read"],
  ])(
    "a default for transactions that takes hold before a batch can be opened costs the next a second round trip: %s, %s",
    async (name, left) => {
      const write = { text: "UPDATE products SET stock = stock + 1 WHERE id = 'lamp' RETURNING stock" };
      await leave(shared, name, left);
      const connection = connectNeon(shared.url(acme), cluster.fetchEndpoint);
      const context = await aContext({ database: shared.target.database });
      await expect(
        connection.batch([enterTenant(context, 1_000), write]),
        "without sending the batch again",
      ).rejects.toMatchObject({ sqlState: expect.stringMatching(/^(25006|40001)$/) });
      const victim = asGlobex(shared);
      const [before] = await shared.superuser("SELECT stock FROM products WHERE tenant_id = 'globex' AND id = 'lamp'");
      const stock = Number(before?.["stock"]);
      expect(await victim.query(write.text)).toEqual([{ stock: stock + 1 }]);
      // The successful batch has cleaned the connection for all later ones.
      expect(
        await victim.query(
          "SELECT current_setting('transaction_read_only') AS r, current_setting('transaction_isolation') AS i",
        ),
      ).toEqual([{ r: "off", i: "read committed" }]);
      await shared.mend();
    },
  );

  const count = () => asGlobex(shared).query("SELECT count(*)::int AS n FROM products");
  test.each(["statement_timeout", "tcp_user_timeout", "client_connection_check_interval"])(
    "a limit of a millisecond does not affect the next tenant's call: %s",
    async (limit) => {
      for (let i = 0; i < 5; i++) {
        await leave(shared, limit, "1");
        expect(await count()).toEqual([{ n: 2 }]);
      }
    },
  );

  // These end the connection, perhaps while the next batch is on its way: nothing of it ran, so it is sent again.
  test.each(["idle_session_timeout", "transaction_timeout"])(
    "a limit of a millisecond that ends connections fails no call of the next tenant: %s",
    async (limit) => {
      for (let i = 0; i < 20; i++) {
        // The limit may end the attacker's own batch.
        await leave(shared, limit, "1").catch(() => undefined);
        expect(await count()).toEqual([{ n: 2 }]);
      }
    },
  );

  test("a call that met such a limit takes effect once", async () => {
    const victim = asGlobex(shared);
    const add = () => victim.query("UPDATE products SET stock = stock + 1 WHERE id = 'lamp' RETURNING stock");
    const [{ stock: before } = {}] = await add();
    for (let i = 1; i <= 10; i++) {
      await leave(shared, "transaction_timeout", "1").catch(() => undefined);
      expect(await add()).toEqual([{ stock: Number(before) + i }]);
    }
    await shared.mend();
  });
});

// Statements that only a holder of the login can send. They run through the pooler, and the victim uses its only server
// connection next.
const leftBehind: readonly string[] = [
  "PREPARE kept AS SELECT * FROM products",
  "LISTEN kept",
  "DECLARE kept CURSOR WITH HOLD FOR SELECT 1 AS x",
  "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
  "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
  "SET search_path = pg_temp",
  "SET row_security = off",
  "SET ROLE NONE",
  "RESET SESSION AUTHORIZATION",
  "DEALLOCATE ALL",
  "CLOSE ALL",
  "UNLISTEN *",
  "DISCARD PLANS",
  "DISCARD SEQUENCES",
  "DISCARD TEMP",
  "NOTIFY kept, 'a letter to the next'",
  "SELECT setseed(0.42)",
];
const refusedToLeave: readonly string[] = [
  "CREATE TEMPORARY TABLE products (id text)",
  "SELECT 1 AS id INTO TEMPORARY products",
  "CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
  "SET SESSION AUTHORIZATION tollgate_owner",
  "SET ROLE tollgate_owner",
  "SELECT pg_advisory_lock(1)",
  "SELECT lo_from_bytea(0, 'x')",
];

describe.each(strategies)("through a transaction pooler with one server connection, in the %s tier", (name) => {
  const tier = tiers[name];

  const victim = asGlobex(tier);
  let attacker: Session;
  const attack = async (...texts: string[]) => {
    attacker ??= await tier.session(acme);
    return attacker.batch(texts.map((text) => ({ text })));
  };
  afterAll(async () => {
    await attacker.close();
  });

  const victimIsWell = async (): Promise<void> => {
    const seen = await victim.transaction(async (transaction) => {
      const rows = await transaction.query("SELECT tenant_id, name FROM products ORDER BY id");
      const changed = await transaction.query("UPDATE products SET stock = 3 WHERE id = 'lamp' RETURNING stock");
      const [pid] = await transaction.query("SELECT pg_backend_pid() AS pid");
      return { rows, changed, pid: pid?.["pid"] };
    });
    expect(seen.rows).toEqual([
      { tenant_id: "globex", name: `${marker} lamp` },
      { tenant_id: "globex", name: `${marker} plan` },
    ]);
    expect(seen.changed).toEqual([{ stock: 3 }]);
    const [[mine] = []] = await attack("SELECT pg_backend_pid() AS pid");
    expect(mine?.["pid"] === seen.pid, "on the same connection").toBe(name === "shared");
    await tier.mend();
  };

  test.each(leftBehind)("the victim's next transaction succeeds after: %s", async (text) => {
    await attack(text).catch((error: unknown) => {
      // An earlier statement of the list has created the object already.
      expect(error).toMatchObject({ sqlState: expect.stringMatching(/^42P0[35]$/) });
    });
    await victimIsWell();
  });

  test.each(refusedToLeave)("PostgreSQL refuses: %s", async (text) => {
    await attack("RESET ALL"); // with its own login, the attacker is affected by its own earlier statements
    await expect(attack(text)).rejects.toMatchObject({ sqlState: "42501" });
    await victimIsWell();
  });

  test("a transaction of the victim leaves no trace of its rows", async () => {
    await victim.transaction(async (transaction) => {
      await transaction.query("SELECT set_config('my.secret', name, false) FROM products");
      await transaction.query("SELECT * FROM products WHERE name = $1", [marker]);
    });
    const [opened] = [await tier.entranceOf(acme)(1_000)];
    attacker ??= await tier.session(acme);
    const [, settings, statements, cursors, rows] = await attacker.batch([
      opened,
      { text: "SELECT coalesce(current_setting('my.secret', true), '') AS left" },
      { text: `SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%${marker}%'` },
      { text: "SELECT name FROM pg_cursors WHERE name <> '' AND name <> 'kept'" },
      { text: "SELECT name FROM products WHERE tenant_id = 'globex'" },
    ]);
    expect([settings, statements, cursors, rows]).toEqual([[{ left: "" }], [], [], []]);
  });

  test("an abandoned transaction has ended for the next client", async () => {
    const other = await tier.session(acme);
    await other.batch([
      { text: "BEGIN" },
      await tier.entranceOf(acme)(1_000),
      { text: "UPDATE products SET stock = 5" },
    ]);
    await other.close();
    await victimIsWell();
  });
});
