// Products and prices.
// The amounts of a price never change. A lookup key names at most one active price.
import * as z from "zod";
import type { Stripe } from "stripe";
import { type Context, nowSeconds } from "./context.ts";
import { badRequest } from "./errors.ts";
import {
  clearable,
  created,
  decimal,
  flag,
  mergeMetadata,
  metadata,
  natural,
  page,
  positive,
  sent,
  text,
} from "./form.ts";
import type { Price, Tier } from "./objects.ts";
import { newId, where, whereIn, whereRange } from "./store.ts";

const productFields = {
  active: flag.optional(),
  description: clearable.optional(),
  metadata: metadata.optional(),
  statement_descriptor: text.optional(),
  unit_label: clearable.optional(),
  url: clearable.optional(),
};
export const productCreate = z.strictObject({ ...productFields, id: text.optional(), name: text });
export const productUpdate = z.strictObject({
  ...productFields,
  name: text.optional(),
  default_price: text.optional(),
});
export const productList = z.strictObject({
  ...page,
  active: flag.optional(),
  created: created.optional(),
  ids: z.array(text).optional(),
});

export function createProduct(context: Context, params: z.output<typeof productCreate>): Stripe.Product {
  if (params.id !== undefined && context.store.find("product", params.id) !== undefined) {
    throw badRequest("Product already exists.", { code: "resource_already_exists", param: "id" });
  }
  const now = nowSeconds(context);
  const product: Stripe.Product = {
    id: params.id ?? newId("prod_"),
    object: "product",
    active: params.active ?? true,
    created: now,
    default_price: null,
    description: params.description ?? null,
    images: [],
    livemode: false,
    marketing_features: [],
    metadata: mergeMetadata(null, params.metadata),
    name: params.name,
    package_dimensions: null,
    shippable: null,
    statement_descriptor: params.statement_descriptor ?? null,
    tax_code: null,
    tax_details: null,
    type: "service",
    unit_label: params.unit_label ?? null,
    updated: now,
    url: params.url ?? null,
  };
  context.save("product.created", product);
  return product;
}

export function updateProduct(context: Context, params: z.output<typeof productUpdate>, id: string): Stripe.Product {
  const product = context.store.get("product", id);
  if (params.default_price !== undefined) context.store.get("price", params.default_price, "default_price");
  const updated: Stripe.Product = {
    ...product,
    active: sent(params.active, product.active),
    default_price: sent(params.default_price, product.default_price ?? null),
    description: sent(params.description, product.description),
    metadata: mergeMetadata(product.metadata, params.metadata),
    name: sent(params.name, product.name),
    statement_descriptor: sent(params.statement_descriptor, product.statement_descriptor ?? null),
    unit_label: sent(params.unit_label, product.unit_label ?? null),
    updated: nowSeconds(context),
    url: sent(params.url, product.url),
  };
  context.save("product.updated", updated, product);
  return updated;
}

export function listProducts(context: Context, params: z.output<typeof productList>) {
  return context.store.list("product", "/v1/products", params, [
    where("active", params.active),
    whereIn("id", params.ids),
    whereRange("created", params.created),
  ]);
}

const amount = { unit_amount: natural.optional(), unit_amount_decimal: decimal.optional() };
const tier = z.strictObject({
  ...amount,
  flat_amount: natural.optional(),
  flat_amount_decimal: decimal.optional(),
  up_to: z.union([z.literal("inf"), positive]),
});
const interval = z.enum(["day", "week", "month", "year"]);
const usageType = z.enum(["licensed", "metered"]);
const priceFields = {
  active: flag.optional(),
  lookup_key: text.max(200).optional(),
  metadata: metadata.optional(),
  nickname: text.optional(),
  tax_behavior: z.enum(["exclusive", "inclusive", "unspecified"]).optional(),
  transfer_lookup_key: flag.optional(),
};
export const priceCreate = z.strictObject({
  ...priceFields,
  ...amount,
  billing_scheme: z.enum(["per_unit", "tiered"]).default("per_unit"),
  currency: z.string().regex(/^[a-z]{3}$/i, "must be a three-letter currency"),
  product: text,
  recurring: z
    .strictObject({
      interval,
      interval_count: positive.default(1),
      meter: text.optional(),
      usage_type: usageType.default("licensed"),
    })
    .optional(),
  tiers: z.array(tier).optional(),
  tiers_mode: z.enum(["graduated", "volume"]).optional(),
});
export const priceUpdate = z.strictObject(priceFields);
export const priceList = z.strictObject({
  ...page,
  active: flag.optional(),
  created: created.optional(),
  currency: text.optional(),
  lookup_keys: z.array(text).max(10).optional(),
  product: text.optional(),
  recurring: z.strictObject({ interval, meter: text, usage_type: usageType }).partial().optional(),
  type: z.enum(["one_time", "recurring"]).optional(),
});

