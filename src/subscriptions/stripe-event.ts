// Reads from a Stripe event what the inbox keeps of it: its id and type, and the ids of its object, tenant and customer. The
// rest is not stored: Tollgate asks Stripe for the current object, and an event quotes names and e-mail addresses.
// Stripe may add or change fields, so a field of an unexpected type counts as absent, and so does a text that the database
// cannot store. Every event that Stripe has signed can be kept.
import * as z from "zod";
import { storable, unstorableText } from "../core/text/text.ts";

/** Name of the object that applies events about the whole Stripe account. It is not a valid tenant id. */
export const ACCOUNT_OBJECT = "~billing";

export interface IncomingEvent {
  id: string;
  type: string;
  /** The tenant id in the event. The inbox checks it against the control tables. */
  namedTenant: string | null;
  /** The Stripe customer that the event is about. */
  customerId: string | null;
  /** The Stripe object that the event is about. `null` for a thin event. */
  objectId: string | null;
  /** Whether the event is of the live mode. `null`: it does not say. */
  livemode: boolean | null;
  /** The connected account that the event is about. `null`: the account of our key. */
  accountId: string | null;
}

/** Stripe's ids have at most 255 characters. Longer ones would not fit into an index. */
const MAX_ID_CHARS = 255;

const idText = z
  .string()
  .min(1)
  .max(MAX_ID_CHARS)
  .refine((value) => unstorableText(value) === undefined);
const text = idText.nullable().catch(null);
const none = { tenant_id: null };
const metadata = z.object({ tenant_id: text }).catch(none);
/** A customer's id, or the customer itself where Stripe has expanded it. */
const customer = z.union([idText, z.object({ id: idText }).transform(({ id }) => id)]);

const EventObject = z
  .object({
    object: text,
    id: text,
    client_reference_id: text,
    metadata,
    customer: customer.nullable().catch(null),
    parent: z
      .object({ subscription_details: z.object({ metadata }) })
      .catch({ subscription_details: { metadata: none } }),
  })
  .catch({
    object: null,
    id: null,
    client_reference_id: null,
    metadata: none,
    customer: null,
    parent: { subscription_details: { metadata: none } },
  });

/** An id or a type has to be there. Characters that the database cannot store are replaced: no id of Stripe's has any. */
const required = z
  .string()
  .min(1)
  .transform((value) => storable(value, MAX_ID_CHARS));

const Envelope = z.object({
  id: required,
  type: required,
  livemode: z.boolean().nullable().catch(null),
  account: text,
});

const Snapshot = Envelope.extend({ data: z.object({ object: EventObject }).catch({ object: EventObject.parse({}) }) });

/**
 * An event with its object. The tenant id comes from `client_reference_id`, or from `tenant_id` in the metadata of the
 * object or of its subscription. `undefined`: it has no id or no type, so it is no event.
 */
export function incomingEvent(event: unknown): IncomingEvent | undefined {
  const parsed = Snapshot.safeParse(event);
  if (!parsed.success) return undefined;
  const { id, type, livemode, account: accountId, data } = parsed.data;
  const { object } = data;
  const ofSubscription = object.parent.subscription_details.metadata;
  return {
    id,
    type,
    namedTenant: object.client_reference_id ?? object.metadata.tenant_id ?? ofSubscription.tenant_id,
    customerId: object.object === "customer" ? object.id : object.customer,
    objectId: object.id,
    livemode,
    accountId,
  };
}

/** A thin event. It is about the whole Stripe account, without a customer. */
export function incomingNotification(notification: unknown): IncomingEvent | undefined {
  const parsed = Envelope.safeParse(notification);
  if (!parsed.success) return undefined;
  const { id, type, livemode, account: accountId } = parsed.data;
  return { id, type, namedTenant: ACCOUNT_OBJECT, customerId: null, objectId: null, livemode, accountId };
}

/**
 * Why an event is about objects that our key does not reach, as the outcome to store. `undefined`: it may be ours. An
 * endpoint of a platform also gets events of connected accounts, and those in both modes. `keyIsLive`: `undefined` when the
 * key does not say.
 */
export function outOfReach(
  { livemode, accountId }: Pick<IncomingEvent, "livemode" | "accountId">,
  keyIsLive: boolean | undefined,
): "other_account" | "other_mode" | undefined {
  if (accountId !== null) return "other_account";
  return livemode !== null && keyIsLive !== undefined && livemode !== keyIsLive ? "other_mode" : undefined;
}
