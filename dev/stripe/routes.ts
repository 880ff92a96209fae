// All routes of the simulated API. Any other path is an unrecognized URL.
import * as z from "zod";
import * as catalog from "./catalog.ts";
import * as checkout from "./checkout.ts";
import { markUncollectible, voidInvoice } from "./collection.ts";
import type { Context } from "./context.ts";
import * as events from "./events.ts";
import * as customers from "./customers.ts";
import { checkForm, type Form } from "./form.ts";
import * as invoiceItems from "./invoice-items.ts";
import * as preview from "./invoice-preview.ts";
import * as invoices from "./invoices.ts";
import * as usage from "./meter-events.ts";
import * as meters from "./meters.ts";
import type { Kind } from "./objects.ts";
import * as cards from "./payment-methods.ts";
import * as portal from "./portal.ts";
import type { Store } from "./store.ts";
import * as subscriptions from "./subscriptions.ts";
import * as thin from "./thin-events.ts";

/** A checked request: the lock it needs, if any, and its effect. */
export interface Operation {
  lock: string | undefined;
  run: (context: Context) => object;
}
export interface Route {
  method: string;
  pattern: RegExp;
  /** Throws ApiError when the form is invalid. */
  prepare: (store: Store, form: Form, id: string) => Operation;
}

const nothing = z.strictObject({});

