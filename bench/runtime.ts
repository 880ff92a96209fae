// A bundle in a workerd of its own: bundled by `wrangler deploy --dry-run`, run by Miniflare with the bindings that the
// bundle's configuration names, state on disk, and reached through workerd's own socket with nothing in front of it.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";
import { childrenNamed } from "./cpu.ts";

const root = join(import.meta.dirname, "..");

export interface Bundle {
  script: string;
  config: string;
}

/** Bundles `entry`, or the entry that `config` names. Paths are relative to the project. */
export async function bundle(options: { dir: string; config: string; entry?: string }): Promise<Bundle> {
  const config = join(root, options.config);
  const outDir = join(options.dir, `bundle-${basename(options.entry ?? options.config)}`);
  const args = [
    join(root, "node_modules/wrangler/bin/wrangler.js"),
    "deploy",
    ...(options.entry === undefined ? [] : [join(root, options.entry)]),
    ...["--dry-run", "--config", config, "--outdir", outDir],
  ];
  await promisify(execFile)(process.execPath, args, {
    cwd: root,
    env: { ...process.env, WRANGLER_SEND_METRICS: "false", WRANGLER_LOG_PATH: join(options.dir, "wrangler-logs") },
  });
  const entry = options.entry ?? /^main = "(.+)"$/m.exec(readFileSync(config, "utf8"))?.[1] ?? "";
  return { script: join(outDir, basename(entry).replace(/\.ts$/, ".js")), config };
}

export interface Runtime {
  port: number;
  pid: number;
  miniflare: Miniflare;
}

/** Starts the bundle; `inspect` opens workerd's inspector, which costs a little all the time. */
export async function startRuntime(
  { script, config }: Bundle,
  options: { dir: string; vars: Record<string, string>; inspect?: boolean; running: (() => Promise<unknown>)[] },
): Promise<Runtime> {
  const { dir, vars, inspect = false, running } = options;
  process.env["WRANGLER_LOG"] = "none"; // read when wrangler is loaded: it would name every variable that is not set
  const { unstable_getMiniflareWorkerOptions } = await import("wrangler");
  const { workerOptions } = unstable_getMiniflareWorkerOptions(config);
  const before = new Set(childrenNamed(process.pid, "workerd"));
  const name = basename(dir);
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      log: new Log(LogLevel.ERROR),
      cf: false,
      resourcePersistencePath: dir,
      ...(inspect ? { inspectorPort: 0 } : {}),
      workers: [
        {
          ...workerOptions,
          name,
          modules: [{ type: "ESModule", path: script }],
          modulesRoot: join(script, ".."),
          modulesRules: undefined,
          bindings: Object.assign({}, workerOptions.bindings, vars),
          unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
        },
      ],
    } as Parameters<typeof convertV4MiniflareOptions>[0]),
  );
  running.push(() => miniflare.dispose());
  const { port } = await miniflare.unsafeGetDirectURL(name);
  const [pid] = childrenNamed(process.pid, "workerd").filter((each) => !before.has(each));
  if (pid === undefined) throw new Error("Miniflare started no workerd");
  return { port: Number(port), pid, miniflare };
}
