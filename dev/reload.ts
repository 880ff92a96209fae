// Applies new migrations while `npm start` runs. `wrangler dev` reloads the Worker by itself when src/ or app/ changes; the
// databases follow here, by the operator's own `migrate --local`, which also refuses what a deployment would refuse.
import { spawn } from "node:child_process";
import { existsSync, watch } from "node:fs";
import { join, resolve } from "node:path";
import { appFolder } from "../cli/generate.ts";
import { childEnvironment } from "./child-environment.ts";

const root = resolve(import.meta.dirname, "..");
/** An editor writes a file in several steps, and `git checkout` many files: wait until it is quiet. */
const QUIET_MS = 500;

/** Watches the product's and the app's migrations until `stopped`. `print` gets what a run of the migrations says. */
export function applyNewMigrations(options: {
  dir: string;
  print: (line: string) => void;
  stopped: AbortSignal;
}): void {
  const { dir, print, stopped } = options;
  let timer: NodeJS.Timeout | undefined;
  let running = false;
  let again = false;

  const apply = async (): Promise<void> => {
    again = running;
    if (running) return;
    running = true;
    try {
      do {
        again = false;
        print("\nMigrations changed:");
        for (const line of await migrateLocal(dir, stopped)) print(`  ${line}`);
      } while (again);
    } catch (error) {
      if (!stopped.aborted) print(`  ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      running = false;
    }
  };

  for (const folder of [join(root, "migrations"), join(appFolder(), "migrations")]) {
    if (!existsSync(folder)) continue;
    const watcher = watch(folder, { recursive: true, signal: stopped }, (_event, file) => {
      if (file?.endsWith(".sql") !== true) return;
      clearTimeout(timer);
      timer = setTimeout(() => void apply(), QUIET_MS);
    });
    watcher.on("error", (error) => print(`  ! Migrations are not watched: ${error.message}`));
  }
  stopped.addEventListener("abort", () => clearTimeout(timer), { once: true });
}

/** Runs `npm run migrate -- --local` for the system in `dir`. Returns the lines that it printed. */
function migrateLocal(dir: string, stopped: AbortSignal): Promise<string[]> {
  const args = ["--import", join(root, "cli/register-app.ts"), join(root, "cli/migrate.ts"), "--local"];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: childEnvironment({ TOLLGATE_DIR: dir }),
    stdio: ["ignore", "pipe", "pipe"],
    signal: stopped,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("close", () => done(output.trim().split("\n")));
  });
}
