// `npm start`: the local system with a demonstration, in a process group of its own. The front process only passes
// signals on; the leader of the group runs everything, so that the whole system can be ended, or killed, as one.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { readFlags } from "../cli/flags.ts";
import { readDevVars } from "../cli/settings.ts";
import { runDemonstration, writeDemoFile } from "./demo.ts";
import { startSystem } from "./system.ts";

const { values: flags } = readFlags({
  command: "npm start",
  help: `
npm start [-- FLAGS]      the whole of Tollgate on this machine, with one demonstration customer for each plan

  --fresh      deletes what earlier runs stored
  --no-demo    without demonstration customers
  --replica    also starts a read replica of PostgreSQL, for the tools' analytics
  --help       this text

PORT (8787) and TOLLGATE_DIR (.dev) let several systems run side by side. A value in .dev.vars replaces the stand-in that it
belongs to; .dev.vars.example lists them.`,
  flags: {
    fresh: { type: "boolean", default: false },
    replica: { type: "boolean", default: false },
    demo: { type: "boolean", default: true },
  },
});
const port = Number(process.env["PORT"] ?? 8787);
const dir = resolve(process.env["TOLLGATE_DIR"] ?? ".dev");
const IS_LEADER = "TOLLGATE_LEADER";

if (!Number.isInteger(port) || port < 1 || port > 65_535) {
  print(`PORT is "${process.env["PORT"]}". It must be a number from 1 to 65535.`);
  process.exitCode = 1;
} else if (process.env[IS_LEADER] === undefined) {
  front();
} else {
  await lead();
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function front(): void {
  const leader = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true, // a process group of its own
    stdio: ["pipe", "inherit", "inherit"], // when this process is killed, the pipe ends and the leader notices
    env: { ...process.env, [IS_LEADER]: "1" },
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => leader.kill(signal));
  leader.on("exit", (code, signal) => {
    process.exitCode = signal === null ? (code ?? 1) : 1;
    if (leader.pid !== undefined) void endGroup(leader.pid);
  });
}

/** Ends what its leader has left of a group, and waits a moment for it to be gone: whoever waits for us finds nothing. */
async function endGroup(group: number): Promise<void> {
  for (let look = 0; look < 40; look += 1) {
    try {
      process.kill(-group, "SIGKILL");
    } catch {
      return; // nobody is left
    }
    await sleep(25);
  }
}

async function lead(): Promise<void> {
  const startedAt = performance.now();
  mkdirSync(dir, { recursive: true });
  const lockFile = join(dir, "lock");
  endOrphans(lockFile);
  writeFileSync(lockFile, String(process.pid));
  const demoFile = join(dir, "demo.json");
  rmSync(demoFile, { force: true });

  let starting: ReturnType<typeof startSystem> | undefined;
  let stopping = false;
  const clock = new AbortController();
  const stop = async (exitCode: number): Promise<void> => {
    if (stopping) return;
    stopping = true;
    clock.abort();
    // Also what is half started: it is let come up, because only then it knows all that there is to stop.
    await starting?.then(
      (system) => system.stop(),
      () => undefined,
    );
    rmSync(demoFile, { force: true });
    rmSync(lockFile, { force: true });
    process.exit(exitCode);
  };
  const stopNow = (exitCode: number): void => {
    stop(exitCode).catch((error: unknown) => {
      print(`Stopping failed: ${error instanceof Error ? error.message : String(error)}`);
      process.exit(1);
    });
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      print("Stopping …");
      stopNow(0);
    });
  }
  process.stdin.on("end", () => stopNow(0));
  process.stdin.resume();

  try {
    print("Tollgate, on this machine");
    const devVars = readDevVars(resolve(import.meta.dirname, "../.dev.vars"));
    starting = startSystem({ dir, port, fresh: flags.fresh, replica: flags.replica, devVars, step });
    const system = await starting;
    // What an earlier run left undone is picked up before anybody looks.
    await system.worker.fireCron("* * * * *");
    const tenants = flags.demo ? await runDemonstration(system, step) : [];
    await writeDemoFile(demoFile, system, tenants);
    print(
      [
        `Ready in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`,
        "",
        `  MCP        ${system.publicUrl}/mcp`,
        `  Health     ${system.publicUrl}/health`,
        `  Operator   ${system.publicUrl}/admin/api/tenants   (token in ${demoFile})`,
        ...(system.stripe === undefined ? [] : [`  Stripe     ${system.stripe.url}   (simulated)`]),
        `  All of it  ${demoFile}`,
        "",
        ...tenants.map(({ id, name, plan, apiKey }) => `  ${plan.padEnd(10)} ${id}  ${name}\n            ${apiKey}`),
        "",
        "Ctrl-C stops everything.",
      ].join("\n"),
    );
    runClock(system, clock.signal);
  } catch (error) {
    if (stopping) return;
    print(`\n${error instanceof Error ? error.message : String(error)}`);
    await stop(1);
  }
}

/** Shows a step when it is done, with its time. */
async function step<T>(title: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await work();
  print(`  ✓ ${title.padEnd(42)} ${((performance.now() - startedAt) / 1000).toFixed(2).padStart(6)} s`);
  return result;
}

/** Refuses to run twice in one folder, and ends what a leader that was killed alone has left behind. */
function endOrphans(lockFile: string): void {
  let leader: number;
  try {
    leader = Number(readFileSync(lockFile, "utf8"));
  } catch {
    return;
  }
  if (!Number.isInteger(leader) || leader <= 1) return;
  if (isTollgate(leader)) {
    print(
      `Tollgate runs in ${dir} already (process ${leader}). Stop it first, or set TOLLGATE_DIR and PORT to run another one.`,
    );
    process.exit(1);
  }
  try {
    process.kill(-leader, "SIGKILL"); // its group: the Worker and PostgreSQL outlive a leader that was killed alone
  } catch {
    // The group is gone, as it should be.
  }
}

/** Whether a process of this id lives and is ours: ids are used again. */
function isTollgate(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== "linux" || readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("start.ts");
  } catch {
    return false;
  }
}

/** Fires the crons as Cloudflare would: the sweep every minute, the report every five. */
function runClock(system: Awaited<ReturnType<typeof startSystem>>, stopped: AbortSignal): void {
  const MINUTE_MS = 60_000;
  const tick = async (): Promise<void> => {
    const atMs = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS;
    const crons = (atMs / MINUTE_MS) % 5 === 0 ? ["* * * * *", "*/5 * * * *"] : ["* * * * *"];
    for (const cron of crons) {
      await system.worker.fireCron(cron, atMs).catch((error: unknown) => {
        if (!stopped.aborted) print(`  ! ${error instanceof Error ? error.message : String(error)}`);
      });
    }
  };
  const schedule = (): void => {
    const timer = setTimeout(
      () => {
        void tick().finally(schedule);
      },
      MINUTE_MS - (Date.now() % MINUTE_MS),
    );
    stopped.addEventListener("abort", () => clearTimeout(timer), { once: true });
  };
  schedule();
}
