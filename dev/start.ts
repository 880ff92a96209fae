// `npm start`: runs the local system with a demonstration, in a process group of its own. The front process only passes
// signals on. The leader of the group runs everything, so that one signal to the group ends the whole system.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { readFlags } from "../cli/flags.ts";
import { readDevVars } from "../cli/settings.ts";
import { config } from "../src/core/app-config.ts";
import { addMembers, runDemonstration, writeDemoFile, writeMcpFile } from "./demo.ts";
import { OPERATOR_SCOPE, type Person, demonstrationPeople } from "./issuer/people.ts";
import { applyNewMigrations, migrateTenants } from "./reload.ts";
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
/** The product's Worker, for which customers' providers at public names exist. */
const ENTRY = "dev/worker.ts";
const IS_LEADER = "TOLLGATE_LEADER";
/** How often the front process looks whether npm still runs. */
const PARENT_POLL_MS = 500;

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
  // A signal to npm alone ends npm and its shell and does not reach this process. It then has another parent.
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.env["npm_lifecycle_event"] === undefined || process.ppid === parent) return;
    clearInterval(watch);
    leader.kill("SIGTERM");
  }, PARENT_POLL_MS);
  leader.on("exit", (code, signal) => {
    clearInterval(watch);
    process.exitCode = signal === null ? (code ?? 1) : 1;
    if (leader.pid !== undefined) void endGroup(leader.pid);
  });
}

/** Kills the rest of a group and waits up to a second until it is gone, so that our caller finds no process left. */
async function endGroup(group: number): Promise<void> {
  for (let look = 0; look < 40; look += 1) {
    try {
      process.kill(-group, "SIGKILL");
    } catch {
      return; // the group is empty
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
  const mcpFile = join(dir, "mcp.json");
  for (const file of [demoFile, mcpFile]) rmSync(file, { force: true });

  let starting: ReturnType<typeof startSystem> | undefined;
  let stopping = false;
  const clock = new AbortController();
  const stop = async (exitCode: number): Promise<void> => {
    if (stopping) return;
    stopping = true;
    clock.abort();
    // A system that is still starting must finish first: only then it knows everything that it has to stop.
    await starting?.then(
      (system) => system.stop(),
      () => undefined,
    );
    for (const file of [demoFile, mcpFile, lockFile]) rmSync(file, { force: true });
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
    starting = startSystem({ dir, port, entry: ENTRY, fresh: flags.fresh, replica: flags.replica, devVars, step });
    const system = await starting;
    const { databases } = system;
    if (databases !== undefined) {
      const fetchEndpoint = `${databases.proxy.url}/sql`;
      await migrateTenants({ dir, controlUrl: databases.controlUrl, fetchEndpoint, print, stopped: clock.signal });
    }
    // Resume what an earlier run left unfinished before the demonstration looks at it.
    await system.worker.fireCron("* * * * *");
    const tenants = flags.demo ? await runDemonstration(system, step) : [];
    const people = demonstrationPeople(tenants, Object.keys(config.scopes));
    system.issuer?.people.replace(people);
    if (system.issuer !== undefined) await addMembers(system, people);
    const [tenant] = tenants;
    if (tenant !== undefined) writeMcpFile(mcpFile, system.publicUrl, tenant.apiKey);
    await writeDemoFile(demoFile, system, tenants);
    print(`\nReady in ${((performance.now() - startedAt) / 1000).toFixed(1)} s. Open ${system.publicUrl}`);
    if (tenant !== undefined) {
      print(`\nCall a tool as ${tenant.name}:\n\n${curlOf(system.publicUrl, tenant.apiKey)}`);
      print(`\nConnect an agent: ${shown(mcpFile)} is an MCP client configuration, e.g. for`);
      print(`  claude --mcp-config ${shown(mcpFile)}\n`);
      for (const { id, name, plan, apiKey } of tenants) print(`  ${plan.padEnd(10)}  ${id}  ${apiKey}  ${name}`);
    }
    const stripe = system.stripe === undefined ? [] : [`  Stripe      ${system.stripe.url}   (simulated)`];
    const mailbox =
      system.mailbox === undefined ? [] : [`  Mailbox     ${system.mailbox.url}   (every mail ends here)`];
    print(
      [
        "",
        `  MCP         ${system.publicUrl}/mcp`,
        ...signIns(system.publicUrl, system.issuer === undefined ? [] : people),
        `  Operator    the token in ${shown(demoFile)} works at ${system.publicUrl}/admin, too`,
        `  Health      ${system.publicUrl}/health`,
        ...stripe,
        ...mailbox,
        `  Everything  ${shown(demoFile)}   URLs, keys and tokens, for programs`,
        `  Log         ${shown(join(dir, "worker.log"))}`,
        "",
        "Edits in src/ and app/ reload by themselves, and new migrations are applied. Ctrl-C stops everything.",
      ].join("\n"),
    );
    applyNewMigrations({ dir, print, stopped: clock.signal });
    runClock(system, clock.signal);
  } catch (error) {
    if (stopping) return;
    print(`\n${error instanceof Error ? error.message : String(error)}`);
    await stop(1);
  }
}

/** Where people sign in, and as whom: the sign-in page lists them by name. Nothing about people of another issuer. */
function signIns(publicUrl: string, people: readonly Person[]): string[] {
  const line = (label: string, path: string, who: readonly Person[]): string[] =>
    who.length === 0
      ? []
      : [
          `  ${label.padEnd(10)}  ${publicUrl}${path}   (choose ${who.map(({ name, roles }) => `${name}: ${roles.join(" ")}`).join(", ")})`,
        ];
  const withRole = (role: string) =>
    people.filter(({ roles, organisations }) => roles.includes(role) && organisations.length > 0);
  return [
    ...line("Owner", "/app", withRole("owner").slice(0, 1)),
    ...line("Member", "/app", withRole("member").slice(0, 1)),
    ...line(
      "Operator",
      "/admin",
      people.filter(({ permissions }) => permissions.includes(OPERATOR_SCOPE)),
    ),
  ];
}

/** A path as the user would type it here. */
function shown(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere.startsWith("..") ? path : fromHere;
}

/** A command that calls a tool of the product. It needs no session: the older MCP revision answers a single request. */
function curlOf(publicUrl: string, apiKey: string): string {
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "get_usage", arguments: {} } };
  return [
    `  curl -s ${publicUrl}/mcp -H 'authorization: Bearer ${apiKey}'`,
    `    -H 'content-type: application/json' -H 'accept: application/json, text/event-stream'`,
    `    -d '${JSON.stringify(call)}'`,
  ].join(" \\\n");
}

/** Prints a step with its duration when it is done. */
async function step<T>(title: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await work();
  print(`  ✓ ${title.padEnd(42)} ${((performance.now() - startedAt) / 1000).toFixed(2).padStart(6)} s`);
  return result;
}

/** Refuses a second run in one folder. Kills the processes of a run whose leader alone was killed. */
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
      `Tollgate already runs in ${dir} (process ${leader}). Stop it, or set TOLLGATE_DIR and PORT to run a second one.`,
    );
    process.exit(1);
  }
  try {
    process.kill(-leader, "SIGKILL"); // The Worker and PostgreSQL outlive a leader that was killed alone.
  } catch {
    // The group is already gone.
  }
}

/** Whether this process runs and is ours. The operating system reuses process ids. */
function isTollgate(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== "linux" || readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("start.ts");
  } catch {
    return false;
  }
}

/** Fires the crons at the times at which Cloudflare would: the sweep every minute, the report every five minutes. */
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
