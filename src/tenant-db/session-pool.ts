// A tenant's sessions: who gets one, who waits for one, and when one is closed. Lazy: nothing is open before the first
// caller, and nothing, timers included, after the last session was idle for its time.
// Invariants: never more sessions than `maxSessions` are open, being opened or being closed; one caller at a time has a
// session; callers are served in the order in which they came; a session comes back only whole (usable, without a
// transaction or a batch under way) and is closed otherwise; every lease that was taken is given back once.
import { AppError } from "../core/errors.ts";
import { NeverSent, type Session } from "./session.ts";

export interface SessionLimits {
  maxSessions: number;
  /** A session that was idle for this long is closed. */
  idleCloseMs: number;
  /** How many callers may wait besides those for whom a session is being opened. */
  maxWaiting: number;
  /** How long they wait. Opening has a limit of its own. */
  waitWithinMs: number;
}

/** A share of the connections that the whole fleet may have. */
export interface SessionLease {
  /** Asked before each session is opened, once at a time. False: not now. Settles in bounded time. */
  take(): Promise<boolean>;
  /** Called once for each lease taken: when its session is closed, or was not opened after all. */
  giveBack(): void;
}

export interface SessionPoolOptions {
  /** Resolves with a fresh session or rejects, in bounded time. */
  open: () => Promise<Session>;
  limits: SessionLimits;
  lease?: SessionLease;
  now: () => number;
}

export interface SessionPool {
  /**
   * Lends a session to `work` until it settles. What it leaves of a transaction is rolled back. `work` is run again, once,
   * when its session turned out to be lost before anything was sent. `signal` abandons the waiting, not the work. Throws
   * what `work` throws, what opening throws, and `sessions_exhausted`.
   */
  use<R>(work: (session: Session) => Promise<R>, options?: { signal?: AbortSignal | undefined }): Promise<R>;
  /** Changes the limits: surplus sessions are closed as they become idle, surplus callers refused, the latest first. */
  resize(limits: SessionLimits): void;
  /**
   * Refuses new callers, serves those who wait, lets the work finish and closes everything, and then resolves. For good:
   * whoever goes on makes a new pool.
   */
  drain(): Promise<void>;
  /** `used` counts the sessions that are lent, being opened or being closed. */
  stats(): { used: number; idle: number; waiting: number };
}

interface Waiter {
  /** Has waited as long as it may, and stays only while a session is being opened for it. */
  late: boolean;
  serve(session: Session): void;
  refuse(error: unknown): void;
}

/** Soon enough for somebody who waits, and rare enough for a budget that a whole fleet asks. */
const LEASE_POLL_MS = 100;

