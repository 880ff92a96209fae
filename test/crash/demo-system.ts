// Runs `npm start` in its own folder, as a user does: starts it, drives it with clients that keep their receipts, kills all
// its processes and inspects its state from outside. Used by the crash test and by `npm run crash`.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { childEnvironment } from "../../dev/child-environment.ts";
import { removePostgresData } from "../../dev/postgres/postgres.ts";
import { freePort } from "../../cli/ports.ts";

/** A start takes 7 s on two idle cores, and its Worker alone up to a minute on a busy machine. */
const READY_WITHIN_MS = 120_000;
/** The demonstration does not use this tool, so its ledger rows all belong to this run's clients. */
export const TOOL = "list_documents";

export interface Demo {
  baseUrl: string;
  operator: { token: string };
  tenants: { id: string; plan: string; apiKey: string }[];
  issuer: { url: string };
  stripe: { apiBase: string };
  postgres: { controlUrl: string };
  pids: { group: number };
}

export interface Started {
  front: ChildProcess;
  exited: Promise<number | null>;
  demo: Demo;
  /** What it has printed so far. */
  output: () => string;
}

/** A client's record of its calls to one tenant. */
export interface Seen {
  /** Charge ids of the calls that succeeded. */
  receipts: Set<string>;
  /** Calls without an answer, or with `outcome_unknown`. Each may have been charged or not. */
  unanswered: number;
}

export type DemoSystem = Awaited<ReturnType<typeof demoSystem>>;

