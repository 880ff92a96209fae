// Tests the stand-in of Neon's pooled endpoint: WebSocket sessions share server connections by transaction, and HTTP
// batches use the number of connections that a test sets. PostgreSQL and Neon's driver are real.
import { Client as NeonClient, neonConfig } from "@neondatabase/serverless";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { type NeonProxy, type NeonProxyOptions, startNeonProxy } from "../../dev/neon/proxy.ts";
import { removePostgresData, type RunningPostgres, startPostgres } from "../../dev/postgres/postgres.ts";

const LOGINS = 60;

let folder: string;
let postgres: RunningPostgres;
let admin: Client;
const proxies: NeonProxy[] = [];
const sessions: NeonClient[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-pooler-test-"));
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port: 0 });
  neonConfig.useSecureWebSocket = false;
  neonConfig.webSocketConstructor = WebSocket;
  admin = new Client({ connectionString: postgres.superuserUrl });
  await admin.connect();
  const roles = Array.from({ length: LOGINS }, (_, i) => `CREATE ROLE login_${i} LOGIN PASSWORD 'login_${i}';`);
  await admin.query(`CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL);
    CREATE TABLE entry (client int NOT NULL, pid int NOT NULL DEFAULT pg_backend_pid(), txid bigint DEFAULT txid_current());
    GRANT ALL ON note, entry TO PUBLIC; ${roles.join("")}`);
});

afterAll(async () => {
  await admin?.end();
  await postgres?.stop();
  await removePostgresData(join(folder, "postgres"));
  await rm(folder, { recursive: true, force: true });
});

afterEach(async () => {
  await Promise.all(sessions.splice(0).map(vanish));
  await Promise.all(proxies.splice(0).map((proxy) => proxy.close()));
  await admin.query("TRUNCATE note, entry");
});

async function aProxy(options: Omit<NeonProxyOptions, "port"> = { pooler: { maxPerTarget: 1 } }): Promise<NeonProxy> {
  const proxy = await startNeonProxy({ port: 0, ...options });
  proxies.push(proxy);
  return proxy;
}

function urlOf(login: number): string {
  return `postgresql://login_${login}:login_${login}@127.0.0.1:${postgres.port}/postgres`;
}

async function aSession(proxy: NeonProxy, url = urlOf(0)): Promise<NeonClient> {
  const session = new NeonClient(url);
  session.neonConfig.wsProxy = (host, port) => `127.0.0.1:${proxy.port}/v2?address=${host}:${port}`;
  session.on("error", () => undefined);
  await session.connect();
  sessions.push(session);
  return session;
}

async function vanish(session: NeonClient): Promise<void> {
  const { ws } = session.neonConfig as unknown as { ws: WebSocket };
  ws.terminate();
  await sleep(1);
}

async function pidOf(session: NeonClient): Promise<number> {
  const { rows } = await session.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  return rows[0]?.pid ?? 0;
}

/** Sends one batch over HTTP. Resolves with the first row of its last statement. */
async function batch(proxy: NeonProxy, url: string, ...statements: string[]): Promise<Record<string, unknown>> {
  const headers = { "Neon-Connection-String": url, "Neon-Raw-Text-Output": "true" };
  const body = JSON.stringify({ queries: statements.map((text) => ({ query: text, params: [] })) });
  const response = await fetch(`${proxy.url}/sql`, { method: "POST", headers, body });
  const answer = (await response.json()) as { message?: string; results?: { rows: Record<string, unknown>[] }[] };
  if (!response.ok) throw new Error(`${response.status} ${answer.message}`);
  return answer.results?.at(-1)?.rows[0] ?? {};
}

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  return (await Promise.race([promise, sleep(50, "pending")])) === "pending";
}

async function endSleepers(): Promise<void> {
  await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
}

function untilWaiting(event: "PgSleep" | "ClientWrite", count = 1): Promise<void> {
  const text = "SELECT 1 FROM pg_stat_activity WHERE wait_event = $1";
  return expect.poll(async () => (await admin.query(text, [event])).rows.length).toBe(count);
}

