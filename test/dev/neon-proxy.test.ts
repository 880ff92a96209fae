import { Client as NeonClient, neon, neonConfig, NeonDbError } from "@neondatabase/serverless";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { type NeonProxy, startNeonProxy } from "../../dev/neon/proxy.ts";
import { removePostgresData, type RunningPostgres, startPostgres } from "../../dev/postgres/postgres.ts";

let folder: string;
let postgres: RunningPostgres;
let proxy: NeonProxy;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-proxy-test-"));
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port: 0 });
  proxy = await startNeonProxy({ port: 0 });
  neonConfig.fetchEndpoint = `${proxy.url}/sql`;
  neonConfig.wsProxy = (host, port) => `127.0.0.1:${proxy.port}/v2?address=${host}:${port}`;
  neonConfig.useSecureWebSocket = false;
  neonConfig.webSocketConstructor = WebSocket;
  await neon(postgres.superuserUrl)`CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL)`;
}, 60_000);

afterAll(async () => {
  await proxy?.close();
  await postgres?.stop();
  await removePostgresData(join(folder, "postgres"));
  await rm(folder, { recursive: true, force: true });
}, 30_000);

beforeEach(async () => {
  proxy.setFaults([]);
  await neon(postgres.superuserUrl)`TRUNCATE note`;
  proxy.resetStats();
});

async function failureOf(promise: Promise<unknown>): Promise<NeonDbError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof NeonDbError)) throw new Error(`expected a NeonDbError, got ${String(error)}`);
  return error;
}

test("the proxy returns values of every common type as the driver's own types", async () => {
  const sql = neon(postgres.superuserUrl);
  const bytes = Buffer.from([0, 1, 255]);
  const when = new Date("2026-11-21T10:00:00.123Z");
  const rows =
    await sql`SELECT ${7}::int AS i, ${"9007199254740993"}::int8 AS big, ${true}::bool AS yes, ${null}::text AS nothing,
    ${JSON.stringify({ a: [1, "ü"] })}::jsonb AS doc, ${["x", 'y"z', null]}::text[] AS list, ${bytes}::bytea AS bytes,
    ${when}::timestamptz AS at, 'Zoë'::text AS name`;
  expect(rows).toEqual([
    {
      i: 7,
      big: "9007199254740993",
      yes: true,
      nothing: null,
      doc: { a: [1, "ü"] },
      list: ["x", 'y"z', null],
      bytes,
      at: when,
      name: "Zoë",
    },
  ]);
});

test("a full result carries command, row count and fields", async () => {
  const sql = neon(postgres.superuserUrl, { fullResults: true });
  const inserted = await sql`INSERT INTO note VALUES (1, 'a'), (2, 'b') RETURNING id`;
  expect(inserted).toMatchObject({ command: "INSERT", rowCount: 2, rows: [{ id: 1 }, { id: 2 }] });
  expect(inserted.fields).toMatchObject([{ name: "id", dataTypeID: 23 }]);
  const created = await sql`CREATE TABLE IF NOT EXISTS other (id int)`;
  expect(created).toMatchObject({ command: "CREATE", rowCount: null, rows: [], fields: [] });
  expect(await sql.query("")).toMatchObject({ rows: [] });
});

test("a batch that fails midway is rolled back, and the error has PostgreSQL's own fields", async () => {
  const sql = neon(postgres.superuserUrl);
  const error = await failureOf(
    sql.transaction([
      sql`INSERT INTO note VALUES (1, 'first')`,
      sql`INSERT INTO note VALUES (1, 'again')`,
      sql`INSERT INTO note VALUES (2, 'never')`,
    ]),
  );
  expect(error).toMatchObject({
    code: "23505",
    severity: "ERROR",
    table: "note",
    schema: "public",
    constraint: "note_pkey",
    detail: "Key (id)=(1) already exists.",
  });
  expect(await sql`SELECT * FROM note`).toEqual([]);
  expect(await failureOf(sql`SELEC 1`.then())).toMatchObject({ code: "42601", position: "1" });
  expect(await failureOf(sql`SELECT noo FROM note`.then())).toMatchObject({ code: "42703" });
});

