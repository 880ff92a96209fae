// The figures on the operator's pages.
import { expect, test } from "vitest";
import { inDollars } from "../../src/core/plans/money.ts";
import { failedShare, priceSoFar } from "../../src/pages/admin/tenants/tenants.tsx";
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
