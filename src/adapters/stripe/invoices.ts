// Invoices at Stripe: the period and the usage that an invoice bills, and invoice items for late usage.
import Stripe from "stripe";
import { type PlanName, planOfKeys, plans, unitsKey } from "../../core/plans/plans.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { type NoAnswer, idOf, noAnswer, orMissing } from "./client.ts";

/** An invoice as Stripe has it, reduced to the fields that matter here. */
export interface InvoiceFacts {
  id: string;
  customerId: string | null;
  subscriptionId: string | null;
  finalizedAtMs: number | null;
  /** The period that has ended, whose usage the invoice bills. `null`: the invoice was not made at the end of a period. */
  period: { startMs: number; endMs: number } | null;
  /** The plan whose units it bills, and how many. `null`: none. */
  metered: { plan: PlanName | null; units: number } | null;
}

/** Usage on an invoice: the sum of its lines of one price and period. There is a line for each tier of the price. */
export interface InvoicedUsage {
  invoiceId: string;
  subscriptionId: string | null;
  status: string;
  /** `undefined`: the price belongs to no plan that is sold now. */
  plan: PlanName | undefined;
  startSeconds: number;
  /** Exclusive. */
  endSeconds: number;
  units: number;
  amountCents: number;
}

/** An invoice as its customer sees it. */
export interface CustomerInvoice {
  id: string;
  customerId: string | null;
  /** `null`: a draft. */
  number: string | null;
  status: string;
  createdAtMs: number;
  /** In three small letters, such as `usd`. */
  currency: string;
  totalCents: number;
  /** What is still to be paid. */
  dueCents: number;
  /** Stripe's page with the invoice as a file and, while it is open, the way to pay. */
  url: string | null;
}

export interface CustomerInvoiceLine {
  id: string;
  description: string;
  quantity: number | null;
  amountCents: number;
  startMs: number;
  /** Exclusive. */
  endMs: number;
  /** Of usage: lines with the same key are the tiers of one price in one period. */
  usageKey: string | null;
  /** The plan of usage; `undefined`: the price belongs to no plan that is sold now. */
  plan: PlanName | undefined;
  /** The carry-forward that a line of late usage bills. */
  carryForwardId: string | null;
}

export type ItemAnswer = { kind: "item"; id: string } | NoAnswer;

export interface LateItem {
  /** Id of the carry-forward. */
  id: string;
  tenantId: TenantId;
  customerId: string;
  units: number;
  /** A decimal string with at most 12 places. */
  unitAmountCents: string;
  /** The billing period of the usage. */
  startSeconds: number;
  endSeconds: number;
}

export function connectInvoices(stripe: Stripe) {
  return {
    /** `undefined`: Stripe has no such invoice. A draft can be deleted. */
    async get(invoiceId: string): Promise<InvoiceFacts | undefined> {
      const invoice = await orMissing(stripe.invoices.retrieve(invoiceId));
      return invoice === undefined ? undefined : asInvoice(stripe, invoice);
    },

    /** Usage on a customer's invoices created since `createdAfterSeconds`. Skips drafts, which may still change. */
    async usage(customerId: string, createdAfterSeconds: number): Promise<InvoicedUsage[]> {
      const prices = new Map<string, Stripe.Price>();
      const found = new Map<string, InvoicedUsage>();
      const created = { gte: createdAfterSeconds };
      for await (const { id: invoiceId, status } of stripe.invoices.list({
        customer: customerId,
        created,
        limit: 100,
      })) {
        if (status === null || status === "draft" || status === "void") continue;
        for await (const { price, line } of meteredLines(stripe, invoiceId, prices)) {
          const plan = planOfUnits(price);
          const { start: startSeconds, end: endSeconds } = line.period;
          const subscriptionId = subscriptionOf(line);
          const key = `${invoiceId} ${subscriptionId} ${price.id} ${startSeconds} ${endSeconds}`;
          const { units, amountCents } = found.get(key) ?? { units: 0, amountCents: 0 };
          found.set(key, {
            ...{ invoiceId, subscriptionId, status, plan, startSeconds, endSeconds },
            units: units + (line.quantity ?? 0),
            amountCents: amountCents + line.amount,
          });
        }
      }
      return [...found.values()];
    },

    /** The invoices of a customer, the newest first, after the invoice `after`. */
    async list(customerId: string, { after, limit }: { after: string | undefined; limit: number }) {
      const { data } = await stripe.invoices.list({
        ...{ customer: customerId, limit },
        ...(after !== undefined && { starting_after: after }),
      });
      return data.map(asCustomerInvoice);
    },

    /** An invoice with all of its lines; `undefined`: Stripe has no such invoice. */
    async withLines(invoiceId: string): Promise<(CustomerInvoice & { lines: CustomerInvoiceLine[] }) | undefined> {
      const invoice = await orMissing(stripe.invoices.retrieve(invoiceId));
      if (invoice === undefined) return undefined;
      const prices = new Map<string, Stripe.Price>();
      const lines: CustomerInvoiceLine[] = [];
      for await (const line of stripe.invoices.listLineItems(invoiceId, { limit: 100 })) {
        const price = await meteredPrice(stripe, line, prices);
        const { start, end } = line.period;
        lines.push({
          ...{ id: line.id, description: line.description ?? "", quantity: line.quantity, amountCents: line.amount },
          ...{ startMs: start * 1000, endMs: end * 1000 },
          usageKey: price === undefined ? null : `${subscriptionOf(line)} ${price.id} ${start} ${end}`,
          plan: price === undefined ? undefined : planOfUnits(price),
          carryForwardId: line.metadata["carry_forward"] ?? null,
        });
      }
      return { ...asCustomerInvoice(invoice), lines };
    },

    /** Bills late usage as an item of the customer's next invoice. The same key makes one item. Never throws. */
    async createLateItem(item: LateItem, idempotencyKey: string): Promise<ItemAnswer> {
      try {
        const { id } = await stripe.invoiceItems.create(
          {
            customer: item.customerId,
            currency: "usd",
            quantity: item.units,
            unit_amount_decimal: Stripe.Decimal.from(item.unitAmountCents),
            period: { start: item.startSeconds, end: item.endSeconds },
            description: `MCP units used by ${new Date((item.endSeconds - 1) * 1000).toISOString().slice(0, 10)} and counted late`,
            metadata: { carry_forward: item.id, tenant_id: item.tenantId },
          },
          { idempotencyKey },
        );
        return { kind: "item", id };
      } catch (error) {
        return noAnswer(error);
      }
    },

    /**
     * Makes an invoice for a late item, for a customer without a subscription that would invoice it. Stripe finalizes and
     * collects it about an hour later. Does nothing if the item is on an invoice already. Never throws.
     */
    async invoiceLateItem(itemId: string, item: LateItem, idempotencyKey: string): Promise<ItemAnswer> {
      try {
        const found = await stripe.invoiceItems.retrieve(itemId);
        if (found.invoice !== null) return { kind: "item", id: itemId };
        await stripe.invoices.create(
          {
            customer: item.customerId,
            auto_advance: true,
            pending_invoice_items_behavior: "include",
            metadata: { carry_forward: item.id, tenant_id: item.tenantId },
          },
          { idempotencyKey: `${idempotencyKey}.invoice` },
        );
        return { kind: "item", id: itemId };
      } catch (error) {
        return noAnswer(error);
      }
    },

    /** The item of a carry-forward, on an invoice or pending. `undefined`: Stripe has none. Never throws. */
    async findLateItem(item: LateItem, createdAfterSeconds: number): Promise<ItemAnswer | undefined> {
      const created = { gte: createdAfterSeconds };
      try {
        for await (const each of stripe.invoiceItems.list({ customer: item.customerId, created, limit: 100 })) {
          if (each.metadata?.["carry_forward"] === item.id) return { kind: "item", id: each.id };
        }
        return undefined;
      } catch (error) {
        return noAnswer(error);
      }
    },
  };
}

