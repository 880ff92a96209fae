// The Stripe SDK for every adapter file of Stripe, the rate of its requests, and the meaning of its failures: every failed
// request of an adapter becomes a `StripeFailure`, which is permanent or temporary.
import Stripe from "stripe";
import { type FailureKind, OutsideFailure } from "../../core/errors.ts";
import { type PlanName, priceKeys } from "../../core/plans/plans.ts";

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

/** Below the 25 a second that Stripe's read endpoints take, with room for other requests at the same time. */
const PER_SECOND = 20;

/** Waits until a request may be made. Call it before each request. */
export type Acquire = () => Promise<void>;

/** A limiter that lets requests pass one after the other, at most 20 a second. */
export function rateLimiter(): { acquire: Acquire } {
  let nextAtMs = 0;
  return {
    async acquire() {
      const now = Date.now();
      const startMs = Math.max(now, nextAtMs);
      nextAtMs = startMs + 1000 / PER_SECOND;
      if (startMs > now) await new Promise((resolve) => setTimeout(resolve, startMs - now));
    },
  };
}

export interface FailureFacts {
  /** `undefined`: Stripe did not answer. */
  status: number | undefined;
  message: string;
  /** Stripe's error code. */
  code: string | undefined;
}

/** A request that Stripe did not carry out. */
export class StripeFailure extends OutsideFailure {
  readonly facts: FailureFacts;
  constructor(error: InstanceType<typeof Stripe.errors.StripeError>) {
    const facts = { status: error.statusCode, message: error.message, code: error.code };
    const kind: FailureKind = mayPassLater(facts.status) ? "temporary" : "permanent";
    super(kind === "permanent" ? "billing_refused" : "billing_unavailable", described(error), kind);
    this.name = "StripeFailure";
    this.facts = facts;
  }
}

/** For the log: status, code, parameter, request and Stripe's message, without what may be an address or a key. */
function described(error: InstanceType<typeof Stripe.errors.StripeError>): string {
  const { statusCode, code, param, requestId, message } = error;
  const facts = [statusCode ?? "no answer", code, param, requestId].filter((fact) => fact !== undefined && fact !== "");
  const text = message.replaceAll(/\S+@\S+/g, "…").replaceAll(/\b[sr]k_\w+/g, "…");
  return `Stripe: ${facts.join(" ")}: ${text}`;
}

/** The adapter with functions that throw a `StripeFailure` where the SDK throws an error of its own. */
export function raising<Adapter extends Record<string, unknown>>(adapter: Adapter): Adapter {
  const wrapped = Object.entries(adapter).map(([name, work]) => {
    if (typeof work !== "function") return [name, work];
    return [
      name,
      (...args: unknown[]): unknown => {
        const result: unknown = Reflect.apply(work, adapter, args);
        // The SDK's lists are promises that callers iterate over.
        const isList = typeof result === "object" && result !== null && Symbol.asyncIterator in result;
        return result instanceof Promise && !isList ? result.catch(raise) : result;
      },
    ];
  });
  return Object.fromEntries(wrapped) as Adapter;
}

function raise(error: unknown): never {
  throw error instanceof Stripe.errors.StripeError ? new StripeFailure(error) : error;
}

export function failureOf(error: unknown): FailureFacts {
  if (error instanceof StripeFailure) return error.facts;
  const known = error instanceof Stripe.errors.StripeError ? error : undefined;
  const message = error instanceof Error ? error.message : String(error);
  return { status: known?.statusCode, message, code: known?.code };
}

/** Whether the same request may succeed later: Stripe did not answer, was busy, or did not accept the secret key. */
export function mayPassLater(status: number | undefined): boolean {
  return status === undefined || [401, 403, 409, 429].includes(status) || status >= 500;
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
    if (isUnknownToStripe(error)) return undefined;
    throw error;
  }
}

/** The id of a reference. Stripe sends either the object's id or the whole object. */
export function idOf(reference: string | { id: string } | null): string | null {
  return typeof reference === "string" ? reference : (reference?.id ?? null);
}

/** The prices of a plan, in the order of `priceKeys`. Throws when one is missing at Stripe, until the operator adds it. */
export async function pricesOf(stripe: Stripe, plan: PlanName, timeoutMs?: number): Promise<Stripe.Price[]> {
  const keys = priceKeys(plan);
  const options = timeoutMs === undefined ? {} : { timeout: timeoutMs };
  const { data } = await stripe.prices.list({ lookup_keys: keys, limit: keys.length }, options);
  return keys.map((key) => {
    const price = data.find((each) => each.lookup_key === key);
    if (price === undefined)
      throw new OutsideFailure("billing_refused", `Stripe has no price ${key}: run npm run stripe:setup`, "temporary");
    return price;
  });
}
