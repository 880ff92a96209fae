// Applies Stripe's events in the tenant's object, under the tenant's lock. An event only says that something happened:
// Tollgate reads the waiting events, then fetches the current state from Stripe. So the order and the repetition of events
// do not matter, and one request to Stripe serves all waiting events.
import { joinBatches } from "../adapters/neon.ts";
import { isUnknownToStripe } from "../adapters/stripe/client.ts";
import type { Context } from "../control/context.ts";
import { SUBSCRIPTION_ISSUES, failuresStore } from "../control/failures-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { AppError, isPermanent } from "../core/errors.ts";
import { planOf } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { startProvisioning } from "../lifecycle/provisioning.ts";
import { mustClose } from "../lifecycle/removal.ts";
import { removalsStore } from "../lifecycle/removals-store.ts";
import { describeError, log } from "../log.ts";
import { recordMeterErrors } from "../reports/meter-errors.ts";
import { checkoutsStore } from "./checkouts-store.ts";
import { type PendingEvent, type SetAside, inboxStore } from "./inbox-store.ts";
import { recordInvoice } from "./invoices.ts";
import { periodsStore } from "../reports/periods-store.ts";
import { afterSubscriptions, duplicatesOf, hasForeignPrice } from "./subscription.ts";
import { subscriptionsStore } from "./subscriptions-store.ts";

/** Maximum number of attempts. Others write the tenant's row, too. After each lost race Tollgate asks Stripe again. */
const MAX_WRITES = 5;

/** Outcome of an event that arrived before its tenant was created. Creating the tenant reopens it. */
const NO_TENANT_YET = "no_tenant_yet";

/** What a person must look at, in the list of failures, until it is over or acknowledged. */
const FOREIGN_PRICE =
  "Its subscription at Stripe has no price of a plan. It is served under the plan that it had. Give the price a plan's lookup key, or move the subscription back.";
const SECOND_SUBSCRIPTION =
  "It had a second running subscription, which Tollgate ended without an invoice. Refund its payment at Stripe:";
const DELETED_CUSTOMER =
  "Its customer was deleted at Stripe. Usage that no invoice has is not billed, and the account closes. It can return with a new way to pay.";

/**
 * Applies the tenant's waiting events. An event that fails stays in the inbox and is retried. Returns whether the tenant's
 * object lags behind its row.
 */
export async function applyStripeEvents(context: Context, tenantId: TenantId): Promise<{ isUndelivered: boolean }> {
  const inbox = inboxStore(context.control);
  const reads = joinBatches(context.control);
  const [pending, wasUndelivered] = await Promise.all([
    inboxStore(reads).pending(tenantId),
    tenantsStore(reads).isUndelivered(tenantId),
  ]);
  if (pending.length === 0) return { isUndelivered: wasUndelivered };
  let synced: Promise<string> | undefined;
  const sync = (): Promise<string> => (synced ??= syncSubscription(context, tenantId));
  const applied = new Map<string, string>();
  // A Checkout comes first, because it creates the tenant of the other events.
  for (const event of pending.toSorted((a, b) => Number(isCheckout(b)) - Number(isCheckout(a)))) {
    try {
      applied.set(event.id, await apply(context, tenantId, event, sync));
    } catch (error) {
      const why = describeError(error);
      const outcome = setAsideAs(error);
      log("error", "webhook_not_applied", { tenantId, eventId: event.id, outcome, error: why });
      await (outcome === undefined ? inbox.failed(event.id, why) : inbox.setAside(event.id, outcome, why));
    }
  }
  const control = joinBatches(context.control);
  const [isUndelivered] = await Promise.all([
    tenantsStore(control).isUndelivered(tenantId),
    // An event that was applied and not marked is applied again, which changes nothing.
    inboxStore(control).applied(applied),
  ]);
  return { isUndelivered };
}

/**
 * The outcome of an event that no repetition applies, because Stripe refuses for good what the event asks for. `undefined`:
 * a repetition may succeed. Our key does not know the objects of another mode or account, and none that was deleted.
 */
function setAsideAs(error: unknown): SetAside | undefined {
  if (isUnknownToStripe(error)) return "unknown_object";
  return isPermanent(error) ? "refused" : undefined;
}

async function apply(
  context: Context,
  tenantId: TenantId,
  event: PendingEvent,
  sync: () => Promise<string>,
): Promise<string> {
  const objectId = event.objectId ?? "";
  switch (event.type) {
    case "checkout.session.completed":
    case "checkout.session.async_payment_succeeded":
      return await completeCheckout(context, tenantId, objectId, sync);
    case "customer.deleted":
      return (await forgetDeletedCustomer(context, tenantId)) ?? (await sync());
    case "customer.subscription.created":
    case "customer.subscription.updated":
    case "customer.subscription.deleted":
    case "invoice.created":
    case "invoice.paid":
    case "invoice.payment_failed":
      return await sync();
    case "invoice.finalized": {
      const outcome = await sync();
      if (outcome !== NO_TENANT_YET) await recordInvoice(context, tenantId, objectId);
      return outcome;
    }
    case "v1.billing.meter.error_report_triggered":
    case "v1.billing.meter.no_meter_found":
      return await recordMeterErrors(context, event.id);
    default:
      return event.type satisfies never; // the inbox returns no other type
  }
}

function isCheckout({ type }: PendingEvent): boolean {
  return type.startsWith("checkout.");
}

