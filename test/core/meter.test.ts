// The meaning of Stripe's answers to meter events, and the idempotency keys of attempts.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { attemptKey, classifyMeterFailure } from "../../src/adapters/stripe/meter.ts";

const again = { kind: "again" };
const refused = { kind: "refused" };
const duplicate = "An event already exists with identifier u1.acme.29876543.";

test.each([
  { status: 400, message: duplicate, means: { kind: "confirmed", answer: "duplicate" } },
  { status: 400, message: "No active meter found with event name 'units'.", means: refused },
  { status: 400, message: "Keys for idempotent requests can only be used with the same parameters.", means: refused },
  { status: 404, message: "No such customer: 'cus_1'", means: refused },
  { status: 401, message: "Invalid API Key provided: sk_test_****", means: again },
  { status: 403, message: "The provided key does not have the required permissions.", means: again },
  { status: 409, message: "There is currently another in-progress request using this key.", means: again },
  { status: 429, message: "Too many requests", means: again },
  { status: 500, message: "An unknown error occurred", means: again },
  { status: 503, message: "Service unavailable", means: again },
  { status: 599, message: "", means: again },
  { status: undefined, message: "socket hang up", means: again },
])("$status ($message) means $means.kind", ({ status, message, means }) => {
  expect(classifyMeterFailure(status, message)).toEqual(means);
});

test("only a 400 that names the duplicate confirms a report, so that no other answer loses usage", () => {
  const status = fc.option(fc.integer({ min: 100, max: 599 }), { nil: undefined });
  fc.assert(
    fc.property(status, fc.oneof(fc.string(), fc.constant(duplicate)), (given, message) => {
      const confirms = given === 400 && message === duplicate;
      expect(classifyMeterFailure(given, message).kind === "confirmed").toBe(confirms);
    }),
  );
});

test("every attempt has its own idempotency key, which contains the report's id and fits Stripe's 255 characters", () => {
  const numbers = [1, 2, 11, 12, 112];
  const reports = ["a", "a1", "a-1", "t".repeat(40)].flatMap((tenant) =>
    numbers.map((minute) => `u1.${tenant}.${minute}`),
  );
  const keys = reports.flatMap((id) =>
    numbers.map((attempt) => {
      const key = attemptKey(id, attempt);
      expect(key).toContain(id);
      expect(key.length).toBeLessThanOrEqual(255);
      return key;
    }),
  );
  expect(new Set(keys).size).toBe(keys.length);
});
