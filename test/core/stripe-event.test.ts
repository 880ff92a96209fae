import * as fc from "fast-check";
import { expect, test } from "vitest";
import { unstorableText } from "../../src/core/text/text.ts";
import { reportIdOf } from "../../src/reports/meter-errors.ts";
import { incomingEvent, outOfReach } from "../../src/subscriptions/stripe-event.ts";

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
  const objectId = "id" in object ? object.id : null;
  const mode = { livemode: null, accountId: null };
  expect(incomingEvent(event)).toEqual({
    id: "evt_1",
    type: "checkout.session.completed",
    objectId,
    ...names,
    ...mode,
  });
});

test("any signed JSON that has an id and a type can be kept: its texts are storable and short, or absent", () => {
  const known = ["object", "id", "client_reference_id", "metadata", "customer", "tenant_id", "parent", "account"];
  const text = fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("a\0b", "a\ud83d", "x".repeat(3_000)));
  const value = fc.oneof(fc.constantFrom("customer", "acme", "", null), text, fc.jsonValue({ maxDepth: 2 }));
  const key = fc.oneof(fc.constantFrom(...known), fc.string());
  const object = fc.dictionary(key, fc.oneof(value, fc.dictionary(key, value)));
  const data = fc.oneof(fc.record({ object: fc.oneof(object, value) }), value);
  const events = fc.record({ id: text, type: text, livemode: value, account: value, data }, { requiredKeys: [] });
  fc.assert(
    fc.property(events, (event) => {
      const kept = incomingEvent(event);
      const isEvent = [event.id, event.type].every((each) => each !== undefined && each !== "");
      expect(kept !== undefined).toBe(isEvent);
      for (const each of Object.values(kept ?? {})) {
        if (typeof each !== "string") expect([null, true, false]).toContain(each);
        else expect([each !== "", each.length <= 255, unstorableText(each)]).toEqual([true, true, undefined]);
      }
    }),
  );
});

test.each([
  { event: { livemode: false, accountId: null }, keyIsLive: false, outcome: undefined },
  { event: { livemode: true, accountId: null }, keyIsLive: true, outcome: undefined },
  { event: { livemode: null, accountId: null }, keyIsLive: true, outcome: undefined },
  { event: { livemode: true, accountId: null }, keyIsLive: undefined, outcome: undefined },
  { event: { livemode: true, accountId: null }, keyIsLive: false, outcome: "other_mode" },
  { event: { livemode: false, accountId: null }, keyIsLive: true, outcome: "other_mode" },
  { event: { livemode: false, accountId: "acct_1" }, keyIsLive: false, outcome: "other_account" },
])("an event $event is out of reach of a key of live mode $keyIsLive: $outcome", ({ event, keyIsLive, outcome }) => {
  expect(outOfReach(event, keyIsLive)).toBe(outcome);
});

test("a report is found by its id or by the idempotency key of any attempt, and by nothing else", () => {
  expect(reportIdOf("u1.acme.29400000")).toBe("u1.acme.29400000");
  expect(reportIdOf("u1.acme.29400000.a12")).toBe("u1.acme.29400000");
  for (const other of ["", "acme", "u1.acme.x", "u1.ACME.1", "u2.acme.1", "u1.acme.1.a2.a3", "x u1.acme.1"])
    expect(reportIdOf(other)).toBeUndefined();
});
