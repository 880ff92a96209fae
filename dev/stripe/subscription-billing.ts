// Invoices of a subscription: the first one, renewals, changes and the end.
//
// Assumptions: usage during a trial is free; a credit for unused time is worked out from the item's price, not from what was
// debited; the usage of a metered item that is removed or gets another price is invoiced under every proration behaviour.
import { endSubscription, finalizeInvoice } from "./collection.ts";
import { type Context, nowSeconds } from "./context.ts";
import { addInvoiceItem, dropInvoiceItem, pendingItems } from "./invoice-items.ts";
import { baseLines, describe, type Period, productOf, type Share, trialLine } from "./invoice-lines.ts";
import { makeInvoice, type NewInvoice } from "./invoices.ts";
import { usageOf } from "./meters.ts";
import { chargesFor, share } from "./money.ts";
import type { Invoice, MeteredLine, Subscription, SubscriptionItem } from "./objects.ts";
import { canPay, readInvoiceSettings } from "./payments.ts";
import { fullPeriodBefore, nextBoundary } from "./subscription-items.ts";

export type Proration = "always_invoice" | "create_prorations" | "none";

/** Stores a new subscription and emits its event. Its first invoice is collected at once. */
export function billStart(context: Context, subscription: Subscription, proration: Proration): Subscription {
  const items = subscription.items.data;
  const trialing = subscription.status === "trialing";
  const lines = items.flatMap((item) => {
    if (trialing) return isMetered(item) ? [] : [trialLine(context.store, item, periodOf(item))];
    const stub = stubOf(subscription.billing_cycle_anchor, item);
    return stub !== undefined && proration === "none" ? [] : baseLines(context.store, item, periodOf(item), stub);
  });
  const draft = draftOf(context, subscription, { reason: "subscription_create", lines, finalizesAt: null });
  const unpaid = (draft?.amount_due ?? 0) > 0 && !canPay(context.store, subscription.customer);
  const started: Subscription = {
    ...subscription,
    status: unpaid ? "incomplete" : subscription.status,
    latest_invoice: draft?.id ?? null,
  };
  context.save("customer.subscription.created", started);
  if (draft !== undefined) finalizeInvoice(context, draft);
  return context.store.get("subscription", subscription.id);
}

/** Ends a period: makes the draft invoice and starts the next period, or ends the subscription if it was cancelled. */
export function billRenewal(context: Context, current: Subscription): void {
  const now = nowSeconds(context);
  const order = renewalOf(context, current, now);
  const { finalizationDelayMs } = readInvoiceSettings(context.store);
  // The invoices of an unpaid subscription stay drafts and are not charged.
  const advances = current.status !== "unpaid";
  const finalizesAt = advances ? now + Math.ceil(finalizationDelayMs / 1000) : null;
  const draft = draftOf(context, current, { ...order, finalizesAt, autoAdvance: advances });
  const latest = { latest_invoice: draft?.id ?? current.latest_invoice };
  if (current.cancel_at_period_end) {
    endSubscription(context, { ...current, ...latest }, "cancellation_requested");
    return;
  }
  const renewed: Subscription = {
    ...current,
    ...latest,
    status: statusAfter(context, current),
    items: { ...current.items, data: order.items },
  };
  context.save("customer.subscription.updated", renewed, current);
}

/** The status in the next period. A trial may end paused when there is no way to pay. */
function statusAfter({ store }: Context, { status, trial_settings, customer }: Subscription): Subscription["status"] {
  if (status !== "trialing") return status;
  const pauses = trial_settings?.end_behavior.missing_payment_method === "pause";
  return pauses && !canPay(store, customer) ? "paused" : "active";
}

/** The lines of the renewal at `now`, and the items in their next period. */
export function renewalOf(context: Context, current: Subscription, now: number) {
  const anchor = current.billing_cycle_anchor;
  const ended = current.items.data.filter((item) => item.current_period_end <= now);
  const counted = current.status === "trialing" ? [] : ended.filter(isMetered);
  const metered = counted.map((item) => ({ item, period: periodOf(item) }));
  const begun = ended.map((item) => ({
    ...item,
    current_period_start: item.current_period_end,
    current_period_end: nextBoundary(anchor, item.price, item.current_period_end),
  }));
  const items = current.items.data.map((item) => begun.find(({ id }) => id === item.id) ?? item);
  const billed = current.cancel_at_period_end ? [] : begun;
  const lines = billed.flatMap((item) => baseLines(context.store, item, periodOf(item), stubOf(anchor, item)));
  const [first] = ended;
  const period = first === undefined ? { start: now, end: now } : periodOf(first);
  return { reason: "subscription_cycle", lines, metered, items, period } as const;
}

export interface Change {
  proration: Proration;
  /** Starts a new billing period now. */
  restart: boolean;
}

/**
 * Stores a changed subscription and emits its event. Prorations and the usage of removed metered items wait for the next
 * invoice. With `always_invoice` and at a restart the invoice is made and collected at once. Returns that invoice, if any.
 */
