// Actions that PostgreSQL allows every login and that no REVOKE prevents, with their effects.
// `metadata`: counts, sizes, meaningless names and activity, but no value of a row and no tenant's name.
// `availability`: another tenant waits, or is refused, longer than the statement timeout. No test here reaches a row.
// `by the login`: only a holder of the login's password can send it, because `ctx.db` does not.
import { afterAll, describe, expect, test } from "vitest";
import { proveIsolation } from "../../src/tenant-db/isolation.ts";
import { strategies } from "../../src/core/plans/plans.ts";
import { acme, contextKeys, globex, type Rows } from "../support/shard.ts";
import { holdsMarker } from "./attack.ts";
import { startTiers, type Target } from "./tiers.ts";

const { tiers, cluster, ...ground } = await startTiers();
afterAll(() => ground[Symbol.asyncDispose]());

const ofVictimsTable = (what: string) => (t: Target) =>
  `SELECT ${what} FROM pg_class c WHERE c.relname = 'products' AND c.relkind = 'r'
    AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = '${t.tier === "database" ? t.schema : t.victimSchema}')`;

const metadata: readonly [string, (target: Target) => string][] = [
  ["how many rows a table has, about: in shared tables all tenants' together", ofVictimsTable("c.reltuples AS found")],
  ["how large a table is", ofVictimsTable("pg_relation_size(c.oid) AS found")],
  ["how many rows were inserted, changed, read", ofVictimsTable("pg_stat_get_tuples_inserted(c.oid) AS found")],
  [
    "how many rows this connection has read a moment ago",
    ofVictimsTable("pg_stat_get_xact_tuples_returned(c.oid) AS found"),
  ],
  ["which file a table is in", ofVictimsTable("pg_relation_filepath(c.oid) AS found")],
  ["how a table is made", () => "SELECT string_agg(attname, ',') AS found FROM pg_attribute WHERE attnum > 0"],
  [
    "how a tenant is identified: the source has no secret",
    () => "SELECT pg_get_functiondef('tollgate.current_tenant()'::regprocedure) AS found",
  ],
  ["which roles there are", () => "SELECT string_agg(rolname, ',') AS found FROM pg_roles"],
  ["which schemas there are", () => "SELECT string_agg(nspname, ',') AS found FROM pg_namespace"],
  ["which databases there are", () => "SELECT string_agg(datname, ',') AS found FROM pg_database"],
  ["which settings roles have", () => "SELECT string_agg(setconfig::text, ',') AS found FROM pg_db_role_setting"],
  ["what is locked by whom", () => "SELECT count(*) AS found FROM pg_locks"],
  ["how busy the databases are", () => "SELECT sum(xact_commit) AS found FROM pg_stat_database"],
  ["how much was written", () => "SELECT pg_current_wal_lsn() AS found"],
  ["how many transactions there were", () => "SELECT pg_current_snapshot() AS found"],
  ["since when the server runs", () => "SELECT pg_postmaster_start_time() AS found"],
];

