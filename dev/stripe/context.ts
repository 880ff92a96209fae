// What a request handler may use. Handlers are synchronous and run inside one transaction.
import type { Stripe } from "stripe";
import type { StoredObject, ThinEvent } from "./objects.ts";
import type { Store } from "./store.ts";

export interface Context {
  store: Store;
  /** The simulator's clock, virtual offset included. */
  nowMs: number;
  /** Where the simulator is reached, for pay pages. */
  origin: string;
  /** How long after its receipt a meter event shows in summaries. */
  meterLagMs: number;
  /** Whether a meter event's faults are found after it was answered with 200. */
  validatesLater: boolean;
  /** The key of the request, if it has one. */
  idempotencyKey: string | null;
  /** Stores the object and announces it: event `type` (null: none) with a snapshot, and what changed since `previous`. */
  save: (type: Stripe.Event.Type | null, object: StoredObject, previous?: StoredObject) => void;
  /** An event alone, of an object that is not stored, or not any more. */
  announce: (type: Stripe.Event.Type, object: StoredObject) => void;
  announceThin: (event: ThinEvent) => void;
}

/** Stripe's unit of time. */
export function nowSeconds(context: Context): number {
  return Math.floor(context.nowMs / 1000);
}
