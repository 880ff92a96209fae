// The connection to Stripe, and the events that Stripe sends. Each subject has a file of its own beside this one. Only the
// command line uses `setup.ts`, so the Worker's bundle does not contain it.
import type Stripe from "stripe";
import { AppError } from "../../core/errors.ts";
import { connectCheckout, connectCustomers } from "./checkout.ts";
import { raising, stripeClient } from "./client.ts";
import { connectInvoices } from "./invoices.ts";
import { connectMeter } from "./meter.ts";
import { connectSubscriptions } from "./subscriptions.ts";

/** Snapshot events, which contain an object, that change something here. The webhook endpoint needs no others. */
export const appliedEventTypes = [
  "checkout.session.completed",
  "checkout.session.async_payment_succeeded",
  "customer.deleted",
  "customer.subscription.created",
  "customer.subscription.updated",
  "customer.subscription.deleted",
  "invoice.created",
  "invoice.finalized",
  "invoice.paid",
  "invoice.payment_failed",
] as const;

/** Thin events, which contain no object. Tollgate fetches their content. */
export const thinEventTypes = ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"] as const;

/** `apiBase`: empty for Stripe itself, otherwise the URL of a stand-in. */
export function connectStripe(secretKey: string, apiBase: string) {
  const stripe = stripeClient(secretKey, apiBase);
  return {
    /** Whether the key is of the live mode. `undefined`: the key does not say. */
    isLive: modeOf(secretKey),
    meter: raising(connectMeter(stripe)),
    customers: raising(connectCustomers(stripe)),
    checkout: raising(connectCheckout(stripe)),
    subscriptions: raising(connectSubscriptions(stripe)),
    invoices: raising(connectInvoices(stripe)),
    events: raising(connectEvents(stripe)),
  };
}

export type StripeConnection = ReturnType<typeof connectStripe>;

function connectEvents(stripe: Stripe) {
  return {
    /** Applied events since `createdAfterSeconds` that Stripe could not deliver, newest first. */
    undelivered(createdAfterSeconds: number): AsyncIterable<Stripe.Event> {
      return stripe.events.list({
        delivery_success: false,
        types: [...appliedEventTypes],
        created: { gte: createdAfterSeconds },
        limit: 100,
      });
    },

    /** Checks Stripe's signature over the raw body, at most five minutes old. Throws `signature_invalid`. */
    verify(rawBody: string, signature: string | undefined, secret: string): Promise<Stripe.Event> {
      return verified(signature, (given) => stripe.webhooks.constructEventAsync(rawBody, given, secret));
    },

    /** The same for a thin event. */
    verifyThin(rawBody: string, signature: string | undefined, secret: string): Promise<unknown> {
      return verified(signature, (given) => stripe.parseEventNotificationAsync(rawBody, given, secret));
    },
  };
}

/** Stripe's secret and restricted keys name their mode. */
function modeOf(secretKey: string): boolean | undefined {
  const mode = /^[a-z]+_(live|test)_/.exec(secretKey)?.[1];
  return mode === undefined ? undefined : mode === "live";
}

async function verified<Event>(
  signature: string | undefined,
  parse: (signature: string) => Promise<Event>,
): Promise<Event> {
  if (signature === undefined) throw new AppError("signature_invalid", "The Stripe-Signature header is missing");
  try {
    return await parse(signature);
  } catch (error) {
    throw new AppError("signature_invalid", "The signature does not verify", { cause: error });
  }
}