describe.each(strategies)("in the %s tier", (name) => {
  const tier = tiers[name];
  const told = (rows: Rows): string =>
    JSON.stringify(rows, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));

  test.each(metadata)("metadata: %s", async (_, sql) => {
    const rows = await tier.db().query(sql(tier.target));
    expect(rows[0]?.["found"]).not.toBeNull();
    expect(holdsMarker(told(rows))).toBe(false);
    expect(told(rows)).not.toContain("globex");
  });

  // PostgreSQL itself refuses these, so there is no wall to take down.
  test.each<[string, (target: Target) => string, string]>([
    ["the table of another database by its name", (t) => `SELECT id FROM ${t.victimDatabase}_x.${t.products}`, "0A000"],
    ["a transaction that is prepared to be ended elsewhere", () => "PREPARE TRANSACTION 'kept'", "55000"],
    [
      "an analysis in SQL that is built by SQL",
      () => "SELECT query_to_xml('EXPLAIN SELECT 1', true, false, '')",
      "0A000",
    ],
    [
      "a change in SQL that is built by SQL",
      () => "SELECT query_to_xml('DELETE FROM products', true, false, '')",
      "0A000",
    ],
    ["an end behind a CTE", () => "WITH x AS (SELECT 1) COMMIT", "42601"],
    ["a NUL in the middle of a text", (t) => `SELECT 1\0; SELECT id FROM ${t.products}`, "08P01"],
  ])("nothing: PostgreSQL itself refuses %s", async (_, sql, state) => {
    const entrance = await tier.entrance(1_000);
    for (const form of ["simple", "extended"] as const) {
      const sent = tier.here.run({ form, entrance, messages: [sql(tier.target)] });
      await expect(sent, form).rejects.toMatchObject({ code: state });
    }
    expect(await tier.victimRows()).toBe(tier.untouched);
  });

  test("no effect: an XML entity for a file of the server is empty", async () => {
    const xml = `<!DOCTYPE a [<!ENTITY file SYSTEM "file:///etc/passwd">]><a>&file;</a>`;
    const rows = await tier.db().query(`SELECT (xpath('/a/text()', xmlparse(document '${xml}')))[1]::text AS found`);
    expect(rows).toEqual([{ found: null }]);
  });

  test("availability: a few built-in functions do not check the statement timeout", async () => {
    const startedAtMs = performance.now();
    const path = "('[' || repeat('(0,0),', 1500) || '(1,1)]')::path";
    const burning = tier.db({ statementTimeoutMs: 50 }).query(`SELECT ${path} <-> ${path}`);
    await expect(burning).rejects.toMatchObject({ sqlState: "57014" });
    expect(performance.now() - startedAtMs).toBeGreaterThan(250);
  });

  test("availability: a tenant behind a busy connection is served after the statement timeout, and others at once", async () => {
    const ended: string[] = [];
    const busy = tier.db({ statementTimeoutMs: 500 }).query("SELECT count(*) FROM generate_series(1, 1000000000)");
    const next = (tenant: string) => () => void ended.push(tenant);
    const elsewhere = await tier.session(globex); // a connection of its own, as others have
    const read = { text: "SELECT count(*)::int AS n FROM products" };
    await Promise.all([
      expect(busy).rejects.toMatchObject({ sqlState: "57014" }).then(next("busy")),
      elsewhere.batch([await tier.entranceOf(globex)(5_000), read]).then(([, rows]) => {
        expect(rows).toEqual([{ n: 2 }]);
        ended.push("elsewhere");
      }),
      // In the shared tier it waits behind the busy statement: the proxy has one connection for the shared login.
      tier.db({ tenantId: globex }).query(read.text).then(next("behind")),
    ]);
    await elsewhere.close();
    expect(ended[0]).not.toBe("busy");
    if (name === "shared") expect(ended).toEqual(["elsewhere", "busy", "behind"]);
  });

  test("availability: a row lock of one tenant does not make another tenant wait", async () => {
    const holder = await tier.session(acme);
    const other = tier.name === "shared" ? tier.db({ tenantId: globex }) : undefined;
    await holder.batch([
      { text: "BEGIN" },
      await tier.entranceOf(acme)(5_000),
      { text: "UPDATE products SET stock = 5" },
    ]);
    const changed = await (other ?? tier.db({ tenantId: globex })).query(
      "UPDATE products SET stock = 6 RETURNING stock",
    );
    expect(changed).toEqual([{ stock: 6 }, { stock: 6 }]);
    await holder.batch([{ text: "ROLLBACK" }]);
    await holder.close();
    await tier.mend();
  });

  describe("by the login", () => {
    const send = async (...messages: string[]): Promise<Rows> =>
      tier.here.run({ form: "simple", entrance: undefined, messages });

    test.each([
      ["GRANT", (t: Target) => `GRANT SELECT ON ${t.schema}.products TO PUBLIC`],
      ["REVOKE", (t: Target) => `REVOKE SELECT ON ${t.schema}.products FROM PUBLIC`],
      ["VACUUM", (t: Target) => `VACUUM ${t.schema}.products`],
      ["ANALYZE", (t: Target) => `ANALYZE ${t.schema}.products`],
      ["DROP OWNED", () => "DROP OWNED BY CURRENT_USER"],
      ["DROP OWNED of the group", (t: Target) => (t.tier === "shared" ? "DROP OWNED BY tollgate_app" : "SELECT 1")],
      ["REASSIGN OWNED", () => "REASSIGN OWNED BY CURRENT_USER TO CURRENT_USER"],
    ])("nothing: %s comes back without an error and does nothing", async (_, sql) => {
      const rights = "SELECT string_agg(relacl::text, ';' ORDER BY oid) AS rights FROM pg_class";
      const before = await tier.superuser(rights);
      await send(sql(tier.target));
      expect(await tier.superuser(rights)).toEqual(before);
      expect(await tier.db().query("SELECT id FROM products")).toEqual([{ id: "lamp" }]);
    });

    test("availability: NOTIFY reaches every listening connection of the database", async () => {
      await send("LISTEN c", "NOTIFY c, 'x'", "UNLISTEN c");
    });

    test("availability: default privileges are objects of the login, which the isolation proof refuses", async () => {
      await send("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC");
      if (name === "shared") {
        const { fetchEndpoint } = cluster;
        const proof = await proveIsolation({ url: tier.url(acme), fetchEndpoint, contextKeys, now: Date.now });
        expect(proof).toMatchObject({ proven: false });
      }
      await send("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC");
    });

    // A role may always change its own settings. The opening of a batch resets the settings that the batch depends on.
    const count = "SELECT count(*)::int AS n FROM products";
    const write = "UPDATE products SET stock = 2 WHERE id = 'lamp' RETURNING 2 AS n";
    test.each([
      ["search_path", "pg_temp", count],
      ["row_security", "off", count],
      ["statement_timeout", "1h", count],
      ["lock_timeout", "1h", count],
      ["default_transaction_read_only", "on", write],
      ["default_transaction_isolation", "serializable", write],
    ])("no effect: the opening of a batch resets the login's own setting: %s", async (setting, value, sql) => {
      // Afterwards every tenant connects again.
      await tier.without([], () => send(`ALTER ROLE CURRENT_USER SET ${setting} = '${value}'`));
      expect(await tier.db({ tenantId: globex }).query(sql)).toEqual([{ n: 2 }]);
      await tier.superuser(`ALTER ROLE ${tier.target.login} RESET ${setting}`);
      await tier.without([], async () => undefined);
    });

    test("availability: a role setting that the start of a batch does not undo affects only its login", async () => {
      await tier.without([], () => send("ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Tokyo'"));
      const read = async (tenantId: typeof acme) =>
        (await tier.db({ tenantId }).query("SELECT current_setting('TimeZone') AS zone"))[0]?.["zone"];
      expect(await read(acme)).toBe("Asia/Tokyo");
      // Tenants of shared tables share a login. This is why no tool may know its password.
      expect(await read(globex)).toBe(name === "shared" ? "Asia/Tokyo" : "UTC");
      await tier.superuser(`ALTER ROLE ${tier.target.login} RESET TimeZone`);
      await tier.without([], async () => undefined);
    });
  });
});
