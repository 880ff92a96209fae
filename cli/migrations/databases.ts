// The checks of `npm run migrate` before it changes anything: which databases there are, which files each of them lacks,
// and whether a new file would lock out or break the running program.
import type { Client } from "pg";
import * as z from "zod";
import { Shard, shardJson } from "../../src/control/placements-store.ts";
import { ownerUrl } from "../../src/tenant-db/dispatch.ts";
import { describeFindings, lintMigration, tablesMadeBy } from "./lint.ts";
import type { Tables } from "./lint-tree.ts";
import { type Migration, filesOf, migrationId } from "../../src/tenant-db/branch.ts";
import { type Series, branchMigrations, connected, readMigrations, sharedMigrations } from "./apply.ts";

export interface Database {
  /** Its name in messages. */
  title: string;
  /** The owner's login. */
  url: string;
  /** Its migrations. */
  series: readonly Series[];
}

/** The files that a database has not seen, in the order in which they apply. */
export async function pendingIn({ title, url, series }: Database): Promise<Migration[]> {
  try {
    return await connected(url, async (client) => {
      const seen = (await exists(client, "schema_migrations"))
        ? (await client.query<{ series: string; name: string }>("SELECT series, name FROM public.schema_migrations"))
            .rows
        : [];
      const applied = new Set(seen.map(migrationId));
      return readMigrations(series).filter((file) => !applied.has(migrationId(file)));
    });
  } catch (error) {
    throw new Error(`${title} cannot be read: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
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
