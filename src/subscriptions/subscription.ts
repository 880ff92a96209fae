// What Stripe's subscriptions mean for a tenant. Decided from the subscriptions as they are now, never from an event, so
// that order and repetition of events do not matter: whatever was seen in between, what is seen last decides alone.
import type { Subscription } from "../adapters/stripe-subscriptions.ts";
import type { PlanName } from "../core/plans.ts";
import type { TenantState } from "../core/tenant.ts";

/** Of a tenant's row: what billing decides, and what it must know to decide. */
export interface TenantBilling {
  id: string;
  state: TenantState;
  /** Who has suspended the tenant; `null` in all other states. What the operator did, no event undoes. */
  suspendedBy: "operator" | "billing" | null;
  plan: PlanName;
  subscriptionId: string | null;
  trialUntilMs: number | null;
  pastDueSinceMs: number | null;
  periodStartMs: number | null;
  periodEndMs: number | null;
  cancelAtMs: number | null;
  endedAtMs: number | null;
  /** An open change of plan ends the subscription: it goes on by contract. */
  leavesStripe: boolean;
}

/**
 * A trial that Stripe keeps ends when Stripe says so. The tenant's own object, which ends a trial by its clock, waits for
 * this much longer: a webhook that is late must not refuse a customer who pays from now on.
 */
export const TRIAL_END_SLACK_MS = 86_400_000;

/** What is left out of a subscription that is cut off by its first payment, or by its last one. */
const ended: ReadonlySet<string> = new Set(["canceled", "incomplete_expired"]);

const stateByStatus: Readonly<Record<string, "trial" | "active" | "past_due" | "suspended">> = {
  trialing: "trial",
  active: "active",
  past_due: "past_due",
  unpaid: "past_due", // Stripe has stopped trying; how long the tenant is served does not depend on that
  incomplete: "suspended", // never paid yet
  paused: "suspended", // a trial that ended without a way to pay
  canceled: "suspended",
  incomplete_expired: "suspended",
};

/** The states that billing decides on. The others belong to provisioning, to removal, or are over. */
const decided: ReadonlySet<TenantState> = new Set(["trial", "active", "past_due", "suspended"]);

/**
 * Which of a customer's subscriptions is the tenant's: the one that it has, until that has ended and a newer one that
 * carries the tenant's id takes its place. `undefined`: none is.
 */
export function subscriptionOf(
  tenant: Pick<TenantBilling, "id" | "subscriptionId">,
  candidates: readonly Subscription[],
): Subscription | undefined {
  const current = candidates.find(({ id }) => id === tenant.subscriptionId);
  if (current !== undefined && !ended.has(current.status)) return current;
  const since = current?.createdAtMs ?? -Infinity;
  const others = candidates.filter(
    (each) => each.tenantId === tenant.id && each.createdAtMs >= since && each.id !== current?.id,
  );
  // Of one whose first payment is still to come nobody knows whether it will ever be.
  const lives = others.filter(({ status }) => !ended.has(status) && status !== "incomplete");
  const over = current === undefined ? [] : [current, ...others.filter(({ status }) => ended.has(status))];
  return newest(lives) ?? newest(over);
}

function newest(subscriptions: readonly Subscription[]): Subscription | undefined {
  // Stripe's times are whole seconds: of two in one second the ids decide, so that everybody chooses the same.
  return subscriptions.toSorted((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1))[0];
}

/** The tenant's row as it must be for these subscriptions of its customer. `nowMs`: for what Stripe does not date. */
export function billingAfter(tenant: TenantBilling, candidates: readonly Subscription[], nowMs: number): TenantBilling {
  if (tenant.state === "gone") return tenant;
  const subscription = subscriptionOf(tenant, candidates);
  if (subscription === undefined) return tenant;
  const isOver = ended.has(subscription.status);
  if (isOver && tenant.leavesStripe) return tenant;
  const billed = stateByStatus[subscription.status];
  const pastDue = billed === "past_due";
  const after: TenantBilling = {
    ...tenant,
    plan: subscription.plan ?? tenant.plan,
    subscriptionId: subscription.id,
    trialUntilMs:
      billed === "trial" && subscription.trialUntilMs !== null ? subscription.trialUntilMs + TRIAL_END_SLACK_MS : null,
    pastDueSinceMs: pastDue ? (subscription.unpaidSinceMs ?? tenant.pastDueSinceMs ?? nowMs) : null,
    periodStartMs: subscription.periodStartMs,
    periodEndMs: subscription.periodEndMs,
    cancelAtMs: isOver ? null : subscription.cancelAtMs,
    endedAtMs: isOver ? (subscription.endedAtMs ?? tenant.endedAtMs ?? nowMs) : null,
  };
  const held = tenant.state === "suspended" && tenant.suspendedBy !== "billing";
  if (billed === undefined || held || !decided.has(tenant.state)) return after;
  return { ...after, state: billed, suspendedBy: billed === "suspended" ? "billing" : null };
}

const DAY_MS = 86_400_000;
/** A buyer has at least this long for paying; Stripe asks for half an hour. */
const CHECKOUT_LIFE_MS = 3_600_000;

/**
 * Where the billing periods of a subscription begin that is ordered now: at a 00:00 UTC, so that no day belongs to two of
 * them, far enough ahead that it is still to come when the buyer has paid. With a trial, at the end of its last day.
 */
export function cycleAnchorMs(nowMs: number, trialDays: number): number {
  return (Math.floor((nowMs + CHECKOUT_LIFE_MS) / DAY_MS) + 1 + trialDays) * DAY_MS;
}
