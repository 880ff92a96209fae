// The plans that have more than the account's, for the page to which a refused call leads.
import type { Child, FC } from "hono/jsx";
import { type Plan, planOf, plans } from "../../core/plans/plans.ts";
import type { TenantConfig } from "../../core/tenant/tenant.ts";
import { allows } from "../../core/tenant/tenant-state.ts";
import type { HttpContext } from "../../http.ts";
import type { Allowance } from "../../metering/tenant-usage.ts";
import { type Purchaser, canBuy, hasSubscription } from "../../subscriptions/checkout.ts";
import { Figure, count, units } from "../parts/figures.tsx";
import { Action } from "../parts/form.tsx";
import { PlanCard, planPrice, planTitle } from "../parts/plan.tsx";
import { accountPath, may } from "./account-page.tsx";

interface PlansProps {
  c: HttpContext;
  tenant: TenantConfig;
  used: Allowance;
  account: Purchaser | undefined;
}

/** The larger plans. With a subscription a button changes to one; without one a page says its price first. */
export const LargerPlans: FC<PlansProps> = ({ c, tenant, used, account }) => {
  const larger = largerPlans(tenant);
  const nowMs = Date.now();
  const { unitsPerMonth } = tenant.limits;
  const manages = may(c, "billing:manage") && account !== undefined;
  const canChange = manages && hasSubscription(account) && allows(tenant, "change_plan", nowMs);
  const buys = manages && canBuy(account, nowMs);
  return (
    <section>
      <h2>Plan</h2>
      {unitsPerMonth !== null && (
        <div class="grid">
          <Figure
            name="Units this month"
            value={count(used.monthUnits)}
            note={`The plan ${planTitle(tenant.plan)} has ${units(unitsPerMonth)} a calendar month (UTC).`}
            meter={{ label: "Units", used: used.monthUnits, limit: unitsPerMonth }}
          />
        </div>
      )}
      {larger.length === 0 ? (
        <p>Yours is the largest plan that can be bought. Ask support for another arrangement.</p>
      ) : (
        <div class="grid">
          {larger.map((plan) => (
            <PlanCard plan={plan}>
              {canChange && <ChangeTo {...{ c, tenant, plan }} />}
              {buys && (
                <a class="button full" href={accountPath(c, `/plan/buy?plan=${plan.name}`)}>
                  Buy {planTitle(plan.name)}
                </a>
              )}
            </PlanCard>
          ))}
        </div>
      )}
    </section>
  );
};

const ChangeTo: FC<{ c: HttpContext; tenant: TenantConfig; plan: Plan; children?: Child }> = ({ c, tenant, plan }) => (
  <Action
    action={accountPath(c, "/limit")}
    label={`Change to ${planTitle(plan.name)} for ${planPrice(plan)} a month`}
    tone="main"
    confirm={`Change to ${planTitle(plan.name)}? What is left of this month is charged in proportion.`}
    fields={{ plan: plan.name, from: tenant.plan }}
  />
);

/** The plans that Stripe sells and that cost more than the tenant's, which has a price. */
function largerPlans({ plan }: TenantConfig): Plan[] {
  const own = planOf(plan).amountCents;
  return own === null ? [] : [...plans.values()].filter(({ amountCents }) => amountCents !== null && amountCents > own);
}
