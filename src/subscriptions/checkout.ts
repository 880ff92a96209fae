// Takes an order: Tollgate stores it, then opens a Checkout session for the payment. The response has a token that creates
// the account's first key after the payment.
import * as z from "zod";
import { newTenantId } from "../adapters/ids.ts";
import type { Context } from "../control/context.ts";
import type { Creation } from "../control/idempotent-requests-store.ts";
import { mintCredential } from "../core/keys/credentials.ts";
import { type PlanName, planOf, plans } from "../core/plans/plans.ts";
import { type StateFacts, allows } from "../core/tenant/tenant-state.ts";
import { DisplayName, type TenantId } from "../core/tenant/tenant.ts";
import { DAY_MS } from "../core/time.ts";
import { webUrl } from "../core/text/web-url.ts";
import { BadRequest } from "../http.ts";
import { progressUrls } from "../identity/keys/keys.ts";
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

/** Where a browser goes after a page of Stripe's. `trustedUrl` also checks its origin. */
export const ReturnUrl = webUrl(["http", "https"]);

/**
 * The URL, if a page of this deployment can be there: at the origin of PUBLIC_URL or at one of ALLOWED_ORIGINS. Throws
 * `BadRequest` for any other origin: the author of a link would choose where a buyer arrives who has just paid. The URL must
 * begin with the origin as it is written here, so that every reader of it finds the same host.
 */
export function trustedUrl(env: Env, field: string, url: string): string {
  const allowed = [env.PUBLIC_URL, ...env.ALLOWED_ORIGINS.split(",")].map((text) => text.trim());
  const origins = allowed.flatMap((text) => (URL.canParse(text) ? [new URL(text).origin] : []));
  const isTrusted = (origin: string): boolean =>
    url.slice(0, origin.length).toLowerCase() === origin && /^(?:$|[/?#])/.test(url.slice(origin.length));
  if (origins.some(isTrusted)) return url;
  throw new BadRequest(`${field}: must be at one of the origins ${origins.join(", ")}`);
}

export const CheckoutRequest = z.strictObject({
  plan: z.enum(soldPlans, { error: `must be one of ${soldPlans.join(", ")}` }),
  name: DisplayName,
  email: z.email().max(320).optional(),
  successUrl: ReturnUrl.optional(),
  cancelUrl: ReturnUrl.optional(),
});

/** What a tenant buys that has no subscription. It has a name and an address. */
export const OwnCheckoutRequest = CheckoutRequest.omit({ name: true, email: true });

/** What decides whether an account can buy a plan. */
export interface Purchaser extends StateFacts {
  plan: PlanName;
  customerId: string | null;
  subscriptionId: string | null;
  endedAtMs: number | null;
}

/** Whether Stripe bills the account now. Then its plan is changed, and no second one is sold. */
export function hasSubscription({
  subscriptionId,
  endedAtMs,
}: Pick<Purchaser, "subscriptionId" | "endedAtMs">): boolean {
  return subscriptionId !== null && endedAtMs === null;
}

/** Whether the account can buy a plan. One that is served by contract cannot: a purchase would end the contract. */
export function canBuy(account: Purchaser, nowMs: number): boolean {
  const isByContract = account.state === "active" && planOf(account.plan).amountCents === null;
  return (
    !hasSubscription(account) && account.customerId !== null && !isByContract && allows(account, "checkout", nowMs)
  );
}

/** Opens a Checkout session for a tenant that exists. Earlier open sessions of its customer end. */
export async function openOwnCheckout(
  context: Context,
  tenant: { tenantId: TenantId; customerId: string },
  order: z.infer<typeof OwnCheckoutRequest>,
  creation?: Creation,
): Promise<{ tenantId: TenantId; checkoutUrl: string; statusUrl: string }> {
  const { env, stripe } = context;
  const { tenantId, customerId } = tenant;
  const nowMs = creation?.atMs ?? Date.now();
  const { statusUrl: progressUrl, ...pages } = await pagesOf(env, tenantId, order, nowMs);
  try {
    await stripe.checkout.expireOpen(customerId);
    const { url } = await stripe.checkout.create({
      tenantId,
      idempotencyKey: `checkout.${tenantId}.${crypto.randomUUID()}`, // a repeat has ended the page that a lost answer left
      plan: order.plan,
      buyer: { customerId },
      ...pages,
      trialDays: 0,
      anchorMs: cycleAnchorMs(nowMs, 0),
      nowMs,
    });
    return { tenantId, checkoutUrl: url, statusUrl: progressUrl };
  } catch (error) {
    log("error", "checkout_failed", { tenantId, error: describeError(error) });
    throw error;
  }
}

/** Where the buyer goes after the payment page. Throws for a page outside the deployment. */
async function pagesOf(
  env: Env,
  tenantId: TenantId,
  order: { successUrl?: string | undefined; cancelUrl?: string | undefined },
  nowMs: number,
): Promise<{ successUrl: string; cancelUrl: string; statusUrl: string }> {
  const { statusUrl, pageUrl } = await progressUrls(env, tenantId, nowMs);
  const { successUrl, cancelUrl } = order;
  return {
    statusUrl,
    successUrl: successUrl === undefined ? pageUrl : trustedUrl(env, "successUrl", successUrl),
    cancelUrl: cancelUrl === undefined ? `${env.PUBLIC_URL}/plans` : trustedUrl(env, "cancelUrl", cancelUrl),
  };
}

/** An offer by the operator may have a trial. Stripe requires its end to be at least two days ahead. */
export const OfferRequest = CheckoutRequest.extend({ trialDays: z.int().min(2).max(365).optional() });

/** Opens an order. Only its response gives access to it. Throws when Stripe fails: `billing_unavailable` or `billing_refused`. */
export async function openCheckout(
  context: Context,
  requestId: string,
  order: z.infer<typeof OfferRequest>,
  creation?: Creation,
): Promise<{ tenantId: TenantId; checkoutUrl: string; statusUrl: string; setupToken: string }> {
  const { env } = context;
  const tenantId = creation?.seed ?? newTenantId();
  const email = order.email ?? null;
  const nowMs = creation?.atMs ?? Date.now();
  const { statusUrl: progressUrl, ...pages } = await pagesOf(env, tenantId, order, nowMs);
  // Store the order first: a payment for an unknown tenant cannot be applied.
  await checkoutsStore(context.control).insert(tenantId, { name: order.name, email, plan: order.plan });
  const trialDays = order.trialDays ?? 0;
  let session;
  try {
    session = await context.stripe.checkout.create({
      tenantId,
      idempotencyKey: `checkout.${tenantId}`,
      plan: order.plan,
      buyer: { email },
      ...pages,
      trialDays,
      anchorMs: cycleAnchorMs(nowMs, trialDays),
      nowMs,
    });
  } catch (error) {
    log("error", "checkout_failed", { requestId, tenantId, error: describeError(error) });
    throw error;
  }
  const setupToken = await mintCredential(env.CREDENTIAL_KEY, {
    kind: "setup",
    tenantId,
    fields: [String(nowMs + SETUP_LIFE_MS)],
  });
  return { tenantId, checkoutUrl: session.url, statusUrl: progressUrl, setupToken };
}
