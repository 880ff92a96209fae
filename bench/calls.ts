// Measures what a call costs, compared with a hand-written minimum (the floor). All variants use one PostgreSQL and one proxy;
// each bundle has a workerd of its own. The variants take turns for several rounds, so that other load on the machine affects
// all of them. The figures are medians of the rounds. CPU time comes from the kernel, because a busy machine disturbs it less
// than elapsed time. The proxy counts round trips, and the objects count their calls.
import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cpuMs, cpuMsOfTree } from "./cpu.ts";
import { measureDecision, median } from "./decision.ts";
import { type Ground, layGround, stopChild } from "./ground.ts";
import type { LoadJob, LoadResult } from "./load.ts";
import { letIn } from "./let-in.ts";
import { describeProfile, profileWhile } from "./profile.ts";
import { bundle } from "../dev/bundle.ts";
import { type Runtime, startRuntime } from "./runtime.ts";
import { type RuntimeName, type Variant, variants } from "./variants.ts";

const CONNECTIONS = 16;
const TENANTS = 16;
/** The outbox waits two seconds and the queue one. A lost message would return after a minute, and counts as a fault here. */
const METERED_WITHIN_MS = 30_000;

export interface CallsOptions {
  /** An empty folder for this run. */
  dir: string;
  /** Gets a function for each started process, which stops it. */
  running: (() => Promise<unknown>)[];
  /** Calls of a round. */
  calls: number;
  rounds: number;
  /** Names of variants. Empty means all. */
  only: readonly string[];
  /** Profiles the first variant instead of measuring. */
  profile: boolean;
}

interface Measured {
  callsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  workerdMs: number;
  postgresMs: number;
  proxyMs: number;
  /** workerd and PostgreSQL between the last answer and the last row in the ledger; part of both above. */
  meteringTailMs: number;
  roundTrips: number;
  controlRoundTrips: number;
  objectCalls: number;
  otherObjectCalls: number;
}

