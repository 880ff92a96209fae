// Refusals: the codes, and the words and numbers that a model reads when a limit refuses a call.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { Refused } from "../../src/calls/admission.ts";
import { AppError, type ErrorCode, errorCode, errors } from "../../src/core/errors.ts";
import { type TenantConfig, TenantId } from "../../src/core/tenant/tenant.ts";
import { conditionOf, refusedByState, tenantTable, ways } from "../../src/core/tenant/tenant-state.ts";
import { limitRefusal, plainRefusal, requestRefusal, stateRefusal } from "../../src/calls/refusal.ts";

/** Each limit as admission reports it, and its words. */
const limits: readonly { code: Refused["code"]; measure: Refused["measure"]; words: string }[] = [
  { code: "rate_limited", measure: "minute", words: "requests a minute" },
  { code: "too_many_in_flight", measure: "in_flight", words: "calls at once" },
  { code: "window_exhausted", measure: "hour", words: "units an hour" },
  { code: "tool_exhausted", measure: "tool_hour", words: "units an hour for this tool" },
  { code: "period_exhausted", measure: "month", words: "units a calendar month" },
  { code: "cost_over_limit", measure: "hour", words: "units an hour" },
  { code: "cost_over_limit", measure: "month", words: "units a calendar month" },
];
const errorCodes = Object.keys(errors) as ErrorCode[];
const url = "https://tollgate.example/plans";
const nowMs = Date.UTC(2026, 10, 28, 1, 11, 31, 200);
const options = { upgradeUrl: url, nowMs };

function aRefusal(overrides: Partial<Refused> = {}): Refused {
  return {
    admitted: false,
    code: "window_exhausted",
    measure: "hour",
    limit: 100,
    used: 95,
    cost: 20,
    retryAfterMs: 61_000,
    ...overrides,
  };
}

const refusals = fc
  .record({
    limit: fc.constantFrom(...limits),
    allowed: fc.nat(1_000_000),
    used: fc.nat(1_000_000),
    cost: fc.nat(1_000),
    retryAfterMs: fc.option(
      fc.oneof(fc.nat(3_000), fc.nat(31 * 86_400_000), fc.double({ min: 0, max: 5, noNaN: true })),
      { nil: undefined },
    ),
  })
  .map(({ limit: { code, measure, words }, allowed, ...facts }) => ({
    words,
    refused: aRefusal({ code, measure, limit: allowed, ...facts }),
  }));

test("the text of a refusal has every fact that its data has, and the date of a long wait", () => {
  fc.assert(
    fc.property(refusals, ({ refused, words }) => {
      const { message, ...data } = limitRefusal("search_products", refused, options);
      const { code, measure, limit, used, cost } = refused;
      expect(data).toMatchObject({ code, limit, used, cost, upgradeUrl: url });
      const [date] = /, at \S+(?=\.)/.exec(message) ?? [];
      const seconds = data.retryAfterSeconds;
      const numbers = [
        limit,
        used,
        ...(measure === "minute" || measure === "in_flight" ? [] : [cost]),
        ...(seconds === undefined ? [] : [seconds]),
      ];
      expect(
        message
          .replace(date ?? "", "")
          .match(/\d+/g)
          ?.map(Number),
      ).toEqual(numbers);
      expect(date !== undefined).toBe(seconds !== undefined && seconds > 60);
      if (date !== undefined && refused.retryAfterMs !== undefined) {
        const lateMs = Date.parse(date.slice(", at ".length)) - (nowMs + refused.retryAfterMs);
        expect(lateMs).toBeGreaterThanOrEqual(0);
        expect(lateMs).toBeLessThan(2_000);
      }
      expect(message).toContain("search_products");
      expect(message).toContain(`The limit is ${limit} ${words};`);
      expect(message.endsWith(` ${url}`)).toBe(true);
    }),
  );
});

test("a wait of days has its date", () => {
  const { message } = limitRefusal("search_products", aRefusal({ retryAfterMs: 254_908_800 }), options);
  expect(message).toContain("Try again in 254909 seconds, at 2026-12-01T00:00:01Z.");
});

