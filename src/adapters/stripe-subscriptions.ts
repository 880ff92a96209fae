// Subscriptions, invoices and the customer portal at Stripe, and what its meter refused. Everything is read as it is now;
// what is written can be repeated: it refers to what was read, so that a request which comes late finds nothing to change.
import Stripe from "stripe";
import { AppError } from "../core/errors.ts";
import type { PlanName } from "../core/plans.ts";
import { type Subscription, planOfKeys, priceKeys } from "../subscriptions/subscription.ts";
import { PRODUCT_ID, idOf, stripeClient } from "./stripe.ts";

/** What the portal's configuration is found again by. */
export const PORTAL_MARK = { tollgate: "portal" } as const;

/** What Stripe found wrong with meter events that it had taken. */
export interface MeterErrors {
  fromAt: string;
  untilAt: string;
  byCode: { code: string; errors: number; identifiers: string[] }[];
}

/** An invoice as Stripe has it, in what matters here. */
export interface InvoiceFacts {
  id: string;
  customerId: string | null;
  subscriptionId: string | null;
  finalizedAtMs: number | null;
  /** The time that it ends, whose usage it bills; `null`: it is of another occasion than the end of a period. */
  period: { startMs: number; endMs: number } | null;
  /** Whose units it bills, and how many; `null`: none. */
  metered: { plan: PlanName | null; units: number } | null;
}

/** A request of which Stripe does only one with this key, and which is not waited for any longer than this. */
export interface Attempt {
  idempotencyKey: string;
  timeoutMs: number;
}

export function connectSubscriptions(secretKey: string, apiBase: string) {
  const stripe = stripeClient(secretKey, apiBase);

  return {
    /** All subscriptions of a customer, those that have ended, too. */
    async ofCustomer(customerId: string): Promise<Subscription[]> {
      const found: Subscription[] = [];
      for await (const each of stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 })) {
        const owes = each.status === "past_due" || each.status === "unpaid";
        found.push(asSubscription(each, owes ? await unpaidSince(stripe, each.id) : null));
      }
      return found;
    },

    /** One subscription with its plan, or `undefined` when Stripe has none of this id. */
    async get(subscriptionId: string): Promise<Subscription | undefined> {
      const found = await orMissing(stripe.subscriptions.retrieve(subscriptionId));
      return found === undefined ? undefined : asSubscription(found, null);
    },

    /**
     * Has the subscription consist of a plan's prices from now on, prorated as Stripe does it. Prices that are not ours stay.
     * The old items are named by their ids: when another change was faster, Stripe refuses this one.
     */
    async changePlan(subscriptionId: string, plan: PlanName, { idempotencyKey, timeoutMs }: Attempt): Promise<void> {
      const wanted = priceKeys(plan);
      const [subscription, prices] = await Promise.all([
        stripe.subscriptions.retrieve(subscriptionId, undefined, { timeout: timeoutMs }),
        stripe.prices.list({ lookup_keys: wanted, limit: wanted.length }, { timeout: timeoutMs }),
      ]);
      const ours = subscription.items.data.filter(({ price }) => productOf(price) === PRODUCT_ID);
      const priceIds = wanted.map((key) => {
        const price = prices.data.find((each) => each.lookup_key === key);
        if (price === undefined)
          throw new AppError("billing_unavailable", `Stripe has no price ${key}: run npm run stripe:setup`);
        return price.id;
      });
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

    /** Ends the subscription at once, with a last invoice for all usage. One that has ended already is left alone. */
    async end(subscriptionId: string, { idempotencyKey, timeoutMs }: Attempt): Promise<void> {
      const found = await this.get(subscriptionId);
      if (found === undefined || found.endedAtMs !== null) return;
      await stripe.subscriptions.cancel(
        subscriptionId,
        { invoice_now: true, prorate: true },
        { idempotencyKey, timeout: timeoutMs },
      );
    },

    async invoice(invoiceId: string): Promise<InvoiceFacts | undefined> {
      const invoice = await orMissing(stripe.invoices.retrieve(invoiceId));
      return invoice === undefined ? undefined : asInvoice(stripe, invoice);
    },

    /** A page of Stripe's where the customer sees its invoices, pays and cancels. Good for minutes, and for that customer. */
    async portal(customerId: string, returnUrl: string): Promise<string> {
      const configuration = await findPortal(stripe);
      if (configuration === undefined)
        throw new AppError("billing_unavailable", "Stripe has no portal configuration: run npm run stripe:setup");
      const session = await stripe.billingPortal.sessions.create({
        customer: customerId,
        configuration: configuration.id,
        return_url: returnUrl,
      });
      return session.url;
    },

    /** What a notification of Stripe's meter says. `undefined`: it is of another kind. */
    async meterErrors(eventId: string): Promise<MeterErrors | undefined> {
      const event = await stripe.v2.core.events.retrieve(eventId);
      if (event.type !== "v1.billing.meter.error_report_triggered" && event.type !== "v1.billing.meter.no_meter_found")
        return undefined;
      const { reason, validation_start: fromAt, validation_end: untilAt } = event.data;
      return {
        fromAt,
        untilAt,
        byCode: reason.error_types.map(({ code, error_count: errors, sample_errors: samples }) => ({
          code,
          errors,
          identifiers: samples.map(({ request }) => request.identifier),
        })),
      };
    },
  };
}

