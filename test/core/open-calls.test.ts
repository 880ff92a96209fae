import fc from "fast-check";
import { expect, test } from "vitest";
import { Admission, HOUR_MS, periodOf } from "../../src/calls/admission.ts";
import {
  DEAD_RETRY_SECONDS,
  USAGE_RETRY_SECONDS,
  bodyOfText,
  retryAfterSeconds,
  textOfBody,
} from "../../src/metering/dead-letter.ts";
import { plans } from "../../src/core/plans.ts";
import { TenantId } from "../../src/core/tenant.ts";
import { FALLBACK_STREAM, UsageMessage, fallbackUsage } from "../../src/core/usage.ts";

const { limits } = plans.starter;
const NOW_MS = Date.UTC(2026, 10, 21, 12);

test("calls that are told later count as if they had been known from the start", () => {
  const aCall = fc.record({
    atMs: fc.integer({ min: NOW_MS - 3 * HOUR_MS, max: NOW_MS }),
    units: fc.integer({ min: 1, max: 20 }),
    tool: fc.constantFrom("a", "b"),
  });
  fc.assert(
    fc.property(fc.array(aCall), fc.array(aCall), (own, told) => {
      const monthOf = (calls: readonly { units: number }[]): number => calls.reduce((sum, { units }) => sum + units, 0);
      const ofTool = (calls: typeof own) => () => calls.filter(({ tool }) => tool === "a");
      const sold = { ...limits, unitsPerHour: 200, unitsPerHourByTool: { a: 50 }, callsPerMinute: 1_000 };

      const late = new Admission();
      late.restore(own, monthOf(own), NOW_MS);
      late.watch("a", ofTool(own), NOW_MS);
      late.include(told, NOW_MS);
      const early = new Admission();
      early.restore([...own, ...told], monthOf([...own, ...told]), NOW_MS);
      early.watch("a", ofTool([...own, ...told]), NOW_MS);

      expect(late.quota(sold, NOW_MS)).toEqual(early.quota(sold, NOW_MS));
      for (const tool of ["a", "b"])
        expect(late.decide(20, sold, NOW_MS, tool)).toEqual(early.decide(20, sold, NOW_MS, tool));
    }),
  );
});

test("a call of a month that is over counts for nothing any more", () => {
  const admission = new Admission();
  const startMs = Date.UTC(2026, 10, 1);
  admission.restore([], 0, startMs + 2 * HOUR_MS);
  admission.include([{ atMs: startMs - 1, units: 5, tool: "a" }], startMs + 2 * HOUR_MS);
  expect(periodOf(startMs - 1).period).toBe("2026-10");
  expect(admission.quota(limits, startMs + 2 * HOUR_MS)).toMatchObject({ hour: { used: 0 }, month: { used: 0 } });
});

test("an open call is a message of its own, readable, and the same whenever it is made", () => {
  const call = { callId: crypto.randomUUID(), tool: "search_products", units: 2, atMs: NOW_MS };
  const message = fallbackUsage(TenantId.parse("open"), call);
  expect(UsageMessage.parse(message)).toEqual(fallbackUsage(TenantId.parse("open"), call));
  expect(TenantId.safeParse(FALLBACK_STREAM).success).toBe(false);
  for (const broken of [
    { ...message, epoch: "another" },
    { ...message, rows: message.rows.map((row) => ({ ...row, n: 2 })) },
    { ...message, rows: [...message.rows, ...message.rows] },
  ]) {
    expect(UsageMessage.safeParse(broken).success).toBe(false);
  }
});

test("a body that is JSON comes back as it was; any other is at least shown", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (body) => {
      expect(bodyOfText(textOfBody(body))).toEqual(JSON.parse(JSON.stringify(body)));
    }),
  );
  for (const body of [undefined, 1n, Symbol("x"), () => 1, new Map()])
    expect(textOfBody(body)).toEqual(expect.any(String));
  const circle: Record<string, unknown> = {};
  circle["self"] = circle;
  expect(textOfBody(circle)).toEqual(expect.any(String));
});

test("the waits of a message grow, and a hundred of them outlive an outage", () => {
  const waits = (longest: number): number[] => Array.from({ length: 100 }, (_, n) => retryAfterSeconds(n + 1, longest));
  const sum = (numbers: number[]): number => numbers.reduce((total, each) => total + each, 0);
  expect(waits(USAGE_RETRY_SECONDS).slice(0, 4)).toEqual([2, 4, 8, 16]);
  expect(sum(waits(USAGE_RETRY_SECONDS))).toBeGreaterThan(22 * 3_600);
  // A queue keeps a message for four days unless it is told otherwise.
  expect(sum(waits(DEAD_RETRY_SECONDS))).toBeGreaterThan(89 * 3_600);
  // A longer wait than twelve hours is refused by the queue.
  expect(Math.max(...waits(DEAD_RETRY_SECONDS))).toBeLessThanOrEqual(12 * 3_600);
});