test("two clients share one server connection, so one client's SET affects the other", async () => {
  const proxy = await aProxy();
  const [one, other] = [await aSession(proxy), await aSession(proxy)];
  expect(await pidOf(one)).toBe(await pidOf(other));
  await one.query("SET search_path = pg_catalog; SET app.tenant = 't1'");
  const { rows } = await other.query("SELECT current_setting('app.tenant') AS tenant, current_schema() AS schema");
  expect(rows).toEqual([{ tenant: "t1", schema: "pg_catalog" }]);
});

test("a transaction keeps its server connection until it ends, and waiting clients are served in order", async () => {
  const proxy = await aProxy();
  const [one, ...others] = [await aSession(proxy), await aSession(proxy), await aSession(proxy), await aSession(proxy)];
  await one.query("BEGIN");
  await one.query("INSERT INTO entry VALUES ($1)", [0]);
  const served: number[] = [];
  const waiting: Promise<unknown>[] = [];
  for (const [i, other] of others.entries()) {
    waiting.push(other.query(`INSERT INTO entry VALUES (${i})`).then(() => served.push(i)));
    await sleep(10);
  }
  await one.query("COMMIT");
  await Promise.all(waiting);
  expect(served).toEqual([0, 1, 2]);
  const { rows } = await one.query("SELECT count(DISTINCT txid) AS txids, count(DISTINCT pid) AS pids FROM entry");
  expect(rows).toEqual([{ txids: "4", pids: "1" }]);
  expect(proxy.stats().peakConnections).toEqual({ http: 0, websocket: 1, together: 1 });
});

test("an error requires an explicit transaction to roll back, and ends an implicit one", async () => {
  const proxy = await aProxy();
  const [one, other] = [await aSession(proxy), await aSession(proxy)];
  await one.query("BEGIN");
  await one.query("INSERT INTO note VALUES (1, 'x')");
  await expect(one.query("INSERT INTO note VALUES ($1, 'again')", [1])).rejects.toMatchObject({ code: "23505" });
  const waiting = pidOf(other);
  expect(await isPending(waiting)).toBe(true);
  await expect(one.query("SELECT 1")).rejects.toMatchObject({ code: "25P02" });
  await one.query("ROLLBACK");
  const pid = await waiting;
  await expect(one.query("SELEC 1")).rejects.toMatchObject({ code: "42601" });
  await expect(one.query("SELECT 1 / $1::int", [0])).rejects.toMatchObject({ code: "22012" });
  expect(await pidOf(other)).toBe(pid);
  expect((await admin.query("SELECT * FROM note")).rows).toEqual([]);
});

test("a client that disconnects during a transaction closes its server connection, and the transaction is rolled back", async () => {
  const proxy = await aProxy();
  const next = await aSession(proxy);
  const pids = new Set([await pidOf(next)]);
  for (const leave of [(session: NeonClient) => session.end(), vanish]) {
    const leaving = await aSession(proxy);
    await leaving.query("BEGIN");
    await leaving.query("INSERT INTO note VALUES (1, 'lost')");
    const waiting = next.query("INSERT INTO note VALUES (1, 'kept') RETURNING pg_backend_pid() AS pid");
    await leave(leaving);
    pids.add(Number((await waiting).rows[0]?.["pid"]));
    expect((await next.query("DELETE FROM note RETURNING text")).rows).toEqual([{ text: "kept" }]);
  }
  expect(pids.size).toBe(3);
  expect(proxy.stats().peakConnections?.websocket, "the new one came after the old one").toBe(1);
});

test("a client that vanishes during a long statement delays others only briefly, and one that vanishes while it waits is skipped", async () => {
  const proxy = await aProxy();
  const [sleeper, waiter, next] = [await aSession(proxy), await aSession(proxy), await aSession(proxy)];
  void sleeper.query("SELECT pg_sleep(30)").catch(() => undefined);
  await untilWaiting("PgSleep");
  void waiter.query("INSERT INTO note VALUES (1, 'never')").catch(() => undefined);
  const served = next.query("SELECT * FROM note");
  expect(await isPending(served)).toBe(true);
  await vanish(waiter);
  await vanish(sleeper);
  expect((await served).rows).toEqual([]);
  await endSleepers(); // as behind PgBouncer, the statement itself runs on
});

