// A tenant moves between tiers while its agents keep calling. No call fails, no row is lost or doubled, and the tenant's
// usage still counts after the move.
import { ownShardId } from "../../src/core/tenant/placement.ts";
import { describe, expect, test } from "vitest";
import { bootstrapCluster, prepareSharedShard, registerShard } from "../../cli/migrations/prepare.ts";
import { migrate, sharedMigrations } from "../../cli/migrations/apply.ts";
import {
  type TestTenant,
  aTenant,
  asSuperuser,
  callTool,
  controlRows,
  databaseFaults,
  databaseHits,
  endObject,
  fireCron,
  operator,
  rowsOf,
  storedCalls,
  system,
  until,
} from "../support/flow.ts";

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

/** Agents that write and read until the test stops them. Each product is written once, under its own number. */
function load(tenant: TestTenant, agents: number) {
  const written: string[] = [];
  const failed: string[] = [];
  const stopped = new AbortController();
  let longestMs = 0;
  const agent = async (name: number): Promise<void> => {
    for (let n = 0; !stopped.signal.aborted; n += 1) {
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
      stopped.abort();
      await done;
      return { written, failed, longestMs };
    },
  };
}

const generous = { limits: { unitsPerHour: 1_000_000, callsPerMinute: 100_000, callsInFlight: 50 } };

test("a tenant moves shared -> schema -> database -> shared under load: no failed call, no row lost or doubled", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
  await run(
    tenant,
    `INSERT INTO products (id, name, description, price_cents) SELECT 'old-' || n, 'Old', repeat('x', 100), n FROM generate_series(1, 3000) n`,
    `INSERT INTO settings (key, value) VALUES ('json null', 'null'), ('text', '"a''b\\"c"'), ('number', '12345678901234567890.123')`,
  );
  const agents = load(tenant, 3);
  const hops: MoveSummary[] = [];
  for (const strategy of ["schema", "database", "shared"]) {
    hops.push(await moveTo(tenant, strategy));
    expect(await strategyOf(tenant)).toBe(strategy);
    await confirm(tenant);
  }
  const { written, failed, longestMs } = await agents.stop();

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
  for (const { rowsCopied } of hops) expect(rowsCopied).toBeGreaterThanOrEqual(3_000);
  // Each call was charged once in every placement, and counts in the same window.
  const charged = (await storedCalls(tenant.id)) as { tool: string }[];
  expect(charged.filter(({ tool }) => tool === "run_sql").length).toBe(written.length + 2);
  // The old copies are gone: the database, the role, the rows on the shared tables.
  const left = await controlRows(
    `SELECT p.state, s.strategy, s.host IS NULL AS closed FROM placements p JOIN shards s ON s.id = p.shard_id
     WHERE p.tenant_id = $1 ORDER BY p.id`,
    [tenant.id],
  );
  expect(left).toEqual([
    { state: "dropped", strategy: "shared", closed: false },
    { state: "dropped", strategy: "schema", closed: false },
    { state: "dropped", strategy: "database", closed: true },
    { state: "ready", strategy: "shared", closed: false },
  ]);
  const pauses = hops.map(({ pauseMs }) => `${pauseMs} ms`).join(", ");
  process.stdout.write(`pauses ${pauses}; ${written.length} calls, the longest ${longestMs.toFixed(0)} ms\n`);
});

