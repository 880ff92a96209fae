// The only place that speaks to Stripe. Billing Meters, the SDK's pinned API version, and bodies that can be repeated:
// what creates something is found by a lookup key or carries an idempotency key that follows from what is created.
import Stripe from "stripe";
import { attemptKey, classifyMeterFailure, type MeterAnswer } from "../reports/report.ts";
import { AppError } from "../core/errors.ts";
import { type PlanName, plans } from "../core/plans.ts";
import type { SummaryRequest } from "../reports/reconciliation.ts";
import { appliedEventTypes } from "../subscriptions/stripe-event.ts";
import { cycleAnchorMs, priceKeys, unitsKey } from "../subscriptions/subscription.ts";
import type { TenantId } from "../core/tenant.ts";

/** The meter's event name: one unit of any tool is one unit here. */
export const METER_EVENT = "mcp_units";

/** Everything that is sold is a price of this product. */
export const PRODUCT_ID = "tollgate_mcp";

/** Stripe answers in well under a second; a webhook's caller and a cron both have more to do than wait. */
const STRIPE_TIMEOUT_MS = 10_000;

/** Stripe keeps a session open for a day at most; its clock and ours may differ by a minute. */
const CHECKOUT_DAY_MS = 86_400_000;
const CHECKOUT_CLOCKS_SECONDS = 60;

export interface PaidCheckout {
  /** The tenant that the session was made for. Set by us and by nobody who pays, unlike `client_reference_id`. */
  tenantId: string | undefined;
  customerId: string;
  subscriptionId: string | null;
  email: string | null;
}

/** Usage as an invoice has it: all the lines of one price and period, which are one a tier. */
export interface InvoicedUsage {
  invoiceId: string;
  status: string;
  /** Whose price it was; `undefined`: of none that is sold now. */
  plan: PlanName | undefined;
  startSeconds: number;
  /** The first second that is not in it. */
  endSeconds: number;
  units: number;
  amountCents: number;
}

/** again: not known or not now · refused: Stripe will not answer otherwise by itself. */
export interface NoAnswer {
  kind: "again" | "refused";
  message: string;
}
export type UnitsRead = { kind: "read"; units: ReadonlyMap<number, number> } | NoAnswer;
export type ItemAnswer = { kind: "item"; id: string } | NoAnswer;

export interface LateItem {
  /** The carry-forward's. */
  id: string;
  tenantId: TenantId;
  customerId: string;
  units: number;
  /** A decimal string of at most 12 places. */
  unitAmountCents: string;
  /** The billing period of the usage. */
  startSeconds: number;
  endSeconds: number;
}

/** The SDK, as all that speaks to Stripe uses it. */
export function stripeClient(secretKey: string, apiBase: string): Stripe {
  const base = apiBase === "" ? undefined : new URL(apiBase);
  return new Stripe(secretKey, {
    timeout: STRIPE_TIMEOUT_MS,
    // Each caller here has its own way to try again, with a key that says it is the same attempt or another one.
    maxNetworkRetries: 0,
    ...(base === undefined
      ? {}
      : {
          host: base.hostname,
          port: Number(base.port || 443),
          protocol: base.protocol === "http:" ? ("http" as const) : ("https" as const),
        }),
  });
}

