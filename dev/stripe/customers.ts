// Customers, and the card that pays their invoices.
import * as z from "zod";
import type { Stripe } from "stripe";
import { endSubscription } from "./collection.ts";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import { clearable, created, mergeMetadata, metadata, page, sent, text } from "./form.ts";
import { attachPaymentMethod } from "./payment-methods.ts";
import { newId, where, whereRange } from "./store.ts";

const customerFields = {
  description: clearable.optional(),
  email: clearable.optional(),
  invoice_settings: z.strictObject({ default_payment_method: text }).optional(),
  metadata: metadata.optional(),
  name: clearable.optional(),
  phone: clearable.optional(),
};
export const customerCreate = z.strictObject({ ...customerFields, payment_method: text.optional() });
export const customerUpdate = z.strictObject(customerFields);
export const customerList = z.strictObject({ ...page, created: created.optional(), email: text.optional() });

export function createCustomer(context: Context, params: z.output<typeof customerCreate>): Stripe.Customer {
  const customer: Stripe.Customer = {
    id: newId("cus_"),
    object: "customer",
    address: null,
    balance: 0,
    created: nowSeconds(context),
    currency: null,
    default_source: null,
    delinquent: false,
    description: params.description ?? null,
    discount: null,
    email: params.email ?? null,
    invoice_settings: { custom_fields: null, default_payment_method: null, footer: null, rendering_options: null },
    livemode: false,
    metadata: mergeMetadata(null, params.metadata),
    name: params.name ?? null,
    phone: params.phone ?? null,
    preferred_locales: [],
    shipping: null,
    tax_exempt: "none",
    test_clock: null,
  };
  context.save("customer.created", customer);
  if (params.payment_method === undefined) return customer;
  const { id: card } = attachPaymentMethod(context, { customer: customer.id }, params.payment_method);
  if (params.invoice_settings?.default_payment_method !== params.payment_method) return customer;
  const settled = withDefault(customer, card);
  context.save(null, settled);
  return settled;
}

export function updateCustomer(context: Context, params: z.output<typeof customerUpdate>, id: string): Stripe.Customer {
  const customer = context.store.get("customer", id);
  const card = params.invoice_settings?.default_payment_method;
  if (card !== undefined && context.store.find("payment_method", card)?.customer !== id) {
    const param = "invoice_settings[default_payment_method]";
    throw badRequest("The customer does not have a payment method with this ID attached.", { param });
  }
  const updated: Stripe.Customer = {
    ...(card === undefined ? customer : withDefault(customer, card)),
    description: sent(params.description, customer.description),
    email: sent(params.email, customer.email),
    metadata: mergeMetadata(customer.metadata, params.metadata),
    name: sent(params.name, customer.name ?? null),
    phone: sent(params.phone, customer.phone ?? null),
  };
  context.save("customer.updated", updated, customer);
  return updated;
}

/** Deletes a customer for good. Its subscriptions end at once, without an invoice. */
export function deleteCustomer(context: Context, _params: object, id: string): Stripe.DeletedCustomer {
  const customer = context.store.get("customer", id);
  for (const subscription of context.store.all("subscription", [where("customer", id)]))
    if (subscription.status !== "canceled" && subscription.status !== "incomplete_expired")
      endSubscription(context, subscription, "cancellation_requested");
  context.announce("customer.deleted", customer);
  context.store.remove(id);
  context.store.setSetting(`deleted.${id}`, "true");
  return { id, object: "customer", deleted: true };
}

/** A customer, also one that was deleted: Stripe then answers with `deleted`. */
export function retrieveCustomer(
  context: Context,
  _params: object,
  id: string,
): Stripe.Customer | Stripe.DeletedCustomer {
  if (context.store.setting(`deleted.${id}`) !== undefined) return { id, object: "customer", deleted: true };
  return context.store.get("customer", id);
}

function withDefault(customer: Stripe.Customer, card: string): Stripe.Customer {
  return { ...customer, invoice_settings: { ...customer.invoice_settings, default_payment_method: card } };
}

export function listCustomers(context: Context, params: z.output<typeof customerList>) {
  return context.store.list("customer", "/v1/customers", params, [
    where("email", params.email),
    whereRange("created", params.created),
  ]);
}
