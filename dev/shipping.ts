// Stand-in for a shipping service, which the example of a tool that asks another service uses: quotes for parcels.
import { Hono } from "hono";
import { z } from "zod";
import { serveOnLoopback } from "./loopback.ts";

/** Its host in the world of tools. */
export const SHIPPING_HOST = "shipping.example";

const Parcel = z.object({ country: z.string().regex(/^[A-Z]{2}$/), weightGrams: z.int().min(1).max(30_000) });
/** Days to countries nearby; everywhere else takes twice as long. */
const nearby: readonly string[] = ["AT", "BE", "CH", "DE", "FR", "NL", "PL"];
/** It delivers to no such place. */
const NOWHERE = "AQ";

export interface ShippingService {
  url: string;
  close(): Promise<void>;
}

/**
 * Starts the service on 127.0.0.1; port 0 takes a free one. `POST /v1/quotes` takes `{ country, weightGrams }` with a bearer key that
 * begins with `ship_`, and answers with `{ priceCents, currency, days }`.
 */
export async function startShipping({ port }: { port: number }): Promise<ShippingService> {
  const app = new Hono();
  app.post("/v1/quotes", async (c) => {
    if (!/^Bearer ship_\S{4,}$/.test(c.req.header("authorization") ?? "")) return c.json({ error: "unknown key" }, 401);
    const parcel = Parcel.safeParse(await c.req.json().catch(() => undefined));
    if (!parcel.success || parcel.data.country === NOWHERE) return c.json({ error: "no delivery" }, 422);
    const { country, weightGrams } = parcel.data;
    const isNear = nearby.includes(country);
    return c.json({
      priceCents: 490 + Math.ceil(weightGrams / 500) * (isNear ? 120 : 310),
      currency: "EUR",
      days: isNear ? 3 : 6,
    });
  });
  app.notFound((c) => c.json({ error: `${c.req.method} ${c.req.path} is not simulated` }, 404));
  const listening = await serveOnLoopback(app.fetch, port);
  return { url: listening.url, close: () => listening.close() };
}
