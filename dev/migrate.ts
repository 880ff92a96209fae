// Brings databases to the state that the program expects: numbered SQL files applied in order, once each, by the
// database's owner; then what SQL files must not contain: passwords, context keys, the canaries' rows. Everything can be
// repeated and can run twice at the same time. `npm run migrate` does it for the databases that the environment or
// .dev.vars names. `bootstrapCluster` stands in for a host's console and is for a cluster of one's own alone.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { Client, escapeIdentifier, escapeLiteral } from "pg";
import { CANARY_PRODUCT, canaryTenants } from "../src/adapters/isolation.ts";
import { type ContextKeys, parseContextKeys, signContext } from "../src/core/context.ts";

const migrations = join(import.meta.dirname, "..", "migrations");
export const controlMigrations = join(migrations, "control");
export const sharedMigrations = join(migrations, "shared");

/** An arbitrary key: one migration at a time in a database. Advisory locks are per database. */
const MIGRATION_LOCK = 7_402_118;

export interface Login {
  name: string;
  password: string;
}

async function connected<Result>(url: string, work: (client: Client) => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function inTransaction(client: Client, work: () => Promise<void>): Promise<void> {
  await client.query("BEGIN");
  try {
    await work();
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined); // the first error is the one that explains
    throw error;
  }
}

/** Whoever else does the same to this database waits; the lock ends with the connection. */
async function alone(client: Client): Promise<void> {
  await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
}

export interface MigrateOptions {
  /** The owner's login. */
  url: string;
  /** Holds the files, `0001_name.sql` and so on. */
  directory: string;
  log?: (line: string) => void;
}

/**
 * Applies the files of `directory` that the database has not seen, each in a transaction of its own, and returns their
 * names. Refuses when the database has seen a file that is missing here or reads differently now, or a later one than a
 * file it has not seen: migrations only go forward.
 */
