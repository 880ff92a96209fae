// What a plan change costs, said before it is made.
import { expect, test } from "vitest";
import { planOf } from "../../src/core/plans/plans.ts";
import { termsOfChange } from "../../src/subscriptions/plan-terms.ts";

const DAY = 86_400_000;
const start = Date.UTC(2026, 10, 1);
const end = Date.UTC(2026, 11, 1);
const base = (name: string): number => planOf(name).amountCents ?? Number.NaN;
const paid = { trialUntilMs: null, periodEndMs: end };

test.each([
  // from, to, the part of November that is left, and what is due when
  ["starter", "pro", 1, { due: "next", differenceCents: base("pro") - base("starter"), nextInvoiceMs: end }],
  ["starter", "pro", 0.5, { due: "next", differenceCents: (base("pro") - base("starter")) / 2, nextInvoiceMs: end }],
  ["pro", "starter", 0.5, { due: "next", differenceCents: (base("starter") - base("pro")) / 2, nextInvoiceMs: end }],
  ["starter", "free", 0.1, { due: "next", differenceCents: -Math.round(base("starter") / 10), nextInvoiceMs: end }],
  ["free", "starter", 0.5, { due: "now", differenceCents: base("starter") }],
])("from %s to %s with %s of the month left", (from, to, left, terms) => {
  const nowMs = start + (1 - left) * 30 * DAY;
  expect(termsOfChange({ ...paid, plan: from }, to, nowMs)).toMatchObject({ ...terms, monthlyCents: base(to) });
});

test("a change in a trial costs nothing before its end", () => {
  const trialUntilMs = start + 14 * DAY;
  const terms = termsOfChange({ ...paid, plan: "starter", trialUntilMs }, "pro", start);
  expect(terms).toEqual({ due: "trial", differenceCents: 0, nextInvoiceMs: trialUntilMs, monthlyCents: base("pro") });
});

test("a change to or from a plan by contract has no price here", () => {
  expect(termsOfChange({ ...paid, plan: "enterprise" }, "pro", start)).toBeUndefined();
  expect(termsOfChange({ ...paid, plan: "pro" }, "enterprise", start)).toBeUndefined();
});
