// The session budget: how many database sessions all tenants together may have. One object keeps it; each tenant's object
// holds a share, asks for a slot before it opens a session and returns the slot when the session is closed.
// Invariants: the budget grants no more slots than it has; a budget that does not answer grants nothing, and then no session
// is opened. A holder always reports everything it holds, so that the next report repairs a lost one, and the lease of a
// silent holder expires. Calls with one statement never ask the budget.
import { DurableObject } from "cloudflare:workers";
import type { Strategy } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import type { SessionLease } from "./session-pool.ts";

/** The name of the one object that keeps the budget. */
export const SESSION_BUDGET_NAME = "session-budget";

/** What a tenant's object holds, without the session that it asks for. */
export interface HeldSessions {
  strategy: Strategy;
  /** Leases: sessions that are open, being opened or being closed. */
  slots: number;
  used: number;
  idle: number;
  waiting: number;
}

export interface BudgetAnswer {
  /** Whether the holder may open the session that it asked for. */
  granted: boolean;
  /** Whether others want the rest of the budget. Then a holder closes idle sessions at once. */
  scarce: boolean;
}

/** A heartbeat every 30 s costs an object little; a slot that a dead object held is free again after two minutes. */
export const HEARTBEAT_MS = 30_000;
/** Three heartbeats may be lost before a lease expires. */
const LEASE_MS = 4 * HEARTBEAT_MS;
/** From this share of the budget on, an idle session may be the one that another tenant needs. */
const SCARCE_SHARE = 0.8;
/** Holders that the budget asks at once to close idle sessions, while a tenant waits. One round usually frees enough. */
const ASKED_AT_ONCE = 10;
/** Pause between two such rounds: time for a session to close. */
const ASK_AGAIN_MS = 200;

interface Waiter {
  holder: string;
  answer(granted: boolean): void;
}

/** The object that keeps the budget. There is one, named `SESSION_BUDGET_NAME`. */
export class SessionBudget extends DurableObject<Env> {
  /** In order of arrival. */
  readonly #waiting: Waiter[] = [];
  #reclaiming = false;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    ctx.storage.sql.exec(
      `CREATE TABLE IF NOT EXISTS holders (name TEXT PRIMARY KEY, strategy TEXT NOT NULL, slots INTEGER NOT NULL,
         used INTEGER NOT NULL, idle INTEGER NOT NULL, waiting INTEGER NOT NULL, until_ms INTEGER NOT NULL,
         asked_ms INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID`,
    );
  }

  /** A holder's heartbeat: replaces what the budget knows of it and renews its lease. */
  heartbeat(holder: string, held: HeldSessions): Pick<BudgetAnswer, "scarce"> {
    this.#keep(holder, held);
    this.#grant();
    return { scarce: this.#scarce() };
  }

  /** A heartbeat that asks for one more session and waits `withinMs` for it at most. */
  async take(holder: string, held: HeldSessions, withinMs: number): Promise<BudgetAnswer> {
    this.#keep(holder, held);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter: Waiter = { holder, answer: resolve };
    this.#waiting.push(waiter);
    this.#grant();
    const timer = setTimeout(() => this.#leave(waiter), withinMs);
    if (this.#waiting.length > 0 && !this.#reclaiming) this.ctx.waitUntil(this.#reclaim());
    const granted = await promise;
    clearTimeout(timer);
    return { granted, scarce: this.#scarce() };
  }

  #leave(waiter: Waiter): void {
    const place = this.#waiting.indexOf(waiter);
    if (place >= 0) this.#waiting.splice(place, 1);
    waiter.answer(false);
  }

  /** Grants free slots to the longest waiting holders. */
  #grant(): void {
    let free = this.budget() - this.#taken();
    for (; free > 0; free -= 1) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.ctx.storage.sql.exec(
        `UPDATE holders SET slots = slots + 1, used = used + 1, waiting = max(waiting - 1, 0) WHERE name = ?`,
        next.holder,
      );
      next.answer(true);
    }
  }

  #keep(holder: string, { strategy, slots, used, idle, waiting }: HeldSessions): void {
    this.ctx.storage.sql.exec(
      `INSERT INTO holders (name, strategy, slots, used, idle, waiting, until_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET strategy = excluded.strategy, slots = excluded.slots, used = excluded.used,
         idle = excluded.idle, waiting = excluded.waiting, until_ms = excluded.until_ms`,
      ...[holder, strategy, slots, used, idle, waiting, Date.now() + LEASE_MS],
    );
  }

  #taken(): number {
    const { sql } = this.ctx.storage;
    sql.exec(`DELETE FROM holders WHERE until_ms <= ?`, Date.now());
    return sql.exec<{ slots: number }>(`SELECT coalesce(sum(slots), 0) AS slots FROM holders`).one().slots;
  }

  #scarce(): boolean {
    return this.#waiting.length > 0 || this.#taken() >= this.budget() * SCARCE_SHARE;
  }

  /** While a tenant waits, asks holders to close idle sessions, beginning with those that were asked longest ago. */
  async #reclaim(): Promise<void> {
    this.#reclaiming = true;
    const { sql } = this.ctx.storage;
    try {
      while (this.#waiting.length > 0) {
        const holders = sql
          .exec<{ name: string }>(`SELECT name FROM holders WHERE slots > 0 ORDER BY asked_ms LIMIT ?`, ASKED_AT_ONCE)
          .toArray();
        for (const { name } of holders) sql.exec(`UPDATE holders SET asked_ms = ? WHERE name = ?`, Date.now(), name);
        await Promise.allSettled(holders.map(({ name }) => this.env.TENANT.getByName(name).yieldSessions()));
        await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
      }
    } finally {
      this.#reclaiming = false;
    }
  }

  /** What all holders have, by strategy, for /health. At most one heartbeat old. */
  usage(): { budget: number; held: Record<string, { slots: number; used: number; idle: number; waiting: number }> } {
    const rows = this.ctx.storage.sql
      .exec<{ strategy: string; slots: number; used: number; idle: number; waiting: number }>(
        `SELECT strategy, sum(slots) AS slots, sum(used) AS used, sum(idle) AS idle, sum(waiting) AS waiting
         FROM holders WHERE until_ms > ? GROUP BY strategy`,
        Date.now(),
      )
      .toArray();
    const held = Object.fromEntries(rows.map(({ strategy, ...counts }) => [strategy, counts]));
    return { budget: this.budget(), held };
  }

  /** Sessions that all tenants together may have. */
  protected budget(): number {
    return Number(this.env.SESSION_BUDGET);
  }
}

