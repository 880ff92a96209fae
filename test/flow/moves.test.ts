// A tenant moves between tiers while its agents keep calling: no call fails, no row is lost or doubled, and what it has
// used goes with it.
import { expect, test } from "vitest";
import { type TestTenant, aTenant, callTool, controlRows, operator, storedCalls, until } from "../support/flow.ts";

interface MoveSummary {
  state: string;
  to: string | null;
  rowsCopied: number;
  rounds: number;
  pauseMs: number | null;
  error: string | null;
}

async function moves(tenant: TestTenant): Promise<MoveSummary[]> {
  const response = await operator("GET", `/tenants/${tenant.id}/move`);
  return ((await response.json()) as { moves: MoveSummary[] }).moves;
}

async function moveTo(tenant: TestTenant, strategy: string): Promise<MoveSummary> {
  const started = await operator("POST", `/tenants/${tenant.id}/move`, { strategy });
  expect(started.status, await started.clone().text()).toBe(202);
  await until(async () => (await moves(tenant))[0]?.state === "moved", `the move to ${strategy}`, 30_000);
  const [move] = await moves(tenant);
  if (move === undefined) throw new Error("there is no move");
  return move;
}

async function confirm(tenant: TestTenant): Promise<void> {
  expect((await operator("POST", `/tenants/${tenant.id}/move/confirm`)).status).toBe(200);
}

const run = (tenant: TestTenant, ...statements: string[]) => callTool(tenant.apiKey, "run_sql", { statements });

async function strategyOf(tenant: TestTenant): Promise<unknown> {
  const [row] = await controlRows(
    `SELECT s.strategy FROM tenants t JOIN placements p ON p.id = t.placement_id JOIN shards s ON s.id = p.shard_id WHERE t.id = $1`,
    [tenant.id],
  );
  return row?.["strategy"];
}

/** Agents that write and read until they are told to stop: each product once, under a number of its own. */
function load(tenant: TestTenant, agents: number) {
  const written: string[] = [];
  const failed: string[] = [];
  let stopped = false;
  let longestMs = 0;
  const agent = async (name: number): Promise<void> => {
    for (let n = 0; !stopped; n += 1) {
      const id = `load-${name}-${n}`;
      const startedAt = performance.now();
      const answer = await run(
        tenant,
        `INSERT INTO products (id, name, price_cents, stock) VALUES ('${id}', 'Load', 1, 0) RETURNING id`,
        `UPDATE products SET stock = stock + 1 WHERE id = '${id}' RETURNING stock`,
        `SELECT count(*)::int AS n FROM products WHERE id = '${id}' AND stock = 1`,
      );
      longestMs = Math.max(longestMs, performance.now() - startedAt);
      const seen = (answer.data?.["results"] as { n: number }[][] | undefined)?.[2]?.[0]?.n;
      if (answer.isError === true || seen !== 1) failed.push(`${id}: ${answer.text.slice(0, 200)}`);
      written.push(id);
    }
  };
  const done = Promise.all(Array.from({ length: agents }, (_, name) => agent(name)));
  return {
    async stop() {
      stopped = true;
      await done;
      return { written, failed, longestMs };
    },
  };
}

const generous = { limits: { unitsPerHour: 1_000_000, callsPerMinute: 100_000, callsInFlight: 50 } };

test("a tenant moves shared -> schema -> shared under load with no failed call and no row lost or doubled", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
  await run(
    tenant,
    `INSERT INTO products (id, name, description, price_cents) SELECT 'old-' || n, 'Old', repeat('x', 100), n FROM generate_series(1, 3000) n`,
    `INSERT INTO settings (key, value) VALUES ('json null', 'null'), ('text', '"a''b\\"c"'), ('number', '12345678901234567890.123')`,
  );
  const agents = load(tenant, 3);
  const there = await moveTo(tenant, "schema");
  expect(await strategyOf(tenant)).toBe("schema");
  await confirm(tenant);
  const back = await moveTo(tenant, "shared");
  expect(await strategyOf(tenant)).toBe("shared");
  const { written, failed } = await agents.stop();
  await confirm(tenant);

  expect(failed).toEqual([]);
  expect(written.length).toBeGreaterThan(10);
  const rows = await run(
    tenant,
    `SELECT count(*)::int AS n, count(DISTINCT id)::int AS ids FROM products WHERE id LIKE 'load-%' AND stock = 1`,
    `SELECT count(*)::int AS n FROM products WHERE id LIKE 'old-%'`,
    `SELECT key, value::text AS value FROM settings WHERE key IN ('json null', 'text', 'number') ORDER BY key`,
  );
  expect(rows.data?.["results"]).toEqual([
    [{ n: written.length, ids: written.length }],
    [{ n: 3000 }],
    [
      { key: "json null", value: "null" },
      { key: "number", value: "12345678901234567890.123" },
      { key: "text", value: '"a\'b\\"c"' },
    ],
  ]);
  for (const { pauseMs, rowsCopied } of [there, back]) {
    expect(rowsCopied).toBeGreaterThanOrEqual(3_000);
    expect(pauseMs).toBeLessThan(5_000);
  }
  // Each call was charged once, wherever the rows were.
  const charged = (await storedCalls(tenant.id)) as { tool: string }[];
  expect(charged.filter(({ tool }) => tool === "run_sql").length).toBe(written.length + 2);
  process.stdout.write(`pauses: ${there.pauseMs} ms and ${back.pauseMs} ms, ${written.length} calls meanwhile\n`);
});