async function completeCheckout(
  context: Context,
  tenantId: TenantId,
  sessionId: string,
  sync: () => Promise<string>,
): Promise<string> {
  const control = joinBatches(context.control);
  const [order, known, paid] = await Promise.all([
    checkoutsStore(control).find(tenantId),
    tenantsStore(control).facts(tenantId),
    context.stripe.checkout.paid(sessionId),
  ]);
  if (paid === undefined) return "not_paid";
  if (paid.tenantId !== tenantId) return "not_ours"; // paid elsewhere, with this tenant's id as its reference
  // A tenant that exists has bought a plan: its subscription says which.
  if (known !== undefined && order === undefined) return await sync();
  if (order === undefined) return "not_ordered";
  const plan = planOf(order.plan);
  const writes = joinBatches(context.control);
  const tenant = {
    id: tenantId,
    name: order.name || tenantId, // the order was paid after its name was cleared
    email: order.email ?? paid.email,
    plan: plan.name,
    strategy: plan.strategy,
    region: null,
    limits: plan.limits,
    allowedTools: null,
    trialUntil: null,
    stripeCustomerId: paid.customerId,
    stripeSubscriptionId: paid.subscriptionId,
  };
  const [{ created }] = await Promise.all([
    tenantsStore(writes).insert(tenant),
    inboxStore(writes).reopen(tenantId, NO_TENANT_YET),
  ]);
  // Both write the tenant's row. One after the other, so that neither has to read it again. Whether the subscription can be
  // read does not matter for the set-up.
  try {
    await sync();
  } finally {
    await startProvisioning(context, tenantId);
  }
  return created ? "tenant_created" : "tenant_known";
}

/** Updates the tenant's row from its customer's subscriptions at Stripe. Call it under the tenant's lock. */
export async function syncSubscription(context: Context, tenantId: TenantId): Promise<string> {
  const subscriptions = subscriptionsStore(context.control);
  for (let attempt = 1; attempt <= MAX_WRITES; attempt += 1) {
    // Read the row before asking Stripe, so that Stripe's answer is newer. The write succeeds only on this version.
    const row = await subscriptions.read(tenantId);
    if (row === undefined) return NO_TENANT_YET;
    const { version, customerId, ...before } = row;
    if (customerId === null) return "not_sold_by_stripe";
    const found = await context.stripe.subscriptions.ofCustomer(customerId);
    const duplicates = duplicatesOf(before, found);
    await endDuplicates(context, tenantId, duplicates);
    const alone = found.filter((each) => !duplicates.includes(each));
    const after = afterSubscriptions(before, found, Date.now());
    const isSame = JSON.stringify(after) === JSON.stringify(before);
    const issue = { tenantId, name: "foreign_price", standing: hasForeignPrice(after, found) };
    const control = joinBatches(context.control);
    const [, isWritten] = await Promise.all([
      periodsStore(control).record({ ...row, id: tenantId }, alone),
      isSame || subscriptionsStore(control).write(version, after),
      reportIssue({ control }, issue, FOREIGN_PRICE),
    ]);
    if (!isWritten) continue; // the next attempt reports the issue as it then is
    if (!isSame) log("info", "subscription_applied", { tenantId, state: after.state, plan: after.plan });
    if (mustClose(after)) await removalsStore(context.control).open(tenantId, "billing");
    return isSame ? "no_change" : `${after.state}_${after.plan}`;
  }
  throw new AppError("conflict", "the tenant's row changes faster than Stripe answers");
}

/** Ends the tenant's second subscriptions, so that no later invoice bills it twice. A person refunds what was paid. */
async function endDuplicates(
  context: Context,
  tenantId: TenantId,
  duplicates: readonly { id: string }[],
): Promise<void> {
  for (const { id } of duplicates) {
    await context.stripe.subscriptions.endDuplicate(id);
    log("error", "second_subscription_ended", { tenantId, subscriptionId: id });
    await reportIssue(context, { tenantId, name: id, standing: true }, `${SECOND_SUBSCRIPTION} ${id}.`);
  }
}

/**
 * Drops the tenant's customer when Stripe has deleted it. Its subscription has ended, so its removal begins; usage that no
 * invoice has cannot be billed any more. Returns `undefined` when the customer exists.
 */
async function forgetDeletedCustomer(context: Context, tenantId: TenantId): Promise<string | undefined> {
  const subscriptions = subscriptionsStore(context.control);
  const row = await subscriptions.read(tenantId);
  if (row === undefined) return NO_TENANT_YET;
  const { version, customerId, ...before } = row;
  if (customerId === null) return "no_customer";
  if (!(await context.stripe.customers.isDeleted(customerId))) return undefined;
  await reportIssue(context, { tenantId, name: "customer_deleted", standing: true }, DELETED_CUSTOMER);
  const { subscriptionId } = before;
  const found = subscriptionId === null ? undefined : await context.stripe.subscriptions.get(subscriptionId);
  const after = afterSubscriptions(before, found === undefined ? [] : [found], Date.now());
  if (!(await subscriptions.write(version, after))) throw new AppError("conflict", "the tenant's row has changed");
  await subscriptions.forgetCustomer(tenantId, customerId);
  if (mustClose(after)) await removalsStore(context.control).open(tenantId, "billing");
  return "customer_deleted";
}

/** Adds an issue to the list of failures, or takes it off. */
async function reportIssue(
  { control }: Pick<Context, "control">,
  { tenantId, name, standing }: { tenantId: TenantId; name: string; standing: boolean },
  text: string,
): Promise<void> {
  const failures = failuresStore(control);
  const item = `${tenantId} ${name}`;
  if (standing) await failures.record(SUBSCRIPTION_ISSUES, new Map([[item, text]]));
  else await failures.acknowledge(SUBSCRIPTION_ISSUES, item);
}
