// Measures a tenant's moves from outside (shared -> schema -> database -> shared) while agents write and read at a steady rate.
// Prints the duration of each move, the pause at its change-over as the tenant's object measured it, the longest call of an
// agent, and at the end whether each row exists once.
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { System } from "../dev/system.ts";
import type { Strategy } from "../src/core/plans/plans.ts";
import { type BenchTenant, makeTenant, operator, percentile, print, runSql, startBenchSystem } from "./tenants.ts";

const AGENTS = 4;
/** Each agent begins a call this often, so that the load does not depend on how fast the answers come. */
const CALL_EVERY_MS = 100;

const Moves = z.object({
  moves: z.array(
    z.object({
      state: z.string(),
      rowsCopied: z.number(),
      rounds: z.number(),
      pauseMs: z.number().nullable(),
      error: z.string().nullable(),
    }),
  ),
});

export async function benchMove(options: {
  dir: string;
  running: (() => Promise<unknown>)[];
  rows: number;
}): Promise<void> {
  const { rows } = options;
  const system = await startBenchSystem(options);
  const tenant = await makeTenant(system, "shared");
  await runSql(system, tenant, "queries", [
    `INSERT INTO products (id, name, description, category, price_cents, stock)
     SELECT 'old-' || n, 'Product ' || n, repeat(md5(n::text), 8), 'bench', n, 0 FROM generate_series(1, ${rows}) AS n`,
  ]);

  const stopped = new AbortController();
  const seen = { calls: 0, failed: 0, written: 0, times: [] as number[] };
  const agents = Array.from({ length: AGENTS }, (_, agent) => work(system, tenant, agent, seen, stopped.signal));
  await sleep(2_000);
  const quietMs = percentile(seen.times.splice(0), 0.5);
  print(
    `${rows} rows of about 300 bytes, ${AGENTS} agents; a call of a write and a read takes ${quietMs.toFixed(1)} ms at p50`,
  );

  for (const strategy of ["schema", "database", "shared"] as const) {
    seen.times = [];
    const startedAt = performance.now();
    const { pauseMs, rowsCopied, rounds } = await move(system, tenant, strategy);
    const tookMs = performance.now() - startedAt;
    print(
      `  to ${strategy.padEnd(9)} ${(tookMs / 1000).toFixed(2)} s, ${rowsCopied} rows copied in ${rounds} rounds, pause ${pauseMs} ms, ` +
        `calls p50 ${percentile(seen.times, 0.5).toFixed(0)} ms, p99 ${percentile(seen.times, 0.99).toFixed(0)} ms, longest ${Math.max(...seen.times).toFixed(0)} ms`,
    );
    await operator(system, "POST", `/tenants/${tenant.id}/move/confirm`);
  }

  stopped.abort();
  await Promise.all(agents);
  const [[found] = []] = await runSql(system, tenant, "queries", [
    `SELECT count(*) FILTER (WHERE id LIKE 'old-%')::int AS old, count(*) FILTER (WHERE id LIKE 'new-%')::int AS new,
            count(*) FILTER (WHERE id LIKE 'new-%' AND stock <> 1)::int AS wrong FROM products`,
  ]);
  print(
    `  ${seen.calls} calls, ${seen.failed} failed; rows lost or doubled: ${rows - Number(found?.["old"])} of the old, ` +
      `${seen.written - Number(found?.["new"])} of the new, ${String(found?.["wrong"])} with a lost update`,
  );
}

async function work(
  system: System,
  tenant: BenchTenant,
  agent: number,
  seen: { calls: number; failed: number; written: number; times: number[] },
  stopped: AbortSignal,
): Promise<void> {
  for (let n = 0; !stopped.aborted; n += 1) {
    const startedAt = performance.now();
    const id = `new-${agent}-${n}`;
    seen.calls += 1;
    try {
      await runSql(system, tenant, "queries", [
        `INSERT INTO products (id, name, price_cents) VALUES ('${id}', 'New', 1) RETURNING id`,
        `UPDATE products SET stock = stock + 1 WHERE id = '${id}' RETURNING stock`,
      ]);
      seen.written += 1;
    } catch (error) {
      seen.failed += 1;
      print(`  a call failed: ${error instanceof Error ? error.message : String(error)}`);
    }
    const tookMs = performance.now() - startedAt;
    seen.times.push(tookMs);
    if (tookMs < CALL_EVERY_MS) await sleep(CALL_EVERY_MS - tookMs);
  }
}

async function move(system: System, tenant: BenchTenant, strategy: Strategy) {
  await operator(system, "POST", `/tenants/${tenant.id}/move`, { strategy });
  const deadline = Date.now() + 300_000;
  for (;;) {
    const [latest] = Moves.parse(await operator(system, "GET", `/tenants/${tenant.id}/move`)).moves;
    if (latest?.state === "moved") return latest;
    if (Date.now() > deadline)
      throw new Error(`The move is ${latest?.state}: ${latest?.error ?? "no error was recorded"}`);
    await sleep(50);
  }
}
