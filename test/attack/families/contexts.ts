// Impersonation: forged contexts and calls of the entry functions, and the settings that decide a statement's tenant.
import { createHash } from "node:crypto";
import type { Strategy } from "../../../src/core/plans/plans.ts";
import { aContext, globex } from "../../support/shard.ts";
import { type Attack, done, type Fall, type Family } from "../attack.ts";
import { onlyOwn, onlyShared, rows, theirs, writesAtHome } from "./falls.ts";

const database = "attack_shared";
const keyOf = (id: string, secret: string) => ({ id, secret: secret.padEnd(32, ".") });
const ofGlobex = (overrides: Parameters<typeof aContext>[0] = {}) =>
  aContext({ tenantId: globex, database, ...overrides });

/** A context of the victim with one changed character. A negative position counts from the end. */
async function flipped(at: number): Promise<string> {
  const context = await ofGlobex();
  const position = at < 0 ? context.length + at : at;
  return context.slice(0, position) + (context[position] === "0" ? "1" : "0") + context.slice(position + 1);
}

/** An unknown key is computed with pads of zeroes, so that it takes equally long. */
async function signedWithZeroes(): Promise<string> {
  const sha256 = (...parts: (string | Buffer)[]) =>
    createHash("sha256")
      .update(Buffer.concat(parts.map((part) => Buffer.from(part))))
      .digest();
  const body = (await ofGlobex({ key: keyOf("k3", "any") })).slice(0, -65);
  const pad = Buffer.alloc(64);
  return `${body}.${sha256(pad, sha256(pad, body)).toString("hex")}`;
}

const knownByLogin = "the login identifies the tenant, so there is no context to forge";
const forged = async (
  name: string,
  context: Promise<string>,
  wall: Extract<Attack["walls"], readonly unknown[]>,
): Promise<Attack> => {
  const text = await context;
  return {
    name,
    sql: (t) => [`SELECT tollgate.enter('${text}', 5000)`, `SELECT id FROM ${t.products} WHERE ${theirs}`],
    walls: onlyShared(wall, knownByLogin),
  };
};

const openGate = "SELECT tollgate.set_gate('globex', NULL, 0)";
const takesContext = "the argument is a signed context";
const entered = (
  name: string,
  steps: (victimSchema: string, own: string) => readonly string[],
  walls: Pick<Record<Strategy, readonly Fall[]>, "schema" | "database"> = rows,
): Attack => ({
  name,
  sql: (t) => [...steps(t.victimSchema, t.schema), `SELECT id FROM products WHERE ${theirs}`],
  // PostgreSQL skips a schema of the search path that does not exist or that the login may not use.
  refusals: ["42P01"],
  walls: { shared: takesContext, schema: walls.schema, database: walls.database },
});
const enter = (schema: string, timeoutMs = 5000): string => `SELECT tollgate.enter('${schema}', ${timeoutMs})`;
const quoted = "the function quotes the schema's name";

