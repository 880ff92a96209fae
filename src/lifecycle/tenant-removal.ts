// Removes the tenant step by step, in the tenant's object. A Workflow asks for the next step up to the grace, and again
// after it. The control tables record every step, so any step can be repeated. Steps never overlap with those of moves and
// jobs. Nothing of the tenant is dropped before the grace has ended.
import { cancelMonitor } from "../adapters/monitor.ts";
import { type Removal, type RemovalsStore, removalsStore } from "./removals-store.ts";
import type { Context } from "../control/context.ts";
import { type ErrorCode, AppError, errorCode, errors, isPermanent, reasonOf } from "../core/errors.ts";
import { HOUR_MS } from "../core/time.ts";
import { type RemovalStep, type WorkingStep, afterReactivation, isSold, newPeriod, stepAfter } from "./removal.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import type { Flush } from "../metering/outbox.ts";
import { billCarryForwards } from "../reports/carry-forward.ts";
import { drainUsage } from "../reports/drain.ts";
import { periodsStore } from "../reports/periods-store.ts";
import { reportRun } from "../reports/report-cron.ts";
import { provisioningStore } from "./provisioning-store.ts";
import { startProvisioning } from "./provisioning.ts";
import { dropFiles, dropPlacements } from "./drop.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { DONE, NEXT, type Step, nextAfter } from "../control/work.ts";
import { checkNext, writeNext } from "./usage-archive-writer.ts";

/** The parts of the tenant's object that a removal uses. */
export interface RemovalHost {
  /** The object's clock, which also dates its calls. */
  now(): number;
  /** Reads the tenant's row again. */
  refresh(): Promise<unknown>;
  /** The number of running calls, which may still be charged. */
  running(): number;
  flush: Flush;
  /** Closes the sessions with the tenant's database. */
  disconnect(): Promise<void>;
  /** Deletes all storage of the object. Throws while the ledger lacks a row, and unless the tenant is gone. */
  forget(): Promise<void>;
}

/** A step is done, continues from a recorded position, or waits for an outside system. */
type Outcome = { done: true; archive?: object } | { continues: object } | { waitsFor: string };

/** Stripe rounds the start of a subscription down to a second, and clocks differ by less than another second. */
const START_SLACK_MS = 2_000;

/** One wait for the last usage: the queue takes a second or two, the rest is for Stripe. */
const LOOK_MS = 4_000;
const waits = {
  ledger: "Usage is on its way to the ledger.",
  freeze: "Usage is not frozen into reports.",
  stripe: "Stripe has not confirmed all usage.",
} as const;

/** How long Tollgate repeats a reactivation by itself. Most outages end within it, and a person still remembers the request. */
const REACTIVATION_MS = HOUR_MS;
const NO_ANSWER_FROM_STRIPE = "Stripe did not answer for an hour, so the account stays closed. Ask for it again.";

/** Pause before the next attempt of a step that an outside system refuses. A person has to change something first. */
const REFUSED_MS = HOUR_MS;

/** Maximum number of attempts to write the return. Others write the tenant's row, too. */
const MAX_WRITES = 5;

/** Pause between two steps that wait. Usage reaches the ledger within seconds; an outage of Stripe may last hours. */
const WAIT_MS = 2_000;

export class TenantRemoval {
  readonly #context: Context;
  readonly #tenantId: TenantId;
  readonly #host: RemovalHost;
  readonly #removals: RemovalsStore;

  constructor(context: Context, tenantId: TenantId, host: RemovalHost) {
    this.#context = context;
    this.#tenantId = tenantId;
    this.#host = host;
    this.#removals = removalsStore(context.control);
  }

  /** Does the next step. A step that fails throws and can be repeated. */
  async advance(): Promise<Step> {
    const removal = await this.#removals.live(this.#tenantId);
    if (removal === undefined || !isWorking(removal.step) || removal.reactivating) return DONE;
    const { step } = removal;
    try {
      const outcome = await this.#steps[step](removal);
      if ("waitsFor" in outcome) {
        await this.#removals.note(removal.id, outcome);
        return nextAfter(WAIT_MS);
      }
      if (step === "erase") return DONE; // `erase` itself records the end
      const next: { step: RemovalStep; progress: object; archive?: object } =
        "continues" in outcome
          ? { step, progress: outcome.continues }
          : { step: stepAfter(step), progress: {}, ...(outcome.archive !== undefined && { archive: outcome.archive }) };
      await this.#removals.record(removal, next);
      return next.step === "grace" ? DONE : NEXT;
    } catch (error) {
      const isRefused = isPermanent(error);
      log(isRefused ? "error" : "warn", "removal_step_failed", {
        tenantId: this.#tenantId,
        step,
        error: describeError(error),
      });
      const said = isRefused
        ? `The step ${step} was refused: ${errors[errorCode(error)].advice} Tollgate tries it once an hour.`
        : `The step ${step} failed. ${reasonOf(error)} Tollgate retries it.`;
      const recorded = this.#removals.note(removal.id, { error: said }, isRefused ? REFUSED_MS : 0);
      await recorded.catch(() => undefined);
      if (isRefused) return DONE; // the sweep resumes it
      throw error;
    }
  }

