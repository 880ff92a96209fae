// The objects of the simulator, typed by Stripe's SDK, and their public form.
// Two differences from the SDK's types: decimals are text on the wire, and a session keeps what paying will subscribe to.
import type { Stripe } from "stripe";
import { badRequest } from "./errors.ts";

/** Does not compile when the installed SDK pins another API version. Then review the simulator. */
export const API_VERSION = "2026-10-28.endive" satisfies Stripe.LatestApiVersion;

type DecimalAsText<T> = {
  [K in keyof T]: Extract<T[K], Stripe.Decimal> extends never ? T[K] : Exclude<T[K], Stripe.Decimal> | string;
};

export type Tier = DecimalAsText<Stripe.Price.Tier>;
export type Price = Omit<DecimalAsText<Stripe.Price>, "tiers"> & { tiers?: Tier[] };
export type Plan = Omit<DecimalAsText<Stripe.Plan>, "tiers">;
export type SubscriptionItem = Omit<Stripe.SubscriptionItem, "price" | "plan"> & {
  price: Price;
  plan: Plan;
  /** Meter events up to this number came before the item had its price and are not billed. Never in answers. */
  usage_after_seq?: number;
};
export type Subscription = Omit<Stripe.Subscription, "items" | "customer"> & {
  customer: string;
  items: Stripe.ApiList<SubscriptionItem>;
  latest_invoice: string | null;
};
/** The customer and period of the usage that an invoice bills. */
export interface MeteredLine {
  item: Pick<SubscriptionItem, "id" | "price" | "subscription" | "usage_after_seq">;
  period: { readonly start: number; readonly end: number };
}
export type InvoiceLine = Omit<Stripe.InvoiceLineItem, "pricing" | "quantity_decimal" | "subscription"> & {
  pricing: DecimalAsText<Stripe.InvoiceLineItem.Pricing> | null;
  quantity_decimal: string | null;
  subscription: string | null;
};
export type Invoice = Omit<Stripe.Invoice, "lines" | "customer"> & {
  customer: string;
  lines: Stripe.ApiList<InvoiceLine>;
  /** The usage to count at finalization. Never in answers. */
  metered: readonly MeteredLine[];
};
export type InvoiceItem = Omit<Stripe.InvoiceItem, "pricing" | "quantity_decimal" | "customer" | "invoice"> & {
  customer: string;
  invoice: string | null;
  pricing: DecimalAsText<Stripe.InvoiceItem.Pricing> | null;
  quantity_decimal: string;
};
export type PaymentMethod = Omit<Stripe.PaymentMethod, "customer"> & {
  customer: string | null;
  /** True if charges fail. Never in answers. */
  declines: boolean;
};
export type PortalConfiguration = Stripe.BillingPortal.Configuration;
export type PortalSession = Omit<Stripe.BillingPortal.Session, "configuration"> & { configuration: string };
export type LineItem = Omit<Stripe.LineItem, "price"> & { price: Price };
export type Session = Omit<Stripe.Checkout.Session, "line_items" | "customer" | "subscription" | "invoice"> & {
  customer: string | null;
  invoice: string | null;
  subscription: string | null;
  line_items: Stripe.ApiList<LineItem>;
  /** The subscription that the payment creates. Never in answers. */
  subscription_data: SubscriptionData;
};
export type EventDestination = Stripe.V2.Core.EventDestination & {
  webhook_endpoint: Stripe.V2.Core.EventDestination.WebhookEndpoint;
};
type MeterReport =
  | Stripe.Events.V1BillingMeterErrorReportTriggeredEvent
  | Stripe.Events.V1BillingMeterNoMeterFoundEvent;
/** In the form that a client fetches. The delivered form has no `data`. */
export type ThinEvent = Pick<MeterReport, "id" | "object" | "created" | "livemode" | "type" | "data"> & {
  related_object: Stripe.V2.Core.Events.RelatedObject | null;
};
export type Event = Omit<Stripe.EventBase, "data"> & { data: { object: object; previous_attributes?: object } };

