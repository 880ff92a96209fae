// An order: kept first, then a Checkout session to pay it, and a token that makes the account's first key once it is paid.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { cycleAnchorMs } from "./subscription.ts";
import { mintCredential } from "../core/credentials.ts";
import { AppError } from "../core/errors.ts";
import { type PlanName, plans } from "../core/plans.ts";
import { checkoutsStore } from "./checkouts-store.ts";
import { DisplayName, TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";

/** It counts from the order: paying may take a day and a bank transfer weeks. The first key spends it. */
const SETUP_LIFE_MS = 30 * 86_400_000;

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

/** What the operator may offer besides. Stripe wants a trial's end two days ahead. */
export const OfferRequest = CheckoutRequest.extend({ trialDays: z.int().min(2).max(365).optional() });

/** Opens an order for whoever has the answer. Throws `billing_unavailable`. */
export async function openCheckout(
  context: Context,
  requestId: string,
  order: z.infer<typeof OfferRequest>,
): Promise<{ tenantId: TenantId; checkoutUrl: string; statusUrl: string; setupToken: string }> {
  const { env } = context;
  const tenantId = newTenantId();
  const email = order.email ?? null;
  // Kept first: a payment for a tenant that nobody knows could not be applied.
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

/** 80 random bits in letters and digits: nobody guesses one, and it fits every name that is made of it. */
function newTenantId(): TenantId {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567"; // 32 characters, so that a byte's low five bits are unbiased
  const random = crypto.getRandomValues(new Uint8Array(16));
  return TenantId.parse(`t${Array.from(random, (byte) => alphabet[byte & 31]).join("")}`);
}
