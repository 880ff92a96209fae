// Tenants are kept apart by the database, against arbitrary SQL of the application's own login. Every attack runs with
// the walls up, where it must get nothing, and once more without each wall that it names, where it must succeed.
import { createHash } from "node:crypto";
import { DatabaseError } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { prepareShared } from "../../dev/databases.ts";
import { sqlStateOf } from "../../src/adapters/neon.ts";
import { acme, aContext, contextKeys, globex, type Shard, startShard } from "../support/shard.ts";
import { type WallName, withoutWall } from "../support/walls.ts";

let shard: Shard;
beforeAll(async () => void (shard = await startShard()), 30_000);
afterAll(async () => shard[Symbol.asyncDispose]());
beforeEach(async () => shard.seed());

type Rows = Record<string, unknown>[];
/** How a hostile statement reaches the database as the tenant `acme`, whose context is good. */
type Send = (sql: string) => Promise<Rows>;

const plainly: Send = async (sql) => shard.plainly(shard.appUrl, await aContext(), sql);
const throughDb: Send = async (sql) => shard.db(acme).query(sql);

interface Attack {
  sql: string;
  /** What shows that it got through, when it came back without an error. By default: any row. */
  crossed?: (rows: Rows) => boolean;
  /** An error that itself shows it. */
  tell?: string;
  walls: readonly WallName[];
}

const INSUFFICIENT_PRIVILEGE = "42501";
const stateOf = (error: unknown) => (error instanceof DatabaseError ? error.code : sqlStateOf(error));

/** Whether the attack got what it wanted. Anything but a refusal for want of rights is a mistake in the test. */
async function crosses({ sql, crossed = (rows) => rows.length > 0, tell }: Attack, send: Send): Promise<boolean> {
  try {
    return crossed(await send(sql));
  } catch (error) {
    const sqlState = stateOf(error);
    if (sqlState === INSUFFICIENT_PRIVILEGE) return false;
    if (sqlState !== undefined && sqlState === tell) return true;
    throw error;
  }
}

async function mustNotCross(attack: Attack, send: Send): Promise<void> {
  expect(await crosses(attack, send), "with every wall up").toBe(false);
  for (const wall of attack.walls) {
    await shard.seed();
    const crossed = await withoutWall(shard, wall, () => crosses(attack, send));
    expect(crossed, `without the wall: ${wall}`).toBe(true);
  }
  await shard.seed();
  expect(await crosses(attack, send), "with every wall up again").toBe(false);
}

const rowWalls = ["row security", "a login that cannot bypass it", "no policy but the tenant's"] as const;

