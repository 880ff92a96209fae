// Measures how long a customer waits from the payment to the answer of the first tool call: webhook, Workflow, canary,
// activation, first API key. Uses the whole local system without `wrangler dev`, whose inspector and proxy double the CPU time:
// first one customer after the other, then all at once, then as many floors (sign-ups-floor-worker.ts) at once.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as z from "zod";
import { firstKey, signUp } from "../dev/demo.ts";
import { freePort } from "../cli/ports.ts";
import { startSystem } from "../dev/system.ts";
import { bundle } from "../dev/bundle.ts";
import { cpuMsByName } from "./cpu.ts";
import { startRuntime } from "./runtime.ts";
import type { FloorSignUp } from "./sign-ups-floor-worker.ts";
import { percentile, print } from "./tenants.ts";

const CUSTOMERS = 20;
/** The bound at p50, from the payment to the first call, all at once on two idle cores. */
const BOUND_MS = 3_000;
const CORES = 2;
/** The Workflow steps of a provisioning. */
const STEPS = 3;
/** The order, the payment, its five webhooks, the canary, the key, and the four requests of the first client. */
const REQUESTS = 13;
/** A client that watches a sign-up gets an answer this often. */
const POLL_MS = 250;

/** Measures and prints. Throws when a sign-up or its first call fails. */
export async function benchSignUps(options: { dir: string; running: (() => Promise<unknown>)[] }): Promise<void> {
  const { dir, running } = options;
  const script = await bundle({ outDir: join(dir, "bundle") });
  const system = await startSystem({ dir, port: await freePort(), bundle: script, direct: true });
  running.push(() => system.stop());
  const { publicUrl } = system;
  const waits = async (index: number): Promise<Wait> => {
    const customer = await signUp(publicUrl, { plan: "free", name: `Customer ${index}` });
    const apiKey = await firstKey(publicUrl, customer);
    await firstCall(publicUrl, apiKey);
    const firstCallMs = performance.now() - customer.paidAt;
    return { activeMs: customer.activeAt - customer.paidAt, firstCallMs, steps: await stepsOf(customer.statusUrl) };
  };

  await waits(0); // the Worker's first requests compile it
  const inTurn: Wait[] = [];
  for (let index = 1; index <= CUSTOMERS; index++) inTurn.push(await waits(index));
  report("one after another", inTurn);

  const batchesBefore = system.databases?.proxy.stats().httpBatches ?? 0;
  const all = await measured(() => Promise.all(Array.from({ length: CUSTOMERS }, (_, index) => waits(100 + index))));
  const batches = ((system.databases?.proxy.stats().httpBatches ?? 0) - batchesBefore) / CUSTOMERS;
  report("at once", all.outcome);
  print(`  CPU a sign-up: ${all.cpu}; ${batches.toFixed(0)} database round trips`);

  const floorScript = await bundle({ outDir: join(dir, "floor-bundle"), config: "bench/sign-ups-floor.wrangler.toml" });
  const { port } = await startRuntime(floorScript, {
    dir: join(dir, "sign-ups-floor"),
    vars: {
      CONTROL_DATABASE_URL: system.databases?.serviceUrl ?? "",
      NEON_FETCH_ENDPOINT: `${system.databases?.proxy.url}/sql`,
    },
    running,
  });
  const floor = (id: string): Promise<number> =>
    floorWait(`http://127.0.0.1:${port}`, id, { steps: STEPS, batches: Math.round(batches / STEPS) });
  await floor("first");
  const bare = await measured(() =>
    Promise.all(Array.from({ length: CUSTOMERS }, (_, index) => floor(`floor-${index}`))),
  );
  const p50 = percentile(
    all.outcome.map(({ firstCallMs }) => firstCallMs),
    0.5,
  );
  const floorP50 = percentile(bare.outcome, 0.5);
  print(
    [
      `${CUSTOMERS} floors at once: as many requests, Workflow steps and round trips without any work`,
      `  p50 ${floorP50.toFixed(0)} ms, longest ${Math.max(...bare.outcome).toFixed(0)} ms`,
      `  CPU a floor: ${bare.cpu}`,
      `sign-up / floor: p50 ${(p50 / floorP50).toFixed(1)}, CPU ${(all.cpuMs / bare.cpuMs).toFixed(1)}`,
      `VERDICT ${CUSTOMERS} sign-ups at once, p50 under ${BOUND_MS} ms: ${p50 < BOUND_MS ? "met" : "NOT met"} with ${p50.toFixed(0)} ms.` +
        ` Their CPU time is ${((all.cpuMs * CUSTOMERS) / CORES).toFixed(0)} ms of ${CORES} cores; other programs had ${((1 - (all.cpuMs * CUSTOMERS) / CORES / all.tookMs) * 100).toFixed(0)} % of them or they waited.`,
    ].join("\n"),
  );
}

