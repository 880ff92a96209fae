// Changing the role or a setting: as a statement, and inside a data statement.
import { type Attack, done, type Family } from "../attack.ts";
import { rows, rowsBesideOwn, theirs } from "./falls.ts";

const does = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
const superuser = ["no superuser"] as const;
const readTheirs = (products: string): string => `SELECT id FROM ${products} WHERE ${theirs}`;

export const roleFamily: Family = {
  name: "roles and settings",
  attacks: [
    does("take another role", ["no other role's name", "no superuser"], (t) => `SET ROLE ${t.otherRole}`),
    does("take another role for a transaction", ["no other role's name"], (t) => `SET LOCAL ROLE ${t.otherRole}`),
    does(
      "take another role with set_config",
      ["no other role's name"],
      (t) => `SELECT set_config('role', '${t.otherRole}', false)`,
    ),
    does("take another role and read", rows, (t) => [`SAVEPOINT s`, `SET LOCAL ROLE NONE`, readTheirs(t.products)], {
      crossed: (found) => found.length > 0,
    }),
    does("take the owner's role", superuser, "SET ROLE tollgate_owner"),
    does("take the owner's role in a data statement", superuser, "SELECT set_config('role', 'tollgate_owner', true)"),
    does("take the superuser's role", superuser, "SET ROLE postgres"),
    does("take a role of the host", ["no role of the host"], "SET ROLE pg_read_all_data"),
    does("become another login", superuser, "SET SESSION AUTHORIZATION tollgate_owner"),
    does("become the other tenant's login", superuser, (t) => `SET LOCAL SESSION AUTHORIZATION ${t.otherRole}`),
    does(
      "become another login in a data statement",
      superuser,
      "SELECT set_config('session_authorization', 'tollgate_owner', true)",
    ),
    {
      name: "disable row security and read",
      sql: (t) => ["SET row_security = off", readTheirs(t.products)],
      // The setting turns rows hidden by a policy into an error.
      walls: { ...rows, shared: ["row security", "a login that cannot bypass it"] },
    },
    {
      name: "disable row security in the statement",
      sql: (t) =>
        `SELECT p.id FROM (SELECT set_config('row_security', 'off', true) OFFSET 0) s, ${t.products} p WHERE ${theirs}`,
      walls: rows,
    },
    {
      name: "drop the context and read",
      sql: (t) => `WITH s AS MATERIALIZED (SELECT set_config('tollgate.context', '', true) AS c)
        SELECT p.id FROM s, ${t.products} p WHERE s.c = '' AND ${theirs}`,
      walls: rows,
    },
    {
      name: "reset every setting and read",
      sql: (t) => ["RESET ALL", readTheirs(t.products)],
      walls: rows,
    },
    {
      name: "discard everything and read",
      sql: (t) => ["DISCARD PLANS", "DISCARD TEMP", readTheirs(t.products)],
      walls: rows,
    },
    {
      name: "put the other tenant's schema first in search_path",
      sql: (t) => [`SET search_path = ${t.victimSchema}, pg_catalog`, `SELECT id FROM products WHERE ${theirs}`],
      walls: rows,
      refusals: ["42P01"],
    },
    {
      name: "put it first in search_path in a data statement",
      sql: (t) => [
        `SELECT set_config('search_path', '${t.victimSchema}', true)`,
        `SELECT id FROM products WHERE ${theirs}`,
      ],
      walls: rows,
      refusals: ["42P01"],
    },
    {
      name: "read as a replica",
      sql: (t) => [
        "SET LOCAL default_transaction_read_only = on",
        `SELECT v.id FROM products m, ${t.products} v WHERE v.tenant_id <> m.tenant_id`,
      ],
      walls: rowsBesideOwn,
    },
    does("disable triggers", superuser, "SET session_replication_role = replica"),
    does(
      "disable triggers in a data statement",
      superuser,
      "SELECT set_config('session_replication_role', 'replica', false)",
    ),
    does(
      "disable triggers with an UPDATE of pg_settings",
      superuser,
      "UPDATE pg_settings SET setting = 'replica' WHERE name = 'session_replication_role'",
    ),
    does("allow changes of system tables", superuser, "SET allow_system_table_mods = on"),
    does("disable the server's log", superuser, "SELECT set_config('log_min_messages', 'panic', false)"),
    does("remove the limit of temporary files", superuser, "SET temp_file_limit = -1"),
    does("load a library in every session", superuser, "SET session_preload_libraries = 'auto_explain'"),
    does("disable the rights on large objects", superuser, "SET lo_compat_privileges = on"),
    does("make itself a superuser", superuser, (t) => `ALTER ROLE ${t.login} SUPERUSER`),
    does("make itself exempt from row security", superuser, (t) => `ALTER ROLE ${t.login} BYPASSRLS`),
    does("allow itself to create roles", superuser, (t) => `ALTER ROLE ${t.login} CREATEROLE`),
    does("give itself more connections", superuser, (t) => `ALTER ROLE ${t.login} CONNECTION LIMIT 1000`),
    does("change another role's password", superuser, (t) => `ALTER ROLE ${t.otherRole} PASSWORD 'mine'`),
    does("change another role's settings", superuser, (t) => `ALTER ROLE ${t.otherRole} SET search_path = ''`),
    does("change the settings of all roles", superuser, "ALTER ROLE ALL SET statement_timeout = 1"),
    does(
      "store another tenant's context as a setting of the login",
      superuser,
      (t) => `ALTER ROLE ${t.login} SET tollgate.context = 'globex'`,
    ),
    does("take the analytics role", ["no analytics role"], (t) => `SET ROLE ${t.analytics}`),
    does(
      "read as the analytics role",
      {
        shared: ["no analytics role"],
        schema: ["no analytics role"],
        database: "the role reads the attacker's database only",
      },
      (t) => [`SET LOCAL ROLE ${t.analytics}`, readTheirs(t.products)],
      { crossed: (found) => found.length > 0 },
    ),
    does(
      "change the analytics role's password",
      ["the owner's functions revoked", "no superuser"],
      "SELECT tollgate.set_analytics_password('mine')",
    ),
    does("join another role", superuser, (t) => `GRANT ${t.otherRole} TO ${t.login} WITH SET TRUE`),
    does("join a role of the host", superuser, (t) => `GRANT pg_read_all_data TO ${t.login}`),
    does("grant its own role to the other role", superuser, (t) => `GRANT ${t.login} TO ${t.otherRole}`, {
      // PostgreSQL itself refuses circular memberships.
      walls: {
        shared: "the login is a member of the group, so the grant would be circular",
        schema: superuser,
        database: superuser,
      },
    }),
    does("create a role", ["no right to create roles"], "CREATE ROLE made_by_tenant"),
    does(
      "create a login",
      ["no right to create roles", "no superuser"],
      "CREATE ROLE made_by_tenant LOGIN PASSWORD 'mine'",
    ),
    does("rename another role", superuser, (t) => `ALTER ROLE ${t.otherRole} RENAME TO renamed`),
    does("take over the objects of another role", superuser, (t) => `REASSIGN OWNED BY tollgate_owner TO ${t.login}`),
    does("drop the objects of another role", superuser, "DROP OWNED BY tollgate_owner CASCADE"),
  ],
};
