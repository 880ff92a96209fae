// Runs sessions against a real PostgreSQL, through the stand-in of Neon's proxy: messages, results, and the error of every
// way in which a session ends. Results are compared with HTTP wherever the two must agree.
import { neonConfig } from "@neondatabase/serverless";
import * as fc from "fast-check";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type NeonProxy, startNeonProxy } from "../../dev/neon/proxy.ts";
import { removePostgresData, type RunningPostgres, startPostgres } from "../../dev/postgres/postgres.ts";
import { AnswerLost, connectNeon, type NeonConnection, SqlError } from "../../src/adapters/neon.ts";
import { createSessionPool } from "../../src/tenant-db/session-pool.ts";
import { NeverSent, openSession, type Session, type SessionOptions } from "../../src/tenant-db/session.ts";
import { AppError } from "../../src/core/errors.ts";
import type { Statement } from "../../src/core/sql.ts";

let folder: string;
let postgres: RunningPostgres;
let proxy: NeonProxy;
let http: NeonConnection;
/** Records what the driver sends and receives on its sockets, in order. */
let traffic: ("sent" | "heard")[] = [];

class WatchedSocket extends WebSocket {
  constructor(url: string) {
    super(url);
    this.addEventListener("message", () => traffic.push("heard"));
  }
  override send(data: Parameters<WebSocket["send"]>[0]): void {
    traffic.push("sent");
    super.send(data);
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-session-test-"));
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port: 0 });
  proxy = await startNeonProxy({ port: 0 });
  neonConfig.webSocketConstructor = WatchedSocket as unknown as NonNullable<typeof neonConfig.webSocketConstructor>;
  http = connectNeon(postgres.superuserUrl, `${proxy.url}/sql`);
  await http.query("CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL)");
}, 60_000);

afterAll(async () => {
  await proxy?.close();
  await postgres?.stop();
  await removePostgresData(join(folder, "postgres"));
  await rm(folder, { recursive: true, force: true });
}, 30_000);

beforeEach(async () => {
  await http.query("TRUNCATE note");
  traffic = [];
});

