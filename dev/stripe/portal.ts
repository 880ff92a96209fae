// The customer portal: configurations (the allowed actions), sessions, and the actions themselves.
// A session lasts one hour. Without a configuration a session is refused, as in a Stripe account that never saved one.
import * as z from "zod";
import type { Stripe } from "stripe";
import { attempt } from "./collection.ts";
import { type Context, nowSeconds } from "./context.ts";
import { ApiError, badRequest, noSuch } from "./errors.ts";
import { clearable, flag, mergeMetadata, metadata, page, text } from "./form.ts";
import type { Invoice, PortalConfiguration, PortalSession, Subscription } from "./objects.ts";
import { acceptPaymentsOf } from "./payments.ts";
import { newId, where } from "./store.ts";
import { cancelSubscription, updateSubscription } from "./subscriptions.ts";

export const PORTAL_SESSION_S = 3600;

/** A list. An empty string clears it. */
const listOf = <T extends z.ZodType>(value: T) =>
  z.union([z.literal("").transform((): z.output<T>[] => []), z.array(value).max(20)]);
const proration = z.enum(["always_invoice", "create_prorations", "none"]);
const features = z
  .strictObject({
    customer_update: z.strictObject({
      allowed_updates: listOf(z.enum(["address", "email", "name", "phone", "shipping", "tax_id"])).optional(),
      enabled: flag,
    }),
    invoice_history: z.strictObject({ enabled: flag }),
    payment_method_update: z.strictObject({ enabled: flag }),
    subscription_cancel: z.strictObject({
      cancellation_reason: z.strictObject({ enabled: flag, options: listOf(text) }).optional(),
      enabled: flag,
      mode: z.enum(["at_period_end", "immediately"]).optional(),
      proration_behavior: proration.optional(),
    }),
    subscription_update: z.strictObject({
      billing_cycle_anchor: z.enum(["now", "unchanged"]).optional(),
      default_allowed_updates: listOf(z.enum(["price", "promotion_code", "quantity"])).optional(),
      enabled: flag,
      products: listOf(z.strictObject({ prices: z.array(text), product: text })).optional(),
      proration_behavior: proration.optional(),
    }),
  })
  .partial();
const fields = {
  business_profile: z
    .strictObject({ headline: clearable, privacy_policy_url: text, terms_of_service_url: text })
    .partial()
    .optional(),
  default_return_url: clearable.optional(),
  metadata: metadata.optional(),
  name: clearable.optional(),
};
export const configurationCreate = z.strictObject({ ...fields, features });
export const configurationUpdate = z.strictObject({
  ...fields,
  active: flag.optional(),
  features: features.optional(),
});
export const configurationList = z.strictObject({
  ...page,
  active: flag.optional(),
  is_default: flag.optional(),
});
export const portalSessionCreate = z.strictObject({
  configuration: text.optional(),
  customer: text,
  return_url: text.optional(),
});

const CLOSED: Stripe.BillingPortal.Configuration.Features = {
  customer_update: { allowed_updates: [], enabled: false },
  invoice_history: { enabled: false },
  payment_method_update: { enabled: false, payment_method_configuration: null },
  subscription_cancel: {
    cancellation_reason: { enabled: false, feedback_options: null, options: [] },
    enabled: false,
    mode: "at_period_end",
    proration_behavior: "none",
  },
  subscription_pause: { duration: { interval_options: [], type: "indefinite" }, enabled: false },
  subscription_update: {
    billing_cycle_anchor: null,
    default_allowed_updates: [],
    enabled: false,
    products: null,
    proration_behavior: "none",
    schedule_at_period_end: { conditions: [] },
    trial_update_behavior: "end_trial",
  },
};

