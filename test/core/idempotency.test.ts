// The header `Idempotency-Key`: its forms, and the comparison of bodies.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { canonicalJson, idempotencyKeyOf } from "../../src/identity/idempotency.ts";

test.each([
  ['"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"],
  ["8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"],
  [' "a key of words" ', "a key of words"],
  ["k", "k"],
  ["", undefined],
  ['""', undefined],
  ["two words", undefined],
  ['"half', undefined],
  ["schlüssel", undefined],
  ["a".repeat(256), undefined],
])("the header %j has the key %j", (header, key) => {
  expect(idempotencyKeyOf(header, { isPublic: false })).toBe(key);
});

test("a public route takes no key that another buyer is likely to choose", () => {
  expect(idempotencyKeyOf("1234567", { isPublic: true })).toBeUndefined();
  expect(idempotencyKeyOf("12345678", { isPublic: true })).toBe("12345678");
});

test("bodies with other values differ, and the order of fields does not count", () => {
  const shuffled = (value: unknown): unknown =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(
          Object.entries(value)
            .toReversed()
            .map(([name, each]) => [name, shuffled(each)]),
        )
      : value;
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue(), (body, other) => {
      expect(canonicalJson(shuffled(body))).toBe(canonicalJson(body));
      const isSame = JSON.stringify(body) === JSON.stringify(other);
      if (isSame) expect(canonicalJson(other)).toBe(canonicalJson(body));
      expect(canonicalJson({ ...body, name: "a" })).not.toBe(canonicalJson({ ...body, name: "b" }));
    }),
  );
});
