// Measures how long a customer waits from the payment to the answer of the first tool call: webhook, Workflow, canary,
// activation, first API key. Uses the whole local system, as `npm start` runs it: first one customer after the other, then all
// at once.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as z from "zod";
import { firstKey, signUp } from "../dev/demo.ts";
import { freePort } from "../cli/settings.ts";
import { startSystem } from "../dev/system.ts";
import { cpuMsOfTree } from "./cpu.ts";
import { print } from "./tenants.ts";

const CUSTOMERS = 20;

/** Measures and prints. Throws when a sign-up or its first call fails. */
export async function benchSignUps(options: { dir: string; running: (() => Promise<unknown>)[] }): Promise<void> {
  const system = await startSystem({ dir: options.dir, port: await freePort() });
  options.running.push(() => system.stop());
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
  const before = cpuMsOfTree(process.pid);
  report("at once", await Promise.all(Array.from({ length: CUSTOMERS }, (_, index) => waits(100 + index))));
  // A busy machine lengthens the waits, and the CPU time hardly.
  const eachMs = (cpuMsOfTree(process.pid) - before) / CUSTOMERS;
  print(
    `  CPU of the whole system ${eachMs.toFixed(0)} ms a sign-up: ${((eachMs * CUSTOMERS) / 2).toFixed(0)} ms for all on two idle cores`,
  );
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
