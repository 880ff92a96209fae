// How many database sessions the whole fleet may have, in one object: tenants' objects say what they hold and ask before
// they open one more. What they say is a whole statement each time, so that a lost message is mended by the next; a
// holder that has gone silent is forgotten when its lease ends. Nothing that a tool waits for in every call passes here.
import { DurableObject } from "cloudflare:workers";
import type { Strategy } from "../core/plans.ts";

/** What a tenant's object holds. */
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
/** So many holders are asked at once to close what they have idle, when somebody was refused. */
const ASKED_AT_ONCE = 10;

export class SessionBudget extends DurableObject<Env> {
  #reclaiming = false;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    ctx.storage.sql.exec(
      `CREATE TABLE IF NOT EXISTS holders (name TEXT PRIMARY KEY, strategy TEXT NOT NULL, slots INTEGER NOT NULL,
         used INTEGER NOT NULL, idle INTEGER NOT NULL, waiting INTEGER NOT NULL, until_ms INTEGER NOT NULL,
         asked_ms INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID`,
    );
  }

  /** Takes over what `holder` has, and grants it one session more if it asks and there is one. */
  hold(holder: string, held: HeldSessions, asks: boolean): BudgetAnswer {
    const now = Date.now();
    const { sql } = this.ctx.storage;
    sql.exec(`DELETE FROM holders WHERE until_ms <= ? OR name = ? AND ? = 0`, now, holder, held.slots);
    const others = sql
      .exec<{ slots: number }>(`SELECT coalesce(sum(slots), 0) AS slots FROM holders WHERE name <> ?`, holder)
      .one().slots;
    const granted = asks && others + held.slots < this.budget();
    const slots = held.slots + (granted ? 1 : 0);
    const { strategy, used, idle, waiting } = held;
    if (slots > 0 || waiting > 0) {
      sql.exec(
        `INSERT INTO holders (name, strategy, slots, used, idle, waiting, until_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET strategy = excluded.strategy, slots = excluded.slots, used = excluded.used,
           idle = excluded.idle, waiting = excluded.waiting, until_ms = excluded.until_ms`,
        ...[holder, strategy, slots, used, idle, waiting, now + LEASE_MS],
      );
    }
    if (asks && !granted && !this.#reclaiming) this.ctx.waitUntil(this.#reclaim());
    return { granted, scarce: (asks && !granted) || others + slots >= this.budget() * SCARCE_SHARE };
  }

  /** Asks those who were not asked for the longest time to close what they have idle. */
  async #reclaim(): Promise<void> {
    this.#reclaiming = true;
    const { sql } = this.ctx.storage;
    const holders = sql
      .exec<{ name: string }>(`SELECT name FROM holders WHERE slots > 0 ORDER BY asked_ms LIMIT ?`, ASKED_AT_ONCE)
      .toArray();
    for (const { name } of holders) sql.exec(`UPDATE holders SET asked_ms = ? WHERE name = ?`, Date.now(), name);
    await Promise.allSettled(holders.map(({ name }) => this.env.TENANT.getByName(name).yieldSessions()));
    this.#reclaiming = false;
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
