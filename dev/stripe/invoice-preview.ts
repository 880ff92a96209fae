// The next invoice of a subscription as if its period ended now: usage so far and the next base price.
import * as z from "zod";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import { text } from "./form.ts";
import { pendingItems } from "./invoice-items.ts";
import { draftInvoice } from "./invoices.ts";
import type { Invoice } from "./objects.ts";
import { where } from "./store.ts";
import { renewalOf } from "./subscription-billing.ts";
import { periodEnd } from "./subscriptions.ts";

export const invoicePreview = z.strictObject({ customer: text.optional(), subscription: text.optional() });

export function previewInvoice(context: Context, params: z.output<typeof invoicePreview>): Invoice {
  const { store } = context;
  const [first] =
    params.subscription !== undefined
      ? [store.get("subscription", params.subscription, "subscription")]
      : store.all("subscription", [
          where("customer", params.customer ?? ""),
          { sql: "json_extract(json, '$.status') <> 'canceled'", values: [] },
        ]);
  if (first === undefined || first.status === "canceled") {
    throw badRequest("No upcoming invoices for customer", { code: "invoice_upcoming_none" });
  }
  const draft = draftInvoice(context, {
    ...renewalOf(context, first, periodEnd(first)),
    customer: first.customer,
    subscription: first,
    pending: pendingItems(store, first.customer, first.id),
    autoAdvance: true,
    finalizesAt: null,
  });
  return { ...draft, id: `upcoming_${draft.id}`, created: nowSeconds(context), billing_reason: "upcoming" };
}
