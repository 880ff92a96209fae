// What a change between two plans that Stripe sells costs, said before it is made. Pure.
//
// Stripe decides: it prorates base prices by the second and puts the difference on the next invoice. A subscription that gets its
// first price is billed at once, and its month begins anew.
import { planOf, type PlanName } from "../core/plans/plans.ts";
import { partOfMonth } from "../lifecycle/removal.ts";
import { cycleAnchorMs } from "./subscription.ts";

export interface PlanTerms {
  /** The base price of each full month from then on. */
  monthlyCents: number;
  /** now: charged with the change. next: on the next invoice. trial: nothing before the trial has ended. */
  due: "now" | "next" | "trial";
  /** What is charged once, or credited when it is negative. On the next invoice it gets smaller with every second. */
  differenceCents: number;
  /** When the next invoice is made. `null`: it is not known yet. */
  nextInvoiceMs: number | null;
}

/** The subscription as the control tables have it. */
export interface PaidPeriod {
  plan: PlanName;
  trialUntilMs: number | null;
  periodEndMs: number | null;
}

/** What a purchase costs. A period begins at `fromMs`; the time until then is paid in proportion, and gets cheaper with every second. */
export interface PurchaseTerms {
  nowCents: number;
  fromMs: number;
  monthlyCents: number;
}

/** What it costs to buy the plan now, for an account without a subscription. */
export function termsOfPurchase(plan: PlanName, nowMs: number): PurchaseTerms {
  const monthlyCents = planOf(plan).amountCents ?? 0;
  const fromMs = cycleAnchorMs(nowMs, 0);
  return { nowCents: partOfMonth(monthlyCents, nowMs, fromMs), fromMs, monthlyCents };
}

/** What the change to the plan costs. `undefined`: one of the plans is by contract. */
export function termsOfChange(from: PaidPeriod, to: PlanName, nowMs: number): PlanTerms | undefined {
  const [now, then] = [planOf(from.plan).amountCents, planOf(to).amountCents];
  if (now === null || then === null) return undefined;
  const { trialUntilMs, periodEndMs } = from;
  const terms = { monthlyCents: then, nextInvoiceMs: periodEndMs };
  if (trialUntilMs !== null && trialUntilMs > nowMs)
    return { ...terms, due: "trial", differenceCents: 0, nextInvoiceMs: trialUntilMs };
  const isFree = now === 0 && planOf(from.plan).unitAmountCents === null;
  if (isFree && then > 0) return { ...terms, due: "now", differenceCents: then, nextInvoiceMs: nowMs };
  if (periodEndMs === null || periodEndMs <= nowMs) return { ...terms, due: "next", differenceCents: then - now };
  const left = (cents: number): number => partOfMonth(cents, nowMs, periodEndMs);
  return { ...terms, due: "next", differenceCents: left(then) - left(now) };
}
