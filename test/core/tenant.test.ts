import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Limits, changedLimits } from "../../src/core/plans/plans.ts";
import {
  CONFIG_REFRESH_MS,
  CONFIG_TRUSTED_MS,
  DisplayName,
  TenantConfig,
  TenantId,
  tenantStates,
} from "../../src/core/tenant/tenant.ts";
import { refusedByState } from "../../src/core/tenant/tenant-state.ts";

const NOW_MS = Date.UTC(2026, 10, 30);
const DAY_MS = 86_400_000;
const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_";

const refusals = {
  provisioning: "tenant_provisioning",
  trial: undefined,
  active: undefined,
  past_due: undefined,
  suspended: "tenant_suspended",
  leaving: "tenant_leaving",
  gone: "tenant_gone",
} as const;

test.each(tenantStates.map((state) => ({ state, refusal: refusals[state] })))(
  "a tenant that is $state is refused with $refusal, before and after its trial",
  ({ state, refusal }) => {
    for (const trialUntilMs of [null, NOW_MS + DAY_MS]) {
      expect(refusedByState({ state, suspendedBy: null, trialUntilMs, pastDueSinceMs: null }, NOW_MS)).toBe(refusal);
    }
    if (state !== "trial")
      expect(
        refusedByState({ state, suspendedBy: null, trialUntilMs: NOW_MS - DAY_MS, pastDueSinceMs: null }, NOW_MS),
      ).toBe(refusal);
  },
);

test("a trial is served until its last millisecond, and a trial without an end is always served", () => {
  const trial = (trialUntilMs: number | null) =>
    refusedByState({ state: "trial", suspendedBy: null, trialUntilMs, pastDueSinceMs: null }, NOW_MS);
  expect(trial(NOW_MS + 1)).toBeUndefined();
  expect(trial(NOW_MS)).toBe("trial_expired");
  expect(trial(NOW_MS - 1)).toBe("trial_expired");
  expect(trial(0)).toBe("trial_expired");
  expect(trial(null)).toBeUndefined();
});

test("the copy of a configuration is refreshed before it is too old to be trusted", () => {
  expect(CONFIG_REFRESH_MS).toBeLessThan(CONFIG_TRUSTED_MS);
  expect(CONFIG_TRUSTED_MS).toBe(5 * 60_000); // an object trusts its copy for five minutes at most (docs/architecture.md)
});

test("no tenant id contains a separator of credentials, contexts or paths", () => {
  const unit = fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...allowed.split("")) },
    { weight: 1, arbitrary: fc.nat(0xffff).map((code) => String.fromCharCode(code)) },
  );
  fc.assert(
    fc.property(fc.array(unit, { maxLength: 50, size: "max" }), (units) => {
      const text = units.join("");
      const accepted = TenantId.safeParse(text).success;
      expect(accepted).toBe(
        text.length >= 1 &&
          text.length <= 40 &&
          units.every((char) => allowed.includes(char)) &&
          !["-", "_"].includes(text.charAt(0)),
      );
    }),
  );
  expect(["acme", "0", "a-b_c", "a".repeat(40)].every((id) => TenantId.safeParse(id).success)).toBe(true);
  const wrong = ["", "Acme", "ac.me", "ac/me", "_acme", "-acme", "acme\n", "acmé", "a".repeat(41)];
  expect(wrong.filter((id) => TenantId.safeParse(id).success)).toEqual([]);
});

test("a change of one limit keeps the others; null takes the plan's number, and none removes the limit", () => {
  const sold = Limits.parse({ unitsPerHour: 100, unitsPerMonth: 1_000, callsPerMinute: 60, callsInFlight: 4 });
  const current = { ...sold, unitsPerHour: 7, callsInFlight: 9, unitsPerHourByTool: { a: 1, b: 2 } };
  expect(changedLimits(current, {}, sold)).toEqual(current);
  expect(changedLimits(current, { unitsPerMonth: 5 }, sold)).toEqual({ ...current, unitsPerMonth: 5 });
  expect(changedLimits(current, { unitsPerHour: null, callsInFlight: null }, sold)).toEqual({
    ...current,
    unitsPerHour: 100,
    callsInFlight: 4,
  });
  expect(changedLimits(current, { callsPerMinute: "none" }, sold)).toEqual({ ...current, callsPerMinute: null });
  const byTool = (change: Record<string, number | null> | null) =>
    changedLimits(current, { unitsPerHourByTool: change }, sold).unitsPerHourByTool;
  expect(byTool({ b: null, c: 3 })).toEqual({ a: 1, c: 3 });
  expect(byTool(null)).toEqual({});
});

test("no customer can have the id of a tenant of the isolation proof", () => {
  for (const id of ["canary-a", "canary-b", "canary-", "canary-acme"])
    expect(TenantId.safeParse(id).success).toBe(false);
  for (const id of ["canary", "canarya", "acme-canary-a"]) expect(TenantId.safeParse(id).success).toBe(true);
});

test("an older program's copy gets defaults for missing limits, and one that lacks more is rejected", () => {
  const limits = { unitsPerHour: 100, unitsPerMonth: null, callsPerMinute: 100, callsInFlight: 4 };
  const kept = {
    id: "acme",
    version: 3,
    name: "Acme",
    plan: "free",
    strategy: "shared",
    placement: null,
    state: "active",
    trialUntilMs: null,
    suspendedBy: null,
    limits,
    allowedTools: null,
    keys: [{ id: "k1", hash: "h", expiresAtMs: null, lineId: "k1" }],
    links: [{ issuer: "https://login.example", organisation: "acme" }],
    members: [{ id: "m1", role: "owner", issuer: null, subject: null }],
    removedMembers: [],
  };
  expect(TenantConfig.parse(kept)).toEqual({
    ...kept,
    branding: {},
    pastDueSinceMs: null,
    leavingUntilMs: null,
    features: {},
    secrets: {},
    keys: kept.keys.map((key) => ({ ...key, tools: null, unitsPerMonth: null, memberId: null })),
    limits: {
      ...{ ...limits, unitsPerHourByTool: {}, sessions: 2, sessionIdleSeconds: 30 },
      ...{ spendCapCents: null, maxSpendCapCents: null },
    },
  });
  for (const missing of ["state", "placement", "limits", "keys", "links", "members", "removedMembers", "version"]) {
    expect(TenantConfig.safeParse({ ...kept, [missing]: undefined }).success, missing).toBe(false);
  }
  expect(TenantConfig.safeParse({ ...kept, state: "paused" }).success).toBe(false);
});

test.each(["a\u2028b", "\u202Ea", "\u200B", " ", "a\nb"])("a name that people cannot read is refused: %j", (name) => {
  expect(DisplayName.safeParse(name).success).toBe(false);
});

test.each(["Acme", "日本", "O\u2019Neill & Sons", "\u{1F600}"])("%s is a name", (name) => {
  expect(DisplayName.parse(name)).toBe(name);
});