test("a move that is undone before the switchover leaves the tenant in its old placement and removes the new one", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  await databaseFaults([{ kind: "refuse-before", sql: "pg_snapshot_xmin" }]);
  try {
    await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
    await until(async () => (await moves(tenant))[0]?.error !== null, "the move is stuck, and says so");
  } finally {
    await databaseFaults([]);
  }
  const undone = await operator("POST", `/tenants/${tenant.id}/move/undo`);
  expect(undone.status).toBe(200);
  expect(await moves(tenant)).toMatchObject([{ state: "undone" }]);
  expect(await strategyOf(tenant)).toBe("shared");
  expect(
    (await run(tenant, "UPDATE products SET stock = 1 WHERE id = 'mug-steel' RETURNING stock")).isError,
  ).toBeFalsy();
  const [place] = await controlRows<{ id: number; state: string }>(
    `SELECT p.id::int AS id, p.state FROM placements p JOIN moves m ON m.to_placement = p.id WHERE m.tenant_id = $1`,
    [tenant.id],
  );
  expect(place?.state ?? "dropped").toBe("dropped");
  const roles = await rowsOf(system.schemaOwnerUrl, "SELECT FROM pg_roles WHERE rolname = $1", [`tenant_${place?.id}`]);
  expect(roles).toEqual([]);
});

test("an undo while Neon still creates the tenant's database says so, and the next one ends the move", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  const neonFaults = (rules: object[]): Promise<Response> =>
    fetch(new URL("/_neon/faults", system.neonApiUrl), { method: "POST", body: JSON.stringify(rules) });
  await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "database" });
  const opened = `SELECT FROM shards WHERE id = $1 AND neon_project_id IS NOT NULL`;
  await until(
    async () => (await controlRows(opened, [ownShardId(tenant.id)])).length === 1,
    "Neon creates the database",
  );
  await neonFaults([{ kind: "locked", method: "DELETE", path: "/projects/" }]);
  let early: Response;
  try {
    early = await operator("POST", `/tenants/${tenant.id}/move/undo`);
  } finally {
    await neonFaults([]);
  }
  expect(early.status).toBe(409);
  expect(await early.json()).toMatchObject({ code: "conflict", detail: expect.stringContaining("Neon still works") });
  const undo = async (): Promise<number> => (await operator("POST", `/tenants/${tenant.id}/move/undo`)).status;
  await until(async () => (await undo()) === 200, "the move is undone");
  expect(await moves(tenant)).toMatchObject([{ state: "undone" }]);
  expect((await run(tenant, "SELECT 1 AS one")).isError).toBeFalsy();
});

test("a tenant that has moved can move back with all rows it has written since", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  await moveTo(tenant, "schema");
  await run(
    tenant,
    "INSERT INTO products (id, name, price_cents) VALUES ('since', 'Since', 1)",
    "UPDATE products SET stock = 77 WHERE id = 'mug-steel'",
    "DELETE FROM products WHERE id = 'desk-oak'",
  );
  expect((await operator("POST", `/tenants/${tenant.id}/move/undo`)).status).toBe(202);
  await until(async () => (await moves(tenant))[0]?.state === "undone", "the tenant is back");
  expect(await strategyOf(tenant)).toBe("shared");
  const seen = await run(
    tenant,
    "SELECT id, stock FROM products WHERE id IN ('since', 'mug-steel', 'desk-oak') ORDER BY id",
    "SELECT count(*)::int AS n FROM products",
  );
  expect(seen.data?.["results"]).toEqual([
    [
      { id: "mug-steel", stock: 77 },
      { id: "since", stock: 0 },
    ],
    [{ n: 10 }],
  ]);
});

test("an object that missed the notification of a switchover sends its statements to the new placement", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  await run(tenant, "SELECT 1");
  // Simulates an interrupted switchover: the gate is closed and no runner opens it.
  await rowsOf(system.sharedOwnerUrl, "SELECT tollgate.set_gate($1, 'shut', 1)", [tenant.id]);
  const answer = await run(tenant, "UPDATE products SET stock = 5 WHERE id = 'mug-steel' RETURNING stock");
  expect(answer.data?.["results"]).toEqual([[{ stock: 5 }]]);
});

