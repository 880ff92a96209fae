// Messages of usage.
import { expect, test } from "vitest";
import { TenantId } from "../../src/core/tenant.ts";
import { FALLBACK_STREAM, UsageMessage, fallbackUsage } from "../../src/core/usage.ts";

test("a fallback call is a message of its own and the same each time it is made", () => {
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