test("the refusal of a message that is no call does not speak of a call", () => {
  const refused = aRefusal({
    code: "rate_limited",
    measure: "minute",
    limit: 100,
    used: 100,
    cost: 1,
    retryAfterMs: 900,
  });
  expect(requestRefusal(refused, options).message).toBe(
    "Refused: the request was not answered and nothing was charged. The limit is 100 requests a minute; 100 were made. " +
      `Try again in 1 second. Upgrade at ${url}`,
  );
});

test("a client that waits for `retryAfterSeconds` is not early, less than a second late, and never waits zero seconds", () => {
  fc.assert(
    fc.property(refusals, ({ refused }) => {
      const refusal = limitRefusal("search_products", refused, options);
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
  expect(limitRefusal("search_products", aRefusal({ retryAfterMs }), options)).toMatchObject({ retryAfterSeconds });
});

test("each limit has its own message", () => {
  const messages = limits
    .filter(({ code }) => code !== "cost_over_limit")
    .map(({ code, measure }) => limitRefusal("search_products", aRefusal({ code, measure }), options).message);
  expect(new Set(messages).size).toBe(messages.length);
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

test("the refusal of each condition says what the account's administrator can do, at an address that exists", () => {
  const facts = {
    id: TenantId.parse("acme"),
    leavingUntilMs: null,
    suspendedBy: null,
    trialUntilMs: null,
    pastDueSinceMs: null,
  };
  const refusal = (own: Partial<Parameters<typeof stateRefusal>[0]> & Pick<TenantConfig, "state">): string => {
    const account = { ...facts, ...own };
    const code = refusedByState(account, nowMs);
    if (code === undefined) throw new Error("it is served");
    const { message } = stateRefusal(account, code, { publicUrl: "https://x.test", nowMs });
    const said = [...message.matchAll(/(?:POST) https:\/\/x\.test(?<path>\/\S+[a-z])/g)].map((m) => m.groups?.["path"]);
    const administrators = tenantTable[conditionOf(account, nowMs)].ways.filter(
      (way) => ways[way].by === "administrator",
    );
    expect(said).toEqual(
      administrators.map((way) => ways[way].route.slice("POST ".length).replace(":tenantId", "acme")),
    );
    return message;
  };
  const leaving = refusal({ state: "leaving", leavingUntilMs: Date.UTC(2026, 0, 31) });
  expect(leaving).toContain("2026-01-31T00:00:00.000Z");
  expect(leaving).toContain("https://x.test/api/tenants/acme/export");
  expect(refusal({ state: "leaving" })).not.toContain("Until");
  expect(refusal({ state: "past_due", pastDueSinceMs: 0 })).toContain("POST https://x.test/api/tenants/acme/portal");
  expect(refusal({ state: "trial", trialUntilMs: nowMs })).toContain("https://x.test/plans");
  expect(refusal({ state: "suspended", suspendedBy: "billing" })).toContain("administrator");
  const byOperator = refusal({ state: "suspended", suspendedBy: "operator" });
  expect(byOperator).toContain("only the operator can resume it");
  expect(byOperator).not.toContain("administrator");
  expect(refusal({ state: "gone" })).toBe(errors.tenant_gone.advice);
  expect(refusal({ state: "provisioning" })).toBe(errors.tenant_provisioning.advice);
});

test("a refused credential says nothing about the ways back of the account", () => {
  const account = {
    ...{ id: TenantId.parse("acme"), leavingUntilMs: null, suspendedBy: null },
    state: "leaving" as const,
  };
  const times = { trialUntilMs: null, pastDueSinceMs: null };
  const where = { publicUrl: "https://x.test", nowMs };
  expect(stateRefusal({ ...account, ...times }, "key_revoked", where).message).toBe(errors.key_revoked.advice);
});

test("no advice speaks of a call or a tool where there may be none, or has a placeholder in an address", () => {
  for (const code of ["database_unavailable", "control_unavailable", "placement_unavailable", "internal"] as const)
    expect(errors[code].advice, code).not.toMatch(/\bcalls?\b|\btools?\b/i);
  for (const code of errorCodes) expect(errors[code].advice, code).not.toMatch(/\/ID\b|:\w+Id\b|\{|undefined/);
});
