import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { Subscription } from "../../src/adapters/stripe/subscriptions.ts";
import { planNames, planOf, planOfKeys, priceKeys } from "../../src/core/plans/plans.ts";
import {
  type TenantSubscription,
  TRIAL_END_SLACK_MS,
  afterSubscriptions,
  cycleAnchorMs,
  duplicatesOf,
  hasForeignPrice,
  subscriptionOf,
} from "../../src/subscriptions/subscription.ts";
import { tenantStates } from "../../src/core/tenant/tenant.ts";
import { PAST_DUE_SERVICE_MS, refusedByState } from "../../src/core/tenant/tenant-state.ts";

const DAY_MS = 86_400_000;
const NOW_MS = Date.UTC(2026, 10, 30, 12);

function aTenant(overrides: Partial<TenantSubscription> = {}): TenantSubscription {
  return {
    id: "acme",
    state: "active",
    suspendedBy: null,
    plan: "starter",
    subscriptionId: "sub_1",
    trialUntilMs: null,
    pastDueSinceMs: null,
    periodStartMs: null,
    periodEndMs: null,
    cancelAtMs: null,
    endedAtMs: null,
    leavesStripe: false,
    ...overrides,
  };
}

function aSubscription(overrides: Partial<Subscription> = {}): Subscription {
  return {
    id: "sub_1",
    tenantId: "acme",
    status: "active",
    createdAtMs: NOW_MS - 40 * DAY_MS,
    plan: "starter",
    trialUntilMs: null,
    periodStartMs: NOW_MS - 10 * DAY_MS,
    periodEndMs: NOW_MS + 20 * DAY_MS,
    cancelAtMs: null,
    endedAtMs: null,
    pausedCollection: null,
    unpaidSinceMs: null,
    ...overrides,
  };
}

test.each([
  { status: "trialing", state: "trial", suspendedBy: null },
  { status: "active", state: "active", suspendedBy: null },
  { status: "past_due", state: "past_due", suspendedBy: null },
  { status: "unpaid", state: "past_due", suspendedBy: null },
  { status: "paused", state: "suspended", suspendedBy: "billing" },
  { status: "incomplete", state: "suspended", suspendedBy: "billing" },
  { status: "canceled", state: "suspended", suspendedBy: "billing" },
  { status: "incomplete_expired", state: "suspended", suspendedBy: "billing" },
  { status: "a_status_of_tomorrow", state: "active", suspendedBy: null },
])("a subscription that is $status makes its tenant $state", ({ status, state, suspendedBy }) => {
  expect(afterSubscriptions(aTenant(), [aSubscription({ status })], NOW_MS)).toMatchObject({ state, suspendedBy });
});

test("a tenant's period, plan, trial, end and debt are those of its subscription", () => {
  const trialUntilMs = NOW_MS + DAY_MS;
  expect(
    afterSubscriptions(aTenant(), [aSubscription({ status: "trialing", plan: "pro", trialUntilMs })], NOW_MS),
  ).toEqual(
    aTenant({
      state: "trial",
      plan: "pro",
      trialUntilMs: trialUntilMs + TRIAL_END_SLACK_MS,
      periodStartMs: NOW_MS - 10 * DAY_MS,
      periodEndMs: NOW_MS + 20 * DAY_MS,
    }),
  );
  const owing = aSubscription({ status: "past_due", unpaidSinceMs: NOW_MS - 3 * DAY_MS });
  expect(afterSubscriptions(aTenant(), [owing], NOW_MS).pastDueSinceMs).toBe(NOW_MS - 3 * DAY_MS);
  const cancelled = aSubscription({ cancelAtMs: NOW_MS + 5 * DAY_MS });
  expect(afterSubscriptions(aTenant(), [cancelled], NOW_MS).cancelAtMs).toBe(NOW_MS + 5 * DAY_MS);
  const over = aSubscription({ status: "canceled", endedAtMs: NOW_MS - 1 });
  expect(afterSubscriptions(aTenant(), [over], NOW_MS)).toMatchObject({ endedAtMs: NOW_MS - 1, cancelAtMs: null });
});

test("a subscription with unknown prices does not change the plan", () => {
  expect(afterSubscriptions(aTenant({ plan: "pro" }), [aSubscription({ plan: null })], NOW_MS).plan).toBe("pro");
});

test("no subscription activates a tenant that the operator suspended, or that is being provisioned or removed", () => {
  const before = [
    aTenant({ state: "suspended", suspendedBy: "operator" }),
    ...(["provisioning", "leaving", "gone"] as const).map((state) => aTenant({ state })),
  ];
  for (const tenant of before) {
    for (const status of ["active", "trialing", "past_due", "canceled"]) {
      const { state, suspendedBy } = afterSubscriptions(tenant, [aSubscription({ status })], NOW_MS);
      expect({ state, suspendedBy }).toEqual({ state: tenant.state, suspendedBy: tenant.suspendedBy });
    }
  }
});

