// `npm run conformance`: runs the MCP conformance suite for both protocol revisions and prints what passed. It starts a
// whole system whose Worker is test/support/conformance-worker.ts, so that each request takes the product's own path: Host
// and Origin checks, API key, the tenant's object. The suite cannot send a token, so it talks to a small proxy that adds
// one and passes everything else on unchanged. test/support/conformance-*.yaml lists what may fail. Any other failure, and
// any listed entry that passes, makes the exit code 1.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { type Server, createServer, request as forward } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { readFlags, wholeNumber } from "../cli/flags.ts";
import { removePostgresData } from "./postgres/postgres.ts";
import { freePort } from "../cli/ports.ts";
import { planNames } from "../src/core/plans/plans.ts";
import { type System, startSystem } from "./system.ts";

const root = join(import.meta.dirname, "..");
const revisions = ["2025-11-25", "2026-07-28"] as const;
/** A sign-up takes about a second, and a few seconds on a busy machine. A minute means that it is stuck. */
const ACTIVE_WITHIN_MS = 60_000;
/** The suite sends more in a minute than most plans admit. It is the only caller, so only its own bursts bound the calls. */
const limits = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 128 };

const Checks = z.array(
  z.object({
    id: z.string(),
    status: z.enum(["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO"]),
    errorMessage: z.string().optional(),
  }),
);
type Check = z.infer<typeof Checks>[number];

const Tenant = z.object({ id: z.string(), statusUrl: z.url() });
const Status = z.object({ state: z.string(), error: z.string().nullish() });
const Key = z.object({ apiKey: z.string() });

const command = "npm run conformance";
const { values: options } = readFlags({
  command,
  help: `
npm run conformance [-- FLAGS]      the MCP conformance suite against a local system, for both protocol revisions

  --url URL          test this MCP server instead of starting one
  --token TOKEN      bearer token for --url
  --proxy-port N     port of the proxy that adds the token, for a server that must know its clients' origin (any free one)
  --help             this text`,
  flags: { url: { type: "string" }, token: { type: "string" }, "proxy-port": { type: "string", default: "0" } },
});

const workDir = await mkdtemp(join(tmpdir(), "tollgate-conformance-"));
const systemDir = join(workDir, "system");
const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupted.abort());

let target: Target = { url: options.url, token: options.token };
const proxy = await startProxy(() => target, wholeNumber(command, "proxy-port", options["proxy-port"], 0));
const proxyOrigin = `http://127.0.0.1:${portOf(proxy)}`;
let system: System | undefined;
let outcome: Outcome = { passed: 0, failed: 0, allowed: 0 };
try {
  if (options.url === undefined) {
    system = await startSystem({
      dir: systemDir,
      port: await freePort(),
      entry: join(root, "test", "support", "conformance-worker.ts"),
      vars: { ALLOWED_ORIGINS: proxyOrigin },
    });
    target = { url: `${system.publicUrl}/mcp`, token: await newTenantKey(system) };
  }
  for (const revision of revisions) outcome = add(outcome, await runRevision(revision));
} catch (error) {
  if (!interrupted.signal.aborted) throw error;
} finally {
  await system?.stop();
  await removePostgresData(join(systemDir, "postgres")); // it can be outside of `systemDir`
  proxy.close();
  proxy.closeAllConnections();
}
if (interrupted.signal.aborted || outcome.failed === 0) await rm(workDir, { recursive: true });
else print(`\nThe output of the suite, and of a Worker started here, is in ${workDir}`);
if (interrupted.signal.aborted) print("\nInterrupted");
else print(`\n${outcome.passed} passed, ${outcome.failed} failed, ${outcome.allowed} allowed`);
process.exitCode = interrupted.signal.aborted || outcome.failed > 0 ? 1 : 0;

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

/** A scenario without a success or a failure (no session, no such notification) checked nothing, so it does not count. */
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
      // A scenario that crashed leaves its directory empty.
      const crashed: Check[] = [{ id: scenario, status: "FAILURE", errorMessage: "The scenario crashed" }];
      const json = await readFile(join(outDir, directory, "checks.json"), "utf8").catch(() => undefined);
      return { scenario, checks: json === undefined ? crashed : Checks.parse(JSON.parse(json)) };
    }),
  );
}

/** `announced` is the number of scenarios that the suite announced. */
async function runSuite(args: readonly string[], logFile: string): Promise<{ exitCode: number; announced: number }> {
  const program = join(root, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js");
  const suite = spawn(process.execPath, [program, "server", ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    signal: interrupted.signal,
  });
  let output = "";
  for (const stream of [suite.stdout, suite.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
    });
  }
  await once(suite, "close");
  await writeFile(logFile, output);
  const announced = Number(/\((?<count>\d+) scenarios\)/.exec(output)?.groups?.count ?? 0);
  return { exitCode: suite.exitCode ?? 1, announced };
}

/**
 * Creates a tenant on the app's first plan, without that plan's limits, and returns its API key. Throws when a real service
 * replaces a stand-in, so that the tenant never reaches a real database, Stripe account or monitor.
 */
async function newTenantKey({ publicUrl, settings, databases, stripe, monitor }: System): Promise<string> {
  if (databases === undefined || stripe === undefined || monitor === undefined) {
    throw new Error("A stand-in of the local system is missing.");
  }
  const operator = async (path: string, body: unknown): Promise<unknown> => {
    const response = await fetch(`${publicUrl}/admin/api${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${settings.secrets.operatorToken}` },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${(await response.text()).slice(0, 300)}`);
    return response.json();
  };
  const { id, statusUrl } = Tenant.parse(
    await operator("/tenants", { name: "Conformance", plan: planNames[0], limits }),
  );
  const deadline = Date.now() + ACTIVE_WITHIN_MS;
  for (;;) {
    interrupted.signal.throwIfAborted();
    const { state, error } = Status.parse(await (await fetch(statusUrl)).json());
    if (state === "active") break;
    if (Date.now() > deadline) throw new Error(`The tenant is still ${state}: ${error ?? "no error was recorded"}`);
    await sleep(50);
  }
  return Key.parse(await operator(`/tenants/${id}/keys`, { name: "conformance" })).apiKey;
}

interface Target {
  /** `undefined` while the server is starting. */
  url: string | undefined;
  token: string | undefined;
}

async function startProxy(to: () => Target, port: number): Promise<Server> {
  const server = createServer((incoming, outgoing) => {
    const { url: base, token } = to();
    const url = new URL(incoming.url ?? "/", base);
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
    // When the client disconnects early, the proxy disconnects from the server too.
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

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
