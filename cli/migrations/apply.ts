// Applies numbered SQL files to a database, in order, once each, by the database's owner: what the control database, the
// shared shards and the databases of own schemas begin with.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "pg";
import { MIGRATION_LOCK } from "../../src/tenant-db/branch.ts";

const migrations = join(import.meta.dirname, "..", "..", "migrations");
export const controlMigrations = join(migrations, "control");
export const sharedMigrations = join(migrations, "shared");
export const branchMigrations = join(migrations, "branch");
export const tenantMigrations = join(migrations, "tenant");

/** Everybody who uses a table queues up behind a migration that waits for it: rather fail, and be run again. */
const LOCK_TIMEOUT_MS = 5_000;

/** Runs `work` on a connection of its own. */
export async function connected<Result>(url: string, work: (client: Client) => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Runs `work` in a transaction. */
export async function inTransaction(client: Client, work: () => Promise<void>): Promise<void> {
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
export async function alone(client: Client): Promise<void> {
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
      const record = () =>
        client.query("INSERT INTO public.schema_migrations (name, sha256) VALUES ($1, $2)", [name, sha256]);
      if (await runsAlone(text)) {
        await dropHalfMade(client, text);
        await client.query(text);
        await record();
      } else {
        await inTransaction(client, async () => {
          await client.query(`SET LOCAL lock_timeout = '${LOCK_TIMEOUT_MS}ms'`);
          await client.query(text);
          await record();
        });
      }
      log(`${name} (${Math.round(performance.now() - startedAtMs)} ms)`);
    }
    return pending.map(({ name }) => name);
  });
}

/** An index that is made beside the running program is made outside of any transaction, by a file of its own. */
async function runsAlone(text: string): Promise<boolean> {
  if (!/\bCONCURRENTLY\b/i.test(text)) return false;
  const { runsOutsideTransaction } = await import("./lint.ts"); // brings a parser along
  return runsOutsideTransaction(text);
}

/** An attempt that was cut off leaves an index which is kept up to date and never used. */
async function dropHalfMade(client: Client, text: string): Promise<void> {
  const [, name] = /\bCONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.]+)\s+ON\b/i.exec(text) ?? [];
  if (name === undefined) return;
  const { rowCount } = await client.query(
    "SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid",
    [name],
  );
  if (rowCount !== 0) await client.query(`DROP INDEX CONCURRENTLY ${name}`);
}