export function createConfiguration(
  context: Context,
  params: z.output<typeof configurationCreate>,
): PortalConfiguration {
  const now = nowSeconds(context);
  const configuration: PortalConfiguration = {
    id: newId("bpc_"),
    object: "billing_portal.configuration",
    active: true,
    application: null,
    business_profile: { headline: null, privacy_policy_url: null, terms_of_service_url: null },
    created: now,
    default_return_url: null,
    features: CLOSED,
    is_default: context.store.all("billing_portal.configuration", []).length === 0,
    livemode: false,
    login_page: { enabled: false, url: null },
    metadata: {},
    name: null,
    updated: now,
  };
  const made = changed(context, configuration, params);
  context.save("billing_portal.configuration.created", made);
  return made;
}

export function updateConfiguration(
  context: Context,
  params: z.output<typeof configurationUpdate>,
  id: string,
): PortalConfiguration {
  const current = context.store.get("billing_portal.configuration", id);
  const updated = { ...changed(context, current, params), active: params.active ?? current.active };
  context.save("billing_portal.configuration.updated", updated, current);
  return updated;
}

/** The configuration with the update. Within a feature, fields that were not sent keep their values. */
function changed(
  context: Context,
  current: PortalConfiguration,
  params: z.output<typeof configurationUpdate>,
): PortalConfiguration {
  const { features: sent = {} } = params;
  const { subscription_cancel: cancel, subscription_update: update } = sent;
  const merged = {
    ...current.features,
    ...defined({
      customer_update: sent.customer_update && {
        ...current.features.customer_update,
        ...defined(sent.customer_update),
      },
      invoice_history: sent.invoice_history,
      payment_method_update: sent.payment_method_update && {
        ...current.features.payment_method_update,
        ...sent.payment_method_update,
      },
      subscription_cancel: cancel && {
        ...current.features.subscription_cancel,
        ...defined({
          ...cancel,
          cancellation_reason: cancel.cancellation_reason && { ...cancel.cancellation_reason, feedback_options: null },
        }),
      },
      subscription_update: update && {
        ...current.features.subscription_update,
        ...defined({
          ...update,
          products: update.products?.map((each) => ({
            ...each,
            adjustable_quantity: { enabled: false, maximum: null, minimum: 1 },
          })),
        }),
      },
    }),
  };
  const { enabled, default_allowed_updates: allowed, products } = merged.subscription_update;
  if (enabled && (allowed.length === 0 || (products ?? []).length === 0)) {
    throw badRequest("`default_allowed_updates` and `products` are required when `subscription_update` is enabled.", {
      code: "parameter_missing",
      param: "features[subscription_update]",
    });
  }
  return {
    ...current,
    business_profile: { ...current.business_profile, ...defined(params.business_profile ?? {}) },
    default_return_url:
      params.default_return_url === undefined ? current.default_return_url : params.default_return_url,
    features: merged,
    metadata: mergeMetadata(current.metadata, params.metadata),
    name: params.name === undefined ? current.name : params.name,
    updated: nowSeconds(context),
  };
}

/** Drops undefined fields, so that a spread replaces only the given ones. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, given]) => given !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

export function listConfigurations(context: Context, params: z.output<typeof configurationList>) {
  return context.store.list("billing_portal.configuration", "/v1/billing_portal/configurations", params, [
    where("active", params.active),
    where("is_default", params.is_default),
  ]);
}

export function createPortalSession(context: Context, params: z.output<typeof portalSessionCreate>): PortalSession {
  const { store, origin } = context;
  store.get("customer", params.customer, "customer");
  const configuration =
    params.configuration === undefined
      ? store.all("billing_portal.configuration", [where("is_default", true)])[0]
      : store.get("billing_portal.configuration", params.configuration, "configuration");
  if (configuration === undefined) {
    throw badRequest(
      "No configuration provided and your test mode default configuration has not been created. Provide a configuration or create your default.",
    );
  }
  if (!configuration.active) throw badRequest("The configuration is not active.", { param: "configuration" });
  const id = newId("bps_");
  const session: PortalSession = {
    id,
    object: "billing_portal.session",
    after_expiration: null,
    configuration: configuration.id,
    created: nowSeconds(context),
    customer: params.customer,
    customer_account: null,
    flow: null,
    livemode: false,
    locale: null,
    on_behalf_of: null,
    return_url: params.return_url ?? configuration.default_return_url,
    url: `${origin}/portal/${id}`,
  };
  context.save("billing_portal.session.created", session);
  return session;
}

/** The data of the page. */
export interface PortalView {
  session: PortalSession;
  features: PortalConfiguration["features"];
  customer: Stripe.Customer;
  subscriptions: readonly Subscription[];
  invoices: readonly Invoice[];
}

