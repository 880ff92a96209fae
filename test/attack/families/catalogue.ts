// The system catalogues and views: samples of rows, secrets, statements of other connections, names of tenants.
// Data that PostgreSQL shows to every login, and that contains no row and no name, is in ../open.test.ts.
import type { Attack, Family } from "../attack.ts";
import { rowsAtHome } from "./falls.ts";

const powers = ["no superuser"] as const;
const named = (name: string, sql: string): Attack => ({ name, sql, walls: ["no tenant's name in the catalogue"] });
const secret = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  ...more,
});
/** PostgreSQL shows samples of readable columns when no policy hides rows. */
const statistics = {
  ...rowsAtHome,
  shared: ["row security", "a login that cannot bypass it"],
} satisfies Attack["walls"];
const activity = {
  shared: ["no functions of the host"],
  // In these tiers PostgreSQL also hides another login's statements.
  schema: [["no functions of the host", "no monitoring role"]],
  database: [["no functions of the host", "no monitoring role"]],
} satisfies Attack["walls"];

export const catalogueFamily: Family = {
  name: "catalogue",
  attacks: [
    secret(
      "samples of a column",
      statistics,
      (t) =>
        `SELECT most_common_vals FROM pg_stats WHERE schemaname = '${t.victimSchema}' AND tablename = 'products' AND attname = 'tenant_id'`,
    ),
    secret(
      "bounds of a column",
      statistics,
      (t) =>
        `SELECT histogram_bounds FROM pg_stats WHERE schemaname = '${t.victimSchema}' AND tablename = 'products' AND attname = 'name'`,
    ),
    secret(
      "samples in pg_statistic",
      ["no superuser", "no role of the host"],
      "SELECT stavalues1 FROM pg_statistic LIMIT 1",
    ),
    secret(
      "samples of expressions",
      ["no superuser", "no role of the host"],
      "SELECT count(stxdexpr) FROM pg_statistic_ext_data",
    ),
    secret(
      "password verifiers",
      ["no superuser", "no role of the host"],
      "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL",
    ),
    secret(
      "password verifiers in pg_shadow",
      ["no superuser", "no role of the host"],
      "SELECT passwd FROM pg_shadow WHERE passwd IS NOT NULL",
    ),
    secret("rules for connections", powers, "SELECT * FROM pg_hba_file_rules"),
    secret("the server's configuration files", powers, "SELECT * FROM pg_file_settings"),
    secret(
      "the server's data folder",
      ["no monitoring role", "no superuser"],
      "SELECT current_setting('data_directory')",
    ),
    secret(
      "settings that only a superuser reads",
      ["no monitoring role"],
      "SELECT setting FROM pg_settings WHERE name = 'config_file'",
    ),
    secret(
      "other connections' statements",
      activity,
      (t) => `SELECT query FROM pg_stat_activity WHERE pid = ${t.victimPid} AND query LIKE '%mark' || 'er-%'`,
    ),
    secret(
      "other connections' statements by function",
      activity,
      (t) => `SELECT query FROM pg_stat_get_activity(${t.victimPid}) WHERE query LIKE '%mark' || 'er-%'`,
    ),
    secret(
      "passwords of subscriptions",
      ["no superuser", "no role of the host"],
      "SELECT count(subconninfo) FROM pg_subscription",
    ),
    secret(
      "contents of large objects",
      ["no superuser", "no role of the host"],
      "SELECT count(data) FROM pg_largeobject",
    ),
    secret("user mappings", ["no superuser", "no role of the host"], "SELECT count(umoptions) FROM pg_user_mapping"),
    secret(
      "the server's memory",
      ["no monitoring role", "no superuser"],
      "SELECT name FROM pg_shmem_allocations LIMIT 1",
    ),
    secret("the build of the server", ["no superuser"], "SELECT name FROM pg_config LIMIT 1"),
    secret(
      "samples of the table of tenants or keys",
      ["no superuser", "no role of the host"],
      (t) => `SELECT 1 FROM pg_statistic s WHERE s.starelid = '${t.secrets}'::regclass HAVING count(*) >= 0`,
    ),
    secret(
      "the victim's tables in information_schema",
      {
        shared: "every tenant may see the shared table",
        schema: ["rights on its own schema only"],
        database: ["no link to another database"],
      },
      (t) => `SELECT table_name FROM information_schema.tables WHERE table_schema = '${t.victimSchema}'`,
    ),
    secret(
      "the victim's columns in information_schema",
      {
        shared: "every tenant may see the shared table",
        schema: ["rights on its own schema only"],
        database: ["no link to another database"],
      },
      (t) => `SELECT column_name FROM information_schema.columns WHERE table_schema = '${t.victimSchema}'`,
    ),
    secret(
      "whether the login may read a table",
      {
        shared: "every tenant may read the shared table, and sees its own rows",
        schema: ["rights on its own schema only"],
        database: ["no link to another database"],
      },
      (
        t,
      ) => `SELECT 1 FROM pg_class c WHERE c.relname = 'products' AND c.relnamespace = '${t.victimSchema}'::regnamespace
        AND has_table_privilege(c.oid, 'SELECT')`,
    ),
    // Ids from 16384 on belong to objects that initdb did not create.
    named("names of schemas", "SELECT nspname FROM pg_namespace WHERE nspname ~* 'globex'"),
    named("names of roles", "SELECT rolname FROM pg_roles WHERE rolname ~* 'globex'"),
    named("settings of roles", "SELECT setconfig FROM pg_db_role_setting WHERE setconfig::text ~* 'globex'"),
    named("settings of roles in pg_roles", "SELECT rolconfig FROM pg_roles WHERE rolconfig::text ~* 'globex'"),
    named("comments on objects", "SELECT description FROM pg_description WHERE description ~* 'globex'"),
    named("comments on roles and databases", "SELECT description FROM pg_shdescription WHERE description ~* 'globex'"),
    named(
      "check constraints",
      "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= 16384 AND pg_get_constraintdef(oid) ~* $$'globex'$$",
    ),
    named(
      "defaults of columns",
      "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) ~* 'globex'",
    ),
    named(
      "conditions of indexes",
      "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid >= 16384 AND pg_get_indexdef(indexrelid) ~* $$'globex'$$",
    ),
    named(
      "policies",
      "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE pg_get_expr(polqual, polrelid) ~* 'globex'",
    ),
    named(
      "triggers",
      "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE oid >= 16384 AND pg_get_triggerdef(oid) ~* $$'globex'$$",
    ),
    named(
      "rules",
      "SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384 AND pg_get_ruledef(oid) ~* $$'globex'$$",
    ),
    named("sources of functions", "SELECT prosrc FROM pg_proc WHERE oid >= 16384 AND prosrc ~* 'globex'"),
    named("labels of types", "SELECT enumlabel FROM pg_enum WHERE enumlabel ~* 'globex'"),
    named(
      "expressions with statistics",
      "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE pg_get_statisticsobjdef(oid) ~* $$'globex'$$",
    ),
    named("names of publications", "SELECT pubname FROM pg_publication WHERE pubname ~* 'globex'"),
  ],
};
