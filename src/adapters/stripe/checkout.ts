// Customers at Stripe, the Checkout page that sells a subscription, and the portal in which a customer manages it.
import type Stripe from "stripe";
import { AppError, OutsideFailure } from "../../core/errors.ts";
import type { PlanName } from "../../core/plans/plans.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS } from "../../core/time.ts";
import { failureOf, idOf, orMissing, pricesOf } from "./client.ts";

/** Stripe allows a session one day. A minute less allows for clocks that differ. */
const CHECKOUT_CLOCKS_SECONDS = 60;

/** Metadata that marks the portal's configuration, so that it is found again. */
export const PORTAL_MARK = { tollgate: "portal" } as const;

export interface PaidCheckout {
  /** The tenant that the session was made for. Tollgate sets it. A buyer can change `client_reference_id`, but not this. */
  tenantId: string | undefined;
  customerId: string;
  subscriptionId: string | null;
  email: string | null;
}

export function connectCheckout(stripe: Stripe) {
  return {
    /**
     * Opens a Checkout session for a tenant. `url` is the payment page. The first full period begins at `anchorMs`; the session
     * ends before it. `trialDays`: 0, or at least 2, as Stripe requires. Stripe collects a way to pay before a trial begins.
     */
    async create(order: {
      tenantId: TenantId;
      /** A repeated request with the same key opens no second session. */
      idempotencyKey: string;
      plan: PlanName;
      /** The buyer. A customer that exists has an e-mail address of its own. */
      buyer: { email: string | null } | { customerId: string };
      successUrl: string;
      cancelUrl: string;
      trialDays: number;
      anchorMs: number;
      nowMs: number;
    }): Promise<{ id: string; url: string }> {
      const prices = await pricesOf(stripe, order.plan);
      const anchor = Math.floor(order.anchorMs / 1000);
      const session = await stripe.checkout.sessions.create(
        {
          mode: "subscription",
          // A metered line takes no quantity.
          line_items: prices.map(({ id, recurring }) =>
            recurring?.usage_type === "metered" ? { price: id } : { price: id, quantity: 1 },
          ),
          client_reference_id: order.tenantId,
          metadata: { tenant_id: order.tenantId },
          subscription_data: {
            metadata: { tenant_id: order.tenantId, plan: order.plan },
            billing_mode: { type: "flexible" },
            // The end of a trial anchors the periods after it.
            ...(order.trialDays > 0 ? { trial_end: anchor } : { billing_cycle_anchor: anchor }),
          },
          payment_method_collection: order.trialDays > 0 ? "always" : "if_required",
          expires_at: Math.floor(Math.min(order.anchorMs, order.nowMs + DAY_MS) / 1000) - CHECKOUT_CLOCKS_SECONDS,
          success_url: order.successUrl,
          cancel_url: order.cancelUrl,
          ...buyerOf(order.buyer),
        },
        { idempotencyKey: order.idempotencyKey },
      );
      if (session.url === null)
        throw new AppError("billing_unavailable", "Stripe returned a Checkout session without a page");
      return { id: session.id, url: session.url };
    },

    /** Ends the open sessions of a customer, so that a page in another tab sells no second subscription. */
    async expireOpen(customerId: string): Promise<void> {
      for await (const { id } of stripe.checkout.sessions.list({ customer: customerId, status: "open", limit: 100 })) {
        try {
          await stripe.checkout.sessions.expire(id);
        } catch (error) {
          // It was paid or has expired meanwhile.
          if (failureOf(error).status !== 400) throw error;
        }
      }
    },

    /** The purchase of a Checkout session as Stripe has it now. `undefined` while it is not paid. */
    async paid(sessionId: string): Promise<PaidCheckout | undefined> {
      const session = await stripe.checkout.sessions.retrieve(sessionId);
      const customerId = idOf(session.customer);
      if (session.status !== "complete" || session.payment_status === "unpaid" || customerId === null) return undefined;
      return {
        tenantId: session.metadata?.["tenant_id"],
        customerId,
        subscriptionId: idOf(session.subscription),
        email: session.customer_details?.email ?? session.customer_email,
      };
    },
  };
}

function buyerOf(
  buyer: { email: string | null } | { customerId: string },
): { customer: string } | { customer_email?: string } {
  if ("customerId" in buyer) return { customer: buyer.customerId };
  return buyer.email === null ? {} : { customer_email: buyer.email };
}

export function connectCustomers(stripe: Stripe) {
  return {
    /**
     * Creates the customer of a tenant that was not sold through Checkout. A repeat within an attempt finds the same
     * customer. Each attempt has its own key, because Stripe would replay a stored 500 for a day.
     */
    async create(
      tenant: { id: string; name: string; email: string | null },
      attempt: number | string,
    ): Promise<string> {
      const { id, name, email } = tenant;
      const customer = await stripe.customers.create(
        { name, metadata: { tenant_id: id }, ...(email === null ? {} : { email }) },
        { idempotencyKey: `customer.${id}.${attempt}` },
      );
      return customer.id;
    },

    /** Changes the name or the e-mail that invoices show and go to. `null` removes the e-mail. */
    async change(customerId: string, change: { name?: string; email?: string | null }): Promise<void> {
      const { email, ...rest } = change;
      await stripe.customers.update(customerId, { ...rest, ...(email !== undefined && { email: email ?? "" }) });
    },

    /** Whether Stripe has deleted the customer. Its subscriptions have ended, and it cannot be charged any more. */
    async isDeleted(customerId: string): Promise<boolean> {
      const found = await orMissing(stripe.customers.retrieve(customerId));
      return found === undefined || found.deleted === true;
    },

    /** A page of Stripe where the customer sees invoices, pays and cancels. Valid for minutes and for this customer only. */
    async portal(customerId: string, returnUrl: string): Promise<string> {
      const configuration = await findPortal(stripe);
      if (configuration === undefined)
        throw new OutsideFailure(
          "billing_refused",
          "Stripe has no portal configuration: run npm run stripe:setup",
          "temporary",
        );
      const session = await stripe.billingPortal.sessions.create({
        customer: customerId,
        configuration: configuration.id,
        return_url: returnUrl,
      });
      return session.url;
    },
  };
}

/** The portal's configuration that `npm run stripe:setup` made. */
export async function findPortal(stripe: Stripe): Promise<Stripe.BillingPortal.Configuration | undefined> {
  for await (const each of stripe.billingPortal.configurations.list({ active: true, limit: 100 })) {
    if (each.metadata?.["tollgate"] === PORTAL_MARK.tollgate) return each;
  }
  return undefined;
}
