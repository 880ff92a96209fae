// What a tenant's object holds of the tenant's rows: the opened login of the placement in force, the sessions of that
// login, and the proof that it is kept within the tenant. Without a proof that still holds, no tool gets to the rows.
// Every statement passes one gate here, which a move shuts for a moment; a statement that finds the gate at its place in
// the database shut goes to where the rows are now, so that a call does not notice that its tenant has moved.
import { placementsOf } from "../control/placements-store.ts";
import {
  type ProofOutcome,
  isProven,
  loginOf,
  openTenantDb,
  openTenantSession,
  proveLogin,
  reencrypted,
} from "./dispatch.ts";
import { type SessionLimits, type SessionPool, createSessionPool } from "./session-pool.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { type CallScopedDb, orAborted } from "./tenant-db.ts";
import { AppError } from "../core/errors.ts";
import { PauseGate } from "../core/pause-gate.ts";
import type { Placement } from "../core/placement.ts";
import type { Limits } from "../core/plans.ts";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import type { TenantDb, Transaction } from "../tools/tool.ts";
import { SessionShare } from "./session-budget.ts";

/** Before the tenant is known. */
const unsold = { sessions: 1, sessionIdleSeconds: 30, callsInFlight: 4 };

/** How long a transaction may wait for a session; a tool has 20 s in all, and some of them for its work. */
const SESSION_WAIT_MS = 12_000;
/** A buyer waits for it. */
const WARM_WITHIN_MS = 500;
/** While the fleet's budget is nearly used up, a session that nobody here waits for is closed at once. */
const SCARCE_IDLE_MS = 0;

interface Opened {
  placement: Placement;
  db: CallScopedDb;
  pool: SessionPool;
}

/** Raised by the database for a write to rows that are no longer the ones in force. */
const ELSEWHERE = "TG001";
/** A statement that is sent on more often than this is in a circle. */
const MAX_SENT_ON = 5;
const SENT_ON_WAIT_MS = 200;

export class TenantData {
  readonly #env: Env;
  readonly #tenantId: TenantId;
  readonly #findRows: (left: Placement) => Promise<void>;
  /** Every statement and transaction passes it. */
  readonly #gate = new PauseGate();
  #opened: Opened | undefined;
  #limits: Pick<Limits, "sessions" | "sessionIdleSeconds" | "callsInFlight"> | undefined;
  readonly #share: SessionShare;
  #scarce = false;
  #proving: { login: string; outcome: Promise<ProofOutcome> } | undefined;

