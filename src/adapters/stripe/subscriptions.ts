// Subscriptions at Stripe. Every read returns the current state. Every write can be repeated: it names the state that
// was read, so that a late request changes nothing.
import type Stripe from "stripe";
import { type PlanName, baseKey, planOfKeys } from "../../core/plans/plans.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { PRODUCT_ID, failureOf, idOf, orMissing, pricesOf } from "./client.ts";

/** A subscription as Stripe has it, reduced to the fields that matter here. */
export interface Subscription {
  id: string;
  /** From the metadata, which only Tollgate writes. */
  tenantId: string | null;
  /** Stripe's status. An unknown one does not change the tenant's state. */
  status: string;
  createdAtMs: number;
  /** From the lookup keys of its prices. `null`: not a plan of Tollgate. */
  plan: PlanName | null;
  trialUntilMs: number | null;
  periodStartMs: number | null;
  periodEndMs: number | null;
  /** When it will end, because it was cancelled. */
  cancelAtMs: number | null;
  endedAtMs: number | null;
  /** Stripe ended it because payments failed. It makes no last invoice then. */
  endedUnpaid?: boolean;
  /** Tollgate ended it as a second subscription of its tenant. No usage is its. */
  isDuplicate?: boolean;
  /** What Stripe does with invoices while their collection is paused. `null`: it is not paused. */
  pausedCollection: string | null;
  /** When the oldest unpaid invoice was finalized. `null`: no payment is overdue. */
  unpaidSinceMs: number | null;
}

/** Marks a second subscription at Stripe, in the same request that ends it. The dashboard shows it. */
const DUPLICATE = "Tollgate: a second subscription of one tenant";

/** A month and some slack: a base price is paid for a month at most, in advance. */
const LONGEST_PERIOD_SECONDS = 32 * 86_400;

/** Stripe carries out one request per key. The caller waits `timeoutMs` at most. */
export interface Attempt {
  idempotencyKey: string;
  timeoutMs: number;
}

/** A Stripe customer and the tenant that it pays for. */
export interface Payer {
  tenantId: TenantId;
  customerId: string | null;
  subscriptionId: string | null;
}

