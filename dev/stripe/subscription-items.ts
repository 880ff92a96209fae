// The items of a subscription: allowed lines, changes, and the calendar of their periods.
// Periods are UTC calendar intervals counted from the billing anchor, so they never drift.
import * as z from "zod";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest, noSuch } from "./errors.ts";
import { flag, mergeMetadata, metadata, natural, text } from "./form.ts";
import { lastUsageSeq } from "./meters.ts";
import type { Plan, Price, Subscription, SubscriptionItem } from "./objects.ts";
import { newId } from "./store.ts";

const DAY_S = 86_400;
export const itemChange = z.strictObject({
  deleted: flag.optional(),
  id: text.optional(),
  metadata: metadata.optional(),
  price: text.optional(),
  quantity: natural.optional(),
});
export interface Line {
  price: Price;
  quantity: number | undefined;
  metadata?: Record<string, string>;
}
type Recurring = NonNullable<Price["recurring"]>;

/** The price of a line after Stripe's checks: recurring, active, a quantity for licensed prices only. */
export function checkLine(context: Context, priceId: string, given: number | undefined, param: string): Line {
  const price = context.store.get("price", priceId, `${param}[price]`);
  if (!price.active)
    throw badRequest("The price specified is inactive. This field only accepts active prices.", {
      param: `${param}[price]`,
    });
  if (price.recurring === null) {
    const message =
      "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.";
    throw badRequest(message, { param: `${param}[price]` });
  }
  const metered = price.recurring.usage_type === "metered";
  if (metered && given !== undefined) {
    throw badRequest("You cannot specify `quantity` when the price's `usage_type` is `metered`.", {
      param: `${param}[quantity]`,
    });
  }
  return { price, quantity: metered ? undefined : given };
}

/**
 * Applies the `items` of an update: an id changes an item, no id adds one, `deleted` removes one. In flexible billing mode,
 * usage from before is not billed at a new price.
 */
export function changeItems(
  context: Context,
  current: Subscription,
  changes: readonly z.output<typeof itemChange>[],
): Subscription {
  const now = nowSeconds(context);
  let items = current.items.data;
  let anchor = current.billing_cycle_anchor;
  changes.forEach((change, index) => {
    const param = `items[${index}]`;
    const old = items.find((item) => item.id === change.id);
    if (change.id !== undefined && old === undefined) throw noSuch("subscription_item", change.id, `${param}[id]`);
    if (change.deleted === true) {
      if (old === undefined)
        throw badRequest(`Missing required param: ${param}[id].`, { code: "parameter_missing", param: `${param}[id]` });
      items = items.filter((item) => item !== old);
      return;
    }
    const priceId = change.price ?? old?.price.id;
    if (priceId === undefined)
      throw badRequest(`Missing required param: ${param}[price].`, {
        code: "parameter_missing",
        param: `${param}[price]`,
      });
    const line = checkLine(context, priceId, change.quantity, param);
    const like = old ?? current.items.data.find((item) => sameInterval(item.price, line.price));
    // A price with another interval starts a new period and moves the anchor; the same interval keeps both.
    const keeps = like !== undefined && sameInterval(like.price, line.price);
    if (!keeps) anchor = now;
    const period = keeps
      ? { start: like.current_period_start, end: like.current_period_end }
      : { start: now, end: addIntervals(now, recurringOf(line.price), 1) };
    const segment =
      current.billing_mode.type === "classic" || old?.price.id === line.price.id
        ? (old?.usage_after_seq ?? 0)
        : lastUsageSeq(context.store);
    const made = {
      ...newItem(current.id, { ...line, quantity: line.quantity ?? old?.quantity }, now, period),
      usage_after_seq: segment,
    };
    const merged = mergeMetadata(old?.metadata ?? null, change.metadata);
    const next =
      old === undefined
        ? { ...made, metadata: merged }
        : { ...made, id: old.id, created: old.created, metadata: merged };
    items = old === undefined ? [...items, next] : items.map((item) => (item === old ? next : item));
  });
  if (items.length === 0) throw badRequest("A subscription must have at least one active item.", { param: "items" });
  return { ...current, billing_cycle_anchor: anchor, items: { ...current.items, data: items } };
}

export function newItem(
  subscription: string,
  line: Line,
  now: number,
  period: { start: number; end: number },
): SubscriptionItem {
  const metered = recurringOf(line.price).usage_type === "metered";
  return {
    id: newId("si_"),
    object: "subscription_item",
    billing_thresholds: null,
    created: now,
    current_period_end: period.end,
    current_period_start: period.start,
    current_trial: null,
    discounts: [],
    metadata: line.metadata ?? {},
    plan: planOf(line.price),
    price: line.price,
    ...(metered ? {} : { quantity: line.quantity ?? 1 }),
    subscription,
    tax_rates: [],
  };
}

function planOf(price: Price): Plan {
  const recurring = recurringOf(price);
  return {
    id: price.id,
    object: "plan",
    active: price.active,
    amount: price.unit_amount,
    amount_decimal: price.unit_amount_decimal,
    billing_scheme: price.billing_scheme,
    created: price.created,
    currency: price.currency,
    interval: recurring.interval,
    interval_count: recurring.interval_count,
    livemode: false,
    metadata: price.metadata,
    meter: recurring.meter,
    nickname: price.nickname,
    product: typeof price.product === "string" ? price.product : price.product.id,
    tiers_mode: price.tiers_mode,
    transform_usage: null,
    trial_period_days: null,
    usage_type: recurring.usage_type,
  };
}

export function recurringOf(price: Price): Recurring {
  if (price.recurring === null) throw badRequest("The price is not recurring.");
  return price.recurring;
}

function sameInterval(a: Price, b: Price): boolean {
  const [x, y] = [recurringOf(a), recurringOf(b)];
  return x.interval === y.interval && x.interval_count === y.interval_count;
}

/** The length in seconds of the full period that ends at an instant, of the periods that are counted from the anchor. */
export function fullPeriodBefore(anchor: number, price: Price, end: number): number {
  let count = 0;
  while (addIntervals(anchor, recurringOf(price), count + 1) < end) count += 1;
  while (addIntervals(anchor, recurringOf(price), count) >= end) count -= 1;
  return end - addIntervals(anchor, recurringOf(price), count);
}

/** The first boundary after an instant, of the periods that are counted from the anchor. */
export function nextBoundary(anchor: number, price: Price, after: number): number {
  let count = 0;
  while (addIntervals(anchor, recurringOf(price), count) <= after) count += 1;
  return addIntervals(anchor, recurringOf(price), count);
}

/** `count` intervals after (or before) an instant in seconds; the 31st becomes the last day of a shorter month. */
export function addIntervals(from: number, recurring: Recurring, count: number): number {
  const steps = count * recurring.interval_count;
  if (recurring.interval === "day") return from + steps * DAY_S;
  if (recurring.interval === "week") return from + steps * 7 * DAY_S;
  const months = recurring.interval === "year" ? steps * 12 : steps;
  const date = new Date(from * 1000);
  const day = date.getUTCDate();
  date.setUTCDate(1);
  date.setUTCMonth(date.getUTCMonth() + months);
  const lastDay = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate();
  date.setUTCDate(Math.min(day, lastDay));
  return Math.floor(date.getTime() / 1000);
}
