// Indirect leaks: functions that run SQL, casts of whole rows, and errors that depend on a value.
import type { Attack, Family } from "../attack.ts";
import { rows, rowsAtHome, theirs } from "./falls.ts";

const read = (name: string, sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls: rows,
  ...more,
});
/** An error that only a row of the victim can cause. */
const raised = (name: string, tell: string, expression: string): Attack => ({
  name,
  sql: (t) => `SELECT ${expression} FROM ${t.products} WHERE ${theirs}`,
  tell,
  crossed: () => false,
  walls: rows,
});
const elements = (xml: string, path = "//id"): string => `SELECT x FROM unnest(xpath('${path}', ${xml})) x`;
const ofAName = {
  shared: "the name of a shared table is not secret",
  schema: ["rights on its own schema only"],
  database: ["no link to another database"],
} satisfies Attack["walls"];

export const castFamily: Family = {
  name: "casts and operators",
  attacks: [
    read("a query in a string", (t) =>
      elements(`query_to_xml('SELECT id FROM ${t.products} WHERE ${theirs.replaceAll("'", "''")}', true, false, '')`),
    ),
    read("a query in a string, with its XML schema", (t) =>
      elements(
        `query_to_xml_and_xmlschema('SELECT id FROM ${t.products} WHERE ${theirs.replaceAll("'", "''")}', true, false, '')`,
      ),
    ),
    read("a table as XML", (t) =>
      elements(`table_to_xml('${t.products}', true, false, '')`, '//row[tenant_id="globex"]/id'),
    ),
    read(
      "a schema as XML",
      (t) =>
        elements(
          `schema_to_xml('${t.victimSchema}', true, false, '')`,
          '//products[tenant_id="globex"]/id | //row[tenant_id="globex"]/id',
        ),
      {
        walls: rowsAtHome, // foreign tables are left out
      },
    ),
    read(
      "a database as XML",
      elements("database_to_xml(true, false, '')", '//products[tenant_id="globex"]/id | //row[tenant_id="globex"]/id'),
      {
        walls: rowsAtHome,
      },
    ),
    read(
      "a query as text search",
      (t) =>
        `SELECT word FROM ts_stat('SELECT to_tsvector(''simple'', tenant_id) FROM ${t.products} WHERE ${theirs.replaceAll("'", "''")}')`,
    ),
    read(
      "a query rewritten by a query",
      (t) =>
        `SELECT 1 WHERE ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery FROM ${t.products} WHERE ${theirs.replaceAll("'", "''")}') = 'b'::tsquery`,
    ),
    read("a row as text", (t) => `SELECT p::text FROM ${t.products} p WHERE p::text LIKE '%globex%'`),
    read(
      "a row as JSON",
      (t) => `SELECT to_jsonb(p) FROM ${t.products} p WHERE to_jsonb(p) ->> 'tenant_id' = 'globex'`,
    ),
    read(
      "a table as one JSON value",
      (t) => `SELECT 1 FROM (SELECT jsonb_agg(p) AS all_of FROM ${t.products} p) x WHERE all_of::text LIKE '%globex%'`,
    ),
    read(
      "rows from JSON",
      (t) =>
        `SELECT x.id FROM ${t.products} p, json_table(to_json(p)::jsonb, '$' COLUMNS (id text, tenant_id text)) x WHERE x.tenant_id = 'globex'`,
    ),
    read(
      "rows from XML",
      (t) =>
        `SELECT x.id FROM ${t.products} p, xmltable('/r' PASSING xmlelement(name r, xmlforest(p.id, p.tenant_id)) COLUMNS id text, tenant_id text) x WHERE x.tenant_id = 'globex'`,
    ),
    read("a field of a whole row", (t) => `SELECT (p).name FROM ${t.products} p WHERE (p).tenant_id = 'globex'`),
    read(
      "a comparison of rows",
      (t) => `SELECT id FROM ${t.products} WHERE ROW(tenant_id, id) >= ROW('globex', '') AND ${theirs}`,
    ),
    read(
      "an operator with its schema",
      (t) => `SELECT id FROM ${t.products} WHERE tenant_id OPERATOR(pg_catalog.=) 'globex'`,
    ),
    read("a pattern", (t) => `SELECT id FROM ${t.products} WHERE tenant_id ~ '^glob'`),
    read(
      "a word of the search",
      (t) => `SELECT id FROM ${t.products} WHERE to_tsvector('simple', tenant_id) @@ to_tsquery('simple', 'globex')`,
    ),
    read("another collation", (t) => `SELECT id FROM ${t.products} WHERE tenant_id COLLATE "C" = 'globex' COLLATE "C"`),
    read(
      "names in one string",
      (t) => `SELECT 1 FROM ${t.products} WHERE ${theirs} HAVING string_agg(name, ',') IS NOT NULL`,
    ),
    raised("a division by zero", "22012", "1 / (price_cents - price_cents)"),
    raised("a division by a CASE", "22012", "1 / CASE WHEN stock = 0 THEN 0 ELSE 1 END"),
    raised("a name as a number", "22P02", "name::int"),
    raised("a name as an instant", "22007", "name::timestamptz"),
    raised("a name as JSON", "22P02", "name::jsonb"),
    raised("a number too large", "22003", "(price_cents + 1) * 2147483647"),
    raised("a name as a pattern", "2201B", "'' ~ ('(' || name)"),
    raised("a name as bytes", "22023", "decode(name, 'hex')"),
    raised("a name as XML", "2200M", "xmlparse(document '<' || name)"),
    raised("a series with steps of zero", "22023", "generate_series(1, 2, price_cents - price_cents)"),
    {
      // The planner must not evaluate the condition before row security.
      name: "an error in a cheap condition",
      sql: (t) => `SELECT id FROM ${t.products} WHERE 1 / (price_cents - 900) > 5`,
      tell: "22012",
      crossed: () => false,
      walls: rows,
    },
    read("the victim's table by its name", (t) => `SELECT '${t.products}'::regclass`, {
      walls: ofAName,
    }),
    read("whether the victim's table exists", (t) => `SELECT 1 WHERE to_regclass('${t.products}') IS NOT NULL`, {
      walls: ofAName,
    }),
    read("the victim's row type", (t) => `SELECT 1 WHERE NULL::${t.products} IS NULL`, {
      walls: ofAName,
    }),
  ],
};
