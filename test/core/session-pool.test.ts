// The session pool on fake sessions that open, close and break on request: first each promise alone, then all of them
// under random orders of events.
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AnswerLost } from "../../src/adapters/neon.ts";
import { createSessionPool, type SessionLimits, type SessionPool } from "../../src/tenant-db/session-pool.ts";
import { NeverSent, type Session } from "../../src/tenant-db/session.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Runs everything that does not wait for a timer. */
async function calm(): Promise<void> {
  for (let turns = 0; turns < 30; turns++) await Promise.resolve();
}

/** `log` lists the statements of the session's batches and its closing. `answer` is the result of its batches. */
type FakeSession = { -readonly [Key in keyof Session]: Session[Key] } & {
  log: string[];
  answer?: () => Promise<never>;
};

/** A server and a budget. Operations take no time, or, by hand, as long as the test decides. */
function aServer(pace: "at once" | "by hand" = "at once") {
  const steps = { opening: [], closing: [], asking: [] } as Record<string, PromiseWithResolvers<void>[]>;
  async function step(kind: "opening" | "closing" | "asking"): Promise<void> {
    if (pace === "at once") return;
    const here = Promise.withResolvers<void>();
    steps[kind]?.push(here);
    await here.promise;
  }
  const server = {
    steps,
    sessions: [] as FakeSession[],
    /** Open, being opened or being closed. */
    living: 0,
    down: undefined as Error | undefined,
    budget: Infinity,
    leases: 0,
    asked: 0,
    async open(): Promise<Session> {
      server.living += 1;
      await step("opening");
      if (server.down !== undefined) server.living -= 1;
      if (server.down !== undefined) throw server.down;
      const id = server.sessions.length;
      const session: FakeSession = {
        usable: true,
        transaction: "none",
        log: [],
        async batch([{ text } = { text: "" }]) {
          session.log.push(text);
          if (session.answer !== undefined) return session.answer();
          session.transaction = text === "BEGIN" ? "open" : "none";
          return [[{ id }]];
        },
        async close() {
          session.usable = false;
          session.log.push("closed");
          await step("closing");
          server.living -= 1;
        },
      };
      server.sessions.push(session);
      return session;
    },
    async take(): Promise<boolean> {
      server.asked += 1;
      await step("asking");
      const granted = server.leases < server.budget;
      if (granted) server.leases += 1;
      return granted;
    },
    giveBack: () => void (server.leases -= 1),
  };
  return server;
}

const usual: SessionLimits = { maxSessions: 2, idleCloseMs: 30_000, maxWaiting: 10, waitWithinMs: 5_000 };

function aPool(limits: Partial<SessionLimits> = {}, server = aServer()) {
  const now = (): number => Date.now();
  const open = (): Promise<Session> => server.open();
  const pool = createSessionPool({ open, limits: { ...usual, ...limits }, lease: server, now });
  return { pool, server, sessions: server.sessions };
}

/** A caller that keeps its session until the test releases it. */
function aCaller(pool: SessionPool, signal?: AbortSignal) {
  const stay = Promise.withResolvers<string>();
  let mine: Session | undefined;
  const work = async (session: Session): Promise<string> => {
    if (!session.usable || session.transaction !== "none") return "not whole";
    mine = session;
    return stay.promise;
  };
  const outcome = pool.use(work, { signal }).catch((error: unknown) => error);
  const leave = (): Promise<unknown> => (stay.resolve("done"), outcome);
  return { leave, fail: stay.reject, session: () => mine, outcome };
}

const begin = { text: "BEGIN" };
const sessionOf = (session: Session): Promise<unknown> =>
  session.batch([{ text: "SELECT" }]).then(([rows]) => rows?.[0]?.id);
const exhausted = expect.objectContaining({ name: "AppError", code: "sessions_exhausted" });
const nothing = { used: 0, idle: 0, waiting: 0 };

