// Decides what Stripe's subscriptions mean for a tenant. The input is the current subscriptions, never an event. So the
// order and the repetition of events do not matter: the last read from Stripe decides.
import type { Subscription } from "../adapters/stripe/subscriptions.ts";
import type { PlanName } from "../core/plans/plans.ts";
import type { TenantState } from "../core/tenant/tenant.ts";
import { type Suspender, afterEvent } from "../core/tenant/tenant-state.ts";
import { DAY_MS, HOUR_MS } from "../core/time.ts";

/** The fields of a tenant's row that a subscription decides, and the fields that the decision needs. */
export interface TenantSubscription {
  id: string;
  state: TenantState;
  /** Who suspended the tenant. `null` in all other states but `leaving`. No event ends a suspension by the operator. */
  suspendedBy: Suspender | null;
  plan: PlanName;
  subscriptionId: string | null;
  trialUntilMs: number | null;
  pastDueSinceMs: number | null;
  periodStartMs: number | null;
  periodEndMs: number | null;
  cancelAtMs: number | null;
  endedAtMs: number | null;
  /** An open plan change ends the subscription. Then the tenant pays by contract. */
  leavesStripe: boolean;
}

/**
 * Extra time before the tenant's object ends a trial by its own clock. Stripe decides when a trial ends. A late webhook must
 * not lead to a refusal of a customer who has started to pay.
 */
export const TRIAL_END_SLACK_MS = DAY_MS;

/** Statuses of a subscription that is over: cancelled, or never paid. */
const ended: ReadonlySet<string> = new Set(["canceled", "incomplete_expired"]);

const stateByStatus: Readonly<Record<string, "trial" | "active" | "past_due" | "suspended">> = {
  trialing: "trial",
  active: "active",
  past_due: "past_due",
  unpaid: "past_due", // Stripe has stopped its retries. Tollgate decides how long it serves the tenant.
  incomplete: "suspended", // never paid yet
  paused: "suspended", // a trial that ended without a way to pay
  canceled: "suspended",
  incomplete_expired: "suspended",
};

/** Statuses that a pause of the collection can stop. */
const collected: ReadonlySet<string> = new Set(["trialing", "active", "past_due", "unpaid"]);

const eventOf = {
  paused: "subscription_paused",
  trial: "subscription_trialing",
  active: "subscription_active",
  past_due: "subscription_past_due",
  suspended: "subscription_suspended",
} as const;

/**
 * Picks the tenant's subscription among those of its customer: the current one, until it has ended and a newer one with the
 * tenant's id replaces it. `undefined` when the customer has none for this tenant.
 */
export function subscriptionOf(
  tenant: Pick<TenantSubscription, "id" | "subscriptionId">,
  candidates: readonly Subscription[],
): Subscription | undefined {
  const current = candidates.find(({ id }) => id === tenant.subscriptionId);
  if (current !== undefined && !ended.has(current.status)) return current;
  const since = current?.createdAtMs ?? -Infinity;
  const others = candidates.filter(
    (each) => each.tenantId === tenant.id && each.createdAtMs >= since && each.id !== current?.id,
  );
  // Skip subscriptions whose first payment is pending: it may never succeed.
  const lives = others.filter(({ status }) => !ended.has(status) && status !== "incomplete");
  const over = current === undefined ? [] : [current, ...others.filter(({ status }) => ended.has(status))];
  return newest(lives) ?? newest(over);
}

function newest(subscriptions: readonly Subscription[]): Subscription | undefined {
  // Stripe's times are whole seconds. Ids break a tie, so that every run chooses the same subscription.
  return subscriptions.toSorted((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1))[0];
}

/** The tenant's row for these subscriptions of its customer. `nowMs` replaces dates that Stripe does not give. */
export function afterSubscriptions(
  tenant: TenantSubscription,
  candidates: readonly Subscription[],
  nowMs: number,
): TenantSubscription {
  if (tenant.state === "gone") return tenant;
  const subscription = subscriptionOf(tenant, candidates);
  if (subscription === undefined) return tenant;
  const isOver = ended.has(subscription.status);
  if (isOver && tenant.leavesStripe) return tenant;
  // Stripe's guide: an operator that does not serve for a while voids the invoices. The other behaviors of a pause give
  // service for free or delay its payment.
  const isPaused = subscription.pausedCollection === "void" && collected.has(subscription.status);
  const status = stateByStatus[subscription.status];
  const billed = isPaused ? "paused" : status;
  const pastDue = status === "past_due";
  const after: TenantSubscription = {
    ...tenant,
    plan: subscription.plan ?? tenant.plan,
    subscriptionId: subscription.id,
    trialUntilMs:
      status === "trial" && subscription.trialUntilMs !== null ? subscription.trialUntilMs + TRIAL_END_SLACK_MS : null,
    pastDueSinceMs: pastDue ? (subscription.unpaidSinceMs ?? tenant.pastDueSinceMs ?? nowMs) : null,
    periodStartMs: subscription.periodStartMs,
    periodEndMs: subscription.periodEndMs,
    cancelAtMs: isOver ? null : subscription.cancelAtMs,
    endedAtMs: isOver ? (subscription.endedAtMs ?? tenant.endedAtMs ?? nowMs) : null,
  };
  const next = billed === undefined ? undefined : afterEvent(tenant, eventOf[billed], nowMs);
  return next === undefined ? after : { ...after, state: next.state, suspendedBy: next.suspendedBy };
}

/**
 * The tenant's other running subscriptions, which bill the same service and the same usage twice: a buyer paid in two tabs.
 * None while the tenant leaves: a reactivation may be at work.
 */
export function duplicatesOf(tenant: TenantSubscription, candidates: readonly Subscription[]): Subscription[] {
  if (tenant.state === "leaving" || tenant.state === "gone") return [];
  const own = subscriptionOf(tenant, candidates);
  if (own === undefined || ended.has(own.status)) return [];
  return candidates.filter(
    ({ id, tenantId, status }) =>
      tenantId === tenant.id && id !== own.id && !ended.has(status) && status !== "incomplete",
  );
}

/** Whether the tenant's running subscription has no price of Tollgate's. The tenant keeps its plan: a person must look. */
export function hasForeignPrice(tenant: TenantSubscription, candidates: readonly Subscription[]): boolean {
  const own = subscriptionOf(tenant, candidates);
  return own !== undefined && !ended.has(own.status) && own.plan === null;
}

/** Minimum time that a buyer has to pay. Stripe requires half an hour. */
const CHECKOUT_LIFE_MS = HOUR_MS;

/**
 * The billing cycle anchor of a subscription that is ordered now, in epoch milliseconds. It is at 00:00 UTC, so that no day
 * belongs to two periods, and late enough for the buyer to pay before it. With a trial it is the end of the trial's last day.
 */
export function cycleAnchorMs(nowMs: number, trialDays: number): number {
  return (Math.floor((nowMs + CHECKOUT_LIFE_MS) / DAY_MS) + 1 + trialDays) * DAY_MS;
}