const rowAttacks: readonly [string, Attack][] = [
  ["read them by name", { sql: "SELECT * FROM products WHERE tenant_id = 'globex'", walls: rowWalls }],
  [
    "read them by forgetting its WHERE",
    {
      sql: "SELECT tenant_id FROM products",
      crossed: (rows) => rows.some((row) => row["tenant_id"] !== "acme"),
      walls: rowWalls,
    },
  ],
  [
    "count them",
    {
      sql: "SELECT count(*)::int AS n FROM products WHERE tenant_id <> 'acme'",
      crossed: (rows) => rows[0]?.["n"] !== 0,
      walls: rowWalls,
    },
  ],
  [
    "see them through an error of its own making",
    {
      sql: "SELECT 1 / (CASE WHEN tenant_id = 'globex' THEN 0 ELSE 1 END) FROM products",
      crossed: () => false,
      tell: "22012",
      walls: rowWalls,
    },
  ],
  [
    "see them through the planner's statistics",
    {
      sql: "SELECT most_common_vals FROM pg_stats WHERE tablename = 'products' AND attname = 'tenant_id'",
      walls: ["row security", "a login that cannot bypass it"],
    },
  ],
  [
    "read them in SQL that is built by SQL",
    {
      sql: "SELECT x FROM unnest(xpath('//row', query_to_xml('SELECT id FROM products WHERE tenant_id = ''globex''', true, false, ''))) x",
      walls: rowWalls,
    },
  ],
  [
    "read them by switching row security off in its statement",
    {
      sql: `SELECT p.id FROM (SELECT set_config('row_security', 'off', true) OFFSET 0) s, products p WHERE tenant_id = 'globex'`,
      walls: rowWalls,
    },
  ],
  [
    "read them by dropping its context in its statement",
    {
      sql: `WITH s AS MATERIALIZED (SELECT set_config('tollgate.context', '', true) AS c)
      SELECT p.id FROM s, products p WHERE s.c = '' AND p.tenant_id = 'globex'`,
      walls: rowWalls,
    },
  ],
  [
    "insert one",
    {
      sql: "INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING id",
      walls: rowWalls,
    },
  ],
  [
    "change one",
    { sql: "UPDATE products SET price_cents = 0 WHERE tenant_id = 'globex' RETURNING id", walls: rowWalls },
  ],
  [
    "push its own row over to them",
    {
      sql: "UPDATE products SET tenant_id = 'globex', id = 'pushed' WHERE id = 'lamp' AND tenant_id = 'acme' RETURNING id",
      walls: rowWalls,
    },
  ],
  [
    "pull one over to itself",
    {
      sql: "UPDATE products SET tenant_id = 'acme', id = 'pulled' WHERE id = 'secret-1' RETURNING id",
      walls: rowWalls,
    },
  ],
  ["delete one", { sql: "DELETE FROM products WHERE tenant_id = 'globex' RETURNING id", walls: rowWalls }],
  [
    "overwrite one by an upsert",
    {
      sql: `INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'lamp', 'mine', 0)
      ON CONFLICT (tenant_id, id) DO UPDATE SET name = 'mine' RETURNING id`,
      walls: rowWalls,
    },
  ],
  [
    "overwrite one by a merge",
    {
      sql: `MERGE INTO products p USING (VALUES ('globex', 'lamp')) v (t, i) ON p.tenant_id = v.t AND p.id = v.i
      WHEN MATCHED THEN UPDATE SET name = 'mine' RETURNING p.id`,
      walls: rowWalls,
    },
  ],
  ["lock one", { sql: "SELECT id FROM products WHERE tenant_id = 'globex' FOR UPDATE", walls: rowWalls }],
  [
    "learn of one from a violated key",
    {
      sql: "INSERT INTO products (id, name, price_cents) VALUES ('secret-1', '', 0)",
      crossed: () => false,
      tell: "23505",
      walls: ["keys that start with the tenant"],
    },
  ],
  [
    "learn of one from an insert that yields",
    {
      sql: `INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'secret-1', '', 0) ON CONFLICT DO NOTHING`,
      crossed: () => true, // to come back at all is to learn it: where there is no such row, the row's policy refuses
      walls: ["row security", "a login that cannot bypass it"],
    },
  ],
];

describe("a tenant cannot reach another tenant's rows", () => {
  test.each(rowAttacks)("with hand-written SQL to %s", (_, attack) => mustNotCross(attack, plainly));
  test.each(rowAttacks)("with hostile SQL in a tool to %s", (_, attack) => mustNotCross(attack, throughDb));

  test("by emptying the table", () =>
    mustNotCross({ sql: "TRUNCATE products", crossed: () => true, walls: ["no TRUNCATE"] }, plainly));

  test.each([
    ["read", "SELECT id FROM products"],
    ["change", "UPDATE products SET stock = 1 RETURNING id"],
    [
      "insert",
      "INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING id",
    ],
  ])("without any context to %s them", (_, sql) =>
    mustNotCross({ sql, walls: rowWalls }, (text) => shard.plainly(shard.appUrl, undefined, text)),
  );

  test("even as the owner of the table, without a context", () =>
    mustNotCross({ sql: "SELECT id FROM products", walls: ["row security forced on the owner"] }, (sql) =>
      shard.plainly(shard.ownerUrl, undefined, sql),
    ));
});

