// Runs the MCP conformance suite for both revisions and says what passed. Without arguments it serves the fixtures of
// test/support itself; with `--url` it tests a server that runs already. The suite can send no token, so it talks to a
// small proxy that adds one (`--token`) and otherwise passes every byte and header on as it is. What may fail is listed
// in test/support/conformance-*.yaml; anything else that fails, and any entry that passes, makes the exit code 1.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { type Server, createServer, request as forward } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as z from "zod";

const root = join(import.meta.dirname, "..");
const revisions = ["2025-11-25", "2026-07-28"] as const;
/** Far above the seconds that a start takes on a slow machine. */
const START_TIMEOUT_MS = 60_000;

const Checks = z.array(
  z.object({
    id: z.string(),
    status: z.enum(["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO"]),
    errorMessage: z.string().optional(),
  }),
);
type Check = z.infer<typeof Checks>[number];

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    token: { type: "string" },
    /** The proxy's port, for a server that must be told its clients' origin before it starts. */
    "proxy-port": { type: "string", default: "0" },
  },
});

const workDir = await mkdtemp(join(tmpdir(), "tollgate-conformance-"));
const children = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    void Promise.all([...children].map(stop))
      .then(() => rm(workDir, { recursive: true }))
      .finally(() => process.exit(1));
  });
}

const target = { url: options.url };
const proxy = await startProxy(() => target.url, Number(options["proxy-port"]), options.token);
const proxyOrigin = `http://127.0.0.1:${portOf(proxy)}`;
let outcome: Outcome = { passed: 0, failed: 0, allowed: 0 };
try {
  target.url ??= await startFixtureWorker(proxyOrigin);
  for (const revision of revisions) outcome = add(outcome, await runRevision(revision));
} finally {
  await Promise.all([...children].map(stop));
  proxy.close();
  proxy.closeAllConnections();
}
if (outcome.failed === 0) await rm(workDir, { recursive: true });
else print(`\nThe suite's own output is in ${workDir}`);
print(`\n${outcome.passed} passed, ${outcome.failed} failed, ${outcome.allowed} allowed`);
process.exitCode = outcome.failed === 0 ? 0 : 1;

interface Outcome {
  passed: number;
  failed: number;
  allowed: number;
}

function add(a: Outcome, b: Outcome): Outcome {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, allowed: a.allowed + b.allowed };
}

interface Allowance {
  scenario: string;
  /** `undefined`: the whole scenario. */
  checkId: string | undefined;
  reason: string;
}

async function runRevision(revision: string): Promise<Outcome> {
  const allowanceFile = join(root, "test", "support", `conformance-${revision}.yaml`);
  const allowances = parseAllowances(await readFile(allowanceFile, "utf8"));
  const outDir = join(workDir, revision);
  await mkdir(outDir);
  const { exitCode, announced } = await runSuite(
    ["--url", `${proxyOrigin}/mcp`, "--requirements", revision, "--expected-failures", allowanceFile, "-o", outDir],
    join(workDir, `${revision}.log`),
  );

  print(`\nMCP ${revision}`);
  const result: Outcome = { passed: 0, failed: 0, allowed: 0 };
  const results = await readResults(outDir);
  for (const { scenario, checks } of results) {
    const mine = allowances.filter((allowance) => allowance.scenario === scenario);
    const allowance = (check: Check) => mine.find(({ checkId }) => checkId === undefined || checkId === check.id);
    const failures = checks.filter(({ status }) => status === "FAILURE");
    const warnings = checks.filter(({ status }) => status === "WARNING");
    const unexpected = [...failures, ...warnings].filter((check) => allowance(check) === undefined);
    const stale = mine.filter((entry) => ![...failures, ...warnings].some((check) => allowance(check) === entry));

    const successes = checks.filter(({ status }) => status === "SUCCESS");
    const verdict = verdictOf({ unexpected: unexpected.length + stale.length, failures, successes });
    if (verdict !== "n/a") result[verdict]++;
    const score = `${String(successes.length).padStart(3)} of ${checks.length} checks`;
    print(`  ${verdict.padEnd(8)}${scenario.padEnd(47)}${score}`);
    for (const check of unexpected) print(`            ${check.id}: ${check.errorMessage ?? check.status}`);
    for (const entry of stale) print(`            ${entry.checkId ?? "the scenario"} passes: remove it from the list`);
    for (const entry of mine) if (!stale.includes(entry)) print(`            ${entry.reason}`);
  }
  const unknown = allowances.filter((entry) => !results.some(({ scenario }) => scenario === entry.scenario));
  for (const { scenario } of unknown) print(`  failed  ${scenario} is on the list but not in the suite`);
  result.failed += unknown.length;
  // The suite and this table judge by the same list; when they differ, the run proves nothing.
  if (results.length !== announced || (exitCode !== 0 && result.failed === 0)) {
    print(`  failed  the suite ended with ${exitCode} after ${results.length} of ${announced} scenarios`);
    result.failed++;
  }
  return result;
}

