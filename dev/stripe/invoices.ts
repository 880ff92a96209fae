// Invoices, made by subscriptions (subscription-billing.ts) or through the API. Each takes the pending items.
// As in flexible billing mode, an invoice without lines is not created.
import * as z from "zod";
import type { Stripe } from "stripe";
import { attempt, finalizeInvoice } from "./collection.ts";
import { type Context, nowSeconds } from "./context.ts";
import { type ApiError, badRequest, declined } from "./errors.ts";
import { created, flag, mergeMetadata, metadata, page, text } from "./form.ts";
import { dropInvoiceItem, pendingItems } from "./invoice-items.ts";
import { lineOfInvoiceItem, type Period, usageLines, withLines } from "./invoice-lines.ts";
import type { Invoice, InvoiceItem, InvoiceLine, MeteredLine, Subscription } from "./objects.ts";
import { newId, where, whereRange } from "./store.ts";

export const invoiceCreate = z.strictObject({
  auto_advance: flag.default(false),
  collection_method: z.literal("charge_automatically", "only charge_automatically is simulated").optional(),
  currency: text.optional(),
  customer: text.optional(),
  description: text.optional(),
  metadata: metadata.optional(),
  pending_invoice_items_behavior: z.enum(["exclude", "include"]).optional(),
  subscription: text.optional(),
});
export const invoiceUpdate = z.strictObject({
  auto_advance: flag.optional(),
  description: text.optional(),
  metadata: metadata.optional(),
});
export const invoiceFinalize = z.strictObject({ auto_advance: flag.optional() });
export const invoiceList = z.strictObject({
  ...page,
  created: created.optional(),
  customer: text.optional(),
  status: z.enum(["draft", "open", "paid", "uncollectible", "void"]).optional(),
  subscription: text.optional(),
});
export const invoicePay = z.strictObject({ payment_method: text.optional() });
export const lineList = z.strictObject(page);

export interface NewInvoice {
  customer: string;
  subscription: Subscription | null;
  reason: Stripe.Invoice.BillingReason;
  lines: readonly InvoiceLine[];
  metered: readonly MeteredLine[];
  pending: readonly InvoiceItem[];
  period: Period;
  autoAdvance: boolean;
  /** When the draft finalizes automatically, in seconds; `null` for never. */
  finalizesAt: number | null;
  description?: string | null;
  metadata?: Record<string, string>;
}

/** Makes a draft without storing it or emitting an event. Previews use it, too. */
export function draftInvoice({ store, ...context }: Context, given: NewInvoice): Invoice {
  const customer = store.get("customer", given.customer);
  const { subscription } = given;
  const id = newId("in_");
  const draft: Invoice = {
    id,
    object: "invoice",
    account_country: "US",
    account_name: "Simulated Stripe",
    account_tax_ids: null,
    amount_due: 0,
    amount_overpaid: 0,
    amount_paid: 0,
    amount_remaining: 0,
    amount_shipping: 0,
    application: null,
    attempt_count: 0,
    attempted: false,
    auto_advance: given.autoAdvance,
    automatic_tax: { disabled_reason: null, enabled: false, liability: null, provider: null, status: null },
    automatically_finalizes_at: given.finalizesAt,
    billing_reason: given.reason,
    collection_method: "charge_automatically",
    created: Math.floor(context.nowMs / 1000),
    currency: subscription?.currency ?? given.pending[0]?.currency ?? "usd",
    custom_fields: null,
    customer: customer.id,
    customer_account: null,
    customer_address: null,
    customer_email: customer.email,
    customer_name: customer.name ?? null,
    customer_phone: customer.phone ?? null,
    customer_shipping: null,
    customer_tax_exempt: "none",
    customer_tax_ids: [],
    default_payment_method: null,
    default_source: null,
    default_tax_rates: [],
    description: given.description ?? null,
    discounts: [],
    due_date: null,
    effective_at: null,
    ending_balance: null,
    footer: null,
    from_invoice: null,
    hosted_invoice_url: null,
    invoice_pdf: null,
    issuer: { type: "self" },
    last_finalization_error: null,
    latest_revision: null,
    lines: { object: "list", data: [], has_more: false, url: `/v1/invoices/${id}/lines` },
    livemode: false,
    metadata: given.metadata ?? {},
    metered: given.metered,
    next_payment_attempt: given.finalizesAt,
    number: null,
    on_behalf_of: null,
    parent:
      subscription === null
        ? null
        : {
            quote_details: null,
            subscription_details: { metadata: subscription.metadata, subscription: subscription.id },
            type: "subscription_details",
          },
    payment_settings: { default_mandate: null, payment_method_options: null, payment_method_types: null },
    period_end: given.period.end,
    period_start: given.period.start,
    post_payment_credit_notes_amount: 0,
    pre_payment_credit_notes_amount: 0,
    receipt_number: null,
    rendering: null,
    shipping_cost: null,
    shipping_details: null,
    starting_balance: customer.balance,
    statement_descriptor: null,
    status: "draft",
    status_transitions: { finalized_at: null, marked_uncollectible_at: null, paid_at: null, voided_at: null },
    subtotal: 0,
    subtotal_excluding_tax: 0,
    test_clock: null,
    total: 0,
    total_discount_amounts: [],
    total_excluding_tax: 0,
    total_pretax_credit_amounts: [],
    total_taxes: [],
    webhooks_delivered_at: null,
  };
  const usage = given.metered.flatMap((metered) => usageLines(store, customer.id, metered));
  return withLines(draft, [...given.pending.map(lineOfInvoiceItem), ...given.lines, ...usage]);
}

