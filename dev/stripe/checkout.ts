// Checkout sessions in subscription mode. Payment mode exists as far as Stripe's CLI uses it, without payment intents.
// A session is open until it is paid on its page, expires by age, or is expired through the API. Paying is idempotent: a
// second payment returns the result of the first.
import * as z from "zod";
import type { Stripe } from "stripe";
import { createCustomer } from "./customers.ts";
import { type Context, nowSeconds } from "./context.ts";
import { type ApiError, badRequest, declined } from "./errors.ts";
import { created, integer, mergeMetadata, metadata, natural, page, text } from "./form.ts";
import { chargesFor, share } from "./money.ts";
import type { LineItem, Price, Session, SubscriptionData } from "./objects.ts";
import { canPay } from "./payments.ts";
import { newId, where, whereRange } from "./store.ts";
import { checkLine, fullPeriodBefore, type Line } from "./subscription-items.ts";
import { checkData, startSubscription, subscriptionData, trialEndOf } from "./subscriptions.ts";

const MINUTE_S = 60;
const DAY_S = 86_400;

export const sessionCreate = z.strictObject({
  cancel_url: text.optional(),
  client_reference_id: text.max(200).optional(),
  customer: text.optional(),
  customer_email: text.optional(),
  expires_at: integer.optional(),
  line_items: z
    .array(z.strictObject({ price: text, quantity: natural.optional() }))
    .min(1)
    .max(20),
  metadata: metadata.optional(),
  mode: z.enum(["payment", "subscription"]),
  /** Accepted and ignored in payment mode. */
  payment_intent_data: z.record(z.string(), z.unknown()).optional(),
  payment_method_collection: z.enum(["always", "if_required"]).default("always"),
  subscription_data: z.strictObject(subscriptionData).default({}),
  success_url: text,
});
export const sessionList = z.strictObject({
  ...page,
  created: created.optional(),
  customer: text.optional(),
  status: z.enum(["open", "complete", "expired"]).optional(),
  subscription: text.optional(),
});

export function createSession(context: Context, params: z.output<typeof sessionCreate>): Session {
  const now = nowSeconds(context);
  if (params.customer !== undefined) {
    if (params.customer_email !== undefined) {
      throw badRequest("You may only specify one of these parameters: customer, customer_email.", {
        param: "customer",
      });
    }
    context.store.get("customer", params.customer, "customer");
  }
  const expiresAt = params.expires_at ?? now + DAY_S;
  if (expiresAt < now + 30 * MINUTE_S || expiresAt > now + DAY_S) {
    const message =
      "The `expires_at` timestamp must be between 30 minutes and 24 hours after Checkout Session creation.";
    throw badRequest(message, { param: "expires_at" });
  }
  const lines = params.line_items.map((line, index) => {
    const checked =
      params.mode === "payment"
        ? { price: oneTimePrice(context, line.price, `line_items[${index}]`), quantity: line.quantity }
        : checkLine(context, line.price, line.quantity, `line_items[${index}]`);
    if (checked.quantity === undefined && checked.price.recurring?.usage_type !== "metered") {
      const param = `line_items[${index}][quantity]`;
      throw badRequest("Quantity is required for licensed prices.", { code: "parameter_missing", param });
    }
    return checked;
  });
  checkData(context, params.subscription_data, lines, "subscription_data");
  const id = newId("cs_test_");
  const data = params.subscription_data;
  const items = lines.map((line) => lineItem(context, line, data));
  const total = items.reduce((sum, item) => sum + item.amount_total, 0);
  const session: Session = {
    id,
    object: "checkout.session",
    adaptive_pricing: null,
    after_expiration: null,
    allow_promotion_codes: null,
    allowed_payment_method_types: null,
    amount_subtotal: total,
    amount_total: total,
    automatic_tax: { enabled: false, liability: null, provider: null, status: null },
    billing_address_collection: null,
    cancel_url: params.cancel_url ?? null,
    client_reference_id: params.client_reference_id ?? null,
    client_secret: null,
    collected_information: null,
    consent: null,
    consent_collection: null,
    created: now,
    currency: items[0]?.currency ?? null,
    currency_conversion: null,
    custom_fields: [],
    custom_text: { after_submit: null, shipping_address: null, submit: null, terms_of_service_acceptance: null },
    customer: params.customer ?? null,
    customer_account: null,
    customer_creation: params.customer === undefined ? "always" : null,
    customer_details: params.customer_email === undefined ? null : customerDetails(params.customer_email),
    customer_email: params.customer_email ?? null,
    discounts: [],
    expires_at: expiresAt,
    integration_identifier: null,
    invoice: null,
    invoice_creation: null,
    line_items: { object: "list", data: items, has_more: false, url: `/v1/checkout/sessions/${id}/line_items` },
    livemode: false,
    locale: null,
    managed_payments: null,
    metadata: mergeMetadata(null, params.metadata),
    mode: params.mode,
    origin_context: null,
    payment_intent: null,
    payment_link: null,
    payment_method_collection: params.payment_method_collection,
    payment_method_configuration_details: null,
    payment_method_options: null,
    payment_method_types: ["card"],
    payment_status: "unpaid",
    permissions: null,
    recovered_from: null,
    saved_payment_method_options: null,
    setup_intent: null,
    shipping_address_collection: null,
    shipping_cost: null,
    shipping_options: [],
    status: "open",
    submit_type: null,
    subscription: null,
    success_url: params.success_url,
    total_details: { amount_discount: 0, amount_shipping: 0, amount_tax: 0 },
    ui_mode: "hosted_page",
    url: `${context.origin}/pay/${id}`,
    wallet_options: null,
    subscription_data: params.subscription_data,
  };
  context.save(null, session);
  return session;
}