test.each([1, 3])("each of twenty clients over %i connections sees only its own transactions", async (size) => {
  const proxy = await aProxy({ pooler: { maxPerTarget: size } });
  let seed = size;
  const random = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const transact = async (session: NeonClient, client: number): Promise<number> => {
    const [steps, end] = [Math.ceil(random() * 3), random()];
    await session.query("BEGIN");
    for (let n = 1; n <= steps; n++) {
      await session.query("INSERT INTO entry VALUES ($1)", [client]);
      if (random() < 0.3) await sleep(random() * 5);
      const mine = "SELECT client, count(*)::int AS n FROM entry WHERE txid = txid_current() GROUP BY client";
      expect((await session.query(mine)).rows).toEqual([{ client, n }]);
    }
    if (end < 0.2) await session.query("SELECT 1 / 0").catch(() => undefined);
    await session.query(end < 0.4 ? "ROLLBACK" : "COMMIT");
    return end < 0.4 ? 0 : steps;
  };
  const run = async (_: unknown, client: number): Promise<{ client: number; n: number }> => {
    const session = await aSession(proxy);
    await session.query("INSERT INTO entry VALUES ($1)", [client]);
    let n = 1;
    for (let round = 0; round < 5; round++) n += await transact(session, client);
    return { client, n };
  };
  const expected = await Promise.all(Array.from({ length: 20 }, run));
  const { rows } = await admin.query("SELECT client, count(*)::int AS n FROM entry GROUP BY client ORDER BY client");
  expect(rows).toEqual(expected);
  expect((await admin.query("SELECT DISTINCT pid FROM entry")).rows).toHaveLength(size);
  expect(proxy.stats().peakConnections?.websocket).toBe(size);
});

test("the pooler refuses a wrong password, a wrong database, startup options and named statements, and keeps serving others", async () => {
  const proxy = await aProxy();
  for (const [change, query, refusal] of [
    [(url: string) => url.replace(":login_0@", ":wrong@"), "SELECT 1", { code: "28P01" }],
    [(url: string) => url.replace(/postgres$/, "missing"), "SELECT 1", { code: "3D000" }],
    [(url: string) => `${url}?options=-c%20search_path%3Dx`, "SELECT 1", { code: "08P01" }],
    [(url: string) => url, { name: "one", text: "SELECT 1" }, { code: "0A000" }],
  ] as const) {
    // The second round meets a connection that the correct password has opened.
    for (let i = 0; i < 2; i++) {
      const refused = await aSession(proxy, change(urlOf(0)));
      await expect(refused.query(query)).rejects.toMatchObject(refusal);
      const { rows } = await (await aSession(proxy)).query("SELECT current_user AS name");
      expect(rows).toEqual([{ name: "login_0" }]);
    }
  }
});

test("results and parameters of several megabytes arrive complete", async () => {
  const session = await aSession(await aProxy());
  const big = "0123456789abcdef".repeat(5 * 65_536);
  await session.query("BEGIN");
  await session.query("INSERT INTO note VALUES ($1, $2)", [1, big]);
  expect((await session.query("SELECT text FROM note")).rows[0]?.["text"] === big).toBe(true);
  await session.query("ROLLBACK");
  const { rows } = await session.query("SELECT i, repeat('x', 50) AS text FROM generate_series(0, 50000) i");
  expect(rows[50_000]).toEqual({ i: 50_000, text: "x".repeat(50) });
});

test("a client that does not read makes the server wait, and the pooler does not buffer without limit", async () => {
  const slow = await aRawClient(await aProxy());
  slow.socket.pause();
  await slow.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"));
  await untilWaiting("ClientWrite");
  const beforeBytes = process.memoryUsage().rss;
  await sleep(200);
  await untilWaiting("ClientWrite");
  expect(process.memoryUsage().rss - beforeBytes).toBeLessThan(30_000_000);
  slow.socket.resume();
  expect(await slow.until("Z")).toMatch(/^TD{100}CZ$/);
});

