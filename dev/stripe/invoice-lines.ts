// The lines of an invoice. Base prices are billed for the period that begins, usage for the period that ended.
// Pending invoice items (invoice-items.ts) become lines of the next invoice.
import { usageOf } from "./meters.ts";
import { type Charge, chargesFor, share } from "./money.ts";
import type { Invoice, InvoiceItem, InvoiceLine, MeteredLine, Price, SubscriptionItem } from "./objects.ts";
import { newId, type Store } from "./store.ts";

/** From `start` to `end`, in seconds, end excluded. */
export interface Period {
  start: number;
  end: number;
}
/** The billed share of a full period; `credit` makes it negative. */
export interface Share {
  part: number;
  whole: number;
  credit?: boolean;
}

/** The base price of a licensed item for a period, or for a share of it. Metered items have none. */
export function baseLines(store: Store, item: SubscriptionItem, period: Period, part?: Share): InvoiceLine[] {
  if (item.price.recurring?.usage_type === "metered") return [];
  return chargesFor(item.price, item.quantity ?? 1).map((charge) => ({
    ...itemLine(store, item, charge, period),
    ...(part === undefined ? {} : { amount: partOf(charge, part), subtotal: partOf(charge, part) }),
    ...(part === undefined ? {} : { parent: itemParent(item, true) }),
  }));
}

function partOf(charge: Charge, { part, whole, credit }: Share): number {
  return share(credit === true ? -charge.amount : charge.amount, part, whole);
}

/** The invoice with these lines and its totals. The customer's balance is applied first. */
export function withLines(invoice: Invoice, lines: readonly InvoiceLine[]): Invoice {
  const total = lines.reduce((sum, line) => sum + line.amount, 0);
  const due = Math.max(total + invoice.starting_balance, 0);
  return {
    ...invoice,
    amount_due: due,
    amount_remaining: due - invoice.amount_paid,
    lines: { ...invoice.lines, data: lines.map((line) => ({ ...line, invoice: invoice.id })) },
    subtotal: total,
    subtotal_excluding_tax: total,
    total,
    total_excluding_tax: total,
  };
}

/** The line of an item in its trial, at zero cost. */
export function trialLine(store: Store, item: SubscriptionItem, period: Period): InvoiceLine {
  const charge: Charge = { quantity: item.quantity ?? 0, unitAmount: "0", amount: 0 };
  return {
    ...itemLine(store, item, charge, period),
    description: `Trial period for ${productName(store, item.price)}`,
  };
}

/** The usage so far of a metered item in a period: one line for each tier. */
export function usageLines(store: Store, customer: string, metered: MeteredLine): InvoiceLine[] {
  const charges = chargesFor(metered.item.price, usageOf(store, customer, metered));
  return charges.map((charge) => itemLine(store, metered.item, charge, metered.period));
}

/** The line of an invoice item. */
export function lineOfInvoiceItem(item: InvoiceItem): InvoiceLine {
  const of = item.parent?.subscription_details;
  return {
    ...newLine(item.currency, item.amount, item.quantity, item.period),
    description: item.description,
    invoice: item.invoice,
    metadata: item.metadata ?? {},
    parent: {
      invoice_item_details: {
        invoice_item: item.id,
        proration: item.proration,
        proration_details: null,
        subscription: of?.subscription ?? null,
      },
      subscription_item_details: null,
      type: "invoice_item_details",
    },
    pricing: item.pricing,
    subscription: of?.subscription ?? null,
  };
}

export function describe(store: Store, price: Price, quantity: number): string {
  return `${quantity} × ${productName(store, price)}`;
}

export function productName(store: Store, price: Price): string {
  return store.find("product", productOf(price))?.name ?? price.id;
}

export function productOf(price: Price): string {
  return typeof price.product === "string" ? price.product : price.product.id;
}

type BilledItem = Pick<SubscriptionItem, "id" | "price" | "subscription">;

function itemLine(store: Store, item: BilledItem, charge: Charge, period: Period): InvoiceLine {
  return {
    ...newLine(item.price.currency, charge.amount, charge.quantity, period),
    description: describe(store, item.price, charge.quantity),
    parent: itemParent(item, false),
    pricing: {
      price_details: { price: item.price.id, product: productOf(item.price) },
      type: "price_details",
      unit_amount_decimal: charge.unitAmount,
    },
    subscription: item.subscription,
  };
}

function itemParent(item: BilledItem, proration: boolean): InvoiceLine["parent"] {
  return {
    invoice_item_details: null,
    subscription_item_details: {
      invoice_item: null,
      proration,
      proration_details: null,
      subscription: item.subscription,
      subscription_item: item.id,
    },
    type: "subscription_item_details",
  };
}

function newLine(currency: string, amount: number, quantity: number, period: Period): InvoiceLine {
  return {
    id: newId("il_"),
    object: "line_item",
    amount,
    currency,
    description: null,
    discount_amounts: [],
    discountable: true,
    discounts: [],
    invoice: null,
    livemode: false,
    metadata: {},
    parent: null,
    period,
    pretax_credit_amounts: [],
    pricing: null,
    quantity,
    quantity_decimal: String(quantity),
    subscription: null,
    subtotal: amount,
    taxes: [],
  };
}