describe("a context is not believed", () => {
  const flipped = async (at: number) => {
    const context = await aContext({ tenantId: globex });
    const position = at < 0 ? context.length + at : at;
    return context.slice(0, position) + (context[position] === "0" ? "1" : "0") + context.slice(position + 1);
  };
  const keyOf = (id: string, secret: string) => ({ id, secret: secret.padEnd(32, ".") });

  // The work for an unknown key is done with pads of zeroes, so that it takes as long.
  const signedWithZeroes = async () => {
    const sha256 = (...parts: (string | Buffer)[]) =>
      createHash("sha256")
        .update(Buffer.concat(parts.map((part) => Buffer.from(part))))
        .digest();
    const body = (await aContext({ tenantId: globex, key: keyOf("k3", "any") })).slice(0, -65);
    const pad = Buffer.alloc(64);
    return `${body}.${sha256(pad, sha256(pad, body)).toString("hex")}`;
  };

  test.each<[string, () => Promise<string>, readonly WallName[]]>([
    ["whose MAC has another last character", () => flipped(-1), ["the context's MAC"]],
    ["whose MAC has another first character", () => flipped(-64), ["the context's MAC"]],
    ["whose expiry was put off", () => flipped(-66), ["the context's MAC"]],
    [
      "that was signed for another tenant",
      async () => (await aContext()).replace(".acme.", ".globex."),
      ["the context's MAC"],
    ],
    [
      "that was signed with another secret",
      () => aContext({ tenantId: globex, key: keyOf("k1", "guessed") }),
      ["the context's MAC"],
    ],
    [
      "that names a key nobody installed",
      () => aContext({ tenantId: globex, key: keyOf("k2", "own") }),
      ["the context's MAC and key"],
    ],
    ["that is signed with what an unknown key is computed with", () => signedWithZeroes(), ["an installed key"]],
    ["of another database", () => aContext({ tenantId: globex, database: "shard_other" }), ["the context's database"]],
    ["that has expired", () => aContext({ tenantId: globex, lifeMs: -2_000 }), ["the context's expiry"]],
    [
      "that lives for longer than any is made to",
      () => aContext({ tenantId: globex, lifeMs: 700_000 }),
      ["the longest life of a context"],
    ],
  ])("%s", async (_, forge, walls) => {
    await mustNotCross({ sql: "SELECT id FROM products WHERE tenant_id = 'globex'", walls }, async (sql) =>
      shard.plainly(shard.appUrl, await forge(), sql),
    );
  });

  test("wherever a character of it was changed", async () => {
    const { length } = await aContext({ tenantId: globex });
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const context = await flipped(Math.floor((i * length) / 12));
        return shard.plainly(shard.appUrl, context, "SELECT FROM products").then(() => "accepted", stateOf);
      }),
    );
    expect(new Set(outcomes)).toEqual(new Set([INSUFFICIENT_PRIVILEGE]));
  });

  test.each([
    "x",
    "....",
    "v1.k1.globex.shard_test.9999999999",
    "v1.k1.globex.shard_test.soon.00",
    "é".repeat(300),
    "a".repeat(100_000),
  ])("that is malformed, and the error does not repeat it: %.20s", async (context) => {
    const refused = shard.plainly(shard.appUrl, context, "SELECT id FROM products");
    await expect(refused).rejects.toMatchObject({ code: INSUFFICIENT_PRIVILEGE, message: "tenant context refused" });
  });

  test("when it is replayed after its expiry, though it was good before", async () => {
    const context = await aContext({ lifeMs: 3_900 });
    const read = () => shard.plainly(shard.appUrl, context, "SELECT id FROM products");
    expect(await read()).toEqual([{ id: "lamp" }]);
    await expect
      .poll(() => read().then(() => "accepted", stateOf), { timeout: 10_000, interval: 200 })
      .toBe(INSUFFICIENT_PRIVILEGE);
  });

  test("once its key is retired, while a new key is taken up without a refused call", async () => {
    const [old] = contextKeys;
    const fresh = keyOf("k-next", "the next secret");
    const ids = (key: typeof old) => shard.db(acme, { keys: [key] }).query("SELECT id FROM products");
    const accept = (...keys: [typeof old, ...(typeof old)[]]) =>
      prepareShared({ ownerUrl: shard.ownerUrl, logins: [], contextKeys: keys });
    await expect(ids(fresh)).rejects.toMatchObject({ sqlState: INSUFFICIENT_PRIVILEGE });
    await accept(fresh, old);
    expect(await Promise.all([ids(fresh), ids(old)])).toEqual([[{ id: "lamp" }], [{ id: "lamp" }]]);
    await accept(fresh);
    expect(await ids(fresh)).toEqual([{ id: "lamp" }]);
    await expect(ids(old)).rejects.toMatchObject({ sqlState: INSUFFICIENT_PRIVILEGE });
    await expect(accept({ ...fresh, secret: "another secret under the same id" })).rejects.toThrow(/k-next/);
    await accept(old);
  });
});