describe("a move that is killed", () => {
  // The requests that each step of a move sends, in order.
  test.each([
    "INSERT INTO moves",
    "placements.' || strategy",
    "tollgate.create_tenant",
    "to_regclass(quote_ident",
    "tollgate.loading",
    "row_number() OVER",
    "SELECT DISTINCT table_name",
    "tollgate.set_gate",
    "hashtextextended",
    "WITH flipped",
    "delivered_version = $2",
    "pause_ms = greatest",
  ])("at %s is resumed, and every row is there once", async (marker) => {
    const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
    await run(
      tenant,
      `INSERT INTO products (id, name, price_cents) SELECT 'p' || n, 'P', n FROM generate_series(1, 50) n`,
    );
    const before = await databaseHits();
    await databaseFaults([{ kind: "slow", sql: marker, ms: 400, times: 1 }]);
    const started = operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
    try {
      await until(async () => (await databaseHits()) > before, `the move has come to ${marker}`);
      await endObject(tenant.id);
      await started.catch(() => undefined);
    } finally {
      await databaseFaults([]);
    }
    // Agents keep writing during every step of the move.
    await until(
      async () => (await run(tenant, "UPDATE products SET stock = stock + 1 WHERE id = 'p1'")).isError !== true,
      "the tenant can write",
    );
    if ((await moves(tenant)).length === 0)
      await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
    await until(async () => (await moves(tenant))[0]?.state === "moved", "the move is done", 40_000);
    const rows = await run(
      tenant,
      "SELECT count(*)::int AS n, count(DISTINCT id)::int AS ids FROM products WHERE name = 'P'",
      "SELECT stock > 0 AS written FROM products WHERE id = 'p1'",
    );
    expect(rows.data?.["results"]).toEqual([[{ n: 50, ids: 50 }], [{ written: true }]]);
  });
});

test.each([
  "placements.' || strategy",
  "tollgate.create_tenant",
  "tollgate.loading",
  "tollgate.set_gate",
  "WITH flipped",
])("a move continues when the answer to %s is lost, and every row is there once", async (marker) => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
  const before = await databaseHits();
  await databaseFaults([{ kind: "lose-after", sql: marker, times: 1 }]);
  try {
    await moveTo(tenant, "schema");
    expect(await databaseHits()).toBeGreaterThan(before);
  } finally {
    await databaseFaults([]);
  }
  const rows = await run(
    tenant,
    "SELECT count(*)::int AS n FROM products",
    "UPDATE products SET stock = 1 RETURNING id",
  );
  expect(rows.data?.["results"]).toMatchObject([[{ n: 10 }], { length: 10 }]);
});

test("the sweep resumes a move whose Workflow died", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  await controlRows(
    `INSERT INTO moves (tenant_id, strategy, from_placement, progressed_at)
     SELECT id, 'schema', placement_id, now() - interval '2 minutes' FROM tenants WHERE id = $1`,
    [tenant.id],
  );
  await fireCron("* * * * *");
  await until(async () => (await moves(tenant))[0]?.state === "moved", "the move is done");
  expect((await run(tenant, "SELECT count(*)::int AS n FROM products")).data?.["results"]).toEqual([[{ n: 10 }]]);
});

test("a move to an unknown shard names the known ones, and a move to where the tenant is does nothing", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  const move = (body: unknown) => operator("POST", `/tenants/${tenant.id}/move`, body);
  for (const shard of ["shared-99", "schema-1", "database-other"]) {
    const response = await move({ strategy: "shared", shard });
    expect(response.status, shard).toBe(404);
    expect(await response.text(), shard).toContain("Known: shared-1");
  }
  for (const here of [{ strategy: "shared" }, { strategy: "shared", shard: "shared-1" }]) {
    const response = await move(here);
    expect(response.status, JSON.stringify(here)).toBe(200);
    expect(await response.json(), JSON.stringify(here)).toEqual({ moves: [], next: null });
  }
  const created = await operator("POST", "/tenants", { name: "x", plan: "free", region: "moon-1" });
  expect(created.status).toBe(400);
  expect(await created.text()).toContain("no shared database is in moon-1. Known: aws-local");
});

