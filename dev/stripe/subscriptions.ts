// Subscriptions: creation (through the API or by a paid Checkout session), changes and cancellation. The file
// subscription-billing.ts makes their invoices.
import * as z from "zod";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest, declined, noSuch } from "./errors.ts";
import { clearable, created, flag, integer, mergeMetadata, metadata, natural, page, text } from "./form.ts";
import { chargesFor } from "./money.ts";
import { canPay, readCancellationSettings } from "./payments.ts";
import type { Price, Subscription, SubscriptionData } from "./objects.ts";
import { newId, where, whereIn, whereRange } from "./store.ts";
import { billChange, billEnd, billStart } from "./subscription-billing.ts";
import {
  addIntervals,
  changeItems,
  checkLine,
  itemChange,
  type Line,
  newItem,
  nextBoundary,
  recurringOf,
} from "./subscription-items.ts";

const DAY_S = 86_400;
const prorationBehavior = z.enum(["always_invoice", "create_prorations", "none"]);

/** Checkout's `subscription_data` uses these, too. */
export const subscriptionData = {
  billing_cycle_anchor: integer.optional(),
  billing_mode: z.strictObject({ type: z.enum(["flexible", "classic"]) }).optional(),
  description: text.optional(),
  metadata: metadata.transform((value) => (value === "" ? {} : value)).optional(),
  proration_behavior: prorationBehavior.optional(),
  trial_end: integer.optional(),
  trial_period_days: integer.refine((days) => days >= 1 && days <= 730, "must be between 1 and 730").optional(),
};
export const subscriptionCreate = z.strictObject({
  ...subscriptionData,
  cancel_at_period_end: flag.optional(),
  customer: text,
  items: z
    .array(z.strictObject({ metadata: metadata.optional(), price: text, quantity: natural.optional() }))
    .min(1)
    .max(20),
  payment_behavior: z.enum(["allow_incomplete", "error_if_incomplete"]).optional(),
});
export const subscriptionUpdate = z.strictObject({
  billing_cycle_anchor: z.strictObject({ type: z.enum(["now", "unchanged"]) }).optional(),
  cancel_at_period_end: flag.optional(),
  description: clearable.optional(),
  items: z.array(itemChange).max(20).optional(),
  metadata: metadata.optional(),
  pause_collection: z
    .union([
      z.literal(""),
      z.strictObject({
        behavior: z.enum(["keep_as_draft", "mark_uncollectible", "void"]),
        resumes_at: integer.optional(),
      }),
    ])
    .optional(),
  payment_behavior: z.enum(["allow_incomplete", "error_if_incomplete"]).optional(),
  proration_behavior: prorationBehavior.optional(),
  trial_end: z.union([z.literal("now"), integer]).optional(),
  trial_settings: z
    .strictObject({
      end_behavior: z.strictObject({ missing_payment_method: z.enum(["cancel", "create_invoice", "pause"]) }),
    })
    .optional(),
});
export const subscriptionCancel = z.strictObject({
  cancellation_details: z.strictObject({ comment: clearable.optional(), feedback: clearable.optional() }).optional(),
  invoice_now: flag.optional(),
  prorate: flag.optional(),
});
const statuses = [
  "active",
  "all",
  "canceled",
  "ended",
  "incomplete",
  "incomplete_expired",
  "past_due",
  "paused",
  "trialing",
  "unpaid",
] as const;
export const subscriptionList = z.strictObject({
  ...page,
  created: created.optional(),
  customer: text.optional(),
  price: text.optional(),
  status: z.enum(statuses).optional(),
});

export function createSubscription(context: Context, params: z.output<typeof subscriptionCreate>): Subscription {
  context.store.get("customer", params.customer, "customer");
  const lines = params.items.map((item, index) => ({
    ...checkLine(context, item.price, item.quantity, `items[${index}]`),
    metadata: mergeMetadata(null, item.metadata),
  }));
  checkData(context, params, lines, "");
  const started = startSubscription(context, params.customer, lines, params, params.cancel_at_period_end ?? false);
  if (params.payment_behavior === "error_if_incomplete" && started.status === "incomplete") throw declined();
  return started;
}

/** Refuses invalid anchors and mixed currencies, like Stripe. `at` is the prefix of parameter names. */
export function checkData(context: Context, data: SubscriptionData, lines: readonly Line[], at: string): void {
  const now = nowSeconds(context);
  const [first] = lines;
  if (lines.some(({ price }) => price.currency !== first?.price.currency)) {
    throw badRequest("All prices must have the same currency.", { param: at === "" ? "items" : "line_items" });
  }
  if (data.trial_end !== undefined && data.trial_end <= now) {
    const param = at === "" ? "trial_end" : `${at}[trial_end]`;
    throw badRequest("`trial_end` must be a timestamp in the future.", { param });
  }
  const anchor = data.billing_cycle_anchor;
  if (anchor === undefined) return;
  const param = at === "" ? "billing_cycle_anchor" : `${at}[billing_cycle_anchor]`;
  if (anchor <= now) throw badRequest("`billing_cycle_anchor` must be a timestamp in the future.", { param });
  if (first !== undefined && anchor > addIntervals(now, recurringOf(first.price), 1)) {
    throw badRequest("`billing_cycle_anchor` cannot be later than the next natural billing date.", { param });
  }
}

