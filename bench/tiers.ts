// Measures the same calls in each tier: a query, a transaction known in advance, an interactive transaction, and a write. The
// tiers take turns in one system, so that other load on the machine affects all of them. Figures are medians of the rounds. The
// proxy in front of PostgreSQL counts round trips.
import { cpuMs, cpuMsOfTree, descendantsNamed } from "./cpu.ts";
import { type BenchTenant, type Way, makeTenant, percentile, print, runSql, startBenchSystem } from "./tenants.ts";
import type { System } from "../dev/system.ts";
import { type Strategy, strategies } from "../src/core/plans/plans.ts";

const one = `SELECT id, name, price_cents FROM products WHERE category = 'lighting' ORDER BY name`;
const write = `UPDATE products SET stock = stock + 1 WHERE id = 'lamp-arc' RETURNING stock`;

const kinds: readonly { name: string; as: Way; statements: readonly string[] }[] = [
  { name: "query", as: "queries", statements: [one] },
  { name: "write", as: "queries", statements: [write] },
  { name: "known transaction of 3", as: "transaction", statements: [one, write, one] },
  { name: "conversation of 3", as: "conversation", statements: [one, write, one] },
];

interface Round {
  p50Ms: number;
  workerdMs: number;
  postgresMs: number;
  trips: number;
}

export async function benchTiers(options: {
  dir: string;
  running: (() => Promise<unknown>)[];
  calls: number;
  rounds: number;
}): Promise<void> {
  const { calls, rounds } = options;
  const system = await startBenchSystem(options);
  const tenants = new Map<Strategy, BenchTenant>();
  for (const strategy of strategies) tenants.set(strategy, await makeTenant(system, strategy));

  const results = new Map<string, Round[]>();
  for (let round = 0; round <= rounds; round += 1) {
    for (const { name, as, statements } of kinds) {
      for (const [strategy, tenant] of tenants) {
        const measured = await measure(system, calls, () => runSql(system, tenant, as, statements));
        if (round === 0) continue; // warms everything up
        const key = `${name}/${strategy}`;
        results.set(key, [...(results.get(key) ?? []), measured]);
      }
    }
  }

  print(`${rounds} rounds of ${calls} calls, one after another; medians. The ratio is to the shared tier.`);
  for (const { name } of kinds) {
    print(`\n${name}`);
    const shared = summary(results.get(`${name}/shared`) ?? []);
    for (const strategy of strategies) {
      const { p50Ms, workerdMs, postgresMs, trips } = summary(results.get(`${name}/${strategy}`) ?? []);
      const cpu = workerdMs + postgresMs;
      print(
        `  ${strategy.padEnd(9)} ${p50Ms.toFixed(2).padStart(6)} ms (${(p50Ms / shared.p50Ms).toFixed(2)})   ` +
          `CPU workerd ${workerdMs.toFixed(2)} + PostgreSQL ${postgresMs.toFixed(2)} ms ` +
          `(${(cpu / (shared.workerdMs + shared.postgresMs)).toFixed(2)})   HTTP round trips ${trips.toFixed(3)}`,
      );
    }
  }
}

async function measure(system: System, calls: number, call: () => Promise<unknown>): Promise<Round> {
  const { databases, worker } = system;
  if (databases === undefined) throw new Error("The benchmark runs on the local stand-ins.");
  const workerd = descendantsNamed(worker.child.pid ?? 0, "workerd");
  if (workerd.length === 0) throw new Error("There is no workerd below the local Worker's process.");
  const workerdCpu = (): number => workerd.reduce((sum, pid) => sum + cpuMs(pid), 0);
  const trips = (): number =>
    Object.entries(databases.proxy.stats().connections)
      .filter(([name]) => !name.endsWith("/tollgate_control"))
      .reduce((sum, [, { httpBatches }]) => sum + httpBatches, 0);
  const before = { workerd: workerdCpu(), postgres: cpuMsOfTree(databases.postgres.pid), trips: trips() };
  const times: number[] = [];
  for (let n = 0; n < calls; n += 1) {
    const startedAt = performance.now();
    await call();
    times.push(performance.now() - startedAt);
  }
  return {
    p50Ms: percentile(times, 0.5),
    workerdMs: (workerdCpu() - before.workerd) / calls,
    postgresMs: (cpuMsOfTree(databases.postgres.pid) - before.postgres) / calls,
    trips: (trips() - before.trips) / calls,
  };
}

function summary(rounds: readonly Round[]): Round {
  const median = (pick: (round: Round) => number): number => percentile(rounds.map(pick), 0.5);
  return {
    p50Ms: median(({ p50Ms }) => p50Ms),
    workerdMs: median(({ workerdMs }) => workerdMs),
    postgresMs: median(({ postgresMs }) => postgresMs),
    trips: median(({ trips }) => trips),
  };
}
