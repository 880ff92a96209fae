// The pool of sessions on fakes that open, close and break as they are told: each promise by itself, and then all of them
// under any order of events.
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AnswerLost } from "../../src/adapters/neon.ts";
import { createSessionPool, type SessionLimits, type SessionPool } from "../../src/adapters/session-pool.ts";
import { NeverSent, type Session } from "../../src/adapters/session.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Lets everything happen that waits for no timer. */
async function calm(): Promise<void> {
  for (let turns = 0; turns < 30; turns++) await Promise.resolve();
}

/** Every session's `log` has the statements of its batches, and its closing. `answer` is what its batches come to. */
type FakeSession = { -readonly [Key in keyof Session]: Session[Key] } & {
  log: string[];
  answer?: () => Promise<never>;
};

/** A server and a budget. What takes time in truth takes none, or, by hand, as long as the test says. */
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
        async batch(statements) {
          for (const { text } of statements) session.log.push(text);
          if (session.answer !== undefined) return session.answer();
          for (const { text } of statements) session.transaction = text === "BEGIN" ? "open" : "none";
          return statements.map(() => [{ id }]);
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
  return {
    server,
    sessions: server.sessions,
    pool: createSessionPool({ open, limits: { ...usual, ...limits }, lease: server, now }),
  };
}

/** A caller that keeps its session until it is told to leave. */
function aCaller(pool: SessionPool, signal?: AbortSignal) {
  const { promise: stay, resolve: leave, reject: fail } = Promise.withResolvers<string>();
  const caller = { leave: () => leave("done"), fail, session: undefined as Session | undefined, outcome: stay };
  const work = async (session: Session): Promise<string> => {
    if (!session.usable || session.transaction !== "none") return "not whole";
    caller.session = session;
    return stay;
  };
  caller.outcome = pool.use(work, { signal }).catch((error: unknown) => error as string);
  return caller;
}

const sessionOf = (session: Session): Promise<unknown> =>
  session.batch([{ text: "SELECT" }]).then(([rows]) => rows?.[0]?.id);
const exhausted = expect.objectContaining({ name: "AppError", code: "sessions_exhausted" });
const nothing = { used: 0, idle: 0, waiting: 0 };

test("nothing is open before the first caller; then the most recently used session serves the next", async () => {
  const { pool, sessions } = aPool();
  expect([sessions.length, vi.getTimerCount()]).toEqual([0, 0]);
  const [first, second] = [aCaller(pool), aCaller(pool)];
  await calm();
  expect(pool.stats()).toEqual({ used: 2, idle: 0, waiting: 0 });
  second.leave();
  await second.outcome;
  first.leave();
  await first.outcome;
  expect(pool.stats()).toEqual({ used: 0, idle: 2, waiting: 0 });
  expect([await pool.use(sessionOf), await pool.use(sessionOf)]).toEqual([0, 0]);
  await pool.warm();
  expect(sessions).toHaveLength(2);
});

test("a caller is refused when too many wait or it waits too long, and leaves when it is aborted", async () => {
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
  holder.leave();
  expect(await holder.outcome).toBe("done");
});

test("whoever has a session on its way is not refused for waiting", async () => {
  const { pool, server } = aPool({ maxWaiting: 0, waitWithinMs: 100 }, aServer("by hand"));
  const [first, , surplus] = [aCaller(pool), aCaller(pool), aCaller(pool)];
  expect(await surplus.outcome).toEqual(exhausted);
  server.steps.asking?.shift()?.resolve();
  await vi.advanceTimersByTimeAsync(2_900);
  expect(pool.stats()).toEqual({ used: 1, idle: 0, waiting: 2 });
  server.steps.opening?.shift()?.resolve();
  await calm();
  expect(first.session).toBeDefined();
});