export interface SessionShareOptions {
  env: Pick<Env, "SESSIONS">;
  tenantId: TenantId;
  /** Longest wait for a slot. */
  withinMs: number;
  /** The state of the tenant's sessions. */
  sessions: () => { used: number; idle: number; waiting: number };
  /** Called after each answer of the budget, with whether sessions are scarce. */
  onScarce: (scarce: boolean) => void;
}

/** One tenant's share of the budget, in the tenant's object. */
export class SessionShare {
  readonly #options: SessionShareOptions;
  #slots = 0;
  /** Heartbeats sent so far. */
  #heartbeats = 0;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: SessionShareOptions) {
    this.#options = options;
  }

  /** Where a session pool of this strategy takes its slots from. */
  lease(strategy: Strategy): SessionLease {
    return {
      take: () => this.#take(strategy),
      giveBack: () => {
        this.#slots -= 1;
        void this.#heartbeat(strategy);
      },
    };
  }

  async #take(strategy: Strategy): Promise<boolean> {
    const { env, tenantId, withinMs, onScarce } = this.#options;
    const heartbeatsBefore = this.#heartbeats;
    try {
      const { granted, scarce } = await env.SESSIONS.getByName(SESSION_BUDGET_NAME).take(
        tenantId,
        this.#held(strategy),
        withinMs,
      );
      if (granted) this.#slots += 1;
      onScarce(scarce);
      this.#schedule(strategy);
      // Heartbeats that were sent during the wait did not count the granted slot.
      if (granted && this.#heartbeats !== heartbeatsBefore) void this.#heartbeat(strategy);
      return granted;
    } catch (error) {
      log("warn", "session_budget_silent", { tenantId, error: describeError(error) });
      return false;
    }
  }

  /** Reports what is held. The next heartbeat repairs one that is lost. */
  async #heartbeat(strategy: Strategy): Promise<void> {
    const { env, tenantId, onScarce } = this.#options;
    this.#heartbeats += 1;
    this.#schedule(strategy);
    try {
      const budget = env.SESSIONS.getByName(SESSION_BUDGET_NAME);
      const { scarce } = await budget.heartbeat(tenantId, this.#held(strategy));
      onScarce(scarce);
    } catch (error) {
      log("warn", "session_budget_silent", { tenantId, error: describeError(error) });
    }
  }

  #held(strategy: Strategy): HeldSessions {
    return { strategy, slots: this.#slots, ...this.#options.sessions() };
  }

  /** Sends heartbeats while slots are held, and no longer: a timer keeps the object from hibernating. */
  #schedule(strategy: Strategy): void {
    if (this.#slots > 0) {
      this.#timer ??= setInterval(() => void this.#heartbeat(strategy), HEARTBEAT_MS);
    } else if (this.#timer !== undefined) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }
}
