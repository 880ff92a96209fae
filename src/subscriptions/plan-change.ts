// Changes a tenant's plan, step by step in the tenant's object. Stripe bills usage at the price that is in force when Stripe
// receives it. So Stripe must confirm all earlier usage before it gets the new plan. Tollgate has frozen usage confirmed
// while calls run, and the rest while the tenant's calls are paused. The old plan is in force until Stripe has the new one.
// The control tables record every step, so any Workflow instance can do the next one.
import type { Context } from "../control/context.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { afterEvent } from "../core/tenant/tenant-state.ts";
import { DONE, type Step, nextAfter } from "../control/work.ts";
import { AppError, OutsideFailure, isPermanent } from "../core/errors.ts";
import type { Mutex } from "../core/concurrency/mutex.ts";
import type { PauseGate } from "../core/concurrency/pause-gate.ts";
import { planOf } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import type { Flush } from "../metering/outbox.ts";
import type { TenantUsage } from "../metering/tenant-usage.ts";
import { drainUsage } from "../reports/drain.ts";
import { type PlanChange, subscriptionsStore } from "./subscriptions-store.ts";

/** Maximum wait for usage in one step. It ends well before the timeout of the Workflow's step. */
const DRAIN_MS = 3_000;
/** Maximum pause. A client sees a slow call, far below its timeout, and the last rows can be confirmed in this time. */
const PAUSE_MS = 5_000;
/** Shares of the pause: to let running calls end, and to confirm their rows. The rest is for the change at Stripe. */
const RUNNING_MS = 1_000;
const LAST_ROWS_MS = 2_500;
/** Minimum time for the change at Stripe, which usually answers in less. With less time left, Tollgate does not ask. */
const LEAST_FOR_STRIPE_MS = 500;
/** Maximum time the HTTP request waits, plus one step. */
const REQUEST_MS = 4_000;
/** Pauses before the next step. Usage reaches the ledger in a second. Freezing and Stripe take up to half a minute. */
const SOON_MS = 1_000;
const LATER_MS = 15_000;

/** What a plan has cost in the billing period beyond its included units, and since when calls count under the next one. */
type Spent = ReturnType<TenantUsage["spentAt"]>;

/** The functions of the tenant's object that a plan change uses. */
interface PlanChangeHost {
  /** The gate that every call of the tenant passes. */
  gate: PauseGate;
  now(): number;
  flush: Flush;
  spentAt(nowMs: number): Spent | undefined;
  /** Reads the tenant's row again and records in the control tables that the object has it. */
  refresh(): Promise<unknown>;
}

export class TenantPlanChange {
  readonly #context: Context;
  readonly #tenantId: TenantId;
  /** Serialises decisions about the tenant's subscription. */
  readonly #mutex: Mutex;
  readonly #host: PlanChangeHost;
  /** The change that Stripe has last, and what its billing period had cost when Stripe got it. */
  #atStripe: { id: number; spent: Spent | undefined } | undefined;

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

  /** Does steps of the open change for as long as the HTTP request may wait. A Workflow does the rest. */
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
      // The step has recorded its failure, and the Workflow retries it.
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
      // Ask before the pause, so that calls do not wait while Stripe is down or for an impossible change.
      if (isBilled && !(await isPossible(context, change, subscriptionId))) {
        await subscriptions.cancelChange(tenantId, "The subscription has ended, so its plan cannot change.");
        return DONE;
      }

      const pausedAtMs = Date.now();
      const leftMs = (): number => pausedAtMs + PAUSE_MS - Date.now();
      const left = await host.gate.pauseFor({ maxMs: PAUSE_MS, drainMs: RUNNING_MS }, async () => {
        const last = await drain(Math.min(LAST_ROWS_MS, leftMs() - LEAST_FOR_STRIPE_MS), true);
        if (last !== undefined) return last;
        // From here on the pause may end early. Usage of the calls that then run belongs to the plan that is in force.
        const spent = this.#atStripe?.id === change.id ? this.#atStripe.spent : host.spentAt(host.now());
        if (isBilled && !(await changeAtStripe(context, change, subscriptionId, leftMs))) return "time";
        this.#atStripe = { id: change.id, spent };
        if (!(await this.#finish(change, isBilled, pausedAtMs))) return "time";
        await host.refresh();
        return undefined;
      });
      const pauseMs = Date.now() - pausedAtMs;
      if (left !== undefined) return await waits(context, change, left, pauseMs);
      log("info", "plan_changed", { tenantId, plan: change.plan, pauseMs });
      return DONE;
    } catch (error) {
      log("warn", "plan_change_step_failed", { tenantId, changeId: change.id, error: describeError(error) });
      if (isPermanent(error)) {
        // The same request would be refused again. The old plan stays in force.
        await subscriptions.cancelChange(tenantId, REFUSED_BY_STRIPE);
        return DONE;
      }
      await subscriptions.noteChange(change.id, inPlainWords(error)).catch(() => undefined);
      throw error;
    }
  }

  /** Puts the change into effect. Returns false when the tenant's row changed meanwhile: the next step finishes it. */
  async #finish(change: PlanChange, isBilled: boolean, pausedAtMs: number): Promise<boolean> {
    const spent = this.#atStripe?.spent;
    const { control } = this.#context;
    const facts = await tenantsStore(control).facts(this.#tenantId);
    if (facts === undefined) return false;
    const leaves = isBilled && planOf(change.plan).amountCents === null;
    const after = afterEvent(facts, leaves ? "leave_stripe" : "change_plan", this.#host.now());
    // Not possible while the tenant leaves. The removal has cancelled the change.
    if (after === undefined) return false;
    const pauseMs = Date.now() - pausedAtMs;
    return subscriptionsStore(control).finishChange(change, pauseMs, { version: facts.version, after, spent });
  }
}

/** An ended subscription cannot change its plan. A change to a plan by contract needs no subscription. */
async function isPossible({ stripe }: Context, change: PlanChange, subscriptionId: string): Promise<boolean> {
  const subscription = await stripe.subscriptions.get(subscriptionId);
  return planOf(change.plan).amountCents === null || (subscription !== undefined && subscription.endedAtMs === null);
}

/** Makes the change at Stripe. Returns false when too little time is left. A repetition after a lost answer changes nothing. */
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

/** What a waiting change waits for, as clients see it. */
const words: Readonly<Record<NonNullable<Awaited<ReturnType<typeof drainUsage>>> | "time", string>> = {
  ledger: "The ledger does not have all usage yet.",
  freeze: "Not all usage is frozen into reports yet.",
  stripe: "Stripe has not confirmed all usage yet.",
  time: "There was too little time left to ask Stripe. Tollgate retries the change.",
};

async function waits(
  { control }: Context,
  change: PlanChange,
  what: keyof typeof words,
  pauseMs?: number,
): Promise<Step> {
  await subscriptionsStore(control).noteChange(change.id, words[what], pauseMs);
  return nextAfter(what === "stripe" || what === "freeze" ? LATER_MS : SOON_MS);
}

/** Why a change ended that Stripe refused for good. Its log line has Stripe's code and message. */
export const REFUSED_BY_STRIPE = "Stripe refused the change, and the old plan stays in force. Ask support.";

/** The reason of a failed step, as clients see it: without Stripe's or the database's own text. */
function inPlainWords(error: unknown): string {
  return error instanceof AppError && !(error instanceof OutsideFailure)
    ? error.message
    : "Stripe does not answer. Tollgate retries the change.";
}