test("the pooler accepts bytes one by one or all at once, and refuses TLS and cancel requests", async () => {
  const proxy = await aProxy();
  const slow = await aRawClient(proxy, { byteByByte: true });
  await slow.send(extended("SELECT 1"), extended("SELECT 1 / 0"), sync, extended("SELECT 2"), sync);
  expect(await slow.until("Z")).toBe("12DC1EZ");
  expect(await slow.until("Z")).toBe("12DCZ");

  const fast = await aRawClient(proxy);
  await fast.send(query("BEGIN"), query("INSERT INTO note VALUES (1, 'x')"), query("COMMIT"), query(""));
  for (const answer of ["CZ", "CZ", "CZ", "IZ"]) expect(await fast.until("Z")).toBe(answer);
  await fast.send(query("SELECT 2"), extended("SELECT 3"), message("H", ""));
  expect(await fast.until("Z")).toBe("TDCZ");
  expect(await fast.until("C")).toBe("12DC");
  await slow.send(query("SELECT count(*) FROM note"));
  const waiting = slow.until("Z");
  expect(await isPending(waiting)).toBe(true);
  await fast.send(sync); // a client that owes one keeps the connection
  expect(await fast.until("Z")).toBe("Z");
  expect(await waiting).toBe("TDCZ");

  await fast.send(query("COPY note FROM STDIN"), message("d", "2\ttwo\n"), message("c", ""));
  expect(await fast.until("Z")).toBe("GCZ");
  await fast.send(query("COPY note FROM STDIN"), message("d", "wrong\n"), message("c", ""));
  expect(await fast.until("Z")).toBe("GEZ");
  await fast.send(message("d", "stray\n"));
  await slow.send(query("SELECT 1"));
  expect(await slow.until("Z")).toBe("TDCZ");
  await fast.send(query("SELECT pg_sleep(0.2)"));
  const canceller = await openSocket(proxy);
  canceller.send(message("", "\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x01"));
  await new Promise((resolve) => canceller.on("close", resolve));
  expect(await fast.until("Z")).toBe("TDCZ");
  await fast.send(message("X", ""));
  await fast.closed;
});

test("a client whose server connection dies gets an error and is disconnected, and the next client is served", async () => {
  const proxy = await aProxy();
  const [one, other] = [await aSession(proxy), await aSession(proxy)];
  await one.query("BEGIN");
  const lost = expect(one.query("SELECT pg_sleep(30)")).rejects.toMatchObject({ code: "57P01" });
  await untilWaiting("PgSleep");
  await endSleepers();
  await lost;
  await expect(one.query("SELECT 1")).rejects.toBeDefined();
  const pid = await pidOf(other);
  await admin.query("SELECT pg_terminate_backend($1)", [pid]);
  await expect.poll(async () => pidOf(await aSession(proxy))).not.toBe(pid);
});

test("sixty logins share six connections over HTTP and are served in order of arrival", async () => {
  const proxy = await aProxy({ maxTotal: 6 });
  const holding = Array.from({ length: 6 }, (_, i) => batch(proxy, urlOf(i), "SELECT pg_sleep(60)"));
  await untilWaiting("PgSleep", 6);
  const ask = (login: number) => batch(proxy, urlOf(login), "SELECT current_user AS name");
  const served: unknown[] = [];
  const waiting: Promise<unknown>[] = [];
  for (let login = 0; login < LOGINS; login++) {
    waiting.push(ask(login).then(({ name }) => served.push(name)));
    await sleep(2);
  }
  await endSleepers();
  await Promise.allSettled(holding);
  await Promise.all(waiting);
  for (let i = 0; i < LOGINS; i++) expect(Math.abs(served.indexOf(`login_${i}`) - i)).toBeLessThan(12);
  const many = await Promise.all(Array.from({ length: LOGINS * 2 }, (_, i) => ask(i % LOGINS)));
  expect(many).toEqual(many.map((_, i) => ({ name: `login_${i % LOGINS}` })));
  expect(proxy.stats().peakConnections).toEqual({ http: 6, websocket: 0, together: 6 });
});

