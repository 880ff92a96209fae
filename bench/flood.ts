// Measures how much a tenant within its limits feels others that flood. One tenant of a higher plan calls at its own pace, alone
// and while tenants of the lowest plan send as many requests as the machine takes. The floor (no limits, no checks) under
// the same flood shows what the machine itself costs.
import { join } from "node:path";
import { bundle } from "../dev/bundle.ts";
import { planNames, planOf } from "../src/core/plans/plans.ts";
import { startLoad } from "./calls.ts";
import { type BenchTenant, layGround } from "./ground.ts";
import type { LoadResult } from "./load.ts";
import { type Runtime, startRuntime } from "./runtime.ts";
import { percentile, print } from "./tenants.ts";
import { type Variant, variants } from "./variants.ts";

const FLOODERS = 8;
/** Calls that each flooding tenant has under way. */
const CONNECTIONS_EACH = 6;
/** Each round gives some 130 calls of the measured tenant, so that p99 is of several calls and not the slowest. */
const ROUNDS = 3;
/** Bound of p99: a tenant within its limits is a quarter slower at most. */
const BOUND = 1.25;
/** Nine calls a second: within the 600 a minute of the measured tenant's plan. */
const PACE_MS = 110;

export interface FloodOptions {
  dir: string;
  /** Of each measurement. */
  seconds: number;
  running: (() => Promise<unknown>)[];
}

/** Measures and prints. Throws when a call of the measured tenant fails. */
export async function benchFlood({ dir, seconds, running }: FloodOptions): Promise<void> {
  const [lowest] = planNames;
  const measured = planNames.find((name) => planOf(name).strategy === "schema") ?? planNames.at(-1) ?? lowest;
  const ground = await layGround({
    dir,
    tenants: 1 + FLOODERS,
    planOf: (index) => (index === 0 ? measured : lowest),
    running,
  });
  const [one, ...flooders] = ground.tenants;
  if (one === undefined) throw new Error("There is no tenant");
  const minute = planOf(lowest).limits.callsPerMinute ?? Infinity;
  print(
    `one ${measured} tenant with a call every ${PACE_MS} ms, ${seconds} s each; ${FLOODERS} ${lowest} tenants flood over ${FLOODERS * CONNECTIONS_EACH} connections`,
  );
  const runs = new Map<string, Run>();
  for (const name of ["product", "floor"] as const) {
    const variant = variants.find((each) => each.name === name);
    if (variant === undefined) throw new Error(`there is no variant ${name}`);
    const worker =
      name === "product"
        ? { config: "wrangler.toml", entry: "bench/product-worker.ts" }
        : { config: "bench/floor.wrangler.toml" };
    const script = await bundle({ ...worker, outDir: join(dir, `bundle-${name}`) });
    const runtime = await startRuntime(script, { dir: join(dir, name), vars: ground.vars, running });
    runs.set(name, { runtime, variant, alone: [], beside: [] });
  }
  // The first call of an object proves its login, which is no part of a flood.
  for (const { runtime, variant } of runs.values()) {
    const requests = flooders.map((tenant) => variant.request(tenant));
    await startLoad(running)({ port: runtime.port, requests, connections: FLOODERS, calls: FLOODERS, flood: true });
  }
  // In turns, so that other load on the machine meets both.
  for (let round = 1; round <= ROUNDS; round += 1) {
    for (const run of runs.values()) await compare(run, { one, flooders, seconds, minute, running });
  }
  const factors = [...runs].map(([name, { alone, beside }]) => {
    const by = (share: number): number => percentile(beside, share) / percentile(alone, share);
    const line = (title: string, values: readonly number[]): string =>
      `  ${title.padEnd(20)} p50 ${percentile(values, 0.5).toFixed(1)} ms, p99 ${percentile(values, 0.99).toFixed(1)} ms (${values.length} calls)`;
    print([`${name}, all rounds`, line("alone", alone), line("while others flood", beside)].join("\n"));
    return { p50: by(0.5), p99: by(0.99), besideP99Ms: percentile(beside, 0.99) };
  });
  const [product, floor] = factors;
  if (product === undefined || floor === undefined) throw new Error("a measurement is missing");
  print(
    [
      `flood / alone: product p50 ${product.p50.toFixed(2)}, p99 ${product.p99.toFixed(2)}; floor p50 ${floor.p50.toFixed(2)}, p99 ${floor.p99.toFixed(2)}`,
      `product / floor of these: p50 ${(product.p50 / floor.p50).toFixed(2)}, p99 ${(product.p99 / floor.p99).toFixed(2)}`,
      `VERDICT p99 under flood at most ${BOUND} times that alone: ${product.p99 <= BOUND ? "met" : "NOT met"} with ${product.p99.toFixed(2)}.` +
        ` The machine itself costs ${floor.p99.toFixed(2)} times: the product ${product.p99 <= floor.p99 ? "adds nothing" : "adds to it"}` +
        ` (p99 under flood ${product.besideP99Ms.toFixed(0)} ms, the floor's ${floor.besideP99Ms.toFixed(0)} ms).`,
    ].join("\n"),
  );
}

interface Run {
  runtime: Runtime;
  variant: Variant;
  /** Latencies of the measured tenant's calls, in ms. */
  alone: number[];
  beside: number[];
}

/** Measures alone and beside the flood, adds the latencies, and prints the round. */
async function compare(
  { runtime: { port }, variant, ...all }: Run,
  options: Pick<FloodOptions, "seconds" | "running"> & {
    one: BenchTenant;
    flooders: readonly BenchTenant[];
    /** The flooding tenants' requests a minute. */
    minute: number;
  },
): Promise<void> {
  const { one, flooders, seconds, minute, running } = options;
  const [pace, flood] = [startLoad(running), startLoad(running)];
  const paced = { port, requests: [variant.request(one)], connections: 1, everyMs: PACE_MS };
  await pace({ ...paced, calls: 20 });
  const alone = await pace({ ...paced, calls: Infinity, seconds });
  const flooding = flood({
    port,
    requests: flooders.map((tenant) => variant.request(tenant)),
    connections: FLOODERS * CONNECTIONS_EACH,
    calls: Infinity,
    seconds: seconds + 2,
    flood: true,
  });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const beside = await pace({ ...paced, calls: Infinity, seconds });
  const flooded = await flooding;
  const perMinute = (flooded.answers / flooded.seconds / FLOODERS) * 60;
  const line = (title: string, { p50Ms, p99Ms, answers }: LoadResult): void =>
    print(`  ${title.padEnd(28)} p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms (${answers} calls)`);
  print(variant.name);
  line("alone", alone);
  line("while others flood", beside);
  line("those who flood", flooded);
  print(
    `  the flood: ${(flooded.answers / flooded.seconds).toFixed(0)} requests/s, ${(perMinute / minute).toFixed(0)} times each tenant's limit; ${flooded.successes} of ${flooded.answers} were served`,
  );
  all.alone.push(...alone.latenciesMs);
  all.beside.push(...beside.latenciesMs);
}
