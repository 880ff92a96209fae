// A tenant's session pool: lends sessions, queues callers and closes idle sessions. It opens the first session for the first
// caller; after the last session was idle for its time, nothing stays open, timers included.
// Invariants: at most `maxSessions` sessions are open, being opened or being closed; a session has one caller at a time;
// callers are served in order of arrival; a returned session is reused only when it is usable and has no transaction and no
// running batch, and is closed otherwise; every lease that was taken is given back once.
import { AppError } from "../core/errors.ts";
import { NeverSent, type Session } from "./session.ts";

export interface SessionLimits {
  maxSessions: number;
  /** An idle session is closed after this time. */
  idleCloseMs: number;
  /** Callers that may wait, besides those for whom a session is being opened. */
  maxWaiting: number;
  /** Longest wait of a caller. Opening a session has a limit of its own. */
  waitWithinMs: number;
}

/** The tenant's share of the session budget. */
export interface SessionLease {
  /** Called before each session is opened, never concurrently. False: not now. Settles in bounded time. */
  take(): Promise<boolean>;
  /** Called once for each lease that was taken: after its session is closed, or when it is not opened after all. */
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
   * Lends a session to `work` until it settles, then rolls an open transaction back. Runs `work` again when its session was
   * lost before anything was sent. `signal` ends the waiting, not the work. Throws what `work` or opening throws,
   * and `sessions_exhausted`.
   */
  use<R>(work: (session: Session) => Promise<R>, options?: { signal?: AbortSignal | undefined }): Promise<R>;
  /** Changes the limits. Closes surplus sessions as they become idle and refuses surplus callers, the latest first. */
  resize(limits: SessionLimits): void;
  /**
   * Refuses new callers, serves the waiting ones, lets running work finish, closes everything and resolves. A drained pool
   * stays closed.
   */
  drain(): Promise<void>;
  /** `used` counts sessions that are lent, being opened or being closed. */
  stats(): { used: number; idle: number; waiting: number };
}

interface Waiter {
  /** Its wait is over. It stays only while a session is being opened for it. */
  late: boolean;
  serve(session: Session): void;
  refuse(error: unknown): void;
}

/** Sessions that one caller may lose in a row. A pooler may hand out several connections on which a tenant left a short limit. */
const MAX_LOST = 3;
/** How often a waiting pool asks the budget again: soon enough for a caller, rare enough for a budget that all tenants ask. */
const LEASE_POLL_MS = 100;

/** Opens no session before the first caller. */
export function createSessionPool({ open, limits: first, lease, now }: SessionPoolOptions): SessionPool {
  let limits = first;
  /** Longest idle first. */
  const idle: { session: Session; sinceMs: number }[] = [];
  const waiting: Waiter[] = [];
  /** Sessions that count: being opened, lent, idle or being closed. */
  let places = 0;
  let opening = 0;
  let closing = 0;
  let asking = false;
  let drained: PromiseWithResolvers<void> | undefined;
  let idleTimer: ReturnType<typeof setTimeout> | undefined;
  let pollTimer: ReturnType<typeof setTimeout> | undefined;

  /** Serves waiting callers and opens sessions. Called after every change of supply or demand. */
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

  /** Whether a waiting caller needs one more session and the limits allow it. */
  function lacking(): boolean {
    return !asking && waiting.length > opening && places < limits.maxSessions;
  }

  async function grow(): Promise<void> {
    try {
      if (lease !== undefined && !(await leased(lease))) return;
      places += 1;
      opening += 1;
      if (lease !== undefined) pump(); // the next lease may be asked for now
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

  /** Takes a lease for one more session. False when there is none, or when no caller needs it any more. */
  async function leased(budget: SessionLease): Promise<boolean> {
    asking = true;
    let granted: boolean;
    try {
      granted = await (async () => budget.take())(); // a synchronous throw becomes a rejection
    } finally {
      asking = false;
    }
    if (granted && lacking()) return true;
    if (granted) budget.giveBack();
    // Callers can wait for a session that the pool has. Without one, only the budget can help.
    else if (lacking() && places === 0) pollTimer ??= setTimeout(poll, LEASE_POLL_MS);
    tidy();
    return false;
  }

  function poll(): void {
    pollTimer = undefined;
    pump();
  }

  /** Refuses the first waiting caller, and all of them when the pool has no session that they could wait for. */
  function fail(error: unknown): void {
    const refused = places === 0 ? waiting.slice() : waiting.slice(0, 1);
    for (const waiter of refused) waiter.refuse(error);
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
    // Callers for whom a session is being opened stay, even when their wait is over.
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
    keep(session); // aborted in the same turn in which it was served
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
    for (let lost = 0; ; lost += 1) {
      const session = await acquire(signal, lost > 0);
      const loan = lend(session);
      try {
        return await work(loan.session);
      } catch (error) {
        const unused = error instanceof NeverSent && !loan.sent && !session.usable;
        if (lost >= MAX_LOST || !unused) throw error;
      } finally {
        loan.returned = true;
        // Not awaited: the caller's result does not depend on it.
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

/** A session that is lent to one caller. */
interface Loan {
  readonly session: Session;
  /** Running batches. */
  running: number;
  /** Whether any batch may have reached the server. */
  sent: boolean;
  /** A returned session refuses further batches of its former caller. */
  returned: boolean;
}

function lend(session: Session): Loan {
  const loan: Loan = {
    running: 0,
    sent: false,
    returned: false,
    session: {
      async batch(statements, options) {
        if (loan.returned) throw new Error("a session was used after it was returned");
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