export function billChange(
  context: Context,
  before: Subscription,
  after: Subscription,
  { proration, restart }: Change,
): Invoice | undefined {
  const now = nowSeconds(context);
  const counts = before.status !== "trialing";
  const next = (item: SubscriptionItem) => after.items.data.find(({ id }) => id === item.id);
  for (const item of before.items.data.filter(() => counts)) {
    if (!restart && !differs(item, next(item))) continue;
    if (!isMetered(item) && proration !== "none") prorate(context, before, item, "Unused time on");
    if (
      isMetered(item) &&
      !restart &&
      before.billing_mode.type === "flexible" &&
      item.price.id !== next(item)?.price.id
    ) {
      invoiceUsageSoFar(context, before, item);
    }
  }
  if (counts && !restart && proration !== "none") {
    for (const item of after.items.data.filter((each) => !isMetered(each))) {
      const old = before.items.data.find(({ id }) => id === item.id);
      if (old === undefined || differs(old, item)) prorate(context, after, item, "Remaining time on");
    }
  }
  const metered = counts && restart ? usageUntil(before, now) : [];
  const lines = restart
    ? after.items.data.flatMap((item) =>
        baseLines(context.store, item, periodOf(item), stubOf(after.billing_cycle_anchor, item)),
      )
    : [];
  const draft =
    restart || proration === "always_invoice"
      ? draftOf(context, after, { reason: "subscription_update", lines, metered, finalizesAt: null })
      : undefined;
  context.save(
    "customer.subscription.updated",
    { ...after, latest_invoice: draft?.id ?? after.latest_invoice },
    before,
  );
  return draft === undefined ? undefined : finalizeInvoice(context, draft);
}

/** Ends a subscription at once. Without a final invoice, its last usage is never billed. */
export function billEnd(
  context: Context,
  current: Subscription,
  { invoiceNow, credit }: { invoiceNow: boolean; credit: boolean },
): Subscription {
  const counts = current.status !== "trialing";
  if (credit && counts) {
    for (const item of current.items.data) if (!isMetered(item)) prorate(context, current, item, "Unused time on");
  }
  if (!invoiceNow && !credit) {
    for (const item of pendingItems(context.store, current.customer, current.id)) {
      if (item.proration) dropInvoiceItem(context, item);
    }
  }
  const metered = counts ? current.items.data.filter(isMetered).map((item) => ({ item, period: periodOf(item) })) : [];
  const draft = invoiceNow
    ? draftOf(context, current, { reason: "subscription_update", lines: [], metered, finalizesAt: null })
    : undefined;
  const last = { ...current, latest_invoice: draft?.id ?? current.latest_invoice };
  const ended = endSubscription(context, last, "cancellation_requested");
  if (draft !== undefined) finalizeInvoice(context, draft);
  return ended;
}

type Order = Pick<NewInvoice, "reason" | "lines" | "finalizesAt"> &
  Partial<Pick<NewInvoice, "metered" | "period" | "autoAdvance">>;

/** Makes the draft of the next invoice with all pending items. Makes none when it would be empty. */
function draftOf(context: Context, subscription: Subscription, order: Order): Invoice | undefined {
  const pending = pendingItems(context.store, subscription.customer, subscription.id);
  const { lines, metered = [], period, autoAdvance = true } = order;
  if (pending.length + lines.length + metered.length === 0) return undefined;
  const now = nowSeconds(context);
  return makeInvoice(context, {
    ...order,
    customer: subscription.customer,
    subscription,
    metered,
    pending,
    period: period ?? { start: now, end: now },
    autoAdvance,
  });
}

/** Charges ("Remaining time on") or credits ("Unused time on") an item for the rest of its period. */
function prorate(
  context: Context,
  subscription: Subscription,
  item: SubscriptionItem,
  what: "Remaining time on" | "Unused time on",
): void {
  const period = { start: nowSeconds(context), end: item.current_period_end };
  const whole = fullPeriodBefore(subscription.billing_cycle_anchor, item.price, period.end);
  for (const charge of chargesFor(item.price, item.quantity ?? 1)) {
    const amount = what === "Unused time on" ? -charge.amount : charge.amount;
    addInvoiceItem(context, {
      ...itemOf(subscription, item, charge.unitAmount),
      quantity: charge.quantity,
      amount: share(amount, period.end - period.start, whole),
      description: `${what} ${describe(context.store, item.price, charge.quantity)}`,
      period,
      proration: true,
    });
  }
}

/** Adds the usage at the item's price, before the price is removed. Adds nothing without usage. */
function invoiceUsageSoFar(context: Context, subscription: Subscription, item: SubscriptionItem): void {
  const period = periodOf(item);
  const quantity = usageOf(context.store, subscription.customer, { item, period });
  if (quantity <= 0) return;
  for (const charge of chargesFor(item.price, quantity)) {
    addInvoiceItem(context, {
      ...itemOf(subscription, item, charge.unitAmount),
      quantity: charge.quantity,
      amount: charge.amount,
      description: describe(context.store, item.price, charge.quantity),
      period: { start: period.start, end: nowSeconds(context) },
      proration: false,
    });
  }
}

function itemOf(subscription: Subscription, item: SubscriptionItem, unitAmount: string) {
  return {
    customer: subscription.customer,
    currency: subscription.currency,
    pricing: {
      price_details: { price: item.price.id, product: productOf(item.price) },
      type: "price_details" as const,
      unit_amount_decimal: unitAmount,
    },
    subscription: { subscription: subscription.id, subscription_item: item.id },
  };
}

/** The metered items with periods that end at an instant. */
function usageUntil(subscription: Subscription, end: number): MeteredLine[] {
  return subscription.items.data
    .filter(isMetered)
    .map((item) => ({ item, period: { start: item.current_period_start, end } }));
}

function differs(old: SubscriptionItem, current: SubscriptionItem | undefined): boolean {
  return current === undefined || old.price.id !== current.price.id || old.quantity !== current.quantity;
}

function isMetered(item: SubscriptionItem): boolean {
  return item.price.recurring?.usage_type === "metered";
}

function periodOf(item: SubscriptionItem): Period {
  return { start: item.current_period_start, end: item.current_period_end };
}

/** The share of a full period, if the item's period is shorter. */
function stubOf(anchor: number, item: SubscriptionItem): Share | undefined {
  const whole = fullPeriodBefore(anchor, item.price, item.current_period_end);
  const part = item.current_period_end - item.current_period_start;
  return part < whole ? { part, whole } : undefined;
}
