// Prepares a Stripe account before anything is sold: product, meter, prices, the customer portal's configuration, and the
// destinations of events. Each object has a name that Tollgate chose, so a second run finds it and creates nothing. The
// second run also repairs portal features whose change could cost money.
import Stripe from "stripe";
import { baseKey, plans, priceKeys, unitsKey } from "../../core/plans/plans.ts";
import { PORTAL_MARK, findPortal } from "./checkout.ts";
import { PRODUCT_ID, orMissing, stripeClient } from "./client.ts";
import { METER_EVENT, findMeter } from "./meter.ts";
import { appliedEventTypes, thinEventTypes } from "./stripe.ts";

/**
 * Portal features that a customer may use. Plans cannot be changed there: a plan change first waits until Stripe has
 * confirmed all earlier usage. A cancellation takes effect at the end of the period, so that its usage is on its invoice.
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
  /** Stripe shows it only at creation. `undefined`: the destination existed already. */
  signingSecret: string | undefined;
}

export function connectSetup(secretKey: string, apiBase: string) {
  const stripe = stripeClient(secretKey, apiBase);

  return {
    /**
     * Creates product, meter, prices and portal. `productName` is shown on Checkout pages and invoices. Returns the names of
     * the objects that were created or repaired.
     */
    async setUp(productName: string): Promise<string[]> {
      return [...(await setUpCatalogue(stripe, productName)), ...(await setUpPortal(stripe))];
    },

    /** Creates the destinations that send events to a deployment: one for snapshot events, one for the meter's thin events. */
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

async function setUpCatalogue(stripe: Stripe, productName: string): Promise<string[]> {
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

  const wanted = [...plans.values()].filter((plan) => plan.amountCents !== null);
  const lookupKeys = wanted.flatMap(({ name }) => priceKeys(name));
  const known = new Set(
    (await stripe.prices.list({ lookup_keys: lookupKeys, limit: 100 })).data.map((price) => price.lookup_key),
  );
  if (lookupKeys.every((key) => known.has(key))) return made;

  const product = await findOrCreateProduct(stripe, productName);
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
      // Every unit is reported. Included units are a first price tier that costs nothing, so that the ledger and Stripe count the same units.
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

async function findOrCreateProduct(stripe: Stripe, name: string): Promise<string> {
  const found = await orMissing(stripe.products.retrieve(PRODUCT_ID));
  return (found ?? (await stripe.products.create({ id: PRODUCT_ID, name }))).id;
}
