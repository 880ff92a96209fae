// Temporary objects, which would shadow tables and functions for the next client on the connection.
import { type Attack, done, type Family } from "../attack.ts";

const makes = (name: string, sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  crossed: done,
  walls: ["no temporary objects"],
  ...more,
});
export const temporaryFamily: Family = {
  name: "temporary objects",
  attacks: [
    makes("a table", "CREATE TEMPORARY TABLE planted (x int)"),
    makes("a table with the schema pg_temp", "CREATE TABLE pg_temp.planted (x int)"),
    makes("a table from a query", "CREATE TEMPORARY TABLE planted AS SELECT * FROM products"),
    makes("a table from SELECT INTO", `SELECT 1 AS x INTO TEMPORARY planted`, { outside: true }),
    makes("a table from a CTE and SELECT INTO", `WITH v AS (SELECT 1 AS x) SELECT x INTO pg_temp.planted FROM v`, {
      outside: true,
    }),
    makes("a table that shadows another", "CREATE TEMPORARY TABLE products (LIKE products INCLUDING ALL)"),
    makes("a table with ON COMMIT DELETE ROWS", "CREATE TEMPORARY TABLE planted (x int) ON COMMIT DELETE ROWS"),
    makes("a table of a prepared statement", () => [
      "PREPARE p AS SELECT 1 AS x",
      "CREATE TEMPORARY TABLE planted AS EXECUTE p",
    ]),
    makes("a view that shadows a table", "CREATE TEMPORARY VIEW settings AS SELECT 1 AS key"),
    makes("a recursive view", "CREATE TEMPORARY RECURSIVE VIEW planted (n) AS SELECT 1"),
    makes("a sequence", "CREATE TEMPORARY SEQUENCE planted"),
    makes("a function", "CREATE FUNCTION pg_temp.planted() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    makes(
      "a SECURITY DEFINER function",
      "CREATE FUNCTION pg_temp.planted() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ),
    makes("a procedure", "CREATE PROCEDURE pg_temp.planted() LANGUAGE sql AS 'SELECT 1'"),
    makes("an operator", "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)"),
    makes("an aggregate", "CREATE AGGREGATE pg_temp.planted (int) (SFUNC = int4pl, STYPE = int)"),
    makes("a type", "CREATE TYPE pg_temp.planted AS (x int)"),
    makes("a domain", "CREATE DOMAIN pg_temp.text AS pg_catalog.text"),
  ],
};