export function connectSubscriptions(stripe: Stripe) {
  return {
    /** All subscriptions of a customer, including those that have ended. */
    async ofCustomer(customerId: string): Promise<Subscription[]> {
      const found: Subscription[] = [];
      for await (const each of stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 })) {
        const owes = each.status === "past_due" || each.status === "unpaid";
        found.push(asSubscription(each, owes ? await unpaidSince(stripe, each.id) : null));
      }
      return found;
    },

    /** One subscription with its plan, or `undefined` when Stripe has none with this id. */
    async get(subscriptionId: string): Promise<Subscription | undefined> {
      const found = await orMissing(stripe.subscriptions.retrieve(subscriptionId));
      return found === undefined ? undefined : asSubscription(found, null);
    },

    /** Whether a subscription is running, or will run once a payment succeeds. One that Stripe does not have is not. */
    async isActive(subscriptionId: string): Promise<boolean> {
      const found = await orMissing(stripe.subscriptions.retrieve(subscriptionId));
      return found !== undefined && isActive(found);
    },

    /**
     * Replaces the prices of a subscription by those of a plan, prorated by Stripe. Prices of other products stay. The
     * request names the old items by id, so that Stripe refuses it when another change was faster.
     */
    async changePlan(subscriptionId: string, plan: PlanName, { idempotencyKey, timeoutMs }: Attempt): Promise<void> {
      const [subscription, prices] = await Promise.all([
        stripe.subscriptions.retrieve(subscriptionId, undefined, { timeout: timeoutMs }),
        pricesOf(stripe, plan, timeoutMs),
      ]);
      const ours = subscription.items.data.filter(({ price }) => idOf(price.product) === PRODUCT_ID);
      const priceIds = prices.map(({ id }) => id);
      const items = [
        ...ours.filter(({ price }) => !priceIds.includes(price.id)).map(({ id }) => ({ id, deleted: true })),
        ...priceIds.filter((id) => !ours.some(({ price }) => price.id === id)).map((price) => ({ price })),
      ];
      if (items.length === 0) return;
      await stripe.subscriptions.update(
        subscriptionId,
        { items, metadata: { plan } },
        { idempotencyKey, timeout: timeoutMs },
      );
    },

    /**
     * Lets a subscription run again that Stripe paused after a trial without a way to pay, in the periods that it had. With
     * `collection` it also ends a pause of the collection. Throws when Stripe cannot charge the customer.
     */
    async resume(subscriptionId: string, { collection }: { collection: boolean }): Promise<void> {
      const found = await stripe.subscriptions.retrieve(subscriptionId);
      if (collection && found.pause_collection !== null)
        await stripe.subscriptions.update(subscriptionId, { pause_collection: "" });
      if (found.status === "paused")
        await stripe.subscriptions.resume(subscriptionId, { billing_cycle_anchor: { type: "unchanged" } });
    },

    /**
     * Ends a second subscription of a tenant, without an invoice: the usage is on the first one's. Does nothing if it has ended
     * already.
     */
    async endDuplicate(subscriptionId: string): Promise<void> {
      try {
        await stripe.subscriptions.cancel(subscriptionId, {
          ...{ invoice_now: false, prorate: false },
          cancellation_details: { comment: DUPLICATE },
        });
      } catch (error) {
        if (await this.isActive(subscriptionId)) throw error;
      }
    },

    /** Ends a subscription at once, prorated, with a last invoice for all usage. Does nothing if it has ended already. */
    async end(subscriptionId: string, { idempotencyKey, timeoutMs }: Attempt): Promise<void> {
      const found = await this.get(subscriptionId);
      if (found === undefined || found.endedAtMs !== null) return;
      await stripe.subscriptions.cancel(
        subscriptionId,
        { invoice_now: true, prorate: true },
        { idempotencyKey, timeout: timeoutMs },
      );
    },

    /**
     * Ends every subscription of a tenant that leaves: the named one, and any other of its customer that carries the
     * tenant's id. Each gets an invoice for the last usage. Skips those that have ended.
     */
    async endAll({ tenantId, customerId, subscriptionId }: Payer): Promise<void> {
      const open = new Set<string>();
      if (customerId !== null) {
        for await (const each of stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 }))
          if (each.metadata["tenant_id"] === tenantId && isActive(each)) open.add(each.id);
      }
      if (subscriptionId !== null && (await this.isActive(subscriptionId))) open.add(subscriptionId);
      for (const id of open) {
        try {
          // Without `invoice_now` the last usage would never be billed.
          await stripe.subscriptions.cancel(id, { invoice_now: true });
        } catch (error) {
          // It may have ended meanwhile, or an earlier attempt ended it and its answer was lost.
          if (await this.isActive(id)) throw error;
        }
      }
    },

    /**
     * Until when the customer of an ended subscription has paid the plan's base price, or has its trial. `null`: no longer
     * than now. Reads the paid invoices of the last month: a credit on one of them undoes a payment for the same time.
     */
    async paidUntil(of: Payer & { customerId: string; plan: PlanName; nowMs: number }): Promise<number | null> {
      const nowSeconds = of.nowMs / 1000;
      const own = of.subscriptionId === null ? undefined : await this.get(of.subscriptionId);
      if ((own?.trialUntilMs ?? 0) > of.nowMs) return own?.trialUntilMs ?? null;
      const base = (await pricesOf(stripe, of.plan)).find(({ lookup_key: key }) => key === baseKey(of.plan));
      /** Payments less credits, by the end of the time that they are for. */
      const payments = new Map<number, number>();
      const created = { gte: Math.floor(nowSeconds) - LONGEST_PERIOD_SECONDS };
      for await (const { id } of stripe.invoices.list({ customer: of.customerId, status: "paid", created, limit: 100 }))
        for await (const { amount, period, pricing } of stripe.invoices.listLineItems(id, { limit: 100 })) {
          if (idOf(pricing?.price_details?.price ?? null) !== base?.id || period.end <= nowSeconds) continue;
          payments.set(period.end, (payments.get(period.end) ?? 0) + Math.sign(amount));
        }
      const ends = [...payments].flatMap(([end, net]) => (net > 0 ? [end] : []));
      return ends.length === 0 ? null : Math.max(...ends) * 1000;
    },

    /**
     * Starts a new subscription for a tenant that is reactivated, on the plan it had. `returnId` identifies the
     * reactivation: a repeat finds the subscription that an earlier attempt made. Returns `undefined` when Stripe cannot charge the customer.
     */
    async reactivate(back: {
      tenantId: TenantId;
      customerId: string;
      plan: PlanName;
      returnId: number;
      attempt: number;
      /** The first period. The customer has paid for it already if `isPaid`. */
      start: { endSeconds: number; isPaid: boolean };
      /** The subscription that has ended. Its trial continues. */
      endedId: string;
    }): Promise<string | undefined> {
      const { customerId: customer, plan, returnId, start } = back;
      for await (const each of stripe.subscriptions.list({ customer, status: "all", limit: 100 }))
        if (each.metadata["return"] === String(returnId) && isActive(each)) return each.id;
      const trialUntilMs = (await this.get(back.endedId))?.trialUntilMs;
      const isTrial = start.isPaid && trialUntilMs === start.endSeconds * 1000;
      try {
        const { id } = await stripe.subscriptions.create(
          {
            customer,
            items: (await pricesOf(stripe, plan)).map(({ id: price }) => ({ price })),
            ...(isTrial ? { trial_end: start.endSeconds } : { billing_cycle_anchor: start.endSeconds }),
            // Without a proration Stripe charges nothing before the first full period. Usage is billed from the start.
            ...(start.isPaid ? { proration_behavior: "none" as const } : {}),
            billing_mode: { type: "flexible" },
            // Without it, Stripe keeps a subscription whose first payment failed.
            payment_behavior: "error_if_incomplete",
            metadata: { tenant_id: back.tenantId, plan, return: String(returnId) },
          },
          { idempotencyKey: `return.${returnId}.${back.attempt}` },
        );
        return id;
      } catch (error) {
        if (cannotBeCharged(error)) return undefined;
        throw error;
      }
    },
  };
}

