// Row access by the victim's names: every verb, and every position in a statement where a table can appear.
import { type Attack, done, type Family, FILTER } from "../attack.ts";
import type { Rows } from "../../support/shard.ts";
import { onlyShared, rows, rowsAtHome, rowsBesideOwn, theirs, writes, writesAtHome } from "./falls.ts";

const read = (name: string, sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls: rows,
  ...more,
});
/** A write of a row. The check on tenant_id is one of the walls: without the others, it still refuses (23514). */
const write = (name: string, sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls: writes,
  refusals: ["23514"],
  ...more,
});
const foreign = (found: Rows): boolean => found.some((row) => row["tenant_id"] !== "acme");
const filled = (found: Rows): boolean =>
  Object.values(found[0] ?? {}).some((value) => value !== null && value !== false);

// All columns, because a foreign table sends NULL for columns that are not named.
const columns = "(tenant_id, id, name, description, category, price_cents, stock, updated_at)";
const plantedRow = "'globex', 'planted', '', '', '', 0, 0, '2026-01-01'::timestamptz";
const planted = `${columns} VALUES (${plantedRow})`;

export const rowFamily: Family = {
  name: "rows",
  attacks: [
    read("read by name", (t) => `SELECT id FROM ${t.products} WHERE ${theirs}`),
    read("read without a condition", (t) => `SELECT tenant_id, id FROM ${t.products}`, { crossed: foreign }),
    read("read another table", (t) => `SELECT value FROM ${t.settings} WHERE ${theirs}`, {
      // The other walls of the shared tier belong to one table each.
      walls: { ...rows, shared: ["a login that cannot bypass it"] },
    }),
    read("count", (t) => `SELECT 1 FROM ${t.products} WHERE ${theirs} HAVING count(*) > 0`),
    read("whole rows", (t) => `SELECT p FROM ${t.products} p WHERE ${theirs}`),
    read("TABLE", (t) => `TABLE ${t.products}`, { crossed: foreign }),
    read("ONLY", (t) => `SELECT id FROM ONLY ${t.products} WHERE ${theirs}`),
    read("with inherited tables", (t) => `SELECT id FROM ${t.products} * WHERE ${theirs}`),
    read("a sample", (t) => `SELECT id FROM ${t.products} TABLESAMPLE SYSTEM (100) WHERE ${theirs}`, {
      walls: rowsAtHome,
    }),
    read("by ctid", (t) => `SELECT id FROM ${t.products} WHERE ctid >= '(0,0)' AND ${theirs}`),
    read("system columns", (t) => `SELECT tableoid, ctid FROM ${t.products} WHERE ${theirs}`),
    read(
      "joined to an own table",
      (t) => `SELECT v.name FROM products m JOIN ${t.products} v ON v.tenant_id <> m.tenant_id`,
      { walls: rowsBesideOwn },
    ),
    read(
      "joined laterally",
      (t) => `SELECT v.name FROM products m, LATERAL (SELECT * FROM ${t.products} WHERE ${theirs}) v`,
      { walls: rowsBesideOwn },
    ),
    read("in a scalar subquery", (t) => `SELECT (SELECT max(name) FROM ${t.products} WHERE ${theirs}) AS found`, {
      crossed: filled,
    }),
    read("EXISTS", (t) => `SELECT EXISTS (SELECT FROM ${t.products} WHERE ${theirs}) AS found`, {
      crossed: filled,
    }),
    read("in a condition", (t) => `SELECT id FROM products WHERE 'globex' IN (SELECT tenant_id FROM ${t.products})`, {
      walls: rowsBesideOwn,
    }),
    read("in a CTE", (t) => `WITH v AS (SELECT * FROM ${t.products}) SELECT id FROM v WHERE ${theirs}`),
    read(
      "in a materialized CTE",
      (t) => `WITH v AS MATERIALIZED (SELECT * FROM ${t.products} WHERE ${theirs}) TABLE v`,
    ),
    read(
      "in a recursive CTE",
      (t) => `WITH RECURSIVE v AS (SELECT 1 AS n, '' AS name UNION ALL
        SELECT n + 1, p.name FROM v, ${t.products} p WHERE n < 2 AND ${theirs}) SELECT name FROM v WHERE n > 1`,
    ),
    read(
      "in a union",
      (t) => `SELECT id FROM products WHERE false UNION ALL SELECT id FROM ${t.products} WHERE ${theirs}`,
      { walls: rowsBesideOwn },
    ),
    read("in an intersection", (t) => `SELECT 'globex' AS tenant_id INTERSECT SELECT tenant_id FROM ${t.products}`),
    read("in a window", (t) => `SELECT first_value(name) OVER () FROM ${t.products} WHERE ${theirs}`),
    read(
      "grouped",
      (t) =>
        `SELECT tenant_id, sum(price_cents) FROM ${t.products} WHERE ${theirs} GROUP BY ROLLUP (1) HAVING count(*) > 0`,
    ),
    read(
      "by an index-only scan",
      (t) => `SELECT tenant_id, id FROM ${t.products} WHERE ${theirs} ORDER BY tenant_id, id LIMIT 1`,
    ),
    read("locked for update", (t) => `SELECT id FROM ${t.products} WHERE ${theirs} FOR UPDATE`),
    read("locked FOR KEY SHARE", (t) => `SELECT id FROM ${t.products} WHERE ${theirs} FOR KEY SHARE SKIP LOCKED`, {
      walls: rowsAtHome,
    }),
    read(
      "copied into an own table",
      (t) => `INSERT INTO products (id, name, price_cents)
        SELECT 'stolen-' || id, name, price_cents FROM ${t.products} WHERE ${theirs} RETURNING name`,
      { walls: rowsBesideOwn, undo: (t) => `DELETE FROM ${t.schema}.products WHERE id LIKE 'stolen-%'` },
    ),
    read(
      "merged into an own table",
      (t) => `MERGE INTO products m USING (SELECT * FROM ${t.products} WHERE ${theirs}) v ON false
        WHEN NOT MATCHED THEN INSERT (id, name, price_cents) VALUES ('stolen-' || v.id, v.name, 0) RETURNING m.name`,
      { walls: rowsBesideOwn, undo: (t) => `DELETE FROM ${t.schema}.products WHERE id LIKE 'stolen-%'` },
    ),
    write("insert", (t) => `INSERT INTO ${t.products} ${planted} RETURNING id`),
    write("insert from a query", (t) => `INSERT INTO ${t.products} ${columns} SELECT ${plantedRow} RETURNING id`),
    write("change", (t) => `UPDATE ${t.products} SET price_cents = 0 WHERE ${theirs} RETURNING id`),
    write(
      "change by a join",
      (t) => `UPDATE ${t.products} p SET stock = 9 FROM (VALUES ('globex')) v (who) WHERE ${theirs} RETURNING id`,
    ),
    write(
      "change and return the old value",
      (t) => `UPDATE ${t.products} SET stock = 9 WHERE ${theirs} RETURNING old.name, new.stock`,
      {
        walls: writesAtHome,
      },
    ),
    write(
      "overwrite by an upsert",
      (t) => `INSERT INTO ${t.products} ${columns} VALUES ('globex', 'lamp', 'mine', '', '', 0, 0, '2026-01-01')
      ON CONFLICT (tenant_id, id) DO UPDATE SET name = 'mine' RETURNING id`,
      { walls: writesAtHome },
    ),
    write(
      "overwrite by a merge",
      (t) => `MERGE INTO ${t.products} p USING (VALUES ('globex', 'lamp')) v (t, i)
      ON p.tenant_id = v.t AND p.id = v.i WHEN MATCHED THEN UPDATE SET name = 'mine' RETURNING p.id`,
      { walls: writesAtHome },
    ),
    write(
      "insert by a merge",
      (t) => `MERGE INTO ${t.products} p USING (VALUES (1)) v (n) ON false
      WHEN NOT MATCHED THEN INSERT ${planted} RETURNING p.id`,
      { walls: writesAtHome },
    ),
    // The row gets the attacker's tenant_id, so that it passes the check in the victim's own schema.
    read(
      "change the tenant of a row to the attacker",
      (t) =>
        `UPDATE ${t.products} SET tenant_id = 'acme', id = 'taken' WHERE id = 'secret-1' AND ${theirs} RETURNING id`,
    ),
    write(
      "change the tenant of an own row to the victim",
      "UPDATE products SET tenant_id = 'globex', id = 'given' WHERE id = 'lamp' AND tenant_id = 'acme' RETURNING id",
      {
        walls: {
          shared: rows.shared,
          schema: ["the check on its own tenant_id"],
          database: ["the check on its own tenant_id"],
        },
        undo: (t) => `UPDATE ${t.schema}.products SET tenant_id = 'acme', id = 'lamp' WHERE id = 'given'`,
      },
    ),
    read("delete", (t) => `DELETE FROM ${t.products} WHERE ${theirs} RETURNING id`),
    read(
      "delete by a join",
      (t) => `DELETE FROM ${t.products} p USING (VALUES ('globex')) v (who) WHERE ${theirs} RETURNING id`,
    ),
    read(
      "delete by a merge",
      (t) => `MERGE INTO ${t.products} p USING (VALUES ('globex')) v (who) ON p.tenant_id = v.who
      WHEN MATCHED THEN DELETE RETURNING p.id`,
      { walls: rowsAtHome },
    ),
    read(
      "delete in a CTE",
      (t) => `WITH gone AS (DELETE FROM ${t.products} WHERE ${theirs} RETURNING *) SELECT name FROM gone`,
    ),
    {
      name: "find a row by a violated key",
      sql: "INSERT INTO products (id, name, price_cents) VALUES ('secret-1', '', 0)",
      crossed: () => false,
      tell: "23505",
      walls: onlyShared(["keys that start with the tenant"], "no key spans two tenants' tables"),
      undo: "DELETE FROM public.products WHERE tenant_id = 'acme' AND id = 'secret-1'",
    },
    {
      name: "find a row by ON CONFLICT DO NOTHING",
      sql: (t) =>
        `INSERT INTO ${t.products} ${columns} VALUES ('globex', 'secret-1', '', '', '', 0, 0, '2026-01-01') ON CONFLICT DO NOTHING`,
      crossed: done, // to come back at all is to learn it: where there is no such row, the wall refuses
      refusals: ["23514"],
      walls: { ...writesAtHome, shared: ["row security", "a login that cannot bypass it"] },
    },
    {
      name: "find values by the planner's estimates",
      sql: (t) => `EXPLAIN SELECT FROM ${t.products} WHERE ${theirs}`,
      crossed: done,
      onlyThroughDb: true,
      walls: {
        shared: [FILTER],
        schema: "EXPLAIN asks for the rights that the query needs",
        database: "EXPLAIN asks for the rights that the query needs",
      },
    },
  ],
};
