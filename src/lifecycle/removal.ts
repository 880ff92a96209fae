// The end of a tenant: its steps, in their order, and what may still be undone. First the tenant is closed: its last usage
// is told to Stripe and invoiced, while its calls are refused already, so that what is last stays last. Then it may come
// back. Then it is dropped: from the first of those steps on there is no way back, and nothing that a customer owns is
// left at the end.
import { type PlanName, planOf } from "../core/plans.ts";
import type { TenantState } from "../core/tenant.ts";

const DAY_MS = 86_400_000;

/** Long enough to miss a month's invoice, ask why, and come back; what data-protection contracts commonly promise. */
export const GRACE_MS = 30 * DAY_MS;

/** Who asks for a removal: the operator, the tenant's administrator, or Stripe, where its subscription has ended. */
export const askers = ["operator", "tenant", "billing"] as const;
export type AskedBy = (typeof askers)[number];

export const closingSteps = ["usage", "invoice", "monitor"] as const;
export const droppingSteps = ["archive", "verify", "subscriptions", "places", "files", "object", "erase"] as const;
export type WorkingStep = (typeof closingSteps)[number] | (typeof droppingSteps)[number];

export const removalSteps = [...closingSteps, "grace", ...droppingSteps, "done"] as const;
export type RemovalStep = (typeof removalSteps)[number] | "undone";

export type RemovalPhase = "closing" | "grace" | "dropping" | "done" | "undone";

/** What a step is part of, as whoever asked for the removal sees it. */
export function phaseOf(step: RemovalStep): RemovalPhase {
  if (step === "grace" || step === "done" || step === "undone") return step;
  return closingSteps.some((each) => each === step) ? "closing" : "dropping";
}

/** The step after this one. */
export function stepAfter(step: WorkingStep): RemovalStep {
  return removalSteps[removalSteps.indexOf(step) + 1] ?? "done";
}

/**
 * The state that a tenant comes back to: the one it left from. A new subscription has settled what was owed, and with it
 * what only billing had taken away.
 */
export function stateAfterReactivation(left: {
  from: TenantState;
  askedBy: AskedBy;
  newSubscription: boolean;
}): TenantState {
  const { from, askedBy, newSubscription } = left;
  if (!newSubscription) return from;
  if (from === "past_due" || (from === "suspended" && askedBy === "billing")) return "active";
  return from;
}

/** Whether a plan is one that Stripe sells. */
export function isSold(plan: PlanName): boolean {
  return planOf(plan).amountCents !== null;
}

/**
 * The next 00:00 UTC, strictly after `nowMs`, in epoch seconds: where the periods of a new subscription begin, so that no
 * day belongs to two of them.
 */
export function nextMidnightSeconds(nowMs: number): number {
  return ((Math.floor(nowMs / DAY_MS) + 1) * DAY_MS) / 1000;
}
