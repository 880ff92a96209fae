// Asks a shipping service what a parcel costs, with the account's own key there. With `npm start` a stand-in is the service; put the
// host of a real one in its place.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";

/** What the service answers. A service may add fields. */
const Quote = z.object({ priceCents: z.int(), currency: z.string().max(3), days: z.int() });

export const shippingQuote = defineTool({
  name: "shipping_quote",
  title: "Shipping quote",
  description:
    "Asks the shipping service what a parcel costs and how many days it takes. Call it before you promise a delivery. " +
    "It needs the account's key at the service, which an administrator sets.",
  units: 2,
  scopes: ["tools:read"],
  secrets: ["shipping_api_key"],
  hosts: ["shipping.example"],
  input: z.strictObject({
    country: z
      .string()
      .regex(/^[A-Z]{2}$/, "must be a country code such as DE")
      .describe("Where the parcel goes, as ISO 3166-1 alpha-2 code"),
    weightGrams: z.int().min(1).max(30_000).describe("Weight with the packaging, in grams"),
  }),
  output: z.strictObject({ priceCents: z.int(), currency: z.string(), days: z.int() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ country, weightGrams }, { secrets, fetch }) {
    const key = await secrets.get("shipping_api_key");
    const response = await fetch("https://shipping.example/v1/quotes", {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ country, weightGrams }),
    });
    if (response.status === 401)
      return {
        isError: true,
        text: "The shipping service refuses the account's key. An administrator can set a new one.",
      };
    if (response.status === 422) return { isError: true, text: `The shipping service does not deliver to ${country}.` };
    if (!response.ok)
      return { isError: true, text: `The shipping service answered with status ${response.status}. Try again later.` };
    const { data: quote } = Quote.safeParse(await response.json().catch(() => undefined));
    if (quote === undefined) return { isError: true, text: "The shipping service gave an answer that is no quote." };
    return { data: quote, text: `${(quote.priceCents / 100).toFixed(2)} ${quote.currency}, ${quote.days} days.` };
  },
});