/** Opens nothing: the first caller does. */
export function createSessionPool({ open, limits: first, lease, now }: SessionPoolOptions): SessionPool {
  let limits = first;
  /** The longest idle first. */
  const idle: { session: Session; sinceMs: number }[] = [];
  const waiting: Waiter[] = [];
  /** Sessions that take a place: being opened, lent, idle, being closed. */
  let places = 0;
  let opening = 0;
  let closing = 0;
  let asking = false;
  let drained: PromiseWithResolvers<void> | undefined;
  let idleTimer: ReturnType<typeof setTimeout> | undefined;
  let pollTimer: ReturnType<typeof setTimeout> | undefined;

  /** Called after every change of what there is or is wanted. */
  function pump(): void {
    while (waiting.length > 0) {
      const latest = idle.pop();
      if (latest === undefined) break;
      if (latest.session.usable) waiting[0]?.serve(latest.session);
      else void close(latest.session);
    }
    while (lacking()) void grow();
    tidy();
  }

  /** Whether somebody waits for whom one more session should be opened, and may be. */
  function lacking(): boolean {
    return !asking && waiting.length > opening && places < limits.maxSessions;
  }

  async function grow(): Promise<void> {
    try {
      if (lease !== undefined && !(await leased(lease))) return;
      places += 1;
      opening += 1;
      if (lease !== undefined) pump(); // may ask for the next one now
    } catch (error) {
      return fail(error);
    }
    let session: Session;
    try {
      session = await open();
    } catch (error) {
      opening -= 1;
      places -= 1;
      lease?.giveBack();
      return fail(error);
    }
    opening -= 1;
    keep(session);
  }

  /** Whether there is a lease for one more session, and still somebody who wants it. */
  async function leased(budget: SessionLease): Promise<boolean> {
    asking = true;
    let granted: boolean;
    try {
      granted = await (async () => budget.take())(); // so that a throw, too, comes after this turn
    } finally {
      asking = false;
    }
    if (granted && lacking()) return true;
    if (granted) budget.giveBack();
    // With a session of our own there is one to wait for; without, only the budget can help.
    else if (lacking() && places === 0) pollTimer ??= setTimeout(poll, LEASE_POLL_MS);
    tidy();
    return false;
  }

  function poll(): void {
    pollTimer = undefined;
    pump();
  }

  /** No session for the first who waits. When there is none for the others to wait for either, they hear it too. */
  function fail(error: unknown): void {
    const told = places === 0 ? waiting.slice() : waiting.slice(0, 1);
    for (const waiter of told) waiter.refuse(error);
    pump();
  }

  function keep(session: Session): void {
    const surplus = places - closing > limits.maxSessions || (drained !== undefined && waiting.length === 0);
    if (surplus || !session.usable) {
      void close(session);
    } else {
      idle.push({ session, sinceMs: now() });
      pump();
    }
  }

  async function close(session: Session): Promise<void> {
    closing += 1;
    await session.close().catch(() => undefined);
    closing -= 1;
    places -= 1;
    lease?.giveBack();
    pump();
  }

  function tidy(): void {
    // Whoever has a session on its way stays, be it late.
    const awaited = opening + (asking ? Math.max(0, limits.maxSessions - places) : 0);
    for (const waiter of waiting.slice(awaited)) if (waiter.late) waiter.refuse(exhausted());
    while (waiting.length > awaited + limits.maxWaiting) waiting.at(-1)?.refuse(exhausted());

    if (waiting.length === 0) {
      clearTimeout(pollTimer);
      pollTimer = undefined;
    }
    clearTimeout(idleTimer);
    const [oldest] = idle;
    idleTimer = oldest && setTimeout(closeIdle, Math.max(0, oldest.sinceMs + limits.idleCloseMs - now()));
    if (places === 0 && waiting.length === 0 && !asking) drained?.resolve();
  }

  function closeIdle(): void {
    while (idle[0] !== undefined && now() - idle[0].sinceMs >= limits.idleCloseMs) void closeOldest();
    tidy();
  }

  function closeOldest(): Promise<void> | undefined {
    const oldest = idle.shift();
    return oldest && close(oldest.session);
  }

  async function acquire(signal: AbortSignal | undefined, ahead: boolean): Promise<Session> {
    if (isAborted(signal)) throw abandoned(signal);
    const { promise, resolve, reject } = Promise.withResolvers<Session>();
    const leave = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      waiting.splice(waiting.indexOf(waiter), 1);
    };
    const waiter: Waiter = {
      late: false,
      serve: (session) => {
        leave();
        resolve(session);
      },
      refuse: (error) => {
        leave();
        reject(error);
      },
    };
    const onAbort = (): void => {
      waiter.refuse(abandoned(signal));
      tidy();
    };
    signal?.addEventListener("abort", onAbort);
    const timer = setTimeout(() => {
      waiter.late = true;
      tidy();
    }, limits.waitWithinMs);
    if (ahead) waiting.unshift(waiter);
    else waiting.push(waiter);
    pump();
    const session = await promise;
    if (!isAborted(signal)) return session;
    keep(session); // aborted in the very turn in which it was served
    throw abandoned(signal);
  }

  async function takeBack(session: Session, { running }: Loan): Promise<void> {
    if (running === 0 && session.usable && session.transaction !== "none") {
      await session.batch([{ text: "ROLLBACK" }]).catch(() => undefined);
    }
    if (running > 0 || session.transaction !== "none") void close(session);
    else keep(session);
  }

  async function use<R>(
    work: (session: Session) => Promise<R>,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<R> {
    if (drained !== undefined) throw new AppError("sessions_exhausted", "the account's sessions are being closed");
    for (let again = false; ; again = true) {
      const session = await acquire(signal, again);
      const loan = lend(session);
      try {
        return await work(loan.session);
      } catch (error) {
        const unused = error instanceof NeverSent && !loan.sent && !session.usable;
        if (again || !unused) throw error;
      } finally {
        loan.returned = true;
        // Not waited for: what the caller is told does not depend on it.
        void takeBack(session, loan);
      }
    }
  }

  return {
    use,
    resize(next) {
      limits = next;
      while (places - closing > limits.maxSessions && idle.length > 0) void closeOldest();
      pump();
    },
    drain() {
      if (drained === undefined) {
        drained = Promise.withResolvers();
        while (idle.length > 0) void closeOldest();
        tidy();
      }
      return drained.promise;
    },
    stats: () => ({ used: places - idle.length, idle: idle.length, waiting: waiting.length }),
  };
}

/** A session in the hands of one caller. */
interface Loan {
  readonly session: Session;
  /** Batches under way. */
  running: number;
  /** Whether any batch may have reached the server. */
  sent: boolean;
  /** Then it takes no more batches, whoever still holds it. */
  returned: boolean;
}

function lend(session: Session): Loan {
  const loan: Loan = {
    running: 0,
    sent: false,
    returned: false,
    session: {
      async batch(statements, options) {
        if (loan.returned) throw new Error("a session was used after it had been given back");
        loan.running += 1;
        try {
          const rows = await session.batch(statements, options);
          loan.sent = true;
          return rows;
        } catch (error) {
          if (!(error instanceof NeverSent)) loan.sent = true;
          throw error;
        } finally {
          loan.running -= 1;
        }
      },
      get usable() {
        return !loan.returned && session.usable;
      },
      get transaction() {
        return session.transaction;
      },
      close: () => session.close(),
    },
  };
  return loan;
}

function exhausted(): AppError {
  return new AppError("sessions_exhausted");
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function abandoned(signal: AbortSignal | undefined): AppError {
  return new AppError("database_unavailable", "the wait for a session was abandoned", { cause: signal?.reason });
}
