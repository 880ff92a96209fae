// Removes the tenant, in the tenant's object, a piece at a time; a Workflow asks for the next piece until none is left.
// What is done stands in the control tables after each piece, so that any piece can be repeated, by anybody. Pieces take
// turns with those of moves and jobs. Until the grace has ended the tenant may come back, and nothing of it is dropped.
import { cancelMonitor } from "../adapters/monitor.ts";
import { type Removal, type RemovalsStore, removalsStore } from "./removals-store.ts";
import type { Context } from "../control/context.ts";
import { type ErrorCode, AppError } from "../core/errors.ts";
import {
  type RemovalStep,
  type WorkingStep,
  isSold,
  nextMidnightSeconds,
  stateAfterReactivation,
  stepAfter,
} from "./removal.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import type { Flush } from "../metering/outbox.ts";
import { drainUsage } from "../reports/drain.ts";
import { startProvisioning } from "./provisioning.ts";
import { dropFiles, dropPlaces } from "./drop.ts";
import { DONE, NEXT, type Step, nextAfter } from "../control/work.ts";
import { checkNext, writeNext } from "./usage-archive-writer.ts";

/** What a removal needs of the object that it happens in. */
export interface RemovalHost {
  /** The object's clock, which has dated its calls. */
  now(): number;
  /** Reads the tenant's row again. */
  refresh(): Promise<unknown>;
  /** Calls that run and may still be charged. */
  running(): number;
  flush: Flush;
  /** Closes the sessions with the tenant's database. */
  disconnect(): Promise<void>;
  /** Deletes everything that the object has stored. Refused while the ledger lacks a row, and unless the tenant is gone. */
  forget(): Promise<void>;
}

/** A step is done, goes on from somewhere, or waits for something that is not ours to do. */
type Outcome = { done: true; archive?: object } | { continues: object } | { waitsFor: string };

/** A look for the last usage: a second or two, which the queue takes, and room for Stripe. */
const LOOK_MS = 4_000;
const waits = {
  ledger: "Usage is on its way to the ledger.",
  freeze: "Usage is not frozen into reports.",
  stripe: "Stripe has not confirmed all usage.",
} as const;

