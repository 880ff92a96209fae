// Runs a streaming replica of the local PostgreSQL: a hot standby, from the same binaries and by the same steps.
// Decides how a replica is copied from its primary, when a stored copy is still good, and when its slot on the primary is
// created and dropped. The binaries have no `pg_basebackup`, so the copy uses the low-level interface
// (https://www.postgresql.org/docs/18/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP).
// Invariants: a folder with a primary is never overwritten; the log that the primary keeps for an absent replica is bounded; a
// removed replica keeps nothing on its primary. Stop the replica before its primary, which otherwise waits for it.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { chown, mkdir, opendir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "pg";
import { buildCluster, connected, removePostgresData, serve, takePlace } from "./postgres.ts";
import type { ClusterPlace, RunningPostgres } from "./postgres.ts";

/** A usable replica connects within half a second, or a few seconds on a busy machine. Otherwise Tollgate makes a new one. */
const KEPT_STREAMS_WITHIN_MS = 10_000;
/** A new copy first replays the writes that happened during the copy. */
const COPY_STREAMS_WITHIN_MS = 60_000;
/** Enough to receive and replay everything that a slot keeps for an absent replica. */
const CATCH_UP_TIMEOUT_MS = 60_000;
/** A write reaches the replica within about 5 ms. */
const POLL_INTERVAL_MS = 5;

const SETTINGS: Record<string, string> = {
  // The default of 5 s would delay the replica after each restart of the primary.
  wal_retrieve_retry_interval: "100ms",
  // With fsync, the first start writes each file of the copy to the disk, which takes a minute for the databases of many
  // tenants on a busy disk. After a crash of the machine, remove the replica's folder: the next start copies it again.
  fsync: "off",
};

/** Folders that must exist. The server creates or fetches their contents. */
const emptyFolders = /^pg_(dynshmem|notify|replslot|serial|snapshots|stat_tmp|subtrans|wal)$/;
/** Files that belong to the running primary: its pid and its queries' temporary files. */
const leftOut = /^(postmaster\.(pid|opts)|pgsql_tmp.*)$/;

/** The required part of a primary. Queries to the server return the rest. */
export type Primary = Pick<RunningPostgres, "superuserUrl">;

export interface RunningReplica extends Omit<RunningPostgres, "firstStart"> {
  /**
   * Resolves once the replica shows everything that was committed on the primary before the call. Rejects when that takes
   * over a minute, or when one of the servers does not answer.
   */
  caughtUp(): Promise<void>;
  /** The bytes of write-ahead log that the replica has not replayed yet. */
  lagBytes(): Promise<number>;
}

/**
 * Starts a replica of `primary`, which must be running, on 127.0.0.1 with the copy at `dataDir`. Resolves once it streams.
 * Makes a new copy when there is none, and when the stored copy belongs to another primary, was promoted, or cannot stream
 * because the primary has deleted the log that it missed. Port 0 means any free port.
 */
export async function startReplica(options: {
  primary: Primary;
  dataDir: string;
  port: number;
  log?: (line: string) => void;
}): Promise<RunningReplica> {
  const { primary, log } = options;
  const place = await takeReplicaPlace(options.dataDir);
  if (await isKept(place, primary)) {
    try {
      return await startStreaming(place, { ...options, withinMs: KEPT_STREAMS_WITHIN_MS });
    } catch (error) {
      // A replica is a copy, so a new one loses nothing.
      log?.(`The stored replica cannot be used, so it is copied again: ${String(error)}`);
    }
  }
  await copyPrimary(place, primary);
  return await startStreaming(place, { ...options, withinMs: COPY_STREAMS_WITHIN_MS });
}

/**
 * Removes the replica at `dataDir` and its slot on `primary`. The replica must be stopped, the primary must run. Can be
 * repeated. When the primary no longer exists, use `removePostgresData`.
 */
