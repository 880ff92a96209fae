// The steps of a tenant's removal, in their order. Closing: calls are refused, and the last usage is reported to Stripe and
// invoiced. Grace: the tenant may be reactivated, as it may be while closing. Dropping: its data is archived and deleted.
// The first dropping step makes the removal irreversible. At the end nothing that the customer owns is left.
import { type PlanName, planOf } from "../core/plans.ts";
import type { TenantState } from "../core/tenant.ts";
import { type SettlingFacts, type StateChange, afterEvent } from "../core/tenant-state.ts";
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

/**
 * The next 00:00 UTC, strictly after `nowMs`, in epoch seconds. The periods of a new subscription begin there, so that no
 * day belongs to two periods.
 */
export function nextMidnightSeconds(nowMs: number): number {
  return ((Math.floor(nowMs / DAY_MS) + 1) * DAY_MS) / 1000;
}
