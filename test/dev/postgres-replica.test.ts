import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { removeReplica, type RunningReplica, startReplica } from "../../dev/postgres/replica.ts";
import { connected, removePostgresData, type RunningPostgres, startPostgres } from "../../dev/postgres/postgres.ts";

let folder: string;
let primary: RunningPostgres;
let replica: RunningReplica | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-replica-test-"));
  // If root runs the test, the server runs as another user, who must be able to enter the folder.
  await chmod(folder, 0o755);
  primary = await startPostgres({ dataDir: join(folder, "primary"), port: 0 });
});

afterEach(async () => {
  await replica?.stop();
  await removeReplica({ primary, dataDir: join(folder, "replica") });
});

afterAll(async () => {
  await primary.stop();
  await removePostgresData(join(folder, "primary"));
  await rm(folder, { recursive: true });
});

async function start(): Promise<RunningReplica> {
  replica = await startReplica({ primary, dataDir: join(folder, "replica"), port: 0 });
  return replica;
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  return await connected(url, async (client) => (await client.query<Record<string, unknown>>(text)).rows);
}

async function settingOf(server: { superuserUrl: string }, name: string): Promise<string> {
  return String((await query(server.superuserUrl, `SELECT current_setting('${name}') AS value`))[0]?.["value"]);
}

const slots = () => query(primary.superuserUrl, "SELECT active, wal_status FROM pg_replication_slots");

/** Identifies a replica: a kept replica has the same folder, and a new one has another folder of the same name. */
async function copyOf(server: RunningReplica): Promise<number> {
  return (await stat(await settingOf(server, "data_directory"))).ino;
}

/** Starts a launcher and kills it while it copies the primary. */
async function killWhileCopying(dataDir: string): Promise<void> {
  const script = `
    const { startReplica } = await import(${JSON.stringify(resolve(import.meta.dirname, "../../dev/postgres/replica.ts"))});
    await startReplica(${JSON.stringify({ primary, dataDir, port: 0 })});`;
  const launcher = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "ignore" });
  const ended = once(launcher, "exit");
  await mkdir(dataDir, { recursive: true });
  while (launcher.exitCode === null && (await readdir(dataDir)).length === 0) await sleep(5);
  launcher.kill("SIGKILL");
  await ended;
  expect(await readdir(dataDir)).toEqual([expect.stringMatching(/^cluster\.new-/)]);
}

test("a replica made under load, after a launcher was killed halfway, has the primary's rows and refuses writes", async () => {
  await query(
    primary.superuserUrl,
    `CREATE ROLE reader LOGIN PASSWORD 'reader';
     CREATE TABLE note (tenant text, line text);
     ALTER TABLE note ENABLE ROW LEVEL SECURITY;
     CREATE POLICY own ON note USING (tenant = current_setting('app.tenant', true));
     CREATE FUNCTION shout(line text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN upper(line); END';
     GRANT SELECT ON note TO reader;
     CREATE TABLE entry (n bigserial PRIMARY KEY, pad text)`,
  );
  await killWhileCopying(join(folder, "replica"));

  // Tables grow, are truncated and are dropped while the launcher copies them.
  const copying = new AbortController();
  const load = connected(primary.superuserUrl, async (client) => {
    for (let round = 0; !copying.signal.aborted; round++) {
      await client.query("INSERT INTO entry (pad) SELECT repeat('x', 500) FROM generate_series(1, 1000)");
      await client.query(`CREATE TABLE passing_${round} AS TABLE entry`);
      await client.query("DELETE FROM entry WHERE n % 3 = 0 OR n > (SELECT max(n) - 100 FROM entry)");
      await client.query("VACUUM entry");
      await client.query(`DROP TABLE passing_${round}`);
    }
  });
  const server = await start().finally(() => copying.abort());
  await load;
  await query(primary.superuserUrl, "INSERT INTO note VALUES ('acme', 'hello'), ('globex', 'secret')");
  await server.caughtUp();
  expect(await server.lagBytes()).toBe(0);
  expect(await readdir(join(folder, "replica"))).toEqual(["cluster"]);

  const digest = "SELECT count(*), md5(string_agg(n || pad, ',' ORDER BY n)) FROM entry";
  expect(await query(server.superuserUrl, digest)).toEqual(await query(primary.superuserUrl, digest));
  expect(await query(server.superuserUrl, "SELECT pg_is_in_recovery() AS recovers")).toEqual([{ recovers: true }]);
  await expect(query(server.superuserUrl, "DELETE FROM note")).rejects.toMatchObject({ code: "25006" });
  const readerUrl = `postgresql://reader:reader@127.0.0.1:${server.port}/postgres?options=-c%20app.tenant%3Dacme`;
  expect(await query(readerUrl, "SELECT shout(line) FROM note")).toEqual([{ shout: "HELLO" }]);
}, 60_000);

