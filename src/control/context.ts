// The bindings as the rooms use them. Made once for each request, queue batch, cron, Workflow step and tenant object.
// A context opens nothing by itself: the first statement or request does.
import { type ControlDatabase, connectControl } from "../adapters/neon.ts";
import { type StripeConnection, connectStripe } from "../adapters/stripe/stripe.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { type RequestMarks, currentRequest, inRequest } from "../log.ts";
import { type Work, startWork } from "./work.ts";

export type Context = ReturnType<typeof createContext>;
export type { ControlDatabase };

export function createContext(env: Env) {
  let control: ControlDatabase | undefined;
  let stripe: StripeConnection | undefined;
  return {
    env,
    /** The control tables. Connected on first use: most tool calls never ask them. */
    get control(): ControlDatabase {
      return (control ??= connectControl(env));
    },
    /** Stripe. Connected on first use. */
    get stripe(): StripeConnection {
      return (stripe ??= connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE));
    },
    /** The tenant's object. A new stub for each call: a stub whose object has died stays broken. */
    tenantObject(tenantId: TenantId) {
      return marked(env.TENANT.getByName(tenantId));
    },
    /** One of the objects of the OAuth server's registrations and handles. */
    oauthRegistry(name: string) {
      return env.OAUTH_REGISTRY.getByName(name);
    },
    /** Starts a Workflow instance for the work. Throws when the platform does not take it; the sweep then starts one. */
    start(work: Work): Promise<void> {
      return startWork(env, work);
    },
  };
}

/** The last argument of an RPC that a request of an identified person or program makes. */
interface Marked {
  ofRequest: RequestMarks;
}

/**
 * Adds the request to each RPC, so that the object's log lines carry its id, the actor's kind and the mark of an impersonation,
 * too. An agent's call carries its id by itself.
 */
function marked<Stub extends object>(stub: Stub): Stub {
  const ofRequest = currentRequest();
  if (ofRequest?.marks["actor"] === undefined) return stub;
  return new Proxy(stub, {
    get(target, name) {
      const method: unknown = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      return (...values: unknown[]): unknown =>
        Reflect.apply(method, target, [...values, { ofRequest } satisfies Marked]);
    },
  });
}

/** Makes the methods of an object's class run in the request that `tenantObject` has added to an RPC. */
export function runInRequests(prototype: object): void {
  for (const [name, { value: method }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
    if (name === "constructor" || typeof method !== "function") continue;
    const run = function (this: unknown, ...values: unknown[]): unknown {
      const last = values.at(-1);
      if (!isMarked(last)) return Reflect.apply(method, this, values);
      const { requestId, marks } = last.ofRequest;
      return inRequest(requestId, (): unknown => Reflect.apply(method, this, values.slice(0, -1)), marks);
    };
    Object.defineProperty(prototype, name, { value: run, writable: true, configurable: true });
  }
}

function isMarked(value: unknown): value is Marked {
  return typeof value === "object" && value !== null && "ofRequest" in value;
}
