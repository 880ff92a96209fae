// Receives Stripe's webhooks: Tollgate verifies the signature over the raw body, stores the event, then answers 200. It
// applies the event afterwards. If it crashes in between, the sweep applies the event. Thin events have a path of their own,
// because their destination at Stripe has its own secret.
import { BadRequest, type HttpContext, actAs, noteAct } from "../http.ts";
import { describeError, log } from "../log.ts";
import { inboxStore } from "./inbox-store.ts";
import { type IncomingEvent, incomingEvent, incomingNotification } from "./stripe-event.ts";

export async function receiveEvent(c: HttpContext): Promise<Response> {
  const { stripe } = c.get("context");
  const signature = c.req.header("stripe-signature");
  return store(
    c,
    incomingEvent(await stripe.events.verify(await c.req.text(), signature, c.env.STRIPE_WEBHOOK_SECRET)),
  );
}

export async function receiveThinEvent(c: HttpContext): Promise<Response> {
  const { stripe } = c.get("context");
  const signature = c.req.header("stripe-signature");
  const secret = c.env.STRIPE_THIN_WEBHOOK_SECRET;
  return store(c, incomingNotification(await stripe.events.verifyThin(await c.req.text(), signature, secret)));
}

/** Stores the event and applies it after the answer. A throw becomes a 5xx, and Stripe retries the event. */
async function store(c: HttpContext, event: IncomingEvent | undefined): Promise<Response> {
  const startedAtMs = Date.now();
  if (event === undefined) throw new BadRequest("The event has no id or no type.");
  // The signature is right.
  actAs(c, { kind: "stripe" });
  noteAct(c, { target: `${event.id} ${event.type}` });
  const context = c.get("context");
  const { fresh, tenantId, outcome } = await inboxStore(context.control).keep(event, context.stripe.isLive);
  const isUnknown = outcome === "unknown_tenant";
  if (fresh && isUnknown) log("warn", "webhook_of_unknown_tenant", { eventId: event.id, type: event.type });
  if (fresh && tenantId !== null && outcome === null) {
    const applied = context.tenantObject(tenantId).applyInbox();
    c.executionCtx.waitUntil(
      Promise.resolve(applied).catch((error: unknown) =>
        log("warn", "webhook_left_to_sweep", { tenantId, error: describeError(error) }),
      ),
    );
  }
  const stored = { eventId: event.id, type: event.type, tenantId, fresh, outcome: outcome ?? "waits" };
  log("info", "webhook", { ...stored, ms: Date.now() - startedAtMs });
  return c.json({ received: true, duplicate: !fresh });
}
