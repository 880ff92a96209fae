// A plan as buyers see it: its price, and what is in it.
import type { Child, FC } from "hono/jsx";
import { costOf } from "../../core/plans/money.ts";
import { type Plan, type Strategy } from "../../core/plans/plans.ts";
import { count, dollars, units } from "./figures.tsx";

/** Prices of single units are fractions of a cent. */
const UNITS_OF_PRICE = 1_000;

const strategyWords: Readonly<Record<Strategy, string>> = {
  shared: "Your rows kept apart in a shared database",
  schema: "A database schema of your own",
  database: "A database of your own",
};

/** `Pro`, for the plan `pro`. */
export function planTitle(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1).replaceAll(/[-_]/g, " ");
}

/** What the plan costs a month, in words. */
export function planPrice({ amountCents }: Plan): string {
  if (amountCents === null) return "By contract";
  return amountCents === 0 ? "Free" : dollars(amountCents).replace(/\.00$/, "");
}

/** What is in the plan, a line for each. */
export function planLines(plan: Plan): string[] {
  const { includedUnits, unitAmountCents, limits, strategy } = plan;
  const { unitsPerHour, unitsPerMonth, callsPerMinute, callsInFlight } = limits;
  return [
    includedUnits === null ? "Units by contract" : `${units(includedUnits)} a month included`,
    ...(unitAmountCents === null
      ? []
      : [`${dollars(costOf(UNITS_OF_PRICE, unitAmountCents))} per ${units(UNITS_OF_PRICE)} beyond`]),
    ...(unitAmountCents === null && unitsPerMonth !== null
      ? ["Calls stop at the limit: no surprise on the invoice"]
      : []),
    unitsPerHour === null ? "No limit of units an hour" : `Up to ${units(unitsPerHour)} an hour`,
    ...(callsPerMinute === null ? [] : [`${count(callsPerMinute)} calls a minute`]),
    `${count(callsInFlight)} calls at once`,
    strategyWords[strategy],
  ];
}

export const PlanCard: FC<{ plan: Plan; isMain?: boolean; children?: Child }> = ({
  plan,
  isMain = false,
  children,
}) => (
  <div class={isMain ? "card plan main" : "card plan"}>
    <h3>{planTitle(plan.name)}</h3>
    <p class="price">
      <strong>{planPrice(plan)}</strong>
      {plan.amountCents !== null && plan.amountCents > 0 && <span class="muted"> a month</span>}
    </p>
    <ul class="ticks">
      {planLines(plan).map((line) => (
        <li>{line}</li>
      ))}
    </ul>
    {children}
  </div>
);
