// Measures how much a tenant within its limits feels others that flood. One tenant of a higher plan calls at its own pace, alone
// and while tenants of the lowest plan send as many requests as the machine takes. The floor (no limits, no checks) under
// the same flood shows what the machine itself costs.
import { join } from "node:path";
import { bundle } from "../dev/bundle.ts";
import { planNames, planOf } from "../src/core/plans.ts";
import { startLoad } from "./calls.ts";
import { type BenchTenant, layGround } from "./ground.ts";
import type { LoadResult } from "./load.ts";
import { type Runtime, startRuntime } from "./runtime.ts";
import { print } from "./tenants.ts";
import { type Variant, variants } from "./variants.ts";

const FLOODERS = 8;
/** Calls that each flooding tenant has under way. */
const CONNECTIONS_EACH = 6;
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
  const ratios = new Map<string, number>();
  for (const name of ["product", "floor"] as const) {
    const variant = variants.find((each) => each.name === name);
    if (variant === undefined) throw new Error(`there is no variant ${name}`);
    const worker =
      name === "product"
        ? { config: "wrangler.toml", entry: "bench/product-worker.ts" }
        : { config: "bench/floor.wrangler.toml" };
    const script = await bundle({ ...worker, outDir: join(dir, `bundle-${name}`) });
    const runtime = await startRuntime(script, { dir: join(dir, name), vars: ground.vars, running });
    ratios.set(name, await compare(runtime, variant, { one, flooders, seconds, minute, running }));
    await runtime.miniflare.dispose();
  }
  const [product = NaN, floor = NaN] = ["product", "floor"].map((name) => ratios.get(name));
  print(`p50 under flood / p50 alone: product ${product.toFixed(1)}, floor ${floor.toFixed(1)}`);
}

/** Prints both measurements. Returns by which factor the flood lengthens the median. */
async function compare(
  { port }: Runtime,
  variant: Variant,
  options: Pick<FloodOptions, "seconds" | "running"> & {
    one: BenchTenant;
    flooders: readonly BenchTenant[];
    /** The flooding tenants' requests a minute. */
    minute: number;
  },
): Promise<number> {
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
  return beside.p50Ms / alone.p50Ms;
}
