// Impersonation: forged contexts and calls of the entry functions, and the settings that decide a statement's tenant.
import { createHash } from "node:crypto";
import type { Strategy } from "../../../src/core/plans.ts";
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

const knownByLogin = "a tenant is known by its login: there is no context to forge";
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
const quoted = "a schema's name taken as one";

export const contextFamily: Family = {
  name: "contexts",
  attacks: [
    ...(await Promise.all([
      forged("a context whose MAC ends otherwise", flipped(-1), ["the context's MAC"]),
      forged("a context whose MAC begins otherwise", flipped(-64), ["the context's MAC"]),
      forged("a context whose expiry was put off", flipped(-66), ["the context's MAC"]),
      forged(
        "a context that was signed for the attacker",
        aContext({ database }).then((context) => context.replace(".acme.", ".globex.")),
        ["the context's MAC"],
      ),
      forged("a context signed with another secret", ofGlobex({ key: keyOf("k1", "guessed") }), ["the context's MAC"]),
      forged("a context of a key nobody installed", ofGlobex({ key: keyOf("k2", "own") }), [
        "the context's MAC and key",
      ]),
      forged("a context signed as for an unknown key", signedWithZeroes(), ["an installed key"]),
      forged("a context of another database", ofGlobex({ database: "attack_other" }), ["the context's database"]),
      forged("a context that has expired", ofGlobex({ lifeMs: -2_000 }), ["the context's expiry"]),
      forged("a context that lives too long", ofGlobex({ lifeMs: 700_000 }), ["the longest life of a context"]),
    ])),
    {
      name: "a context by its setting",
      sql: (t) => [
        "SELECT set_config('tollgate.context', 'globex', true)",
        `SELECT id FROM ${t.products} WHERE ${theirs}`,
      ],
      walls: rows,
    },
    {
      name: "no entrance at all",
      sql: (t) => `SELECT id FROM ${t.products} WHERE ${theirs}`,
      outside: true,
      walls: rows,
    },
    {
      name: "no entrance, and a change",
      sql: (t) => `UPDATE ${t.products} SET stock = 1 WHERE ${theirs} RETURNING id`,
      outside: true,
      refusals: ["23514"],
      walls: writesAtHome,
    },
    {
      name: "no entrance, and a new row",
      sql: (t) =>
        `INSERT INTO ${t.products} (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING id`,
      outside: true,
      refusals: ["23514"],
      walls: writesAtHome,
    },
    {
      name: "an entrance that is left at once",
      sql: (t) => [`SAVEPOINT s`, `SELECT tollgate.enter('', 5000)`, `SELECT id FROM ${t.products} WHERE ${theirs}`],
      walls: rows,
    },
    {
      name: "an entrance without a name",
      sql: (t) => [`SELECT tollgate.enter(NULL, 5000)`, `SELECT id FROM ${t.products} WHERE ${theirs}`],
      walls: onlyShared(rows.shared, "PostgreSQL itself refuses to quote a NULL"),
    },
    {
      name: "an entrance that is taken back",
      sql: (t) => [
        "SAVEPOINT s",
        "SET LOCAL tollgate.context = ''",
        "ROLLBACK TO s",
        `SELECT id FROM ${t.products} WHERE ${theirs}`,
      ],
      walls: rows,
    },
    entered("the victim's schema by name", (victim) => [enter(victim)]),
    entered("the victim's schema for ever", (victim) => [enter(victim, 0)]),
    entered("the victim's schema after one's own", (victim, own) => [enter(own), enter(victim)]),
    entered("the victim's schema, and back to before", (victim, own) => [
      enter(victim),
      "SAVEPOINT s",
      enter(own),
      "ROLLBACK TO s",
    ]),
    entered("a schema's name that holds two", (victim, own) => [enter(`${victim}, ${own}`)], {
      schema: [["rights on its own schema alone", quoted]],
      database: [["no link to another database", quoted]],
    }),
    {
      name: "the product's own schema",
      sql: (t) => [enter("tollgate"), `SELECT * FROM ${t.secrets.replace("tollgate.", "")}`],
      refusals: ["42P01"],
      walls: onlyOwn(["what the owner knows withheld"], takesContext),
    },
    {
      name: "one's own row under another's name",
      sql: "INSERT INTO products (tenant_id, id, name, price_cents) VALUES ('globex', 'planted', '', 0) RETURNING tenant_id",
      walls: { shared: rows.shared, schema: ["its own rows name it"], database: ["its own rows name it"] },
      refusals: ["23514"],
      undo: (t) => `DELETE FROM ${t.schema}.products WHERE id = 'planted'`,
    },
    {
      name: "a setting in place of the login",
      sql: () => ["SET LOCAL tollgate.context = 'globex'", "SELECT 1 WHERE tollgate.current_tenant() = 'globex'"],
      walls: {
        shared: "there the setting decides, and only a signed one",
        schema: ["a tenant known by its login"],
        database: "the database knows of no other tenant",
      },
    },
    {
      name: "read what decides who is who",
      sql: (t) => `SELECT * FROM ${t.secrets}`,
      walls: ["what the owner knows withheld", "no role of the host", "no superuser"],
    },
    {
      name: "count what decides who is who",
      sql: (t) => `SELECT 1 FROM ${t.secrets} HAVING count(*) > 0`,
      walls: ["what the owner knows withheld"],
    },
    {
      name: "change what decides who is who",
      sql: (t) =>
        t.tier === "shared"
          ? `UPDATE ${t.secrets} SET created_at = now() RETURNING id`
          : `UPDATE ${t.secrets} SET tenant_id = 'globex' RETURNING role`,
      walls: ["what the owner knows withheld"],
      undo: (t) =>
        t.tier === "shared"
          ? "SELECT"
          : `UPDATE tollgate.tenants SET tenant_id = 'acme' WHERE role = '${t.login}';
        UPDATE tollgate.tenants SET tenant_id = 'globex' WHERE role <> '${t.login}'`,
    },
    {
      name: "remove what decides who is who",
      sql: (t) => `DELETE FROM ${t.secrets} WHERE false`,
      crossed: done,
      walls: ["what the owner knows withheld"],
    },
    {
      name: "have the owner make it another tenant",
      sql: (t) =>
        t.tier === "shared"
          ? "SELECT tollgate.install_context_key('own', repeat('x', 32))"
          : `SELECT tollgate.create_tenant('${t.login}', 'acme', '${t.login}')`,
      walls: ["the owner's functions withheld"],
      undo: (t) => (t.tier === "shared" ? "SELECT tollgate.retire_context_key('own')" : "SELECT"),
    },
    {
      name: "have the owner remove the other",
      sql: (t) =>
        t.tier === "shared"
          ? "SELECT tollgate.retire_context_key('none')"
          : "SELECT tollgate.drop_tenant('tenant_none')",
      walls: ["the owner's functions withheld"],
    },
    {
      name: "have the owner shut the other's gate",
      sql: "SELECT tollgate.set_gate('globex', 'shut', 1)",
      crossed: done,
      walls: ["the owner's functions withheld"],
      undo: openGate,
    },
    {
      name: "shut the other's gate by hand",
      sql: "INSERT INTO tollgate.gates (tenant_id, state, token) VALUES ('globex', 'shut', 1) RETURNING tenant_id",
      walls: ["the log of changes withheld"],
      undo: openGate,
    },
    {
      name: "read what everybody changed",
      sql: "SELECT before FROM tollgate.changes",
      walls: {
        shared: ["the log of changes withheld", "no role of the host"],
        schema: ["the log of changes withheld"],
        database: "the log there holds the attacker's own changes alone",
      },
    },
    ...["staged", "undone"].map((table): Attack => ({
      name: `read what is ${table} of everybody's rows`,
      sql: `SELECT count(cells) FROM (SELECT to_jsonb(x) AS cells FROM tollgate.${table} x) y`,
      walls: ["the log of changes withheld", "no role of the host"],
    })),
    {
      name: "lay rows ready for the other",
      sql: `INSERT INTO tollgate.staged (tenant_id, job, line, table_name, cells) VALUES ('globex', 1, 1, 'products', '[]') RETURNING line`,
      walls: ["the log of changes withheld"],
      undo: "DELETE FROM tollgate.staged WHERE tenant_id = 'globex'",
    },
    {
      name: "erase what everybody changed",
      sql: "DELETE FROM tollgate.changes RETURNING n",
      walls: {
        shared: ["the log of changes withheld"],
        schema: ["the log of changes withheld"],
        database: "the log there holds the attacker's own changes alone",
      },
    },
    {
      name: "say who is who",
      sql: "CREATE OR REPLACE FUNCTION tollgate.current_tenant() RETURNS text LANGUAGE sql AS $f$ SELECT 'globex' $f$",
      crossed: done,
      walls: ["the owner's tools not one's own", "no superuser"],
    },
    {
      name: "say how a batch is opened",
      sql: "ALTER FUNCTION tollgate.enter(text, integer) SET search_path = ''",
      crossed: done,
      walls: ["the owner's tools not one's own", "no superuser"],
    },
  ],
};
