// The plan of a tenant: what it costs, when it renews, a change that waits, and the other plans. A change shows its price on a
// page of its own before it is made.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { planOf, plans } from "../../../core/plans/plans.ts";
import { allows } from "../../../core/tenant/tenant-state.ts";
import type { HttpContext } from "../../../http.ts";
import { cancelPlanChange, followPurchase, ownPlan, portalUrl } from "../../../subscriptions/api.ts";
import { canBuy, hasSubscription, soldPlans } from "../../../subscriptions/checkout.ts";
import type { PlanChange } from "../../../subscriptions/subscriptions-store.ts";
import { config } from "../../../core/app-config.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields } from "../../layout/form-body.ts";
import { Instant } from "../../parts/figures.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { Notice } from "../../parts/notice.tsx";
import { PlanCard, planLines, planPrice, planTitle } from "../../parts/plan.tsx";
import { accountPage, accountPath, may, tenantFor } from "../account-page.tsx";
import { CheckoutReturn, Returned, onwards } from "./plan-purchase.tsx";

/** `checkout`: the person comes back from Stripe's payment page. */
export const PlanPageView = z.strictObject({ checkout: CheckoutReturn.optional() });
type PlanPageView = z.infer<typeof PlanPageView>;

/** GET /app/:tenantId/plan */
export async function showPlan(c: HttpContext, { query }: { query: PlanPageView }): Promise<Response> {
  if (query.checkout === "paid") {
    await followPurchase(c);
    // The guard has read the account before.
    c.set("tenant", undefined);
  }
  return planPage(c, undefined, query.checkout);
}

/** POST /app/:tenantId/plan/cancel: cancels the change that waits. */
export async function submitPlanCancel(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => cancelPlanChange(c), noFields);
  if ("refused" in done) return planPage(c, done.refused);
  return doneAt(c, accountPath(c, "/plan"), "The plan change is cancelled.");
}

/** POST /app/:tenantId/portal: leads to Stripe's portal, and back. */
export async function submitPortal(c: HttpContext): Promise<Response> {
  const opened = await attempt(c, () => portalUrl(c, `${c.env.PUBLIC_URL}${accountPath(c, "/plan")}`), noFields);
  return "refused" in opened ? planPage(c, opened.refused) : onwards(c, opened.done, "Your invoices at Stripe");
}

type OwnPlan = Awaited<ReturnType<typeof ownPlan>>;

/** The page of the plan. `refused`: why a form of it was refused. */
export async function planPage(
  c: HttpContext,
  refused?: RefusedForm,
  returned?: PlanPageView["checkout"],
): Promise<Response> {
  const [tenant, own] = [await tenantFor(c), await ownPlan(c)];
  const { subscription, change } = own;
  const manages = may(c, "billing:manage");
  const nowMs = Date.now();
  const runs = subscription !== undefined && hasSubscription(subscription);
  const offers = {
    change: manages && runs && allows(tenant, "change_plan", nowMs) && change?.state !== "waiting",
    buy: manages && subscription !== undefined && canBuy(subscription, nowMs),
    portal: manages && subscription?.customerId != null && allows(tenant, "portal", nowMs),
  };
  return accountPage(
    c,
    {
      ...{ title: "Plan", section: "/plan", ...answerOf(refused) },
      ...(offers.portal && {
        actions: <Action action={accountPath(c, "/portal")} label="Payment and invoices at Stripe" />,
      }),
    },
    <>
      <Refusal refused={refused} />
      <Returned how={returned} isBilled={runs} plan={tenant.plan} path={accountPath(c, "/plan")} />
      {change !== null && <Change of={change} cancel={manages ? accountPath(c, "/plan/cancel") : undefined} />}
      <Current of={own} name={tenant.plan} />
      <h2>{offers.buy ? "Buy a plan" : "Other plans"}</h2>
      {!manages && <p class="muted">An owner, an admin or a member with the role billing can change the plan.</p>}
      {manages && !offers.change && !offers.buy && change?.state !== "waiting" && (
        <p class="muted">
          In its present state the plan of this account is changed by <a href={config.product.supportUrl}>support</a>.
        </p>
      )}
      <Others current={tenant.plan} offers={offers} path={(rest) => accountPath(c, rest)} />
    </>,
  );
}

const Current: FC<{ of: OwnPlan; name: string }> = ({ of: { subscription }, name }) => {
  const plan = planOf(name);
  const { periodStartMs, periodEndMs, cancelAtMs, trialUntilMs, endedAtMs } = subscription ?? {};
  return (
    <div class="card current-plan">
      <div>
        <h2>{planTitle(name)}</h2>
        <p class="price">
          <strong>{planPrice(plan)}</strong>
          {plan.amountCents !== null && plan.amountCents > 0 && <span class="muted"> a month</span>}
        </p>
        <dl class="facts">
          {periodStartMs != null && periodEndMs != null && endedAtMs == null && (
            <>
              <dt>This period</dt>
              <dd>
                <Instant at={periodStartMs} isDay /> to <Instant at={periodEndMs - 1} isDay />
              </dd>
            </>
          )}
          {trialUntilMs != null && (
            <>
              <dt>Trial until</dt>
              <dd>{<Instant at={trialUntilMs} />}</dd>
            </>
          )}
          {cancelAtMs != null && endedAtMs == null && (
            <>
              <dt>Ends</dt>
              <dd>
                <Instant at={cancelAtMs} />, because it was cancelled at Stripe
              </dd>
            </>
          )}
          {endedAtMs != null && (
            <>
              <dt>Ended</dt>
              <dd>{<Instant at={endedAtMs} />}</dd>
            </>
          )}
        </dl>
      </div>
      <ul class="ticks">
        {planLines(plan).map((line) => (
          <li>{line}</li>
        ))}
      </ul>
    </div>
  );
};

/** The newest change, while it waits and after it has failed. */
const Change: FC<{ of: PlanChange; cancel: string | undefined }> = ({
  of: { state, plan, waitsFor, error },
  cancel,
}) => {
  if (state === "waiting")
    return (
      <Notice tone="accent">
        <p>
          The change to <strong>{planTitle(plan)}</strong> is on its way. {waitsFor}
        </p>
        {cancel !== undefined && <Action action={cancel} label="Cancel the change" isTiny />}
      </Notice>
    );
  return state === "cancelled" && error !== null ? (
    <Notice tone="warn">
      The last change, to {planTitle(plan)}, did not take effect. {error}
    </Notice>
  ) : null;
};

interface OthersProps {
  current: string;
  offers: { change: boolean; buy: boolean };
  path: (rest: string) => string;
}

const Others: FC<OthersProps> = ({ current, offers, path }) => (
  <div class="grid plans">
    {[...plans.values()]
      // Who has no subscription may also buy the plan that the account has on trial.
      .filter(({ name, amountCents }) => name !== current || (offers.buy && amountCents !== null && amountCents > 0))
      .map((plan) => (
        <PlanCard plan={plan}>
          {!soldPlans.includes(plan.name) ? (
            <a class="button full" href={config.product.supportUrl}>
              Talk to us
            </a>
          ) : offers.change ? (
            <a class="button full" href={path(`/plan/change?plan=${plan.name}`)}>
              Change to {planTitle(plan.name)}
            </a>
          ) : offers.buy ? (
            <a class="button full" href={path(`/plan/buy?plan=${plan.name}`)}>
              {plan.amountCents === 0 ? "Subscribe to" : "Buy"} {planTitle(plan.name)}
            </a>
          ) : null}
        </PlanCard>
      ))}
  </div>
);
