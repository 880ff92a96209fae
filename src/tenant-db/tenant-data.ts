// A tenant's rows in the tenant's object: the decrypted login of the placement in force, the sessions of that login, and the
// proof that it is kept within the tenant. Without a valid proof, no tool gets access to the rows.
// Every statement passes a pause gate, which a move pauses for a moment. A statement that the database refuses because the
// rows have moved is sent again to their new placement, so that a call does not notice a move.
import type { Context } from "../control/context.ts";
import { placementsStore } from "../control/placements-store.ts";
import type { TenantConfigCopy } from "../control/tenant-config.ts";
import {
  type ProofOutcome,
  isProven,
  loginOf,
  openTenantDb,
  openTenantSession,
  proveLogin,
  reencrypted,
} from "./dispatch.ts";
import { restoreLogin } from "./placement.ts";
import { type SessionLimits, type SessionPool, createSessionPool } from "./session-pool.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { type CallScopedDb, orAborted } from "./tenant-db.ts";
import { AppError } from "../core/errors.ts";
import { PauseGate } from "../core/concurrency/pause-gate.ts";
import type { Placement } from "../core/tenant/placement.ts";
import { type Limits, weightOf } from "../core/plans/plans.ts";
import type { Row, Statement } from "../core/sql.ts";
import type { TenantConfig, TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import type { TenantDb, Transaction } from "../tools/tool.ts";
import type { SlotShare } from "./database-slots.ts";
import { SessionShare } from "./session-budget.ts";

/** Limits before the tenant's configuration is known. */
const defaultLimits = { sessions: 1, sessionIdleSeconds: 30, callsInFlight: 4 };

/** Longest wait for a session. A tool has 20 s in all and needs the rest for its work. */
const SESSION_WAIT_MS = 12_000;
/** Time limit of opening the first session: a buyer waits for the sign-up. */
const PREWARM_WITHIN_MS = 500;
/** While the session budget is scarce, an idle session is closed at once. */
const SCARCE_IDLE_MS = 0;

type Databases = Pick<Context, "env" | "control">;

interface Opened {
  placement: Placement;
  db: CallScopedDb;
  pool: SessionPool;
}

/** The database's error for a write to rows that have moved. */
const MOVED_AWAY = "TG001";
/** A tenant moves rarely. A statement that is redirected more often than this runs in a circle. */
const MAX_REDIRECTS = 5;
/** Pause before a second redirect: the move may still be committing. */
const REDIRECT_WAIT_MS = 200;

export class TenantData {
  readonly #context: Databases;
  readonly #tenantId: TenantId;
  readonly #findRows: (left: Placement) => Promise<void>;
  /** Every statement and transaction passes it. */
  readonly #gate = new PauseGate();
  #opened: Opened | undefined;
  #limits: Pick<Limits, "sessions" | "sessionIdleSeconds" | "callsInFlight"> | undefined;
  #weight = 1;
  readonly #share: SessionShare;
  #scarce = false;
  #proving: { login: string; outcome: Promise<ProofOutcome> } | undefined;

  /** `findRows` is called when the rows have left a placement. It opens the one in force. */
  constructor(context: Databases, tenantId: TenantId, findRows: (left: Placement) => Promise<void>) {
    this.#context = context;
    this.#tenantId = tenantId;
    this.#findRows = findRows;
    this.#share = new SessionShare({
      env: context.env,
      tenantId,
      withinMs: SESSION_WAIT_MS,
      sessions: () => this.sessions(),
      onScarce: (scarce) => this.#setScarce(scarce),
    });
  }

  /** The rows. Each statement goes to the placement in force at that moment. */
  readonly rows: CallScopedDb = {
    ...this.#forCall(undefined),
    forCall: (signal) => this.#forCall(signal),
  };

  #forCall(signal: AbortSignal | undefined): TenantDb {
    const run = <Result>(work: (db: TenantDb) => Promise<Result>): Promise<Result> => this.#run(signal, work);
    return {
      query: (text, params) => run((db) => db.query(text, params)),
      values: (text, params) => run((db) => db.values(text, params)),
      analytics: (text, params) => run((db) => db.analytics(text, params)),
      transaction: <Result>(work: readonly Statement[] | ((transaction: Transaction) => Promise<Result>)) =>
        // The overloads guarantee the result's type.
        run((db) => db.transaction(work as readonly Statement[])) as Promise<Row[][]> & Promise<Result>,
    };
  }

  /** Runs work on the placement in force. Follows a move: work that the database refused as moved runs again. */
  async #run<Result>(signal: AbortSignal | undefined, work: (db: TenantDb) => Promise<Result>): Promise<Result> {
    for (let redirects = 0; ; redirects += 1) {
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
        if (opened === undefined || sqlStateOf(error) !== MOVED_AWAY || redirects >= MAX_REDIRECTS) throw error;
      }
      // The statement was refused, so it may be sent again.
      if (this.#opened === opened && !this.#gate.isPaused) {
        if (redirects > 0) await new Promise((resolve) => setTimeout(resolve, REDIRECT_WAIT_MS));
        await this.#findRows(opened.placement);
      }
    }
  }

  /** Pauses statements. Returns false, without a pause, when running statements did not end within `withinMs`. */
  async pause(withinMs: number): Promise<boolean> {
    const drained = await this.#gate.pause(withinMs);
    if (!drained) this.#gate.resume();
    return drained;
  }

  /** Ends the pause. */
  resume(): void {
    this.#gate.resume();
  }

  /** The rows of this placement if no wait is needed: they are open and the login's proof is valid. */
  cached(placement: Placement | null, nowMs: number): CallScopedDb | undefined {
    if (placement === null) return undefined;
    return isProven(placement, nowMs) && this.#opened !== undefined && samePlace(this.#opened.placement, placement)
      ? this.rows
      : undefined;
  }

  /** Proves and opens the rows of this placement. Returns the reason when they are not available. */
  async open(placement: Placement, nowMs: number): Promise<CallScopedDb | Exclude<ProofOutcome, "proven">> {
    if (!isProven(placement, nowMs)) {
      // The calls of this object share a running proof. Objects never wait for another object's proof.
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
      const share = (): SlotShare => ({ tenant: this.#tenantId, weight: this.#weight });
      const db = await openTenantDb(this.#context.env, this.#tenantId, placement, { sessions: pool, share });
      void this.#opened?.pool.drain();
      this.#opened = { placement, db, pool };
    }
    return this.rows;
  }

  /** Applies the tenant's plan to its database slots, and its limits to its sessions. */
  resize({ plan, limits }: Pick<TenantConfig, "plan" | "limits">): void {
    this.#weight = weightOf(plan);
    this.#limits = limits;
    this.#opened?.pool.resize(this.#sessionLimits());
  }

  /** Opens a session before the first transaction needs it. Does not wait for a scarce budget, and never throws. */
  async prewarmSession(): Promise<void> {
    try {
      await this.#opened?.pool.use(async () => undefined, { signal: AbortSignal.timeout(PREWARM_WITHIN_MS) });
    } catch (error) {
      log("warn", "session_not_prewarmed", { tenantId: this.#tenantId, error: describeError(error) });
    }
  }

  /** Closes everything, for a tenant that is removed. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await opened?.pool.drain();
  }

  /** The state of the tenant's sessions. */
  sessions(): { used: number; idle: number; waiting: number } {
    return this.#opened?.pool.stats() ?? { used: 0, idle: 0, waiting: 0 };
  }

  /** Closes idle sessions, now and while the session budget is scarce. */
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
      open: () => openTenantSession(this.#context.env, placement),
      limits: this.#sessionLimits(),
      lease: this.#share.lease(placement.strategy),
      now: () => Date.now(),
    });
  }

  #sessionLimits(): SessionLimits {
    const { sessions, sessionIdleSeconds, callsInFlight } = this.#limits ?? defaultLimits;
    return {
      maxSessions: sessions,
      idleCloseMs: this.#scarce ? SCARCE_IDLE_MS : sessionIdleSeconds * 1_000,
      maxWaiting: callsInFlight,
      waitWithinMs: SESSION_WAIT_MS,
    };
  }

  /** Proves a placement before it is opened, so that opening it is quick. */
  async prewarm(placement: Placement, nowMs: number): Promise<void> {
    if (!isProven(placement, nowMs)) await this.#prove(placement, nowMs);
  }

  async #prove(placement: Placement, nowMs: number): Promise<ProofOutcome> {
    const prove = (): Promise<ProofOutcome> => proveLogin(this.#context.env, this.#tenantId, placement, nowMs);
    const outcome = await prove();
    if (outcome !== "database_unavailable") return outcome;
    const isRestored = await restoreLogin(this.#context, this.#tenantId, placement).catch(() => false);
    return isRestored ? prove() : outcome;
  }

  /** Encrypts the placement's login with the newest key, unless it already is. */
  async reencryptLogin(placement: Placement): Promise<void> {
    const login = await reencrypted(this.#context.env, placement);
    if (login !== undefined) await placementsStore(this.#context.control).replaceLogin(placement, login);
  }
}

/** The rows of the placement that the tenant's configuration names at the moment. */
export class CurrentRows {
  readonly #data: TenantData;
  readonly #config: TenantConfigCopy;
  readonly #now: () => number;

  constructor(data: TenantData, config: TenantConfigCopy, now: () => number) {
    this.#data = data;
    this.#config = config;
    this.#now = now;
  }

  /** The rows of this configuration, at once if they are open, or why there are none. */
  of({ placement }: TenantConfig): CallScopedDb | "tenant_provisioning" | ReturnType<TenantData["open"]> {
    if (placement === null) return "tenant_provisioning";
    return this.#data.cached(placement, this.#now()) ?? this.#data.open(placement, this.#now());
  }

  /** The rows. Throws the code of why there are none. */
  async open(): Promise<CallScopedDb> {
    const config = await this.#config.current();
    if (typeof config === "string") throw new AppError(config);
    const rows = await this.of(config);
    if (typeof rows === "string") throw new AppError(rows);
    return rows;
  }

  /** The rows together with their placement. Throws the code of why there are none. */
  async withPlacement(): Promise<{ placement: Placement; rows: CallScopedDb }> {
    const rows = await this.open();
    const placement = this.#config.latest?.placement ?? null;
    if (placement === null) throw new AppError("tenant_provisioning");
    return { placement, rows };
  }
}

function samePlace(a: Placement, b: Placement): boolean {
  const facts = ({ id, host, database, login, replicaHost }: Placement) => [id, host, database, login, replicaHost];
  return facts(a).every((fact, index) => fact === facts(b)[index]);
}
