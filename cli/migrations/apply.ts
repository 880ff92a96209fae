// Applies numbered SQL files to a database, in order and once each, as the database's owner. The control database, shared
// shards and databases with own schemas are made this way. A file is identified by its series and its name.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "pg";
import { MIGRATION_LOCK, type Migration, migrationId, migrationsTable } from "../../src/tenant-db/branch.ts";
import { changedFile } from "../../src/fleet/fleet.ts";
import { appFolder, migrationsIn } from "../generate.ts";

const migrations = join(import.meta.dirname, "..", "..", "migrations");

/** A folder of migrations and the series that records them. Series and name together identify a file. */
export interface Series {
  name: string;
  directory: string;
}

const productSeries: Series = { name: "product", directory: join(migrations, "tenant") };
/** The app's tables. */
export const appSeries: Series = seriesOfApp(appFolder());
/** The tables of tenants, the product's and the app's: in shared databases, and in every tenant's own schema. */
export const tenantMigrations: readonly Series[] = [productSeries, appSeries];
const commonSeries: Series = { name: "common", directory: join(migrations, "common") };
const sharedSeries: Series = { name: "shared", directory: join(migrations, "shared") };

/** Each kind of database, and its series in the order in which they apply. */
export const controlMigrations: readonly Series[] = [{ name: "control", directory: join(migrations, "control") }];
export const sharedMigrations: readonly Series[] = sharedMigrationsOf(appFolder());
export const branchMigrations: readonly Series[] = [
  commonSeries,
  { name: "branch", directory: join(migrations, "branch") },
];
/** The series of shared databases whose tenants use the app in this folder. */
export function sharedMigrationsOf(app: string): readonly Series[] {
  return [commonSeries, sharedSeries, productSeries, seriesOfApp(app)];
}

function seriesOfApp(app: string): Series {
  return { name: "app", directory: join(app, "migrations") };
}

/** Only a superuser can close the host's functions, so a local cluster's superuser runs this file too. */
export const hostFunctions = join(sharedSeries.directory, "0005_host_functions.sql");

/** The files of these series, in the order in which they apply. */
export function readMigrations(series: readonly Series[]): Migration[] {
  return series.flatMap(({ name: seriesName, directory }) =>
    migrationsIn(directory).map((name) => ({
      series: seriesName,
      name,
      text: readFileSync(join(directory, name), "utf8"),
    })),
  );
}

/** Statements queue behind a migration that waits for a table. So it fails after a short wait and can be run again. */
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

/** Takes the database's migration lock. It ends with the connection. */
export async function alone(client: Client): Promise<void> {
  await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
}

export interface MigrateOptions {
  /** The owner's login. */
  url: string;
  /** In the order in which they apply. */
  series: readonly Series[];
  log?: (line: string) => void;
}

/**
 * Applies the files that the database has not seen, each in a transaction of its own, and returns their names. A file with
 * a lower number that arrives later is applied too. Throws before any change when a file that the database has seen is
 * missing or has another text now.
 */
export async function migrate({ url, series, log = () => undefined }: MigrateOptions): Promise<string[]> {
  const files = readMigrations(series).map(withChecksum);

  return connected(url, async (client) => {
    await alone(client);
    await client.query(migrationsTable);
    const { rows } = await client.query<{ series: string; name: string; sha256: string }>(
      "SELECT series, name, sha256 FROM public.schema_migrations ORDER BY applied_at, series, name",
    );
    refuseChanged(rows, files);
    const applied = new Set(rows.map(migrationId));
    const pending = files.filter((file) => !applied.has(migrationId(file)));
    for (const { series: seriesName, name, text, sha256 } of pending) {
      const startedAtMs = performance.now();
      const record = () =>
        client.query("INSERT INTO public.schema_migrations (series, name, sha256) VALUES ($1, $2, $3)", [
          seriesName,
          name,
          sha256,
        ]);
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
      log(`${seriesName}/${name} (${Math.round(performance.now() - startedAtMs)} ms)`);
    }
    return pending.map(({ name }) => name);
  });
}

export type AppliedFile = Pick<Migration, "series" | "name"> & { sha256: string };

export function withChecksum(file: Migration): Migration & AppliedFile {
  return { ...file, sha256: createHash("sha256").update(file.text).digest("hex") };
}

/** Throws when a file that a database has applied is missing or has another text now. */
export function refuseChanged(applied: readonly AppliedFile[], files: readonly AppliedFile[]): void {
  for (const seen of applied) {
    const file = files.find((each) => migrationId(each) === migrationId(seen));
    if (file === undefined)
      throw new Error(
        `The database has applied ${migrationId(seen)}, and there is no such file: restore the file. ` +
          "A later migration can undo what it did.",
      );
    if (file.sha256 !== seen.sha256) throw new Error(changedFile(migrationId(seen)));
  }
}

/** Whether a file must run outside of a transaction: it makes an index while the program runs. */
async function runsAlone(text: string): Promise<boolean> {
  if (!/\bCONCURRENTLY\b/i.test(text)) return false;
  const { runsOutsideTransaction } = await import("./lint.ts"); // loads a parser, which most runs do not need
  return runsOutsideTransaction(text);
}

/** Drops the invalid index that an interrupted attempt left. PostgreSQL would maintain it and never use it. */
async function dropHalfMade(client: Client, text: string): Promise<void> {
  const [, name] = /\bCONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.]+)\s+ON\b/i.exec(text) ?? [];
  if (name === undefined) return;
  const { rowCount } = await client.query(
    "SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid",
    [name],
  );
  if (rowCount !== 0) await client.query(`DROP INDEX CONCURRENTLY ${name}`);
}
