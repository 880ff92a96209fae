// The figures on the operator's pages.
import { expect, test } from "vitest";
import { inDollars } from "../../src/core/plans/money.ts";
import { failedShare, priceSoFar } from "../../src/pages/admin/tenants/tenants.tsx";
import { rangeAt, rangeBefore } from "../../src/pages/admin/overview.tsx";
import { change } from "../../src/pages/parts/figures.tsx";
import { shownValue } from "../../src/pages/admin/money/pipeline.tsx";

test.each([
  ["free", null, 5, undefined],
  ["starter", "sub_1", 60_000, "19.00"],
  ["pro", "sub_1", 0, "49.00"],
  ["pro", "sub_1", 50_000, "49.00"],
  ["pro", "sub_1", 50_001, "49.001"],
  ["pro", "sub_1", 1_050_000, "1049.00"],
  ["pro", null, 60_000, undefined],
  ["enterprise", "sub_1", 60_000, undefined],
])(
  "the list price of the month of %s with the subscription %s and %i units is %s",
  (plan, stripeSubscriptionId, units, price) => {
    const found = priceSoFar({ plan, stripeSubscriptionId }, units);
    expect(found && inDollars(found)).toBe(price);
  },
);

test.each([
  [0, 0, "–"],
  [10, 0, "0 %"],
  [10_000, 1, "<0.1 %"],
  [8, 1, "12.5 %"],
  [3, 3, "100.0 %"],
])("of %i calls %i failed: %s", (calls, failed, share) => {
  expect(failedShare({ calls, failed })).toBe(share);
});

test.each([
  [null, "seconds", "none"],
  [0, "seconds", "0 s"],
  [89, "seconds", "89 s"],
  [90, "seconds", "2 min"],
  [5_400, "seconds", "2 h"],
  [172_800, "seconds", "2 d"],
  [1_200, "count", "1,200"],
  [90, "percent", "90 %"],
] as const)("the value %s of an indicator in %s is shown as %s", (value, unit, shown) => {
  expect(shownValue({ value, unit })).toBe(shown);
});

test.each([
  [0, 0, "None in the week before, too"],
  [5, 0, "None in the week before"],
  [5, 5, "As many as in the week before"],
  [110, 100, "10 % more than in the week before"],
  [1, 100, "99 % less than in the week before"],
  [0, 100, "100 % less than in the week before"],
  [199, 100, "99 % more than in the week before"],
  [350, 100, "3.5 times as many as in the week before"],
])("%i after %i is: %s", (now, then, words) => {
  expect(change(now, then, "the week before")).toBe(words);
});

test("the time before a range ends where as much of it had passed, to the hour, and is none where metrics are not kept", () => {
  const nowMs = Date.parse("2026-11-28T10:20:00Z");
  const shown = ({ fromMs, toMs }: { fromMs: number; toMs: number }): string =>
    `${new Date(fromMs).toISOString()} to ${new Date(toMs).toISOString()}`;
  expect(shown(rangeAt("month", nowMs))).toBe("2026-10-30T00:00:00.000Z to 2026-11-29T00:00:00.000Z");
  for (const [range, before] of [
    ["day", "2026-11-26T11:00:00.000Z to 2026-11-27T11:00:00.000Z"],
    ["month", "2026-09-30T00:00:00.000Z to 2026-10-29T11:00:00.000Z"],
  ] as const) {
    const found = rangeBefore(range, nowMs);
    expect(found && shown(found)).toBe(before);
  }
  expect(rangeBefore("year", nowMs)).toBeUndefined();
});