test("the first caller opens the first session, and the most recently used session serves the next caller", async () => {
  const { pool, sessions, server } = aPool();
  expect([sessions.length, vi.getTimerCount()]).toEqual([0, 0]);
  const first = aCaller(pool);
  await calm();
  expect([sessions.length, server.asked]).toEqual([1, 1]);
  const second = aCaller(pool);
  await calm();
  expect(pool.stats()).toEqual({ used: 2, idle: 0, waiting: 0 });
  expect([await second.leave(), await first.leave()]).toEqual(["done", "done"]);
  expect(pool.stats()).toEqual({ used: 0, idle: 2, waiting: 0 });
  expect([await pool.use(sessionOf), await pool.use(sessionOf)]).toEqual([0, 0]);
  await pool.use(async () => undefined);
  expect(sessions).toHaveLength(2);
});

test("a caller is refused when too many wait or it waits too long, and leaves the queue when it is aborted", async () => {
  const { pool } = aPool({ maxSessions: 1, maxWaiting: 2 });
  const aborting = new AbortController();
  const holder = aCaller(pool);
  const [patient, leaving, surplus] = [aCaller(pool), aCaller(pool, aborting.signal), aCaller(pool)];
  expect(await surplus.outcome).toEqual(exhausted);
  aborting.abort(new Error("gone"));
  expect(await leaving.outcome).toMatchObject({ code: "database_unavailable", cause: { message: "gone" } });
  expect(await aCaller(pool, aborting.signal).outcome).toMatchObject({ cause: { message: "gone" } });
  await vi.advanceTimersByTimeAsync(4_999);
  expect(pool.stats()).toEqual({ used: 1, idle: 0, waiting: 1 });
  await vi.advanceTimersByTimeAsync(1);
  expect(await patient.outcome).toEqual(exhausted);
  expect(await holder.leave()).toBe("done");
  const hasty = new AbortController();
  const served = aCaller(pool, hasty.signal);
  hasty.abort();
  expect(await served.outcome).toMatchObject({ code: "database_unavailable" });
  expect([served.session(), pool.stats()]).toEqual([undefined, { used: 0, idle: 1, waiting: 0 }]);
});

test("a caller for whom a session is being opened is not refused for waiting", async () => {
  const { pool, server } = aPool({ maxWaiting: 0, waitWithinMs: 100 }, aServer("by hand"));
  const [first, , surplus] = [aCaller(pool), aCaller(pool), aCaller(pool)];
  expect(await surplus.outcome).toEqual(exhausted);
  server.steps.asking?.shift()?.resolve();
  await vi.advanceTimersByTimeAsync(2_900);
  expect(pool.stats()).toEqual({ used: 1, idle: 0, waiting: 2 });
  server.steps.opening?.shift()?.resolve();
  await calm();
  expect(first.session()).toBeDefined();
});

test("an idle session is closed after its time, and no timer remains", async () => {
  const { pool, sessions } = aPool();
  const [first, second] = [aCaller(pool), aCaller(pool)];
  await calm();
  void first.leave();
  await vi.advanceTimersByTimeAsync(20_000);
  void second.leave();
  await vi.advanceTimersByTimeAsync(9_999);
  expect(pool.stats()).toEqual({ used: 0, idle: 2, waiting: 0 });
  await vi.advanceTimersByTimeAsync(1);
  expect(sessions.map(({ log }) => log)).toEqual([["closed"], []]);
  expect(await pool.use(sessionOf)).toBe(1);
  await vi.advanceTimersByTimeAsync(29_999);
  expect([pool.stats().idle, vi.getTimerCount()]).toEqual([1, 1]);
  await vi.advanceTimersByTimeAsync(1);
  expect([pool.stats(), vi.getTimerCount()]).toEqual([nothing, 0]);
});

