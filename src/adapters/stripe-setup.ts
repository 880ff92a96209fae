// What Stripe must have before anything is sold: product, meter, prices, the customer portal's configuration, and where
// events are sent. Each is found again by a name of ours; a second run makes nothing, and repairs what has been changed
// where that would cost money.
import Stripe from "stripe";
import { plans } from "../core/plans.ts";
import { appliedEventTypes, thinEventTypes } from "../subscriptions/stripe-event.ts";
import { baseKey, priceKeys, unitsKey } from "../subscriptions/subscription.ts";
import { METER_EVENT, PRODUCT_ID, findMeter, stripeClient } from "./stripe.ts";
import { PORTAL_MARK, findPortal } from "./stripe-subscriptions.ts";

/**
 * What a customer may do in the portal. No change of plan: usage of before is confirmed first, which the portal cannot
 * wait for. Cancelling is for the end of the period, so that its usage is on its invoice.
 */
const portalFeatures = {
  customer_update: { enabled: true, allowed_updates: ["email", "name", "address", "tax_id"] },
  invoice_history: { enabled: true },
  payment_method_update: { enabled: true },
  subscription_cancel: { enabled: true, mode: "at_period_end" },
  subscription_update: { enabled: false },
} satisfies Stripe.BillingPortal.ConfigurationCreateParams.Features;

export interface Destination {
  path: string;
  id: string;
  /** Told once, when it is made; `undefined`: it was there. */
  signingSecret: string | undefined;
}

export function connectSetup(secretKey: string, apiBase: string) {
  const stripe = stripeClient(secretKey, apiBase);

  return {
    /** Product, meter, prices and portal. Returns what it had to make or to repair. */
    async setUp(): Promise<string[]> {
      return [...(await setUpCatalogue(stripe)), ...(await setUpPortal(stripe))];
    },

    /** Has events sent to a deployment: those with their object, and those of the meter, which only name what happened. */
    async setUpDestinations(publicUrl: string): Promise<Destination[]> {
      const known: Stripe.V2.Core.EventDestination[] = [];
      for await (const each of stripe.v2.core.eventDestinations.list({ include: ["webhook_endpoint.url"] }))
        known.push(each);
      const wanted = [
        { path: "/webhooks/stripe", payload: "snapshot" as const, events: [...appliedEventTypes] },
        { path: "/webhooks/stripe-thin", payload: "thin" as const, events: [...thinEventTypes] },
      ];
      const found: Destination[] = [];
      for (const { path, payload, events } of wanted) {
        const url = new URL(path, publicUrl).href;
        const there = known.find((each) => each.webhook_endpoint?.url === url && each.event_payload === payload);
        if (there !== undefined) {
          if (events.some((type) => !there.enabled_events.includes(type)))
            await stripe.v2.core.eventDestinations.update(there.id, { enabled_events: events });
          found.push({ path, id: there.id, signingSecret: undefined });
          continue;
        }
        const made = await stripe.v2.core.eventDestinations.create({
          name: `Tollgate ${payload}`,
          type: "webhook_endpoint",
          event_payload: payload,
          enabled_events: events,
          webhook_endpoint: { url },
          include: ["webhook_endpoint.signing_secret"],
        });
        found.push({ path, id: made.id, signingSecret: made.webhook_endpoint?.signing_secret });
      }
      return found;
    },
  };
}

async function setUpCatalogue(stripe: Stripe): Promise<string[]> {
  const made: string[] = [];
  const meter = await findMeter(stripe);
  const meterId =
    meter?.id ??
    (
      await stripe.billing.meters.create({
        display_name: "MCP units",
        event_name: METER_EVENT,
        default_aggregation: { formula: "sum" },
        customer_mapping: { type: "by_id", event_payload_key: "stripe_customer_id" },
        value_settings: { event_payload_key: "value" },
      })
    ).id;
  if (meter === undefined) made.push(METER_EVENT);

  const wanted = Object.values(plans).filter((plan) => plan.amountCents !== null);
  const lookupKeys = wanted.flatMap(({ name }) => priceKeys(name));
  const known = new Set(
    (await stripe.prices.list({ lookup_keys: lookupKeys, limit: 100 })).data.map((price) => price.lookup_key),
  );
  if (lookupKeys.every((key) => known.has(key))) return made;

  const product = await findOrCreateProduct(stripe);
  for (const plan of wanted) {
    if (!known.has(baseKey(plan.name))) {
      await stripe.prices.create({
        product,
        currency: "usd",
        unit_amount: plan.amountCents ?? 0,
        recurring: { interval: "month" },
        lookup_key: baseKey(plan.name),
        nickname: `${plan.name}, base`,
      });
      made.push(baseKey(plan.name));
    }
    if (plan.unitAmountCents !== null && !known.has(unitsKey(plan.name))) {
      // Every unit is reported; the included ones are a first tier that costs nothing, so that the ledger and Stripe
      // stay equal.
      await stripe.prices.create({
        product,
        currency: "usd",
        billing_scheme: "tiered",
        tiers_mode: "graduated",
        tiers: [
          { up_to: plan.includedUnits ?? 0, unit_amount: 0 },
          { up_to: "inf", unit_amount_decimal: Stripe.Decimal.from(plan.unitAmountCents) },
        ],
        recurring: { interval: "month", usage_type: "metered", meter: meterId },
        lookup_key: unitsKey(plan.name),
        nickname: `${plan.name}, units`,
      });
      made.push(unitsKey(plan.name));
    }
  }
  return made;
}

async function setUpPortal(stripe: Stripe): Promise<string[]> {
  const found = await findPortal(stripe);
  if (found === undefined) {
    await stripe.billingPortal.configurations.create({ features: portalFeatures, metadata: PORTAL_MARK });
    return ["portal"];
  }
  const { features } = found;
  const isRight =
    features.invoice_history.enabled &&
    features.payment_method_update.enabled &&
    features.subscription_cancel.enabled &&
    features.subscription_cancel.mode === "at_period_end" &&
    !features.subscription_update.enabled;
  if (isRight) return [];
  await stripe.billingPortal.configurations.update(found.id, { features: portalFeatures });
  return ["portal, repaired"];
}

/** The product's id is chosen by us, so that it is found again without a search. */
async function findOrCreateProduct(stripe: Stripe): Promise<string> {
  const id = PRODUCT_ID;
  try {
    return (await stripe.products.retrieve(id)).id;
  } catch (error) {
    if (!(error instanceof Stripe.errors.StripeError) || error.statusCode !== 404) throw error;
    return (await stripe.products.create({ id, name: "MCP tools" })).id;
  }
}
