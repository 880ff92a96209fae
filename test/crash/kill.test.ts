// `npm start`, killed with everything that belongs to it in the middle of calls and of a sign-up, and started again on
// what the disk kept: nothing that a client was told is lost, and nothing is left running at the end.
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { removePostgresData } from "../../dev/postgres.ts";
import { freePort, isFree } from "../../dev/settings.ts";

const READY_WITHIN_MS = 45_000;
const STOP_WITHIN_MS = 15_000;
/** Calls run for this long before the kill. */
const CALLS_FOR_MS = 1_500;
/** A tool that the demonstration does not use: its rows in the ledger are those of this test. */
const TOOL = "list_documents";

interface Demo {
  baseUrl: string;
  operator: { token: string };
  tenants: { id: string; plan: string; apiKey: string }[];
  stripe: { apiBase: string };
  postgres: { controlUrl: string };
  pids: { group: number };
}

interface Started {
  front: ChildProcess;
  exited: Promise<number | null>;
  demo: Demo;
}

/** What a client knows of its calls to one tenant. */
interface Seen {
  successes: number;
  /** No answer came: such a call may have been charged or not. */
  unanswered: number;
}

const dir = await mkdtemp(join(tmpdir(), "tollgate-crash-"));
const root = resolve(import.meta.dirname, "../..");
const groups = new Set<number>();
const fronts = new Set<ChildProcess>();

afterAll(async () => {
  for (const group of groups) killGroup(group);
  for (const front of fronts) front.kill("SIGKILL");
  await until(async () => [...groups].every((group) => membersOf(group).length === 0), "nothing of it runs").catch(
    () => undefined,
  );
  await removePostgresData(join(dir, "postgres"));
  await rm(dir, { recursive: true, force: true });
});

test("a kill of everything loses nothing that a client was told, and a stop leaves nothing running", async () => {
  const port = await freePort();
  const first = await start(port);
  const { tenants } = first.demo;
  expect(tenants.map(({ plan }) => plan)).toEqual(["free", "starter", "pro", "enterprise"]);

  // A sign-up that has come as far as provisioning, and goes no further for now.
  await proxyFaults([{ kind: "slow", ms: 120_000, sql: "INTO provisioning_steps" }]);
  const order = await signUpUntilProvisioning(first.demo);

  const seen = new Map<string, Seen>(tenants.map(({ id }) => [id, { successes: 0, unanswered: 0 }]));
  const killed = new AbortController();
  const calling = tenants.flatMap(({ id, plan, apiKey }) =>
    // The free plan has 100 units an hour: it gets one caller, who takes his time.
    Array.from({ length: plan === "free" ? 1 : 3 }, () =>
      callUntil(killed.signal, first.demo.baseUrl, apiKey, seenOf(seen, id)),
    ),
  );
  await sleep(CALLS_FOR_MS);
  killGroup(first.demo.pids.group);
  killed.abort();
  await Promise.all(calling);
  expect(await first.exited).not.toBe(0);
  await until(async () => membersOf(first.demo.pids.group).length === 0, "the whole group is gone");
  for (const { successes } of seen.values()) expect(successes).toBeGreaterThan(0);

  const second = await start(port);
  const { demo } = second;
  expect(demo.baseUrl).toBe(first.demo.baseUrl);
  expect(demo.tenants.map(({ id, apiKey }) => ({ id, apiKey }))).toEqual(
    tenants.map(({ id, apiKey }) => ({ id, apiKey })),
  );
  for (const { id, apiKey } of tenants) {
    expect(await callOnce(demo.baseUrl, apiKey)).toBe("success");
    seenOf(seen, id).successes += 1;
  }

  // Every success that a client saw is in the ledger; beyond them, calls at most whose answer the kill took.
  await until(async () => {
    const counted = await ledgerCounts(demo);
    return (
      [...seen].every(([id, { successes }]) => (counted.get(id) ?? 0) >= successes) && (await areStreamsWhole(demo))
    );
  }, "all calls are in the ledger");
  const counted = await ledgerCounts(demo);
  for (const [id, { successes, unanswered }] of seen) {
    expect(counted.get(id)).toBeGreaterThanOrEqual(successes);
    expect(counted.get(id)).toBeLessThanOrEqual(successes + unanswered);
  }
  expect(await controlRows(demo, `SELECT call_id FROM ledger_conflicts`)).toEqual([]);

  // The sign-up: silence is what the sweep goes by, so the attempt is made to look as old as that.
  await controlRows(
    demo,
    `UPDATE provisioning_attempts SET progressed_at = now() - interval '2 minutes' WHERE tenant_id = $1 AND finished_at IS NULL`,
    [order.tenantId],
  );
  await fireSweep(demo);
  await until(async () => (await stateOf(order)) === "active", "the interrupted sign-up is active");
  const key = await postJson(`${demo.baseUrl}/api/tenants/${order.tenantId}/keys`, { name: "first" }, order.setupToken);
  expect(await callOnce(demo.baseUrl, (key as { apiKey: string }).apiKey)).toBe("success");

  const members = membersOf(demo.pids.group);
  expect(members.length).toBeGreaterThan(2); // the leader, the Worker's processes, PostgreSQL's
  second.front.kill("SIGINT");
  const exitCode = await Promise.race([second.exited, sleep(STOP_WITHIN_MS, "still running" as const, { ref: false })]);
  expect(exitCode).toBe(0);
  expect(membersOf(demo.pids.group)).toEqual([]);
  for (const each of [port, ...Object.values(settings().ports)])
    expect(await isFree(each), `port ${each} is free`).toBe(true);
}, 150_000);