/**
 * Creates and bills the subscription and emits its event: trialing with a trial, else active. Its first period ends at the
 * anchor, if it has one. If the anchor has passed (in an old Checkout session), the first period begins there.
 */
export function startSubscription(
  context: Context,
  customer: string,
  lines: readonly Line[],
  data: SubscriptionData,
  cancelAtPeriodEnd: boolean,
): Subscription {
  const now = nowSeconds(context);
  const id = newId("sub_");
  const trialEnd = trialEndOf(data, now);
  const anchor = data.billing_cycle_anchor ?? trialEnd ?? now;
  const firstPeriod = (price: Price) => ({
    start: trialEnd === null ? Math.min(anchor, now) : now,
    end: trialEnd ?? nextBoundary(anchor, price, now),
  });
  const items = lines.map((line) => newItem(id, line, now, firstPeriod(line.price)));
  const ends = Math.min(...items.map((item) => item.current_period_end));
  const subscription: Subscription = {
    id,
    object: "subscription",
    application: null,
    application_fee_percent: null,
    automatic_tax: { disabled_reason: null, enabled: false, liability: null },
    billing_cycle_anchor: anchor,
    billing_cycle_anchor_config: null,
    billing_mode:
      data.billing_mode?.type === "classic"
        ? { flexible: null, type: "classic" }
        : { flexible: { proration_discounts: "included" }, type: "flexible" },
    billing_schedules: [],
    billing_thresholds: null,
    cancel_at: cancelAtPeriodEnd ? ends : null,
    cancel_at_period_end: cancelAtPeriodEnd,
    canceled_at: cancelAtPeriodEnd ? now : null,
    cancellation_details: { comment: null, feedback: null, feedback_option: null, reason: null },
    collection_method: "charge_automatically",
    created: now,
    currency: lines[0]?.price.currency ?? "usd",
    customer,
    customer_account: null,
    days_until_due: null,
    default_payment_method: null,
    default_source: null,
    default_tax_rates: [],
    description: data.description ?? null,
    discounts: [],
    ended_at: null,
    invoice_settings: {
      account_tax_ids: null,
      custom_fields: null,
      description: null,
      footer: null,
      issuer: { type: "self" },
    },
    items: { object: "list", data: items, has_more: false, url: `/v1/subscription_items?subscription=${id}` },
    latest_invoice: null,
    livemode: false,
    managed_payments: null,
    metadata: data.metadata ?? {},
    next_pending_invoice_item_invoice: null,
    on_behalf_of: null,
    pause_collection: null,
    payment_settings: { payment_method_options: null, payment_method_types: null, save_default_payment_method: "off" },
    pending_invoice_item_interval: null,
    pending_setup_intent: null,
    pending_update: null,
    schedule: null,
    start_date: now,
    status: trialEnd === null ? "active" : "trialing",
    test_clock: null,
    transfer_data: null,
    trial_end: trialEnd,
    trial_settings: { end_behavior: { billing_cycle_anchor: null, missing_payment_method: "create_invoice" } },
    trial_start: trialEnd === null ? null : now,
  };
  return billStart(context, subscription, data.proration_behavior ?? "create_prorations");
}

/** End of the trial of a subscription that starts now; `null` without a trial. */
export function trialEndOf(data: SubscriptionData, now: number): number | null {
  return data.trial_end ?? (data.trial_period_days === undefined ? null : now + data.trial_period_days * DAY_S);
}

export function updateSubscription(
  context: Context,
  params: z.output<typeof subscriptionUpdate>,
  id: string,
): Subscription {
  const current = context.store.get("subscription", id);
  const endsAtPeriodEnd = params.cancel_at_period_end;
  if (current.status === "canceled" && (params.items !== undefined || endsAtPeriodEnd !== undefined)) {
    throw badRequest("A canceled subscription can only update its cancellation_details and metadata.");
  }
  const changed = withTrialEnd(context, changeItems(context, current, params.items ?? []), params.trial_end);
  const wanted = params.billing_cycle_anchor?.type;
  const restart =
    wanted === "now" ||
    changed.billing_cycle_anchor !== current.billing_cycle_anchor ||
    (wanted !== "unchanged" && movesToPaid(current, changed)) ||
    (current.status === "trialing" && changed.status === "active");
  const timed = restart ? restarted(context, changed, wanted === "unchanged") : changed;
  const updated: Subscription = {
    ...timed,
    description: params.description === undefined ? current.description : params.description,
    metadata: mergeMetadata(current.metadata, params.metadata),
    trial_settings:
      params.trial_settings === undefined
        ? current.trial_settings
        : { end_behavior: { billing_cycle_anchor: null, ...params.trial_settings.end_behavior } },
    pause_collection: pauseAfter(current, params.pause_collection),
    ...(endsAtPeriodEnd === undefined
      ? {}
      : {
          cancel_at_period_end: endsAtPeriodEnd,
          cancel_at: endsAtPeriodEnd && !readCancellationSettings(context.store).flagOnly ? periodEnd(timed) : null,
          canceled_at: endsAtPeriodEnd ? nowSeconds(context) : null,
          cancellation_details: {
            ...(current.cancellation_details ?? noDetails),
            reason: endsAtPeriodEnd ? "cancellation_requested" : null,
          },
        }),
  };
  const proration = params.proration_behavior ?? "create_prorations";
  const invoice = billChange(context, current, updated, { proration, restart });
  if (params.payment_behavior === "error_if_incomplete" && invoice?.status === "open") throw declined();
  return context.store.get("subscription", id);
}

