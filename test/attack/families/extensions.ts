// Leaving the database: other databases, other servers, extensions and libraries.
import { type Attack, done, type Family } from "../attack.ts";

const does = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
const link = ["no link to another database"] as const;
/** The error while the wall stands: it does not exist. */
const noFunction = { refusals: ["42883"] };
const noObject = { refusals: ["42704"] };
const extension = (name: string): Attack =>
  does(`the extension ${name}`, ["no superuser"], `CREATE EXTENSION ${name} SCHEMA tollgate`);

export const extensionFamily: Family = {
  name: "dblink and extensions",
  attacks: [
    extension("dblink"),
    extension("postgres_fdw"),
    extension("file_fdw"),
    extension("pg_stat_statements"),
    extension("pageinspect"),
    extension("pg_buffercache"),
    extension("xml2"),
    does("a trusted extension", ["no durable objects", "no superuser"], "CREATE EXTENSION hstore"),
    does("an extension with its dependencies", ["no superuser"], "CREATE EXTENSION earthdistance CASCADE"),
    does("the removal of an extension", ["no superuser"], "DROP EXTENSION plpgsql CASCADE"),
    does("an update of an extension", ["no superuser"], "ALTER EXTENSION plpgsql UPDATE"),
    does(
      "a connection that the server opens",
      link,
      (t) => `SELECT tollgate.dblink_connect('out', '${t.ownConnection}'), tollgate.dblink_disconnect('out')`,
      noFunction,
    ),
    does(
      "a query over a connection of the server",
      link,
      (t) => `SELECT x FROM tollgate.dblink('${t.ownConnection}', 'SELECT 1') AS l (x int)`,
      noFunction,
    ),
    does(
      "a statement that ctx.db refuses, over a connection of the server",
      link,
      (t) => `SELECT tollgate.dblink_exec('${t.ownConnection}', 'SET search_path = pg_temp')`,
      noFunction,
    ),
    does(
      "an asynchronous query",
      link,
      (t) => `SELECT tollgate.dblink_connect('out', '${t.ownConnection}'),
      tollgate.dblink_send_query('out', 'SELECT 1'), tollgate.dblink_disconnect('out')`,
      noFunction,
    ),
    does(
      "a foreign server",
      link,
      "CREATE SERVER planted FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
      noObject,
    ),
    does("a foreign data wrapper", ["no superuser"], "CREATE FOREIGN DATA WRAPPER planted"),
    does(
      "a user mapping",
      link,
      () => [
        "CREATE SERVER planted FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER planted OPTIONS (user 'postgres', password 'guessed')",
      ],
      noObject,
    ),
    does(
      "a foreign table",
      [["no link to another database", "no durable objects"]],
      (t) => [
        "CREATE SERVER planted FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
        `CREATE FOREIGN TABLE ${t.schema}.planted (x int) SERVER planted`,
      ],
      noObject,
    ),
    does("a library", ["no superuser"], "LOAD 'auto_explain'"),
    does("a library of the plugins' folder", ["no superuser"], "LOAD '$libdir/dblink'"),
    does(
      "a subscription",
      ["no superuser"],
      "CREATE SUBSCRIPTION planted CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
    ),
    does("a publication", ["no durable objects"], "CREATE PUBLICATION planted"),
    does(
      "a replication slot",
      ["no replication", "no superuser"],
      "SELECT pg_create_physical_replication_slot('planted')",
      {
        undo: "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'planted'",
      },
    ),
    does(
      "the contents of the write-ahead log",
      ["no superuser"],
      "SELECT pg_create_logical_replication_slot('planted', 'pgoutput')",
      { crossed: () => false, tell: "55000" },
    ),
    does("a replication origin", ["no superuser"], "SELECT pg_replication_origin_create('planted')", {
      undo: "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin",
    }),
    does(
      "a message in the write-ahead log",
      ["no functions of the host"],
      "SELECT pg_logical_emit_message(false, 'x', 'y', false)",
    ),
  ],
};