/** Runs `work` and takes the CPU time of the whole system, a sign-up. A busy machine lengthens waits more than CPU time. */
async function measured<Outcome>(
  work: () => Promise<Outcome>,
): Promise<{ outcome: Outcome; cpuMs: number; cpu: string; tookMs: number }> {
  const before = cpuMsByName(process.pid);
  const startedAt = performance.now();
  const outcome = await work();
  const tookMs = performance.now() - startedAt;
  const parts = Object.entries(cpuMsByName(process.pid)).map(
    ([name, ms]) => [name, (ms - (before[name] ?? 0)) / CUSTOMERS] as const,
  );
  const cpuMs = parts.reduce((sum, [, ms]) => sum + ms, 0);
  const cpu = `${cpuMs.toFixed(0)} ms (${parts.map(([name, ms]) => `${name} ${ms.toFixed(0)}`).join(", ")})`;
  return { outcome, cpuMs, cpu, tookMs };
}

/** How long one floor takes, in ms. */
async function floorWait(url: string, id: string, payload: FloorSignUp): Promise<number> {
  const startedAt = performance.now();
  for (let request = 0; request < REQUESTS; request += 1) await (await fetch(url)).text();
  await (await fetch(`${url}/${id}`, { method: "POST", body: JSON.stringify(payload) })).text();
  for (;;) {
    await sleep(POLL_MS);
    const { status } = z.object({ status: z.string() }).parse(await (await fetch(`${url}/${id}`)).json());
    if (status === "complete") return performance.now() - startedAt;
    if (status === "errored") throw new Error("a floor failed");
  }
}

interface Wait {
  activeMs: number;
  firstCallMs: number;
  /** How long each step of provisioning took. */
  steps: ReadonlyMap<string, number>;
}

const Steps = z.object({
  steps: z.array(z.object({ name: z.string(), startedAt: z.string().nullable(), finishedAt: z.string().nullable() })),
});

async function stepsOf(statusUrl: string): Promise<Wait["steps"]> {
  const { steps } = Steps.parse(await (await fetch(statusUrl)).json());
  return new Map(
    steps.map(({ name, startedAt, finishedAt }) => [name, Date.parse(finishedAt ?? "") - Date.parse(startedAt ?? "")]),
  );
}

async function firstCall(publicUrl: string, apiKey: string): Promise<void> {
  const client = new Client({ name: "tollgate-bench", version: "1" });
  const requestInit = { headers: { authorization: `Bearer ${apiKey}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(`${publicUrl}/mcp`), { requestInit }));
  const result = await client.callTool({ name: "search_products", arguments: { query: "" } });
  await client.close();
  if (result.isError === true) throw new Error(`The first call failed: ${JSON.stringify(result.content)}`);
}

function report(title: string, waits: readonly Wait[]): void {
  const line = (name: string, values: readonly number[]): string => {
    const sorted = values.toSorted((a, b) => a - b);
    // The nearest-rank percentile.
    const at = (share: number): string => (sorted[Math.ceil(share * sorted.length) - 1] ?? NaN).toFixed(0);
    return `  ${name.padEnd(28)} p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms`;
  };
  process.stdout.write(
    [
      `${waits.length} sign-ups, ${title}: all succeeded`,
      ...[...(waits[0]?.steps.keys() ?? [])].map((name) =>
        line(
          `  ${name}`,
          waits.map(({ steps }) => steps.get(name) ?? NaN).filter((ms) => !Number.isNaN(ms)),
        ),
      ),
      line(
        "payment to active",
        waits.map(({ activeMs }) => activeMs),
      ),
      line(
        "payment to first call",
        waits.map(({ firstCallMs }) => firstCallMs),
      ),
      "",
    ].join("\n"),
  );
}
