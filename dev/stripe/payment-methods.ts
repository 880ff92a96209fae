// Payment methods: cards made from Stripe's test tokens (`tok_visa`) or taken ready-made (`pm_card_visa`), and attached to a
// customer. A failing test card fails every charge, unless `POST /_sim/payments` names the customer.
import * as z from "zod";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest, noSuch } from "./errors.ts";
import { mergeMetadata, metadata, text } from "./form.ts";
import type { PaymentMethod } from "./objects.ts";
import { newId } from "./store.ts";

/** Test cards by the name that follows `tok_` and `pm_card_`; true: charges are declined. */
const TEST_CARDS = new Map([
  ["visa", false],
  ["mastercard", false],
  ["chargeCustomerFail", true],
  // The simulator has no authentication step.
  ["threeDSecure2Required", true],
]);

const address = z.record(z.string(), text);
export const paymentMethodCreate = z.strictObject({
  billing_details: z.strictObject({ address, email: text, name: text, phone: text }).partial().optional(),
  card: z.strictObject({ token: text }),
  metadata: metadata.optional(),
  type: z.literal("card", "only cards are simulated"),
});
export const paymentMethodAttach = z.strictObject({ customer: text });

export function createPaymentMethod(context: Context, params: z.output<typeof paymentMethodCreate>): PaymentMethod {
  const made = newCard(context, params.card.token.replace(/^tok_/, ""), "card[token]", params.card.token);
  const { email = null, name = null, phone = null } = params.billing_details ?? {};
  const method = {
    ...made,
    billing_details: { ...made.billing_details, email, name, phone },
    metadata: mergeMetadata(null, params.metadata),
  };
  context.save(null, method);
  return method;
}

export function attachPaymentMethod(
  context: Context,
  params: z.output<typeof paymentMethodAttach>,
  id: string,
): PaymentMethod {
  context.store.get("customer", params.customer, "customer");
  const method = takePaymentMethod(context, id);
  if (method.customer !== null) {
    throw badRequest("The payment method you provided has already been attached to a customer.");
  }
  const attached = { ...method, customer: params.customer };
  context.save("payment_method.attached", attached);
  return attached;
}

export function detachPaymentMethod(context: Context, _params: object, id: string): PaymentMethod {
  const method = context.store.get("payment_method", id);
  if (method.customer === null) throw badRequest("The payment method is not attached to a customer.");
  const detached = { ...method, customer: null };
  context.save("payment_method.detached", detached, method);
  return detached;
}

/** A stored payment method, or a new one for a test name. */
function takePaymentMethod(context: Context, id: string): PaymentMethod {
  if (!id.startsWith("pm_card_")) return context.store.get("payment_method", id);
  return newCard(context, id.slice("pm_card_".length), "payment_method", id);
}

function newCard(context: Context, name: string, param: string, given: string): PaymentMethod {
  const declines = TEST_CARDS.get(name);
  if (declines === undefined) throw noSuch("test card", given, param);
  return {
    id: newId("pm_"),
    object: "payment_method",
    billing_details: { address: null, email: null, name: null, phone: null, tax_id: null },
    card: {
      brand: name === "mastercard" ? "mastercard" : "visa",
      checks: null,
      country: "US",
      display_brand: null,
      exp_month: 12,
      exp_year: new Date(context.nowMs).getUTCFullYear() + 3,
      funding: "credit",
      generated_from: null,
      last4: declines ? "0341" : "4242",
      networks: null,
      regulated_status: null,
      three_d_secure_usage: null,
      wallet: null,
    },
    created: nowSeconds(context),
    customer: null,
    customer_account: null,
    livemode: false,
    metadata: {},
    type: "card",
    declines,
  };
}
