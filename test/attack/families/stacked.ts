// Stacked statements: several in a message, comments, quotes, escapes, ends of transactions.
import { type Attack, done, type Family, FILTER } from "../attack.ts";
import { rows, theirs } from "./falls.ts";

const stacked = (name: string, sql: (products: string) => string, more: Partial<Attack> = {}): Attack => ({
  name,
  sql: (t) => sql(t.products),
  walls: rows,
  simpleAlone: true,
  ...more,
});
const hidden = (name: string, sql: (products: string) => string, more: Partial<Attack> = {}): Attack => ({
  name,
  sql: (t) => sql(t.products),
  walls: rows,
  ...more,
});
const steps = (name: string, sql: (products: string) => readonly string[]): Attack => ({
  name,
  sql: (t) => sql(t.products),
  walls: rows,
});
/** A statement disguised as a data statement. */
const passed = (name: string, sql: string): Attack => ({
  name,
  sql,
  crossed: done,
  onlyThroughDb: true,
  walls: [FILTER],
});
const read = (products: string): string => `SELECT id FROM ${products} WHERE ${theirs}`;
const found: Attack["crossed"] = (all) => all.some((row) => row["id"] !== undefined);

export const stackedFamily: Family = {
  name: "comments and stacked statements",
  attacks: [
    stacked("after another", (p) => `SELECT 1 AS x; ${read(p)}`, { crossed: found }),
    stacked("after a COMMIT", (p) => `SELECT 1 AS x; COMMIT; ${read(p)}`, { crossed: found }),
    stacked("after a rollback", (p) => `ROLLBACK; ${read(p)}`, { crossed: found }),
    stacked("in the next transaction of a chain", (p) => `COMMIT AND CHAIN; ${read(p)}`, { crossed: found }),
    stacked(
      "in a transaction of its own",
      (p) => `COMMIT; BEGIN; SET LOCAL search_path = pg_catalog; ${read(p)}; COMMIT`,
      { crossed: found },
    ),
    stacked(
      "after other settings",
      (p) => `SET LOCAL tollgate.context = ''; SET LOCAL transform_null_equals = on; ${read(p)}`,
      { crossed: found },
    ),
    stacked("after a savepoint", (p) => `SAVEPOINT s; SET LOCAL search_path = pg_catalog; ROLLBACK TO s; ${read(p)}`, {
      crossed: found,
    }),
    stacked("after empty statements", (p) => `;;; ${read(p)};`, { crossed: found }),
    stacked("after a string that holds a semicolon", (p) => `SELECT ';' AS x; ${read(p)}`, { crossed: found }),
    stacked("after a dollar-quoted string with a quote", (p) => `SELECT $a$ ' $b$ $a$ AS x; ${read(p)}`, {
      crossed: found,
    }),
    stacked("before an error", (p) => `${read(p)}; SELECT 1 / 0`, {
      crossed: () => false,
      tell: "22012",
      walls: {
        shared: "only the attacker's rows arrive, and the error occurs in any case",
        schema: rows.schema,
        database: rows.database,
      },
    }),
    stacked(
      "after SET standard_conforming_strings",
      (p) => `SET LOCAL standard_conforming_strings = off; SELECT '\\'; ${read(p)}; --' AS x`,
      { crossed: found },
    ),
    hidden("after a comment", (p) => `SELECT /* one /* in another */ */ id FROM ${p} WHERE ${theirs}`),
    hidden("after a comment to the end of the line", (p) => `SELECT id -- '\nFROM ${p} WHERE ${theirs} -- AND false`),
    hidden("between comments", (p) => `SELECT/**/id/**/FROM/**/${p}/**/WHERE/**/${theirs}`),
    hidden(
      "in quotes",
      (p) =>
        `SELECT "id" FROM ${p
          .split(".")
          .map((word) => `"${word}"`)
          .join(".")} WHERE "tenant_id" = 'globex'`,
    ),
    hidden(
      "in Unicode escapes",
      (p) => `SELECT id FROM ${p.replace("products", `U&"pr\\006fducts"`)} WHERE U&"tenant\\005fid" = U&'gl\\006fbex'`,
    ),
    hidden(
      "in Unicode escapes with UESCAPE",
      (p) => `SELECT id FROM ${p.replace("products", `U&"pr!006fducts" UESCAPE '!'`)} WHERE ${theirs}`,
    ),
    hidden("in C-style escapes", (p) => `SELECT id FROM ${p} WHERE tenant_id = E'\\x67lobe\\u0078'`),
    hidden("in dollar quotes", (p) => `SELECT id FROM ${p} WHERE tenant_id = $globex$globex$globex$`),
    hidden("in a string of two parts", (p) => `SELECT id FROM ${p} WHERE tenant_id = 'glo'\n'bex'`),
    hidden("in upper case", (p) => `SELECT ID FROM ${p.toUpperCase()} WHERE TENANT_ID = 'globex'`),
    hidden(
      "after a condition that always holds",
      (p) => `SELECT id FROM ${p} WHERE tenant_id = 'acme' AND false OR ${theirs}`,
    ),
    hidden(
      "after a union that an injection adds",
      (p) => `SELECT id FROM products WHERE name = '' UNION SELECT id FROM ${p} WHERE ${theirs} --'`,
      {
        walls: { ...rows, database: ["no link to another database"] },
      },
    ),
    hidden(
      "in parentheses",
      (p) => `SELECT * FROM ((SELECT id FROM (${p} CROSS JOIN (SELECT) AS z) WHERE ${theirs})) AS y`,
    ),
    steps("in a transaction within a transaction", (p) => ["SAVEPOINT a", "SAVEPOINT b", "RELEASE a", read(p)]),
    steps("after ROLLBACK TO SAVEPOINT", (p) => [
      "SAVEPOINT a",
      "SELECT set_config('role', 'none', true)",
      "ROLLBACK TO a",
      read(p),
    ]),
    steps("after COMMIT and BEGIN", (p) => ["COMMIT", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", read(p)]),
    steps("after settings for the session", (p) => [
      "COMMIT",
      "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
      read(p),
    ]),
    {
      name: "in EXPLAIN ANALYZE",
      sql: (t) => [`EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) DELETE FROM ${t.products} WHERE ${theirs}`],
      // The analysis states how many rows it found.
      crossed: (lines) => lines.some((line) => /rows=2(\.00)? loops=1/.test(JSON.stringify(line))),
      walls: { ...rows, database: [["no CONNECT on the other database", "rights on its own schema only"]] },
    },
    passed("a COMMIT after a comment", "/**/ COMMIT"),
    passed("a COMMIT after a line comment", "-- SELECT\nCOMMIT"),
    passed("a setting", "SET row_security = off"),
    passed("a setting in the middle of a line", " \n\tSET\tLOCAL statement_timeout = 0"),
    passed("a prepared statement", "PREPARE kept AS SELECT 1"),
    passed("LISTEN", "LISTEN c"),
    passed("NOTIFY", "NOTIFY c, 'x'"),
    passed("settings of the login", "ALTER ROLE CURRENT_USER SET work_mem = '5MB'"),
    passed("EXPLAIN ANALYZE", "EXPLAIN ANALYZE SELECT 1"),
    passed("TABLE", "TABLE products"),
    passed("a cursor that outlives its transaction", "DECLARE kept CURSOR WITH HOLD FOR SELECT 1"),
    passed("an empty text", ""),
  ],
};