interface Findings {
  unexpected: number;
  failures: readonly Check[];
  successes: readonly Check[];
}

/** A scenario that found nothing to check (no session, no such notification) proves nothing: it is not counted. */
function verdictOf({ unexpected, failures, successes }: Findings): keyof Outcome | "n/a" {
  if (unexpected > 0) return "failed";
  if (failures.length > 0) return "allowed";
  return successes.length > 0 ? "passed" : "n/a";
}

function parseAllowances(yaml: string): Allowance[] {
  return [...yaml.matchAll(/^ {2}- (?<scenario>[^\s:#]+)(?::(?<checkId>\S+))? # (?<reason>.+)$/gm)].map(
    ({ groups }) => ({
      scenario: groups?.scenario ?? "",
      checkId: groups?.checkId,
      reason: groups?.reason ?? "",
    }),
  );
}

async function readResults(outDir: string): Promise<{ scenario: string; checks: Check[] }[]> {
  const directories = (await readdir(outDir)).toSorted();
  return Promise.all(
    directories.map(async (directory) => {
      const scenario = directory.replace(/^server-/, "").replace(/-\d{4}-\d{2}-\d{2}T[\d-]+Z$/, "");
      // A scenario that broke off leaves its directory empty.
      const brokeOff: Check[] = [{ id: scenario, status: "FAILURE", errorMessage: "The scenario broke off" }];
      const json = await readFile(join(outDir, directory, "checks.json"), "utf8").catch(() => undefined);
      return { scenario, checks: json === undefined ? brokeOff : Checks.parse(JSON.parse(json)) };
    }),
  );
}

/** `announced`: how many scenarios the suite said it would run. */
async function runSuite(args: readonly string[], logFile: string): Promise<{ exitCode: number; announced: number }> {
  const program = join(root, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js");
  const suite = start([program, "server", ...args]);
  let output = "";
  for (const stream of [suite.stdout, suite.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
    });
  }
  await once(suite, "close");
  await writeFile(logFile, output);
  const announced = Number(/\((?<count>\d+) scenarios\)/.exec(output)?.groups?.count ?? 0);
  return { exitCode: suite.exitCode ?? 1, announced };
}

/** Serves test/support/conformance-worker.ts on a port of its own. Gives its URL once it answers. */
async function startFixtureWorker(clientOrigin: string): Promise<string> {
  const config = join(root, "test", "support", "conformance.wrangler.toml");
  const flags = "--ip 127.0.0.1 --port 0 --inspector-port 0 --show-interactive-dev-session=false".split(" ");
  const wrangler = join(root, "node_modules", "wrangler", "bin", "wrangler.js");
  const state = join(workDir, "state");
  const origins = `ALLOWED_ORIGINS:${clientOrigin}`;
  const worker = start([wrangler, "dev", "--config", config, ...flags, "--persist-to", state, "--var", origins]);
  let output = "";
  const ready = Promise.withResolvers<string>();
  const timer = setTimeout(() => ready.reject(new Error(`wrangler dev did not start:\n${output}`)), START_TIMEOUT_MS);
  worker.once("exit", () => ready.reject(new Error(`wrangler dev ended:\n${output}`)));
  for (const stream of [worker.stdout, worker.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      const url = /Ready on (?<url>http:\/\/127\.0\.0\.1:\d+)/.exec(output)?.groups?.url;
      if (url !== undefined) ready.resolve(`${url}/mcp`);
    });
  }
  return ready.promise.finally(() => clearTimeout(timer));
}

async function startProxy(to: () => string | undefined, port: number, token: string | undefined): Promise<Server> {
  const server = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url ?? "/", to());
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const upstream = forward(url.href, {
      method: incoming.method ?? "GET",
      headers: { ...incoming.headers, ...authorization },
    });
    upstream.on("response", (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    upstream.on("error", () => outgoing.destroy());
    // The client has gone before its answer was finished: the server must learn it.
    outgoing.on("close", () => outgoing.writableFinished || upstream.destroy());
    incoming.pipe(upstream);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The proxy listens on no port");
  return address.port;
}

/** Starts a Node program in a process group of its own, so that whatever it starts ends with it. */
function start(args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, args, {
    cwd: root,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    // No telemetry, no version check, no sample request metadata: the run needs nothing but the loopback.
    env: {
      ...process.env,
      WRANGLER_SEND_METRICS: "false",
      WRANGLER_HIDE_BANNER: "true",
      CLOUDFLARE_CF_FETCH_ENABLED: "false",
    },
  });
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null) return;
  const ended = once(child, "exit");
  process.kill(-child.pid, "SIGTERM");
  const timer = setTimeout(() => child.pid !== undefined && process.kill(-child.pid, "SIGKILL"), 5_000);
  await ended;
  clearTimeout(timer);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
