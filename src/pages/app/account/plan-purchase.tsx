// The purchase of a plan for an account without a subscription: its price on a page of ours, then Stripe's payment page, and the
// words for the person who comes back from there.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { config } from "../../../core/app-config.ts";
import { planOf } from "../../../core/plans/plans.ts";
import type { HttpContext } from "../../../http.ts";
import { OwnPlanRequest, ownCheckout, ownPlan } from "../../../subscriptions/api.ts";
import { canBuy, hasSubscription } from "../../../subscriptions/checkout.ts";
import { type PurchaseTerms, termsOfPurchase } from "../../../subscriptions/plan-terms.ts";
import { type RefusedForm, answerOf, attempt, readForm } from "../../layout/form-body.ts";
import { Instant, dollars } from "../../parts/figures.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { Notice } from "../../parts/notice.tsx";
import { planLines, planTitle } from "../../parts/plan.tsx";
import { accountPage, accountPath } from "../account-page.tsx";

const { product } = config;

export const PurchaseView = z.strictObject(OwnPlanRequest.shape);

/** GET /app/:tenantId/plan/buy?plan=NAME */
export function showPurchase(c: HttpContext, { query }: { query: z.infer<typeof PurchaseView> }): Promise<Response> {
  return purchasePage(c, query.plan);
}

/** POST /app/:tenantId/checkout: leads to Stripe's payment page. */
export async function submitCheckout(c: HttpContext): Promise<Response> {
  const form = await readForm(c, z.object(OwnPlanRequest.shape));
  const page = `${c.env.PUBLIC_URL}${accountPath(c, "/plan")}`;
  if ("refused" in form) return c.redirect(page, 303);
  const { plan } = form.data;
  const order = { plan, successUrl: `${page}?checkout=paid`, cancelUrl: `${page}?checkout=cancelled` };
  const opened = await attempt(c, () => ownCheckout(c, order), form.sent);
  return "refused" in opened
    ? purchasePage(c, plan, opened.refused)
    : onwards(c, opened.done.checkoutUrl, "On to the payment");
}

/** A page that continues at Stripe. The content policy lets no form lead there. */
export function onwards(c: HttpContext, url: string, title: string): Promise<Response> {
  return accountPage(
    c,
    { title, section: "/plan", continuesAt: url },
    <>
      <p>If your browser does not continue by itself, follow the link.</p>
      <p class="actions">
        <a class="button main" href={url}>
          Continue to Stripe
        </a>
      </p>
    </>,
  );
}

async function purchasePage(c: HttpContext, name: string, refused?: RefusedForm): Promise<Response> {
  const nowMs = Date.now();
  const { subscription } = await ownPlan(c);
  const plan = planOf(name);
  const isPossible = subscription !== undefined && canBuy(subscription, nowMs);
  const isFree = plan.amountCents === 0;
  return accountPage(
    c,
    { title: `${isFree ? "Subscribe to" : "Buy"} ${planTitle(name)}`, section: "/plan", ...answerOf(refused) },
    <>
      <Refusal refused={refused} />
      <div class="split">
        <div class="card">
          <h3>What it costs</h3>
          <Terms of={termsOfPurchase(name, nowMs)} isMetered={plan.unitAmountCents !== null} />
          {isPossible ? (
            <p class="small muted">
              You pay at Stripe, which shows the amount before you confirm it, and can cancel at any time. The account
              has the plan as soon as Stripe confirms the payment. The <a href={product.termsUrl}>terms</a> apply.
            </p>
          ) : (
            <p class="muted">
              {subscription !== undefined && hasSubscription(subscription)
                ? "The account has a subscription already. Its plan can be changed."
                : "In its present state no plan can be bought for this account. Support can help."}
            </p>
          )}
          <div class="actions">
            {isPossible && (
              <Action
                action={accountPath(c, "/checkout")}
                label={isFree ? "Continue at Stripe" : "Continue to payment"}
                tone="main"
                fields={{ plan: name }}
              />
            )}
            <a class="button" href={accountPath(c, "/plan")}>
              Back to the plan
            </a>
          </div>
        </div>
        <div class="card">
          <h3>{planTitle(name)}</h3>
          <ul class="ticks">
            {planLines(plan).map((line) => (
              <li>{line}</li>
            ))}
          </ul>
        </div>
      </div>
    </>,
  );
}

const Terms: FC<{ of: PurchaseTerms; isMetered: boolean }> = ({
  of: { nowCents, fromMs, monthlyCents },
  isMetered,
}) => (
  <dl class="facts">
    <dt>Now</dt>
    <dd>
      <strong>{dollars(nowCents)}</strong>
      {nowCents > 0 && <span class="muted"> or a little less</span>}
      {nowCents > 0 && (
        <div class="small muted">
          For the time until <Instant at={fromMs} /> UTC, when the first month begins.
        </div>
      )}
    </dd>
    <dt>Then</dt>
    <dd>
      <strong>{dollars(monthlyCents)}</strong> a month{isMetered && ", and units beyond the included ones"}
    </dd>
  </dl>
);

/** How a person has left Stripe's payment page. */
export const CheckoutReturn = z.enum(["paid", "cancelled"]);

interface ReturnedProps {
  how: z.infer<typeof CheckoutReturn> | undefined;
  /** The account has a subscription now. */
  isBilled: boolean;
  plan: string;
  /** Of the page of the plan. */
  path: string;
}

export const Returned: FC<ReturnedProps> = ({ how, isBilled, plan, path }) => {
  if (how === undefined || (how === "cancelled" && isBilled)) return null;
  if (how === "cancelled")
    return <Notice>You have left the payment page. Nothing was charged, and the plan has not changed.</Notice>;
  if (isBilled)
    return <Notice tone="good">The account has the plan {planTitle(plan)} now. Its limits are in force.</Notice>;
  return (
    <Notice>
      Stripe has not confirmed the payment yet. A card takes seconds, a bank transfer days. The plan is in force as soon
      as it does. <a href={`${path}?checkout=paid`}>Look again</a>
    </Notice>
  );
};
