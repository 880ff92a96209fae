// Many tenants of the schema tier at once, each with its own login, on few connections. HTTP requests and sessions together
// stay within the budget. All tenants make a query, a transaction known in advance and an interactive transaction at the same
// time. Every call must succeed.
import { makeTenant, type BenchTenant, percentile, print, runSql, startBenchSystem } from "./tenants.ts";

const MAKERS = 4;
const one = "SELECT count(*)::int AS n FROM products";
const write = "UPDATE products SET stock = stock + 1 WHERE id = 'lamp-arc' RETURNING stock";

export async function benchCrowd(options: {
  dir: string;
  running: (() => Promise<unknown>)[];
  tenants: number;
  budget: number;
}): Promise<void> {
  const { budget } = options;
  const sessions = Math.floor(budget / 2);
  const system = await startBenchSystem({
    ...options,
    vars: { SESSION_BUDGET: String(sessions) },
    proxy: { maxTotal: budget - sessions },
  });
  const startedAt = performance.now();
  const tenants: BenchTenant[] = [];
  let left = options.tenants;
  await Promise.all(
    Array.from({ length: MAKERS }, async () => {
      while (left-- > 0) tenants.push(await makeTenant(system, "schema"));
    }),
  );
  print(`${tenants.length} tenants provisioned in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);

  system.databases?.proxy.resetStats();
  for (const [name, as, statements] of [
    ["a query", "queries", [one]],
    ["a known transaction of 2", "transaction", [write, one]],
    ["a conversation of 2", "conversation", [write, one]],
  ] as const) {
    const times: number[] = [];
    const failures = new Map<string, number>();
    const beganAt = performance.now();
    await Promise.all(
      tenants.map(async (tenant) => {
        try {
          await runSql(system, tenant, as, statements);
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          failures.set(message, (failures.get(message) ?? 0) + 1);
        }
        times.push(performance.now() - beganAt);
      }),
    );
    const failed = [...failures.values()].reduce((sum, count) => sum + count, 0);
    print(
      `  ${name} each, at once: ${tenants.length - failed} succeeded, ${failed} failed; p50 ${(percentile(times, 0.5) / 1000).toFixed(1)} s, longest ${(Math.max(...times) / 1000).toFixed(1)} s`,
    );
    for (const [message, count] of failures) print(`    ${count} x ${message}`);
  }
  const { peakConnections } = system.databases?.proxy.stats() ?? {};
  print(`  connections at once, at most: ${JSON.stringify(peakConnections)}; the budget is ${budget}`);
}
