import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sourceOf } from "../../src/identity/address-rate.ts";
import { RequestRate } from "../../src/identity/request-rate.ts";

const MINUTE_MS = 60_000;

test("no minute has more requests than the limit, none under it is refused, and a refusal says exactly how long to wait", () => {
  const steps = fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 60 });
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 8 }), (pauses, perMinute) => {
      const rate = new RequestRate();
      const admitted: number[] = [];
      let nowMs = 1_000_000;
      for (const pause of pauses) {
        nowMs += pause;
        const lately = admitted.filter((atMs) => nowMs - atMs < MINUTE_MS);
        const waitMs = rate.admit(perMinute, nowMs);
        expect(waitMs === 0).toBe(lately.length < perMinute);
        if (waitMs === 0) admitted.push(nowMs);
        else expect(nowMs + waitMs).toBe((lately.at(-perMinute) ?? 0) + MINUTE_MS);
      }
    }),
  );
});

test("a clock that is set back refuses no request for longer than a minute", () => {
  const rate = new RequestRate();
  expect([rate.admit(1, 10 * MINUTE_MS), rate.admit(1, 0)]).toEqual([0, 0]);
});

test.each([
  ["203.0.113.7", "203.0.113.7"],
  ["::ffff:203.0.113.7", "203.0.113.7"],
  ["2001:db8:12:34:5:6:7:8", "2001:db8:12:34"],
  ["2001:0DB8:0012:0034::1", "2001:db8:12:34"],
  ["2001:db8::1", "2001:db8:0:0"],
  ["::1", "0:0:0:0"],
  ["", ""],
])("the address %j counts as %j: a buyer's network has one rate", (address, source) => {
  expect(sourceOf(address)).toBe(source);
});
