// What Stripe is asked when a tenant leaves and when it comes back: to end its subscriptions with an invoice for the last
// usage, and to begin a new one. Each function may be repeated: Stripe's current objects decide what is left to do.
import Stripe from "stripe";
import { AppError } from "../core/errors.ts";
import type { PlanName } from "../core/plans.ts";
import { priceKeys } from "../subscriptions/subscription.ts";
import type { TenantId } from "../core/tenant.ts";
import { stripeClient } from "./stripe.ts";

/** A customer of Stripe's, and the tenant that it pays for. */
export interface Payer {
  tenantId: TenantId;
  customerId: string | null;
  subscriptionId: string | null;
}

export function stripeLeaving({
  STRIPE_SECRET_KEY,
  STRIPE_API_BASE,
}: Pick<Env, "STRIPE_SECRET_KEY" | "STRIPE_API_BASE">) {
  const stripe = stripeClient(STRIPE_SECRET_KEY, STRIPE_API_BASE);

  return {
    /** Whether a subscription goes on, or will once a payment went through. */
    async goesOn(subscriptionId: string): Promise<boolean> {
      return goesOn(await stripe.subscriptions.retrieve(subscriptionId));
    },

    /**
     * Ends every subscription of a tenant: the one that is named, and others of its customer that carry the tenant's id,
     * which nobody may have kept. With each goes an invoice for what was not invoiced yet, the last usage included. Those
     * that have ended are fine.
     */
    async end({ tenantId, customerId, subscriptionId }: Payer): Promise<void> {
      const open = new Set<string>();
      if (customerId !== null) {
        for await (const each of stripe.subscriptions.list({ customer: customerId, status: "all", limit: 100 }))
          if (each.metadata["tenant_id"] === tenantId && goesOn(each)) open.add(each.id);
      }
      if (subscriptionId !== null && goesOn(await stripe.subscriptions.retrieve(subscriptionId)))
        open.add(subscriptionId);
      for (const id of open) {
        try {
          // Without `invoice_now` the last usage would never be billed.
          await stripe.subscriptions.cancel(id, { invoice_now: true });
        } catch (error) {
          // It has ended meanwhile, or an attempt of before has ended it and its answer was lost.
          if (goesOn(await stripe.subscriptions.retrieve(id))) throw error;
        }
      }
    },

    /**
     * A new subscription of a customer who comes back, on the plan it had. `returnId` names the return: a subscription
     * that an earlier attempt has made is found by it. `undefined`: Stripe cannot charge the customer.
     */
    async beginAgain(back: {
      tenantId: TenantId;
      customerId: string;
      plan: PlanName;
      returnId: number;
      attempt: number;
      anchorSeconds: number;
    }): Promise<string | undefined> {
      const { customerId: customer, plan, returnId } = back;
      for await (const each of stripe.subscriptions.list({ customer, status: "all", limit: 100 }))
        if (each.metadata["return"] === String(returnId) && goesOn(each)) return each.id;
      try {
        const { id } = await stripe.subscriptions.create(
          {
            customer,
            items: await pricesOf(stripe, plan),
            billing_cycle_anchor: back.anchorSeconds,
            billing_mode: { type: "flexible" },
            // Otherwise one that nobody has paid would stay behind.
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

async function pricesOf(stripe: Stripe, plan: PlanName): Promise<{ price: string }[]> {
  const keys = priceKeys(plan);
  const { data } = await stripe.prices.list({ lookup_keys: keys, limit: keys.length });
  return keys.map((key) => {
    const price = data.find((each) => each.lookup_key === key);
    if (price === undefined)
      throw new AppError("billing_unavailable", `Stripe has no price ${key}: run npm run stripe:setup`);
    return { price: price.id };
  });
}

function goesOn({ status }: Stripe.Subscription): boolean {
  return status !== "canceled" && status !== "incomplete_expired";
}

/** The charge was refused (402), or there is nothing to charge (400). */
function cannotBeCharged(error: unknown): boolean {
  if (!(error instanceof Stripe.errors.StripeError)) return false;
  const { statusCode, message } = error;
  return statusCode === 402 || (statusCode === 400 && message.includes("no attached payment source"));
}
