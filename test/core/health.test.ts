import { expect, test } from "vitest";
import {
  CONTROL_AWAY,
  failedCheck,
  indicatorChecks,
  isolationOf,
  passedCheck,
  replicasCheck,
  unknownIndicators,
} from "../../src/operations/health-checks.ts";
import { type DeploymentState, readIndicators } from "../../src/operations/indicators.ts";

function aState(overrides: Partial<DeploymentState> = {}): DeploymentState {
  return {
    unsealedSeconds: 60,
    unconfirmedSeconds: 90,
    aheadSeconds: null,
    ambiguousReports: 0,
    refusedReports: 0,
    mismatchedReports: 0,
    carryForwards: 0,
    refusedCarryForwards: 0,
    carryForwardSeconds: null,
    driftUnits: 0,
    unpricedSeconds: null,
    driftTenants: 0,
    invoiceDriftUnits: 0,
    lastReconciliationSeconds: 3_600,
    sequenceGaps: 0,
    conflicts: 0,
    deadLetters: 0,
    uncountedCallSeconds: 30,
    inboxLagSeconds: 1,
    unknownTenantWebhooks: 0,
    setAsideWebhooks: 0,
    repeatedFailures: 0,
    subscriptionIssues: 0,
    stuckTenants: 0,
    brokenAuditChains: 0,
    crossTenantAttempts: 0,
    tenantsBehind: 0,
    shardsFullPercent: 0,
    operatorTokenUses: 0,
    keysWithoutRoot: 0,
    behindByShard: {},
    stuckRemovals: 0,
    lastWebhookSeconds: 30,
    outboxSeconds: null,
    meterErrors: 0,
    lastStripeAnswerSeconds: 30,
    lastReportRunSeconds: 200,
    lastSweepSeconds: 30,
    ...overrides,
  };
}

function failing(state: DeploymentState): string[] {
  return Object.entries(indicatorChecks(state))
    .filter(([, check]) => !check.ok)
    .map(([name]) => name);
}

/** Each fact with the most that it may be and the check that fails beyond; seconds are compared in milliseconds. */
const bounds: [fact: keyof DeploymentState, most: number, check: string][] = [
  ["unsealedSeconds", 600, "usage_reporting"],
  ["unconfirmedSeconds", 900, "usage_reporting"],
  ["aheadSeconds", 600, "usage_reporting"],
  ["ambiguousReports", 0, "usage_reporting"],
  ["refusedReports", 0, "usage_refused"],
  ["mismatchedReports", 0, "usage_refused"],
  ["refusedCarryForwards", 0, "carry_forwards"],
  ["carryForwardSeconds", 7_200, "carry_forwards"],
  ["driftUnits", 0, "reconciliation"],
  ["unpricedSeconds", 76 * 3_600, "carry_forwards"],
  ["driftTenants", 0, "reconciliation"],
  ["invoiceDriftUnits", 0, "reconciliation"],
  ["lastReconciliationSeconds", 129_600, "reconciliation"],
  ["sequenceGaps", 0, "usage_sequence"],
  ["conflicts", 0, "usage_conflicts"],
  ["deadLetters", 0, "dead_letters"],
  ["uncountedCallSeconds", 600, "open_calls"],
  ["inboxLagSeconds", 300, "webhooks"],
  ["stuckTenants", 0, "provisioning"],
  ["tenantsBehind", 0, "migrations"],
  ["stuckRemovals", 0, "removals"],
  ["keysWithoutRoot", 0, "api_keys"],
  ["outboxSeconds", 300, "usage_outbox"],
  ["lastStripeAnswerSeconds", 600, "stripe"],
  ["lastReportRunSeconds", 900, "crons"],
  ["lastSweepSeconds", 300, "crons"],
];

test.each(bounds)("%s is ok up to %d; beyond it only %s fails, with the reason", (fact, most, check) => {
  expect(failing(aState({ [fact]: most }))).toEqual([]);
  const beyond = most + (fact.endsWith("Seconds") ? 0.001 : 1);
  const state = aState({ [fact]: beyond });
  expect(failing(state)).toEqual([check]);
  const failed = indicatorChecks(state)[check];
  expect(failed?.reason).toMatch(/\w/);
  expect(Object.values(failed?.facts ?? {})).toContain(beyond);
});