export function connectStripe(secretKey: string, apiBase: string) {
  const stripe = stripeClient(secretKey, apiBase);

  /** Of the meter that units are read from; it never changes. */
  let meterId: string | undefined;

  return {
    /**
     * A Checkout session for a tenant that does not exist yet. `url` is where the buyer pays, before the first full period
     * begins. `trialDays`: 0, or two and more, as Stripe wants it; a trial begins with a way to pay.
     */
    async createCheckout(order: {
      tenantId: TenantId;
      plan: PlanName;
      email: string | null;
      successUrl: string;
      cancelUrl: string;
      trialDays: number;
      nowMs: number;
    }): Promise<{ id: string; url: string }> {
      const plan = plans[order.plan];
      const keys = priceKeys(plan.name);
      const prices = await stripe.prices.list({ lookup_keys: keys, limit: keys.length });
      const lineItems = keys.map((key) => {
        const price = prices.data.find((each) => each.lookup_key === key);
        if (price === undefined)
          throw new AppError("billing_unavailable", `Stripe has no price ${key}: run npm run stripe:setup`);
        // A metered line takes no quantity.
        return price.recurring?.usage_type === "metered" ? { price: price.id } : { price: price.id, quantity: 1 };
      });
      const anchorMs = cycleAnchorMs(order.nowMs, order.trialDays);
      const anchor = Math.floor(anchorMs / 1000);
      const session = await stripe.checkout.sessions.create(
        {
          mode: "subscription",
          line_items: lineItems,
          client_reference_id: order.tenantId,
          metadata: { tenant_id: order.tenantId },
          subscription_data: {
            metadata: { tenant_id: order.tenantId, plan: plan.name },
            billing_mode: { type: "flexible" },
            // A trial's end is the anchor of what follows.
            ...(order.trialDays > 0 ? { trial_end: anchor } : { billing_cycle_anchor: anchor }),
          },
          payment_method_collection: order.trialDays > 0 ? "always" : "if_required",
          expires_at: Math.floor(Math.min(anchorMs, order.nowMs + CHECKOUT_DAY_MS) / 1000) - CHECKOUT_CLOCKS_SECONDS,
          success_url: order.successUrl,
          cancel_url: order.cancelUrl,
          ...(order.email === null ? {} : { customer_email: order.email }),
        },
        { idempotencyKey: `checkout.${order.tenantId}` },
      );
      if (session.url === null)
        throw new AppError("billing_unavailable", "Stripe gave a Checkout session without a page");
      return { id: session.id, url: session.url };
    },

    /** What was bought in a Checkout session, as Stripe has it now, or `undefined` while it is not paid. */
    async paidCheckout(sessionId: string): Promise<PaidCheckout | undefined> {
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

    /**
     * The customer of a tenant that was not sold through Checkout. Repeating within an attempt finds the same one; the
     * next attempt has a key of its own, because Stripe would replay a stored 500 for a day.
     */
    async createCustomer(tenant: { id: string; name: string; email: string | null }, attempt: number): Promise<string> {
      const { id, name, email } = tenant;
      const customer = await stripe.customers.create(
        { name, metadata: { tenant_id: id }, ...(email === null ? {} : { email }) },
        { idempotencyKey: `customer.${id}.${attempt}` },
      );
      return customer.id;
    },

    /** Reports units. Never throws: what an answer, or none, means is decided in the core. */
    async sendUnits(report: {
      id: string;
      customerId: string;
      slotSeconds: number;
      units: number;
      attempt: number;
    }): Promise<MeterAnswer & { message?: string }> {
      try {
        await stripe.billing.meterEvents.create(
          {
            event_name: METER_EVENT,
            identifier: report.id,
            timestamp: report.slotSeconds,
            payload: { stripe_customer_id: report.customerId, value: String(report.units) },
          },
          { idempotencyKey: attemptKey(report.id, report.attempt) },
        );
        return { kind: "confirmed", answer: "accepted" };
      } catch (error) {
        const { status, message, code } = failureOf(error);
        return { ...classifyMeterFailure(status, message, code), message };
      }
    },

    /**
     * What Stripe has counted of a customer's units, by the start of each range in epoch seconds; a range without any is
     * absent. Of whole minutes, hours or UTC days, at most 100 of them. Never throws.
     */
    async readUnits(customerId: string, request: SummaryRequest): Promise<UnitsRead> {
      const { startSeconds, endSeconds, by } = request;
      try {
        meterId ??= (await findMeter(stripe))?.id;
        if (meterId === undefined) return { kind: "refused", message: "there is no meter: run npm run stripe:setup" };
        const { data } = await stripe.billing.meters.listEventSummaries(meterId, {
          customer: customerId,
          start_time: startSeconds,
          end_time: endSeconds,
          limit: 100,
          ...(by === "whole" ? {} : { value_grouping_window: by }),
        });
        return { kind: "read", units: new Map(data.map((each) => [each.start_time, each.aggregated_value])) };
      } catch (error) {
        return readFailure(error);
      }
    },

    /** Bills late usage: an item that the customer's next invoice takes up. The same key makes one item. Never throws. */
    async createLateItem(item: LateItem, idempotencyKey: string): Promise<ItemAnswer> {
      try {
        const { id } = await stripe.invoiceItems.create(
          {
            customer: item.customerId,
            currency: "usd",
            quantity: item.units,
            unit_amount_decimal: Stripe.Decimal.from(item.unitAmountCents),
            period: { start: item.startSeconds, end: item.endSeconds },
            description: `MCP units used by ${new Date((item.endSeconds - 1) * 1000).toISOString().slice(0, 10)} and counted late`,
            metadata: { carry_forward: item.id, tenant_id: item.tenantId },
          },
          { idempotencyKey },
        );
        return { kind: "item", id };
      } catch (error) {
        return readFailure(error);
      }
    },

    /** The item that bears a carry-forward's id, on an invoice or not. `undefined`: Stripe has none. Never throws. */
    async findLateItem(item: LateItem, createdAfterSeconds: number): Promise<ItemAnswer | undefined> {
      const created = { gte: createdAfterSeconds };
      try {
        for await (const each of stripe.invoiceItems.list({ customer: item.customerId, created, limit: 100 })) {
          if (each.metadata?.["carry_forward"] === item.id) return { kind: "item", id: each.id };
        }
        return undefined;
      } catch (error) {
        return readFailure(error);
      }
    },

    /** Events since `createdAfterSeconds` that Stripe could not deliver and that change something here, newest first. */
    undeliveredEvents(createdAfterSeconds: number): AsyncIterable<Stripe.Event> {
      return stripe.events.list({
        delivery_success: false,
        types: [...appliedEventTypes],
        created: { gte: createdAfterSeconds },
        limit: 100,
      });
    },

    /** The same for a notification of Stripe's second kind. */
    async verifyNotification(
      rawBody: string,
      signature: string | undefined,
      secret: string,
    ): Promise<{ id: string; type: string }> {
      if (signature === undefined) throw new AppError("signature_invalid", "The Stripe-Signature header is missing");
      try {
        const { id, type } = await stripe.parseEventNotificationAsync(rawBody, signature, secret);
        return { id, type };
      } catch (error) {
        throw new AppError("signature_invalid", "The signature does not verify", { cause: error });
      }
    },

    /** Checks Stripe's signature over the raw body, at most five minutes old. Throws `signature_invalid`. */
    async verifyWebhook(rawBody: string, signature: string | undefined, secret: string): Promise<Stripe.Event> {
      if (signature === undefined) throw new AppError("signature_invalid", "The Stripe-Signature header is missing");
      try {
        return await stripe.webhooks.constructEventAsync(rawBody, signature, secret);
      } catch (error) {
        throw new AppError("signature_invalid", "The signature does not verify", { cause: error });
      }
    },

    /** What a customer's invoices since `createdAfterSeconds` say of usage; drafts, which may change, are left out. */
    async invoicedUsage(customerId: string, createdAfterSeconds: number): Promise<InvoicedUsage[]> {
      const prices = new Map<string, Stripe.Price>();
      const found = new Map<string, InvoicedUsage>();
      const created = { gte: createdAfterSeconds };
      for await (const { id: invoiceId, status } of stripe.invoices.list({
        customer: customerId,
        created,
        limit: 100,
      })) {
        if (status === null || status === "draft" || status === "void") continue;
        for await (const { pricing, parent, period, quantity, amount } of stripe.invoices.listLineItems(invoiceId, {
          limit: 100,
        })) {
          const priceId = idOf(pricing?.price_details?.price ?? null);
          if (priceId === null || parent?.type !== "subscription_item_details") continue;
          const price = prices.get(priceId) ?? (await stripe.prices.retrieve(priceId));
          prices.set(priceId, price);
          if (price.recurring?.usage_type !== "metered") continue;
          const plan = Object.values(plans).find(({ name }) => unitsKey(name) === price.lookup_key)?.name;
          const { start: startSeconds, end: endSeconds } = period;
          const key = `${invoiceId} ${priceId} ${startSeconds} ${endSeconds}`;
          const { units, amountCents } = found.get(key) ?? { units: 0, amountCents: 0 };
          found.set(key, {
            ...{ invoiceId, status, plan, startSeconds, endSeconds },
            units: units + (quantity ?? 0),
            amountCents: amountCents + amount,
          });
        }
      }
      return [...found.values()];
    },
  };
}

export type StripeConnection = ReturnType<typeof connectStripe>;

function failureOf(error: unknown): { status: number | undefined; message: string; code: string | undefined } {
  const known = error instanceof Stripe.errors.StripeError ? error : undefined;
  const message = error instanceof Error ? error.message : String(error);
  return { status: known?.statusCode, message, code: known?.code };
}

function readFailure(error: unknown): NoAnswer {
  const { status, message } = failureOf(error);
  return { kind: classifyMeterFailure(status, message).kind === "again" ? "again" : "refused", message };
}

export function idOf(reference: string | { id: string } | null): string | null {
  return typeof reference === "string" ? reference : (reference?.id ?? null);
}

export async function findMeter(stripe: Stripe): Promise<Stripe.Billing.Meter | undefined> {
  for await (const meter of stripe.billing.meters.list({ status: "active", limit: 100 })) {
    if (meter.event_name === METER_EVENT) return meter;
  }
  return undefined;
}
