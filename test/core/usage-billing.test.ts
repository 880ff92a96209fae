// Usage on its way to the ledger and to Stripe: how rows are packed, and what Stripe's answers mean.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { attemptKey, classifyMeterFailure } from "../../src/adapters/stripe-meter.ts";
import { TenantId } from "../../src/core/tenant.ts";
import { MESSAGES_PER_ALARM, ROWS_PER_MESSAGE, UsageMessage, type UsageRow, packUsage } from "../../src/core/usage.ts";

const stream = { tenantId: TenantId.parse("acme"), object: "acme", epoch: "5b0c2d0e-4f5e-4f0b-9d5c-0d4c6f1e2a3b" };

function someRows(count: number, overrides: Partial<UsageRow> = {}): UsageRow[] {
  return Array.from({ length: count }, (_, index) => ({
    callId: `call-${index}`,
    n: index + 1,
    tool: "search_products",
    units: 1,
    atMs: 1_800_000_000_000 + index,
    ...overrides,
  }));
}

function bytes(value: unknown): number {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}

test("rows are packed in their order, each once, into as few messages as they fit", () => {
  fc.assert(
    fc.property(fc.nat(5 * ROWS_PER_MESSAGE), (count) => {
      const rows = someRows(count);
      const messages = packUsage(stream, rows);
      expect(messages.flatMap((message) => message.rows)).toEqual(rows);
      expect(messages).toHaveLength(Math.ceil(count / ROWS_PER_MESSAGE));
      for (const message of messages) {
        expect(UsageMessage.parse(message)).toEqual({ ...stream, rows: message.rows });
        expect(message.rows.length).toBeLessThanOrEqual(ROWS_PER_MESSAGE);
      }
    }),
  );
});

test("a full message and a full batch of the longest rows stay below the queue's limits", () => {
  const { MAX_SAFE_INTEGER: most } = Number;
  const longest = { callId: "c".repeat(64), n: most, tool: "t".repeat(64), units: most, atMs: most };
  const names = { tenantId: TenantId.parse("t".repeat(40)), object: "o".repeat(64), epoch: "e".repeat(64) };
  const messages = packUsage(names, someRows(ROWS_PER_MESSAGE * MESSAGES_PER_ALARM, longest));
  expect(messages).toHaveLength(MESSAGES_PER_ALARM);
  for (const message of messages) {
    expect(UsageMessage.safeParse(message).success).toBe(true);
    expect(bytes(message)).toBeLessThan(128_000);
  }
  expect(bytes(messages)).toBeLessThan(256_000);
});

test.each([
  ["no rows", { rows: [] }],
  ["another's tenant id", { tenantId: "Acme" }],
  ["a row without a place", { rows: someRows(1, { n: 0 }) }],
  ["units that are no whole number", { rows: someRows(1, { units: 0.5 }) }],
  ["negative units", { rows: someRows(1, { units: -1 }) }],
  ["an empty call id", { rows: someRows(1, { callId: "" }) }],
])("a message with %s is not read", (_, wrong) => {
  expect(UsageMessage.safeParse({ ...stream, rows: someRows(1), ...wrong }).success).toBe(false);
});

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

test("every attempt of every report has a key of its own, which names the report and fits Stripe's 255 characters", () => {
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
