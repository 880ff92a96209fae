// Stripe's webhooks: signature over the raw body, then the inbox, then 200. What the event changes happens afterwards;
// a crash in between is swept up, because the event is durable by then (DESIGN.md I4). Events of Stripe's second kind come
// to an address of their own, because their destination has a secret of its own.
import { type Context, Hono } from "hono";
import { controlInbox } from "./inbox-store.ts";
import { connectControl } from "../adapters/neon.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { type IncomingEvent, incomingEvent, incomingNotification } from "./stripe-event.ts";
import { describeError, log } from "../log.ts";
import type { HttpEnv } from "../http.ts";

export const webhook = new Hono<HttpEnv>();

webhook.post("/stripe", async (c) => {
  const stripe = connectStripe(c.env.STRIPE_SECRET_KEY, c.env.STRIPE_API_BASE);
  const signature = c.req.header("stripe-signature");
  return keep(c, incomingEvent(await stripe.events.verify(await c.req.text(), signature, c.env.STRIPE_WEBHOOK_SECRET)));
});

webhook.post("/stripe-thin", async (c) => {
  const stripe = connectStripe(c.env.STRIPE_SECRET_KEY, c.env.STRIPE_API_BASE);
  const signature = c.req.header("stripe-signature");
  const secret = c.env.STRIPE_THIN_WEBHOOK_SECRET;
  return keep(c, incomingNotification(await stripe.events.verifyThin(await c.req.text(), signature, secret)));
});

async function keep(c: Context<HttpEnv>, event: IncomingEvent): Promise<Response> {
  // A throw is a 5xx, and Stripe sends the event again.
  const { fresh, tenantId } = await controlInbox(connectControl(c.env)).keep(event);
  if (tenantId === undefined) log("warn", "webhook_without_tenant", { eventId: event.id, type: event.type });
  else if (fresh) {
    const applied = c.env.TENANT.getByName(tenantId).applyInbox();
    c.executionCtx.waitUntil(
      Promise.resolve(applied).catch((error: unknown) =>
        log("warn", "webhook_left_to_sweep", { tenantId, error: describeError(error) }),
      ),
    );
  }
  return c.json({ received: true, duplicate: !fresh });
}