test("a replica resumes after restarts and kills of either side, and its removal leaves nothing on the primary", async () => {
  await query(primary.superuserUrl, "CREATE TABLE step (name text)");
  const first = await start();
  const copy = await copyOf(first);

  await first.stop();
  await query(primary.superuserUrl, "INSERT INTO step VALUES ('written while the replica was stopped')");
  const second = await start();
  await second.caughtUp();
  expect(await query(second.superuserUrl, "SELECT count(*)::int AS n FROM step")).toEqual([{ n: 1 }]);

  await primary.stop();
  expect(await query(second.superuserUrl, "SELECT count(*)::int AS n FROM step")).toEqual([{ n: 1 }]);
  primary = await startPostgres({ dataDir: join(folder, "primary"), port: primary.port });
  await query(primary.superuserUrl, "INSERT INTO step VALUES ('written after the primary was started again')");
  await second.caughtUp();
  expect(await query(second.superuserUrl, "SELECT count(*)::int AS n FROM step")).toEqual([{ n: 2 }]);

  process.kill(second.pid, "SIGKILL");
  process.kill(primary.pid, "SIGKILL");
  await Promise.all([second.exited, primary.exited]);
  await expect(second.caughtUp()).rejects.toThrow("ECONNREFUSED");
  primary = await startPostgres({ dataDir: join(folder, "primary"), port: 0 });
  await query(primary.superuserUrl, "INSERT INTO step VALUES ('written on another port')");
  const third = await start();
  await third.caughtUp();
  expect(await query(third.superuserUrl, "SELECT count(*)::int AS n FROM step")).toEqual([{ n: 3 }]);
  expect(await copyOf(third)).toBe(copy);
  expect(await slots()).toEqual([{ active: true, wal_status: "reserved" }]);

  await third.stop();
  for (let time = 0; time < 2; time++) {
    await removeReplica({ primary, dataDir: join(folder, "replica") });
    expect(existsSync(join(folder, "replica"))).toBe(false);
    expect(await slots()).toEqual([]);
  }
});

test("the launcher makes a new replica when the old one can no longer follow its primary", async () => {
  const away = await start();
  await away.stop();
  // Each switch fills a segment of 16 MB. The primary keeps 256 MB for a replica that is down.
  await connected(primary.superuserUrl, async (client) => {
    for (let segment = 0; segment < 20; segment++) {
      await client.query("SELECT pg_logical_emit_message(false, 'fill', '')");
      await client.query("SELECT pg_switch_wal()");
    }
    await client.query("CHECKPOINT");
  });
  expect(await slots()).toEqual([{ active: false, wal_status: "lost" }]);

  const promoted = await start();
  expect(await slots()).toEqual([{ active: true, wal_status: "reserved" }]);
  await query(promoted.superuserUrl, "SELECT pg_promote()");
  await query(promoted.superuserUrl, "CREATE TABLE of_its_own ()");
  await promoted.stop();

  const damaged = await start();
  await expect(query(damaged.superuserUrl, "TABLE of_its_own")).rejects.toMatchObject({ code: "42P01" });
  const logFolder = join(await settingOf(damaged, "data_directory"), "pg_wal");
  await damaged.stop();
  await rm(logFolder, { recursive: true });

  const last = await start();
  await query(primary.superuserUrl, "CREATE TABLE arrived ()");
  await last.caughtUp();
  expect(await query(last.superuserUrl, "TABLE arrived")).toEqual([]);
  expect(await slots()).toEqual([{ active: true, wal_status: "reserved" }]);
}, 60_000);

test("the launcher refuses a folder that holds a primary, running or not, and leaves it unchanged", async () => {
  const dataDir = join(folder, "primary");
  await expect(startReplica({ primary, dataDir, port: 0 })).rejects.toThrow(`Process ${process.pid}`);
  const stopped = join(folder, "stopped");
  await mkdir(join(stopped, "cluster"), { recursive: true });
  await writeFile(join(stopped, "password"), "kept");
  await expect(startReplica({ primary, dataDir: stopped, port: 0 })).rejects.toThrow(stopped);
  await expect(removeReplica({ primary, dataDir: stopped })).rejects.toThrow(stopped);
  expect((await readdir(stopped)).toSorted()).toEqual(["cluster", "password"]);
});
