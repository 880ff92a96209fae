// The account's settings, like those in Stripe's Dashboard: payment outcomes, retries of failed payments, and how long
// invoices stay drafts. They survive a restart.
import * as z from "zod";
import type { Store } from "./store.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const outcome = z.enum(["succeed", "fail"]);

export const paymentSettings = z.strictObject({
  /** Outcome of payments of customers that `customers` does not name. */
  everybody: outcome.default("succeed"),
  customers: z.record(z.string(), outcome).default({}),
  /** Pauses before each retry. Empty for no retries. */
  retryDelaysMs: z
    .array(z.int().min(1000))
    .max(8)
    .default([3 * DAY_MS, 5 * DAY_MS, 7 * DAY_MS]),
  /** State of the subscription after the last failed attempt. */
  afterRetries: z.enum(["cancel", "unpaid", "past_due"]).default("cancel"),
});
export type PaymentSettings = z.output<typeof paymentSettings>;

export const invoiceSettings = z.strictObject({
  /** How long a renewal's invoice stays a draft. A draft still takes usage. */
  finalizationDelayMs: z
    .int()
    .min(0)
    .max(72 * HOUR_MS)
    .default(HOUR_MS),
});

/** flagOnly: a cancellation at the period's end sets `cancel_at_period_end` without `cancel_at`, as the dashboard may. */
export const cancellationSettings = z.strictObject({ flagOnly: z.boolean().default(false) });

export function readCancellationSettings(store: Store): z.output<typeof cancellationSettings> {
  return cancellationSettings.parse(JSON.parse(store.setting("cancellations") ?? "{}"));
}

export function writeCancellationSettings(store: Store, settings: z.output<typeof cancellationSettings>): void {
  store.setSetting("cancellations", JSON.stringify(settings));
}

export function readPaymentSettings(store: Store): PaymentSettings {
  return paymentSettings.parse(JSON.parse(store.setting("payments") ?? "{}"));
}

export function writePaymentSettings(store: Store, settings: PaymentSettings): void {
  store.setSetting("payments", JSON.stringify(settings));
}

export function readInvoiceSettings(store: Store): z.output<typeof invoiceSettings> {
  return invoiceSettings.parse(JSON.parse(store.setting("invoices") ?? "{}"));
}

export function writeInvoiceSettings(store: Store, settings: z.output<typeof invoiceSettings>): void {
  store.setSetting("invoices", JSON.stringify(settings));
}

/** Decides whether a payment succeeds: by the customer's setting, else by the card, else by the default. */
export function canPay(store: Store, customer: string, paymentMethod?: string): boolean {
  const { everybody, customers } = readPaymentSettings(store);
  const named = customers[customer];
  if (named !== undefined) return named === "succeed";
  const usual = store.find("customer", customer)?.invoice_settings.default_payment_method;
  const card = store.find("payment_method", paymentMethod ?? (typeof usual === "string" ? usual : ""));
  return card?.declines !== true && everybody === "succeed";
}

/** Marks the customer as able to pay, after a new payment method. */
export function acceptPaymentsOf(store: Store, customer: string): void {
  const settings = readPaymentSettings(store);
  writePaymentSettings(store, { ...settings, customers: { ...settings.customers, [customer]: "succeed" } });
}
