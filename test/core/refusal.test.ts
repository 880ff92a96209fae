// Refusals: the codes, and the words and numbers that a model reads when a limit refuses a call.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { Refused } from "../../src/calls/admission.ts";
import { AppError, type ErrorCode, errorCode, errors } from "../../src/core/errors.ts";
import { TenantId } from "../../src/core/tenant.ts";
import { leavingRefusal, limitRefusal, plainRefusal } from "../../src/calls/refusal.ts";

const units: Readonly<Record<Refused["code"], "calls" | "units">> = {
  rate_limited: "calls",
  too_many_in_flight: "calls",
  window_exhausted: "units",
  tool_exhausted: "units",
  period_exhausted: "units",
  cost_over_limit: "units",
};
const limitCodes = Object.keys(units) as Refused["code"][];
const errorCodes = Object.keys(errors) as ErrorCode[];
const url = "https://tollgate.example/plans";

function aRefusal(overrides: Partial<Refused> = {}): Refused {
  return {
    admitted: false,
    code: "window_exhausted",
    limit: 100,
    used: 95,
    cost: 20,
    retryAfterMs: 61_000,
    ...overrides,
  };
}

const refusals = fc.record({
  admitted: fc.constant(false as const),
  code: fc.constantFrom(...limitCodes),
  limit: fc.nat(1_000_000),
  used: fc.nat(1_000_000),
  cost: fc.nat(1_000),
  retryAfterMs: fc.option(
    fc.oneof(fc.nat(3_000), fc.nat(31 * 86_400_000), fc.double({ min: 0, max: 5, noNaN: true })),
    {
      nil: undefined,
    },
  ),
});

test("the text of a refusal has every fact that its data has", () => {
  fc.assert(
    fc.property(refusals, (refused) => {
      const { message, ...data } = limitRefusal("search_products", refused, url);
      const { code, limit, used, cost } = refused;
      expect(data).toMatchObject({ code, limit, used, cost, upgradeUrl: url });
      const numbers = [limit, used, cost, ...("retryAfterSeconds" in data ? [data.retryAfterSeconds] : [])];
      expect(message.match(/\d+/g)?.map(Number)).toEqual(numbers);
      expect(message).toContain("search_products");
      expect(message).toMatch(new RegExp(`\\b${limit} ${units[code]}\\b`));
      expect(message.endsWith(` ${url}`)).toBe(true);
    }),
  );
});

test("a client that waits for `retryAfterSeconds` is not early, less than a second late, and never waits zero seconds", () => {
  fc.assert(
    fc.property(refusals, (refused) => {
      const refusal = limitRefusal("search_products", refused, url);
      const { retryAfterMs } = refused;
      if (retryAfterMs === undefined) {
        expect(refusal).not.toHaveProperty("retryAfterSeconds");
        return;
      }
      const seconds = refusal.retryAfterSeconds ?? Number.NaN;
      expect(Number.isInteger(seconds)).toBe(true);
      expect(seconds).toBeGreaterThanOrEqual(1);
      expect(seconds * 1_000).toBeGreaterThanOrEqual(retryAfterMs);
      expect(seconds * 1_000).toBeLessThan(Math.max(retryAfterMs, 1) + 1_000);
    }),
  );
});

test.each([
  [0, 1],
  [1, 1],
  [1_000, 1],
  [1_001, 2],
  [3_599_001, 3_600],
])("%i ms become %i s", (retryAfterMs, retryAfterSeconds) => {
  expect(limitRefusal("search_products", aRefusal({ retryAfterMs }), url)).toMatchObject({ retryAfterSeconds });
});

test("each limit has its own message", () => {
  const messages = limitCodes.map((code) => limitRefusal("search_products", aRefusal({ code }), url).message);
  expect(new Set(messages).size).toBe(limitCodes.length);
});

test.each(errorCodes)("the error %s becomes an HTTP refusal with advice", (code) => {
  const { status, advice } = errors[code];
  expect(status).toBeGreaterThanOrEqual(400);
  expect(status).toBeLessThan(600);
  expect(plainRefusal(code)).toEqual({ code, message: advice });
  expect(plainRefusal(code, "The call's id is c1.")).toEqual({ code, message: `${advice} The call's id is c1.` });
});

test.each(errorCodes)("the code %s can be read from its error, also after an RPC", (code) => {
  const error = new AppError(code, "for the log", { cause: new Error("why") });
  expect(error).toMatchObject({ name: "AppError", code, message: "for the log", cause: new Error("why") });
  expect(errorCode(error)).toBe(code);
  expect(errorCode(Object.assign(new Error("crossed"), { code }))).toBe(code);
  expect(errorCode({ code })).toBe(code);
  expect(new AppError(code).message).toBe(errors[code].advice);
});

test.each([
  ["an error without a code", new Error("tenant_gone")],
  ["a code of PostgreSQL", Object.assign(new Error("duplicate key"), { code: "23505" })],
  ["a code that every object has", { code: "constructor" }],
  ["a code that is a prototype", { code: "__proto__" }],
  ["a code that is a number", { code: 404 }],
  ["a code in a list", { code: ["tenant_gone"] }],
  ["an empty code", { code: "" }],
  ["a text", "tenant_gone"],
  ["null", null],
  ["nothing", undefined],
])("%s is internal", (_, thrown) => {
  expect(errorCode(thrown)).toBe("internal");
});

test("a leaving tenant's refusal says until when it can return, and how", () => {
  const id = TenantId.parse("acme");
  const { message } = leavingRefusal({ id, leavingUntilMs: Date.UTC(2026, 0, 31) }, "https://x.test");
  expect(message).toContain("2026-01-31T00:00:00.000Z");
  expect(message).toContain("https://x.test/api/tenants/acme/reactivate");
  expect(message).toContain("https://x.test/api/tenants/acme/export");
  expect(leavingRefusal({ id, leavingUntilMs: null }, "https://x.test")).toEqual(plainRefusal("tenant_leaving"));
});