function pauseAfter(
  current: Subscription,
  wanted: z.output<typeof subscriptionUpdate>["pause_collection"],
): Subscription["pause_collection"] {
  if (wanted === undefined) return current.pause_collection;
  return wanted === "" ? null : { behavior: wanted.behavior, resumes_at: wanted.resumes_at ?? null };
}

export const subscriptionResume = z.strictObject({
  billing_cycle_anchor: z.strictObject({ type: z.enum(["now", "unchanged"]) }).optional(),
});

/** Lets a subscription run again that was paused after its trial. It needs a way to pay. */
export function resumeSubscription(
  context: Context,
  params: z.output<typeof subscriptionResume>,
  id: string,
): Subscription {
  const current = context.store.get("subscription", id);
  if (current.status !== "paused") throw badRequest("Only a paused subscription can be resumed.");
  if (!canPay(context.store, current.customer)) throw declined();
  const active: Subscription = { ...current, status: "active" };
  const resumed = params.billing_cycle_anchor?.type === "unchanged" ? active : restarted(context, active, false);
  context.save("customer.subscription.updated", resumed, current);
  return resumed;
}

/** Moves a trial's end: to another instant, or to now, which makes the subscription active. */
function withTrialEnd(context: Context, current: Subscription, trialEnd: "now" | number | undefined): Subscription {
  if (trialEnd === undefined) return current;
  if (current.status !== "trialing") {
    if (trialEnd === "now") return current;
    throw badRequest("The simulator starts a trial with a subscription only.", { param: "trial_end" });
  }
  const now = nowSeconds(context);
  if (trialEnd === "now") return { ...current, status: "active", trial_end: now };
  if (trialEnd <= now) throw badRequest("`trial_end` must be a timestamp in the future.", { param: "trial_end" });
  const items = current.items.data.map((item) => ({ ...item, current_period_end: trialEnd }));
  return { ...current, trial_end: trialEnd, items: { ...current.items, data: items } };
}

/** Starts a new period for all items. The anchor moves to now unless it is kept. */
function restarted(context: Context, current: Subscription, keepsAnchor: boolean): Subscription {
  const now = nowSeconds(context);
  const anchor = keepsAnchor ? current.billing_cycle_anchor : now;
  const items = current.items.data.map((item) => ({
    ...item,
    current_period_start: now,
    current_period_end: nextBoundary(anchor, item.price, now),
  }));
  return { ...current, billing_cycle_anchor: anchor, items: { ...current.items, data: items } };
}

/** Stripe bills at once and moves the anchor when a free subscription gets a price. */
function movesToPaid(before: Subscription, after: Subscription): boolean {
  return before.status !== "trialing" && isFree(before) && !isFree(after);
}

function isFree(subscription: Subscription): boolean {
  return subscription.items.data.every(({ price, quantity }) =>
    chargesFor(price, quantity ?? Number.MAX_SAFE_INTEGER).every(({ amount }) => amount === 0),
  );
}

export function cancelSubscription(
  context: Context,
  params: z.output<typeof subscriptionCancel>,
  id: string,
): Subscription {
  const current = context.store.get("subscription", id);
  if (current.status === "canceled") throw noSuch("subscription", id);
  const details = { ...(current.cancellation_details ?? noDetails), reason: "cancellation_requested" as const };
  const { comment = details.comment, feedback = details.feedback } = params.cancellation_details ?? {};
  const named = { ...current, cancellation_details: { ...details, comment, feedback } };
  return billEnd(context, named, { invoiceNow: params.invoice_now ?? false, credit: params.prorate ?? false });
}

export function listSubscriptions(context: Context, params: z.output<typeof subscriptionList>) {
  const { status, price } = params;
  return context.store.list("subscription", "/v1/subscriptions", params, [
    where("customer", params.customer),
    whereRange("created", params.created),
    status === "all" || status === "ended" ? undefined : where("status", status),
    status === "ended" ? whereIn("status", ["canceled", "incomplete_expired"]) : undefined,
    status === undefined ? { sql: "json_extract(json, '$.status') <> 'canceled'", values: [] } : undefined,
    price === undefined
      ? undefined
      : {
          sql: "EXISTS (SELECT 1 FROM json_each(json, '$.items.data') WHERE value ->> '$.price.id' = ?)",
          values: [price],
        },
  ]);
}

/** The next scheduled change of the subscription, in seconds. */
export function periodEnd(subscription: Subscription): number {
  return Math.min(...subscription.items.data.map((item) => item.current_period_end));
}

const noDetails = { comment: null, feedback: null, feedback_option: null, reason: null };
