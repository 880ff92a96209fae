// The connection pool of the Neon stand-in, for each login and database.
//
// Decides which borrower gets a connection, which waits, and which idle connection is closed for another. Invariants: a
// connection serves one borrower at a time, and only while it is clean. Borrowers are served in order of arrival, except
// those that wait only for the limit of their own target. A connection replaces another only after that one is closed, so
// the server never has more than the limits. The pool does not reset session settings: a caller that depends on a setting
// must set it in its own batch, and tests see it when a caller does not.
import { BatchError, Session, type Statement, type StatementResult, type Target } from "./session.ts";

/** Above the parallel statements of a busy tenant, and low enough for two cores. */
const MAX_PER_TARGET = 16;
/** The server allows 200; the rest is for WebSocket sessions. Idle connections of other targets are closed first. */
const MAX_TOTAL = 120;
const WAIT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;
const SWEEP_INTERVAL_MS = 5_000;

export interface PoolOptions {
  /** Connections per login and database. Default 16. */
  maxPerTarget?: number;
  /** Connections in total. Default 120. */
  maxTotal?: number;
  /** Maximum wait for a connection. Default 10 s. */
  waitTimeoutMs?: number;
  /** Called when a connection starts to connect and when it has closed. */
  onConnections?: (change: 1 | -1) => void;
}

/** A connection as the pool sees it. */
export interface Pooled {
  connect(): Promise<void>;
  /** True if it can serve another borrower. */
  isClean(): boolean;
  /** Resolves when the connection is closed or will never open. */
  end(): Promise<void>;
}

export interface Pool<Connection extends Pooled> {
  /**
   * Rejects with a BatchError: `busy` when none became free in time, `lost` when `signal` aborts the wait, `unreachable`
   * after the pool was closed. Rejects with the connection's error when it cannot connect.
   */
  acquire(target: Target, signal: AbortSignal): Promise<Connection>;
  release(connection: Connection): void;
  /** Number of connections of all targets that are not closed. */
  connections(): Iterable<Connection>;
  /** Ends every connection, also busy ones. */
  close(): Promise<void>;
}

/** The connections of one target. `open` includes those that are connecting or closing. */
interface Lane<Connection> {
  target: Target;
  /** Longest idle first. */
  idle: Entry<Connection>[];
  open: number;
  waiting: number;
}

interface Entry<Connection> {
  lane: Lane<Connection>;
  connection: Connection;
  idleSinceMs: number;
  /** True once it has started to connect. Before that it may wait for room. */
  begun: boolean;
  /** Settles once the connection is closed. */
  closed?: Promise<void>;
}

interface Waiter<Connection> {
  lane: Lane<Connection>;
  serve(entry: Entry<Connection> | Promise<Entry<Connection>>): void;
  leave(error: Error): void;
}