/** Makes a folder for `npm start`. Nothing runs yet. `end` stops all processes and removes the folder. */
export async function demoSystem() {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-crash-"));
  const root = resolve(import.meta.dirname, "../..");
  const port = await freePort();
  const groups = new Set<number>();
  const fronts = new Set<ChildProcess>();

  return {
    port,
    settings: () => JSON.parse(readFileSync(join(dir, "settings.json"), "utf8")) as { ports: Record<string, number> },

    /** Starts the program as `npm start` does and waits for the file that says it is ready. */
    async start(): Promise<Started> {
      const front = spawn(
        process.execPath,
        ["--import", join(root, "cli/register-app.ts"), join(root, "dev/start.ts")],
        {
          cwd: root,
          stdio: ["ignore", "pipe", "pipe"],
          env: childEnvironment({ PORT: String(port), TOLLGATE_DIR: dir, TOLLGATE_APP: "test/support/fixture-app" }),
        },
      );
      fronts.add(front);
      let output = "";
      for (const stream of [front.stdout, front.stderr])
        stream.setEncoding("utf8").on("data", (text: string) => (output += text));
      const exited = new Promise<number | null>((done) => front.once("exit", (code) => done(code)));
      const deadline = Date.now() + READY_WITHIN_MS;
      for (;;) {
        // The lock gives the process number before the program is ready, so that a failed start can be cleaned up too.
        const leader = Number(readOr(join(dir, "lock"), "0"));
        if (leader > 1 && readOr(`/proc/${leader}/cmdline`, "start.ts").includes("start.ts")) groups.add(leader);
        const demo = readOr(join(dir, "demo.json"), "");
        // Accept only this run's file. The program removes an earlier run's file at its start, perhaps not yet.
        if (demo !== "" && (JSON.parse(demo) as Demo).pids.group === leader && isAlive(leader)) {
          return { front, exited, demo: JSON.parse(demo) as Demo, output: () => output };
        }
        if (front.exitCode !== null || Date.now() > deadline) throw new Error(`It did not get ready:\n${output}`);
        await sleep(50);
      }
    },

    /** Runs a program of the repository that works on the running system. Returns what it has printed, or throws. */
    runs(program: string): Promise<string> {
      const args = ["--import", join(root, "cli/register-app.ts"), join(root, program)];
      const env = childEnvironment({ TOLLGATE_DIR: dir, TOLLGATE_APP: "test/support/fixture-app" });
      return new Promise((done, fail) => {
        execFile(process.execPath, args, { cwd: root, env }, (error, stdout, stderr) =>
          error === null ? done(stdout) : fail(new Error(`${program} failed:\n${stdout}${stderr}`)),
        );
      });
    },

    /** Kills all processes of the system with `kill -9` and waits until they are gone. */
    async kill({ demo, exited }: Started): Promise<void> {
      killGroup(demo.pids.group);
      await exited;
      await until(async () => membersOf(demo.pids.group).length === 0, "the whole group is gone");
    },

    async end(): Promise<void> {
      for (const group of groups) killGroup(group);
      for (const front of fronts) front.kill("SIGKILL");
      const gone = async (): Promise<boolean> => [...groups].every((group) => membersOf(group).length === 0);
      await until(gone, "nothing of it runs").catch(() => undefined);
      await removePostgresData(join(dir, "postgres"));
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Calls one tenant, one call at a time, until `ended`. */
export async function callUntil(ended: AbortSignal, baseUrl: string, apiKey: string, seen: Seen): Promise<void> {
  while (!ended.aborted) {
    await callOnce(baseUrl, apiKey, seen);
    await sleep(20);
  }
}

/** Makes one call and records its receipt. Returns whether the call succeeded. */
export async function callOnce(baseUrl: string, apiKey: string, seen: Seen): Promise<boolean> {
  const _meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": { name: "crash-test", version: "1" },
  };
  try {
    const response = await fetch(`${baseUrl}/mcp`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${apiKey}`,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": TOOL,
      },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id: 1,
        method: "tools/call",
        params: { name: TOOL, arguments: {}, _meta },
      }),
    });
    const { result } = (await response.json()) as {
      result?: {
        isError?: boolean;
        _meta?: { "tollgate/receipt"?: { id: string }; "tollgate/refusal"?: { mayBeChargedAs?: string } };
      };
    };
    const receipt = result?._meta?.["tollgate/receipt"];
    if (receipt !== undefined) seen.receipts.add(receipt.id);
    else if (result?._meta?.["tollgate/refusal"]?.mayBeChargedAs !== undefined) seen.unanswered += 1;
    return result !== undefined && result.isError !== true;
  } catch (error) {
    // A client that could not connect has sent no call.
    const { code } = ((error as Error).cause ?? {}) as { code?: string };
    if (code !== "ECONNREFUSED") seen.unanswered += 1;
    return false;
  }
}

/** Ids of this run's calls in the ledger, by tenant. */
export async function ledgerIds(demo: Demo): Promise<Map<string, Set<string>>> {
  const rows = await controlRows<{ tenant_id: string; ids: string[] }>(
    demo,
    `SELECT tenant_id, array_agg(call_id) AS ids FROM ledger WHERE tool = $1 GROUP BY tenant_id`,
    [TOOL],
  );
  return new Map(rows.map(({ tenant_id: id, ids }) => [id, new Set(ids)]));
}

/** True if the ledger has each sequence from 1 to its end without a gap. */
export async function areStreamsWhole(demo: Demo): Promise<boolean> {
  const broken = await controlRows(
    demo,
    `SELECT s.tenant_id FROM usage_streams s LEFT JOIN ledger l USING (tenant_id, object, epoch)
     GROUP BY s.tenant_id, s.object, s.epoch HAVING s.watermark <> s.highest OR count(l.n) <> s.highest OR max(l.n) <> s.highest`,
  );
  return broken.length === 0;
}

export async function controlRows<Row extends pg.QueryResultRow>(
  demo: Demo,
  text: string,
  params: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: demo.postgres.controlUrl });
  await client.connect();
  try {
    return (await client.query<Row>(text, [...params])).rows;
  } finally {
    await client.end();
  }
}

// ---- processes

function killGroup(group: number): void {
  try {
    process.kill(-group, "SIGKILL");
  } catch {
    // The process has already ended.
  }
}

function isAlive(pid: number): boolean {
  return readOr(`/proc/${pid}/cmdline`, "").includes("start.ts");
}

/** Live processes of a group, from Linux's /proc. Zombies do not count. */
export function membersOf(group: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      // `pid (name) state parent group …`, and the name may contain anything.
      const [state, , processGroup] = readOr(`/proc/${pid}/stat`, "").split(") ").at(-1)?.split(" ") ?? [];
      return Number(processGroup) === group && state !== "Z";
    });
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return otherwise;
  }
}

export async function until(condition: () => Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`It did not happen within ${withinMs} ms: ${what}`);
    await sleep(50);
  }
}
