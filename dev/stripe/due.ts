// Scheduled changes, in the order of their time: sessions expire, periods end, drafts are finalized, failed payments are
// retried. When the clock jumps over several changes, each happens at its own time.
import { closeSession } from "./checkout.ts";
import { attempt, finalizeInvoice, voidInvoice } from "./collection.ts";
import type { Context } from "./context.ts";
import type { StoredObject, Subscription } from "./objects.ts";
import { billRenewal } from "./subscription-billing.ts";
import { periodEnd } from "./subscriptions.ts";

/** Stripe's limit for the first payment. Then the subscription becomes `incomplete_expired`. */
const INCOMPLETE_FOR_S = 23 * 3600;
/** Bound against endless loops: more than a century of daily periods. */
const MOST_AT_ONCE = 50_000;

/** The next scheduled change of an object, in seconds; `null` for none. */
export function dueSeconds(object: StoredObject): number | null {
  if (object.object === "checkout.session") return object.status === "open" ? object.expires_at : null;
  if (object.object === "invoice") {
    if (object.status === "draft") return object.automatically_finalizes_at;
    return object.status === "open" ? object.next_payment_attempt : null;
  }
  if (object.object !== "subscription") return null;
  if (object.status === "incomplete") return object.created + INCOMPLETE_FOR_S;
  return object.status === "canceled" || object.status === "incomplete_expired" ? null : periodEnd(object);
}

/** Runs all changes that are due. `at` makes the context of an instant. */
export function happen(context: Context, at: (seconds: number) => Context): void {
  const now = Math.floor(context.nowMs / 1000);
  for (let count = 0; count < MOST_AT_ONCE; count += 1) {
    const next = context.store.nextDue(now);
    if (next === undefined) return;
    advance(at(next.atSeconds), next.object);
  }
  throw new Error("a bug in the simulator: each scheduled change causes another one");
}

function advance(context: Context, object: StoredObject): void {
  if (object.object === "checkout.session") closeSession(context, object);
  if (object.object === "invoice" && object.status === "draft") finalizeInvoice(context, object);
  if (object.object === "invoice" && object.status === "open") attempt(context, object);
  if (object.object === "subscription" && object.status === "incomplete") expire(context, object);
  else if (object.object === "subscription") billRenewal(context, object);
}

function expire(context: Context, subscription: Subscription): void {
  const invoice = context.store.find("invoice", subscription.latest_invoice ?? "");
  if (invoice?.status === "open") voidInvoice(context, {}, invoice.id);
  const expired: Subscription = { ...subscription, status: "incomplete_expired" };
  context.save("customer.subscription.updated", expired, subscription);
}
