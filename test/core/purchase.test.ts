// Which accounts can buy a plan, and what a purchase costs until the first month begins.
import { expect, test } from "vitest";
import type { TenantState } from "../../src/core/tenant/tenant.ts";
import { type Purchaser, canBuy } from "../../src/subscriptions/checkout.ts";
import { termsOfPurchase } from "../../src/subscriptions/plan-terms.ts";

const nowMs = Date.parse("2026-11-29T10:00:00Z");
const account: Purchaser = {
  ...{ plan: "free", state: "active" as TenantState, suspendedBy: null, trialUntilMs: null, pastDueSinceMs: null },
  ...{ customerId: "cus_1", subscriptionId: null, endedAtMs: null },
};

test.each<[string, Partial<Purchaser>, boolean]>([
  ["was made by the operator on a plan that Stripe sells", {}, true],
  ["is on trial", { state: "trial", trialUntilMs: nowMs + 1 }, true],
  [
    "has had its trial, also one of a plan by contract",
    { plan: "enterprise", state: "trial", trialUntilMs: nowMs },
    true,
  ],
  ["has a subscription", { subscriptionId: "sub_1" }, false],
  ["is served by contract", { plan: "enterprise" }, false],
  ["is not known to Stripe", { customerId: null }, false],
  ["is suspended by the operator", { state: "suspended", suspendedBy: "operator" }, false],
  ["is leaving", { state: "leaving" }, false],
  ["is being set up", { state: "provisioning" }, false],
])("an account that %s: %o can buy: %s", (_, changes, expected) => {
  expect(canBuy({ ...account, ...changes }, nowMs)).toBe(expected);
});

test("a purchase costs the share of the time until the first midnight that leaves an hour to pay, then full months", () => {
  const month = Date.parse("2026-11-30T00:00:00Z") - Date.parse("2026-10-30T00:00:00Z");
  const share = (14 * 3_600_000) / month;
  expect(termsOfPurchase("starter", nowMs)).toEqual({
    ...{ nowCents: Math.round(1_900 * share), fromMs: Date.parse("2026-11-30T00:00:00Z"), monthlyCents: 1_900 },
  });
  const late = Date.parse("2026-11-29T23:30:00Z");
  expect(termsOfPurchase("starter", late).fromMs).toBe(Date.parse("2026-12-01T00:00:00Z"));
  expect(termsOfPurchase("free", nowMs)).toMatchObject({ nowCents: 0, monthlyCents: 0 });
});