/** Starts the program as `npm start` does and waits until it says by its file that it is ready. */
async function start(port: number): Promise<Started> {
  const front = spawn(process.execPath, [join(root, "dev/start.ts")], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, PORT: String(port), TOLLGATE_DIR: dir },
  });
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
}

function settings(): { ports: Record<string, number> } {
  return JSON.parse(readFileSync(join(dir, "settings.json"), "utf8")) as { ports: Record<string, number> };
}

async function proxyFaults(rules: readonly Record<string, unknown>[]): Promise<void> {
  await postJson(`http://127.0.0.1:${settings().ports["neon"]}/_proxy/faults`, rules);
}

interface Order {
  tenantId: string;
  checkoutUrl: string;
  statusUrl: string;
  setupToken: string;
}

async function signUpUntilProvisioning({ baseUrl }: Demo): Promise<Order> {
  const order = (await postJson(`${baseUrl}/api/checkout`, { plan: "starter", name: "Interrupted" })) as Order;
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
  await until(async () => (await stateOf(order)) === "provisioning", "the sign-up is being provisioned");
  return order;
}

async function stateOf({ statusUrl }: Order): Promise<string> {
  return ((await (await fetch(statusUrl)).json()) as { state: string }).state;
}

async function callUntil(ended: AbortSignal, baseUrl: string, apiKey: string, seen: Seen): Promise<void> {
  while (!ended.aborted) {
    const outcome = await callOnce(baseUrl, apiKey);
    if (outcome === "success") seen.successes += 1;
    if (outcome === "unanswered") seen.unanswered += 1;
    await sleep(20);
  }
}

async function callOnce(baseUrl: string, apiKey: string): Promise<"success" | "failure" | "unanswered"> {
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
    const { result } = (await response.json()) as { result?: { isError?: boolean } };
    return result !== undefined && result.isError !== true ? "success" : "failure";
  } catch {
    return "unanswered";
  }
}

async function fireSweep({ baseUrl }: Demo): Promise<void> {
  const response = await fetch(`${baseUrl}/cdn-cgi/handler/scheduled?cron=*+*+*+*+*`);
  expect(response.ok, await response.text()).toBe(true);
}

async function ledgerCounts(demo: Demo): Promise<Map<string, number>> {
  const rows = await controlRows<{ tenant_id: string; calls: number }>(
    demo,
    `SELECT tenant_id, count(*)::int AS calls FROM ledger WHERE tool = $1 GROUP BY tenant_id`,
    [TOOL],
  );
  return new Map(rows.map(({ tenant_id: id, calls }) => [id, calls]));
}

/** Whether each sequence is in the ledger from 1 to its end. */
async function areStreamsWhole(demo: Demo): Promise<boolean> {
  const broken = await controlRows(
    demo,
    `SELECT s.tenant_id FROM usage_streams s LEFT JOIN ledger l USING (tenant_id, object, epoch)
     GROUP BY s.tenant_id, s.object, s.epoch HAVING s.watermark <> s.highest OR count(l.n) <> s.highest OR max(l.n) <> s.highest`,
  );
  return broken.length === 0;
}

async function controlRows<Row extends pg.QueryResultRow>(
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

async function postJson(url: string, body: unknown, token?: string): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}

function seenOf(seen: ReadonlyMap<string, Seen>, tenantId: string): Seen {
  const of = seen.get(tenantId);
  if (of === undefined) throw new Error(`${tenantId} is none of this test`);
  return of;
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
function membersOf(group: number): number[] {
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

async function until(condition: () => Promise<boolean>, what: string, withinMs = 20_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`It did not happen within ${withinMs} ms: ${what}`);
    await sleep(50);
  }
}