test("a session that is idle for its time is closed, and no timer stays behind", async () => {
  const { pool, sessions } = aPool();
  const [first, second] = [aCaller(pool), aCaller(pool)];
  await calm();
  first.leave();
  await vi.advanceTimersByTimeAsync(20_000);
  second.leave();
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

test("what a caller leaves of a transaction is rolled back; what is not whole is thrown away", async () => {
  const { pool, sessions } = aPool();
  const begin = (session: Session): Promise<unknown> => session.batch([{ text: "BEGIN" }]);
  await pool.use(begin);
  await calm();
  expect(await pool.use(sessionOf)).toBe(0);
  expect(sessions[0]?.log).toEqual(["BEGIN", "ROLLBACK", "SELECT"]);

  // A rollback that fails.
  await pool.use(async (session) => {
    await begin(session);
    Object.assign(sessions[0] ?? {}, { answer: () => Promise.reject(new AnswerLost("database_unavailable", null)) });
  });
  await calm();
  expect(sessions[0]?.log.slice(-3)).toEqual(["BEGIN", "ROLLBACK", "closed"]);

  // A statement that nobody waited for.
  let kept: Session | undefined;
  await pool.use(async (session) => {
    kept = session;
    Object.assign(sessions[1] ?? {}, { answer: () => new Promise<never>(() => undefined) });
    void session.batch([{ text: "SELECT pg_sleep(10)" }]);
  });
  expect(sessions[1]?.log).toEqual(["SELECT pg_sleep(10)", "closed"]);
  await expect(kept?.batch([{ text: "SELECT" }])).rejects.toThrow("given back");

  // One that died while it was idle.
  expect(await pool.use(sessionOf)).toBe(2);
  Object.assign(sessions[2] ?? {}, { usable: false });
  expect(await pool.use(sessionOf)).toBe(3);
  expect(sessions[2]?.log).toEqual(["SELECT", "closed"]);
});

test("a session that was lost before anything was sent is replaced, once", async () => {
  const { pool, sessions } = aPool();
  const lose = (session: FakeSession | undefined): void => {
    const answer = (): Promise<never> => Promise.reject(new NeverSent(new Error("the socket was closed")));
    Object.assign(session ?? {}, { usable: false, answer });
  };
  const losing = vi.fn<(session: Session) => Promise<unknown>>((session) => {
    if (losing.mock.calls.length === 1) lose(sessions.at(-1));
    return sessionOf(session);
  });
  expect(await pool.use(losing)).toBe(1);
  const lost = vi.fn<(session: Session) => Promise<unknown>>((session) => {
    lose(sessions.at(-1));
    return sessionOf(session);
  });
  await expect(pool.use(lost)).rejects.toBeInstanceOf(NeverSent);
  // Not when something was sent: it may stand.
  const late = vi.fn<(session: Session) => Promise<unknown>>(async (session) => {
    await sessionOf(session);
    return lost(session);
  });
  await expect(pool.use(late)).rejects.toBeInstanceOf(NeverSent);
  expect([losing, lost, late].map(({ mock }) => mock.calls.length)).toEqual([2, 3, 1]);
});

test("an opening that fails is told to all who have nothing else to wait for", async () => {
  const { pool, server } = aPool({ maxSessions: 1 });
  server.down = new Error("down");
  const callers = [aCaller(pool), aCaller(pool), aCaller(pool)];
  expect(await Promise.all(callers.map(({ outcome }) => outcome))).toEqual([server.down, server.down, server.down]);
  await expect(pool.warm()).rejects.toBe(server.down);
  expect([server.leases, pool.stats(), vi.getTimerCount()]).toEqual([0, nothing, 0]);
});

test("without a lease callers wait for a session of their own, or for the budget when there is none", async () => {
  const { pool, server } = aPool({ maxSessions: 3 });
  server.budget = 1;
  const [first, second] = [aCaller(pool), aCaller(pool)];
  await vi.advanceTimersByTimeAsync(1_000);
  expect([server.living, server.asked, pool.stats().waiting]).toEqual([1, 2, 1]); // asked, but not again and again
  first.leave();
  second.leave();
  expect(await second.outcome).toBe("done");
  await vi.advanceTimersByTimeAsync(30_000);
  expect([server.leases, pool.stats(), vi.getTimerCount()]).toEqual([0, nothing, 0]);

  server.budget = 0;
  const third = aCaller(pool);
  await vi.advanceTimersByTimeAsync(450);
  server.budget = 1;
  await vi.advanceTimersByTimeAsync(50);
  expect(third.session).toBeDefined();
  third.leave();
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

  // A budget that fails is a failed opening.
  server.take = () => {
    throw new Error("no answer");
  };
  expect(await aCaller(pool).outcome).toMatchObject({ message: "no answer" });
});

test("a drain refuses newcomers, serves those who wait, lets the work finish and closes everything", async () => {
  const { pool, sessions } = aPool({ maxSessions: 1 });
  const [working, waiting] = [aCaller(pool), aCaller(pool)];
  await calm();
  const drained = pool.drain();
  expect(await aCaller(pool).outcome).toEqual(exhausted);
  working.leave();
  expect(await working.outcome).toBe("done");
  await calm();
  expect(sessions[0]?.usable).toBe(true);
  waiting.leave();
  await Promise.all([drained, pool.drain()]);
  expect([await waiting.outcome, sessions[0]?.log, vi.getTimerCount()]).toEqual(["done", ["closed"], 0]);
  await aPool().pool.drain();
});

/** A pool and what may happen to it. Every number picks one of those that it may happen to. */
function aWorld(first: SessionLimits) {
  const { pool, server } = aPool(first, aServer("by hand"));
  const world = { pool, server, limits: first, overfull: false, events: {} as Record<string, (n: number) => unknown> };
  const open = server.open;
  server.open = () => {
    const opening = open();
    world.overfull ||= server.living > world.limits.maxSessions;
    return opening;
  };
  const callers: (ReturnType<typeof aCaller> & { abort: AbortController; over: string | undefined })[] = [];
  const working = () => callers.filter(({ session, over }) => session !== undefined && over === undefined);
  const oneOf = <T>(list: readonly T[], n: number): T | undefined => list[n % (list.length || 1)];
  const finish = (kind: string): void => server.steps[kind]?.shift()?.resolve();
  world.events = {
    call: () => {
      const abort = new AbortController();
      const caller = Object.assign(aCaller(pool, abort.signal), { abort, over: undefined as string | undefined });
      callers.push(caller);
      void caller.outcome.then((outcome) => (caller.over = String(outcome)));
    },
    leave: (n) => oneOf(working(), n)?.leave(),
    fail: (n) => oneOf(working(), n)?.fail(new Error("the tool failed")),
    begin: (n) => void oneOf(working(), n)?.session?.batch([{ text: "BEGIN" }]),
    hang: (n) => Object.assign(oneOf(server.sessions, n) ?? {}, { answer: () => new Promise(() => undefined) }),
    lose: (n) => Object.assign(oneOf(server.sessions, n) ?? {}, { usable: false }),
    abort: (n) => oneOf(callers, n)?.abort.abort(),
    opening: () => finish("opening"),
    closing: () => finish("closing"),
    asking: () => finish("asking"),
    outage: (n) => (server.down = n % 3 === 0 ? new Error("down") : undefined),
    budget: (n) => (server.budget = n % 5),
    wait: (n) => vi.advanceTimersByTime(n % 400),
    resize: (n) => {
      world.limits = { maxSessions: n % 4, idleCloseMs: n % 300, maxWaiting: n % 5, waitWithinMs: n % 700 };
      pool.resize(world.limits);
    },
    drain: () => void pool.drain(),
  };
  return Object.assign(world, { callers, working });
}

function checkWorld({ pool, server, callers, working, overfull }: ReturnType<typeof aWorld>): void {
  const { used, idle, waiting } = pool.stats();
  expect([overfull, used + idle, server.leases]).toEqual([false, server.living, server.living]);
  expect(working().length).toBeLessThanOrEqual(used);
  const untold = callers.filter(({ session, over }) => session === undefined && over === undefined);
  expect(waiting).toBe(untold.length);
  const lastServed = callers.findLastIndex(({ session }) => session !== undefined);
  expect(untold.every((caller) => callers.indexOf(caller) > lastServed)).toBe(true);
}

test("under any order of events: bounded, in turn, everybody is answered and nothing is left", async () => {
  const limits = fc.record({
    maxSessions: fc.integer({ min: 1, max: 3 }),
    idleCloseMs: fc.integer({ min: 0, max: 500 }),
    maxWaiting: fc.integer({ min: 0, max: 4 }),
    waitWithinMs: fc.integer({ min: 0, max: 1_000 }),
  });
  const often = ["call", "call", "call", "leave", "leave", "asking", "asking", "opening", "opening", "closing"];
  const seldom = Object.keys(aWorld(usual).events).filter((name) => name !== "drain");
  const name = fc.oneof({ weight: 60, arbitrary: fc.constantFrom(...often, ...seldom) }, fc.constant("drain"));
  await fc.assert(
    fc.asyncProperty(limits, fc.array(fc.tuple(name, fc.nat()), { maxLength: 100 }), async (first, events) => {
      const world = aWorld(first);
      for (const [event, n] of events) {
        world.events[event]?.(n);
        await calm();
        checkWorld(world);
      }
      const drained = world.pool.drain();
      for (let turn = 0; turn < 100; turn++) {
        for (const event of ["asking", "opening", "leave", "closing"]) world.events[event]?.(0);
        vi.advanceTimersByTime(20);
        await calm();
        checkWorld(world);
      }
      await drained;
      expect([world.server.living, vi.getTimerCount()]).toEqual([0, 0]);
      expect(world.server.sessions.filter(({ log }) => log.indexOf("closed") !== log.length - 1)).toEqual([]);
      expect(world.callers.filter(({ over }) => over === undefined || over === "not whole")).toEqual([]);
    }),
    { numRuns: 300 },
  );
});
