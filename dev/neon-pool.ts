/**
 * The connections that the Neon stand-in keeps, per login and database.
 *
 * Decides who gets a connection, who waits, and which connection makes room. Invariants: a connection serves one batch at
 * a time; it comes back only outside of a transaction and never after a cancellation. What a statement sets for the
 * session stays on the connection: a caller that depends on a setting has to set it in its own batch, and nothing here
 * hides a mistake about that.
 */
import { BatchError, Session } from "./neon-session.ts";
import type { Statement, StatementResult, Target } from "./neon-session.ts";

/** More than a busy tenant has calls in flight at the database; less than would drown two cores. */
const MAX_PER_TARGET = 16;
/** The server allows 200; the rest is for WebSocket sessions. Idle connections of others make room first. */
const MAX_TOTAL = 120;
const WAIT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;
const SWEEP_INTERVAL_MS = 5_000;

interface RunOptions {
  begin?: string;
  /** Cancels the batch at the server, as Neon does when the client goes away. */
  signal: AbortSignal;
}

export interface NeonPool {
  /**
   * Runs the statements as one transaction and resolves with one result each. `begin` is the explicit BEGIN to use when
   * the implicit transaction of a pipeline is not enough. Rejects with PostgreSQL's DatabaseError or a BatchError.
   */
  run(target: Target, statements: Statement[], options: RunOptions): Promise<StatementResult[]>;
  /** Ends every connection, those in the middle of a batch included. */
  close(): Promise<void>;
}

/** The connections of one target. `open` counts those connecting, idle and busy; `idle` has the longest idle first. */
interface Lane {
  target: Target;
  idle: Entry[];
  open: number;
}

interface Entry {
  lane: Lane;
  session: Session;
  idleSinceMs: number;
}

interface Waiter {
  lane: Lane;
  serve(entry: Entry | Promise<Entry>): void;
  leave(error: Error): void;
}

export function createNeonPool(): NeonPool {
  const lanes = new Map<string, Lane>();
  const entries = new Set<Entry>();
  const waiters: Waiter[] = [];
  let closed = false;

  const sweep = setInterval(() => {
    const oldestMs = Date.now() - IDLE_TIMEOUT_MS;
    for (const [key, lane] of lanes) {
      for (const entry of lane.idle.filter(({ idleSinceMs }) => idleSinceMs < oldestMs)) void drop(entry);
      if (lane.open === 0 && !waiters.some((waiter) => waiter.lane === lane)) lanes.delete(key);
    }
  }, SWEEP_INTERVAL_MS);

  function laneOf(target: Target): Lane {
    const key = JSON.stringify(target);
    let lane = lanes.get(key);
    if (lane === undefined) lanes.set(key, (lane = { target, idle: [], open: 0 }));
    return lane;
  }

  /** Resolves when the connection is closed; whoever only wants it out of the way need not wait. */
  async function drop(entry: Entry): Promise<void> {
    if (!entries.delete(entry)) return;
    const { lane, session } = entry;
    lane.idle = lane.idle.filter((other) => other !== entry);
    lane.open -= 1;
    await session.end();
  }

  /** Closes the connection that has been idle longest, of any target. */
  function evictIdle(): boolean {
    let oldest: Entry | undefined;
    for (const { idle } of lanes.values()) {
      const first = idle[0];
      if (first !== undefined && (oldest === undefined || first.idleSinceMs < oldest.idleSinceMs)) oldest = first;
    }
    if (oldest !== undefined) void drop(oldest);
    return oldest !== undefined;
  }

  async function open(lane: Lane): Promise<Entry> {
    const session = new Session(lane.target, () => void drop(entry));
    const entry: Entry = { lane, session, idleSinceMs: 0 };
    entries.add(entry);
    lane.open += 1;
    try {
      await session.connect();
      return entry;
    } catch (error) {
      void drop(entry);
      serveWaiters();
      throw error;
    }
  }

  /** An idle connection, the most recently used first, or a new one; undefined when lane or server are full. */
  function take(lane: Lane): Entry | Promise<Entry> | undefined {
    const idle = lane.idle.pop();
    if (idle !== undefined) return idle;
    if (lane.open < MAX_PER_TARGET && (entries.size < MAX_TOTAL || evictIdle())) return open(lane);
    return undefined;
  }

  /** Serves, in order of arrival, all those that can be served. */
  function serveWaiters(): void {
    for (const waiter of waiters.slice()) {
      const entry = take(waiter.lane);
      if (entry !== undefined) waiter.serve(entry);
    }
  }

  async function acquire(lane: Lane, signal: AbortSignal): Promise<Entry> {
    if (closed) throw new BatchError("unreachable", "The proxy is closed.");
    const overtakes = waiters.some((waiter) => waiter.lane === lane);
    const entry = overtakes ? undefined : take(lane);
    if (entry !== undefined) return entry;
    return new Promise<Entry>((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        waiters.splice(waiters.indexOf(waiter), 1);
      };
      const waiter: Waiter = {
        lane,
        serve: (served) => {
          settle();
          resolve(served);
        },
        leave: (error) => {
          settle();
          reject(error);
        },
      };
      const aborted = (): void => waiter.leave(new BatchError("lost", "The client went away."));
      const late = (): void =>
        waiter.leave(new BatchError("busy", `No connection became free within ${WAIT_TIMEOUT_MS} ms.`));
      const timer = setTimeout(late, WAIT_TIMEOUT_MS);
      signal.addEventListener("abort", aborted);
      waiters.push(waiter);
    });
  }

  function release(entry: Entry): void {
    if (!entry.session.isClean()) void drop(entry);
    if (entries.has(entry)) {
      entry.idleSinceMs = Date.now();
      entry.lane.idle.push(entry);
    }
    serveWaiters();
  }

  return {
    run: async (target, statements, { begin, signal }) => {
      const entry = await acquire(laneOf(target), signal);
      const cancel = (): void => entry.session.cancel();
      signal.addEventListener("abort", cancel);
      try {
        if (signal.aborted) throw new BatchError("lost", "The client went away.");
        return await entry.session.run(statements, begin);
      } finally {
        signal.removeEventListener("abort", cancel);
        release(entry);
      }
    },
    close: async () => {
      closed = true;
      clearInterval(sweep);
      for (const waiter of waiters.slice()) waiter.leave(new BatchError("unreachable", "The proxy is closed."));
      await Promise.all([...entries].map(drop));
    },
  };
}
