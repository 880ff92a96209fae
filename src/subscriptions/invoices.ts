// Closes the billing periods of Stripe's final invoices. Later usage of such a period becomes a carry-forward.
import type { Context } from "../control/context.ts";
import type { TenantId } from "../core/tenant.ts";
import { periodsStore } from "../reports/periods-store.ts";
import { subscriptionsStore } from "./subscriptions-store.ts";

/** Closes the period of a tenant's invoice if the invoice is final. A repetition changes nothing. */
export async function recordInvoice(
  { control, stripe }: Context,
  tenantId: TenantId,
  invoiceId: string,
): Promise<void> {
  const invoice = await stripe.invoices.get(invoiceId);
  if (invoice === undefined) return; // a draft that was deleted
  const { period, finalizedAtMs, subscriptionId, customerId, metered } = invoice;
  if (period === null || finalizedAtMs === null || subscriptionId === null) return;
  const [tenant, subscription] = await Promise.all([
    subscriptionsStore(control).read(tenantId),
    stripe.subscriptions.get(subscriptionId),
  ]);
  if (tenant === undefined || tenant.customerId !== customerId) return;
  await periodsStore(control).close({
    invoiceId,
    tenantId,
    ...period,
    isTrial: (subscription?.trialUntilMs ?? -Infinity) >= period.endMs,
    plan: metered?.plan ?? tenant.plan,
    invoicedUnits: metered?.units ?? null,
    finalizedAtMs,
  });
}