describe("the application's login cannot", () => {
  const done = () => true;
  test.each<[string, string, readonly WallName[]]>([
    ["create a temporary table", "CREATE TEMPORARY TABLE t ()", ["no temporary objects"]],
    ["create a temporary table by selecting into it", "SELECT 1 AS x INTO TEMPORARY t", ["no temporary objects"]],
    ["create a table", "CREATE TABLE public.t ()", ["no durable objects"]],
    ["create a function", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", ["no durable objects"]],
    ["create a view", "CREATE VIEW public.v AS SELECT * FROM products", ["no durable objects"]],
    ["keep a large object", "SELECT lo_from_bytea(0, 'x')", ["no functions of the host"]],
    ["see other connections' statements", "SELECT query FROM pg_stat_activity", ["no functions of the host"]],
    ["notify other connections", "SELECT pg_notify('c', 'x')", ["no functions of the host"]],
    ["hold a lock past its transaction", "SELECT pg_advisory_lock(1)", ["no functions of the host"]],
    ["end other connections", "SELECT pg_terminate_backend(0, 0)", ["no functions of the host"]],
    ["sleep", "SELECT pg_sleep(0)", ["no functions of the host"]],
    ["run a block", "DO 'BEGIN NULL; END'", ["no language for blocks"]],
    ["run a program of the server", "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'", ["no role of the host"]],
    ["read a file of the server", "COPY products FROM '/etc/hostname'", []],
    ["become the owner", "SET SESSION AUTHORIZATION tollgate_owner", ["no superuser"]],
    ["take the owner's role", "SET ROLE tollgate_owner", ["no superuser"]],
    ["take the group's role", "SET ROLE tollgate_app", ["the group's name withheld"]],
    [
      "take a role inside a data statement",
      "SELECT set_config('role', 'tollgate_app', false)",
      ["the group's name withheld"],
    ],
    ["read the context keys", "SELECT id FROM tollgate.context_keys", ["context keys withheld", "no role of the host"]],
    [
      "install a context key",
      `SELECT tollgate.install_context_key('own', repeat('x', 32))`,
      ["key functions withheld"],
    ],
    ["switch row security off", "ALTER TABLE products DISABLE ROW LEVEL SECURITY", ["no ownership", "no superuser"]],
    ["write a policy", "CREATE POLICY own ON products USING (true)", ["no ownership", "no superuser"]],
  ])("%s", (_, sql, walls) => mustNotCross({ sql, crossed: done, walls }, plainly));

  test("send anything but one data statement through a tool's database", async () => {
    const attempts = [
      "ALTER ROLE tollgate_app_a PASSWORD 'mine'",
      "SET row_security = off",
      "COMMIT",
      "/**/ COMMIT",
      "",
      "selected",
    ];
    for (const sql of attempts) await expect(throughDb(sql), sql).rejects.toMatchObject({ code: "tool_failed" });
    await expect(throughDb("SELECT 1; COMMIT"), "two in one message").rejects.toMatchObject({ sqlState: "42601" });
  });
});
