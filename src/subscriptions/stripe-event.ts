// Reads from a Stripe event what the inbox needs: its id, its type, and the tenant and customer that it names. The inbox
// stores the event as received.

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

/**
 * An event with its object. The tenant id comes from `client_reference_id`, or from `tenant_id` in the metadata of the
 * object or of its subscription.
 */
export function incomingEvent(event: StripeEventLike): IncomingEvent {
  const object = event.data.object as {
    object?: unknown;
    id?: unknown;
    client_reference_id?: unknown;
    metadata?: Record<string, unknown> | null;
    customer?: unknown;
    parent?: { subscription_details?: { metadata?: Record<string, unknown> | null } | null } | null;
  };
  const customer = object.object === "customer" ? object.id : object.customer;
  const ofSubscription = object.parent?.subscription_details?.metadata;
  return {
    id: event.id,
    type: event.type,
    namedTenant:
      text(object.client_reference_id) ?? text(object.metadata?.["tenant_id"]) ?? text(ofSubscription?.["tenant_id"]),
    customerId: text(customer) ?? text((customer as { id?: unknown } | null | undefined)?.id),
    payload: event,
  };
}

/** A thin event. It is about the whole Stripe account, without a customer. */
export function incomingNotification(notification: { id: string; type: string }): IncomingEvent {
  return { id: notification.id, type: notification.type, namedTenant: ACCOUNT_OBJECT, customerId: null, payload: {} };
}

/** The id of the Stripe object that a stored event is about. Empty for a thin event. */
export function objectIdOf(payload: unknown): string {
  return text((payload as { data?: { object?: { id?: unknown } } } | null)?.data?.object?.id) ?? "";
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
