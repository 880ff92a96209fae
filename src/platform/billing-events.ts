// What a Stripe event changes. The event only says that something happened: what is now true is fetched from Stripe,
// inside the tenant's object, so that neither order nor repetition matters (DESIGN.md I4).
import type { PendingEvent } from "../adapters/control-inbox.ts";
import { tenantsOf } from "../adapters/control-tenants.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { plans } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { startProvisioning } from "./provisioning-start.ts";

/** Applies one event and returns what came of it, for the inbox. A throw leaves it to be applied again. */
export async function applyBillingEvent(env: Env, tenantId: TenantId, event: PendingEvent): Promise<string> {
  const objectId = event.payload.data?.object?.id ?? "";
  switch (event.type) {
    case "checkout.session.completed":
    case "checkout.session.async_payment_succeeded":
      return await completeCheckout(env, tenantId, objectId);
    default:
      return event.type satisfies never; // the inbox gives out no other
  }
}

async function completeCheckout(env: Env, tenantId: TenantId, sessionId: string): Promise<string> {
  const tenants = tenantsOf(env);
  const [order, paid] = await Promise.all([
    tenants.checkout(tenantId),
    connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE).paidCheckout(sessionId),
  ]);
  if (order === undefined) return "not_ordered";
  if (paid === undefined) return "not_paid";
  if (paid.tenantId !== tenantId) return "not_ours"; // paid elsewhere, with this tenant's id as its reference
  const plan = plans[order.plan];
  const { created } = await tenants.insert({
    id: tenantId,
    name: order.name,
    email: order.email ?? paid.email,
    plan: plan.name,
    strategy: plan.strategy,
    region: null,
    limits: plan.limits,
    allowedTools: null,
    trialUntil: null,
    stripeCustomerId: paid.customerId,
    stripeSubscriptionId: paid.subscriptionId,
  });
  await startProvisioning(env, tenantId);
  return created ? "tenant_created" : "tenant_known";
}
