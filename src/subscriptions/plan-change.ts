// A plan change, done step by step in the tenant's object. Stripe bills usage at the price that is in force when Stripe
// receives it. So all usage up to the change is confirmed before Stripe has the new plan. Frozen usage is confirmed while
// the tenant calls, the rest while the tenant's calls are paused. The old plan is in force until Stripe has the new one.
// The control tables record every step, so any Workflow instance can do the next one.
import type { Context } from "../control/context.ts";
import { type PlanChange, subscriptionsStore } from "./subscriptions-store.ts";
import { isRefusedByStripe } from "../adapters/stripe-client.ts";
import { AppError } from "../core/errors.ts";
import { planOf } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import type { PauseGate } from "../core/pause-gate.ts";
import type { Flush } from "../metering/outbox.ts";
import { drainUsage } from "../reports/drain.ts";
import { DONE, type Step, nextAfter } from "../control/work.ts";
import type { Mutex } from "../core/mutex.ts";

/** Upper bound of a step's wait for usage: it ends well before the Workflow's own step. */
const DRAIN_MS = 3_000;
/** Upper bound of the pause. To a client it is a slow call, far below its timeout; it is enough to confirm the last rows. */
const PAUSE_MS = 5_000;
/** Parts of the pause: for calls that already run, and for their rows. The rest is for Stripe. */
const RUNNING_MS = 1_000;
const LAST_ROWS_MS = 2_500;
/** Stripe answers in well under a second. With less of the pause left, Tollgate does not ask. */
const LEAST_FOR_STRIPE_MS = 500;
/** Maximum time the HTTP request waits, plus one step. */
const REQUEST_MS = 4_000;
/** Before the next step: usage reaches the ledger in a second; freezing and Stripe take up to half a minute. */
const SOON_MS = 1_000;
const LATER_MS = 15_000;

/** What a plan change needs of the tenant's object. */
export interface PlanChangeHost {
  /** The gate that every call of the tenant passes. */
  gate: PauseGate;
  now(): number;
  flush: Flush;
  /** Reads the tenant's row again and records in the control tables that the object has it. */
  refresh(): Promise<unknown>;
}

export class TenantPlanChange {
  readonly #context: Context;
  readonly #tenantId: TenantId;
  /** Decisions about the tenant's subscription hold this lock. */
  readonly #mutex: Mutex;
  readonly #host: PlanChangeHost;

  constructor(context: Context, tenantId: TenantId, mutex: Mutex, host: PlanChangeHost) {
    this.#context = context;
    this.#tenantId = tenantId;
    this.#mutex = mutex;
    this.#host = host;
  }

  /** Does the next step of the open change. A step that fails throws and can be repeated. */
  advance(): Promise<Step> {
    return this.#mutex.run(() => this.#advance());
  }

  /** Does steps of the open change while the HTTP request may wait, then leaves the rest to a Workflow. */
  async advanceWithinRequest(): Promise<void> {
    const untilMs = Date.now() + REQUEST_MS;
    try {
      for (;;) {
        const { done, waitMs } = await this.advance();
        if (done) return;
        if (Date.now() + waitMs >= untilMs) break;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    } catch {
      // The step has recorded its failure; the Workflow retries it.
    }
    await this.#context.start({ kind: "plan_change", tenantId: this.#tenantId });
  }

  /** Cancels the open change. Returns false when it has taken effect already. */
  cancel(): Promise<boolean> {
    return this.#mutex.run(() => subscriptionsStore(this.#context.control).cancelChange(this.#tenantId));
  }

  async #advance(): Promise<Step> {
    const [context, tenantId, host] = [this.#context, this.#tenantId, this.#host];
    const subscriptions = subscriptionsStore(context.control);
    const change = await subscriptions.waitingChange(tenantId);
    if (change === undefined) return DONE;
    try {
      const subscriptionId = (await subscriptions.read(tenantId))?.subscriptionId ?? null;
      const isBilled = subscriptionId !== null;
      const drain = (withinMs: number, isLast: boolean): ReturnType<typeof drainUsage> =>
        drainUsage(context, tenantId, host.flush, { isBilled, isLast, nowMs: host.now(), withinMs });

      const missing = await drain(DRAIN_MS, false);
      if (missing !== undefined) return await waits(context, change, missing);
      // Asked before the pause: no call waits while Stripe is down, or for a change that has become impossible.
      if (isBilled && !(await isPossible(context, change, subscriptionId))) {
        await subscriptions.cancelChange(tenantId);
        return DONE;
      }

      const pausedAtMs = Date.now();
      const leftMs = (): number => pausedAtMs + PAUSE_MS - Date.now();
      const left = await host.gate.pauseFor({ maxMs: PAUSE_MS, drainMs: RUNNING_MS }, async () => {
        const last = await drain(Math.min(LAST_ROWS_MS, leftMs() - LEAST_FOR_STRIPE_MS), true);
        if (last !== undefined) return last;
        // The pause may run out from here on. Usage of calls that it lets in belongs to the plan that is in force then.
        if (isBilled && !(await changeAtStripe(context, change, subscriptionId, leftMs))) return "time";
        await subscriptions.finishChange(change.id, Date.now() - pausedAtMs);
        await host.refresh();
        return undefined;
      });
      const holdMs = Date.now() - pausedAtMs;
      if (left !== undefined) return await waits(context, change, left, holdMs);
      log("info", "plan_changed", { tenantId, plan: change.plan, holdMs });
      return DONE;
    } catch (error) {
      log("warn", "plan_change_step_failed", { tenantId, changeId: change.id, error: describeError(error) });
      await subscriptions.noteChange(change.id, inPlainWords(error)).catch(() => undefined);
      throw error;
    }
  }
}

/** A subscription that has ended cannot change its plan. A change to a plan without a price needs no subscription. */
async function isPossible({ stripe }: Context, change: PlanChange, subscriptionId: string): Promise<boolean> {
  const subscription = await stripe.subscriptions.get(subscriptionId);
  return planOf(change.plan).amountCents === null || (subscription !== undefined && subscription.endedAtMs === null);
}

/** Makes the change at Stripe. Returns false when too little time is left. After a lost answer the repetition changes nothing. */
async function changeAtStripe(
  { stripe: { subscriptions }, control }: Context,
  change: PlanChange,
  subscriptionId: string,
  leftMs: () => number,
): Promise<boolean> {
  if (leftMs() < LEAST_FOR_STRIPE_MS) return false;
  const attempt = await subscriptionsStore(control).nextAttempt(change.id);
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
  time: "There was no time left to ask Stripe. Tollgate asks again.",
};

async function waits(
  { control }: Context,
  change: PlanChange,
  what: keyof typeof words,
  holdMs?: number,
): Promise<Step> {
  await subscriptionsStore(control).noteChange(change.id, words[what], holdMs);
  return nextAfter(what === "stripe" || what === "freeze" ? LATER_MS : SOON_MS);
}

function inPlainWords(error: unknown): string {
  if (isRefusedByStripe(error)) return "Stripe refuses the change. Tollgate retries it.";
  return error instanceof AppError ? error.message : "Stripe does not answer. Tollgate asks again.";
}
