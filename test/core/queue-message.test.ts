// Bodies and retry delays of queue messages.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  DEAD_RETRY_SECONDS,
  USAGE_RETRY_SECONDS,
  bodyOfText,
  retryAfterSeconds,
  textOfBody,
} from "../../src/metering/queue-message.ts";

test("a JSON body is read back unchanged; any other body becomes text", () => {
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

test("a message's retry delays grow, and a hundred retries outlast an outage", () => {
  const waits = (longest: number): number[] => Array.from({ length: 100 }, (_, n) => retryAfterSeconds(n + 1, longest));
  const sum = (numbers: number[]): number => numbers.reduce((total, each) => total + each, 0);
  expect(waits(USAGE_RETRY_SECONDS).slice(0, 4)).toEqual([2, 4, 8, 16]);
  expect(sum(waits(USAGE_RETRY_SECONDS))).toBeGreaterThan(22 * 3_600);
  // A queue keeps a message for four days by default.
  expect(sum(waits(DEAD_RETRY_SECONDS))).toBeGreaterThan(89 * 3_600);
  // The queue refuses a delay over twelve hours.
  expect(Math.max(...waits(DEAD_RETRY_SECONDS))).toBeLessThanOrEqual(12 * 3_600);
});