test("a transaction-local setting applies to the statements of its batch and to no other batch", async () => {
  const sql = neon(postgres.superuserUrl);
  const read = sql`SELECT current_setting('app.tenant', true) AS tenant, pg_backend_pid() AS pid`;
  const [, inside] = await sql.transaction([sql`SELECT set_config('app.tenant', 't1', true)`, read]);
  const [after] = await read;
  expect(inside?.[0]).toMatchObject({ tenant: "t1" });
  expect(after?.pid, "the same connection, so that the comparison means something").toBe(inside?.[0]?.pid);
  expect(after?.tenant || null).toBeNull();
});

test("concurrent batches never share a connection, and no batch sees another's setting", async () => {
  const sql = neon(postgres.superuserUrl);
  const batch = (tenant: number) =>
    sql.transaction([
      sql`SELECT set_config('app.tenant', ${String(tenant)}, true)`,
      sql`SELECT pg_backend_pid() AS pid, txid_current() AS txid, pg_sleep(0.02)`,
      sql`SELECT current_setting('app.tenant') AS tenant, pg_backend_pid() AS pid, txid_current() AS txid`,
    ]);
  const results = await Promise.all(Array.from({ length: 40 }, (_, tenant) => batch(tenant)));
  for (const [tenant, [, middle, last]] of results.entries()) {
    expect(last?.[0]).toEqual({ tenant: String(tenant), pid: middle?.[0]?.pid, txid: middle?.[0]?.txid });
  }
  const [{ open } = {}] =
    await sql`SELECT count(*)::int AS open FROM pg_stat_activity WHERE backend_type = 'client backend'`;
  expect(open).toBeLessThanOrEqual(17);
});

test("isolation level, read only and deferrable apply to one batch and end with it", async () => {
  const sql = neon(postgres.superuserUrl);
  const modes = sql`SELECT current_setting('transaction_isolation') AS isolation,
    current_setting('transaction_read_only') AS read_only, current_setting('transaction_deferrable') AS deferrable`;
  const options = { isolationLevel: "Serializable", readOnly: true, deferrable: true } as const;
  expect(await sql.transaction([modes], options)).toEqual([
    [{ isolation: "serializable", read_only: "on", deferrable: "on" }],
  ]);
  expect(await failureOf(sql.transaction([sql`INSERT INTO note VALUES (1, 'x')`], options))).toMatchObject({
    code: "25006",
  });
  expect(await modes).toEqual([{ isolation: "read committed", read_only: "off", deferrable: "off" }]);
  await sql.transaction([sql`INSERT INTO note VALUES (1, 'x')`], { isolationLevel: "RepeatableRead" });
  expect(await sql`SELECT id FROM note`).toEqual([{ id: 1 }]);
});

test("the proxy rolls back a transaction that a statement leaves open", async () => {
  const sql = neon(postgres.superuserUrl);
  await sql.transaction([sql`BEGIN`, sql`INSERT INTO note VALUES (1, 'open')`]);
  expect(await sql`SELECT * FROM note`).toEqual([]);
  expect(await sql`SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`).toEqual([
    { n: 0 },
  ]);
});

test("the proxy refuses COPY and serves the next statement", async () => {
  const sql = neon(postgres.superuserUrl);
  await failureOf(sql.transaction([sql`COPY note FROM STDIN`, sql`SELECT 1`]));
  await sql`INSERT INTO note VALUES (1, 'x')`;
  await failureOf(sql`COPY note TO STDOUT`.then());
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }]);
});

test("the proxy cancels the statement of a client that disconnects", async () => {
  const sql = neon(postgres.superuserUrl);
  const leaving = new AbortController();
  const left = failureOf(
    sql.query("SELECT 'abandoned', pg_sleep(30)", [], { fetchOptions: { signal: leaving.signal } }).then(),
  );
  const running = async () => {
    const [row] = await sql`SELECT count(*)::int AS n FROM pg_stat_activity
      WHERE state = 'active' AND query LIKE 'SELECT ''abandoned''%'`;
    return Number(row?.n);
  };
  await expect.poll(running).toBe(1);
  leaving.abort();
  await left;
  await expect.poll(running).toBe(0);
});

