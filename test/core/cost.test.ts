// What the overview says of the cost of a billing period: the invoice's amount so far, and a projection that the spend cap bounds.
import { expect, test } from "vitest";
import { inDollars } from "../../src/core/plans/money.ts";
import { costOf } from "../../src/pages/app/usage/cost.tsx";

const startMs = Date.UTC(2026, 10, 10);
const DAY_MS = 86_400_000;
const window = {
  ...{ startMs, endMs: startMs + 30 * DAY_MS, includedUnits: 50_000, unitAmountCents: "0.1" },
  ...{ spentBefore: { digits: 0n, scale: 0 }, capCents: 10_000, maxCapCents: null, maxUnits: 150_000 },
};

test.each([
  ["nothing is used", 0, 15, window, "49.00", "49.00"],
  ["the included units are not used up", 20_000, 15, window, "49.00", "49.00"],
  ["they will be", 30_000, 15, window, "49.00", "59.00"],
  ["they are, to a tenth of a cent", 57_005, 15, window, "56.005", "113.01"],
  ["the cap stops the rest", 100_000, 15, window, "99.00", "149.00"],
  ["there is no cap", 100_000, 15, { ...window, maxUnits: null }, "99.00", "199.00"],
  ["the cap was lowered below what is used", 100_000, 15, { ...window, maxUnits: 60_000 }, "99.00", "99.00"],
  ["the period has just begun", 60_000, 0.9, window, "59.00", undefined],
  [
    "an earlier plan of the period has cost something",
    60_000,
    15,
    { ...window, spentBefore: { digits: 25n, scale: 1 } },
    "59.025",
    "119.025",
  ],
  ["the period is over", 60_000, 30, window, "59.00", "59.00"],
] as const)("when %s", (_what, used, days, of, soFar, projected) => {
  const cost = costOf(4_900, of, used, startMs + days * DAY_MS);
  expect(inDollars(cost.soFar)).toBe(soFar);
  expect(cost.projected && inDollars(cost.projected)).toBe(projected);
});
