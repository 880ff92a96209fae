// Bundles a Worker into one script with `wrangler deploy --dry-run`, and makes the options with which Miniflare runs it.
import { execFile } from "node:child_process";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { appFolder, generate } from "../cli/generate.ts";
import { Log, LogLevel, type Miniflare, convertV4MiniflareOptions } from "miniflare";
import { childEnvironment } from "./child-environment.ts";

const root = resolve(import.meta.dirname, "..");

/** Wrangler's arguments that make `#app/...` mean this folder. Writes its generated modules. */
export function appAliases(app: string = appFolder()): string[] {
  return Object.entries(generate(resolve(root, app))).flatMap(([name, path]) => ["--alias", `${name}:${path}`]);
}

type MiniflareOptions = ConstructorParameters<typeof Miniflare>[0];
type Options = Parameters<typeof convertV4MiniflareOptions>[0];

/**
 * Bundles `entry`, or the entry that `config` names, into `outDir`. Returns the script. Paths are relative to the project.
 * `batchSeconds` replaces the time for which its queues collect a batch. `app` replaces the app folder (app/ or TOLLGATE_APP).
 */
export async function bundle(options: {
  outDir: string;
  config?: string;
  entry?: string;
  batchSeconds?: number;
  app?: string;
}): Promise<string> {
  const { outDir, entry, config = "wrangler.toml" } = options;
  const args = [
    join(root, "node_modules/wrangler/bin/wrangler.js"),
    "deploy",
    ...(entry === undefined ? [] : [resolve(root, entry)]),
    ...["--dry-run", "--config", join(root, config), "--outdir", outDir],
    ...appAliases(options.app),
  ];
  await promisify(execFile)(process.execPath, args, {
    cwd: root,
    env: childEnvironment({
      // No network traffic of wrangler's own: no metrics, no check for a newer version.
      WRANGLER_SEND_METRICS: "false",
      WRANGLER_HIDE_BANNER: "true",
      WRANGLER_LOG_PATH: join(outDir, "wrangler-logs"),
    }),
  });
  // With source maps, Miniflare would map the stack of each error, which costs more than most requests.
  for (const name of readdirSync(outDir)) if (name.endsWith(".map")) rmSync(join(outDir, name));
  const workerOptions = await workerOptionsOf(join(root, config));
  const { queueConsumers = {} } = workerOptions;
  for (const consumer of Object.values(queueConsumers)) {
    if (options.batchSeconds !== undefined) consumer.maxBatchTimeout = options.batchSeconds;
  }
  writeFileSync(join(outDir, "worker.json"), JSON.stringify(workerOptions));
  const main = entry ?? /^main = "(.+)"$/m.exec(readFileSync(join(root, config), "utf8"))?.[1] ?? "";
  return join(outDir, basename(main).replace(/\.ts$/, ".js"));
}

/**
 * Miniflare's options for a configuration, as wrangler makes them. In a process of its own: wrangler loads Node's `domain`,
 * which makes each event and promise of the process dearer as long as it runs.
 */
async function workerOptionsOf(
  config: string,
): Promise<{ queueConsumers?: Record<string, { maxBatchTimeout?: number }> }> {
  const program = `import { unstable_getMiniflareWorkerOptions as optionsOf } from "wrangler";
    process.stdout.write(JSON.stringify(optionsOf(process.argv[1]).workerOptions));`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--input-type=module", "--eval", program, config],
    // Otherwise it warns of every variable that is not set.
    { cwd: root, env: childEnvironment({ WRANGLER_LOG: "none", WRANGLER_SEND_METRICS: "false" }) },
  );
  return JSON.parse(stdout) as Awaited<ReturnType<typeof workerOptionsOf>>;
}

/** Options that run a bundle with additional variables and its state under `dir`. `more` are options of Miniflare. */
export function miniflareOptions(
  script: string,
  { name, dir, vars, ...more }: { name: string; dir: string; vars: Record<string, string> } & Record<string, unknown>,
): MiniflareOptions {
  const outDir = dirname(script);
  const worker = JSON.parse(readFileSync(join(outDir, "worker.json"), "utf8")) as {
    bindings: Record<string, string>;
  };
  const { unsafeDirectSockets, ...shared } = more;
  return convertV4MiniflareOptions({
    ...{ log: new Log(LogLevel.ERROR), cf: false, resourcePersistencePath: dir, ...shared },
    workers: [
      {
        ...worker,
        name,
        modules: [{ type: "ESModule", path: script }],
        modulesRoot: outDir,
        modulesRules: undefined,
        bindings: { ...worker.bindings, ...vars },
        ...(unsafeDirectSockets !== undefined && { unsafeDirectSockets }),
      },
    ],
  } as unknown as Options);
}