test("the proxy answers a wrong password, a wrong database and a foreign address with different errors", async () => {
  const wrong = new URL(postgres.superuserUrl);
  wrong.password = "wrong";
  expect(await failureOf(neon(wrong.href)`SELECT 1`.then())).toMatchObject({ code: "28P01" });
  const missing = postgres.superuserUrl.replace(/postgres$/, "missing");
  expect(await failureOf(neon(missing)`SELECT 1`.then())).toMatchObject({ code: "3D000" });
  const foreign = await failureOf(neon("postgresql://u:p@192.0.2.1/db")`SELECT 1`.then());
  expect(foreign.message).toContain("192.0.2.1");
});

test("the proxy answers a malformed request with a 4xx and the reason", async () => {
  const post = (body: string, headers: Record<string, string> = {}) =>
    fetch(`${proxy.url}/sql`, {
      method: "POST",
      body,
      headers: { "Neon-Connection-String": postgres.superuserUrl, "Neon-Raw-Text-Output": "true", ...headers },
    });
  for (const [body, status] of [
    ["{", 400],
    ["[]", 400],
    ['{"query": 1}', 400],
    ['{"query": "SELECT 1", "params": {}}', 400],
    ['{"queries": [{"query": "SELECT $1", "params": [{}]}]}', 400],
    [JSON.stringify({ query: "SELECT 1", pad: "x".repeat(11 * 1024 * 1024) }), 413],
  ] as const) {
    const response = await post(body);
    expect([body.slice(0, 40), response.status]).toEqual([body.slice(0, 40), status]);
    expect(await response.json()).toEqual({ message: expect.any(String) });
  }
  expect((await post('{"query": "SELECT 1"}', { "Neon-Connection-String": "" })).status).toBe(400);
  expect((await post('{"queries": []}', { "Neon-Batch-Isolation-Level": "x" })).status).toBe(400);
  expect((await fetch(`${proxy.url}/elsewhere`)).status).toBe(404);
  const objects = await post('{"query": "SELECT $1::int AS a", "params": [5]}');
  expect(await objects.json()).toMatchObject({ rows: [{ a: "5" }], rowAsArray: false });
});

test("the proxy counts batches and statements per login and database, without passwords", async () => {
  const sql = neon(postgres.superuserUrl);
  await sql`SELECT 1`;
  await sql.transaction([sql`SELECT 1`, sql`SELECT 2`]);
  const port = new URL(postgres.superuserUrl).port;
  const connections = { [`postgresql://postgres@127.0.0.1:${port}/postgres`]: { httpBatches: 2, statements: 3 } };
  const stats = { httpBatches: 2, statements: 3, websocketConnections: 0, faults: 0, connections };
  expect(proxy.stats()).toEqual(stats);
  expect(await (await fetch(`${proxy.url}/_proxy/stats`)).json()).toEqual(stats);
  await fetch(`${proxy.url}/_proxy/stats/reset`, { method: "POST" });
  expect(proxy.stats()).toMatchObject({ httpBatches: 0, connections: {} });
});

test("a fault rule refuses a batch before it runs, loses the answer after its commit, or delays it", async () => {
  const sql = neon(postgres.superuserUrl);
  const insert = (id: number) => sql`INSERT INTO note VALUES (${id}, 'x')`.then();
  const ids = async () => (await sql`SELECT id FROM note ORDER BY id`).map((row) => Number(row.id));

  const rules = [
    { kind: "refuse-before", sql: "INSERT INTO note", times: 1 },
    { kind: "lose-after", sql: "INSERT INTO note", database: "postgres", times: 1 },
    { kind: "lose-after", sql: "INSERT INTO note", database: "other" },
  ];
  const set = await fetch(`${proxy.url}/_proxy/faults`, { method: "POST", body: JSON.stringify(rules) });
  expect(set.status).toBe(200);
  expect((await failureOf(insert(1))).message).toContain("503");
  expect(await ids()).toEqual([]);
  expect((await failureOf(insert(2))).sourceError).toBeDefined();
  expect(await ids()).toEqual([2]);
  await insert(3);
  expect(await ids()).toEqual([2, 3]);
  expect(proxy.stats().faults).toBe(2);

  proxy.setFaults([{ kind: "slow", ms: 150, times: 1 }]);
  const startMs = performance.now();
  await insert(4);
  expect(performance.now() - startMs).toBeGreaterThan(140);

  const bad = await fetch(`${proxy.url}/_proxy/faults`, { method: "POST", body: '[{"kind":"explode"}]' });
  expect(bad.status).toBe(400);
});

