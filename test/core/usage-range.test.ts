// Which time a page of usage shows, what it is compared with, and the difference in words.
import { expect, test } from "vitest";
import { difference } from "../../src/pages/usage/comparison.ts";
import { periodBefore, presets, shownRange } from "../../src/pages/usage/shown-range.ts";

const at = (text: string): number => Date.parse(text);
const nowMs = at("2026-11-29T10:20:00Z");
const texts = ({ startMs, endMs }: { startMs: number; endMs: number }): string[] =>
  [startMs, endMs].map((each) => new Date(each).toISOString().slice(0, 16));

test("a range has whole days, and the last 24 hours end with the hour that runs", () => {
  expect(texts(shownRange({ from: "2026-10-01", to: "2026-10-31" }, nowMs).period)).toEqual([
    ...["2026-10-01T00:00", "2026-11-01T00:00"],
  ]);
  // In the wrong order, and without a day.
  expect(shownRange({ from: "2026-10-31", to: "2026-10-01" }, nowMs)).toMatchObject({ from: "2026-10-01" });
  expect(shownRange({}, nowMs)).toMatchObject({ from: "2026-10-31", to: "2026-11-29", step: "day" });
  const last = shownRange({ last: "24h" }, nowMs);
  expect(texts(last.period)).toEqual(["2026-11-28T11:00", "2026-11-29T11:00"]);
  expect(last).toMatchObject({ step: "hour", address: { last: "24h" } });
});

test("a period is compared with the one of the same length before, and one that runs with as much as has passed", () => {
  expect(texts(periodBefore(shownRange({ from: "2026-10-01", to: "2026-10-31" }, nowMs).period, nowMs))).toEqual([
    ...["2026-08-31T00:00", "2026-10-01T00:00"],
  ]);
  expect(texts(periodBefore(shownRange({ from: "2026-11-23", to: "2026-11-29" }, nowMs).period, nowMs))).toEqual([
    ...["2026-11-16T00:00", "2026-11-22T11:00"],
  ]);
  expect(texts(periodBefore(shownRange({ last: "24h" }, nowMs).period, nowMs))).toEqual([
    ...["2026-11-27T11:00", "2026-11-28T11:00"],
  ]);
});

test.each([
  ["a subscription", ["2026-11-15T00:00:00Z", "2026-12-15T00:00:00Z"], ["2026-11-15", "2026-10-15", "2026-11-14"]],
  [
    "a subscription whose period is over",
    ["2026-10-15T00:00:00Z", "2026-11-15T00:00:00Z"],
    ["2026-11-15", "2026-10-15", "2026-11-14"],
  ],
  [
    "a period from the 31st",
    ["2026-10-31T00:00:00Z", "2026-11-30T00:00:00Z"],
    ["2026-10-31", "2026-09-30", "2026-10-30"],
  ],
  ["no subscription", [null, null], ["2026-11-01", "2026-10-01", "2026-10-31"]],
])("the presets of an account with %s name its billing period and the one before", (_, period, expected) => {
  const [start, end] = period.map((each) => (each === null ? null : at(each)));
  const billing = {
    periodStartMs: start ?? null,
    periodEndMs: end ?? null,
    planSinceMs: null,
    spentBeforeCents: "0",
    ownCapCents: null,
  };
  const found = presets(billing, nowMs);
  expect(found.map(({ text }) => text)).toEqual([
    ...["Last 24 hours", "7 days", "30 days", "90 days", "This billing period", "Previous billing period"],
  ]);
  const [current, previous] = found.slice(4).map(({ address }) => address);
  expect([current?.from, previous?.from, previous?.to]).toEqual(expected);
  expect(found[3]?.address).toEqual({ from: "2026-09-01", to: "2026-11-29" });
});

test("a difference is in words with a direction, and nothing is compared with nothing", () => {
  const words = { format: String, more: "more", less: "fewer" };
  expect(difference(120, 100, words)).toEqual({ direction: "up", text: "20 more than the 100 before" });
  expect(difference(80, 100, words)).toEqual({ direction: "down", text: "20 fewer than the 100 before" });
  expect(difference(0, 0, words)?.text).toBe("The same as before");
  expect(difference(3, null, words)?.text).toBe("None before to compare with");
  expect(difference(null, 3, words)).toBeUndefined();
});
