// Tests the shipping quote on its own, with a fake service.
import { expect, test } from "vitest";
import { callTool, toolContext } from "#tollgate/testing";
import { shippingQuote } from "../tools/shipping-quote.ts";

const secrets = { shipping_api_key: "ship_the-accounts-own" };
const parcel = { country: "DE", weightGrams: 1_200 };

test("shipping_quote asks the service with the account's key, and returns its quote", async () => {
  const quote = { priceCents: 1_150, currency: "EUR", days: 3 };
  const { context, seen } = toolContext({ secrets, responses: [Response.json({ ...quote, carrier: "x" })] });
  const { data, text } = await callTool(shippingQuote, parcel, context);
  expect(data).toEqual(quote);
  expect(text).toBe("11.50 EUR, 3 days.");
  const [{ url, request } = { url: "", request: {} }] = seen.requests;
  expect(url).toBe("https://shipping.example/v1/quotes");
  expect(request).toMatchObject({ method: "POST", body: JSON.stringify(parcel) });
  expect(new Headers(request.headers).get("authorization")).toBe("Bearer ship_the-accounts-own");
});

test.each([
  [Response.json({}, { status: 401 }), "refuses the account's key"],
  [Response.json({}, { status: 422 }), "does not deliver to DE"],
  [new Response("busy", { status: 503 }), "answered with status 503"],
  [new Response("<html>"), "no quote"],
  [Response.json({ priceCents: "much" }), "no quote"],
])("shipping_quote explains an answer without a quote, and is not charged: %#", async (response, why) => {
  const { context } = toolContext({ secrets, responses: [response] });
  const { failed, units, text } = await callTool(shippingQuote, parcel, context);
  expect([failed, units]).toEqual([true, 0]);
  expect(text).toContain(why);
});

test("shipping_quote sends nothing without the account's key", async () => {
  const { context, seen } = toolContext();
  await expect(callTool(shippingQuote, parcel, context)).rejects.toMatchObject({ code: "secret_missing" });
  expect(seen.requests).toEqual([]);
});

test.each([{ country: "de" }, { country: "Germany" }, { weightGrams: 0 }, { weightGrams: 30_001 }])(
  "shipping_quote refuses the arguments %j",
  (args) => expect(shippingQuote.input.safeParse({ ...parcel, ...args }).success).toBe(false),
);
