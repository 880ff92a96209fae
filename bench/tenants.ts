// Tenants of a whole local system for the benchmarks: the operator creates them, and the benchmarks call them over MCP.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { freePort } from "../cli/ports.ts";
import { type System, type SystemOptions, startSystem } from "../dev/system.ts";
import type { Strategy } from "../src/core/plans/plans.ts";

export interface BenchTenant {
  id: string;
  apiKey: string;
}

export type Way = "queries" | "transaction" | "conversation";

const Answer = z.object({
  result: z.object({
    isError: z.boolean().optional(),
    content: z.array(z.object({ text: z.string() })),
    structuredContent: z.object({ results: z.array(z.array(z.record(z.string(), z.unknown()))).optional() }).optional(),
  }),
});

/** A system with the benchmarks' own tool in it. */
export async function startBenchSystem(
  options: { dir: string; running: (() => Promise<unknown>)[] } & Pick<SystemOptions, "vars" | "proxy">,
): Promise<System> {
  const { dir, running, ...rest } = options;
  const entry = join(import.meta.dirname, "sql-worker.ts");
  const system = await startSystem({ dir, port: await freePort(), entry, ...rest });
  running.push(() => system.stop());
  return system;
}

/** Far more than a run uses: each limit is checked and none is reached. */
const limits = {
  ...{ unitsPerHour: 10_000_000, unitsPerMonth: 100_000_000, callsPerMinute: 1_000_000, callsInFlight: 100 },
  ...{ spendCapCents: 1_000_000_000, maxSpendCapCents: 1_000_000_000 },
};

/** A fully provisioned tenant. */
export async function makeTenant(system: System, strategy: Strategy): Promise<BenchTenant> {
  const { id, statusUrl } = z
    .object({ id: z.string(), statusUrl: z.url() })
    .parse(await operator(system, "POST", "/tenants", { plan: "pro", strategy, name: "Bench", limits }));
  const deadline = Date.now() + 120_000;
  for (;;) {
    const status = await fetch(statusUrl);
    const { state, error } = z.object({ state: z.string(), error: z.string().nullish() }).parse(await status.json());
    if (state === "active") break;
    if (Date.now() > deadline) throw new Error(`Tenant ${id} is still ${state}: ${error ?? "no error was recorded"}`);
    await sleep(50);
  }
  const { apiKey } = z
    .object({ apiKey: z.string() })
    .parse(await operator(system, "POST", `/tenants/${id}/keys`, { name: "bench" }));
  return { id, apiKey };
}

export async function operator(system: System, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(`${system.publicUrl}/admin/api${path}`, {
    method,
    headers: {
      authorization: `Bearer ${system.settings.secrets.operatorToken}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** One call of the benchmarks' tool. Throws when it failed. */
export async function runSql(
  system: System,
  { apiKey }: BenchTenant,
  as: Way,
  statements: readonly string[],
): Promise<Record<string, unknown>[][]> {
  const response = await fetch(`${system.publicUrl}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${apiKey}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/call",
      "mcp-name": "bench_sql",
    },
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: {
        name: "bench_sql",
        arguments: { as, statements },
        _meta: {
          "io.modelcontextprotocol/protocolVersion": "2026-07-28",
          "io.modelcontextprotocol/clientCapabilities": {},
          "io.modelcontextprotocol/clientInfo": { name: "bench", version: "1" },
        },
      },
    }),
  });
  const { result } = Answer.parse(await response.json());
  if (result.isError === true) throw new Error(result.content[0]?.text);
  return result.structuredContent?.results ?? [];
}

/** The nearest-rank percentile of sorted or unsorted values. */
export function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(share * values.length) - 1] ?? NaN;
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