function isActive({ status }: Stripe.Subscription): boolean {
  return status !== "canceled" && status !== "incomplete_expired";
}

/** The charge was refused (402), or the customer has no way to pay (400). */
function cannotBeCharged(error: unknown): boolean {
  const { status, message } = failureOf(error);
  return status === 402 || (status === 400 && message.includes("no attached payment source"));
}

function asSubscription(from: Stripe.Subscription, unpaidSinceMs: number | null): Subscription {
  const items = from.items.data;
  const ms = (seconds: number | null | undefined): number | null => (seconds == null ? null : seconds * 1000);
  return {
    id: from.id,
    tenantId: from.metadata["tenant_id"] ?? null,
    status: from.status,
    createdAtMs: from.created * 1000,
    plan: planOfKeys(items.map(({ price }) => price.lookup_key)),
    trialUntilMs: ms(from.trial_end),
    periodStartMs: ms(items[0]?.current_period_start),
    periodEndMs: ms(items[0]?.current_period_end),
    // The dashboard, the API and disputes may set the flag alone.
    cancelAtMs: ms(from.cancel_at ?? (from.cancel_at_period_end ? items[0]?.current_period_end : null)),
    pausedCollection: from.pause_collection?.behavior ?? null,
    endedAtMs: ms(from.ended_at),
    endedUnpaid: from.cancellation_details?.reason === "payment_failed",
    isDuplicate: from.cancellation_details?.comment === DUPLICATE,
    unpaidSinceMs,
  };
}

/** When the oldest open invoice of a subscription was finalized. */
async function unpaidSince(stripe: Stripe, subscription: string): Promise<number | null> {
  let oldest: number | null = null;
  for await (const invoice of stripe.invoices.list({ subscription, status: "open", limit: 100 })) {
    const since = invoice.status_transitions.finalized_at ?? invoice.created;
    if (oldest === null || since < oldest) oldest = since;
  }
  return oldest === null ? null : oldest * 1000;
}