export const contextFamily: Family = {
  name: "contexts",
  attacks: [
    ...(await Promise.all([
      forged("a context with another last character of the MAC", flipped(-1), ["the context's MAC"]),
      forged("a context with another first character of the MAC", flipped(-64), ["the context's MAC"]),
      forged("a context with a later expiry", flipped(-66), ["the context's MAC"]),
      forged(
        "a context that was signed for the attacker",
        aContext({ database }).then((context) => context.replace(".acme.", ".globex.")),
        ["the context's MAC"],
      ),
      forged("a context signed with another secret", ofGlobex({ key: keyOf("k1", "guessed") }), ["the context's MAC"]),
      forged("a context of a key that is not installed", ofGlobex({ key: keyOf("k2", "own") }), [
        "the context's MAC and key",
      ]),
      forged("a context signed with the pads of an unknown key", signedWithZeroes(), ["an installed key"]),
      forged("a context of another database", ofGlobex({ database: "attack_other" }), ["the context's database"]),
      forged("a context that has expired", ofGlobex({ lifeMs: -2_000 }), ["the context's expiry"]),
      forged("a context with an expiry too far ahead", ofGlobex({ lifeMs: 700_000 }), [
        "the longest life of a context",
      ]),
    ])),
    {
      name: "a context set with set_config",
      sql: (t) => [
        "SELECT set_config('tollgate.context', 'globex', true)",
        `SELECT id FROM ${t.products} WHERE ${theirs}`,
      ],
      walls: rows,
    },
    {
      name: "a read without tollgate.enter",
      sql: (t) => `SELECT id FROM ${t.products} WHERE ${theirs}`,
      outside: true,
      walls: rows,
    },
    {
      name: "a change without tollgate.enter",
      sql: (t) => `UPDATE ${t.products} SET stock = 1 WHERE ${theirs} RETURNING id`,
      outside: true,
      refusals: ["23514"],
      walls: writesAtHome,
    },
    {
      name: "an insert without tollgate.enter",
      sql: (t) =>
        `INSERT INTO ${t.products} (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING id`,
      outside: true,
      refusals: ["23514"],
      walls: writesAtHome,
    },
    {
      name: "a transaction that ends right after tollgate.enter",
      sql: (t) => [`SAVEPOINT s`, `SELECT tollgate.enter('', 5000)`, `SELECT id FROM ${t.products} WHERE ${theirs}`],
      walls: rows,
    },
    {
      name: "tollgate.enter without a tenant",
      sql: (t) => [`SELECT tollgate.enter(NULL, 5000)`, `SELECT id FROM ${t.products} WHERE ${theirs}`],
      walls: onlyShared(rows.shared, "PostgreSQL itself refuses to quote a NULL"),
    },
    {
      name: "tollgate.enter that is rolled back",
      sql: (t) => [
        "SAVEPOINT s",
        "SET LOCAL tollgate.context = ''",
        "ROLLBACK TO s",
        `SELECT id FROM ${t.products} WHERE ${theirs}`,
      ],
      walls: rows,
    },
    entered("the victim's schema by name", (victim) => [enter(victim)]),
    entered("the victim's schema without a timeout", (victim) => [enter(victim, 0)]),
    entered("the victim's schema after one's own", (victim, own) => [enter(own), enter(victim)]),
    entered("the victim's schema, and back to before", (victim, own) => [
      enter(victim),
      "SAVEPOINT s",
      enter(own),
      "ROLLBACK TO s",
    ]),
    entered("a schema name that contains two names", (victim, own) => [enter(`${victim}, ${own}`)], {
      schema: [["rights on its own schema only", quoted]],
      database: [["no link to another database", quoted]],
    }),
    {
      name: "the product's own schema",
      sql: (t) => [enter("tollgate"), `SELECT * FROM ${t.secrets.replace("tollgate.", "")}`],
      refusals: ["42P01"],
      walls: onlyOwn(["the owner's tables revoked"], takesContext),
    },
    {
      name: "an own row with another tenant's id",
      sql: "INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING tenant_id",
      walls: {
        shared: rows.shared,
        schema: ["the check on its own tenant_id"],
        database: ["the check on its own tenant_id"],
      },
      refusals: ["23514"],
      undo: (t) => `DELETE FROM ${t.schema}.products WHERE id = 'planted'`,
    },
    {
      name: "a setting instead of the login",
      sql: () => ["SET LOCAL tollgate.context = 'globex'", "SELECT 1 WHERE tollgate.current_tenant() = 'globex'"],
      walls: {
        shared: "there the setting decides, and only a signed one",
        schema: ["the tenant of the login"],
        database: "the database knows of no other tenant",
      },
    },
    {
      name: "read the table of tenants or keys",
      sql: (t) => `SELECT * FROM ${t.secrets}`,
      walls: ["the owner's tables revoked", "no role of the host", "no superuser"],
    },
    {
      name: "count the rows of that table",
      sql: (t) => `SELECT 1 FROM ${t.secrets} HAVING count(*) > 0`,
      walls: ["the owner's tables revoked"],
    },
    {
      name: "change that table",
      sql: (t) =>
        t.tier === "shared"
          ? `UPDATE ${t.secrets} SET created_at = now() RETURNING id`
          : `UPDATE ${t.secrets} SET tenant_id = 'globex' RETURNING role`,
      walls: ["the owner's tables revoked"],
      undo: (t) =>
        t.tier === "shared"
          ? "SELECT"
          : `UPDATE tollgate.tenants SET tenant_id = 'acme' WHERE role = '${t.login}';
        UPDATE tollgate.tenants SET tenant_id = 'globex' WHERE role <> '${t.login}'`,
    },
    {
      name: "delete from that table",
      sql: (t) => `DELETE FROM ${t.secrets} WHERE false`,
      crossed: done,
      walls: ["the owner's tables revoked"],
    },
    {
      name: "call the owner's function that creates a tenant or a key",
      sql: (t) =>
        t.tier === "shared"
          ? "SELECT tollgate.install_context_key('own', repeat('x', 32))"
          : `SELECT tollgate.create_tenant('${t.login}', 'acme', '${t.login}')`,
      walls: ["the owner's functions revoked"],
      undo: (t) => (t.tier === "shared" ? "SELECT tollgate.retire_context_key('own')" : "SELECT"),
    },
    {
      name: "call the owner's function that drops a tenant or a key",
      sql: (t) =>
        t.tier === "shared"
          ? "SELECT tollgate.retire_context_key('none')"
          : "SELECT tollgate.drop_tenant('tenant_none')",
      walls: ["the owner's functions revoked"],
    },
    {
      name: "call the owner's function that sets a gate",
      sql: "SELECT tollgate.set_gate('globex', 'shut', 1)",
      crossed: done,
      walls: ["the owner's functions revoked"],
      undo: openGate,
    },
    {
      name: "write another tenant's gate",
      sql: "INSERT INTO tollgate.gates (tenant_id, state, token) VALUES ('globex', 'shut', 1) RETURNING tenant_id",
      walls: ["the change log revoked"],
      undo: openGate,
    },
    {
      name: "read the change log",
      sql: "SELECT before FROM tollgate.changes",
      walls: {
        shared: ["the change log revoked", "no role of the host"],
        schema: ["the change log revoked"],
        database: "the log there contains only the attacker's own changes",
      },
    },
    ...["staged", "undone"].map((table): Attack => ({
      name: `read all rows of tollgate.${table}`,
      sql: `SELECT count(cells) FROM (SELECT to_jsonb(x) AS cells FROM tollgate.${table} x) y`,
      walls: ["the change log revoked", "no role of the host"],
    })),
    {
      name: "stage rows for another tenant",
      sql: `INSERT INTO tollgate.staged (tenant_id, job, line, table_name, cells) VALUES ('globex', 1, 1, 'products', '[]') RETURNING line`,
      walls: ["the change log revoked"],
      undo: "DELETE FROM tollgate.staged WHERE tenant_id = 'globex'",
    },
    {
      name: "delete from the change log",
      sql: "DELETE FROM tollgate.changes RETURNING n",
      walls: {
        shared: ["the change log revoked"],
        schema: ["the change log revoked"],
        database: "the log there contains only the attacker's own changes",
      },
    },
    {
      name: "replace the function that names the tenant",
      sql: "CREATE OR REPLACE FUNCTION tollgate.current_tenant() RETURNS text LANGUAGE sql AS $f$ SELECT 'globex' $f$",
      crossed: done,
      walls: ["no ownership of the owner's functions", "no superuser"],
    },
    {
      name: "replace the function that opens a batch",
      sql: "ALTER FUNCTION tollgate.enter(text, integer) SET search_path = ''",
      crossed: done,
      walls: ["no ownership of the owner's functions", "no superuser"],
    },
  ],
};
