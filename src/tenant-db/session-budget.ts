// How many database sessions the whole fleet may have, in one object: tenants' objects say what they hold and ask before
// they open one more. What they say is a whole statement each time, so that a lost message is mended by the next; a
// holder that has gone silent is forgotten when its lease ends. Nothing that a tool waits for in every call passes here.
import { DurableObject } from "cloudflare:workers";
import type { Strategy } from "../core/plans.ts";

/** What a tenant's object holds, not counting what it asks for. */
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
  /** Whether others want what is left: then an idle session is closed soon. */
  scarce: boolean;
}

/** Three renewals may be lost before a lease ends. */
export const LEASE_RENEW_MS = 30_000;
const LEASE_MS = 4 * LEASE_RENEW_MS;
/** From this share on, idle sessions are a cost to somebody. */
const SCARCE_SHARE = 0.8;
/** While somebody waits, so many holders are asked at once, this often, to close what they have idle. */
const ASKED_AT_ONCE = 10;
const ASK_AGAIN_MS = 200;

interface Waiter {
  holder: string;
  answer(granted: boolean): void;
}

export class SessionBudget extends DurableObject<Env> {
  /** In the order in which they came. */
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

  /** Takes over what `holder` has. */
  hold(holder: string, held: HeldSessions): Pick<BudgetAnswer, "scarce"> {
    this.#keep(holder, held);
    this.#grant();
    return { scarce: this.#scarce() };
  }

  /** The same, and asks for one session more, for which the holder waits `withinMs` at most. */
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

  /** Gives what is free to those who have waited longest. */
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

  /** Asks those who were not asked for the longest time to close what they have idle, while somebody waits. */
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

  /** What the fleet holds, by strategy, for /health. At most as old as a renewal. */
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

  /** Sessions that the fleet may have. */
  protected budget(): number {
    return Number(this.env.SESSION_BUDGET);
  }
}
