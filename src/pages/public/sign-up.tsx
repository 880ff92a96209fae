// The order form of a plan. Its answer leads to Stripe's payment page, and the browser keeps the order's set-up token, which makes
// the first key afterwards.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { config } from "../../core/app-config.ts";
import { planOf } from "../../core/plans/plans.ts";
import type { HttpContext } from "../../http.ts";
import { orderCookie } from "../../identity/keys/order-cookie.ts";
import { CheckoutRequest, openCheckout, soldPlans } from "../../subscriptions/checkout.ts";
import { personalPage } from "../layout/layout.tsx";
import { Field } from "../parts/form.tsx";
import { planLines, planPrice, planTitle } from "../parts/plan.tsx";
import { foreignForm } from "../sign-in/sign-in.tsx";
import { isOwn } from "../../identity/oauth/consent.ts";

const { product } = config;

export const SignUpQuery = z.strictObject({
  plan: z.enum(soldPlans, { error: `must be one of ${soldPlans.join(", ")}` }).default(soldPlans[0]),
});

/** A form sends each field, also an empty one. */
const Order = CheckoutRequest.pick({ plan: true, name: true }).extend({
  name: CheckoutRequest.shape.name,
  email: z.email("Enter an address such as you@example.com.").max(320),
});

interface Entered {
  plan: string;
  name: string;
  email: string;
}

export function showSignUp(
  c: HttpContext,
  { query: { plan } }: { query: z.infer<typeof SignUpQuery> },
): Promise<Response> {
  return formPage(c, { plan, name: "", email: "" });
}

/** POST /sign-up: opens the order, and leads to its payment page. */
export async function submitSignUp(c: HttpContext): Promise<Response> {
  if (!isOwn(c)) return foreignForm(c);
  const form = new URLSearchParams(await c.req.text());
  const field = (name: string): string => (form.get(name) ?? "").trim();
  const entered = { plan: field("plan"), name: field("name"), email: field("email") };
  const order = Order.safeParse(entered);
  if (!order.success) {
    const { fieldErrors } = z.flattenError(order.error);
    if (fieldErrors.plan !== undefined) return c.redirect("/#plans", 303);
    const name = entered.name === "" ? "Enter your organisation's name." : fieldErrors.name?.[0];
    return formPage(c, entered, { name, email: fieldErrors.email?.[0] });
  }
  const { checkoutUrl, setupToken } = await openCheckout(c.get("context"), c.get("requestId"), order.data);
  const cookies = [orderCookie(c.req.header("cookie"), setupToken)];
  return personalPage(
    c,
    { title: "On to the payment", continuesAt: checkoutUrl, cookies },
    <>
      <p>Stripe takes the payment. If your browser does not continue by itself, follow the link.</p>
      <p class="actions">
        <a class="button main" href={checkoutUrl}>
          Continue to Stripe
        </a>
      </p>
    </>,
  );
}

type Errors = Partial<Record<"name" | "email", string | undefined>>;

function formPage(c: HttpContext, entered: Entered, errors?: Errors): Promise<Response> {
  const plan = planOf(entered.plan);
  const title = plan.amountCents === 0 ? "Start for free" : `Subscribe to ${planTitle(plan.name)}`;
  return personalPage(
    c,
    { title, hasForm: true, scripts: "own", status: errors === undefined ? 200 : 400 },
    <SignUpForm entered={entered} errors={errors ?? {}} />,
  );
}

const SignUpForm: FC<{ entered: Entered; errors: Errors }> = ({ entered, errors }) => {
  const plan = planOf(entered.plan);
  return (
    <>
      <p>
        <strong>{planTitle(plan.name)}</strong>: {planPrice(plan)}
        {plan.amountCents === 0 ? "" : " a month"}. <a href="/#plans">Compare plans</a>
      </p>
      <ul class="ticks">
        {planLines(plan)
          .slice(0, 2)
          .map((line) => (
            <li>{line}</li>
          ))}
      </ul>
      <form method="post" action="/sign-up">
        <input type="hidden" name="plan" value={plan.name} />
        <Field
          label="Organisation"
          name="name"
          value={entered.name}
          error={errors.name}
          autocomplete="organization"
          placeholder="Acme Robotics"
          maxLength={200}
          isRequired
        />
        <Field
          label="Your e-mail address"
          name="email"
          type="email"
          value={entered.email}
          error={errors.email}
          autocomplete="email"
          hint="Invoices and the invitation of the account's owner go there."
          isRequired
        />
        <div class="actions">
          <button class="main full large">{plan.amountCents === 0 ? "Continue" : "Continue to payment"}</button>
        </div>
        <p class="small muted legal">
          You pay at Stripe and can cancel at any time. By continuing you accept the{" "}
          <a href={product.termsUrl}>terms</a> and the <a href={product.privacyUrl}>privacy policy</a>.
        </p>
      </form>
    </>
  );
};