test("an open transaction of a returned session is rolled back, and a damaged session is closed", async () => {
  const { pool, sessions } = aPool();
  await pool.use((session) => session.batch([begin]));
  await calm();
  expect(await pool.use(sessionOf)).toBe(0);
  expect(sessions[0]?.log).toEqual(["BEGIN", "ROLLBACK", "SELECT"]);

  // A rollback that fails.
  await pool.use(async (session) => {
    await session.batch([begin]);
    Object.assign(sessions[0] ?? {}, { answer: () => Promise.reject(new AnswerLost("database_unavailable", null)) });
  });
  await calm();
  expect(sessions[0]?.log.slice(-3)).toEqual(["BEGIN", "ROLLBACK", "closed"]);

  // A statement that the caller did not wait for.
  let kept: Session | undefined;
  await pool.use(async (session) => {
    kept = session;
    Object.assign(sessions[1] ?? {}, { answer: () => new Promise<never>(() => undefined) });
    void session.batch([{ text: "SELECT pg_sleep(10)" }]);
  });
  expect(sessions[1]?.log).toEqual(["SELECT pg_sleep(10)", "closed"]);
  await expect(kept?.batch([{ text: "SELECT" }])).rejects.toThrow("was returned");

  // One that died in use, and one that died while it was idle.
  await pool.use(async () => Object.assign(sessions[2] ?? {}, { usable: false }));
  expect([sessions[2]?.log, pool.stats().idle]).toEqual([["closed"], 0]);
  expect(await pool.use(sessionOf)).toBe(3);
  Object.assign(sessions[3] ?? {}, { usable: false });
  expect(await pool.use(sessionOf)).toBe(4);
  expect(sessions[3]?.log).toEqual(["SELECT", "closed"]);
});

test("a session that was lost before anything was sent is replaced, three times at most and before others are served", async () => {
  const { pool, sessions } = aPool({ maxSessions: 1 });
  const lose = (session: FakeSession | undefined): void => {
    const answer = (): Promise<never> => Promise.reject(new NeverSent(new Error("the socket was closed")));
    Object.assign(session ?? {}, { usable: false, answer });
  };
  const losing = vi.fn<(session: Session) => Promise<unknown>>((session) => {
    if (losing.mock.calls.length === 1) lose(sessions.at(-1));
    return sessionOf(session);
  });
  const replaced = pool.use(losing);
  const behind = aCaller(pool);
  expect(await replaced).toBe(1);
  void behind.leave();
  const lost = vi.fn<(session: Session) => Promise<unknown>>((session) => {
    lose(sessions.at(-1));
    return sessionOf(session);
  });
  await expect(pool.use(lost)).rejects.toBeInstanceOf(NeverSent);
  // Not when something was sent: the server may have stored it.
  const late = vi.fn<(session: Session) => Promise<unknown>>(async (session) => {
    await sessionOf(session);
    return lost(session);
  });
  await expect(pool.use(late)).rejects.toBeInstanceOf(NeverSent);
  expect([losing, lost, late].map(({ mock }) => mock.calls.length)).toEqual([2, 5, 1]);
});

test("a failed opening refuses all callers that have no other session to wait for", async () => {
  const { pool, server } = aPool({ maxSessions: 1 });
  server.down = new Error("down");
  const callers = [aCaller(pool), aCaller(pool), aCaller(pool)];
  expect(await Promise.all(callers.map(({ outcome }) => outcome))).toEqual([server.down, server.down, server.down]);
  expect(server.asked).toBe(1);
  await expect(pool.use(async () => undefined)).rejects.toBe(server.down);
  expect([server.leases, pool.stats(), vi.getTimerCount()]).toEqual([0, nothing, 0]);
});

