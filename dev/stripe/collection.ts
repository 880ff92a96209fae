// Collecting invoices: finalize, charge, retry, and the effect on the subscription.
// Usage is counted at finalization. Usage that is reported later is on no invoice.
// A subscription is past due while its latest finalized invoice is unpaid. After the last attempt, the account's settings
// decide its state.
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import { usageLines, withLines } from "./invoice-lines.ts";
import type { Invoice, Subscription } from "./objects.ts";
import { canPay, readPaymentSettings } from "./payments.ts";
import { where } from "./store.ts";

/** Counts usage, numbers the invoice and opens it. Collects it at once if `auto_advance` is set or nothing is due. */
export function finalizeInvoice(context: Context, draft: Invoice): Invoice {
  if (draft.status !== "draft") throw badRequest("This invoice is already finalized.", { param: "invoice" });
  const { store } = context;
  const now = nowSeconds(context);
  const customer = store.get("customer", draft.customer);
  const counted = withLines({ ...draft, starting_balance: customer.balance }, linesNow(context, draft));
  const balance = Math.min(counted.starting_balance + counted.total, 0);
  const open: Invoice = {
    ...counted,
    automatically_finalizes_at: null,
    effective_at: now,
    ending_balance: balance,
    number: numberOf(context, draft),
    parent: withMetadataNow(context, draft.parent),
    status: "open",
    status_transitions: { ...draft.status_transitions, finalized_at: now },
  };
  if (balance !== customer.balance) context.save("customer.updated", { ...customer, balance }, customer);
  context.save("invoice.finalized", open);
  if (open.amount_due === 0) return paid(context, open);
  return open.auto_advance === true ? attempt(context, open) : open;
}

/** The lines of a draft, with the usage so far. */
function linesNow(context: Context, draft: Invoice): Invoice["lines"]["data"] {
  const meteredItems = new Set(draft.metered.map(({ item }) => item.id));
  const others = draft.lines.data.filter(
    ({ parent }) => !meteredItems.has(parent?.subscription_item_details?.subscription_item ?? ""),
  );
  return [...others, ...draft.metered.flatMap((metered) => usageLines(context.store, draft.customer, metered))];
}

/** The next invoice number: unique for the customer and increasing. */
function numberOf({ store }: Context, draft: Invoice): string {
  const before = store.all("invoice", [
    where("customer", draft.customer),
    { sql: "json_extract(json, '$.number') IS NOT NULL", values: [] },
  ]);
  return `${draft.customer.slice(-8).toUpperCase()}-${String(before.length + 1).padStart(4, "0")}`;
}

/** Finalizing copies the subscription's metadata to the invoice. */
function withMetadataNow({ store }: Context, parent: Invoice["parent"]): Invoice["parent"] {
  const details = parent?.subscription_details ?? null;
  const subscription = typeof details?.subscription === "string" ? details.subscription : "";
  const metadata = store.find("subscription", subscription)?.metadata;
  if (parent === null || details === null || metadata === undefined) return parent;
  return { ...parent, subscription_details: { ...details, metadata } };
}

/** Attempts once to collect an open invoice, with the customer's card or a given one. */
export function attempt(context: Context, invoice: Invoice, paymentMethod?: string): Invoice {
  if (canPay(context.store, invoice.customer, paymentMethod)) {
    return paid(context, { ...invoice, attempt_count: invoice.attempt_count + 1, attempted: true });
  }
  const { retryDelaysMs } = readPaymentSettings(context.store);
  const wait = retryDelaysMs[invoice.attempt_count];
  const retries = wait !== undefined && invoice.auto_advance === true;
  const failed: Invoice = {
    ...invoice,
    attempt_count: invoice.attempt_count + 1,
    attempted: true,
    next_payment_attempt: retries ? nowSeconds(context) + Math.ceil(wait / 1000) : null,
  };
  context.save("invoice.payment_failed", failed);
  context.save("invoice.updated", failed, invoice);
  afterFailure(context, failed, retries);
  return failed;
}

