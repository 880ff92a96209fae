// Runs the Worker: workerd with Durable Objects, queues, Workflows and R2, which keep their data in the system's folder.
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { appAliases } from "./bundle.ts";
import { childEnvironment } from "./child-environment.ts";

const root = resolve(import.meta.dirname, "..");

export interface WorkerProcess {
  url: string;
  child: ChildProcess;
  /** Fires a cron as the platform does, for the given time. */
  fireCron(cron: string, atMs?: number): Promise<void>;
  stop(): Promise<void>;
}

/** Bundling takes two seconds on two idle cores, and up to a minute among other systems on a busy machine. */
const READY_WITHIN_MS = 120_000;
const STOP_WITHIN_MS = 5_000;

/**
 * Starts the Worker under `wrangler dev` and resolves when it answers. `entry` replaces the entry of wrangler.toml. With a
 * `bundle`, workerd runs that script without `wrangler dev`.
 */
export async function startWorker(options: {
  dir: string;
  port: number;
  vars: Record<string, string>;
  entry?: string;
  bundle?: string;
  /** Requests reach the bundle without Miniflare's own Worker in front. Then no cron can be fired. */
  direct?: boolean;
}): Promise<WorkerProcess> {
  const { dir, port, bundle } = options;
  const output = createWriteStream(join(dir, "worker.log"), { flags: "a" });
  const child = spawn(
    process.execPath,
    bundle === undefined ? wranglerDev(options) : serveBundle({ ...options, bundle }),
    {
      cwd: root,
      // `serve-bundle.ts` stops when the channel closes. `wrangler dev` would take it for an order to report to its parent.
      stdio: ["ignore", "pipe", "pipe", ...(bundle === undefined ? [] : ["ipc" as const])],
      env: childEnvironment({
        // No network traffic of wrangler's own: no metrics, no check for a newer version, no download of `request.cf`.
        WRANGLER_SEND_METRICS: "false",
        WRANGLER_HIDE_BANNER: "true",
        CLOUDFLARE_CF_FETCH_ENABLED: "false",
        WRANGLER_LOG_PATH: join(dir, "wrangler-logs"),
        NO_COLOR: "1",
        CI: "1",
      }),
    },
  );
  child.stdout?.pipe(output, { end: false });
  child.stderr?.pipe(output, { end: false });
  const exited = new Promise<void>((done) => child.once("exit", () => done()));

  const url = `http://127.0.0.1:${port}`;
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
    await Promise.race([exited, sleep(STOP_WITHIN_MS, undefined, { ref: false }).then(() => child.kill("SIGKILL"))]);
    // Its own children may run for a moment longer and still write.
    child.stdout?.unpipe(output);
    child.stderr?.unpipe(output);
    output.end();
  };

  const deadline = Date.now() + READY_WITHIN_MS;
  for (;;) {
    if (child.exitCode !== null)
      throw new Error(`The Worker ended with code ${child.exitCode}; ${await lastLines(join(dir, "worker.log"))}`);
    if (Date.now() > deadline) {
      await stop();
      throw new Error(
        `The Worker did not answer within ${READY_WITHIN_MS / 1000} s; ${await lastLines(join(dir, "worker.log"))}`,
      );
    }
    if (await answers(`${url}/.well-known/oauth-protected-resource`)) break;
    await sleep(50);
  }

  return {
    url,
    child,
    async fireCron(cron, atMs = Date.now()) {
      const query = new URLSearchParams({ cron, time: String(atMs), format: "json" });
      const response = await fetch(`${url}/cdn-cgi/local/scheduled?${query.toString()}`, {
        signal: AbortSignal.timeout(120_000),
      });
      const text = await response.text();
      if (!response.ok || text.includes('"exception"'))
        throw new Error(`The cron ${cron} failed: ${response.status} ${text.slice(0, 200)}`);
    },
    stop,
  };
}

/** Enough for a stack, and not for a log. */
const SHOWN_LINES = 15;

/** The end of a log, and where it is. The folder of a test is gone when a person reads the message. */
async function lastLines(file: string): Promise<string> {
  const lines = (await readFile(file, "utf8").catch(() => "")).trimEnd().split("\n");
  return `see ${file}, which ends with:\n${lines.slice(-SHOWN_LINES).join("\n")}`;
}

/** Whether the Worker answers this request completely and in time. */
async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(5_000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

function wranglerDev(options: { dir: string; port: number; vars: Record<string, string>; entry?: string }): string[] {
  const { dir, port, vars, entry } = options;
  const envFile = join(dir, "worker.env");
  const lines = Object.entries(vars).map(([name, value]) => `${name}='${value}'\n`);
  writeFileSync(envFile, lines.join(""), { mode: 0o600 });
  return [
    join(root, "node_modules/wrangler/bin/wrangler.js"),
    ...["dev", ...(entry === undefined ? [] : [entry]), "--config", join(root, "wrangler.toml")],
    ...["--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0"],
    ...["--persist-to", join(dir, "workerd"), "--env-file", envFile, "--show-interactive-dev-session=false"],
    ...appAliases(),
  ];
}

function serveBundle(options: {
  dir: string;
  port: number;
  vars: Record<string, string>;
  bundle: string;
  direct?: boolean;
}): string[] {
  const { dir, port, vars, bundle, direct = false } = options;
  const varsFile = join(dir, "worker.vars.json");
  writeFileSync(varsFile, JSON.stringify(vars), { mode: 0o600 });
  return [
    join(root, "dev/serve-bundle.ts"),
    bundle,
    join(dir, "workerd"),
    String(port),
    varsFile,
    ...(direct ? ["direct"] : []),
  ];
}
