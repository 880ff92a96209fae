// The page that says what a plan change costs, before it is made.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { planOf } from "../../../core/plans/plans.ts";
import type { HttpContext } from "../../../http.ts";
import { OwnPlanRequest, ownPlan, ownPlanAfter } from "../../../subscriptions/api.ts";
import { type PlanTerms, termsOfChange } from "../../../subscriptions/plan-terms.ts";
import { type RefusedForm, answerOf, attempt, doneAt, readForm } from "../../layout/form-body.ts";
import { Instant, dollars } from "../../parts/figures.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { planLines, planTitle } from "../../parts/plan.tsx";
import { accountPage, accountPath, tenantFor } from "../account-page.tsx";
import { planPage } from "./plan.tsx";
import { SeenPrice, risenPrice } from "./seen-price.ts";

export const PlanView = z.strictObject(OwnPlanRequest.shape);

/** GET /app/:tenantId/plan/change?plan=NAME */
export function showPlanChange(c: HttpContext, { query }: { query: z.infer<typeof PlanView> }): Promise<Response> {
  return changePage(c, query.plan);
}

/** POST /app/:tenantId/plan: makes the change, at no higher price than the person has seen. */
export async function submitPlan(c: HttpContext): Promise<Response> {
  const form = await readForm(c, z.object({ ...OwnPlanRequest.shape, ...SeenPrice.shape }));
  if ("refused" in form) return planPage(c, form.refused);
  const { plan, seenCents } = form.data;
  const { subscription } = await ownPlan(c);
  const terms = subscription && termsOfChange(subscription, plan, Date.now());
  const risen = risenPrice(terms?.differenceCents ?? 0, seenCents);
  if (risen !== undefined) return changePage(c, plan, risen);
  const done = await attempt(c, () => ownPlanAfter(c, plan), form.sent);
  if ("refused" in done) return changePage(c, plan, done.refused);
  const isWaiting = done.done.change?.state === "waiting";
  const text = isWaiting
    ? `The change to ${planTitle(plan)} begins. This page shows when it is in force.`
    : `The account has the plan ${planTitle(plan)} now.`;
  return doneAt(c, accountPath(c, "/plan"), text);
}

async function changePage(c: HttpContext, to: string, refused?: RefusedForm): Promise<Response> {
  const [tenant, { subscription }] = [await tenantFor(c), await ownPlan(c)];
  const from = tenant.plan;
  const terms = subscription && termsOfChange(subscription, to, Date.now());
  return accountPage(
    c,
    { title: `Change to ${planTitle(to)}`, section: "/plan", ...answerOf(refused) },
    <>
      <Refusal refused={refused} />
      <div class="split">
        <div class="card">
          <h3>What it costs</h3>
          {terms === undefined ? (
            <p>Stripe decides the price with the change.</p>
          ) : (
            <Terms of={terms} from={from} to={to} />
          )}
          <div class="actions">
            <Action
              action={accountPath(c, "/plan")}
              label={labelOf(terms, to)}
              tone="main"
              fields={{ plan: to, seenCents: String(terms?.differenceCents ?? 0) }}
            />
            <a class="button" href={accountPath(c, "/plan")}>
              Keep {planTitle(from)}
            </a>
          </div>
        </div>
        <div class="card">
          <h3>{planTitle(to)}</h3>
          <ul class="ticks">
            {planLines(planOf(to)).map((line) => (
              <li>{line}</li>
            ))}
          </ul>
        </div>
      </div>
    </>,
  );
}

function labelOf(terms: PlanTerms | undefined, to: string): string {
  if (terms?.due === "now") return `Pay ${dollars(terms.differenceCents)} and change`;
  return `Change to ${planTitle(to)}`;
}

const Terms: FC<{ of: PlanTerms; from: string; to: string }> = ({ of: terms, from, to }) => {
  const { due, differenceCents, monthlyCents, nextInvoiceMs } = terms;
  const isCredit = differenceCents < 0;
  return (
    <>
      <dl class="facts">
        <dt>{due === "now" ? "Now" : isCredit ? "Credit" : "Difference"}</dt>
        <dd>
          <strong>{dollars(Math.abs(differenceCents))}</strong>
          {due === "next" && differenceCents !== 0 && <span class="muted"> or a little less</span>}
          <div class="small muted">
            {due === "now" && "The first month, charged with the change. The month begins today."}
            {due === "trial" && "The account is in its trial."}
            {due === "next" &&
              `For the rest of this period: ${planTitle(to)} instead of ${planTitle(from)}, by the second. `}
            {due === "next" && nextInvoiceMs !== null && (
              <>
                On the invoice of <Instant at={nextInvoiceMs} isDay />.
              </>
            )}
          </div>
        </dd>
        <dt>Then</dt>
        <dd>
          <strong>{dollars(monthlyCents)}</strong> a month
        </dd>
      </dl>
      {planOf(from).unitAmountCents !== null && (
        <p class="small muted">Usage so far is billed at the price of {planTitle(from)}.</p>
      )}
    </>
  );
};
