// A sliding window is exact: checked against a naive list of entries.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { SlidingWindow } from "../../src/calls/sliding-window.ts";
import { HOUR_MS, MINUTE_MS } from "../../src/core/time.ts";

const START_MS = Date.UTC(2026, 10, 30, 20);

/** Ends fast-check's shrinking of a failure, which takes minutes for a long history. */
const TIME_LIMIT_MS = 10_000;

test("a sliding window is exact for entries in any order", () => {
  const entry = fc.record({ atMs: fc.integer({ min: -3_000, max: 3_000 }), units: fc.integer({ min: 0, max: 20 }) });
  const actionArbitrary = fc.oneof(
    { weight: 5, arbitrary: fc.record({ add: entry }) },
    { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ waitMs: fc.nat(600) }) },
  );
  fc.assert(
    fc.property(fc.array(actionArbitrary, { maxLength: 400, size: "max" }), (actions) => {
      const window = new SlidingWindow(1_000);
      const entries: { atMs: number; units: number }[] = [];
      let nowMs = START_MS;
      for (const action of actions) {
        if ("waitMs" in action) nowMs += action.waitMs;
        else if ("add" in action) {
          const one = { atMs: nowMs + action.add.atMs, units: action.add.units };
          expect(window.add(one.atMs, one.units)).toBe(one.atMs);
          entries.push(one);
        } else {
          const one = entries[action.release % Math.max(entries.length, 1)];
          if (one !== undefined && nowMs - one.atMs < 1_000) {
            window.release(one.atMs, one.units);
            one.units = 0;
          }
        }
        const inside = entries.filter((one) => nowMs - one.atMs < 1_000);
        const used = inside.reduce((sum, one) => sum + one.units, 0);
        expect(window.used(nowMs)).toBe(used);
        const half = Math.ceil(used / 2);
        const freesAtMs = window.freesAt(nowMs, half) ?? nowMs;
        const leftBy = (atMs: number): number =>
          inside.filter((one) => atMs - one.atMs >= 1_000).reduce((sum, one) => sum + one.units, 0);
        expect(leftBy(freesAtMs)).toBeGreaterThanOrEqual(half);
        if (half > 0) expect(leftBy(freesAtMs - 1)).toBeLessThan(half);
        expect(window.freesAt(nowMs, used + 1)).toBeUndefined();
      }
    }),
    { numRuns: 40, interruptAfterTimeLimit: TIME_LIMIT_MS },
  );
});

test("an entry from long ago does not count and does not change the others", () => {
  const window = new SlidingWindow(HOUR_MS);
  window.add(START_MS, 7);
  window.used(START_MS);
  window.add(0, 5);
  expect(window.used(START_MS)).toBe(7);
  expect(window.freesAt(START_MS, 7)).toBe(START_MS + HOUR_MS);
});

test("an entry leaves in the exact millisecond in which its window ends", () => {
  const window = new SlidingWindow(HOUR_MS);
  window.add(START_MS, 7);
  expect(window.used(START_MS + HOUR_MS - 1)).toBe(7);
  expect(window.used(START_MS + HOUR_MS)).toBe(0);
});

test("a window that is never empty stays exact for months", () => {
  const window = new SlidingWindow(MINUTE_MS);
  let nowMs = START_MS;
  window.add(nowMs, 1);
  while (nowMs < START_MS + 60 * 24 * HOUR_MS) {
    nowMs += MINUTE_MS - 1; // each comes just before the one before it leaves
    window.add(nowMs, 1);
    if (window.used(nowMs) !== 2) expect.fail(`${window.used(nowMs)} used after ${(nowMs - START_MS) / HOUR_MS} hours`);
  }
});
