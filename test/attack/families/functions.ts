// User-defined functions, operators and casts, DO blocks, and prepared statements.
import { type Attack, done, type Family } from "../attack.ts";
import { rows, theirs } from "./falls.ts";

const durable = ["no durable objects"] as const;
const makes = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
const steps = (name: string, sql: (products: string) => readonly string[], walls: Attack["walls"] = rows): Attack => ({
  name,
  sql: (t) => sql(t.products),
  walls,
});

export const functionFamily: Family = {
  name: "functions",
  attacks: [
    makes("a function", durable, (t) => `CREATE FUNCTION ${t.schema}.planted() RETURNS int LANGUAGE sql AS 'SELECT 1'`),
    makes(
      "a SECURITY DEFINER function",
      durable,
      (t) => `CREATE FUNCTION ${t.schema}.planted() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'`,
    ),
    makes(
      "a function with an SQL-standard body",
      durable,
      (t) => `CREATE FUNCTION ${t.schema}.planted() RETURNS int RETURN 1`,
    ),
    makes(
      "a function that shadows a built-in one",
      durable,
      (t) => `CREATE FUNCTION ${t.schema}.count(text) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    ),
    makes(
      "a leaking function that is declared LEAKPROOF",
      ["no superuser"],
      (t) =>
        `CREATE FUNCTION ${t.schema}.planted(text) RETURNS boolean LANGUAGE sql LEAKPROOF COST 0.0001 AS 'SELECT true'`,
    ),
    makes("a procedure", durable, (t) => `CREATE PROCEDURE ${t.schema}.planted() LANGUAGE sql AS 'SELECT 1'`),
    makes("an aggregate", durable, (t) => `CREATE AGGREGATE ${t.schema}.planted (int) (SFUNC = int4pl, STYPE = int)`),
    makes(
      "an operator that shadows =",
      durable,
      (t) => `CREATE OPERATOR ${t.schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)`,
    ),
    makes(
      "an internal function",
      ["no superuser"],
      (t) => `CREATE FUNCTION ${t.schema}.planted() RETURNS int LANGUAGE internal AS 'pg_backend_pid'`,
    ),
    makes(
      "a C function",
      ["no superuser"],
      (t) =>
        `CREATE FUNCTION ${t.schema}.planted() RETURNS trigger LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'`,
    ),
    makes("a cast", ["no superuser"], "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT"),
    makes(
      "an operator class",
      ["no superuser"],
      (t) => `CREATE OPERATOR CLASS ${t.schema}.planted FOR TYPE text USING btree AS FUNCTION 1 bttextcmp(text, text)`,
    ),
    makes("a language", ["no superuser"], "CREATE LANGUAGE planted HANDLER plpgsql_call_handler"),
    makes("a DO block", ["no language for blocks"], "DO 'BEGIN NULL; END'"),
    makes("a DO block with dynamic SQL", ["no language for blocks"], "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$"),
    makes("a DO block that commits", ["no language for blocks"], "DO $$ BEGIN COMMIT; END $$", {
      outside: true,
    }),
    makes(
      "a plpgsql function",
      [["no language for blocks", "no durable objects"]],
      (t) => `CREATE FUNCTION ${t.schema}.planted() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'`,
    ),
    makes(
      "the product's function as SECURITY DEFINER",
      ["no ownership of the owner's functions", "no superuser"],
      "ALTER FUNCTION tollgate.enter(text, integer) SECURITY DEFINER",
    ),
    makes(
      "a new name for the product's function",
      ["no ownership of the owner's functions", "no superuser"],
      "ALTER FUNCTION tollgate.current_tenant() RENAME TO planted",
    ),
    makes(
      "the ownership of the product's function",
      ["no superuser"],
      (t) => `ALTER FUNCTION tollgate.current_tenant() OWNER TO ${t.login}`,
    ),
    makes(
      "the removal of the product's function",
      ["no ownership of the owner's functions", "no superuser"],
      "DROP FUNCTION tollgate.enter(text, integer)",
    ),
    makes(
      "the owner's function that isolates tables",
      ["the owner's functions revoked"],
      (t) => `SELECT tollgate.track('${t.schema}.products')`,
    ),
    steps("a statement prepared and run", (products) => [
      `PREPARE p AS SELECT id FROM ${products} WHERE ${theirs}`,
      "EXECUTE p",
    ]),
    steps("a statement prepared with a parameter", (products) => [
      `PREPARE p (text) AS SELECT id FROM ${products} WHERE tenant_id = $1`,
      "EXECUTE p ('globex')",
    ]),
    steps("a cursor", (products) => [
      `DECLARE c CURSOR FOR SELECT id FROM ${products} WHERE ${theirs}`,
      "FETCH ALL FROM c",
    ]),
    steps("a cursor that outlives its transaction", (products) => [
      `DECLARE c CURSOR WITH HOLD FOR SELECT id FROM ${products} WHERE ${theirs}`,
      "COMMIT",
      "FETCH ALL FROM c",
    ]),
    steps("a cursor as XML", (products) => [
      `DECLARE c CURSOR FOR SELECT id FROM ${products} WHERE ${theirs}`,
      "SELECT x FROM unnest(xpath('//id', cursor_to_xml('c', 10, true, false, ''))) x",
    ]),
  ],
};
