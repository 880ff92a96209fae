// The context of a request handler. Handlers are synchronous and run inside one transaction.
import type { Stripe } from "stripe";
import type { StoredObject, ThinEvent } from "./objects.ts";
import type { Store } from "./store.ts";

export interface Context {
  store: Store;
  /** The simulator's clock, virtual offset included. */
  nowMs: number;
  /** Base URL of the simulator, for pay pages. */
  origin: string;
  /** Delay in milliseconds until a received meter event appears in summaries. */
  meterLagMs: number;
  /** Validates meter events after answering 200, as Stripe may. */
  validatesLater: boolean;
  /** The request's Idempotency-Key, if it has one. */
  idempotencyKey: string | null;
  /** Stores the object and emits an event of `type` with the changes since `previous`. With `null`: no event. */
  save: (type: Stripe.Event.Type | null, object: StoredObject, previous?: StoredObject) => void;
  /** Emits an event about an object that the simulator does not store. */
  announce: (type: Stripe.Event.Type, object: StoredObject) => void;
  announceThin: (event: ThinEvent) => void;
}

/** The current time in seconds, Stripe's unit. */
export function nowSeconds(context: Context): number {
  return Math.floor(context.nowMs / 1000);
}