/** Stores a draft, emits its event, and takes its pending items. */
export function makeInvoice(context: Context, given: NewInvoice): Invoice {
  const draft = draftInvoice(context, given);
  for (const item of given.pending) context.save(null, { ...item, invoice: draft.id });
  context.save("invoice.created", draft);
  return draft;
}

export function createInvoice(context: Context, params: z.output<typeof invoiceCreate>): Invoice {
  const { store } = context;
  const subscription =
    params.subscription === undefined ? null : store.get("subscription", params.subscription, "subscription");
  const customer = params.customer ?? subscription?.customer;
  if (customer === undefined) {
    throw badRequest("Missing required param: customer.", { code: "parameter_missing", param: "customer" });
  }
  store.get("customer", customer, "customer");
  const now = nowSeconds(context);
  const include = subscription !== null || params.pending_invoice_items_behavior === "include";
  const pending = include ? pendingItems(store, customer, subscription?.id ?? null) : [];
  if (subscription !== null && pending.length === 0) {
    throw badRequest("Nothing to invoice for subscription.", { code: "invoice_no_subscription_line_items" });
  }
  return makeInvoice(context, {
    customer,
    subscription,
    reason: "manual",
    lines: [],
    metered: [],
    pending,
    period: { start: now, end: now },
    autoAdvance: params.auto_advance,
    finalizesAt: params.auto_advance ? now + 3600 : null,
    description: params.description ?? null,
    metadata: mergeMetadata(null, params.metadata),
  });
}

export function updateInvoice(context: Context, params: z.output<typeof invoiceUpdate>, id: string): Invoice {
  const invoice = context.store.get("invoice", id);
  const advance = params.auto_advance ?? invoice.auto_advance === true;
  const updated: Invoice = {
    ...invoice,
    auto_advance: advance,
    ...(advance ? {} : { automatically_finalizes_at: null, next_payment_attempt: null }),
    description: params.description ?? invoice.description,
    metadata: mergeMetadata(invoice.metadata, params.metadata),
  };
  context.save("invoice.updated", updated, invoice);
  return updated;
}

export function finalizeByHand(context: Context, params: z.output<typeof invoiceFinalize>, id: string): Invoice {
  const draft = context.store.get("invoice", id);
  return finalizeInvoice(context, { ...draft, auto_advance: params.auto_advance ?? draft.auto_advance === true });
}

/** Pays an open invoice, or finalizes a draft and pays it. A declined payment returns 402 and keeps its effect. */
export function payInvoice(context: Context, params: z.output<typeof invoicePay>, id: string): Invoice | ApiError {
  const invoice = context.store.get("invoice", id);
  if (invoice.status === "paid") throw badRequest("Invoice is already paid", { code: "invoice_already_paid" });
  if (invoice.status === "void") throw badRequest("This invoice is void and cannot be paid.");
  const open = invoice.status === "draft" ? finalizeInvoice(context, { ...invoice, auto_advance: false }) : invoice;
  if (open.status === "paid") return open;
  const after = attempt(context, open, params.payment_method);
  return after.status === "paid" ? after : declined();
}

/** Deletes a draft that was made through the API, together with its items. */
export function deleteInvoice(context: Context, _params: object, id: string): Stripe.DeletedInvoice {
  const draft = context.store.get("invoice", id);
  if (draft.status !== "draft" || draft.billing_reason !== "manual") {
    throw badRequest("You can only delete draft invoices that were not made by a subscription.");
  }
  for (const item of context.store.all("invoiceitem", [where("customer", draft.customer), where("invoice", id)])) {
    dropInvoiceItem(context, item);
  }
  context.announce("invoice.deleted", draft);
  context.store.remove(id);
  return { id, object: "invoice", deleted: true };
}

export function listInvoices(context: Context, params: z.output<typeof invoiceList>) {
  return context.store.list("invoice", "/v1/invoices", params, [
    where("customer", params.customer),
    where("status", params.status),
    where("parent.subscription_details.subscription", params.subscription),
    whereRange("created", params.created),
  ]);
}

export function listLines(
  context: Context,
  params: z.output<typeof lineList>,
  id: string,
): Stripe.ApiList<InvoiceLine> {
  const { data, url } = context.store.get("invoice", id).lines;
  const after = data.findIndex((line) => line.id === params.starting_after) + 1;
  const shown = data.slice(after, after + params.limit);
  return { object: "list", data: shown, has_more: data.length > after + shown.length, url };
}
