// One tenant's share of the fleet's session budget: asks for a slot before a session is opened, gives it back when it is
// closed, and renews what it holds. A budget that does not answer grants nothing, and then no session is opened.
import type { SessionLease } from "./session-pool.ts";
import { FLEET_BUDGET } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { type HeldSessions, LEASE_RENEW_MS } from "./session-budget.ts";

export interface SessionShareOptions {
  env: Env;
  tenantId: TenantId;
  /** How long to wait for a slot. */
  withinMs: number;
  /** What the tenant's sessions are doing. */
  sessions: () => { used: number; idle: number; waiting: number };
  /** Called when the fleet has become short of sessions, or no longer is. */
  onScarce: (scarce: boolean) => void;
}

export class SessionShare {
  readonly #options: SessionShareOptions;
  #slots = 0;
  /** Statements to the budget so far. */
  #told = 0;
  #renewing: ReturnType<typeof setInterval> | undefined;

  constructor(options: SessionShareOptions) {
    this.#options = options;
  }

  /** What a pool of sessions of this tier takes its slots from. */
  lease(strategy: Strategy): SessionLease {
    return {
      take: () => this.#take(strategy),
      giveBack: () => {
        this.#slots -= 1;
        void this.#tell(strategy);
      },
    };
  }

  async #take(strategy: Strategy): Promise<boolean> {
    const { env, tenantId, withinMs, onScarce } = this.#options;
    const toldBefore = this.#told;
    try {
      const { granted, scarce } = await env.SESSIONS.getByName(FLEET_BUDGET).take(
        tenantId,
        this.#held(strategy),
        withinMs,
      );
      if (granted) this.#slots += 1;
      onScarce(scarce);
      this.#renew(strategy);
      // What was said meanwhile did not count the slot that was granted.
      if (granted && this.#told !== toldBefore) void this.#tell(strategy);
      return granted;
    } catch (error) {
      log("warn", "session_budget_silent", { tenantId, error: describeError(error) });
      return false;
    }
  }

  /** Says what is held. What does not arrive is said again with the next renewal. */
  async #tell(strategy: Strategy): Promise<void> {
    const { env, tenantId, onScarce } = this.#options;
    this.#told += 1;
    this.#renew(strategy);
    try {
      const { scarce } = await env.SESSIONS.getByName(FLEET_BUDGET).hold(tenantId, this.#held(strategy));
      onScarce(scarce);
    } catch (error) {
      log("warn", "session_budget_silent", { tenantId, error: describeError(error) });
    }
  }

  #held(strategy: Strategy): HeldSessions {
    return { strategy, slots: this.#slots, ...this.#options.sessions() };
  }

  /** Renews for as long as there is something to renew; not longer, or the object could never sleep. */
  #renew(strategy: Strategy): void {
    if (this.#slots > 0) {
      this.#renewing ??= setInterval(() => void this.#tell(strategy), LEASE_RENEW_MS);
    } else if (this.#renewing !== undefined) {
      clearInterval(this.#renewing);
      this.#renewing = undefined;
    }
  }
}