export type SubscriptionConnection = ReturnType<typeof connectSubscriptions>;

/** Stripe as this deployment reaches it. */
export function subscriptionsOf(env: { STRIPE_SECRET_KEY: string; STRIPE_API_BASE: string }): SubscriptionConnection {
  return connectSubscriptions(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE);
}

/** The portal's configuration that `npm run stripe:setup` made. */
export async function findPortal(stripe: Stripe): Promise<Stripe.BillingPortal.Configuration | undefined> {
  for await (const each of stripe.billingPortal.configurations.list({ active: true, limit: 100 })) {
    if (each.metadata?.["tollgate"] === PORTAL_MARK.tollgate) return each;
  }
  return undefined;
}

/** Whether Stripe has refused for good, so that asking the same again is of no use. */
export function isRefusedByStripe(error: unknown): boolean {
  if (!(error instanceof Stripe.errors.StripeError)) return false;
  const { statusCode } = error;
  return (
    statusCode !== undefined && statusCode >= 400 && statusCode < 500 && ![401, 403, 409, 429].includes(statusCode)
  );
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
    cancelAtMs: ms(from.cancel_at),
    endedAtMs: ms(from.ended_at),
    unpaidSinceMs,
  };
}

/** Since when the oldest open invoice waits to be paid. */
async function unpaidSince(stripe: Stripe, subscription: string): Promise<number | null> {
  let oldest: number | null = null;
  for await (const invoice of stripe.invoices.list({ subscription, status: "open", limit: 100 })) {
    const since = invoice.status_transitions.finalized_at ?? invoice.created;
    if (oldest === null || since < oldest) oldest = since;
  }
  return oldest === null ? null : oldest * 1000;
}

async function asInvoice(stripe: Stripe, from: Stripe.Invoice): Promise<InvoiceFacts> {
  const ends = from.billing_reason === "subscription_cycle" && from.period_end > from.period_start;
  const metered: { plan: PlanName | null; units: number }[] = [];
  // All lines: an invoice shows the first ten, and a graduated price has a line for each of its tiers.
  const lines = ends ? stripe.invoices.listLineItems(from.id, { limit: 100 }) : [];
  for await (const { parent, period, pricing, quantity } of lines) {
    const priceId = idOf(pricing?.price_details?.price ?? null);
    // Usage is billed for the period that has ended, everything else for the one that begins.
    if (priceId === null || parent?.type !== "subscription_item_details" || period.end > from.period_end) continue;
    const price = await stripe.prices.retrieve(priceId);
    if (price.recurring?.usage_type !== "metered") continue;
    metered.push({ plan: planOfKeys([price.lookup_key]), units: quantity ?? 0 });
  }
  return {
    id: from.id,
    customerId: idOf(from.customer),
    subscriptionId: idOf(from.parent?.subscription_details?.subscription ?? null),
    finalizedAtMs: from.status_transitions.finalized_at === null ? null : from.status_transitions.finalized_at * 1000,
    period: ends ? { startMs: from.period_start * 1000, endMs: from.period_end * 1000 } : null,
    metered:
      metered[0] === undefined
        ? null
        : { plan: metered[0].plan, units: metered.reduce((sum, { units }) => sum + units, 0) },
  };
}

function productOf({ product }: Stripe.Price): string {
  return typeof product === "string" ? product : product.id;
}

/** `undefined` for what Stripe does not have, or not any more. */
async function orMissing<Found>(asked: Promise<Found>): Promise<Found | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Stripe.errors.StripeError && error.statusCode === 404) return undefined;
    throw error;
  }
}
