// A change of plan, in the tenant's object and under its lock, a piece at a time. All usage of before is confirmed before
// Stripe has the new plan, because Stripe bills usage at the price of the moment in which it is told of it. What is
// sealed goes that way while the tenant calls, the rest behind a shut gate. Until Stripe has the new plan the old one is in
// force; what stands in the control tables lets anybody go on, from whatever was done last.
import { connectControl } from "../adapters/neon.ts";
import { type PlanChange, subscriptionsStore } from "./subscriptions-store.ts";
import { isRefusedByStripe } from "../adapters/stripe-client.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { AppError } from "../core/errors.ts";
import { planOf } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import type { PauseGate } from "../core/pause-gate.ts";
import type { Flush } from "../metering/outbox.ts";
import { drainUsage } from "../reports/drain.ts";
import { DONE, GOES_ON } from "../backups/job.ts";
import { startLifecycle } from "./plan-change-workflow.ts";
import type { Piece } from "../moves/tenant-move.ts";
import type { Mutex } from "../core/mutex.ts";

/** A piece ends well before the step of a Workflow that asks for it. */
const DRAIN_MS = 3_000;
/** Upper bound of the pause: to a client a slow call, far below its timeout, and long enough to confirm the last rows. */
const PAUSE_MS = 5_000;
/** Of the pause: for calls that run already; what is left of it is for the last rows and for Stripe. */
const RUNNING_MS = 1_000;
const LAST_ROWS_MS = 2_500;
/** Stripe answers in well under a second; with less than this left, it is not asked. */
const LEAST_FOR_STRIPE_MS = 500;
/** Whoever asked for a change waits for no longer than this, and a piece. */
const MOMENT_MS = 4_000;
/** What is missing is on its way; or its next attempt is half a minute off, or it waits for the next minute. */
const SOON_MS = 1_000;
const LATER_MS = 15_000;

/** What a change of plan needs of the object that it happens in. */
export interface PlanHost {
  /** Every call of the tenant passes it. */
  gate: PauseGate;
  now(): number;
  flush: Flush;
  /** Reads the tenant's row again and tells the control tables. */
  refresh(): Promise<unknown>;
}

export class TenantPlan {
  readonly #env: Env;
  readonly #tenantId: TenantId;
  /** The tenant's lock: what billing decides is decided one after the other. */
  readonly #mutex: Mutex;
  readonly #host: PlanHost;

  constructor(env: Env, tenantId: TenantId, mutex: Mutex, host: PlanHost) {
    this.#env = env;
    this.#tenantId = tenantId;
    this.#mutex = mutex;
    this.#host = host;
  }

  /** Does the next piece of the open change. Throws when it could not be done; then it is to be asked for again. */
  advance(): Promise<Piece> {
    return this.#mutex.run(() => this.#advance());
  }

