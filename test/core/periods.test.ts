// The period of a subscription, from what Stripe says about it.
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Subscription } from "../../src/adapters/stripe/subscriptions.ts";
import { periodsOf, subscriptionPeriod } from "../../src/reports/periods-store.ts";

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

test("two periods of one customer never share a second, although Stripe rounds their times down", () => {
  // Times since the first start, in milliseconds. Each subscription begins after the end of the one before.
  const lives = fc.array(fc.tuple(fc.integer({ min: 1, max: 3_000 }), fc.integer({ min: 0, max: 3_000 })), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(lives, (each) => {
      const seconds = (ms: number): number => Math.floor(ms / 1_000) * 1_000;
      let nowMs = START_MS;
      const subscriptions = each.map(([pauseMs, lifeMs], index) => {
        // As Tollgate does: no two begin in one second.
        const createdMs = Math.max(nowMs + pauseMs, seconds(nowMs) + (index === 0 ? 0 : 1_000));
        nowMs = Math.max(createdMs + lifeMs, seconds(createdMs));
        const atMs = seconds(createdMs);
        return aSubscription({
          ...{ id: `sub_${index}`, createdAtMs: atMs, periodStartMs: atMs },
          ...(index < each.length - 1 && { status: "canceled", endedAtMs: seconds(nowMs) }),
        });
      });
      const periods = periodsOf(subscriptions).toSorted((a, b) => a.startMs - b.startMs);
      expect(periods).toHaveLength(subscriptions.length);
      for (const [index, { startMs, endMs }] of periods.entries()) {
        expect(endMs).toBeGreaterThan(startMs);
        expect(endMs).toBeLessThanOrEqual(periods[index + 1]?.startMs ?? Infinity);
      }
    }),
  );
});

test("a second subscription that Tollgate ended has no period", () => {
  const second = aSubscription({
    ...{ id: "sub_2", createdAtMs: START_MS + 5_000, periodStartMs: START_MS + 5_000 },
    ...{ status: "canceled", endedAtMs: START_MS + 9_000, isDuplicate: true },
  });
  expect(periodsOf([aSubscription(), second])).toMatchObject([{ startMs: START_MS, endMs: END_MS }]);
});
