// The Stripe SDK for every adapter file of Stripe, and the meaning of its failures.
import Stripe from "stripe";
import { AppError } from "../core/errors.ts";
import { priceKeys } from "../core/price-keys.ts";
import type { PlanName } from "../core/plans.ts";

/** Every price that Tollgate sells belongs to this product. Tollgate chooses its id, so that it is found without a search. */
export const PRODUCT_ID = "tollgate_mcp";

/** Stripe answers in well under a second. A webhook's caller and a cron cannot wait much longer than this. */
const STRIPE_TIMEOUT_MS = 10_000;

/** `apiBase`: empty for Stripe itself, otherwise the URL of a stand-in. */
export function stripeClient(secretKey: string, apiBase: string): Stripe {
  const base = apiBase === "" ? undefined : new URL(apiBase);
  return new Stripe(secretKey, {
    timeout: STRIPE_TIMEOUT_MS,
    // Each caller retries in its own way, with an idempotency key for each attempt.
    maxNetworkRetries: 0,
    ...(base === undefined
      ? {}
      : {
          host: base.hostname,
          port: Number(base.port || 443),
          protocol: base.protocol === "http:" ? ("http" as const) : ("https" as const),
        }),
  });
}

export interface StripeFailure {
  /** `undefined`: Stripe did not answer. */
  status: number | undefined;
  message: string;
  /** Stripe's error code. */
  code: string | undefined;
}

export function failureOf(error: unknown): StripeFailure {
  const known = error instanceof Stripe.errors.StripeError ? error : undefined;
  const message = error instanceof Error ? error.message : String(error);
  return { status: known?.statusCode, message, code: known?.code };
}

/** Whether the same request may succeed later: Stripe did not answer, was busy, or did not accept the secret key. */
export function mayPassLater(status: number | undefined): boolean {
  return status === undefined || [401, 403, 409, 429].includes(status) || status >= 500;
}

/** Whether Stripe refused the request for good. Repeating it does not help. */
export function isRefusedByStripe(error: unknown): boolean {
  return error instanceof Stripe.errors.StripeError && !mayPassLater(error.statusCode);
}

/** Whether Stripe refused because it has no such object: it was deleted, or belongs to another account or mode. */
export function isUnknownToStripe(error: unknown): boolean {
  const { status, code } = failureOf(error);
  return status === 404 || code === "resource_missing";
}

/** A failed request. `again`: retry later. `refused`: Stripe refuses it until an operator corrects the cause. */
export interface NoAnswer {
  kind: "again" | "refused";
  message: string;
}

export function noAnswer(error: unknown): NoAnswer {
  const { status, message } = failureOf(error);
  return { kind: mayPassLater(status) ? "again" : "refused", message };
}

/** `undefined` for an object that Stripe does not have, or no longer has. */
export async function orMissing<Found>(request: Promise<Found>): Promise<Found | undefined> {
  try {
    return await request;
  } catch (error) {
    if (failureOf(error).status === 404) return undefined;
    throw error;
  }
}

/** The id of a reference. Stripe sends either the object's id or the whole object. */
export function idOf(reference: string | { id: string } | null): string | null {
  return typeof reference === "string" ? reference : (reference?.id ?? null);
}

/** The prices of a plan, in the order of `priceKeys`. Throws `billing_unavailable` when one is missing at Stripe. */
export async function pricesOf(stripe: Stripe, plan: PlanName, timeoutMs?: number): Promise<Stripe.Price[]> {
  const keys = priceKeys(plan);
  const options = timeoutMs === undefined ? {} : { timeout: timeoutMs };
  const { data } = await stripe.prices.list({ lookup_keys: keys, limit: keys.length }, options);
  return keys.map((key) => {
    const price = data.find((each) => each.lookup_key === key);
    if (price === undefined)
      throw new AppError("billing_unavailable", `Stripe has no price ${key}: run npm run stripe:setup`);
    return price;
  });
}