test("fault rules with the same seed hit the same batches", async () => {
  const sql = neon(postgres.superuserUrl);
  const pattern = async () => {
    proxy.setFaults([{ kind: "refuse-before", probability: 0.5, seed: 42 }]);
    const hits: boolean[] = [];
    for (let i = 0; i < 20; i++)
      hits.push(
        await sql`SELECT 1`.then(
          () => false,
          () => true,
        ),
      );
    return hits;
  };
  const first = await pattern();
  expect(await pattern()).toEqual(first);
  expect(new Set(first)).toEqual(new Set([true, false]));
});

test("a WebSocket session keeps its state and receives notifications", async () => {
  const client = new NeonClient(postgres.superuserUrl);
  await client.connect();
  await client.query("BEGIN");
  await client.query("INSERT INTO note VALUES ($1, $2)", [1, "x".repeat(2 * 1024 * 1024)]);
  const { rows } = await client.query("SELECT length(text) AS length FROM note");
  expect(rows).toEqual([{ length: 2 * 1024 * 1024 }]);
  await client.query("ROLLBACK");
  expect((await client.query("SELECT * FROM note")).rows).toEqual([]);
  await client.end();
  expect(proxy.stats().websocketConnections).toBe(1);
});

test("the proxy refuses a tunnel to another machine", async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${proxy.port}/v2?address=192.0.2.1:5432`);
  const error = await new Promise<Error>((resolve) => socket.on("error", resolve));
  expect(error.message).toContain("400");
});

test("calls fail fast while PostgreSQL is down and succeed when it is back", async () => {
  const sql = neon(postgres.superuserUrl);
  const session = new NeonClient(postgres.superuserUrl);
  await session.connect();
  const sessionLost = new Promise<void>((resolve) => session.on("error", () => resolve()));
  await Promise.all(Array.from({ length: 5 }, () => sql`SELECT pg_sleep(0.01)`));

  const interrupted = failureOf(sql`SELECT pg_sleep(30)`.then());
  await sleep(100);
  process.kill(postgres.pid, "SIGKILL");
  await postgres.exited;
  expect((await interrupted).code ?? null).toBeNull();
  await sessionLost;

  const startMs = performance.now();
  const refused = await failureOf(sql`SELECT 1`.then());
  expect(refused.message).toContain("500");
  // With a password, the driver reports a connection before the server has answered. Neon behaves the same.
  const late = new NeonClient(postgres.superuserUrl);
  late.on("error", () => undefined);
  await expect(late.connect().then(() => late.query("SELECT 1"))).rejects.toBeDefined();
  expect(performance.now() - startMs).toBeLessThan(15_000);

  const port = Number(new URL(postgres.superuserUrl).port);
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port });
  expect(postgres.firstStart).toBe(false);
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }]);
}, 30_000);

test("close ends every connection to PostgreSQL", async () => {
  const other = await startNeonProxy({ port: 0 });
  const body = JSON.stringify({ query: "SELECT pg_sleep(30), 'other proxy'" });
  const headers = { "Neon-Connection-String": postgres.superuserUrl, "Neon-Raw-Text-Output": "true" };
  const hanging = fetch(`${other.url}/sql`, { method: "POST", body, headers }).catch(() => undefined);
  const tunnel = new WebSocket(`ws://127.0.0.1:${other.port}/v2?address=${new URL(postgres.superuserUrl).host}`);
  const tunnelClosed = new Promise((resolve) => tunnel.on("close", resolve));
  await new Promise((resolve) => tunnel.on("open", resolve));
  await sleep(50);
  await other.close();
  await Promise.all([hanging, tunnelClosed]);
  await expect(fetch(`${other.url}/_proxy/stats`)).rejects.toBeDefined();
});
