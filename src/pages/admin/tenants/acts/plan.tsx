// Acts on what a tenant has bought: its plan, and limits of its own.
import * as z from "zod";
import { Limits, type PlanName, planNames, strategies } from "../../../../core/plans/plans.ts";
import { changeTenant } from "../../../../operations/admin-api.ts";
import { cancelPlanChange, changePlan } from "../../../../subscriptions/api.ts";
import { Field, Select } from "../../../parts/form.tsx";
import { planTitle } from "../../../parts/plan.tsx";
import { type Act, act } from "./act.tsx";

export const plan = act({
  ...{ path: "plan", action: "changePlan", role: "admin", title: "Change the plan" },
  text: "Tollgate closes the usage of the old plan first, then changes the subscription at Stripe. A tenant that keeps its plan keeps the limits that it was sold; another plan brings its own. The rows stay where they are until you move them.",
  schema: z.object({ plan: z.enum(planNames), strategy: z.enum(strategies).optional() }),
  fields: ({ entered }, tenant) => (
    <>
      <Select
        label="Plan"
        name="plan"
        value={entered["plan"] ?? tenant.plan}
        options={planNames.map((name: PlanName) => ({ value: name, text: planTitle(name) }))}
      />
      <Select
        label="Isolation"
        name="strategy"
        value={entered["strategy"] ?? ""}
        options={[
          { value: "", text: "As the plan says" },
          ...strategies.map((strategy) => ({ value: strategy, text: strategy })),
        ]}
      />
    </>
  ),
  run: (c, body) => changePlan(c, { body }),
  done: "The plan is changed, or changes as soon as the usage of the old one is closed.",
});

export const cancelPlan = act({
  ...{ path: "plan/cancel", action: "cancelPlanChange", role: "support", title: "Cancel the plan change", tone: "bad" },
  text: "The tenant keeps its plan. A change that has taken effect cannot be cancelled.",
  schema: z.object({}),
  run: (c) => cancelPlanChange(c),
  done: "The plan change is cancelled.",
});

const { shape } = Limits;
/** An empty field takes the number that was sold, and `none` removes a limit. */
const number = z.union([z.literal("none"), z.coerce.number().int().positive()]).optional();

export const limits = act({
  ...{ path: "limits", action: "changeTenant", role: "support", title: "Change the limits" },
  text: "The tenant's next call uses the new limits. An empty field restores the number that the tenant was sold. The word none removes a limit.",
  label: "Save",
  schema: z.object({ unitsPerHour: number, unitsPerMonth: number, callsPerMinute: number, callsInFlight: number }),
  fields: ({ entered, errors }, tenant) => (
    <>
      {limitNames.map(({ name, label }) => (
        <Field
          label={label}
          name={name}
          value={entered[name] ?? String(tenant.limits[name] ?? "none")}
          autocomplete="off"
          error={errors[name]}
        />
      ))}
    </>
  ),
  run: (c, { unitsPerHour = null, unitsPerMonth = null, callsPerMinute = null, callsInFlight }) =>
    changeTenant(c, {
      body: {
        limits: {
          ...{ unitsPerHour, unitsPerMonth, callsPerMinute },
          callsInFlight: shape.callsInFlight.nullable().parse(callsInFlight ?? null),
        },
      },
    }),
  done: "The limits are changed.",
});

export const limitNames = [
  { name: "unitsPerHour", label: "Units an hour" },
  { name: "unitsPerMonth", label: "Units a month" },
  { name: "callsPerMinute", label: "Calls a minute" },
  { name: "callsInFlight", label: "Calls at once" },
] as const;

export const planActs: readonly Act[] = [plan, cancelPlan, limits];
