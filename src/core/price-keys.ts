// Lookup keys of Stripe's prices: one for a plan's base price, one for its price per unit.
import { type PlanName, planNames, planOf } from "./plans.ts";

/** The lookup keys of the prices that a subscription to a plan consists of. Empty when Stripe does not sell the plan. */
export function priceKeys(name: PlanName): string[] {
  const { amountCents, unitAmountCents } = planOf(name);
  if (amountCents === null) return [];
  return unitAmountCents === null ? [baseKey(name)] : [baseKey(name), unitsKey(name)];
}

export function baseKey(plan: PlanName): string {
  return `tollgate_${plan}_base`;
}

export function unitsKey(plan: PlanName): string {
  return `tollgate_${plan}_units`;
}

/** The plan that has a price among these lookup keys. */
export function planOfKeys(lookupKeys: readonly (string | null)[]): PlanName | null {
  return planNames.find((name) => priceKeys(name).some((key) => lookupKeys.includes(key))) ?? null;
}