export async function removeReplica({ primary, dataDir }: { primary: Primary; dataDir: string }): Promise<void> {
  const place = await takeReplicaPlace(dataDir);
  await connected(primary.superuserUrl, (client) => dropSlot(client, slotOf(place)));
  await removePostgresData(place.dataDir);
}

async function takeReplicaPlace(path: string): Promise<ClusterPlace> {
  const place = await takePlace(path);
  // A replica uses its primary's password, so a folder with a password belongs to a primary.
  if (!existsSync(join(place.dataDir, "password"))) return place;
  throw new Error(`${place.dataDir} contains a PostgreSQL that is not a replica. Choose another folder.`);
}

// ---- the copy

/** The name of a replica's slot on its primary. It depends on the folder only, so that an old slot is found again. */
function slotOf({ dataDir }: ClusterPlace): string {
  return `replica_${createHash("sha256").update(dataDir).digest("hex").slice(0, 16)}`;
}

async function dropSlot(client: Client, slot: string): Promise<void> {
  // A slot in use cannot be dropped, and its process detects late that a replica was killed.
  await client.query(
    "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active",
    [slot],
  );
  await client.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", [
    slot,
  ]);
}

/** Whether there is a complete copy of this primary, and the primary still has the log that the copy missed. */
async function isKept(place: ClusterPlace, primary: Primary): Promise<boolean> {
  return await connected(primary.superuserUrl, async (client) => {
    const { rows } = await client.query<{ identifier: string }>(
      `SELECT system_identifier::text AS identifier FROM pg_control_system(), pg_replication_slots
       WHERE slot_name = $1 AND wal_status <> 'lost'`,
      [slotOf(place)],
    );
    // Promotion removes the one file. The server's first start removes the other, after it has read it.
    const isStandby = existsSync(join(place.cluster, "standby.signal"));
    if (rows[0] === undefined || !isStandby || existsSync(join(place.cluster, "backup_label"))) return false;
    // The control file begins with it.
    const control = await readFile(join(place.cluster, "global", "pg_control")).catch(() => Buffer.alloc(8));
    return control.readBigInt64LE().toString() === rows[0].identifier;
  });
}

async function copyPrimary(place: ClusterPlace, primary: Primary): Promise<void> {
  const slot = slotOf(place);
  await connected(primary.superuserUrl, async (client) => {
    const { rows: found } = await client.query<{ folder: string; tablespaces: boolean }>(
      `SELECT current_setting('data_directory') AS folder,
              EXISTS (SELECT FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')) AS tablespaces`,
    );
    const [source] = found;
    if (source === undefined || source.tablespaces) {
      throw new Error(
        "A primary with tablespaces cannot have a replica on the same machine: both would write to the same files.",
      );
    }
    await dropSlot(client, slot);
    // From now on the primary keeps its log. The copy needs it from the start of the backup.
    await client.query("SELECT pg_create_physical_replication_slot($1, true)", [slot]);
    await rm(place.cluster, { recursive: true, force: true });
    await buildCluster(place, async (data) => {
      // The backup ends with this connection, also when the copy fails.
      await client.query("SELECT pg_backup_start($1, fast => true)", [slot]);
      await copyFolder(source.folder, data);
      const { rows } = await client.query<{ labelfile: string }>("SELECT labelfile FROM pg_backup_stop()");
      // Without the label the server would treat the copy as a crashed primary and recover from the wrong position.
      await writeFile(join(data, "backup_label"), rows[0]?.labelfile ?? "", { mode: 0o600 });
      await writeFile(join(data, "standby.signal"), "", { mode: 0o600 });
      const { user } = place;
      if (user === undefined) return;
      for (const name of await readdir(data, { recursive: true })) await chown(join(data, name), user.uid, user.gid);
    });
  });
}

/**
 * Copies files that the primary writes, truncates and removes meanwhile. The replay of the log repairs them. It copies one
 * file at a time with synchronous calls, which is much faster for thousands of small files. The largest file has 1 GB.
 * Node's `copyFile` would wait without end for the missing bytes of a truncated file.
 */
