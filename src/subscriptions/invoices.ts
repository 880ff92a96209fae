// A tenant's invoices at Stripe: what is behind their lines, and the billing periods that the final ones close. Later usage of a
// closed period becomes a carry-forward.
import { joinBatches } from "../adapters/neon.ts";
import type { CustomerInvoice, CustomerInvoiceLine } from "../adapters/stripe/invoices.ts";
import type { Context } from "../control/context.ts";
import type { PlanName } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { type MeteredDay, receiptsStore } from "../metering/receipts-store.ts";
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

/** The usage of one price in one period on an invoice. */
export interface InvoicedPeriod {
  plan: PlanName | undefined;
  startMs: number;
  /** Exclusive. */
  endMs: number;
  /** What Stripe bills. */
  units: number;
  amountCents: number;
  /** The reports that Stripe counted, with the sums of their calls. */
  days: readonly MeteredDay[];
}

export interface TenantInvoice extends CustomerInvoice {
  lines: readonly CustomerInvoiceLine[];
  usage: readonly InvoicedPeriod[];
}

/** Invoices of a tenant, the newest first, after the invoice `after`. Empty without a customer at Stripe. */
export async function invoicesOf(
  { control, stripe }: Context,
  tenantId: TenantId,
  page: { after: string | undefined; limit: number },
): Promise<CustomerInvoice[]> {
  const tenant = await subscriptionsStore(control).read(tenantId);
  return tenant === undefined || tenant.customerId === null ? [] : stripe.invoices.list(tenant.customerId, page);
}

/**
 * An invoice of a tenant with the reports behind its usage. `undefined`: the tenant has no such invoice. Stripe comes first, so that
 * one round trip reads the periods of all lines and whose invoice it is.
 */
export async function invoiceOf(
  context: Context,
  tenantId: TenantId,
  invoiceId: string,
): Promise<TenantInvoice | undefined> {
  const invoice = await context.stripe.invoices.withLines(invoiceId);
  if (invoice === undefined) return undefined;
  const control = joinBatches(context.control);
  const metered = Map.groupBy(invoice.lines, ({ usageKey }) => usageKey);
  metered.delete(null);
  const [tenant, ...usage] = await Promise.all([
    subscriptionsStore(control).read(tenantId),
    ...Array.from(metered.values(), (lines) => periodBehind(control, tenantId, lines)),
  ]);
  if (invoice.customerId === null || tenant?.customerId !== invoice.customerId) return undefined;
  return { ...invoice, usage: usage.flatMap((each) => each ?? []) };
}

/** `lines`: the tiers of one price in one period. */
async function periodBehind(
  control: Context["control"],
  tenantId: TenantId,
  lines: readonly CustomerInvoiceLine[],
): Promise<InvoicedPeriod | undefined> {
  const [first] = lines;
  if (first === undefined) return undefined;
  const { plan, startMs, endMs } = first;
  return {
    ...{ plan, startMs, endMs },
    units: lines.reduce((sum, { quantity }) => sum + (quantity ?? 0), 0),
    amountCents: lines.reduce((sum, line) => sum + line.amountCents, 0),
    days: await receiptsStore(control).meteredDays(tenantId, { startMs, endMs }),
  };
}