/** Usage is in the ledger seconds after the last call; Stripe may take hours to be back. */
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

  /** Does the next piece. Throws when it could not be done; then it is to be asked for again. */
  async advance(): Promise<Step> {
    const removal = await this.#removals.live(this.#tenantId);
    if (removal === undefined || !isWorking(removal.step) || removal.comingBack) return DONE;
    const { step } = removal;
    try {
      const outcome = await this.#steps[step](removal);
      if ("waitsFor" in outcome) {
        await this.#removals.note(removal.id, outcome);
        return nextAfter(WAIT_MS);
      }
      if (step === "erase") return DONE; // recorded with what it has cleared
      const next: { step: RemovalStep; progress: object; archive?: object } =
        "continues" in outcome
          ? { step, progress: outcome.continues }
          : { step: stepAfter(step), progress: {}, ...(outcome.archive !== undefined && { archive: outcome.archive }) };
      await this.#removals.record(removal, next);
      return next.step === "grace" ? DONE : NEXT;
    } catch (error) {
      log("warn", "removal_step_failed", { tenantId: this.#tenantId, step, error: describeError(error) });
      await this.#removals
        .note(removal.id, { error: `The step ${step} failed. Tollgate retries it.` })
        .catch(() => undefined);
      throw error;
    }
  }

  /**
   * Takes the tenant back, with a new subscription where the old one has ended. Returns why not, or nothing. May be repeated
   * after any outcome: a subscription that an attempt has made is found by the next one.
   */
  async reactivate(): Promise<ErrorCode | undefined> {
    const removal = await this.#removals.requestReactivation(this.#tenantId);
    if (removal === undefined) return "conflict";
    const subscriptionId = await this.#resubscribe(removal);
    if (subscriptionId === undefined) {
      await this.#removals.abandonReactivation(removal.id);
      return "payment_failed";
    }
    const { from, askedBy } = removal;
    const state = stateAfterReactivation({ from, askedBy, newSubscription: subscriptionId !== null });
    await this.#removals.undo(removal, { state, subscriptionId });
    log("info", "tenant_reactivated", { tenantId: this.#tenantId, removal: removal.id });
    await this.#host.refresh();
    // Registers the monitor anew; the sweep does it otherwise.
    await startProvisioning(this.#context, this.#tenantId).catch((error: unknown) =>
      log("warn", "monitor_not_registered", { tenantId: this.#tenantId, error: describeError(error) }),
    );
    return undefined;
  }

  /** The id of a new subscription; `null`: none is needed; `undefined`: payment is not possible. */
  async #resubscribe({ id, customerId, subscriptionId, plan, returns }: Removal): Promise<string | null | undefined> {
    if (subscriptionId === null || customerId === null || !isSold(plan)) return null;
    const { subscriptions } = this.#context.stripe;
    try {
      if (await subscriptions.isActive(subscriptionId)) return null;
      return await subscriptions.reactivate({
        tenantId: this.#tenantId,
        customerId,
        plan,
        returnId: id,
        attempt: returns,
        anchorSeconds: nextMidnightSeconds(this.#host.now()),
      });
    } catch (error) {
      // The wish stands: the sweep asks again.
      throw new AppError("billing_unavailable", "the tenant could not be reactivated yet", { cause: error });
    }
  }

  // ---- the steps

  readonly #steps: Readonly<Record<WorkingStep, (removal: Removal) => Promise<Outcome>>> = {
    usage: async ({ customerId }) => {
      // Calls are refused from here on, so that what is drained is the last.
      await this.#host.refresh();
      if (this.#host.running() > 0) return { waitsFor: "Calls are running." };
      const nowMs = this.#host.now();
      const options = { isBilled: customerId !== null, isLast: true, nowMs, withinMs: LOOK_MS };
      const missing = await drainUsage(this.#context.env, this.#tenantId, this.#host.flush, options);
      return missing === undefined ? { done: true } : { waitsFor: waits[missing] };
    },

    invoice: async ({ customerId, subscriptionId }) => {
      // Stripe takes usage at once and counts it a moment later: an invoice that is made in between would lack it.
      const told = await this.#removals.confirmedLately(this.#tenantId);
      if (customerId !== null && told !== undefined) {
        const counted = await this.#context.stripe.meter.readUnits(customerId, told);
        if (counted.kind !== "read") throw new AppError("billing_unavailable", counted.message);
        if (counted.units.values().reduce((sum, each) => sum + each, 0) < told.units)
          return { waitsFor: "Stripe has not counted all usage." };
      }
      await this.#context.stripe.subscriptions.endAll({ tenantId: this.#tenantId, customerId, subscriptionId });
      return { done: true };
    },

    monitor: async () => {
      // Nobody should be woken for a month by a tenant that has left.
      await cancelMonitor(this.#context.env.MONITOR_URL, this.#tenantId);
      await this.#removals.unmonitored(this.#tenantId);
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
        // Written anew from its beginning; when R2 only did not answer that costs no more than the time.
        await this.#removals.record(removal, { step: "archive", progress: {} });
        throw error;
      }
    },

    subscriptions: async ({ customerId, subscriptionId }) => {
      // One that was made for a return which then came to nothing would be paid for ever.
      await this.#context.stripe.subscriptions.endAll({ tenantId: this.#tenantId, customerId, subscriptionId });
      // A registration that was under way when the tenant left may have come after its end.
      await cancelMonitor(this.#context.env.MONITOR_URL, this.#tenantId);
      return { done: true };
    },

    places: async () => {
      await this.#host.refresh(); // from here on the object knows that the tenant is gone
      await this.#host.disconnect();
      return (await dropPlaces(this.#context, this.#removals, this.#tenantId))
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