/** `create` makes an unconnected connection, which calls `onEnd` at least once when it ends. */
export function createPool<Connection extends Pooled>(
  create: (target: Target, onEnd: () => void) => Connection,
  options: PoolOptions,
): Pool<Connection> {
  const { maxPerTarget = MAX_PER_TARGET, maxTotal = MAX_TOTAL, waitTimeoutMs = WAIT_TIMEOUT_MS } = options;
  const lanes = new Map<string, Lane<Connection>>();
  const entries = new Map<Connection, Entry<Connection>>();
  /** Idle connections of all lanes, longest idle first. */
  const idle = new Set<Entry<Connection>>();
  /** Waiting borrowers in order of arrival. */
  const waiters = new Set<Waiter<Connection>>();
  let closed = false;

  const sweep = setInterval(() => {
    const oldestMs = Date.now() - IDLE_TIMEOUT_MS;
    for (const entry of idle) if (entry.idleSinceMs < oldestMs) void drop(entry);
    for (const [key, lane] of lanes) if (lane.open === 0 && lane.waiting === 0) lanes.delete(key);
  }, SWEEP_INTERVAL_MS);

  function laneOf(target: Target): Lane<Connection> {
    const key = JSON.stringify(target);
    let lane = lanes.get(key);
    if (lane === undefined) lanes.set(key, (lane = { target, idle: [], open: 0, waiting: 0 }));
    return lane;
  }

  /** Closes a connection. Resolves when it is closed. */
  function drop(entry: Entry<Connection>): Promise<void> {
    return (entry.closed ??= close(entry));
  }

  async function close(entry: Entry<Connection>): Promise<void> {
    const { lane, connection } = entry;
    lane.idle = lane.idle.filter((other) => other !== entry);
    idle.delete(entry);
    await connection.end();
    entries.delete(connection);
    lane.open -= 1;
    if (entry.begun) options.onConnections?.(-1);
    serveWaiters();
  }

  /** Connects, after `room` if another connection must close first. */
  async function open(lane: Lane<Connection>, room?: Promise<void>): Promise<Entry<Connection>> {
    const connection = create(lane.target, () => void drop(entry));
    const entry: Entry<Connection> = { lane, connection, idleSinceMs: 0, begun: false };
    entries.set(connection, entry);
    lane.open += 1;
    try {
      if (room !== undefined) await room;
      if (closed) throw new BatchError("unreachable", "The proxy is closed.");
      entry.begun = true;
      options.onConnections?.(1);
      await connection.connect();
      return entry;
    } catch (error) {
      void drop(entry);
      throw error;
    }
  }

  /** An idle connection, the most recently used first, or a new one; undefined when the lane or the server is full. */
  function take(lane: Lane<Connection>): Entry<Connection> | Promise<Entry<Connection>> | undefined {
    const free = lane.idle.pop();
    if (free !== undefined) {
      idle.delete(free);
      return free;
    }
    if (lane.open >= maxPerTarget) return undefined;
    if (entries.size < maxTotal) return open(lane);
    const [longestIdle] = idle;
    return longestIdle && open(lane, drop(longestIdle));
  }

  /** Serves all waiting borrowers that can be served, in order of arrival. */
  function serveWaiters(): void {
    for (const waiter of waiters) {
      // Skip the lane: asking hundreds of waiting borrowers again would be in vain.
      if (idle.size === 0 && entries.size >= maxTotal) return;
      const entry = take(waiter.lane);
      if (entry !== undefined) waiter.serve(entry);
    }
  }

  async function acquire(lane: Lane<Connection>, signal: AbortSignal): Promise<Entry<Connection>> {
    if (closed) throw new BatchError("unreachable", "The proxy is closed.");
    if (signal.aborted) throw new BatchError("lost", "The client went away.");
    // Waiting borrowers have already taken every free connection that they can use.
    const entry = take(lane);
    if (entry !== undefined) return entry;
    return new Promise<Entry<Connection>>((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        waiters.delete(waiter);
        lane.waiting -= 1;
      };
      const waiter: Waiter<Connection> = {
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
        waiter.leave(new BatchError("busy", `No connection became free within ${waitTimeoutMs} ms.`));
      const timer = setTimeout(late, waitTimeoutMs);
      signal.addEventListener("abort", aborted);
      waiters.add(waiter);
      lane.waiting += 1;
    });
  }

  return {
    acquire: async (target, signal) => (await acquire(laneOf(target), signal)).connection,
    release: (connection) => {
      const entry = entries.get(connection);
      if (entry === undefined || entry.closed !== undefined) return;
      if (!connection.isClean()) {
        void drop(entry);
        return;
      }
      entry.idleSinceMs = Date.now();
      entry.lane.idle.push(entry);
      idle.add(entry);
      serveWaiters();
    },
    connections: () => entries.keys(),
    close: async () => {
      closed = true;
      clearInterval(sweep);
      for (const waiter of waiters) waiter.leave(new BatchError("unreachable", "The proxy is closed."));
      await Promise.all([...entries.values()].map(drop));
    },
  };
}

interface RunOptions {
  begin?: string;
  /** Cancels the batch at the server, as Neon does when the client disconnects. */
  signal: AbortSignal;
}

export interface NeonPool {
  /**
   * Runs the statements as one transaction and resolves with one result each. `begin` is the explicit BEGIN to use when
   * the implicit transaction of a pipeline is not enough. Rejects with PostgreSQL's DatabaseError or a BatchError.
   */
  run(target: Target, statements: Statement[], options: RunOptions): Promise<StatementResult[]>;
  /** Ends every connection, including those in the middle of a batch. */
  close(): Promise<void>;
}

export function createNeonPool(options: PoolOptions): NeonPool {
  const pool = createPool((target, onEnd) => new Session(target, onEnd), options);
  return {
    run: async (target, statements, { begin, signal }) => {
      const session = await pool.acquire(target, signal);
      const cancel = (): void => session.cancel();
      signal.addEventListener("abort", cancel);
      try {
        if (signal.aborted) throw new BatchError("lost", "The client went away.");
        return await session.run(statements, begin);
      } finally {
        signal.removeEventListener("abort", cancel);
        pool.release(session);
      }
    },
    close: () => pool.close(),
  };
}
