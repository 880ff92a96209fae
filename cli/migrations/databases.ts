// The checks of `npm run migrate` before it changes anything: which databases there are, which files each of them lacks,
// and whether a new file would lock out or break the running program.
import type { Client } from "pg";
import * as z from "zod";
import { Shard, shardJson } from "../../src/control/placements-store.ts";
import { ownerUrl } from "../../src/tenant-db/dispatch.ts";
import { describeFindings, lintMigration, tablesMadeBy } from "./lint.ts";
import type { Tables } from "./lint-tree.ts";
import { ChangedFile, type Migration, changedFiles, filesOf, migrationId } from "../../src/tenant-db/branch.ts";
import {
  type AppliedFile,
  type Series,
  branchMigrations,
  connected,
  readMigrations,
  refuseChanged,
  sharedMigrations,
  withChecksum,
} from "./apply.ts";

export interface Database {
  /** Its name in messages. */
  title: string;
  /** The owner's login. */
  url: string;
  /** Its migrations. */
  series: readonly Series[];
}

/** The files that a database has applied, and those that it has not seen, in the order in which they apply. */
export async function filesIn({
  title,
  url,
  series,
}: Database): Promise<{ applied: AppliedFile[]; pending: Migration[] }> {
  try {
    return await connected(url, async (client) => {
      const applied = (await exists(client, "schema_migrations"))
        ? (await client.query<AppliedFile>("SELECT series, name, sha256 FROM public.schema_migrations")).rows
        : [];
      const seen = new Set(applied.map(migrationId));
      return { applied, pending: readMigrations(series).filter((file) => !seen.has(migrationId(file))) };
    });
  } catch (error) {
    throw new Error(`${title} cannot be read: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** Throws when a file that this database has applied is missing or has another text now. */
export function refuseChangedIn({ title, series }: Database, applied: readonly AppliedFile[]): void {
  try {
    refuseChanged(applied, readMigrations(series).map(withChecksum));
  } catch (error) {
    throw new Error(`${title}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/**
 * Files that a tenant's own schema has applied and that have another text now, with the number of such schemas in this
 * database. No run would notice them while no file is pending. `only`: looks at these tenants; `null`: at all.
 */
export async function changedInSchemas(
  { url, series }: Database,
  files: readonly Migration[],
  only: readonly string[] | null,
): Promise<ChangedFile[]> {
  if (series !== branchMigrations) return [];
  return connected(url, async (client) => {
    const { rows: made } = await client.query<{ made: boolean }>(
      "SELECT to_regprocedure('tollgate.changed_files(jsonb)') IS NOT NULL AS made",
    );
    if (made[0]?.made !== true) return []; // a database without its own migrations has no schemas
    const given = files
      .map(withChecksum)
      .map(({ series: name, name: file, sha256 }) => ({ series: name, name: file, sha256 }));
    const { rows } = await client.query(changedFiles, [JSON.stringify(given), only]);
    return rows.map((row) => ChangedFile.parse(row));
  });
}

/** The shards that the control tables know, as their owners. */
export function knownShards(controlUrl: string, encryptionKeys: string): Promise<(Database & { id: string })[]> {
  return connected(controlUrl, async (client) => {
    if (!(await exists(client, "shards"))) return [];
    const { rows } = await client.query<{ shard: unknown }>(
      `SELECT ${shardJson} AS shard FROM shards s WHERE s.host IS NOT NULL AND s.owner_login IS NOT NULL ORDER BY s.id`,
    );
    if (rows.length > 0 && encryptionKeys === "")
      throw new Error("Set ENCRYPTION_KEYS, which decrypt the logins of the shards.");
    const shards = z.array(Shard).parse(rows.map(({ shard }) => shard));
    return Promise.all(
      shards.map(async (shard) => {
        const url = new URL(await ownerUrl({ ENCRYPTION_KEYS: encryptionKeys }, shard));
        // The stored address has no parameters, and a remote host requires TLS.
        if (!/^(localhost|127\.|\[::1\])/.test(url.hostname)) url.searchParams.set("sslmode", "verify-full");
        const series = shard.strategy === "shared" ? sharedMigrations : branchMigrations;
        return { id: shard.id, title: `${shard.strategy} shard ${shard.id}`, url: url.href, series };
      }),
    );
  });
}

/**
 * Throws when Tollgate has created, or is creating, another database under the id that this one would be registered by. Its
 * tenants could not be reached any more.
 */
export function refuseTakenId(controlUrl: string, { id, url }: { id: string; url: string }): Promise<void> {
  return connected(controlUrl, async (client) => {
    if (!(await exists(client, "shards"))) return;
    const { rows } = await client.query<{ host: string | null; database: string | null }>(
      "SELECT host, database FROM shards WHERE id = $1 AND (neon_project_id IS NOT NULL OR host IS NULL AND accepts)",
      [id],
    );
    const [known] = rows;
    const { host, pathname } = new URL(url);
    const isSame =
      known?.database === decodeURIComponent(pathname.slice(1)) &&
      withoutPooler(known.host ?? "") === withoutPooler(host);
    if (known === undefined || isSame) return;
    throw new Error(`Tollgate has created a shard ${id} itself: choose another id with --shard. Nothing was done.`);
  });
}

/** Neon's host of a compute, also from the host of its pooler. */
function withoutPooler(host: string): string {
  return host.replace("-pooler.", ".");
}

/** The number of tenants with a schema of their own, and the ids of all files that at least one schema has. */
export function fleetOfSchemas(controlUrl: string): Promise<{ schemas: number; applied: Set<string> }> {
  return connected(controlUrl, async (client) => {
    if (!(await exists(client, "placements"))) return { schemas: 0, applied: new Set() };
    const { rows } = await client.query<{ version: string | null; schemas: number }>(
      `SELECT p.schema_version AS version, count(*)::int AS schemas
       FROM placements p JOIN shards s ON s.id = p.shard_id WHERE p.state = 'ready' AND s.strategy <> 'shared' GROUP BY 1`,
    );
    return {
      schemas: rows.reduce((sum, row) => sum + row.schemas, 0),
      applied: new Set(rows.flatMap(({ version }) => filesOf(version))),
    };
  });
}

/**
 * Throws when one of these files would lock out or break the running program. The error names the safe way. Pass only files
 * that no database has applied: an applied file cannot be edited.
 */
export async function refuseUnsafe(tables: Tables, files: readonly Migration[]): Promise<void> {
  const tablesMadeBefore: string[] = [];
  for (const { series, name, text } of files) {
    const findings = await lintMigration({ name, text, tables, tablesMadeBefore, isApp: series === "app" });
    if (findings.length > 0) throw new Error(`Nothing was done.\n\n${describeFindings(name, findings)}`);
    tablesMadeBefore.push(...(await tablesMadeBy({ text, tables })));
  }
}

async function exists(client: Client, table: string): Promise<boolean> {
  const { rows } = await client.query<{ oid: string | null }>("SELECT to_regclass($1)::text AS oid", [
    `public.${table}`,
  ]);
  return rows[0]?.oid !== null;
}