test("what happened once, and what is normal, never fails health", () => {
  const watched = new Set(bounds.map(([fact]) => fact));
  const unwatched = (Object.keys(aState()) as (keyof DeploymentState)[]).filter((fact) => !watched.has(fact));
  const shown = ["carryForwards", "behindByShard", "lastWebhookSeconds"];
  const alarms = [
    ...["unknownTenantWebhooks", "setAsideWebhooks", "repeatedFailures", "subscriptionIssues", "meterErrors"],
    "operatorTokenUses",
  ];
  const ahead = ["shardsFullPercent"]; // a warning before anything is wrong
  const audit = ["brokenAuditChains", "crossTenantAttempts"];
  expect(unwatched.toSorted()).toEqual([...shown, ...alarms, ...ahead, ...audit].toSorted());
  expect(failing(aState(Object.fromEntries(unwatched.map((fact) => [fact, 30 * 86_400]))))).toEqual([]);
  for (const name of alarms) {
    const once = readIndicators(aState({ [name]: 1 })).find((reading) => reading.name === name);
    expect(once, name).toMatchObject({ check: null, level: "warning" });
  }
});

test("shards that are 90 % full raise an alarm, and no health check fails", () => {
  const level = (percent: number | null) =>
    readIndicators(aState({ shardsFullPercent: percent })).find(({ name }) => name === "shardsFullPercent")?.level;
  expect([null, 0, 89, 90, 97, 98].map(level)).toEqual(["ok", "ok", "ok", "warning", "warning", "critical"]);
});

test("a deployment in which nothing has happened yet is healthy", () => {
  const nothing = Object.fromEntries(Object.keys(aState()).map((fact) => [fact, fact.endsWith("Seconds") ? null : 0]));
  expect(failing(nothing as unknown as DeploymentState)).toEqual([]);
});

test("health reports every failed check at once", () => {
  const all = Object.fromEntries(Object.keys(aState()).map((fact) => [fact, 200_000])) as unknown as DeploymentState;
  expect(failing(all)).toEqual(Object.keys(indicatorChecks(all)));
});

test("only a failed check has a reason, and only a check with facts shows them", () => {
  expect(passedCheck()).toEqual({ ok: true });
  expect(passedCheck({ rows: 1 })).toEqual({ ok: true, facts: { rows: 1 } });
  expect(failedCheck("late")).toEqual({ ok: false, reason: "late" });
  expect(failedCheck("late", { rows: 1 })).toEqual({ ok: false, reason: "late", facts: { rows: 1 } });
  for (const check of Object.values(indicatorChecks(aState()))) expect(check).not.toHaveProperty("reason");
});

test("the replica check passes while every lag is under a minute, fails for a replica that is down or disconnected, and shows all", () => {
  const follows = (lagSeconds: number) => ({ inRecovery: true, lagSeconds });
  expect(replicasCheck({})).toEqual({ ok: true, facts: {} });
  expect(replicasCheck({ a: follows(0), b: follows(60) })).toEqual({
    ok: true,
    facts: { a: follows(0), b: follows(60) },
  });
  for (const bad of [follows(61), { inRecovery: false, lagSeconds: 0 }, null]) {
    expect(replicasCheck({ a: follows(0), b: bad })).toEqual({
      ok: false,
      reason: expect.any(String),
      facts: { a: follows(0), b: bad },
    });
  }
});

test("while the indicators cannot be read, every one of their checks is named and fails with that reason", () => {
  const unknown = unknownIndicators();
  expect(Object.keys(unknown)).toEqual(Object.keys(indicatorChecks(aState())));
  for (const check of Object.values(unknown)) expect(check).toEqual({ ok: false, reason: CONTROL_AWAY });
});

test("the isolation check names the shards that cannot be reached and the proofs that fail, and passes only without both", () => {
  const counts = { shared: 2, schema: 0, database: 0 };
  const proven = { proven: true as const, leftOpen: ["lo_create"] };
  const away = { unreachable: "shared-2" };
  const broken = { proven: false as const, failures: [{ check: "rights_of_others", detail: "tenant_7" }] };
  expect(isolationOf([proven], counts)).toEqual({ ok: true, facts: { ...counts, leftOpen: ["lo_create"] } });
  expect(isolationOf([proven, away], counts)).toMatchObject({ ok: false, reason: expect.stringContaining("shared-2") });
  const { ok, reason } = isolationOf([broken, away], counts);
  expect([ok, reason]).toEqual([false, expect.stringMatching(/rights_of_others.*shared-2/)]);
  expect(reason).not.toContain("tenant_7");
});