const ROUTES: readonly Route[] = [
  route("POST", "/v1/products", catalog.productCreate, catalog.createProduct),
  route("GET", "/v1/products", catalog.productList, catalog.listProducts),
  route("GET", "/v1/products/:id", nothing, retrieve("product")),
  route("POST", "/v1/products/:id", catalog.productUpdate, catalog.updateProduct),
  route("POST", "/v1/prices", catalog.priceCreate, catalog.createPrice),
  route("GET", "/v1/prices", catalog.priceList, catalog.listPrices),
  route("GET", "/v1/prices/:id", nothing, retrieve("price")),
  route("POST", "/v1/prices/:id", catalog.priceUpdate, catalog.updatePrice),
  route("POST", "/v1/customers", customers.customerCreate, customers.createCustomer),
  route("GET", "/v1/customers", customers.customerList, customers.listCustomers),
  route("GET", "/v1/customers/:id", nothing, customers.retrieveCustomer),
  route("POST", "/v1/customers/:id", customers.customerUpdate, customers.updateCustomer),
  route("DELETE", "/v1/customers/:id", nothing, customers.deleteCustomer),
  route("POST", "/v1/billing/meters", meters.meterCreate, meters.createMeter),
  route("GET", "/v1/billing/meters", meters.meterList, meters.listMeters),
  route("GET", "/v1/billing/meters/:id", nothing, retrieve("billing.meter")),
  route("POST", "/v1/billing/meters/:id", meters.meterUpdate, meters.updateMeter),
  route("POST", "/v1/billing/meters/:id/deactivate", nothing, meters.deactivateMeter),
  route("POST", "/v1/billing/meters/:id/reactivate", nothing, meters.reactivateMeter),
  route("GET", "/v1/billing/meters/:id/event_summaries", meters.summaryList, meters.listSummaries),
  route("POST", "/v1/billing/meter_events", usage.meterEventCreate, usage.createMeterEvent, usage.meterEventLock),
  route("POST", "/v1/billing/meter_event_adjustments", usage.adjustmentCreate, usage.adjustMeterEvent),
  route("POST", "/v1/checkout/sessions", checkout.sessionCreate, checkout.createSession),
  route("GET", "/v1/checkout/sessions", checkout.sessionList, checkout.listSessions),
  route("GET", "/v1/checkout/sessions/:id", nothing, retrieve("checkout.session")),
  route("POST", "/v1/checkout/sessions/:id/expire", nothing, checkout.expireSession),
  route("GET", "/v1/payment_pages/:id", nothing, retrieve("checkout.session")),
  route("POST", "/v1/payment_pages/:id/confirm", checkout.pageConfirm, checkout.confirmPage),
  route("POST", "/v1/subscriptions", subscriptions.subscriptionCreate, subscriptions.createSubscription),
  route("GET", "/v1/subscriptions", subscriptions.subscriptionList, subscriptions.listSubscriptions),
  route("GET", "/v1/subscriptions/:id", nothing, retrieve("subscription")),
  route("POST", "/v1/subscriptions/:id", subscriptions.subscriptionUpdate, subscriptions.updateSubscription),
  route("POST", "/v1/subscriptions/:id/resume", subscriptions.subscriptionResume, subscriptions.resumeSubscription),
  route("DELETE", "/v1/subscriptions/:id", subscriptions.subscriptionCancel, subscriptions.cancelSubscription),
  route("POST", "/v1/invoiceitems", invoiceItems.invoiceItemCreate, invoiceItems.createInvoiceItem),
  route("GET", "/v1/invoiceitems", invoiceItems.invoiceItemList, invoiceItems.listInvoiceItems),
  route("GET", "/v1/invoiceitems/:id", nothing, retrieve("invoiceitem")),
  route("DELETE", "/v1/invoiceitems/:id", nothing, invoiceItems.deleteInvoiceItem),
  route("POST", "/v1/invoices", invoices.invoiceCreate, invoices.createInvoice),
  route("GET", "/v1/invoices", invoices.invoiceList, invoices.listInvoices),
  route("POST", "/v1/invoices/create_preview", preview.invoicePreview, preview.previewInvoice),
  route("GET", "/v1/invoices/:id", nothing, retrieve("invoice")),
  route("POST", "/v1/invoices/:id", invoices.invoiceUpdate, invoices.updateInvoice),
  route("GET", "/v1/invoices/:id/lines", invoices.lineList, invoices.listLines),
  route("POST", "/v1/invoices/:id/finalize", invoices.invoiceFinalize, invoices.finalizeByHand),
  route("DELETE", "/v1/invoices/:id", nothing, invoices.deleteInvoice),
  route("POST", "/v1/invoices/:id/mark_uncollectible", nothing, markUncollectible),
  route("POST", "/v1/invoices/:id/pay", invoices.invoicePay, invoices.payInvoice),
  route("POST", "/v1/invoices/:id/void", nothing, voidInvoice),
  route("POST", "/v1/payment_methods", cards.paymentMethodCreate, cards.createPaymentMethod),
  route("GET", "/v1/payment_methods/:id", nothing, retrieve("payment_method")),
  route("POST", "/v1/payment_methods/:id/attach", cards.paymentMethodAttach, cards.attachPaymentMethod),
  route("POST", "/v1/payment_methods/:id/detach", nothing, cards.detachPaymentMethod),
  route("POST", "/v1/billing_portal/configurations", portal.configurationCreate, portal.createConfiguration),
  route("GET", "/v1/billing_portal/configurations", portal.configurationList, portal.listConfigurations),
  route("GET", "/v1/billing_portal/configurations/:id", nothing, retrieve("billing_portal.configuration")),
  route("POST", "/v1/billing_portal/configurations/:id", portal.configurationUpdate, portal.updateConfiguration),
  route("POST", "/v1/billing_portal/sessions", portal.portalSessionCreate, portal.createPortalSession),
  route("GET", "/v1/events", events.eventList, events.listEvents),
  route("GET", "/v1/events/:id", nothing, events.retrieveEvent),
  route("GET", "/v2/core/events", thin.thinEventList, thin.listThinEvents),
  route("GET", "/v2/core/events/:id", nothing, retrieve("v2.core.event")),
  route("POST", "/v2/core/event_destinations", thin.destinationCreate, thin.createDestination),
  route("GET", "/v2/core/event_destinations", thin.destinationRead, thin.listDestinations),
  route("GET", "/v2/core/event_destinations/:id", thin.destinationRead, thin.retrieveDestination),
  route("POST", "/v2/core/event_destinations/:id/disable", nothing, thin.switchDestination("disabled")),
  route("POST", "/v2/core/event_destinations/:id/enable", nothing, thin.switchDestination("enabled")),
];

/** The route of a request and the id in its path ("" without one). */
export function matchRoute(method: string, path: string): { route: Route; id: string } | undefined {
  for (const candidate of ROUTES) {
    const match = candidate.method === method ? candidate.pattern.exec(path) : null;
    if (match !== null) return { route: candidate, id: decodeURIComponent(match[1] ?? "") };
  }
  return undefined;
}

function route<S extends z.ZodType>(
  method: string,
  path: string,
  schema: S,
  handle: (context: Context, params: z.output<S>, id: string) => object,
  lock?: (store: Store, params: z.output<S>) => string,
): Route {
  return {
    method,
    pattern: new RegExp(`^${path.replace(":id", "([^/]+)")}$`),
    prepare: (store, form, id) => {
      const params = checkForm(schema, form);
      return { lock: lock?.(store, params), run: (context) => handle(context, params, id) };
    },
  };
}

function retrieve(kind: Kind) {
  return (context: Context, _params: object, id: string) => context.store.get(kind, id);
}
