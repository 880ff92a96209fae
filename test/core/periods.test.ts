// The period of a subscription, from what Stripe says about it.
import { expect, test } from "vitest";
import type { Subscription } from "../../src/adapters/stripe-subscriptions.ts";
import { subscriptionPeriod } from "../../src/reports/periods-store.ts";

const START_MS = Date.parse("2026-11-10T10:00:15Z");
const END_MS = Date.parse("2026-11-11T00:00:00Z");

function aSubscription(overrides: Partial<Subscription> = {}): Subscription {
  return {
    ...{ id: "sub_1", tenantId: "acme", status: "active", createdAtMs: START_MS, plan: "pro", trialUntilMs: null },
    ...{
      periodStartMs: START_MS,
      periodEndMs: END_MS,
      cancelAtMs: null,
      endedAtMs: null,
      unpaidSinceMs: null,
      pausedCollection: null,
    },
    ...overrides,
  };
}

test.each<[string, Partial<Subscription>, object | undefined]>([
  ["running", {}, { startMs: START_MS, endMs: END_MS, ended: false, isTrial: false, endedEarlyAtMs: null }],
  ["in its trial", { trialUntilMs: END_MS }, { isTrial: true, endedEarlyAtMs: null }],
  ["after its trial", { trialUntilMs: START_MS }, { isTrial: false }],
  [
    "ended within the period, in a second that Stripe rounds down",
    { status: "canceled", endedAtMs: START_MS + 25_000 },
    { endMs: START_MS + 26_000, ended: true, endedEarlyAtMs: START_MS + 25_000 },
  ],
  [
    "ended in its first second",
    { status: "canceled", endedAtMs: START_MS },
    { endMs: START_MS + 1_000, ended: true, endedEarlyAtMs: START_MS },
  ],
  [
    "ended with the period, whose invoice still takes usage",
    { status: "canceled", endedAtMs: END_MS },
    { endMs: END_MS, ended: true, endedEarlyAtMs: null },
  ],
  ["never paid", { status: "incomplete" }, undefined],
  ["without a period", { periodStartMs: null }, undefined],
])("the period of a subscription that is %s", (_, overrides, period) => {
  const found = subscriptionPeriod(aSubscription(overrides));
  if (period === undefined) expect(found).toBeUndefined();
  else expect(found).toMatchObject(period);
});
