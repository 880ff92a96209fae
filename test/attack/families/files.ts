// COPY, the server's files and programs, and large objects.
import { type Attack, done, type Family } from "../attack.ts";
import { rows, rowsAtHome, theirs } from "./falls.ts";

const does = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
/** A file that the server can write and no test reads. */
const sink = "/dev/null";

const noCopyIn = "PostgreSQL itself copies nothing into a table with row security";

export const fileFamily: Family = {
  name: "COPY and files",
  attacks: [
    does("COPY of the victim's table to the client", rowsAtHome, (t) => `COPY ${t.products} TO STDOUT`, {
      crossed: (found) => found.some(({ copied }) => String(copied).startsWith("globex")),
    }),
    does(
      "COPY of the victim's rows to the client",
      rows,
      (t) => `COPY (SELECT * FROM ${t.products} WHERE ${theirs}) TO STDOUT`,
      {
        crossed: (found) => found.some(({ copied }) => String(copied).startsWith("globex")),
      },
    ),
    does(
      "COPY of a DELETE to the client",
      rows,
      (t) => `COPY (DELETE FROM ${t.products} WHERE ${theirs} RETURNING *) TO STDOUT`,
      {
        crossed: (found) => found.some(({ copied }) => String(copied).startsWith("globex")),
      },
    ),
    // The client sends no rows. The attack succeeds when the server asks for them.
    does(
      "COPY into the victim's table",
      {
        shared: ["row security", "a login that cannot bypass it"],
        schema: ["rights on its own schema only", "no other role's name"],
        database: ["no link to another database"],
      },
      (t) => `COPY ${t.products} FROM STDIN`,
      { crossed: () => false, tell: "57014", refusals: ["0A000"], simpleAlone: true },
    ),
    does(
      "rows of a file into an own table",
      {
        shared: noCopyIn,
        schema: ["no role of the host"],
        database: ["no role of the host"],
      },
      "COPY settings FROM '/dev/null'",
    ),
    does("a table into a file", ["no role of the host", "no superuser"], `COPY settings TO '${sink}'`),
    does("a query into a file", ["no role of the host", "no superuser"], `COPY (SELECT 1) TO '${sink}'`),
    does(
      "a query to a program",
      ["no role of the host", "no superuser"],
      "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'",
    ),
    does(
      "a program into a table",
      {
        shared: noCopyIn,
        schema: ["no role of the host", "no superuser"],
        database: ["no role of the host", "no superuser"],
      },
      "COPY settings FROM PROGRAM 'true'",
    ),
    does("a program through a temporary table", [["no role of the host", "no temporary objects"]], () => [
      "CREATE TEMPORARY TABLE planted (line text)",
      "COPY planted FROM PROGRAM 'echo found'",
      "SELECT line FROM planted",
    ]),
    does("a file", ["no functions of the superuser", "no superuser"], "SELECT pg_read_file('PG_VERSION')"),
    does(
      "a file as bytes",
      ["no functions of the superuser", "no superuser"],
      "SELECT pg_read_binary_file('PG_VERSION')",
    ),
    does("a list of files", ["no functions of the superuser", "no superuser"], "SELECT pg_ls_dir('.')"),
    does(
      "whether a file exists",
      ["no functions of the superuser", "no superuser"],
      "SELECT pg_stat_file('PG_VERSION')",
    ),
    does("the server's log", ["no functions of the superuser", "no monitoring role"], "SELECT pg_current_logfile()"),
    does(
      "the archive's files",
      ["no monitoring role", "no superuser"],
      "SELECT count(*) FROM pg_ls_archive_statusdir()",
    ),
    does(
      "the write-ahead log's files",
      ["no functions of the superuser", "no monitoring role"],
      "SELECT count(*) FROM pg_ls_waldir()",
    ),
    does(
      "temporary files",
      ["no functions of the superuser", "no monitoring role"],
      "SELECT count(*) FROM pg_ls_tmpdir()",
    ),
    does("a file as a large object", ["no superuser"], "SELECT lo_import('/etc/hostname')", {
      undo: "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    }),
    does("a large object as a file", ["no superuser"], `SELECT lo_export(oid, '${sink}') FROM pg_largeobject_metadata`),
    does("a large object", ["no functions of the host", "no superuser"], "SELECT lo_from_bytea(0, 'x')", {
      undo: "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    }),
    does("an empty large object", ["no functions of the host"], "SELECT lo_create(0)", {
      undo: "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    }),
    does("a large object with lo_creat", ["no functions of the host"], "SELECT lo_creat(-1)", {
      undo: "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    }),
    does("a tablespace", ["no superuser"], "CREATE TABLESPACE planted LOCATION '/nowhere'", {
      outside: true,
      crossed: () => false,
      tell: "58P01",
    }),
    does("a new log file", ["no superuser"], "SELECT pg_rotate_logfile()"),
    does(
      "the victim's rows into a file",
      {
        shared: "COPY reads only the attacker's rows",
        schema: ["no role of the host", "no superuser"],
        database: "a role of the host belongs to all databases here; on Neon the victim is on another host",
      },
      (t) => `COPY (SELECT * FROM ${t.products} WHERE ${theirs}) TO '${sink}'`,
    ),
  ],
};
