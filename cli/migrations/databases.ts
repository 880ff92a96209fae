// What `npm run migrate` finds out before it changes anything: which databases there are, which files each of them lacks,
// and whether a file that none has seen would lock out or break the program in use.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "pg";
import * as z from "zod";
import { Shard, shardJson } from "../../src/control/placements-store.ts";
import { ownerUrl } from "../../src/tenant-db/dispatch.ts";
import { describeFindings, lintMigration, tablesMadeBy } from "./lint.ts";
import type { Tables } from "./lint-tree.ts";
import { branchMigrations, connected, sharedMigrations } from "./apply.ts";

export interface Database {
  /** As it is printed. */
  title: string;
  /** The owner's login. */
  url: string;
  /** Holds its files. */
  directory: string;
}

/** The names of a folder's migrations, in their order. */
export function migrationsIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => /^\d{4}_\w+\.sql$/.test(name))
    .toSorted();
}

/** The files that a database has not seen. */
export async function pendingIn({ title, url, directory }: Database): Promise<string[]> {
  try {
    return await connected(url, async (client) => {
      const seen = (await exists(client, "schema_migrations"))
        ? (await client.query<{ name: string }>("SELECT name FROM public.schema_migrations")).rows
        : [];
      return migrationsIn(directory).filter((file) => !seen.some(({ name }) => name === file));
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
      throw new Error("Set ENCRYPTION_KEYS, which open the logins of the shards.");
    const shards = z.array(Shard).parse(rows.map(({ shard }) => shard));
    return Promise.all(
      shards.map(async (shard) => {
        const url = new URL(await ownerUrl({ ENCRYPTION_KEYS: encryptionKeys }, shard));
        // What is kept of an address does not say that a host on the net wants TLS.
        if (!/^(localhost|127\.|\[::1\])/.test(url.hostname)) url.searchParams.set("sslmode", "verify-full");
        const directory = shard.strategy === "shared" ? sharedMigrations : branchMigrations;
        return { id: shard.id, title: `${shard.strategy} shard ${shard.id}`, url: url.href, directory };
      }),
    );
  });
}

/** How many tenants have a schema of their own, and the newest version that one of them has; empty for none. */
export function fleetOfSchemas(controlUrl: string): Promise<{ schemas: number; newest: string }> {
  return connected(controlUrl, async (client) => {
    if (!(await exists(client, "placements"))) return { schemas: 0, newest: "" };
    const { rows } = await client.query<{ schemas: number; newest: string | null }>(
      `SELECT count(*)::int AS schemas, max(p.schema_version COLLATE "C") AS newest
       FROM placements p JOIN shards s ON s.id = p.shard_id WHERE p.state = 'ready' AND s.strategy <> 'shared'`,
    );
    return { schemas: rows[0]?.schemas ?? 0, newest: rows[0]?.newest ?? "" };
  });
}

/**
 * Throws, with the safe way named, when one of these files would lock out or break the program in use. They are those of
 * a folder that no database has seen: what has run somewhere is never edited.
 */
export async function refuseUnsafe(directory: string, tables: Tables, names: readonly string[]): Promise<void> {
  const tablesMadeBefore: string[] = [];
  for (const name of names) {
    const text = readFileSync(join(directory, name), "utf8");
    const findings = await lintMigration({ name, text, tables, tablesMadeBefore });
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