test("a second move during an open move is refused with advice", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared" });
  await moveTo(tenant, "schema");
  const second = await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "database" });
  expect(second.status).toBe(409);
  expect(await second.text()).toMatch(/Confirm or undo it first/);
  expect((await operator("POST", "/tenants/nobody/move", { strategy: "schema" })).status).toBe(404);
  expect((await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "elsewhere" })).status).toBe(400);
});

test("a move that finds no shard in the tenant's region waits for one that Tollgate creates there", async () => {
  const tenant = await aTenant({ plan: "pro", region: "aws-local" });
  await run(tenant, "UPDATE products SET stock = 4712 WHERE id = 'mug-steel'");
  await controlRows("UPDATE shards SET region = 'elsewhere' WHERE id = 'shared-1'");
  const made = "strategy = 'shared' AND id <> 'shared-1' AND accepts";
  try {
    await moveTo(tenant, "shared");
    const [shard] = await controlRows(`SELECT id, region FROM shards WHERE ${made}`);
    expect(shard).toMatchObject({ region: "aws-local" });
    expect((await moves(tenant))[0]).toMatchObject({ to: shard?.["id"] });
    const seen = await run(tenant, "SELECT stock FROM products WHERE id = 'mug-steel'");
    expect(seen.data?.["results"]).toEqual([[{ stock: 4712 }]]);
  } finally {
    await controlRows("UPDATE shards SET region = 'aws-local' WHERE id = 'shared-1'");
    await controlRows(`UPDATE shards SET accepts = false, host = NULL WHERE ${made}`);
  }
});

test("a tenant moves to another shard of the shared tier, and new tenants spread over both", async () => {
  await aTenant({ plan: "free" }); // on the first shard
  const name = "tollgate_shared_2";
  const on = (url: string) => Object.assign(new URL(url), { pathname: `/${name}` }).href;
  const [ownerUrl, appUrl] = [on(system.sharedOwnerUrl), on(system.appUrl)];
  const app = new URL(appUrl);
  await bootstrapCluster({
    superuserUrl: system.superuserUrl,
    ownerPassword: new URL(ownerUrl).password,
    databases: [{ name, closed: true }],
  });
  await migrate({ url: ownerUrl, series: sharedMigrations });
  await prepareSharedShard({
    ownerUrl,
    logins: [{ name: app.username, password: app.password }],
    contextKeys: system.contextKeys,
  });
  const shard = { id: "shared-by-hand", strategy: "shared", region: "aws-local", ownerUrl, appUrl } as const;
  await registerShard({ controlUrl: system.controlUrl, encryptionKeys: system.encryptionKeys, ...shard });
  try {
    const tenant = await aTenant({ plan: "starter", strategy: "shared" });
    const [placed] = await controlRows("SELECT shard_id FROM placements WHERE tenant_id = $1", [tenant.id]);
    expect(placed, "the emptier shard comes first").toEqual({ shard_id: "shared-by-hand" });
    await run(tenant, "UPDATE products SET stock = 4711 WHERE id = 'mug-steel'");
    const moved = await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "shared", shard: "shared-1" });
    expect(moved.status).toBe(202);
    await until(async () => (await moves(tenant))[0]?.state === "moved", "the move is done");
    await confirm(tenant);
    const seen = await run(
      tenant,
      "SELECT stock FROM products WHERE id = 'mug-steel'",
      "SELECT current_database() AS d",
    );
    expect(seen.data?.["results"]).toEqual([[{ stock: 4711 }], [{ d: "tollgate_shared_1" }]]);
    const left = await rowsOf(asSuperuser(ownerUrl), "SELECT FROM products WHERE tenant_id = $1", [tenant.id]);
    expect(left).toEqual([]);
  } finally {
    await controlRows("UPDATE shards SET accepts = false, host = NULL WHERE id = 'shared-by-hand'");
  }
});
