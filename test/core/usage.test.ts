// Usage messages: how rows are packed, and the message of a fallback call.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import {
  FALLBACK_STREAM,
  MESSAGES_PER_ALARM,
  ROWS_PER_MESSAGE,
  UsageMessage,
  type UsageRow,
  fallbackUsage,
  packUsage,
} from "../../src/core/usage.ts";

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

test("rows are packed in order, each once, into as few messages as possible", () => {
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
  ["an invalid tenant id", { tenantId: "Acme" }],
  ["a row numbered zero", { rows: someRows(1, { n: 0 }) }],
  ["units that are not an integer", { rows: someRows(1, { units: 0.5 }) }],
  ["negative units", { rows: someRows(1, { units: -1 }) }],
  ["an empty call id", { rows: someRows(1, { callId: "" }) }],
])("a message with %s is refused", (_, wrong) => {
  expect(UsageMessage.safeParse({ ...stream, rows: someRows(1), ...wrong }).success).toBe(false);
});

test("the message of a fallback call is the same each time, and its stream has this one row", () => {
  const call = { callId: crypto.randomUUID(), tool: "search_products", units: 2, atMs: Date.UTC(2026, 10, 21, 12) };
  const message = fallbackUsage(TenantId.parse("acme"), call);
  expect(UsageMessage.parse(message)).toEqual(fallbackUsage(TenantId.parse("acme"), call));
  expect(TenantId.safeParse(FALLBACK_STREAM).success).toBe(false);
  for (const broken of [
    { ...message, epoch: "another" },
    { ...message, rows: message.rows.map((row) => ({ ...row, n: 2 })) },
    { ...message, rows: [...message.rows, ...message.rows] },
  ]) {
    expect(UsageMessage.safeParse(broken).success).toBe(false);
  }
});