test("without a lease callers wait for the pool's sessions, or for the budget when the pool has none", async () => {
  const { pool, server } = aPool({ maxSessions: 3 });
  server.budget = 1;
  const [first, second] = [aCaller(pool), aCaller(pool)];
  await vi.advanceTimersByTimeAsync(1_000);
  expect([server.living, server.asked, pool.stats().waiting]).toEqual([1, 2, 1]); // asked, but not again and again
  expect([await first.leave(), await second.leave()]).toEqual(["done", "done"]);
  await vi.advanceTimersByTimeAsync(30_000);
  expect([server.leases, pool.stats(), vi.getTimerCount()]).toEqual([0, nothing, 0]);

  server.budget = 0;
  const third = aCaller(pool);
  await vi.advanceTimersByTimeAsync(450);
  server.budget = 1;
  await vi.advanceTimersByTimeAsync(50);
  expect(third.session()).toBeDefined();
  await third.leave();
  await vi.advanceTimersByTimeAsync(30_000);
  server.budget = 0;
  const refused = [aCaller(pool)];
  await vi.advanceTimersByTimeAsync(5_000);
  for (const limits of [{ maxWaiting: 0 }, { waitWithinMs: 0 }]) {
    pool.resize({ ...usual, ...limits });
    refused.push(aCaller(pool));
    await vi.advanceTimersByTimeAsync(0);
  }
  for (const { outcome } of refused) expect(await outcome).toEqual(exhausted);
  expect(vi.getTimerCount()).toBe(0);

  // An error of the budget counts as a failed opening.
  server.take = () => {
    throw new Error("no answer");
  };
  expect(await aCaller(pool).outcome).toMatchObject({ message: "no answer" });
});

test("a smaller limit closes surplus sessions: idle ones at once, used ones when they are returned", async () => {
  const { pool, sessions, server } = aPool({ maxSessions: 3 }, aServer("by hand"));
  const callers = [aCaller(pool), aCaller(pool), aCaller(pool)];
  for (let turn = 0; turn < 6; turn++) {
    for (const kind of ["asking", "opening"]) server.steps[kind]?.shift()?.resolve();
    await calm();
  }
  const usable = () => sessions.map((session) => session.usable);
  await callers[0]?.leave();
  pool.resize({ ...usual, maxSessions: 2 });
  expect(usable()).toEqual([false, true, true]);
  await callers[1]?.leave();
  expect(usable()).toEqual([false, true, true]);
  pool.resize({ ...usual, maxSessions: 0 });
  expect(usable()).toEqual([false, false, true]);
  await callers[2]?.leave();
  expect(usable()).toEqual([false, false, false]);
});

test("a drain refuses new callers, serves the waiting ones, lets running work finish and closes everything", async () => {
  const { pool, sessions } = aPool({ maxSessions: 1 });
  const [working, waiting] = [aCaller(pool), aCaller(pool)];
  await calm();
  const drained = pool.drain();
  expect(await aCaller(pool).outcome).toEqual(exhausted);
  expect(await working.leave()).toBe("done");
  await calm();
  expect(sessions[0]?.usable).toBe(true);
  expect(await waiting.leave()).toBe("done");
  await Promise.all([drained, pool.drain()]);
  expect([sessions[0]?.log, vi.getTimerCount()]).toEqual([["closed"], 0]);
  await aPool().pool.drain();
});