async function copyFolder(from: string, to: string): Promise<void> {
  for await (const entry of await opendir(from)) {
    if (leftOut.test(entry.name)) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) {
      await mkdir(target, { mode: 0o700 });
      if (!emptyFolders.test(entry.name)) await copyFolder(source, target);
    } else if (entry.isFile()) {
      try {
        writeFileSync(target, readFileSync(source), { mode: 0o600 });
      } catch (error) {
        // The primary dropped the table meanwhile.
        if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
      }
    }
  }
}

// ---- the server

async function startStreaming(
  place: ClusterPlace,
  options: { primary: Primary; port: number; withinMs: number; log?: (line: string) => void },
): Promise<RunningReplica> {
  const { superuserUrl: primaryUrl } = options.primary;
  await followPrimary(place, primaryUrl);
  const { port, log: passOn = () => undefined } = options;
  const { password } = new URL(primaryUrl);
  let lastWords = "it logged no error";
  const log = (line: string): void => {
    if (line.includes("FATAL")) lastWords = line;
    passOn(line);
  };
  const server = await serve(place, { port, password, settings: SETTINGS, log });
  const { superuserUrl } = server;
  const streams = await untilTrue(
    superuserUrl,
    "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS done",
    options.withinMs,
  ).catch(() => false);
  if (!streams) {
    await server.stop();
    throw new Error(`The replica in ${place.cluster} does not stream from its primary: ${lastWords}`);
  }

  return {
    ...server,

    async caughtUp() {
      const position = await flushedPosition(primaryUrl);
      const replayed = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done";
      if (!(await untilTrue(superuserUrl, replayed, CATCH_UP_TIMEOUT_MS, [position]))) {
        throw new Error(`The replica did not replay ${position} within ${CATCH_UP_TIMEOUT_MS} ms.`);
      }
    },

    async lagBytes() {
      const position = await flushedPosition(primaryUrl);
      return await connected(superuserUrl, async (client) => {
        const { rows } = await client.query<{ lag: string }>(
          "SELECT greatest(pg_wal_lsn_diff($1, pg_last_wal_replay_lsn()), 0) AS lag",
          [position],
        );
        return Number(rows[0]?.lag);
      });
    },
  };
}

/** Writes the primary's address, whose port may have changed. Keeps the settings of `ALTER SYSTEM`. */
async function followPrimary(place: ClusterPlace, primaryUrl: string): Promise<void> {
  const file = join(place.cluster, "postgresql.auto.conf");
  const slot = slotOf(place);
  const kept = (await readFile(file, "utf8")).split("\n").filter((line) => line !== "" && !line.startsWith("primary_"));
  const url = new URL(primaryUrl);
  url.searchParams.set("application_name", slot);
  const own = { primary_conninfo: url.href, primary_slot_name: slot };
  const lines = Object.entries(own).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
  // The file contains the password. It exists already, with access for the server's user only.
  await writeFile(file, [...kept, ...lines, ""].join("\n"));
}

/** The flushed position of the log. It includes every commit, and a replica receives nothing beyond it. */
async function flushedPosition(url: string): Promise<string> {
  return await connected(url, async (client) => {
    const { rows } = await client.query<{ position: string }>("SELECT pg_current_wal_flush_lsn() AS position");
    return rows[0]?.position ?? "";
  });
}

/** Repeats the query until `done` is true. Returns false after `timeoutMs`. */
async function untilTrue(url: string, text: string, timeoutMs: number, params: string[] = []): Promise<boolean> {
  const deadlineMs = Date.now() + timeoutMs;
  return await connected(url, async (client) => {
    for (;;) {
      const { rows } = await client.query<{ done: boolean | null }>(text, params);
      if (rows[0]?.done === true) return true;
      if (Date.now() > deadlineMs) return false;
      await sleep(POLL_INTERVAL_MS);
    }
  });
}