export function createPrice(context: Context, params: z.output<typeof priceCreate>): Price {
  context.store.get("product", params.product, "product");
  const { recurring } = params;
  if (recurring?.usage_type === "metered" && recurring.meter === undefined) {
    throw badRequest("Metered prices must be backed by a meter.", {
      code: "parameter_missing",
      param: "recurring[meter]",
    });
  }
  if (recurring?.meter !== undefined) {
    if (recurring.usage_type !== "metered") {
      throw badRequest("You can only attach a meter to a price with `recurring[usage_type]=metered`.", {
        param: "recurring[meter]",
      });
    }
    const meter = context.store.get("billing.meter", recurring.meter, "recurring[meter]");
    if (meter.status !== "active") throw badRequest("The meter is inactive.", { param: "recurring[meter]" });
  }
  const tiers = priceTiers(params);
  const price: Price = {
    id: newId("price_"),
    object: "price",
    active: params.active ?? true,
    billing_scheme: params.billing_scheme,
    created: nowSeconds(context),
    currency: params.currency.toLowerCase(),
    custom_unit_amount: null,
    livemode: false,
    lookup_key: null,
    metadata: mergeMetadata(null, params.metadata),
    nickname: params.nickname ?? null,
    product: params.product,
    recurring:
      recurring === undefined ? null : { ...recurring, meter: recurring.meter ?? null, trial_period_days: null },
    tax_behavior: params.tax_behavior ?? "unspecified",
    tiers_mode: params.tiers_mode ?? null,
    transform_quantity: null,
    type: recurring === undefined ? "one_time" : "recurring",
    ...(tiers === undefined ? amounts(params, "") : { tiers, unit_amount: null, unit_amount_decimal: null }),
  };
  const named = withLookupKey(context, price, params);
  context.save("price.created", named);
  return named;
}

export function updatePrice(context: Context, params: z.output<typeof priceUpdate>, id: string): Price {
  const price = context.store.get("price", id);
  const changed: Price = {
    ...price,
    active: params.active ?? price.active,
    metadata: mergeMetadata(price.metadata, params.metadata),
    nickname: params.nickname ?? price.nickname,
    tax_behavior: params.tax_behavior ?? price.tax_behavior,
  };
  const updated = withLookupKey(context, changed, params);
  context.save("price.updated", updated, price);
  return updated;
}

export function listPrices(context: Context, params: z.output<typeof priceList>) {
  return context.store.list("price", "/v1/prices", params, [
    where("active", params.active),
    where("currency", params.currency),
    where("product", params.product),
    where("type", params.type),
    where("recurring.interval", params.recurring?.interval),
    where("recurring.meter", params.recurring?.meter),
    where("recurring.usage_type", params.recurring?.usage_type),
    whereIn("lookup_key", params.lookup_keys),
    whereRange("created", params.created),
  ]);
}

function withLookupKey(context: Context, price: Price, params: z.output<typeof priceUpdate>): Price {
  const key = params.lookup_key;
  if (key === undefined || key === price.lookup_key) return price;
  for (const holder of context.store.all("price", [where("lookup_key", key), where("active", true)])) {
    if (params.transfer_lookup_key !== true) {
      throw badRequest(`A price (\`${holder.id}\`) already uses that lookup key.`, { param: "lookup_key" });
    }
    context.save("price.updated", { ...holder, lookup_key: null }, holder);
  }
  return { ...price, lookup_key: key };
}

function priceTiers(params: z.output<typeof priceCreate>): Tier[] | undefined {
  if (params.billing_scheme === "per_unit") {
    if (params.tiers !== undefined || params.tiers_mode !== undefined) {
      throw badRequest("`tiers` need `billing_scheme=tiered`.", { param: "tiers" });
    }
    return undefined;
  }
  const { tiers = [], tiers_mode: mode } = params;
  if (mode === undefined)
    throw badRequest("Missing required param: tiers_mode.", { code: "parameter_missing", param: "tiers_mode" });
  if (tiers.at(-1)?.up_to !== "inf") throw badRequest("The last tier must have `up_to=inf`.", { param: "tiers" });
  const bounds = tiers.map(({ up_to }) => (up_to === "inf" ? Infinity : up_to));
  if (bounds.some((bound, index) => bound <= (bounds[index - 1] ?? 0))) {
    throw badRequest("Tiers must have ascending `up_to`, and only the last may be `inf`.", { param: "tiers" });
  }
  return tiers.map((bracket, index) => {
    const flat =
      bracket.flat_amount_decimal ?? (bracket.flat_amount === undefined ? null : String(bracket.flat_amount));
    const unit = bracket.unit_amount ?? bracket.unit_amount_decimal;
    if (unit === undefined && flat === null) {
      throw badRequest("Each tier needs a `unit_amount` or a `flat_amount`.", { param: `tiers[${index}]` });
    }
    return {
      flat_amount: whole(flat),
      flat_amount_decimal: flat,
      ...(unit === undefined ? { unit_amount: null, unit_amount_decimal: null } : amounts(bracket, `tiers[${index}]`)),
      up_to: bracket.up_to === "inf" ? null : bracket.up_to,
    };
  });
}

function amounts(
  params: { unit_amount?: number | undefined; unit_amount_decimal?: string | undefined },
  at: string,
): { unit_amount: number | null; unit_amount_decimal: string } {
  const param = at === "" ? "unit_amount" : `${at}[unit_amount]`;
  if (params.unit_amount !== undefined && params.unit_amount_decimal !== undefined) {
    throw badRequest("You may only specify one of these parameters: unit_amount, unit_amount_decimal.", { param });
  }
  const value =
    params.unit_amount_decimal ?? (params.unit_amount === undefined ? undefined : String(params.unit_amount));
  if (value === undefined) {
    throw badRequest("Prices require an `unit_amount` or `unit_amount_decimal` parameter to be set.", {
      code: "parameter_missing",
      param,
    });
  }
  return { unit_amount: whole(value), unit_amount_decimal: value };
}

function whole(value: string | null): number | null {
  return value === null || value.includes(".") ? null : Number(value);
}
