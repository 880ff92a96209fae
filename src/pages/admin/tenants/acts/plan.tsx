// Acts on what a tenant has bought.
import * as z from "zod";
import { type PlanName, planNames, strategies } from "../../../../core/plans/plans.ts";
import { cancelPlanChange, changePlan } from "../../../../subscriptions/api.ts";
import { Select } from "../../../parts/form.tsx";
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

export const planActs: readonly Act[] = [plan, cancelPlan];
