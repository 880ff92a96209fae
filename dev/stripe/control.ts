// The control plane under /_sim: JSON in and out, without a key, never subject to faults.
// A POST replaces the whole setting. An absent field takes its default.
import * as z from "zod";
import type { Answer } from "./api.ts";
import { faultRules, type Faults } from "./faults.ts";
import { meterErrors, meterEvents, meterTotals } from "./meter-events.ts";
import {
  cancellationSettings,
  invoiceSettings,
  paymentSettings,
  readCancellationSettings,
  readInvoiceSettings,
  readPaymentSettings,
  writeCancellationSettings,
  writeInvoiceSettings,
  writePaymentSettings,
} from "./payments.ts";
import type { Store } from "./store.ts";
import { type Webhooks, webhookSettings } from "./webhooks.ts";

export interface Controls {
  store: Store;
  faults: Faults;
  webhooks: Webhooks;
  clock: () => { nowMs: number; offsetMs: number };
  setOffsetMs: (offsetMs: number) => void;
  setMeterLagMs: (lagMs: number) => void;
  setValidatesLater: (later: boolean) => void;
}

type Control = (controls: Controls, input: unknown) => unknown;

const clockSetting = z.strictObject({ offsetMs: z.int() });
const lagSetting = z.strictObject({ ms: z.int().min(0) });
const validationSetting = z.strictObject({ asynchronous: z.boolean().default(false) });
const deliverSetting = z.strictObject({ eventId: z.string() });

const CONTROLS: Record<string, Control> = {
  "GET /_sim/state": ({ store, faults, webhooks, clock }) => ({
    clock: clock(),
    counts: store.counts(),
    faults: faults.report(),
    webhooks: webhooks.report(),
  }),
  "GET /_sim/faults": ({ faults }) => faults.report(),
  "POST /_sim/faults": ({ faults }, input) => {
    faults.configure(faultRules.parse(input));
    return faults.report();
  },
  "GET /_sim/webhooks": ({ webhooks }) => webhooks.report(),
  "POST /_sim/webhooks": ({ webhooks }, input) => {
    webhooks.configure(webhookSettings.parse(input));
    return webhooks.report();
  },
  "POST /_sim/webhooks/deliver": async ({ store, webhooks }, input) => {
    const { eventId } = deliverSetting.parse(input);
    const event = store.find("event", eventId) ?? store.find("v2.core.event", eventId);
    return { result: event === undefined ? "no such event" : await webhooks.deliverAgain(event) };
  },
  "POST /_sim/webhooks/retry": ({ webhooks }) => {
    webhooks.retryNow();
    return {};
  },
  "GET /_sim/clock": ({ clock }) => clock(),
  "POST /_sim/clock": ({ clock, setOffsetMs }, input) => {
    setOffsetMs(clockSetting.parse(input).offsetMs);
    return clock();
  },
  "POST /_sim/meter-lag": ({ setMeterLagMs }, input) => {
    setMeterLagMs(lagSetting.parse(input).ms);
    return {};
  },
  "GET /_sim/payments": ({ store }) => readPaymentSettings(store),
  "POST /_sim/payments": ({ store }, input) => {
    writePaymentSettings(store, paymentSettings.parse(input));
    return readPaymentSettings(store);
  },
  "GET /_sim/invoices": ({ store }) => readInvoiceSettings(store),
  "POST /_sim/invoices": ({ store }, input) => {
    writeInvoiceSettings(store, invoiceSettings.parse(input));
    return readInvoiceSettings(store);
  },
  "POST /_sim/cancellations": ({ store }, input) => {
    writeCancellationSettings(store, cancellationSettings.parse(input));
    return readCancellationSettings(store);
  },
  "POST /_sim/meter-validation": ({ setValidatesLater }, input) => {
    setValidatesLater(validationSetting.parse(input).asynchronous);
    return {};
  },
  "GET /_sim/meter-totals": ({ store }) => meterTotals(store),
  "GET /_sim/meter-events": ({ store }) => meterEvents(store),
  "GET /_sim/meter-errors": ({ store }) => meterErrors(store),
  "POST /_sim/reset": ({ store, faults, webhooks, setOffsetMs, setMeterLagMs, setValidatesLater }) => {
    store.transaction(() => store.clear());
    faults.configure(faultRules.parse({ rules: [] }));
    webhooks.configure(webhookSettings.parse({}));
    setOffsetMs(0);
    setMeterLagMs(0);
    setValidatesLater(false);
    return {};
  },
};

/** Answers a control request: 200 with the result, 400 for invalid input, 404 for an unknown path. */
export async function control(controls: Controls, method: string, path: string, body: string): Promise<Answer> {
  const handle = CONTROLS[`${method} ${path}`];
  if (handle === undefined) return json(404, { error: `unknown control: ${method} ${path}` });
  try {
    const input: unknown = body === "" ? {} : JSON.parse(body);
    return json(200, await handle(controls, input));
  } catch (error) {
    if (error instanceof z.ZodError) return json(400, { error: z.prettifyError(error) });
    if (error instanceof SyntaxError) return json(400, { error: "the body is not JSON" });
    throw error;
  }
}

function json(status: number, body: unknown): Answer {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}