/** The subscription that a line bills. A change of plans bills the usage so far as an invoice item of the subscription. */
function subscriptionOf({ parent }: Stripe.InvoiceLineItem): string | null {
  const details = parent?.subscription_item_details ?? parent?.invoice_item_details;
  return details?.subscription ?? null;
}

/**
 * Lines of an invoice that bill a subscription's usage. Reads all of them: an invoice object shows the first ten, and a
 * graduated price has a line for each tier. `prices` caches the prices by id.
 */
async function* meteredLines(
  stripe: Stripe,
  invoiceId: string,
  prices: Map<string, Stripe.Price>,
  isWanted: (line: Stripe.InvoiceLineItem) => boolean = () => true,
): AsyncGenerator<{ price: Stripe.Price; line: Stripe.InvoiceLineItem }> {
  for await (const line of stripe.invoices.listLineItems(invoiceId, { limit: 100 })) {
    const price = isWanted(line) ? await meteredPrice(stripe, line, prices) : undefined;
    if (price !== undefined) yield { price, line };
  }
}

/** The price of a line that bills a subscription's usage; `undefined` for any other line. */
async function meteredPrice(
  stripe: Stripe,
  line: Stripe.InvoiceLineItem,
  prices: Map<string, Stripe.Price>,
): Promise<Stripe.Price | undefined> {
  const priceId = idOf(line.pricing?.price_details?.price ?? null);
  if (priceId === null || subscriptionOf(line) === null) return undefined;
  const price = prices.get(priceId) ?? (await stripe.prices.retrieve(priceId));
  prices.set(priceId, price);
  return price.recurring?.usage_type === "metered" ? price : undefined;
}

/** The plan whose units have this price. */
function planOfUnits(price: Stripe.Price): PlanName | undefined {
  return [...plans.values()].find(({ name }) => unitsKey(name) === price.lookup_key)?.name;
}

function asCustomerInvoice(from: Stripe.Invoice): CustomerInvoice {
  return {
    ...{ id: from.id, customerId: idOf(from.customer), number: from.number, status: from.status ?? "draft" },
    ...{ createdAtMs: from.created * 1000, currency: from.currency },
    ...{ totalCents: from.total, dueCents: from.amount_remaining, url: from.hosted_invoice_url ?? null },
  };
}

async function asInvoice(stripe: Stripe, from: Stripe.Invoice): Promise<InvoiceFacts> {
  const endsPeriod = from.billing_reason === "subscription_cycle" && from.period_end > from.period_start;
  const metered: { plan: PlanName | null; units: number }[] = [];
  if (endsPeriod) {
    // Stripe bills usage for the period that has ended, and everything else for the one that begins.
    const ofEndedPeriod = ({ period }: Stripe.InvoiceLineItem): boolean => period.end <= from.period_end;
    for await (const { price, line } of meteredLines(stripe, from.id, new Map(), ofEndedPeriod))
      metered.push({ plan: planOfKeys([price.lookup_key]), units: line.quantity ?? 0 });
  }
  const finalizedAt = from.status_transitions.finalized_at;
  return {
    id: from.id,
    customerId: idOf(from.customer),
    subscriptionId: idOf(from.parent?.subscription_details?.subscription ?? null),
    finalizedAtMs: finalizedAt === null ? null : finalizedAt * 1000,
    period: endsPeriod ? { startMs: from.period_start * 1000, endMs: from.period_end * 1000 } : null,
    metered:
      metered[0] === undefined
        ? null
        : { plan: metered[0].plan, units: metered.reduce((sum, { units }) => sum + units, 0) },
  };
}