/** A pool and the events that may happen to it. Each number picks the caller or session of an event. */
function aWorld(first: SessionLimits) {
  const { pool, server } = aPool(first, aServer("by hand"));
  let limits = first;
  let overfull = false;
  let drained = false;
  const open = server.open.bind(server);
  server.open = () => {
    const opening = open();
    overfull ||= server.living > limits.maxSessions;
    return opening;
  };
  const callers: (ReturnType<typeof aCaller> & { abort: AbortController; over?: string })[] = [];
  const working = () => callers.filter(({ session, over }) => session() !== undefined && over === undefined);
  const oneOf = <T>(list: readonly T[], n: number): T | undefined => list[n % (list.length || 1)];
  const mark = (n: number, as: Partial<FakeSession>): unknown => Object.assign(oneOf(server.sessions, n) ?? {}, as);
  const late = new AnswerLost("database_unavailable", null);
  const answer = (): Promise<never> => new Promise((_, reject) => setTimeout(() => reject(late), 500));
  const finish = (kind: string): void => server.steps[kind]?.shift()?.resolve();
  const events: Record<string, (n: number) => unknown> = {
    call: () => {
      const abort = new AbortController();
      const caller: (typeof callers)[number] = Object.assign(aCaller(pool, abort.signal), { abort });
      callers.push(caller);
      void caller.outcome.then((outcome) => (caller.over = String(outcome)));
    },
    leave: (n) => oneOf(working(), n)?.leave(),
    fail: (n) => oneOf(working(), n)?.fail(new Error("the tool failed")),
    begin: (n) => void (oneOf(working(), n)?.session()?.batch([begin]) ?? calm()).catch(String),
    hang: (n) => mark(n, { answer }),
    lose: (n) => mark(n, { usable: false }),
    abort: (n) => oneOf(callers, n)?.abort.abort(),
    opening: () => finish("opening"),
    closing: () => finish("closing"),
    asking: () => finish("asking"),
    outage: (n) => (server.down = n % 5 === 0 ? new Error("down") : undefined),
    budget: (n) => (server.budget = n % 8),
    wait: (n) => vi.advanceTimersByTime(n % 400),
    resize: (n) => {
      limits = { maxSessions: n % 5, idleCloseMs: n % 3_000, maxWaiting: n % 7, waitWithinMs: n % 7_000 };
      pool.resize(limits);
    },
    drain: () => void pool.drain().then(() => (drained = true)),
  };
  function check(): void {
    const { used, idle, waiting } = pool.stats();
    expect([overfull, used + idle, server.leases]).toEqual([false, server.living, server.living]);
    expect(working().length).toBeLessThanOrEqual(used);
    const untold = callers.filter(({ session, over }) => session() === undefined && over === undefined);
    expect(waiting).toBe(untold.length);
    const lastServed = callers.findLastIndex(({ session }) => session() !== undefined);
    expect(untold.every((caller) => callers.indexOf(caller) > lastServed)).toBe(true);
    if (drained) expect([server.living, server.steps.asking, waiting]).toEqual([0, [], 0]);
  }
  return { server, callers, events, check, isDrained: () => drained };
}

test("under any order of events the pool keeps its bounds and order, answers every caller and leaves nothing open", async () => {
  const limits = fc.record({
    maxSessions: fc.integer({ min: 1, max: 3 }),
    idleCloseMs: fc.nat({ max: 3_000 }),
    maxWaiting: fc.nat({ max: 6 }),
    waitWithinMs: fc.nat({ max: 5_000 }),
  });
  const often = "call call call leave asking asking asking opening opening opening closing".split(" ");
  const seldom = Object.keys(aWorld(usual).events).filter((name) => name !== "drain");
  const name = fc.oneof({ weight: 300, arbitrary: fc.constantFrom(...often, ...seldom) }, fc.constant("drain"));
  const history = fc.array(fc.tuple(name, fc.noBias(fc.nat())), { maxLength: 150, size: "max" });
  // At the end all running operations finish.
  const end = ["asking", "opening", "leave", "closing", "wait"].map((each) => [each, 399] as const);
  const ending = [["drain", 0] as const, ...Array.from({ length: 25 }, () => end).flat()];
  const whatHappens = async (first: SessionLimits, events: [string, number][]): Promise<void> => {
    const world = aWorld(first);
    for (const [event, n] of [...events, ...ending]) {
      world.events[event]?.(n);
      await calm();
      world.check();
    }
    expect([world.isDrained(), world.server.living, vi.getTimerCount()]).toEqual([true, 0, 0]);
    expect(world.server.sessions.filter(({ log }) => log.indexOf("closed") !== log.length - 1)).toEqual([]);
    expect(world.callers.filter(({ over }) => over === undefined || over === "not whole")).toEqual([]);
  };
  await fc.assert(fc.asyncProperty(limits, history, whatHappens), { numRuns: 200 });
});
