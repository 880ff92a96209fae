// `npm start` in a folder of its own, as its user has it: started, driven by clients who keep what they were told, killed
// with everything that belongs to it, and looked at from outside. For the test and the program that kill it.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { childEnvironment } from "../../dev/child-environment.ts";
import { removePostgresData } from "../../dev/postgres/postgres.ts";
import { freePort } from "../../cli/settings.ts";

const READY_WITHIN_MS = 45_000;
/** A tool that the demonstration does not use: its rows in the ledger are those of this run's clients. */
export const TOOL = "list_documents";

export interface Demo {
  baseUrl: string;
  operator: { token: string };
  tenants: { id: string; plan: string; apiKey: string }[];
  stripe: { apiBase: string };
  postgres: { controlUrl: string };
  pids: { group: number };
}

export interface Started {
  front: ChildProcess;
  exited: Promise<number | null>;
  demo: Demo;
}

/** What a client knows of its calls to one tenant. */
export interface Seen {
  /** Of calls that succeeded: the ids under which they were charged. */
  receipts: Set<string>;
  /** No answer came, or one that says that nobody knows: such a call may have been charged or not. */
  unanswered: number;
}

export type DemoSystem = Awaited<ReturnType<typeof demoSystem>>;

/** A folder for `npm start`. Nothing runs yet; `end` stops and removes whatever there is by then. */
export async function demoSystem() {
  const dir = await mkdtemp(join(tmpdir(), "tollgate-crash-"));
  const root = resolve(import.meta.dirname, "../..");
  const port = await freePort();
  const groups = new Set<number>();
  const fronts = new Set<ChildProcess>();

  return {
    port,
    settings: () => JSON.parse(readFileSync(join(dir, "settings.json"), "utf8")) as { ports: Record<string, number> },

    /** Starts the program as `npm start` does and waits until it says by its file that it is ready. */
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
        // Known from the lock before the program is ready, so that a failed start leaves nothing behind either.
        const leader = Number(readOr(join(dir, "lock"), "0"));
        if (leader > 1 && readOr(`/proc/${leader}/cmdline`, "start.ts").includes("start.ts")) groups.add(leader);
        const demo = readOr(join(dir, "demo.json"), "");
        // Only of this run: the program removes the file of an earlier one when it begins, which may not be yet.
        if (demo !== "" && (JSON.parse(demo) as Demo).pids.group === leader && isAlive(leader)) {
          return { front, exited, demo: JSON.parse(demo) as Demo };
        }
        if (front.exitCode !== null || Date.now() > deadline) throw new Error(`It did not get ready:\n${output}`);
        await sleep(50);
      }
    },

    /** `kill -9` of everything that belongs to it, and waits until it is gone. */
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

/** Calls one tenant until `ended`, one call after the other. */
export async function callUntil(ended: AbortSignal, baseUrl: string, apiKey: string, seen: Seen): Promise<void> {
  while (!ended.aborted) {
    await callOnce(baseUrl, apiKey, seen);
    await sleep(20);
  }
}

/** One call. Returns whether it succeeded, and writes down what its client was told. */
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
    // Who could not connect has asked nothing.
    const { code } = ((error as Error).cause ?? {}) as { code?: string };
    if (code !== "ECONNREFUSED") seen.unanswered += 1;
    return false;
  }
}

/** The ids of this run's calls in the ledger, by tenant. */
export async function ledgerIds(demo: Demo): Promise<Map<string, Set<string>>> {
  const rows = await controlRows<{ tenant_id: string; ids: string[] }>(
    demo,
    `SELECT tenant_id, array_agg(call_id) AS ids FROM ledger WHERE tool = $1 GROUP BY tenant_id`,
    [TOOL],
  );
  return new Map(rows.map(({ tenant_id: id, ids }) => [id, new Set(ids)]));
}

/** Whether each sequence is in the ledger from 1 to its end. */
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
    // It is gone already.
  }
}

function isAlive(pid: number): boolean {
  return readOr(`/proc/${pid}/cmdline`, "").includes("start.ts");
}

/** Processes of a group, as Linux tells it; those that have ended and only wait to be collected do not count. */
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

export async function until(condition: () => Promise<boolean>, what: string, withinMs = 20_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`It did not happen within ${withinMs} ms: ${what}`);
    await sleep(50);
  }
}