  /**
   * Reactivates the tenant, with a new subscription where the old one has ended. Returns why it cannot, or `undefined`. Can
   * be repeated after any outcome: an attempt finds the subscription that an earlier one has made. A refusal by Stripe ends
   * the request. Without an answer the sweep repeats it (`again`), for `REACTIVATION_MS` at most after a person asked: later
   * a charge would be a surprise.
   */
  async reactivate({ again }: { again: boolean }): Promise<ErrorCode | undefined> {
    const removal = await this.#removals.requestReactivation(this.#tenantId, again);
    if (removal === undefined) return "conflict";
    if (again && (removal.reactivatingForMs ?? 0) > REACTIVATION_MS) {
      log("error", "reactivation_abandoned", { tenantId: this.#tenantId, removal: removal.id });
      await this.#removals.abandonReactivation(removal.id, NO_ANSWER_FROM_STRIPE, { uncertain: true });
      return "billing_unavailable";
    }
    const subscriptionId = await this.#resubscribe(removal);
    if (subscriptionId === undefined) {
      await this.#removals.abandonReactivation(removal.id, errors.payment_failed.advice, { uncertain: false });
      return "payment_failed";
    }
    await this.#undo(removal, subscriptionId);
    log("info", "tenant_reactivated", { tenantId: this.#tenantId, removal: removal.id });
    await this.#host.refresh();
    // Registers the monitor again. If this fails, the sweep does it.
    await startProvisioning(this.#context, this.#tenantId).catch((error: unknown) =>
      log("warn", "monitor_not_registered", { tenantId: this.#tenantId, error: describeError(error) }),
    );
    return undefined;
  }

  async #undo(removal: Removal, subscriptionId: string | null): Promise<void> {
    const tenants = tenantsStore(this.#context.control);
    const left = { from: removal.from, askedBy: removal.askedBy, newSubscription: subscriptionId !== null };
    for (let attempt = 1; attempt <= MAX_WRITES; attempt += 1) {
      const facts = await tenants.facts(this.#tenantId);
      if (facts?.state !== "leaving") return; // an earlier attempt has undone it
      const back = afterReactivation(facts, left, this.#host.now());
      if (await this.#removals.undo(removal, facts.version, { ...back, subscriptionId })) return;
    }
    throw new AppError("control_unavailable", "the tenant's row changes faster than it is written");
  }

  /** Returns the id of a new subscription; `null` when none is needed; `undefined` when Stripe cannot charge the customer. */
  async #resubscribe(removal: Removal): Promise<string | null | undefined> {
    const { id, subscriptionId, plan, reactivations } = removal;
    if (subscriptionId === null || !isSold(plan)) return null;
    const { subscriptions } = this.#context.stripe;
    try {
      if (await subscriptions.isActive(subscriptionId)) return null;
      const customerId = removal.customerId ?? (await this.#newCustomer(removal));
      // The step that ends the subscription records it afterwards, and may have been interrupted.
      const paidUntilMs = removal.step === "invoice" ? await this.#paidUntil(removal) : removal.paidUntilMs;
      await this.#outlastUse();
      const start = newPeriod(paidUntilMs, this.#host.now());
      const started = await subscriptions.reactivate({
        tenantId: this.#tenantId,
        customerId,
        plan,
        returnId: id,
        attempt: reactivations,
        start,
        endedId: subscriptionId,
      });
      if (started === undefined) return undefined;
      await this.#recordPeriods({ ...removal, customerId });
      if (start.isPaid) await periodsStore(this.#context.control).shareIncluded(started);
      return started;
    } catch (error) {
      log("warn", "reactivation_failed", { tenantId: this.#tenantId, error: describeError(error) });
      // Without an answer the request stays recorded, and the sweep repeats it. A refusal would be the same again.
      if (isPermanent(error))
        await this.#removals.abandonReactivation(id, errors.billing_refused.advice, { uncertain: reactivations > 1 });
      throw error;
    }
  }

  /** Records where the periods of the customer's subscriptions begin and end, before any call can run in a new one. */
  async #recordPeriods({ customerId, subscriptionId, plan }: Removal): Promise<void> {
    if (customerId === null) return;
    const found = await this.#context.stripe.subscriptions.ofCustomer(customerId);
    await periodsStore(this.#context.control).record({ id: this.#tenantId, plan, subscriptionId }, found);
  }

  /** Creates a customer in place of one that was deleted at Stripe, so that the tenant can add a way to pay. */
  async #newCustomer({ reactivations }: Removal): Promise<string> {
    const tenant = await tenantsStore(this.#context.control).summary(this.#tenantId);
    if (tenant === undefined) throw new AppError("tenant_unknown");
    const customerId = await this.#context.stripe.customers.create(tenant, `return.${reactivations}`);
    await provisioningStore(this.#context.control).setCustomer(this.#tenantId, customerId);
    return customerId;
  }

  /**
   * Waits until a subscription that begins now begins after the timestamps of all reports, so that it counts none of them,
   * after the last call, whose period it must not be, and after the start of the last one, so that no two begin in one
   * second.
   */
  async #outlastUse(): Promise<void> {
    const lastMs = (await this.#removals.lastUseMs(this.#tenantId, this.#host.now())) ?? 0;
    const leftMs = lastMs + START_SLACK_MS - this.#host.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, Math.min(leftMs, START_SLACK_MS)));
  }

  /** Until when the customer has paid, although its subscription has ended. `null`: Stripe has nothing that is paid. */
  async #paidUntil({ customerId, subscriptionId, plan }: Removal): Promise<number | null> {
    if (customerId === null || !isSold(plan)) return null;
    const payer = { tenantId: this.#tenantId, customerId, subscriptionId };
    return this.#context.stripe.subscriptions.paidUntil({ ...payer, plan, nowMs: this.#host.now() });
  }

  // ---- the steps

  readonly #steps: Readonly<Record<WorkingStep, (removal: Removal) => Promise<Outcome>>> = {
    usage: async ({ customerId }) => {
      // Calls are refused from here on, so no usage comes after what is drained.
      await this.#host.refresh();
      if (this.#host.running() > 0) return { waitsFor: "Calls are running." };
      const nowMs = this.#host.now();
      const options = { isBilled: customerId !== null, isLast: true, ends: true, nowMs, withinMs: LOOK_MS };
      const missing = await drainUsage(this.#context, this.#tenantId, this.#host.flush, options);
      return missing === undefined ? { done: true } : { waitsFor: waits[missing] };
    },

    invoice: async (removal) => {
      const { customerId, subscriptionId } = removal;
      // Stripe accepts usage at once and counts it a moment later. An invoice made in between would lack it.
      const reported = await this.#removals.confirmedLately(this.#tenantId);
      if (customerId !== null && reported !== undefined) {
        const counted = await this.#context.stripe.meter.readUnits(customerId, reported);
        if (counted.kind !== "read") throw new AppError("billing_unavailable", counted.message);
        if (counted.units.values().reduce((sum, each) => sum + each, 0) < reported.units)
          return { waitsFor: "Stripe has not counted all usage." };
      }
      await this.#context.stripe.subscriptions.endAll({ tenantId: this.#tenantId, customerId, subscriptionId });
      await this.#recordPeriods(removal);
      await this.#removals.recordPaidUntil(removal.id, await this.#paidUntil(removal));
      // Bills usage that had no minute in the period that has now ended. If this fails, the cron does it.
      await billCarryForwards(this.#context, reportRun(this.#host.now(), LOOK_MS), this.#tenantId).catch(
        (error: unknown) =>
          log("warn", "usage_not_billed_late", { tenantId: this.#tenantId, error: describeError(error) }),
      );
      return { done: true };
    },

    monitor: async () => {
      // A tenant that has left must not raise alarms during its grace.
      await cancelMonitor(this.#context.env.MONITOR_URL, this.#tenantId);
      await this.#removals.recordUnmonitored(this.#tenantId);
      return { done: true };
    },

    archive: async ({ progress }) => {
      const continues = await writeNext(this.#context, this.#tenantId, progress);
      return continues === undefined ? { done: true } : { continues };
    },

    verify: async (removal) => {
      try {
        const outcome = await checkNext(this.#context, this.#tenantId, removal.progress);
        return "holds" in outcome ? { done: true, archive: outcome.holds } : outcome;
      } catch (error) {
        // Write the archive again from its beginning. If only R2 was down, this costs no more than time.
        await this.#removals.record(removal, { step: "archive", progress: {} });
        throw error;
      }
    },

    subscriptions: async ({ customerId, subscriptionId }) => {
      // A failed reactivation may have left a new subscription, which would be charged for ever.
      await this.#context.stripe.subscriptions.endAll({ tenantId: this.#tenantId, customerId, subscriptionId });
      // A registration that was running when the monitor was cancelled may have finished later.
      await cancelMonitor(this.#context.env.MONITOR_URL, this.#tenantId);
      return { done: true };
    },

    places: async () => {
      await this.#host.refresh(); // from here on the object knows that the tenant is gone
      await this.#host.disconnect();
      return (await dropPlacements(this.#context, this.#removals, this.#tenantId))
        ? { done: true }
        : { waitsFor: "The tenant's database is being removed." };
    },

    files: async () => ((await dropFiles(this.#context, this.#tenantId)) ? { done: true } : { continues: {} }),

    object: async () => {
      await this.#host.forget();
      return { done: true };
    },

    erase: async () => {
      if (!(await this.#removals.erase(this.#tenantId))) throw new AppError("internal", "the tenant is not erased");
      log("info", "tenant_removed", { tenantId: this.#tenantId });
      return { done: true };
    },
  };
}

function isWorking(step: RemovalStep): step is WorkingStep {
  return step !== "grace" && step !== "done" && step !== "undone";
}