type Counters = Partial<Record<"call" | "admit" | "authorize" | "cancel" | "acknowledge", number>>;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function startLoad(running: CallsOptions["running"]): (job: LoadJob) => Promise<LoadResult> {
  const child = fork(join(import.meta.dirname, "load.ts"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  running.push(() => stopChild(child));
  return async (job) => {
    child.send(job);
    const [message] = (await once(child, "message")) as [{ result?: LoadResult; error?: string }];
    if (message.result === undefined) throw new Error(message.error);
    return message.result;
  };
}

async function readCounters({ port }: Runtime): Promise<{ calls: number; others: number }> {
  const response = await fetch(`http://127.0.0.1:${port}/bench/counters`);
  const { call = 0, admit = 0, authorize = 0, cancel = 0 } = (await response.json()) as Counters;
  return { calls: call + admit, others: authorize + cancel };
}

async function untilMetered(ground: Ground, calls: number): Promise<void> {
  const deadlineMs = Date.now() + METERED_WITHIN_MS;
  while ((await ground.metered()) < calls) {
    if (Date.now() > deadlineMs) throw new Error(`the ledger has ${await ground.metered()} of ${calls} calls`);
    await sleep(100);
  }
}

/** Measures and prints. Throws when a result is wrong. */
export async function benchCalls(options: CallsOptions): Promise<void> {
  const { dir, running, calls: callsPerRound, rounds: roundCount, only } = options;
  const chosen = variants.filter(({ name }) => only.length === 0 || only.includes(name));
  if (chosen.length === 0) throw new Error(`--only takes ${variants.map(({ name }) => name).join(", ")}`);
  const decision = measureDecision();
  print("admission at a full window of 10,000 units (Node, CPU time)");
  print(`  decide + settle ${decision.admittedNs.toFixed(0)} ns, refuse ${decision.refusedNs.toFixed(0)} ns`);
  print(
    `  memory ${(decision.totalBytes / 1024).toFixed(1)} KiB, of which logs ${(decision.arrayBytes / 1024).toFixed(1)} KiB`,
  );
  print("");

  const ground = await layGround({ dir, tenants: TENANTS, running });
  const load = startLoad(running);
  const names = new Set<RuntimeName>(chosen.map(({ runtime }) => runtime));
  if (names.has("constant")) names.add("floor"); // its answer is the constant
  const scripts: Partial<Record<RuntimeName, string>> = {};
  const runtimes: Partial<Record<RuntimeName, Runtime>> = {};
  const start = async (
    name: RuntimeName,
    worker: { config: string; entry?: string },
    extra: Record<string, string> = {},
  ) => {
    if (!names.has(name)) return;
    const script = (scripts[name] = await bundle({ ...worker, outDir: join(dir, `bundle-${name}`) }));
    const inspect = options.profile && chosen[0]?.runtime === name;
    runtimes[name] = await startRuntime(script, {
      dir: join(dir, name),
      vars: { ...ground.vars, ...extra },
      inspect,
      running,
    });
  };
  await start("product", { config: "wrangler.toml", entry: "bench/product-worker.ts" });
  if (runtimes.product !== undefined) await letIn(runtimes.product, ground.vars.PUBLIC_URL, ground.tenants);
  await start("floor", { config: "bench/floor.wrangler.toml" });
  if (names.has("constant")) {
    const floor = variants.find(({ name }) => name === "floor");
    if (floor === undefined || runtimes.floor === undefined) throw new Error("The floor is not running");
    const requests = ground.tenants.map((tenant) => floor.request(tenant));
    const { sample } = await load({ port: runtimes.floor.port, requests, connections: 1, calls: 1 });
    await start("constant", { config: "bench/constant.wrangler.toml" }, { ANSWER: sample });
  }

  let metered = 0;
  const runOnce = async (variant: Variant, calls: number): Promise<Measured & { sample: string }> => {
    const runtime = runtimes[variant.runtime];
    if (runtime === undefined) throw new Error(`${variant.runtime} is not running`);
    const requests = ground.tenants.map((tenant) => variant.request(tenant));
    const read = () => ({
      workerd: cpuMs(runtime.pid),
      postgres: cpuMsOfTree(ground.postgresPid),
      proxy: cpuMs(ground.proxyPid),
    });
    const [tripsBefore, countedBefore] = [await ground.roundTrips(), await readCountersOf(variant, runtime)];
    const before = read();
    const { seconds, p50Ms, p99Ms, sample } = await load({
      port: runtime.port,
      requests,
      connections: CONNECTIONS,
      calls,
    });
    const answered = read();
    if (variant.metered) await untilMetered(ground, (metered += calls));
    const after = read();
    const [trips, counted] = [await ground.roundTrips(), await readCountersOf(variant, runtime)];
    return {
      callsPerSecond: calls / seconds,
      p50Ms,
      p99Ms,
      workerdMs: (after.workerd - before.workerd) / calls,
      postgresMs: (after.postgres - before.postgres) / calls,
      proxyMs: (after.proxy - before.proxy) / calls,
      meteringTailMs: (after.workerd - answered.workerd + after.postgres - answered.postgres) / calls,
      roundTrips: (trips.shared - tripsBefore.shared) / calls,
      controlRoundTrips: (trips.control - tripsBefore.control) / calls,
      objectCalls: (counted.calls - countedBefore.calls) / calls,
      otherObjectCalls: (counted.others - countedBefore.others) / calls,
      sample,
    };
  };

  for (const variant of chosen) {
    const { sample } = await runOnce(variant, callsPerRound * variant.times);
    const answer = JSON.parse(sample) as { result: { structuredContent: { products: unknown[] } } };
    if (answer.result.structuredContent.products.length !== 10) throw new Error(`${variant.name} found something else`);
  }

  if (options.profile) {
    const [variant] = chosen;
    const runtime = variant && runtimes[variant.runtime];
    const script = variant && scripts[variant.runtime];
    if (variant === undefined || runtime === undefined || script === undefined) throw new Error("nothing to profile");
    const calls = callsPerRound * 2;
    const profile = await profileWhile(await runtime.miniflare.getInspectorURL(), variant.runtime, () =>
      runOnce(variant, calls),
    );
    print(`profile of ${variant.name}, ${calls} calls`);
    for (const line of describeProfile(profile, script, calls)) print(line);
    return;
  }

  const rounds = new Map<Variant, Measured[]>(chosen.map((variant) => [variant, []]));
  for (let round = 0; round < roundCount; round++) {
    // In every other round backwards, so that none is always the first to meet what has changed.
    const order = round % 2 === 0 ? [...rounds] : [...rounds].toReversed();
    for (const [variant, results] of order) results.push(await runOnce(variant, callsPerRound * variant.times));
  }
  const of = (variant: Variant, field: keyof Measured): number =>
    median((rounds.get(variant) ?? []).map((each) => each[field]));

  print(
    `medians of ${roundCount} rounds of ${callsPerRound} calls, ${CONNECTIONS} connections, ${TENANTS} tenants; CPU in ms a call`,
  );
  const header = [
    "variant",
    "calls/s",
    "p50 ms",
    "p99 ms",
    "workerd",
    "postgres",
    "sum",
    "of it after",
    "proxy",
    "trips",
    "control",
    "objects",
  ];
  const rows = chosen.map((variant) => [
    variant.name,
    of(variant, "callsPerSecond").toFixed(0),
    of(variant, "p50Ms").toFixed(1),
    of(variant, "p99Ms").toFixed(1),
    of(variant, "workerdMs").toFixed(3),
    of(variant, "postgresMs").toFixed(3),
    (of(variant, "workerdMs") + of(variant, "postgresMs")).toFixed(3),
    of(variant, "meteringTailMs").toFixed(3),
    of(variant, "proxyMs").toFixed(3),
    of(variant, "roundTrips").toFixed(3),
    of(variant, "controlRoundTrips").toFixed(3),
    (of(variant, "objectCalls") + of(variant, "otherObjectCalls")).toFixed(3),
  ]);
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ");
  for (const row of [header, ...rows]) print(line(row));

  const named = (name: string): Variant | undefined => chosen.find((variant) => variant.name === name);
  const ratio = (over: string, under: string): void => {
    const [a, b] = [named(over), named(under)];
    if (a === undefined || b === undefined) return;
    const cpu = (variant: Variant): number => of(variant, "workerdMs") + of(variant, "postgresMs");
    const slower = of(b, "callsPerSecond") / of(a, "callsPerSecond");
    print(`${over} / ${under}: ${(cpu(a) / cpu(b)).toFixed(2)} in CPU, ${slower.toFixed(2)} in time a call`);
  };
  /** Of each round by itself: rounds follow each other under a load that changes. Half of them are between the last two. */
  const roundRatio = (over: string, under: string): void => {
    const [a, b] = [named(over), named(under)];
    if (a === undefined || b === undefined) return;
    const cpu = ({ workerdMs, postgresMs }: Measured): number => workerdMs + postgresMs;
    const below = rounds.get(b) ?? [];
    const ratios = (rounds.get(a) ?? [])
      .flatMap((each, round) => (below[round] === undefined ? [] : [cpu(each) / cpu(below[round])]))
      .toSorted((x, y) => x - y);
    const at = (share: number): string => (ratios[Math.floor(share * (ratios.length - 1))] ?? 0).toFixed(3);
    print(
      `${over} / ${under}: ${median(ratios).toFixed(3)} in CPU, the median of the rounds; ${at(0.25)} to ${at(0.75)}`,
    );
  };
  print("");
  roundRatio("product-oauth", "product");
  ratio("product", "floor");
  ratio("product-legacy", "floor");
  ratio("product-jwt", "product");
  ratio("floor-callback", "floor");
  ratio("floor", "constant");
}

async function readCountersOf(variant: Variant, runtime: Runtime): Promise<{ calls: number; others: number }> {
  return variant.runtime === "constant" ? { calls: 0, others: 0 } : readCounters(runtime);
}