  /** Goes on with the open change for as long as whoever asked for it may wait; then a Workflow does. */
  async advanceForAMoment(): Promise<Piece> {
    const untilMs = Date.now() + MOMENT_MS;
    try {
      for (;;) {
        const { done, waitMs } = await this.advance();
        if (done) return DONE;
        if (Date.now() + waitMs >= untilMs) break;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    } catch {
      // It was noted, and is tried again.
    }
    await startLifecycle(this.#env, this.#tenantId);
    return GOES_ON;
  }

  /** Takes the open change back, unless it has taken effect; then it is not done. */
  cancel(): Promise<Piece> {
    return this.#mutex.run(async () => ({
      done: await subscriptionsStore(connectControl(this.#env)).cancelChange(this.#tenantId),
      waitMs: 0,
    }));
  }

  async #advance(): Promise<Piece> {
    const [env, tenantId, host] = [this.#env, this.#tenantId, this.#host];
    const billing = subscriptionsStore(connectControl(env));
    const change = await billing.waitingChange(tenantId);
    if (change === undefined) return DONE;
    try {
      const subscriptionId = (await billing.read(tenantId))?.subscriptionId ?? null;
      const isBilled = subscriptionId !== null;
      const drain = (withinMs: number, isLast: boolean): ReturnType<typeof drainUsage> =>
        drainUsage(env, tenantId, host.flush, { isBilled, isLast, nowMs: host.now(), withinMs });

      const missing = await drain(DRAIN_MS, false);
      if (missing !== undefined) return await waits(env, change, missing);
      // Nobody is held back while Stripe is away, or for a change that cannot be made any more.
      if (isBilled && !(await isPossible(env, change, subscriptionId))) {
        await billing.cancelChange(tenantId);
        return DONE;
      }

      const shutAtMs = Date.now();
      const leftMs = (): number => shutAtMs + PAUSE_MS - Date.now();
      const left = await host.gate.pauseFor({ maxMs: PAUSE_MS, drainMs: RUNNING_MS }, async () => {
        const last = await drain(Math.min(LAST_ROWS_MS, leftMs() - LEAST_FOR_STRIPE_MS), true);
        if (last !== undefined) return last;
        // From here on calls may be let in by the clock: their usage belongs to whichever plan is in force then.
        if (isBilled && !(await changeAtStripe(env, change, subscriptionId, leftMs))) return "time";
        await billing.finishChange(change.id, Date.now() - shutAtMs);
        await host.refresh();
        return undefined;
      });
      const holdMs = Date.now() - shutAtMs;
      if (left !== undefined) return await waits(env, change, left, holdMs);
      log("info", "plan_changed", { tenantId, plan: change.plan, holdMs });
      return DONE;
    } catch (error) {
      log("warn", "plan_change_stumbled", { tenantId, changeId: change.id, error: describeError(error) });
      await billing.noteChange(change.id, inPlainWords(error)).catch(() => undefined);
      throw error;
    }
  }
}

/** A subscription that has ended takes no other plan; one that is to be left need not be there. */
async function isPossible(env: Env, change: PlanChange, subscriptionId: string): Promise<boolean> {
  const subscription = await connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE).subscriptions.get(
    subscriptionId,
  );
  return planOf(change.plan).amountCents === null || (subscription !== undefined && subscription.endedAtMs === null);
}

/** False: there was no time left to ask Stripe. Repeated after a lost answer it finds everything done. */
async function changeAtStripe(
  env: Env,
  change: PlanChange,
  subscriptionId: string,
  leftMs: () => number,
): Promise<boolean> {
  const { subscriptions } = connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE);
  if (leftMs() < LEAST_FOR_STRIPE_MS) return false;
  const attempt = await subscriptionsStore(connectControl(env)).nextAttempt(change.id);
  if (attempt === undefined) return false;
  const request = {
    idempotencyKey: `plan.${change.id}.a${attempt}`,
    timeoutMs: Math.max(LEAST_FOR_STRIPE_MS, leftMs()),
  };
  if (planOf(change.plan).amountCents === null) await subscriptions.end(subscriptionId, request);
  else await subscriptions.changePlan(subscriptionId, change.plan, request);
  return true;
}

const words: Readonly<Record<NonNullable<Awaited<ReturnType<typeof drainUsage>>> | "time", string>> = {
  ledger: "The ledger does not have all usage yet.",
  freeze: "Not all usage is frozen into reports yet.",
  stripe: "Stripe has not confirmed all usage yet.",
  time: "There was no time left to ask Stripe; it is asked again.",
};

async function waits(env: Env, change: PlanChange, what: keyof typeof words, holdMs?: number): Promise<Piece> {
  await subscriptionsStore(connectControl(env)).noteChange(change.id, words[what], holdMs);
  return { done: false, waitMs: what === "stripe" || what === "freeze" ? LATER_MS : SOON_MS };
}

function inPlainWords(error: unknown): string {
  if (isRefusedByStripe(error)) return "Stripe refuses the change. It is tried again.";
  return error instanceof AppError ? error.message : "Stripe does not answer. It is asked again.";
}
