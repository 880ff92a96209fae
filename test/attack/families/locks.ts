// Locks, other connections, and time. Isolation of rows promises nothing about speed, but there is a bound: a statement ends
// at its timeout, and a tool's statements take no lock that another tenant waits for. The exceptions that PostgreSQL leaves
// are in ../open.test.ts.
import { type Attack, done, type Family, FILTER } from "../attack.ts";
import { ownership, rows, theirs, writes } from "./falls.ts";

const does = (name: string, walls: Attack["walls"], sql: Attack["sql"], more: Partial<Attack> = {}): Attack => ({
  name,
  sql,
  walls,
  crossed: done,
  ...more,
});
const host = ["no functions of the host"] as const;
/** A statement that takes about 50 ms and has a timeout of 5 ms. It is also too long on a machine that is much faster. */
const burns = (name: string, sql: string): Attack => ({
  name,
  sql,
  walls: ["the statement timeout"],
  refusals: ["57014"],
  timeoutMs: 5,
});
const others = {
  shared: host,
  // In these tiers PostgreSQL also protects another login's connections.
  schema: [["no functions of the host", "no other role's name"]],
  database: [["no functions of the host", "no other role's name"]],
} satisfies Attack["walls"];
const onSharedTables = (name: string, sql: string): Attack => ({
  name,
  sql,
  crossed: done,
  onlyThroughDb: true,
  walls: {
    shared: [FILTER],
    schema: "the tenant has its own tables",
    database: "the tenant has its own tables",
  },
});

export const lockFamily: Family = {
  name: "locks and denial",
  attacks: [
    does("locks on the victim's rows", rows, (t) => `SELECT id FROM ${t.products} WHERE ${theirs} FOR NO KEY UPDATE`, {
      crossed: (found) => found.length > 0,
    }),
    does(
      "locks on the victim's rows by a change",
      writes,
      (t) => `UPDATE ${t.products} SET stock = stock WHERE ${theirs} RETURNING id`,
      {
        crossed: (found) => found.length > 0,
        refusals: ["23514"],
      },
    ),
    does(
      "a lock on the victim's table",
      {
        shared: "the table is shared: see the locks of shared tables",
        schema: ["rights on its own schema only", "no other role's name"],
        database: [["no CONNECT on the other database", "rights on its own schema only"]],
      },
      (t) => `LOCK TABLE ${t.products} IN ACCESS EXCLUSIVE MODE`,
    ),
    onSharedTables("the table that all share held", "LOCK TABLE products IN ACCESS EXCLUSIVE MODE"),
    onSharedTables("the table that all share held from changes", "LOCK TABLE products IN SHARE MODE"),
    does("an advisory lock of the session", host, "SELECT pg_advisory_lock(1)"),
    does("an attempt at an advisory lock", host, "SELECT pg_try_advisory_lock(2)"),
    does("an advisory lock of the transaction", host, "SELECT pg_advisory_xact_lock(3)"),
    does(
      "the lock of another tenant's gate",
      host,
      "SELECT pg_advisory_xact_lock(hashtext('tollgate.gate'), hashtext('globex'))",
    ),
    does(
      "the lock of another tenant's migrations",
      host,
      "SELECT pg_advisory_xact_lock(hashtext('tollgate.migrate'), hashtext('tenant_2'))",
    ),
    does(
      "the end of another tenant's connection",
      others,
      (t) => `SELECT 1 WHERE pg_terminate_backend(${t.victimPid}, 2000)`,
      {
        crossed: (found) => found.length > 0,
        once: true,
      },
    ),
    does("the end of another tenant's statement", others, (t) => `SELECT 1 WHERE pg_cancel_backend(${t.victimPid})`, {
      crossed: (found) => found.length > 0,
    }),
    does("a message to all connections", host, "SELECT pg_notify('c', 'x')"),
    does("an exported snapshot", host, "SELECT pg_export_snapshot()"),
    does("sleep", host, "SELECT pg_sleep(0)"),
    does("sleep by an interval", host, "SELECT pg_sleep_for('0')"),
    does("sleep beyond the timeout", [["no functions of the host", "the statement timeout"]], "SELECT pg_sleep(0.05)", {
      refusals: ["57014"],
      timeoutMs: 5,
    }),
    burns("many generated rows", "SELECT count(*) FROM generate_series(1, 350000)"),
    burns("a cross join", "SELECT count(*) FROM generate_series(1, 800) a, generate_series(1, 800) b"),
    burns(
      "a recursion",
      "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 120000) SELECT max(n) FROM r",
    ),
    burns("a sort", "SELECT n FROM generate_series(1, 60000) n ORDER BY md5(n::text) LIMIT 1"),
    burns("groups", "SELECT count(*) FROM (SELECT n % 50000 FROM generate_series(1, 120000) n GROUP BY 1) x"),
    burns("a large factorial", "SELECT factorial(5000) > 0"),
    burns("a long text", "SELECT length(string_agg('x', '')) FROM generate_series(1, 250000)"),
    burns(
      "a pattern that backtracks",
      "SELECT count(*) FROM generate_series(1, 250) n WHERE repeat('a', 2000) || n ~ 'a.{200}b'",
    ),
    burns("a large JSON value", "SELECT length(jsonb_agg(n)::text) FROM generate_series(1, 80000) n"),
    does("a table rewritten", ownership, (t) => `CLUSTER ${t.products} USING products_by_name`),
    does("an index rebuilt", ownership, (t) => `REINDEX TABLE ${t.products}`),
    does("a checkpoint", ["no monitoring role"], "CHECKPOINT"),
    does(
      "the next file of the write-ahead log",
      ["no functions of the superuser", "no superuser"],
      "SELECT pg_switch_wal()",
    ),
    does(
      "a reload of the server's settings",
      ["no functions of the superuser", "no superuser"],
      "SELECT pg_reload_conf()",
    ),
    does("a reset of the statistics", ["no functions of the superuser", "no superuser"], "SELECT pg_stat_reset()"),
  ],
};
