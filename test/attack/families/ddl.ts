// DDL against the victim's tables, the product's tables, the database and the server.
import { type Attack, done, type Family } from "../attack.ts";
import { ownership } from "./falls.ts";

const does = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
const superuser = ["no superuser"] as const;
const durable = ["no durable objects"] as const;
const ofOwner = (name: string, sql: Attack["sql"], more: Partial<Attack> = {}): Attack =>
  does(name, ownership, sql, more);

export const ddlFamily: Family = {
  name: "DDL",
  attacks: [
    ofOwner("drop the victim's table", (t) => `DROP TABLE ${t.products} CASCADE`),
    ofOwner("rename it", (t) => `ALTER TABLE ${t.products} RENAME COLUMN name TO renamed`),
    ofOwner("add a column to it", (t) => `ALTER TABLE ${t.products} ADD COLUMN planted int`),
    ofOwner("change its default", (t) => `ALTER TABLE ${t.products} ALTER COLUMN name SET DEFAULT 'planted'`),
    ofOwner("drop its rules", (t) => `ALTER TABLE ${t.products} DROP CONSTRAINT products_stock_check`),
    ofOwner("switch its triggers off", (t) => `ALTER TABLE ${t.products} DISABLE TRIGGER USER`),
    ofOwner("switch row security off", (t) => `ALTER TABLE ${t.products} DISABLE ROW LEVEL SECURITY`),
    ofOwner("not force it on the owner", (t) => `ALTER TABLE ${t.products} NO FORCE ROW LEVEL SECURITY`),
    ofOwner("write a policy", (t) => `CREATE POLICY planted ON ${t.products} USING (true)`),
    ofOwner("write a rule", (t) => `CREATE RULE planted AS ON DELETE TO ${t.products} DO INSTEAD NOTHING`),
    ofOwner(
      "write a trigger",
      (t) => `CREATE TRIGGER planted BEFORE UPDATE ON ${t.products} FOR EACH ROW
      EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
    ),
    ofOwner("comment on it", (t) => `COMMENT ON TABLE ${t.products} IS 'planted'`),
    ofOwner("cluster it", (t) => `ALTER TABLE ${t.products} SET (autovacuum_enabled = off)`),
    ofOwner(
      "grant everyone the right to read it",
      (t) => [
        `GRANT SELECT ON ${t.products} TO PUBLIC`,
        `SELECT 1 FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = '${t.products}'::regclass AND a.grantee = 0`,
      ],
      { crossed: (found) => found.length > 0 },
    ),
    does("change its owner", superuser, (t) => `ALTER TABLE ${t.products} OWNER TO ${t.login}`, {
      walls: { shared: superuser, schema: superuser, database: "in the attacker's database there is no such table" },
    }),
    does(
      "change its statistics",
      {
        shared: ["no ownership"],
        schema: ownership.schema,
        database: ownership.database,
      },
      (t) => `SELECT pg_clear_relation_stats('${t.victimSchema}', 'products')`,
    ),
    does(
      "truncate it",
      {
        shared: ["no TRUNCATE", "no superuser"],
        schema: [["rights on its own schema only", "no TRUNCATE"]],
        database: [["no CONNECT on the other database", "rights on its own schema only", "no TRUNCATE"]],
      },
      (t) => `TRUNCATE ${t.products}`,
    ),
    does("a table", durable, (t) => `CREATE TABLE ${t.schema}.planted ()`),
    does("a table from a query", durable, (t) => `CREATE TABLE ${t.schema}.planted AS SELECT * FROM products`),
    does("a table by selecting into it", durable, (t) => `SELECT 1 AS x INTO ${t.schema}.planted`, {
      undo: (t) => `DROP TABLE IF EXISTS ${t.schema}.planted`,
    }),
    does("a table like another", durable, (t) => `CREATE TABLE ${t.schema}.planted (LIKE products INCLUDING ALL)`),
    does("an unlogged table", durable, (t) => `CREATE UNLOGGED TABLE ${t.schema}.planted (x int)`),
    does("a table in the product's schema", superuser, "CREATE TABLE tollgate.planted ()"),
    does("a view", durable, (t) => `CREATE VIEW ${t.schema}.planted AS SELECT * FROM products`),
    does("a materialized view", durable, (t) => `CREATE MATERIALIZED VIEW ${t.schema}.planted AS SELECT 1 AS x`),
    does("a sequence", durable, (t) => `CREATE SEQUENCE ${t.schema}.planted`),
    does("a type", durable, (t) => `CREATE TYPE ${t.schema}.planted AS ENUM ('x')`),
    does("a domain", durable, (t) => `CREATE DOMAIN ${t.schema}.planted AS text`),
    does("a schema", durable, "CREATE SCHEMA planted"),
    does(
      "a schema with the other tenant's name",
      {
        shared: durable,
        schema: "the schema exists already",
        database: durable,
      },
      (t) => (t.tier === "shared" ? "CREATE SCHEMA tollgate_app" : `CREATE SCHEMA ${t.victimSchema}`),
    ),
    does(
      "a text search dictionary",
      durable,
      (t) => `CREATE TEXT SEARCH DICTIONARY ${t.schema}.planted (TEMPLATE = simple)`,
    ),
    does("a collation", durable, (t) => `CREATE COLLATION ${t.schema}.planted (PROVIDER = builtin, LOCALE = 'C')`),
    does(
      "an index on an own table",
      {
        shared: [["no ownership", "no durable objects"]],
        schema: ["no ownership of its own tables"],
        database: ["no ownership of its own tables"],
      },
      (t) => `CREATE INDEX planted ON ${t.schema}.products (name)`,
    ),
    does(
      "the removal of the check on tenant_id from an own table",
      {
        shared: "row security checks tenant_id there",
        schema: ["no ownership of its own tables"],
        database: ["no ownership of its own tables"],
      },
      (t) => `ALTER TABLE ${t.schema}.products DROP CONSTRAINT tenant_id_is_mine`,
    ),
    does("a new name for the product's schema", superuser, "ALTER SCHEMA tollgate RENAME TO planted"),
    does("the removal of the product's schema", superuser, "DROP SCHEMA tollgate CASCADE"),
    does("the removal of the victim's schema", superuser, (t) => `DROP SCHEMA ${t.victimSchema} CASCADE`, {
      walls: { shared: superuser, schema: superuser, database: "in the attacker's database there is no such schema" },
    }),
    does("another database", ["no right to create databases"], "CREATE DATABASE planted TEMPLATE attack_missing", {
      outside: true,
      crossed: () => false,
      tell: "3D000",
      refusals: [],
    }),
    does("the removal of a database", superuser, "DROP DATABASE template1", {
      outside: true,
      crossed: () => false,
      tell: "42809",
    }),
    does("settings of the database", superuser, (t) => `ALTER DATABASE ${t.database} SET work_mem = '1GB'`),
    does("the database's owner", superuser, (t) => `ALTER DATABASE ${t.database} OWNER TO ${t.login}`),
    does("settings of the server", superuser, "ALTER SYSTEM SET tollgate.planted = 'x'", {
      outside: true,
      undo: "ALTER SYSTEM RESET tollgate.planted",
    }),
    does("an event trigger", superuser, "CREATE EVENT TRIGGER planted ON ddl_command_end EXECUTE FUNCTION planted()", {
      crossed: () => false,
      tell: "42883",
    }),
    does("an access method", superuser, "CREATE ACCESS METHOD planted TYPE TABLE HANDLER heap_tableam_handler"),
    does(
      "default privileges",
      superuser,
      "ALTER DEFAULT PRIVILEGES FOR ROLE tollgate_owner GRANT ALL ON TABLES TO PUBLIC",
    ),
    does(
      "an update of the catalogue",
      superuser,
      (t) =>
        `UPDATE pg_catalog.pg_class SET relrowsecurity = false WHERE relname = 'products' AND relnamespace = '${t.schema}'::regnamespace`,
    ),
    does("a delete in the catalogue", superuser, "DELETE FROM pg_catalog.pg_policy WHERE false"),
  ],
};