export async function migrate({ url, directory, log = () => undefined }: MigrateOptions): Promise<string[]> {
  const files = readdirSync(directory)
    .filter((name) => /^\d{4}_\w+\.sql$/.test(name))
    .toSorted()
    .map((name) => {
      const text = readFileSync(join(directory, name), "utf8");
      return { name, text, sha256: createHash("sha256").update(text).digest("hex") };
    });

  return connected(url, async (client) => {
    await alone(client);
    await client.query(
      `CREATE TABLE IF NOT EXISTS public.schema_migrations
         (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
    const { rows } = await client.query<{ name: string; sha256: string }>(
      "SELECT name, sha256 FROM public.schema_migrations ORDER BY name",
    );
    for (const [index, seen] of rows.entries()) {
      const file = files[index];
      if (file?.name !== seen.name) {
        const here = file === undefined ? "no such file" : `${file.name} in its place`;
        throw new Error(
          `The database has applied ${seen.name}, but ${directory} has ${here}: migrations only go forward.`,
        );
      }
      if (file.sha256 !== seen.sha256) {
        throw new Error(`${seen.name} has changed since it was applied: undo the change and write a new migration.`);
      }
    }
    const pending = files.slice(rows.length);
    for (const { name, text, sha256 } of pending) {
      const startedAtMs = performance.now();
      await inTransaction(client, async () => {
        await client.query(text);
        await client.query("INSERT INTO public.schema_migrations (name, sha256) VALUES ($1, $2)", [name, sha256]);
      });
      log(`${name} (${Math.round(performance.now() - startedAtMs)} ms)`);
    }
    return pending.map(({ name }) => name);
  });
}

/** Plain text, because Neon accepts no other: it keeps a verifier of its own. */
async function setPassword(client: Client, { name, password }: Login): Promise<void> {
  await client.query(`ALTER ROLE ${escapeIdentifier(name)} PASSWORD ${escapeLiteral(password)}`);
}

export interface SharedOptions {
  ownerUrl: string;
  /** `tollgate_app_a`, `tollgate_app_b`, or the one whose password changes. */
  logins: readonly Login[];
  /** All that are to be accepted from now on; every other one is retired. */
  contextKeys: ContextKeys;
}

/** Gives a migrated shard its passwords, its context keys and the canaries' rows, which the proof of isolation needs. */
export async function prepareShared({ ownerUrl, logins, contextKeys }: SharedOptions): Promise<void> {
  await connected(ownerUrl, async (client) => {
    await alone(client);
    for (const login of logins) await setPassword(client, login);
    await inTransaction(client, async () => {
      for (const { id, secret } of contextKeys)
        await client.query("SELECT tollgate.install_context_key($1, $2)", [id, secret]);
      await client.query("SELECT tollgate.retire_context_key(id) FROM tollgate.context_keys WHERE id <> ALL ($1)", [
        contextKeys.map(({ id }) => id),
      ]);
    });
    const { rows } = await client.query<{ database: string }>("SELECT current_database() AS database");
    const database = rows[0]?.database ?? "";
    const [{ id: keyId, secret }] = contextKeys;
    for (const tenantId of canaryTenants) {
      // Row security is forced on the owner, too: the canary's row enters as everybody's does.
      const context = await signContext({ keyId, secret, tenantId, database, expiresAtMs: Date.now() + 60_000 });
      await inTransaction(client, async () => {
        await client.query("SELECT set_config('tollgate.context', $1, true)", [context]);
        await client.query(
          "INSERT INTO public.products (tenant_id, id, name, price_cents) VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING",
          [tenantId, CANARY_PRODUCT, `proves that ${tenantId} sees its own rows alone`],
        );
      });
    }
  });
}

/** Gives a migrated control database its login's password. */
export async function prepareControl({ ownerUrl, login }: { ownerUrl: string; login: Login }): Promise<void> {
  await connected(ownerUrl, async (client) => {
    await alone(client);
    await setPassword(client, login);
  });
}

export const OWNER = "tollgate_owner";

export interface ClusterOptions {
  superuserUrl: string;
  ownerPassword: string;
  /** `shared`: tenants' statements will run in it, so what only a superuser can close is closed there. */
  databases?: readonly { name: string; shared: boolean }[];
}

/** The two databases of a local cluster. */
export const controlDatabase = "tollgate_control";
export const sharedDatabase = "tollgate_shared_1";
const localDatabases = [
  { name: controlDatabase, shared: false },
  { name: sharedDatabase, shared: true },
] as const;

/** What a host's console does: the owner's role, and databases that belong to it. For a cluster of one's own. */
export async function bootstrapCluster(options: ClusterOptions): Promise<void> {
  const { superuserUrl, ownerPassword, databases = localDatabases } = options;
  await connected(superuserUrl, async (client) => {
    await alone(client);
    const owner = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [OWNER]);
    if (owner.rowCount === 0) await client.query(`CREATE ROLE ${OWNER} LOGIN CREATEROLE`);
    await setPassword(client, { name: OWNER, password: ownerPassword });
    for (const { name } of databases) {
      const database = await client.query("SELECT FROM pg_database WHERE datname = $1", [name]);
      if (database.rowCount === 0) await client.query(`CREATE DATABASE ${escapeIdentifier(name)} OWNER ${OWNER}`);
    }
    await client.query("REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC");
  });
  for (const { name, shared } of databases) if (shared) await closeHostFunctions({ superuserUrl, database: name });
}

export interface LocalDatabases {
  superuserUrl: string;
  ownerPassword: string;
  servicePassword: string;
  appPassword: string;
  contextKeys: ContextKeys;
}

/**
 * Makes a local cluster what two Neon databases would be: owner, databases, migrations, logins, context keys. Returns
 * the connection strings. Safe to run again.
 */
export async function prepareDatabases(options: LocalDatabases) {
  const { superuserUrl, ownerPassword, servicePassword, appPassword, contextKeys } = options;
  const { host } = new URL(superuserUrl);
  const login = (user: string, password: string, database: string): string =>
    `postgresql://${user}:${password}@${host}/${database}`;
  const controlUrl = login(OWNER, ownerPassword, controlDatabase);
  const sharedOwnerUrl = login(OWNER, ownerPassword, sharedDatabase);
  const service: Login = { name: "tollgate_service", password: servicePassword };
  const app: Login = { name: "tollgate_app_a", password: appPassword };

  await bootstrapCluster({ superuserUrl, ownerPassword });
  await migrate({ url: controlUrl, directory: controlMigrations });
  await migrate({ url: sharedOwnerUrl, directory: sharedMigrations });
  await prepareControl({ ownerUrl: controlUrl, login: service });
  await prepareShared({ ownerUrl: sharedOwnerUrl, logins: [app], contextKeys });
  return {
    controlUrl,
    sharedOwnerUrl,
    serviceUrl: login(service.name, service.password, controlDatabase),
    appUrl: login(app.name, app.password, sharedDatabase),
  };
}

/** Only the host's superuser can do this, so a hosted database may have to live without: see the file's own comment. */
export async function closeHostFunctions({
  superuserUrl,
  database,
}: {
  superuserUrl: string;
  database: string;
}): Promise<void> {
  const url = new URL(superuserUrl);
  url.pathname = `/${database}`;
  const text = readFileSync(join(sharedMigrations, "0004_host_functions.sql"), "utf8");
  await connected(url.href, (client) => inTransaction(client, async () => void (await client.query(text))));
}

/** The login inside a connection string. */
function loginOf(url: string): Login {
  const { username, password } = new URL(url);
  return { name: decodeURIComponent(username), password: decodeURIComponent(password) };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<void> {
  const file = existsSync(".dev.vars") ? parseEnv(readFileSync(".dev.vars", "utf8")) : {};
  const variable = (name: string) => process.env[name] ?? file[name] ?? "";
  const [controlOwner, sharedOwner] = [variable("CONTROL_OWNER_URL"), variable("SHARED_OWNER_URL")];
  if (controlOwner === "" && sharedOwner === "") {
    throw new Error("Nothing to migrate: set CONTROL_OWNER_URL, SHARED_OWNER_URL or both, here or in .dev.vars.");
  }
  if (controlOwner !== "") {
    print("control database");
    await migrate({ url: controlOwner, directory: controlMigrations, log: print });
    const service = variable("CONTROL_DATABASE_URL");
    if (service !== "") await prepareControl({ ownerUrl: controlOwner, login: loginOf(service) });
  }
  if (sharedOwner !== "") {
    print("shared database");
    await migrate({ url: sharedOwner, directory: sharedMigrations, log: print });
    const app = variable("SHARED_DATABASE_URL");
    await prepareShared({
      ownerUrl: sharedOwner,
      logins: app === "" ? [] : [loginOf(app)],
      contextKeys: parseContextKeys(variable("CONTEXT_KEYS")),
    });
  }
  print("done");
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