test("HTTP and the pooler work side by side, and the peaks count from the last reset", async () => {
  const proxy = await aProxy({ maxPerTarget: 1, pooler: { maxPerTarget: 1 } });
  const session = await aSession(proxy);
  await session.query("BEGIN");
  await session.query("INSERT INTO note VALUES (1, 'open')");
  const read = () => batch(proxy, urlOf(0), "SELECT pg_sleep(0.01)", "SELECT * FROM note");
  expect(await Promise.all(Array.from({ length: 6 }, read))).toEqual(Array.from({ length: 6 }, () => ({})));
  await session.query("COMMIT");
  expect(await read()).toMatchObject({ text: "open" });
  expect(proxy.stats()).toMatchObject({ httpBatches: 7, peakConnections: { http: 1, websocket: 1, together: 2 } });
  await batch(proxy, urlOf(1), "SELECT 1");
  expect(proxy.stats().peakConnections).toEqual({ http: 2, websocket: 1, together: 3 });
  await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'login%'");
  const sinceNow = () => (proxy.resetStats(), proxy.stats().peakConnections);
  await expect.poll(sinceNow).toEqual({ http: 0, websocket: 0, together: 0 });
  expect(await (await fetch(`${proxy.url}/_proxy/stats`)).json()).toEqual(proxy.stats());
});

test("close ends every connection to PostgreSQL and every wait for one", async () => {
  const proxy = await aProxy();
  const texts = ["SELECT pg_sleep(30)", "SELECT 1"];
  const ended = Promise.allSettled(texts.map(async (text) => (await aSession(proxy)).query(text)));
  await untilWaiting("PgSleep");
  await proxy.close();
  expect((await ended).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  await endSleepers();
  const text = "SELECT 1 FROM pg_stat_activity WHERE usename LIKE 'login%'";
  await expect.poll(async () => (await admin.query(text)).rows).toEqual([]);
});

// ---- a client that controls each byte it sends

async function openSocket(proxy: NeonProxy): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${proxy.port}/v2?address=127.0.0.1:${postgres.port}`);
  await new Promise((resolve) => socket.on("open", resolve));
  return socket;
}

/** Requests TLS, is refused, then logs in. `until` resolves with the types of all messages up to the given type. */
async function aRawClient(proxy: NeonProxy, { byteByByte = false } = {}) {
  const socket = await openSocket(proxy);
  const closed = new Promise((resolve) => socket.on("close", resolve));
  let received = Buffer.alloc(0);
  let wake = (): void => undefined;
  socket.on("message", (data: Buffer) => {
    received = Buffer.concat([received, data]);
    wake();
  });
  const take = async (sizeBytes: () => number): Promise<Buffer> => {
    while (received.length < sizeBytes()) await new Promise<void>((resolve) => (wake = resolve));
    const taken = received.subarray(0, sizeBytes());
    received = received.subarray(taken.length);
    return taken;
  };
  const send = async (...messages: Buffer[]): Promise<void> => {
    const bytes = Buffer.concat(messages);
    const step = byteByByte ? 1 : bytes.length;
    for (let i = 0; i < bytes.length; i += step, await sleep(1)) socket.send(bytes.subarray(i, i + step));
  };
  const until = async (type: string): Promise<string> => {
    for (let types = ""; ;) {
      types += String.fromCharCode((await take(() => (received.length < 5 ? 5 : 1 + received.readInt32BE(1))))[0] ?? 0);
      if (types.endsWith(type)) return types;
    }
  };

  await send(message("", "\x04\xd2\x16\x2f"));
  expect((await take(() => 1)).toString()).toBe("N");
  await send(message("", "\0\x03\0\0user\0login_0\0database\0postgres\0\0"), message("p", "login_0\0"));
  expect(await until("Z")).toMatch(/^RRS+KZ$/);
  return { socket, send, until, closed };
}

function message(type: string, body: string): Buffer {
  const bytes = Buffer.from(`${type}\0\0\0\0${body}`, "latin1");
  bytes.writeInt32BE(bytes.length - type.length, type.length);
  return bytes;
}

const sync = message("S", "");
const query = (sql: string): Buffer => message("Q", `${sql}\0`);
const extended = (sql: string): Buffer =>
  Buffer.concat([message("P", `\0${sql}\0\0\0`), message("B", "\0".repeat(8)), message("E", "\0".repeat(5))]);