function paid(context: Context, invoice: Invoice): Invoice {
  const done: Invoice = {
    ...invoice,
    amount_paid: invoice.amount_due,
    amount_remaining: 0,
    attempted: true,
    next_payment_attempt: null,
    status: "paid",
    status_transitions: { ...invoice.status_transitions, paid_at: nowSeconds(context) },
  };
  context.save("invoice.updated", done, invoice);
  context.save("invoice.paid", done);
  context.save("invoice.payment_succeeded", done);
  afterPayment(context, done);
  return done;
}

/** Marks an open invoice as uncollectible. It can still be paid. */
export function markUncollectible(context: Context, _params: object, id: string): Invoice {
  const invoice = context.store.get("invoice", id);
  if (invoice.status !== "open") throw badRequest("You can only mark an open invoice as uncollectible.");
  const marked: Invoice = {
    ...invoice,
    auto_advance: false,
    next_payment_attempt: null,
    status: "uncollectible",
    status_transitions: { ...invoice.status_transitions, marked_uncollectible_at: nowSeconds(context) },
  };
  context.save("invoice.marked_uncollectible", marked, invoice);
  return marked;
}

/** Voids an open invoice. */
export function voidInvoice(context: Context, _params: object, id: string): Invoice {
  const invoice = context.store.get("invoice", id);
  if (invoice.status !== "open") throw badRequest("You can only void an open invoice.");
  const voided: Invoice = {
    ...invoice,
    auto_advance: false,
    next_payment_attempt: null,
    status: "void",
    status_transitions: { ...invoice.status_transitions, voided_at: nowSeconds(context) },
  };
  context.save("invoice.voided", voided, invoice);
  return voided;
}

/** The subscription that an invoice bills, if any. */
export function subscriptionOf(invoice: Invoice): string | undefined {
  const subscription = invoice.parent?.subscription_details?.subscription;
  return typeof subscription === "string" ? subscription : undefined;
}

function afterFailure(context: Context, invoice: Invoice, retries: boolean): void {
  const current = context.store.find("subscription", subscriptionOf(invoice) ?? "");
  if (current === undefined) return;
  if (current.status === "active" || current.status === "trialing") setStatus(context, current, "past_due");
  if (retries || invoice.auto_advance !== true) return;
  const subscription = context.store.get("subscription", current.id);
  if (subscription.status !== "past_due") return;
  const { afterRetries } = readPaymentSettings(context.store);
  if (afterRetries === "cancel") endSubscription(context, subscription, "payment_failed");
  if (afterRetries === "unpaid") setStatus(context, subscription, "unpaid");
}

function afterPayment(context: Context, invoice: Invoice): void {
  const current = context.store.find("subscription", subscriptionOf(invoice) ?? "");
  if (current === undefined) return;
  if (current.status === "incomplete") setStatus(context, current, "active");
  if (current.status !== "past_due" && current.status !== "unpaid") return;
  const latest = invoicesOf(context, current).findLast(({ status }) => status === "open" || status === "paid");
  if (latest?.status === "paid") setStatus(context, current, "active");
}

function setStatus(context: Context, current: Subscription, status: Subscription["status"]): void {
  context.save("customer.subscription.updated", { ...current, status }, current);
}

/** A subscription's invoices, oldest first. */
export function invoicesOf({ store }: Context, subscription: Subscription): Invoice[] {
  return store.all("invoice", [
    where("customer", subscription.customer),
    where("parent.subscription_details.subscription", subscription.id),
  ]);
}

type EndReason = "cancellation_requested" | "payment_failed";
const noDetails = { comment: null, feedback: null, feedback_option: null, reason: null };

/** Ends the subscription. Its open invoices stay payable, but Stripe stops collecting them. Drafts stay as they are. */
export function endSubscription(context: Context, current: Subscription, reason: EndReason): Subscription {
  const now = nowSeconds(context);
  const ended: Subscription = {
    ...current,
    status: "canceled",
    canceled_at: current.canceled_at ?? now,
    cancellation_details: { ...(current.cancellation_details ?? noDetails), reason },
    ended_at: now,
  };
  context.save("customer.subscription.deleted", ended);
  for (const invoice of invoicesOf(context, current)) {
    if (invoice.status !== "open" || invoice.auto_advance !== true) continue;
    const stopped: Invoice = { ...invoice, auto_advance: false, next_payment_attempt: null };
    context.save("invoice.updated", stopped, invoice);
  }
  return ended;
}
