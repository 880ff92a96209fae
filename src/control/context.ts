// The bindings as the rooms use them. Made once for each request, queue batch, cron, Workflow step and tenant object.
// A context opens nothing by itself: the first statement or request does.
import { type ControlDatabase, connectControl } from "../adapters/neon.ts";
import { type StripeConnection, connectStripe } from "../adapters/stripe.ts";
import type { TenantId } from "../core/tenant.ts";
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
      return env.TENANT.getByName(tenantId);
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
