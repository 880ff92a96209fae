/** What a request handler may use. Handlers are synchronous and run inside one transaction. */
import type { Stripe } from "stripe";
import type { StoredObject } from "./objects.ts";
import type { Store } from "./store.ts";

export type Context = {
  readonly store: Store;
  /** The simulator's clock, virtual offset included. */
  readonly nowMs: number;
  /** Where the simulator is reached, for pay pages. */
  readonly origin: string;
  /** How long after its receipt a meter event shows in summaries. */
  readonly meterLagMs: number;
  /** Stores the object and announces it: event `type` (null: none) with a snapshot, and what changed since `previous`. */
  readonly save: (type: Stripe.Event.Type | null, object: StoredObject, previous?: StoredObject) => void;
  /** An event alone, of an object that is not stored, or not any more. */
  readonly announce: (type: Stripe.Event.Type, object: StoredObject) => void;
};

/** Stripe's unit of time. */
export function nowSeconds(context: Context): number {
  return Math.floor(context.nowMs / 1000);
}
