// Who can pay, when a failed payment is tried again, and how long an invoice stays a draft: the account's settings, as the
// Dashboard would hold them. They survive a restart, as cards do.
import * as z from "zod";
import type { Store } from "./store.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const outcome = z.enum(["succeed", "fail"]);

export const paymentSettings = z.strictObject({
  /** What becomes of a payment of a customer who is not named below. */
  everybody: outcome.default("succeed"),
  customers: z.record(z.string(), outcome).default({}),
  /** Waits between the attempts, the first one after the first failure. Empty: one attempt only. */
  retryDelaysMs: z
    .array(z.int().min(1000))
    .max(8)
    .default([3 * DAY_MS, 5 * DAY_MS, 7 * DAY_MS]),
  /** What becomes of the subscription when the last attempt has failed. */
  afterRetries: z.enum(["cancel", "unpaid", "past_due"]).default("cancel"),
});
export type PaymentSettings = z.output<typeof paymentSettings>;

export const invoiceSettings = z.strictObject({
  /** How long the invoice of a renewal stays a draft, in which it still takes usage. */
  finalizationDelayMs: z
    .int()
    .min(0)
    .max(72 * HOUR_MS)
    .default(HOUR_MS),
});

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

/** Whether a payment succeeds: by the customer's setting, else by the card, else by everybody's setting. */
export function canPay(store: Store, customer: string, paymentMethod?: string): boolean {
  const { everybody, customers } = readPaymentSettings(store);
  const named = customers[customer];
  if (named !== undefined) return named === "succeed";
  const usual = store.find("customer", customer)?.invoice_settings.default_payment_method;
  const card = store.find("payment_method", paymentMethod ?? (typeof usual === "string" ? usual : ""));
  return card?.declines !== true && everybody === "succeed";
}

/** A new payment method: from now on this customer can pay. */
export function acceptPaymentsOf(store: Store, customer: string): void {
  const settings = readPaymentSettings(store);
  writePaymentSettings(store, { ...settings, customers: { ...settings.customers, [customer]: "succeed" } });
}
