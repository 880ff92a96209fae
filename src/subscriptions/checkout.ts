// Takes an order: Tollgate stores it, then opens a Checkout session for the payment. The response has a token that creates
// the account's first key after the payment.
import * as z from "zod";
import { newTenantId } from "../adapters/ids.ts";
import type { Context } from "../control/context.ts";
import { mintCredential } from "../core/credentials.ts";
import { AppError } from "../core/errors.ts";
import { type PlanName, plans } from "../core/plans.ts";
import { DisplayName, type TenantId } from "../core/tenant.ts";
import { DAY_MS } from "../core/time.ts";
import { describeError, log } from "../log.ts";
import { checkoutsStore } from "./checkouts-store.ts";
import { cycleAnchorMs } from "./subscription.ts";

/** Lifetime of the first-key token, from the order. A card payment may take a day, a bank transfer weeks. */
const SETUP_LIFE_MS = 30 * DAY_MS;

/** The plans that Stripe sells. */
export const soldPlans = [...plans.values()].filter((plan) => plan.amountCents !== null).map((plan) => plan.name) as [
  PlanName,
  ...PlanName[],
];

export const CheckoutRequest = z.strictObject({
  plan: z.enum(soldPlans, { error: `must be one of ${soldPlans.join(", ")}` }),
  name: DisplayName,
  email: z.email().max(320).optional(),
  successUrl: z.url().optional(),
  cancelUrl: z.url().optional(),
});

/** An offer by the operator may have a trial. Stripe requires its end to be at least two days ahead. */
export const OfferRequest = CheckoutRequest.extend({ trialDays: z.int().min(2).max(365).optional() });

/** Opens an order. Only its response gives access to it. Throws `billing_unavailable` when Stripe fails. */
export async function openCheckout(
  context: Context,
  requestId: string,
  order: z.infer<typeof OfferRequest>,
): Promise<{ tenantId: TenantId; checkoutUrl: string; statusUrl: string; setupToken: string }> {
  const { env } = context;
  const tenantId = newTenantId();
  const email = order.email ?? null;
  // Store the order first: a payment for an unknown tenant cannot be applied.
  await checkoutsStore(context.control).insert(tenantId, { name: order.name, email, plan: order.plan });
  const statusUrl = `${env.PUBLIC_URL}/api/tenants/${tenantId}/status`;
  const nowMs = Date.now();
  const trialDays = order.trialDays ?? 0;
  let session;
  try {
    session = await context.stripe.checkout.create({
      tenantId,
      plan: order.plan,
      email,
      successUrl: order.successUrl ?? statusUrl,
      cancelUrl: order.cancelUrl ?? `${env.PUBLIC_URL}/plans`,
      trialDays,
      anchorMs: cycleAnchorMs(nowMs, trialDays),
      nowMs,
    });
  } catch (error) {
    log("error", "checkout_failed", { requestId, tenantId, error: describeError(error) });
    throw new AppError("billing_unavailable", "No Checkout session could be made", { cause: error });
  }
  const setupToken = await mintCredential(env.CREDENTIAL_KEY, {
    kind: "setup",
    tenantId,
    fields: [String(Date.now() + SETUP_LIFE_MS)],
  });
  return { tenantId, checkoutUrl: session.url, statusUrl, setupToken };
}