test("another subscription takes over only when the tenant's own has ended, the other is newer, alive and has the tenant's id", () => {
  const own = aSubscription({ status: "canceled", endedAtMs: NOW_MS });
  const newer = aSubscription({ id: "sub_2", createdAtMs: NOW_MS, plan: "pro" });
  const chosen = (candidates: Subscription[]) => subscriptionOf(aTenant(), candidates)?.id;
  expect(chosen([own, newer])).toBe("sub_2");
  expect(chosen([aSubscription(), newer])).toBe("sub_1");
  expect(chosen([own, { ...newer, tenantId: "other" }])).toBe("sub_1");
  expect(chosen([own, { ...newer, createdAtMs: own.createdAtMs - 1 }])).toBe("sub_1");
  expect(chosen([own, { ...newer, status: "incomplete" }])).toBe("sub_1");
  expect(chosen([{ ...newer, tenantId: null }])).toBeUndefined();
  expect(subscriptionOf(aTenant({ subscriptionId: null }), [newer])?.id).toBe("sub_2");
});

test("a tenant whose plan change ends its subscription is not suspended", () => {
  const tenant = aTenant({ leavesStripe: true });
  expect(afterSubscriptions(tenant, [aSubscription({ status: "canceled", endedAtMs: NOW_MS })], NOW_MS)).toBe(tenant);
});

// ---- any order, any repetition

const status = fc.constantFrom("trialing", "active", "past_due", "unpaid", "paused", "incomplete");
const instant = fc.integer({ min: 0, max: 400 }).map((day) => NOW_MS + day * DAY_MS);

/** A history of a customer's subscriptions: each lives through some states, and the next begins when it has ended. */
const history = fc
  .array(
    fc.record({
      ours: fc.boolean(),
      states: fc.array(
        fc.record({ status, plan: fc.constantFrom(...planNames, null), trialUntilMs: instant, cancels: fc.boolean() }),
        { minLength: 1, maxLength: 4 },
      ),
      ends: fc.boolean(),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((lives) => {
    const snapshots: Subscription[][] = [];
    let over: Subscription[] = [];
    lives.forEach(({ ours, states, ends }, index) => {
      const base = {
        id: `sub_${index}`,
        tenantId: ours || index === 0 ? "acme" : "other",
        createdAtMs: NOW_MS + index,
      };
      const at = (change: Partial<Subscription>) => aSubscription({ ...base, ...change });
      for (const [step, { status: wanted, plan, trialUntilMs, cancels }] of states.entries()) {
        // A subscription is incomplete before its first payment, and never again.
        const current = wanted === "incomplete" && step > 0 ? "active" : wanted;
        const unpaidSinceMs = current === "past_due" || current === "unpaid" ? trialUntilMs : null;
        const cancelAtMs = cancels ? trialUntilMs : null;
        snapshots.push([...over, at({ status: current, plan, trialUntilMs, cancelAtMs, unpaidSinceMs })]);
      }
      const isLast = index === lives.length - 1;
      const last = at({ status: "canceled", endedAtMs: NOW_MS + index, plan: states.at(-1)?.plan ?? null });
      if (ends || !isLast) {
        over = [...over, last];
        snapshots.push(over);
      }
    });
    return snapshots;
  });

test("the row matches the final subscriptions for any order and repetition of events", () => {
  // Each event has Stripe asked, and Stripe answers with what is true by then: a snapshot no older than the one before.
  const looks = history.chain((snapshots) =>
    fc
      .array(fc.nat(snapshots.length - 1), { maxLength: 12 })
      .map((seen) => ({ snapshots, seen: seen.toSorted((a, b) => a - b) })),
  );
  fc.assert(
    fc.property(
      looks,
      fc.constantFrom(...tenantStates),
      fc.constantFrom("operator", "billing"),
      ({ snapshots, seen }, state, by) => {
        const tenant = aTenant({
          state,
          suspendedBy: state === "suspended" ? by : null,
          subscriptionId: "sub_0",
          plan: "enterprise",
        });
        const last = snapshots.at(-1) ?? [];
        let row = tenant;
        for (const index of seen) row = afterSubscriptions(row, snapshots[index] ?? [], NOW_MS);
        const whole = afterSubscriptions(row, last, NOW_MS + 1);
        const alone = afterSubscriptions(tenant, last, NOW_MS + 1);
        // A plan that Stripe's prices do not name is the last one that they named.
        const plan = subscriptionOf(tenant, last)?.plan === null ? whole.plan : alone.plan;
        expect(whole).toEqual({ ...alone, plan });
        expect(afterSubscriptions(whole, last, NOW_MS + 2)).toEqual(whole);
      },
    ),
    { numRuns: 2_000 },
  );
});

// ---- past due

test("a tenant whose payment failed is served for seven days to the millisecond, and at once again when it has paid", () => {
  const at = (sinceMs: number | null) =>
    refusedByState({ state: "past_due", suspendedBy: null, trialUntilMs: null, pastDueSinceMs: sinceMs }, NOW_MS);
  expect(PAST_DUE_SERVICE_MS).toBe(7 * DAY_MS);
  expect(at(NOW_MS - PAST_DUE_SERVICE_MS + 1)).toBeUndefined();
  expect(at(NOW_MS - PAST_DUE_SERVICE_MS)).toBe("payment_required");
  expect(at(null)).toBeUndefined();
  const owing = afterSubscriptions(aTenant(), [aSubscription({ status: "past_due", unpaidSinceMs: 0 })], NOW_MS);
  expect(refusedByState(owing, NOW_MS)).toBe("payment_required");
  expect(refusedByState(afterSubscriptions(owing, [aSubscription()], NOW_MS), NOW_MS)).toBeUndefined();
});

// ---- prices and periods

test("each plan is found by its prices' lookup keys, and no other keys match", () => {
  for (const name of planNames) {
    expect(planOfKeys(priceKeys(name))).toBe(planOf(name).amountCents === null ? null : name);
    expect(priceKeys(name).length).toBe(
      planOf(name).amountCents === null ? 0 : planOf(name).unitAmountCents === null ? 1 : 2,
    );
  }
  expect(planOfKeys([null, "somebody_elses"])).toBeNull();
});

test("billing periods begin at 00:00 UTC, between 1 and 25 hours after the order, or after its trial", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4_000_000_000_000 }), fc.nat(365), (nowMs, trialDays) => {
      const anchorMs = cycleAnchorMs(nowMs, trialDays);
      expect(anchorMs % DAY_MS).toBe(0);
      const ahead = anchorMs - nowMs - trialDays * DAY_MS;
      expect(ahead).toBeGreaterThan(3_600_000);
      expect(ahead).toBeLessThanOrEqual(DAY_MS + 3_600_000);
    }),
  );
  expect(cycleAnchorMs(Date.UTC(2026, 10, 30, 22, 59), 0)).toBe(Date.UTC(2026, 11, 1));
});

