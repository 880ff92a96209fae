import * as fc from "fast-check";
import { expect, test } from "vitest";
import { reportIdOf } from "../../src/reports/meter-errors.ts";
import { incomingEvent } from "../../src/subscriptions/stripe-event.ts";

function anEvent(object: object) {
  return { id: "evt_1", type: "checkout.session.completed", data: { object } };
}

test.each([
  {
    of: "a Checkout session",
    object: { object: "checkout.session", id: "cs_1", client_reference_id: "acme", customer: "cus_1", metadata: {} },
    names: { namedTenant: "acme", customerId: "cus_1" },
  },
  {
    of: "a subscription",
    object: { object: "subscription", id: "sub_1", customer: "cus_1", metadata: { tenant_id: "acme" } },
    names: { namedTenant: "acme", customerId: "cus_1" },
  },
  {
    of: "an invoice",
    object: { object: "invoice", id: "in_1", customer: "cus_1", metadata: null },
    names: { namedTenant: null, customerId: "cus_1" },
  },
  {
    of: "an invoice of a subscription",
    object: {
      object: "invoice",
      id: "in_1",
      customer: "cus_1",
      metadata: {},
      parent: { subscription_details: { metadata: { tenant_id: "acme" } } },
    },
    names: { namedTenant: "acme", customerId: "cus_1" },
  },
  {
    of: "a customer",
    object: { object: "customer", id: "cus_1", metadata: { tenant_id: "acme" } },
    names: { namedTenant: "acme", customerId: "cus_1" },
  },
  {
    of: "an object with its customer in full",
    object: { object: "subscription", id: "sub_1", customer: { object: "customer", id: "cus_1", deleted: true } },
    names: { namedTenant: null, customerId: "cus_1" },
  },
  {
    of: "a session that names one tenant itself and another in its metadata",
    object: { object: "checkout.session", client_reference_id: "acme", metadata: { tenant_id: "other" } },
    names: { namedTenant: "acme", customerId: null },
  },
  {
    of: "a session whose own name is empty",
    object: { object: "checkout.session", client_reference_id: "", customer: "", metadata: { tenant_id: "acme" } },
    names: { namedTenant: "acme", customerId: null },
  },
  {
    of: "a session that names no tenant",
    object: { object: "checkout.session", id: "cs_1", client_reference_id: null, customer: null, metadata: {} },
    names: { namedTenant: null, customerId: null },
  },
  {
    of: "a price, which has no tenant",
    object: { object: "price", id: "price_1" },
    names: { namedTenant: null, customerId: null },
  },
])("an event of $of", ({ object, names }) => {
  const event = anEvent(object);
  expect(incomingEvent(event)).toEqual({ id: "evt_1", type: "checkout.session.completed", ...names, payload: event });
});

test("any Stripe event is stored whole, and its tenant and customer are strings or absent", () => {
  const known = ["object", "id", "client_reference_id", "metadata", "customer", "tenant_id", "parent"];
  const value = fc.oneof(fc.constantFrom("customer", "acme", "", null), fc.jsonValue({ maxDepth: 2 }));
  const key = fc.oneof(fc.constantFrom(...known), fc.string());
  const objects = fc.dictionary(key, fc.oneof(value, fc.dictionary(key, value)));
  fc.assert(
    fc.property(objects, (object) => {
      const event = anEvent(object);
      const before = JSON.stringify(event);
      const { payload, namedTenant, customerId } = incomingEvent(event);
      expect(payload).toBe(event);
      expect(JSON.stringify(payload)).toBe(before);
      for (const name of [namedTenant, customerId])
        expect(name === null || (typeof name === "string" && name !== "")).toBe(true);
    }),
  );
});

test("a report is found by its id or by the idempotency key of any attempt, and by nothing else", () => {
  expect(reportIdOf("u1.acme.29400000")).toBe("u1.acme.29400000");
  expect(reportIdOf("u1.acme.29400000.a12")).toBe("u1.acme.29400000");
  for (const other of ["", "acme", "u1.acme.x", "u1.ACME.1", "u2.acme.1", "u1.acme.1.a2.a3", "x u1.acme.1"])
    expect(reportIdOf(other)).toBeUndefined();
});
