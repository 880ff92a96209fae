// Applies new migrations for `npm start`: at its start to the tenants of an earlier run, later whenever a file changes.
// `wrangler dev` reloads the Worker by itself when src/ or app/ changes. The databases follow here with the operator's own
// `migrate --local`, which also refuses what a deployment would refuse.
import { spawn } from "node:child_process";
import { watch } from "node:fs";
import { join, resolve } from "node:path";
import { appFolder } from "../cli/generate.ts";
import { readMigrations, tenantMigrations } from "../cli/migrations/apply.ts";
import { connectControl } from "../src/adapters/neon.ts";
import { migrationId, versionOf } from "../src/tenant-db/branch.ts";
import { FleetOptions } from "../src/fleet/fleet.ts";
import { fleetStore } from "../src/fleet/fleet-store.ts";
import { planFleet } from "../src/fleet/runner.ts";
import { childEnvironment } from "./child-environment.ts";

const root = resolve(import.meta.dirname, "..");
/** Wait after the last change. An editor writes a file in several steps, and `git checkout` writes many files. */
const QUIET_MS = 500;

/**
 * Migrates the schemas and databases of tenants that lack a file. Does nothing, and costs two queries, when none lacks one:
 * the start of a system has migrated its first databases already.
 */
export async function migrateTenants(options: {
  dir: string;
  controlUrl: string;
  fetchEndpoint: string;
  print: (line: string) => void;
  stopped: AbortSignal;
}): Promise<void> {
  const { dir, controlUrl, fetchEndpoint, print, stopped } = options;
  const control = connectControl({ CONTROL_DATABASE_URL: controlUrl, NEON_FETCH_ENDPOINT: fetchEndpoint });
  const fleet = fleetStore(control);
  const files = readMigrations(tenantMigrations);
  const { pending } = await planFleet(fleet, files, FleetOptions.parse({ dryRun: true }));
  const behind = await fleet.shardsBehind(versionOf(files.map(migrationId)));
  if (pending === 0 && behind.length === 0) return;
  print("\nNew migrations:");
  for (const line of await migrateLocal(dir, stopped)) print(`  ${line}`);
}

/** Watches the product's and the app's migrations until `stopped`. `print` gets the output of each run. */
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

  // The whole app folder, because an app without tables has no folder of migrations yet.
  for (const folder of [join(root, "migrations"), appFolder()]) {
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