async function open(overrides: Partial<SessionOptions> = {}): Promise<Session & AsyncDisposable> {
  const defaults = { url: postgres.superuserUrl, wsProxy: `127.0.0.1:${proxy.port}/v2` };
  const session = await openSession({ ...defaults, ...overrides });
  return Object.assign(session, { [Symbol.asyncDispose]: () => session.close() });
}

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => expect.unreachable(`it succeeded with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
}

function factsOf(error: unknown): Record<string, unknown> {
  if (!(error instanceof AppError)) throw new Error("not an AppError", { cause: error });
  const { name, code, message } = error;
  return { name, code, message, ...(error instanceof SqlError && { constraint: error.constraint }) };
}

const insert = (id: number): Statement => ({ text: "INSERT INTO note VALUES ($1, 'x') RETURNING id", params: [id] });
const ids = async (): Promise<unknown[]> => (await http.query("SELECT id FROM note ORDER BY id")).map(({ id }) => id);
const pidOf = async (session: Session): Promise<unknown> =>
  (await session.batch([{ text: "SELECT pg_backend_pid() AS pid" }]))[0]?.[0]?.pid;
const terminate = (pid: unknown): Promise<unknown> => http.query("SELECT pg_terminate_backend($1, 5000)", [pid]);

/** The state of a server process, `undefined` when it has ended. */
async function stateOf(pid: unknown): Promise<unknown> {
  return (await http.query("SELECT state FROM pg_stat_activity WHERE pid = $1", [pid]))[0]?.state;
}

/**
 * A TCP relay between a session and the proxy, or one that accepts connections and never answers. `cut` breaks
 * every connection. `mute` drops all further bytes without closing a connection.
 */
async function relay(kind: "open" | "silent") {
  const sockets = new Set<Socket>();
  const server: Server = createServer((near) => {
    sockets.add(near.on("error", () => undefined));
    if (kind === "silent") return;
    const far = connect(proxy.port, "127.0.0.1").on("error", () => undefined);
    sockets.add(far);
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const cut = (): void => sockets.forEach((socket) => socket.destroy());
  return {
    wsProxy: `127.0.0.1:${(server.address() as AddressInfo).port}/v2`,
    mute: () => sockets.forEach((socket) => socket.unpipe().pause()),
    cut,
    [Symbol.asyncDispose]: async () => {
      cut();
      await new Promise((closed) => server.close(closed));
    },
  };
}

test("a batch of five statements is one message and one round trip, in one transaction", async () => {
  await using session = await open();
  traffic = [];
  const rows = await session.batch([
    { text: "SELECT txid_current()::text AS id" },
    insert(1),
    insert(2),
    { text: "UPDATE note SET text = $2 WHERE id = $1", params: [1, "changed"] },
    { text: "SELECT id, text, txid_current()::text AS txid FROM note ORDER BY id" },
  ]);
  expect(traffic.filter((what) => what === "sent")).toHaveLength(1);
  expect(traffic[0]).toBe("sent");
  const txid = rows[0]?.[0]?.id;
  expect(rows).toEqual([
    [{ id: txid }],
    [{ id: 1 }],
    [{ id: 2 }],
    [],
    [
      { id: 1, text: "changed", txid },
      { id: 2, text: "x", txid },
    ],
  ]);
  expect(session.transaction).toBe("none");
  expect(await session.batch([])).toEqual([]);
  expect(await session.batch([{ text: "" }, { text: "SELECT 1 AS one" }])).toEqual([[], [{ one: 1 }]]);
});

test("a session returns the same values of every common type as HTTP", async () => {
  await using session = await open();
  const statement = {
    text: `SELECT 1::int2 AS small, 9007199254740993::int8 AS big, 1.5::float8 AS real, 'NaN'::float4 AS nan, 12.30::numeric AS price,
      true AS yes, null::text AS nothing, '{"a": [1, "ü"], "b": null}'::jsonb AS doc, '[1]'::json AS list, 'Zoë'::text AS name,
      '2026-11-21 10:00:00.123456+02'::timestamptz AS at, '2026-11-21 10:00'::timestamp AS local, '2026-11-21'::date AS day,
      '10:00'::time AS hour, '1 day 02:03:04.5'::interval AS span, 'infinity'::timestamptz AS never, '\\x00ff'::bytea AS bytes,
      '{1,2,null}'::int[] AS ints, '{"x","y\\"z",null}'::text[] AS texts, '{{1,2},{3,4}}'::int8[] AS grid, array[now()] IS NOT NULL AS ok,
      'f47ac10b-58cc-4372-a567-0e02b2c3d479'::uuid AS id, '(1,2)'::point AS point, '[1,5)'::int4range AS range, '::1'::inet AS address,
      1 AS twice, 2 AS twice, ROW(1, 'a') AS record, 3 AS "__proto__"`,
  };
  const [overHttp] = await http.batch([statement]);
  expect(await session.batch([statement])).toEqual([overHttp]);
  expect(overHttp?.[0]).toMatchObject({
    big: "9007199254740993",
    day: expect.any(Date),
    doc: { a: [1, "ü"], b: null },
  });
});

test("parameters have the same meaning as over HTTP", async () => {
  await using session = await open();
  const bytes = new Uint8Array([0, 1, 255]);
  const values: [type: string, value: unknown][] = [
    ["int", 7],
    ["int8", 9_007_199_254_740_993n],
    ["numeric", 1.25],
    ["bool", false],
    ["text", null],
    ["text", undefined],
    ["text", ""],
    ["text", bytes],
    ["bytea", bytes],
    ["bytea", bytes.subarray(1)],
    ["jsonb", { a: [1, { b: "ü" }], at: new Date(0) }],
    ["text[]", ["x", 'y"z\\', null, "NULL", "", "{,}"]],
    ["int[]", [[1], [2]]],
    ["int[]", []],
    ["timestamptz", new Date("2026-11-21T10:00:00.123Z")],
    ["timestamp", new Date("2026-11-21T10:00:00.123Z")],
    ["date", new Date("-000043-03-15T12:00:00Z")],
    ["point", { toPostgres: () => "(1,2)" }],
  ];
  const typed = values.map(([type, value]) => ({ text: `SELECT $1::${type} AS value`, params: [value] }));
  expect(await session.batch(typed)).toEqual(await http.batch(typed));

  const value = fc.oneof(fc.string({ unit: "binary" }), fc.double(), fc.bigInt(), fc.boolean(), fc.constant(null));
  const params = fc.array(fc.oneof(value, fc.array(fc.oneof(fc.string(), fc.integer(), fc.constant(null)))), {
    minLength: 1,
    maxLength: 8,
  });
  const outcome = (connection: Pick<Session, "batch">, statements: Statement[]) =>
    connection.batch(statements).catch((error: unknown) => error instanceof SqlError && error.sqlState);
  await fc.assert(
    fc.asyncProperty(params, async (some) => {
      const columns = some.map((_, i) => `$${i + 1}::text AS c${i}`).join(", ");
      const statements = [{ text: `SELECT ${columns}`, params: some }];
      expect(await outcome(session, statements)).toEqual(await outcome(http, statements));
    }),
    { numRuns: 100 },
  );

  // A value that cannot be encoded is refused before anything is sent, and the session stays usable.
  const circular: { self?: unknown } = {};
  circular.self = circular;
  expect(await failureOf(session.batch([{ text: "SELECT $1", params: [circular] }]))).toBeInstanceOf(TypeError);
  expect(await session.batch([{ text: "SELECT 1 AS one" }])).toEqual([[{ one: 1 }]]);
});

test("a refused statement rolls back its batch and gives the same error as over HTTP", async () => {
  await using session = await open();
  for (const bad of [
    insert(1),
    { text: "SELEC 1" },
    { text: "SELECT $1::int", params: ["one"] },
    { text: "SELECT 1; SELECT 2" },
    { text: "SELECT 1/0 AS nothing FROM generate_series(1, 3)" },
    { text: "SELECT set_config('statement_timeout', '20', true), pg_sleep(0)" },
    { text: "SELECT '\0'" },
  ]) {
    const statements = [insert(1), insert(2), bad, { text: "SELECT pg_sleep(0.2)" }, insert(3)];
    const mine = factsOf(await failureOf(session.batch(statements)));
    expect(mine).toEqual(factsOf(await failureOf(http.batch(statements))));
    expect(await ids()).toEqual([]);
    expect(session).toMatchObject({ usable: true, transaction: "none" });
  }
  expect(await session.batch([insert(1)])).toEqual([[{ id: 1 }]]);
});

test("an interactive transaction reports when it is open and when it has failed", async () => {
  await using session = await open();
  await session.batch([{ text: "BEGIN" }, insert(1)]);
  expect(session.transaction).toBe("open");
  expect(await ids()).toEqual([]);
  // Two concurrent batches run one after the other.
  expect(await Promise.all([session.batch([insert(2)]), session.batch([insert(3)])])).toEqual([
    [[{ id: 2 }]],
    [[{ id: 3 }]],
  ]);
  await session.batch([{ text: "COMMIT" }]);
  expect(session.transaction).toBe("none");
  expect(await ids()).toEqual([1, 2, 3]);

  await session.batch([{ text: "BEGIN" }, insert(4)]);
  expect(await failureOf(session.batch([insert(4)]))).toMatchObject({ sqlState: "23505", constraint: "note_pkey" });
  expect(session).toMatchObject({ usable: true, transaction: "failed" });
  expect(await failureOf(session.batch([insert(5)]))).toMatchObject({ sqlState: "25P02" });
  await session.batch([{ text: "ROLLBACK" }]);
  expect(session).toMatchObject({ usable: true, transaction: "none" });
  expect(await ids()).toEqual([1, 2, 3]);
});

test("the pool replaces a session that the server ended while it was idle, and no call fails", async () => {
  let opened = 0;
  const pool = createSessionPool({
    open: async () => {
      opened += 1;
      return open();
    },
    limits: { maxSessions: 1, idleCloseMs: 60_000, maxWaiting: 10, waitWithinMs: 5_000 },
    now: () => Date.now(),
  });
  const kept: Session[] = [];
  const pid = await pool.use((session) => {
    kept.push(session);
    return pidOf(session);
  });
  await terminate(pid);
  const next = await pool.use(pidOf);
  expect(next).not.toBe(pid);
  expect(opened).toBe(2);

  // The open transaction of a returned session is rolled back, and its former caller can no longer use it.
  await expect(
    pool.use(async (session) => {
      await session.batch([{ text: "BEGIN" }, insert(1)]);
      throw new Error("the tool failed");
    }),
  ).rejects.toThrow("the tool failed");
  expect(await pool.use(async (session) => [session.transaction, await pidOf(session)])).toEqual(["none", next]);
  expect(await ids()).toEqual([]);
  await expect(kept[0]?.batch([insert(1)])).rejects.toThrow("was returned");
  expect(opened).toBe(2);

  await pool.drain();
  await expect.poll(() => stateOf(next)).toBeUndefined();
});

test("when a session ends, a sent batch has an unknown outcome and a queued batch was never sent", async () => {
  await using session = await open();
  const pid = await pidOf(session);
  const running = failureOf(session.batch([insert(1), { text: "SELECT pg_sleep(30)" }]));
  const queued = failureOf(session.batch([insert(2)]));
  await expect.poll(() => stateOf(pid)).toBe("active");
  await terminate(pid);
  expect(await running).toBeInstanceOf(AnswerLost);
  expect(await running).toMatchObject({ code: "database_unavailable", cause: { code: "57P01" } });
  expect(await queued).toBeInstanceOf(NeverSent);
  expect(session.usable).toBe(false);
  expect(await failureOf(session.batch([insert(3)]))).toBeInstanceOf(NeverSent);
  expect(await ids()).toEqual([]);
});

test("a broken or silent network ends the session", async () => {
  await using network = await relay("open");
  await using broken = await open(network);
  await using idle = await open(network);
  const answer = failureOf(broken.batch([{ text: "SELECT pg_sleep(30)" }]));
  await expect.poll(() => traffic.at(-1)).toBe("sent");
  network.cut();
  expect(await answer).toBeInstanceOf(AnswerLost);
  await expect.poll(() => idle.usable).toBe(false);
  expect(await failureOf(idle.batch([insert(1)]))).toBeInstanceOf(NeverSent);

  await using silent = await open({ ...network, answerWithinMs: 200 });
  network.mute();
  expect(await failureOf(silent.batch([insert(1)]))).toBeInstanceOf(AnswerLost);
  expect(silent.usable).toBe(false);
});

test("an abort ends the caller's wait and the session at once", async () => {
  await using session = await open();
  const calling = new AbortController();
  const pid = await pidOf(session);
  const answer = failureOf(session.batch([{ text: "SELECT pg_sleep(1)" }], { signal: calling.signal }));
  await expect.poll(() => stateOf(pid)).toBe("active");
  const abortedAtMs = performance.now();
  calling.abort(new Error("the client went away"));
  expect(await answer).toBeInstanceOf(AnswerLost);
  expect(performance.now() - abortedAtMs).toBeLessThan(100);
  expect(await answer).toMatchObject({ cause: { message: "the client went away" } });
  expect(session.usable).toBe(false);

  // A batch that was aborted before it was sent does not end the session.
  await using other = await open();
  expect(await failureOf(other.batch([insert(1)], { signal: calling.signal }))).toMatchObject({
    name: "AppError",
    code: "database_unavailable",
  });
  expect(await other.batch([{ text: "SELECT 1 AS one" }])).toEqual([[{ one: 1 }]]);
});

test("close ends a session's running batch and its server process", async () => {
  const session = await open();
  const pid = await pidOf(session);
  await session.close();
  await session.close();
  await expect.poll(() => stateOf(pid)).toBeUndefined();
  expect(await failureOf(session.batch([insert(1)]))).toBeInstanceOf(NeverSent);

  const busy = await open();
  const answer = failureOf(busy.batch([{ text: "SELECT pg_sleep(30)" }]));
  await busy.close();
  expect(await answer).toBeInstanceOf(AnswerLost);
});

test("COPY and an answer over the size limit end the session", async () => {
  await using wide = await open();
  const tooMuch = { text: "SELECT repeat('x', 100000) FROM generate_series(1, 200)" };
  expect(await failureOf(wide.batch([tooMuch]))).toBeInstanceOf(AnswerLost);
  expect(wide.usable).toBe(false);
  await using copying = await open();
  expect(await failureOf(copying.batch([{ text: "COPY note FROM STDIN" }, insert(1)]))).toBeInstanceOf(AnswerLost);
  expect(copying.usable).toBe(false);
  expect(await ids()).toEqual([]);
});

test("a connect succeeds within its time limit or fails with a clear error, and leaves nothing open", async () => {
  await using nowhere = await relay("silent");
  const startedAtMs = performance.now();
  const refused = await failureOf(open({ ...nowhere, connectWithinMs: 200 }));
  expect(refused).toMatchObject({ name: "AppError", code: "database_silent" });
  expect(performance.now() - startedAtMs).toBeLessThan(1_000);

  const leaving = failureOf(open({ ...nowhere, signal: AbortSignal.timeout(50) }));
  expect(await leaving).toMatchObject({ name: "AppError", code: "database_unavailable" });

  const url = new URL(postgres.superuserUrl);
  url.password = "wrong";
  const turnedAway = { name: "AppError", code: "database_unavailable" };
  expect(await failureOf(open({ url: url.href }))).toMatchObject({ ...turnedAway, cause: { code: "28P01" } });
  const missing = postgres.superuserUrl.replace(/postgres$/, "missing");
  expect(await failureOf(open({ url: missing }))).toMatchObject({ ...turnedAway, cause: { code: "3D000" } });
  expect(await failureOf(open({ wsProxy: "127.0.0.1:1/v2" }))).toMatchObject(turnedAway);
  expect(await failureOf(open({ url: "no url with a password" }))).not.toMatchObject({
    message: expect.stringContaining("password"),
  });
});

test("a batch on a server that answers no probe ends in 3 s; on one that does, it may take longer", async () => {
  const { promise: never } = Promise.withResolvers<never>();
  const unlessAborted = (signal: AbortSignal) =>
    Promise.race([never, new Promise((_, reject) => signal.addEventListener("abort", reject))]);
  await using frozen = await open({ server: { host: "frozen", probe: unlessAborted } });
  await using slow = await open({ server: { host: "slow", probe: async () => undefined } });
  const long = [{ text: "SELECT 1 AS one, pg_sleep(3.3)::text" }];
  const startedAtMs = performance.now();
  const answer = slow.batch(long);
  const silent = await failureOf(frozen.batch(long));
  expect(performance.now() - startedAtMs).toBeLessThan(3_250);
  expect(silent).toBeInstanceOf(AnswerLost);
  expect(silent).toMatchObject({ code: "database_silent" });
  expect(await answer).toMatchObject([[{ one: 1 }]]);
});

test("sessions do not change the driver's global settings", async () => {
  const before = { ...neonConfig.opts };
  await using session = await open();
  await session.batch([{ text: "SELECT 1" }]);
  expect(neonConfig.opts).toEqual(before);
});
