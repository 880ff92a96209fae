// Reads from a Stripe event what the inbox needs: its id, its type, and the tenant and customer that it names. The inbox
// stores the event as received. Stripe may add or change fields, so a field of an unexpected type counts as absent.
import * as z from "zod";

/** Name of the object that applies events about the whole Stripe account. It is not a valid tenant id. */
export const ACCOUNT_OBJECT = "~billing";

interface StripeEventLike {
  id: string;
  type: string;
  data: { object: object };
}

export interface IncomingEvent {
  id: string;
  type: string;
  /** The tenant id in the event. The inbox checks it against the control tables. */
  namedTenant: string | null;
  /** The Stripe customer that the event is about. */
  customerId: string | null;
  payload: unknown;
}

const text = z.string().min(1).nullable().catch(null);
const metadata = z.object({ tenant_id: text }).catch({ tenant_id: null });
/** A customer's id, or the customer itself where Stripe has expanded it. */
const customer = z.union([z.string().min(1), z.object({ id: z.string().min(1) }).transform(({ id }) => id)]);

const EventObject = z.object({
  object: text,
  id: text,
  client_reference_id: text,
  metadata,
  customer: customer.nullable().catch(null),
  parent: z
    .object({ subscription_details: z.object({ metadata }) })
    .catch({ subscription_details: { metadata: { tenant_id: null } } }),
});

const StoredEvent = z.object({ data: z.object({ object: z.object({ id: z.string() }) }) });

/**
 * An event with its object. The tenant id comes from `client_reference_id`, or from `tenant_id` in the metadata of the
 * object or of its subscription.
 */
export function incomingEvent(event: StripeEventLike): IncomingEvent {
  const object = EventObject.parse(event.data.object);
  const ofSubscription = object.parent.subscription_details.metadata;
  return {
    id: event.id,
    type: event.type,
    namedTenant: object.client_reference_id ?? object.metadata.tenant_id ?? ofSubscription.tenant_id,
    customerId: object.object === "customer" ? object.id : object.customer,
    payload: event,
  };
}

/** A thin event. It is about the whole Stripe account, without a customer. */
export function incomingNotification(notification: { id: string; type: string }): IncomingEvent {
  return { id: notification.id, type: notification.type, namedTenant: ACCOUNT_OBJECT, customerId: null, payload: {} };
}

/** The id of the Stripe object that a stored event is about. Empty for a thin event. */
export function objectIdOf(payload: unknown): string {
  return StoredEvent.safeParse(payload).data?.data.object.id ?? "";
}