test.each([
  { behavior: "void", state: "suspended", suspendedBy: "pause" },
  { behavior: "keep_as_draft", state: "active", suspendedBy: null },
  { behavior: "mark_uncollectible", state: "active", suspendedBy: null },
  { behavior: "a_behavior_of_tomorrow", state: "active", suspendedBy: null },
  { behavior: null, state: "active", suspendedBy: null },
])("a pause of the collection with $behavior makes its tenant $state", ({ behavior, state, suspendedBy }) => {
  const paused = aSubscription({ pausedCollection: behavior });
  const tenant = afterSubscriptions(aTenant(), [paused], NOW_MS);
  expect(tenant).toMatchObject({ state, suspendedBy });
  expect(afterSubscriptions(tenant, [aSubscription()], NOW_MS)).toMatchObject({ state: "active", suspendedBy: null });
  // A subscription that has ended is over, also when its collection was paused.
  const over = aSubscription({ status: "canceled", pausedCollection: behavior });
  expect(afterSubscriptions(aTenant(), [over], NOW_MS)).toMatchObject({ suspendedBy: "billing" });
});

test("a price that is not ours changes neither the plan nor the service, and a person is to look", () => {
  const foreign = aSubscription({ plan: null });
  expect(afterSubscriptions(aTenant({ plan: "pro" }), [foreign], NOW_MS)).toMatchObject({
    plan: "pro",
    state: "active",
  });
  expect(hasForeignPrice(aTenant(), [foreign])).toBe(true);
  expect(hasForeignPrice(aTenant(), [aSubscription()])).toBe(false);
  expect(hasForeignPrice(aTenant(), [aSubscription({ plan: null, status: "canceled" })])).toBe(false);
});

test("a second running subscription of a tenant is a duplicate, and no other one is", () => {
  const ids = (tenant: TenantSubscription, ...others: Subscription[]): string[] =>
    duplicatesOf(tenant, [aSubscription(), ...others]).map(({ id }) => id);
  const second = aSubscription({ id: "sub_2", createdAtMs: NOW_MS });
  expect(ids(aTenant(), second)).toEqual(["sub_2"]);
  expect(ids(aTenant(), aSubscription({ ...second, status: "canceled" }))).toEqual([]);
  expect(ids(aTenant(), aSubscription({ ...second, status: "incomplete" }))).toEqual([]); // not paid yet
  expect(ids(aTenant(), aSubscription({ ...second, tenantId: null }))).toEqual([]); // another product of the operator
  expect(ids(aTenant({ state: "leaving" }), second)).toEqual([]); // a reactivation may be at work
  expect(duplicatesOf(aTenant(), [aSubscription({ status: "canceled" }), second])).toEqual([]);
});
