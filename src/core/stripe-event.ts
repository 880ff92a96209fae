// What the inbox needs of a Stripe event: its identity, and whose it says it is. The rest is kept as it came.

/** The events that change something here; the others are kept for the record. A webhook endpoint needs no more. */
export const appliedEventTypes = ["checkout.session.completed", "checkout.session.async_payment_succeeded"] as const;
export type AppliedEventType = (typeof appliedEventTypes)[number];

export interface StripeEventLike {
  id: string;
  type: string;
  data: { object: object };
}

/** The tenant that an event names (`client_reference_id`, or `tenant_id` in its metadata) and its customer. */
export function incomingEvent(event: StripeEventLike): {
  id: string;
  type: string;
  namedTenant: string | null;
  customerId: string | null;
  payload: unknown;
} {
  const object = event.data.object as {
    object?: unknown;
    id?: unknown;
    client_reference_id?: unknown;
    metadata?: Record<string, unknown> | null;
    customer?: unknown;
  };
  const customer = object.object === "customer" ? object.id : object.customer;
  return {
    id: event.id,
    type: event.type,
    namedTenant: text(object.client_reference_id) ?? text(object.metadata?.["tenant_id"]),
    customerId: text(customer) ?? text((customer as { id?: unknown } | null | undefined)?.id),
    payload: event,
  };
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
