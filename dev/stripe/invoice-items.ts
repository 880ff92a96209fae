// Invoice items: pending charges and credits for the next invoice of a subscription or of a customer.
// Only a pending item can be deleted.
import * as z from "zod";
import type { Stripe } from "stripe";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import { created, flag, integer, mergeMetadata, metadata, natural, page, signedDecimal, text } from "./form.ts";
import { lineOfInvoiceItem, type Period, withLines } from "./invoice-lines.ts";
import { times } from "./money.ts";
import type { InvoiceItem } from "./objects.ts";
import { type Filter, newId, type Store, where, whereRange } from "./store.ts";

export const invoiceItemCreate = z.strictObject({
  amount: integer.optional(),
  currency: z
    .string()
    .regex(/^[a-z]{3}$/i, "must be a three-letter currency")
    .optional(),
  customer: text,
  description: text.optional(),
  invoice: text.optional(),
  metadata: metadata.optional(),
  period: z.strictObject({ start: integer, end: integer }).optional(),
  quantity: natural.optional(),
  subscription: text.optional(),
  unit_amount_decimal: signedDecimal.optional(),
});
export const invoiceItemList = z.strictObject({
  ...page,
  created: created.optional(),
  customer: text.optional(),
  invoice: text.optional(),
  pending: flag.optional(),
});

const PENDING: Filter = { sql: "json_extract(json, '$.invoice') IS NULL", values: [] };

export function createInvoiceItem(context: Context, params: z.output<typeof invoiceItemCreate>): InvoiceItem {
  const { store } = context;
  store.get("customer", params.customer, "customer");
  const subscription =
    params.subscription === undefined ? undefined : store.get("subscription", params.subscription, "subscription");
  if (subscription !== undefined && subscription.customer !== params.customer) {
    throw badRequest("The subscription belongs to another customer.", { param: "subscription" });
  }
  if (params.amount !== undefined && (params.quantity !== undefined || params.unit_amount_decimal !== undefined)) {
    throw badRequest("You may only specify one of these parameters: amount, unit_amount_decimal.", { param: "amount" });
  }
  if (params.period !== undefined && params.period.end < params.period.start) {
    throw badRequest("The period must end at or after its start.", { param: "period[end]" });
  }
  const quantity = params.quantity ?? 1;
  const unit = params.unit_amount_decimal ?? String(params.amount ?? "");
  if (unit === "") throw badRequest("Missing required param: amount.", { code: "parameter_missing", param: "amount" });
  const invoice = params.invoice === undefined ? undefined : store.get("invoice", params.invoice, "invoice");
  if (invoice !== undefined && (invoice.status !== "draft" || invoice.customer !== params.customer)) {
    throw badRequest("The invoice is not a draft of this customer.", { param: "invoice" });
  }
  const item = addInvoiceItem(context, {
    customer: params.customer,
    currency: (params.currency ?? subscription?.currency ?? "usd").toLowerCase(),
    quantity,
    amount: params.amount ?? times(unit, quantity),
    pricing: { type: "price_details", unit_amount_decimal: unit },
    description: params.description ?? null,
    invoice: params.invoice ?? null,
    metadata: mergeMetadata(null, params.metadata),
    period: params.period ?? { start: nowSeconds(context), end: nowSeconds(context) },
    subscription: params.subscription === undefined ? null : { subscription: params.subscription },
    proration: false,
  });
  if (invoice !== undefined) {
    const changed = withLines(invoice, [...invoice.lines.data, lineOfInvoiceItem(item)]);
    context.save("invoice.updated", changed, invoice);
  }
  return item;
}

export interface NewInvoiceItem {
  customer: string;
  currency: string;
  quantity: number;
  amount: number;
  pricing: InvoiceItem["pricing"];
  description: string | null;
  invoice?: string | null;
  metadata?: Record<string, string>;
  period: Period;
  subscription: Stripe.InvoiceItem.Parent.SubscriptionDetails | null;
  proration: boolean;
}

export function addInvoiceItem(context: Context, given: NewInvoiceItem): InvoiceItem {
  const item: InvoiceItem = {
    id: newId("ii_"),
    object: "invoiceitem",
    amount: given.amount,
    currency: given.currency,
    customer: given.customer,
    customer_account: null,
    date: nowSeconds(context),
    description: given.description,
    discountable: !given.proration && given.amount >= 0,
    discounts: [],
    invoice: given.invoice ?? null,
    livemode: false,
    metadata: given.metadata ?? {},
    net_amount: given.amount,
    parent:
      given.subscription === null ? null : { subscription_details: given.subscription, type: "subscription_details" },
    period: given.period,
    pricing: given.pricing,
    proration: given.proration,
    quantity: given.quantity,
    quantity_decimal: String(given.quantity),
    tax_rates: [],
    test_clock: null,
  };
  context.save("invoiceitem.created", item);
  return item;
}

export function deleteInvoiceItem(context: Context, _params: object, id: string): Stripe.DeletedInvoiceItem {
  const item = context.store.get("invoiceitem", id);
  if (item.invoice !== null) throw badRequest("An invoice item that is on an invoice cannot be deleted.");
  return dropInvoiceItem(context, item);
}

export function dropInvoiceItem(context: Context, item: InvoiceItem): Stripe.DeletedInvoiceItem {
  context.announce("invoiceitem.deleted", item);
  context.store.remove(item.id);
  return { id: item.id, object: "invoiceitem", deleted: true };
}

export function listInvoiceItems(context: Context, params: z.output<typeof invoiceItemList>) {
  const { pending } = params;
  return context.store.list("invoiceitem", "/v1/invoiceitems", params, [
    where("customer", params.customer),
    where("invoice", params.invoice),
    whereRange("date", params.created),
    pending === undefined ? undefined : pending ? PENDING : { sql: `NOT (${PENDING.sql})`, values: [] },
  ]);
}

/** Items for the next invoice: those of the subscription and those without one. Without a subscription, only the latter. */
export function pendingItems(store: Store, customer: string, subscription: string | null): InvoiceItem[] {
  return store.all("invoiceitem", [where("customer", customer), PENDING]).filter((item) => {
    const of = item.parent?.subscription_details?.subscription ?? null;
    return of === null || of === subscription;
  });
}