  /** `findRows` is called when the rows are not where they were; it opens the place where they are. */
  constructor(env: Env, tenantId: TenantId, findRows: (left: Placement) => Promise<void>) {
    this.#env = env;
    this.#tenantId = tenantId;
    this.#findRows = findRows;
    this.#share = new SessionShare({
      env,
      tenantId,
      withinMs: SESSION_WAIT_MS,
      sessions: () => this.sessions(),
      onScarce: (scarce) => this.#setScarce(scarce),
    });
  }

  /** The rows, wherever they are at the moment of each statement. */
  readonly rows: CallScopedDb = {
    ...this.#forCall(undefined),
    forCall: (signal) => this.#forCall(signal),
  };

  #forCall(signal: AbortSignal | undefined): TenantDb {
    const through = <Result>(work: (db: TenantDb) => Promise<Result>): Promise<Result> => this.#through(signal, work);
    return {
      query: (text, params) => through((db) => db.query(text, params)),
      values: (text, params) => through((db) => db.values(text, params)),
      analytics: (text, params) => through((db) => db.analytics(text, params)),
      transaction: <Result>(work: readonly Statement[] | ((transaction: Transaction) => Promise<Result>)) =>
        // The overloads tell which of the two is meant.
        through((db) => db.transaction(work as readonly Statement[])) as Promise<Row[][]> & Promise<Result>,
    };
  }

  async #through<Result>(signal: AbortSignal | undefined, work: (db: TenantDb) => Promise<Result>): Promise<Result> {
    for (let sentOn = 0; ; sentOn += 1) {
      let opened: Opened | undefined;
      try {
        return await this.#gate.run(
          () => {
            opened = this.#opened;
            if (opened === undefined) throw new AppError("tenant_unavailable", "the rows are not open");
            return work(signal === undefined ? opened.db : opened.db.forCall(signal));
          },
          (resumed) => orAborted(resumed, signal),
        );
      } catch (error) {
        if (opened === undefined || sqlStateOf(error) !== ELSEWHERE || sentOn >= MAX_SENT_ON) throw error;
      }
      // The statement was refused, so it may be sent again.
      if (this.#opened === opened && !this.#gate.isPaused) {
        if (sentOn > 0) await new Promise((resolve) => setTimeout(resolve, SENT_ON_WAIT_MS));
        await this.#findRows(opened.placement);
      }
    }
  }

  /** Holds statements back once those that run have ended. False: some did not end in time; then none is held back. */
  async pause(withinMs: number): Promise<boolean> {
    const drained = await this.#gate.pause(withinMs);
    if (!drained) this.#gate.resume();
    return drained;
  }

  resume(): void {
    this.#gate.resume();
  }

  /** The rows of this placement if they can be had without waiting: opened before, by a login whose proof holds. */
  atHand(placement: Placement | null, nowMs: number): CallScopedDb | undefined {
    if (placement === null) return undefined;
    return isProven(placement, nowMs) && this.#opened !== undefined && samePlace(this.#opened.placement, placement)
      ? this.rows
      : undefined;
  }

  /** The rows of this placement, or why nobody gets them now. */
  async open(placement: Placement, nowMs: number): Promise<CallScopedDb | Exclude<ProofOutcome, "proven">> {
    if (!isProven(placement, nowMs)) {
      // One proof for all calls of this object that wait for one; an object never waits for another's.
      const login = loginOf(placement);
      if (this.#proving?.login !== login) this.#proving = { login, outcome: this.#prove(placement, nowMs) };
      const proving = this.#proving;
      const outcome = await proving.outcome.finally(() => {
        if (this.#proving === proving) this.#proving = undefined;
      });
      if (outcome !== "proven") return outcome;
    }
    if (this.#opened === undefined || !samePlace(this.#opened.placement, placement)) {
      const pool = this.#newPool(placement);
      const db = await openTenantDb(this.#env, this.#tenantId, placement, pool);
      void this.#opened?.pool.drain();
      this.#opened = { placement, db, pool };
    }
    return this.rows;
  }

  /** The numbers that the tenant was sold, as its sessions follow them. */
  resize(limits: Limits): void {
    this.#limits = limits;
    this.#opened?.pool.resize(this.#sessionLimits());
  }

  /** Opens a session ahead of the first transaction. A fleet without a free one is no failure, and is not waited for. */
  async warm(): Promise<void> {
    try {
      await this.#opened?.pool.use(async () => undefined, { signal: AbortSignal.timeout(WARM_WITHIN_MS) });
    } catch (error) {
      log("warn", "session_not_warmed", { tenantId: this.#tenantId, error: describeError(error) });
    }
  }

  /** Closes everything: for a tenant that is gone. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await opened?.pool.drain();
  }

  /** The tenant's sessions: of whom /health tells. */
  sessions(): { used: number; idle: number; waiting: number } {
    return this.#opened?.pool.stats() ?? { used: 0, idle: 0, waiting: 0 };
  }

  /** Closes idle sessions, now and until the budget has enough. */
  yieldSessions(): void {
    this.#setScarce(true);
  }

  #setScarce(scarce: boolean): void {
    if (scarce === this.#scarce) return;
    this.#scarce = scarce;
    this.#opened?.pool.resize(this.#sessionLimits());
  }

  #newPool(placement: Placement): SessionPool {
    return createSessionPool({
      open: () => openTenantSession(this.#env, placement),
      limits: this.#sessionLimits(),
      lease: this.#share.lease(placement.strategy),
      now: () => Date.now(),
    });
  }

  #sessionLimits(): SessionLimits {
    const { sessions, sessionIdleSeconds, callsInFlight } = this.#limits ?? unsold;
    return {
      maxSessions: sessions,
      idleCloseMs: this.#scarce ? SCARCE_IDLE_MS : sessionIdleSeconds * 1_000,
      maxWaiting: callsInFlight,
      waitWithinMs: SESSION_WAIT_MS,
    };
  }

  /** Proves a place ahead of its opening. */
  async expect(placement: Placement, nowMs: number): Promise<void> {
    if (!isProven(placement, nowMs)) await this.#prove(placement, nowMs);
  }

  #prove(placement: Placement, nowMs: number): Promise<ProofOutcome> {
    return proveLogin(this.#env, this.#tenantId, placement, nowMs);
  }

  /** Encrypts the placement's login with the newest key, unless it already is. */
  async reencryptLogin(placement: Placement): Promise<void> {
    const login = await reencrypted(this.#env, placement);
    if (login !== undefined) await placementsOf(this.#env).replaceLogin(placement, login);
  }
}

function samePlace(a: Placement, b: Placement): boolean {
  const facts = ({ id, host, database, login, replicaHost }: Placement) => [id, host, database, login, replicaHost];
  return facts(a).every((fact, index) => fact === facts(b)[index]);
}