/** The data of a session's page. Undefined when the session does not exist or has expired. */
export function viewPortal(context: Context, id: string): PortalView | undefined {
  const { store } = context;
  const session = store.find("billing_portal.session", id);
  if (session === undefined || session.created + PORTAL_SESSION_S < nowSeconds(context)) return undefined;
  const ofCustomer = [where("customer", session.customer)];
  return {
    session,
    features: store.get("billing_portal.configuration", session.configuration).features,
    customer: store.get("customer", session.customer),
    subscriptions: store.all("subscription", ofCustomer).filter(({ status }) => status !== "incomplete_expired"),
    invoices: store.all("invoice", ofCustomer).filter(({ status }) => status !== "draft"),
  };
}

export const portalAction = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("cancel"), subscription: text }),
  z.strictObject({ action: z.literal("resume"), subscription: text }),
  z.strictObject({ action: z.literal("switch"), subscription: text, price: text }),
  z.strictObject({ action: z.literal("payment_method") }),
]);

/** Runs the action of a form. Throws ApiError when the configuration does not allow it. */
export function actInPortal(context: Context, view: PortalView, action: z.output<typeof portalAction>): void {
  const { features: allowed, customer } = view;
  if (action.action === "payment_method") {
    permit(allowed.payment_method_update.enabled);
    acceptPaymentsOf(context.store, customer.id);
    for (const invoice of view.invoices) {
      if (invoice.status === "open" && invoice.auto_advance === true) attempt(context, invoice);
    }
    return;
  }
  const current = view.subscriptions.find(({ id }) => id === action.subscription);
  if (current === undefined) throw noSuch("subscription", action.subscription);
  if (action.action === "switch") return switchPrice(context, allowed, current, action.price);
  permit(allowed.subscription_cancel.enabled);
  const { mode, proration_behavior: behavior } = allowed.subscription_cancel;
  if (action.action === "cancel" && mode === "immediately") {
    const settled = { prorate: behavior !== "none", invoice_now: behavior === "always_invoice" };
    return void cancelSubscription(context, settled, current.id);
  }
  updateSubscription(context, { cancel_at_period_end: action.action === "cancel" }, current.id);
}

/** Switches the base price. Metered items stay, as in Stripe's portal. */
function switchPrice(
  context: Context,
  allowed: PortalConfiguration["features"],
  current: Subscription,
  price: string,
): void {
  const { enabled, products, default_allowed_updates: updates } = allowed.subscription_update;
  permit(enabled && updates.includes("price") && offeredPrices(products).includes(price));
  const item = current.items.data.find((each) => each.price.recurring?.usage_type === "licensed");
  if (item === undefined) throw badRequest("There is nothing to switch.");
  const behavior = proration.parse(allowed.subscription_update.proration_behavior);
  updateSubscription(context, { items: [{ id: item.id, price }], proration_behavior: behavior }, current.id);
}

/** The prices that a configuration lets customers switch to. */
export function offeredPrices(products: PortalConfiguration["features"]["subscription_update"]["products"]): string[] {
  return (products ?? []).flatMap(({ prices }) => prices);
}

function permit(allowed: boolean): void {
  if (allowed) return;
  throw new ApiError(403, {
    type: "invalid_request_error",
    message: "The portal's configuration does not allow this.",
  });
}