/** The one-time price of a line in payment mode. */
function oneTimePrice(context: Context, id: string, param: string): Price {
  const price = context.store.get("price", id, `${param}[price]`);
  if (price.recurring !== null) {
    throw badRequest("You specified `payment` mode but passed a recurring price.", { param: `${param}[price]` });
  }
  return price;
}

export function listSessions(context: Context, params: z.output<typeof sessionList>) {
  return context.store.list("checkout.session", "/v1/checkout/sessions", params, [
    where("customer", params.customer),
    where("status", params.status),
    where("subscription", params.subscription),
    whereRange("created", params.created),
  ]);
}

export function expireSession(context: Context, _params: object, id: string): Session {
  const session = context.store.get("checkout.session", id);
  if (session.status !== "open") {
    throw badRequest(
      `Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of ${String(session.status)}.`,
    );
  }
  return closeSession(context, session);
}

/** Expires an open session. */
export function closeSession(context: Context, session: Session): Session {
  const expired: Session = { ...session, status: "expired", url: null };
  context.save("checkout.session.expired", expired, session);
  return expired;
}

/**
 * Pays an open session. Creates the customer if it is new, then the subscription with its first invoice, then completes the
 * session; events follow in this order. A session that is not open is returned unchanged, so paying twice is safe. A
 * declined payment changes nothing.
 */
export function paySession(context: Context, session: Session, email: string | undefined): Session | "declined" {
  if (session.status !== "open") return session;
  // A trial delays the first payment. Metered usage is always paid later.
  if ((session.amount_total ?? 0) > 0 && !canPay(context.store, session.customer ?? "")) return "declined";
  const known = session.customer === null ? undefined : context.store.get("customer", session.customer);
  const customer = known ?? createCustomer(context, { email: session.customer_email ?? email ?? "buyer@example.com" });
  const lines = session.line_items.data.map(({ price, quantity: count }) => ({ price, quantity: count ?? undefined }));
  const data = session.subscription_data;
  const subscription = session.mode === "payment" ? null : startSubscription(context, customer.id, lines, data, false);
  const trial = trialEndOf(data, nowSeconds(context)) !== null;
  const paid: Session = {
    ...session,
    customer: customer.id,
    customer_details: customerDetails(customer.email),
    invoice: subscription?.latest_invoice ?? null,
    payment_status: trial ? "no_payment_required" : "paid",
    status: "complete",
    subscription: subscription?.id ?? null,
    url: null,
  };
  context.save("checkout.session.completed", paid);
  return paid;
}

function lineItem(context: Context, { price, quantity: count }: Line, data: SubscriptionData): LineItem {
  const product = typeof price.product === "string" ? context.store.find("product", price.product) : undefined;
  const total = count === undefined ? 0 : dueNow(nowSeconds(context), price, count, data);
  return {
    id: newId("li_"),
    object: "item",
    adjustable_quantity: null,
    amount_discount: 0,
    amount_subtotal: total,
    amount_tax: 0,
    amount_total: total,
    currency: price.currency,
    description: product?.name ?? null,
    metadata: {},
    price,
    quantity: count ?? null,
  };
}

export const pageConfirm = z.strictObject({ expected_amount: integer, payment_method: text });

/** Pays a session as its page does. For Stripe's CLI. */
export function confirmPage(context: Context, params: z.output<typeof pageConfirm>, id: string): Session | ApiError {
  const session = context.store.get("checkout.session", id);
  context.store.get("payment_method", params.payment_method, "payment_method");
  if (session.amount_total !== params.expected_amount) throw badRequest("The amount is another one.");
  const paid = paySession(context, session, undefined);
  return paid === "declined" ? declined() : paid;
}

/** The first charge of a licensed line: nothing in a trial, a share of the price before an anchor. */
function dueNow(now: number, price: Price, count: number, data: SubscriptionData): number {
  if (trialEndOf(data, now) !== null) return 0;
  const amount = chargesFor(price, count).reduce((sum, charge) => sum + charge.amount, 0);
  const { billing_cycle_anchor: anchor, proration_behavior: proration } = data;
  if (anchor === undefined) return amount;
  const whole = fullPeriodBefore(anchor, price, anchor);
  return anchor - now < whole && proration === "none" ? 0 : share(amount, anchor - now, whole);
}

function customerDetails(email: string | null): Stripe.Checkout.Session.CustomerDetails {
  return {
    address: null,
    business_name: null,
    email,
    individual_name: null,
    name: null,
    phone: null,
    tax_exempt: "none",
    tax_ids: [],
  };
}
