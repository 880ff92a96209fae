// The steps of a tenant's removal, in their order. Closing: calls are refused, and the last usage is reported to Stripe and
// invoiced. Grace: the tenant may be reactivated, as it may be while closing. Dropping: its data is archived and deleted.
// The first dropping step makes the removal irreversible. At the end nothing that the customer owns is left.
import { type PlanName, planOf } from "../core/plans/plans.ts";
import type { TenantState } from "../core/tenant/tenant.ts";
import { type SettlingFacts, type StateChange, afterEvent } from "../core/tenant/tenant-state.ts";
import { DAY_MS } from "../core/time.ts";

/** Long enough to miss a month's invoice, ask why, and return. Data-protection contracts commonly promise this time. */
export const GRACE_MS = 30 * DAY_MS;

/** Who requested the removal: the operator, the tenant's admin, or Stripe by the end of the subscription. */
export const askers = ["operator", "tenant", "billing"] as const;
export type AskedBy = (typeof askers)[number];

export const closingSteps = ["usage", "invoice", "monitor"] as const;
export const droppingSteps = ["archive", "verify", "subscriptions", "places", "files", "object", "erase"] as const;
export type WorkingStep = (typeof closingSteps)[number] | (typeof droppingSteps)[number];

export const removalSteps = [...closingSteps, "grace", ...droppingSteps, "done"] as const;
export type RemovalStep = (typeof removalSteps)[number] | "undone";

export type RemovalPhase = "closing" | "grace" | "dropping" | "done" | "undone";

/** The phase that a step belongs to, as clients see it. */
export function phaseOf(step: RemovalStep): RemovalPhase {
  if (step === "grace" || step === "done" || step === "undone") return step;
  return closingSteps.some((each) => each === step) ? "closing" : "dropping";
}

/** The step after this one. */
export function stepAfter(step: WorkingStep): RemovalStep {
  return removalSteps[removalSteps.indexOf(step) + 1] ?? "done";
}

/**
 * The state of a reactivated tenant by the table of states. A new subscription leaves no debt, no trial and no end of the old
 * one behind, and lifts a suspension that only missing payment had caused.
 */
export function afterReactivation(
  facts: SettlingFacts,
  left: { from: TenantState; askedBy: AskedBy; newSubscription: boolean },
  nowMs: number,
): StateChange {
  const { from, askedBy, newSubscription } = left;
  const known: SettlingFacts = {
    ...facts,
    state: "leaving",
    stateBefore: from,
    suspendedBy: askedBy === "billing" ? "billing" : facts.suspendedBy,
    ...(newSubscription && { trialUntilMs: null, pastDueSinceMs: null, endedAtMs: null }),
  };
  const after = afterEvent(known, "reactivate", nowMs);
  if (after === undefined) throw new Error("the table of states lets no leaving tenant return");
  return after;
}

/** Whether the tenant's removal begins: its subscription has ended, and nothing else holds it. */
export function mustClose({ state, suspendedBy, endedAtMs }: SettlingFacts): boolean {
  return state === "suspended" && suspendedBy === "billing" && endedAtMs !== null;
}

/** Whether a plan is one that Stripe sells. */
export function isSold(plan: PlanName): boolean {
  return planOf(plan).amountCents !== null;
}

/** The first period of a new subscription. */
export interface NewPeriod {
  /** When it ends and the first full period begins: 00:00 UTC, so that no day belongs to two periods. */
  endSeconds: number;
  /** The customer has paid for this time already, or has it as a trial. So the base price is not charged for it. */
  isPaid: boolean;
}

/** Least paid time that is worth a period of its own. Stripe refuses an end in the past, and its answer takes time. */
const LEAST_PAID_MS = 60_000;

/** The first period of a subscription that begins at `nowMs`. `paidUntilMs`: until when the customer has paid. */
export function newPeriod(paidUntilMs: number | null, nowMs: number): NewPeriod {
  if (paidUntilMs !== null && paidUntilMs >= nowMs + LEAST_PAID_MS)
    return { endSeconds: paidUntilMs / 1000, isPaid: true };
  return { endSeconds: ((Math.floor(nowMs / DAY_MS) + 1) * DAY_MS) / 1000, isPaid: false };
}

/** What a reactivation charges, for clients. Usage beyond the included units is charged as before. */
export interface ReactivationTerms {
  plan: PlanName;
  currency: "usd";
  /** The base price that is charged at once. It falls with every second, so the charge is this or less. */
  chargeCents: number;
  /** Until when that, or an earlier payment, covers the base price. `null`: the subscription was not ended. */
  coveredUntil: string | null;
  /** The base price of each month from then on. */
  monthlyCents: number;
}

/**
 * What a reactivation at `nowMs` would charge. `undefined`: the removal cannot be undone any more. `null`: it charges
 * nothing, because Stripe does not bill the tenant.
 */
export function reactivationTerms(
  removal: { step: RemovalStep; plan: PlanName; subscriptionId: string | null; paidUntilMs: number | null },
  nowMs: number,
): ReactivationTerms | null | undefined {
  const phase = phaseOf(removal.step);
  if (phase !== "closing" && phase !== "grace") return undefined;
  const { amountCents } = planOf(removal.plan);
  if (amountCents === null || removal.subscriptionId === null) return null;
  const terms = { plan: removal.plan, currency: "usd", monthlyCents: amountCents } as const;
  // The subscription ends in the step `invoice`. Until then it runs as before.
  if (removal.step === "usage") return { ...terms, chargeCents: 0, coveredUntil: null };
  const { endSeconds, isPaid } = newPeriod(removal.paidUntilMs, nowMs);
  const coveredUntil = new Date(endSeconds * 1000).toISOString();
  return { ...terms, chargeCents: isPaid ? 0 : partOfMonth(amountCents, nowMs, endSeconds * 1000), coveredUntil };
}

/** The share of a monthly price from `fromMs` to `endMs`, as Stripe prorates it: by the second, of the month that ends then. */
export function partOfMonth(amountCents: number, fromMs: number, endMs: number): number {
  const month = new Date(endMs);
  const day = month.getUTCDate();
  month.setUTCDate(0); // the last day of the month before
  month.setUTCDate(Math.min(day, month.getUTCDate()));
  return Math.round((amountCents * (endMs - Math.floor(fromMs / 1000) * 1000)) / (endMs - month.getTime()));
}
