// The health checks that need no I/O. Their bounds are those of the table in indicators.ts.
import type { ReplicaState } from "../adapters/replica.ts";
import type { IsolationProof } from "../tenant-db/isolation.ts";
import { type CheckName, type DeploymentState, checkNames, readIndicators } from "./indicators.ts";

export interface Check {
  ok: boolean;
  /** Why it fails; absent when it does not. */
  reason?: string;
  tookMs?: number;
  facts?: Readonly<Record<string, unknown>>;
}

export function passedCheck(facts?: Readonly<Record<string, unknown>>): Check {
  return facts === undefined ? { ok: true } : { ok: true, facts };
}

export function failedCheck(reason: string, facts?: Readonly<Record<string, unknown>>): Check {
  return facts === undefined ? { ok: false, reason } : { ok: false, reason, facts };
}

/** A shard whose proof could not be read: its name for the reason, without a tenant's id. */
export interface Unreachable {
  unreachable: string;
}

/** Checks the proofs of all shards. A shard that cannot be reached is not proved. `counts`: shards by strategy. */
export function isolationOf(
  proofs: readonly (IsolationProof | Unreachable)[],
  counts: Readonly<Record<string, number>>,
): Check {
  const away = proofs.flatMap((proof) => ("unreachable" in proof ? [proof.unreachable] : []));
  const read = proofs.flatMap((proof) => ("unreachable" in proof ? [] : [proof]));
  const failures = read.flatMap((proof) => (proof.proven ? [] : proof.failures.map(({ check }) => check)));
  const reasons = [
    ...(failures.length > 0 ? [`tenants are not proved to be apart: ${[...new Set(failures)].join(", ")}`] : []),
    ...(away.length > 0 ? [`these shards cannot be reached: ${[...new Set(away)].join(", ")}`] : []),
  ];
  if (reasons.length > 0) return failedCheck(reasons.join("; "), counts);
  const leftOpen = new Set(read.flatMap((proof) => (proof.proven ? proof.leftOpen : [])));
  return passedCheck(leftOpen.size === 0 ? counts : { ...counts, leftOpen: [...leftOpen] });
}

/** The reason of a check that needs the control database, while that cannot be reached. */
export const CONTROL_AWAY = "unknown: the control database cannot be reached";

/** Analytics promises rows that are moments old. A healthy replica catches up within a minute, also after a burst of writes. */
const REPLICA_LAG_SECONDS = 60;

/**
 * Checks the replica of each shard. An unreachable replica fails the check, although its primary answers instead: the
 * primary then carries the load of analytics, and no other check shows it. A replica that lags shows tools old rows.
 */
export function replicasCheck(replicas: Readonly<Record<string, ReplicaState | null>>): Check {
  const found = Object.values(replicas);
  if (found.includes(null))
    return failedCheck("a replica cannot be reached: analytics reads from its primary", replicas);
  const follows = (each: ReplicaState | null): boolean =>
    each?.inRecovery === true && each.lagSeconds <= REPLICA_LAG_SECONDS;
  if (found.every(follows)) return passedCheck(replicas);
  return failedCheck(`a replica is more than ${REPLICA_LAG_SECONDS} s behind, or no replica any more`, replicas);
}

const reasons: Readonly<Record<CheckName, string>> = {
  usage_outbox: "a tenant's object has charges that do not reach the ledger",
  usage_reporting: "usage older than 10 minutes is not reported to Stripe, or is dated in the future",
  usage_refused: "Stripe refuses reports, or has other units in their place",
  carry_forwards: "usage that came after its invoice is not billed with a later one",
  reconciliation: "Stripe has other units than were reported, or no comparison has ended for a day",
  usage_sequence: "rows are missing in a tenant's usage sequence",
  usage_conflicts: "a call reached the ledger with two different payloads",
  dead_letters: "messages wait in the dead letters",
  open_calls: "a tenant's object has been unreachable for 10 minutes, so its limits miss some calls",
  webhooks: "Stripe events have waited for 5 minutes to be applied",
  provisioning: "tenants have been stuck in provisioning for 10 minutes",
  api_keys: "API keys are refused, because their root key is missing in CREDENTIAL_KEY",
  migrations: "tenants' tables lack migrations of this program: run npm run migrate",
  removals: "a step of a tenant's removal has not ended for an hour",
  stripe: "Stripe has not answered for 10 minutes",
  crons: "a cron has stopped running",
};

/** Values that a check shows besides its indicators. They never fail it. */
const shown: Readonly<Partial<Record<CheckName, readonly (keyof DeploymentState)[]>>> = {
  usage_refused: ["meterErrors"], // Stripe dropped them; the summaries of their reports decide what is lost
  carry_forwards: ["carryForwards"], // they may wait for the invoice of their period
  migrations: ["behindByShard"],
  // Stripe sends none while nothing happens. Events of other products and modes are normal.
  webhooks: ["unknownTenantWebhooks", "setAsideWebhooks", "lastWebhookSeconds"],
};

/** The checks that indicators decide, each failing while one of its indicators is above its warning bound. */
export function indicatorChecks(state: DeploymentState): Record<string, Check> {
  const readings = readIndicators(state);
  const check = (name: CheckName): Check => {
    const own = readings.filter((reading) => reading.check === name);
    const fields = [...own.map((reading) => reading.name), ...(shown[name] ?? [])];
    const facts = Object.fromEntries(fields.map((field) => [factNames[field] ?? field, state[field]]));
    return own.every(({ level }) => level === "ok") ? passedCheck(facts) : failedCheck(reasons[name], facts);
  };
  return Object.fromEntries(checkNames.map((name) => [name, check(name)]));
}

/** The same checks while the indicators cannot be read: each fails, because nothing shows that it passes. */
export function unknownIndicators(): Record<string, Check> {
  return Object.fromEntries(checkNames.map((name) => [name, failedCheck(CONTROL_AWAY)]));
}

/** Names of the facts in the answer, where they differ from the indicators'. Monitors may read them. */
const factNames: Readonly<Partial<Record<keyof DeploymentState, string>>> = {
  outboxSeconds: "oldestSeconds",
  refusedReports: "refused",
  mismatchedReports: "mismatched",
  meterErrors: "dropped",
  carryForwards: "waiting",
  refusedCarryForwards: "refused",
  carryForwardSeconds: "oldestSeconds",
  driftTenants: "tenants",
  lastReconciliationSeconds: "lastSeconds",
  sequenceGaps: "gaps",
  deadLetters: "waiting",
  uncountedCallSeconds: "oldestUncountedSeconds",
  unknownTenantWebhooks: "unknownTenant",
  setAsideWebhooks: "setAside",
  stuckTenants: "stuck",
  tenantsBehind: "tenants",
  behindByShard: "shards",
  stuckRemovals: "stuck",
  lastStripeAnswerSeconds: "lastAnswerSeconds",
};