/** The input that Checkout and subscription creation share. Instants in seconds. */
export interface SubscriptionData {
  metadata?: Record<string, string> | undefined;
  description?: string | undefined;
  billing_cycle_anchor?: number | undefined;
  billing_mode?: { readonly type: "flexible" | "classic" } | undefined;
  proration_behavior?: "always_invoice" | "create_prorations" | "none" | undefined;
  trial_end?: number | undefined;
  trial_period_days?: number | undefined;
}

/** Kind of a stored object (its `object` field) -> its type. */
export interface Kinds {
  product: Stripe.Product;
  price: Price;
  customer: Stripe.Customer;
  "billing.meter": Stripe.Billing.Meter;
  "checkout.session": Session;
  subscription: Subscription;
  invoice: Invoice;
  invoiceitem: InvoiceItem;
  payment_method: PaymentMethod;
  "billing_portal.configuration": PortalConfiguration;
  "billing_portal.session": PortalSession;
  event: Event;
  "v2.core.event": ThinEvent;
  "v2.core.event_destination": EventDestination;
}
export type Kind = keyof Kinds;
export type StoredObject = Kinds[Kind];

const EXPANDABLE = new Set([
  "product.default_price",
  "price.product",
  "price.tiers",
  "checkout.session.customer",
  "checkout.session.subscription",
  "checkout.session.line_items",
  "subscription.customer",
  "checkout.session.invoice",
  "subscription.latest_invoice",
  "invoice.customer",
  "invoiceitem.customer",
  "invoiceitem.invoice",
  "billing_portal.session.configuration",
]);
const HIDDEN = new Set([
  "checkout.session.subscription_data",
  "subscription_item.usage_after_seq",
  "invoice.metered",
  "payment_method.declines",
]);
/** Fields that answers contain only with `expand[]`. */
const ON_REQUEST = new Set(["price.tiers", "checkout.session.line_items"]);
/** Lines inside an invoice, as at Stripe. The list endpoint returns the rest. */
const LINES_SHOWN = 10;

type Find = (id: string) => unknown;

/**
 * The public form of a stored object or list, `expand` paths ("data.price.product") resolved by `find`.
 * Throws a 400 for a path that cannot be expanded.
 */
export function present(value: object, expand: readonly string[], find: Find): Record<string, unknown> {
  const fields = new Map<string, unknown>(Object.entries(value));
  const nameOf = (key: string) => `${String(fields.get("object"))}.${key}`;
  const wanted = new Map<string, string[]>();
  for (const path of expand) {
    const [head = "", ...rest] = path.split(".");
    wanted.set(head, [...(wanted.get(head) ?? []), ...(rest.length > 0 ? [rest.join(".")] : [])]);
  }
  for (const [key, rest] of wanted) {
    const passesThrough = rest.length > 0 && typeof fields.get(key) === "object";
    if (!EXPANDABLE.has(nameOf(key)) && !passesThrough) {
      throw badRequest(`This property cannot be expanded (${key}).`, { param: "expand" });
    }
  }
  const shown: Record<string, unknown> = {};
  for (const [key, child] of fields) {
    const rest = wanted.get(key);
    if (HIDDEN.has(nameOf(key)) || (ON_REQUEST.has(nameOf(key)) && rest === undefined)) continue;
    const resolves = rest !== undefined && EXPANDABLE.has(nameOf(key)) && typeof child === "string";
    const whole = resolves ? find(child) : child;
    shown[key] = show(nameOf(key) === "invoice.lines" ? firstOf(whole) : whole, rest ?? [], find);
  }
  return shown;
}

function firstOf(list: unknown): unknown {
  if (typeof list !== "object" || list === null || !("data" in list) || !Array.isArray(list.data)) return list;
  return { ...list, data: list.data.slice(0, LINES_SHOWN), has_more: list.data.length > LINES_SHOWN };
}

function show(value: unknown, expand: readonly string[], find: Find): unknown {
  if (Array.isArray(value)) return value.map((item) => show(item, expand, find));
  return typeof value === "object" && value !== null ? present(value, expand, find) : value;
}
