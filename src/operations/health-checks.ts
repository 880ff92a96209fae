// When metering and billing count as failing. Each check has a level of its own, stated here with its reason.
import type { ReplicaState } from "../adapters/replica.ts";
import type { PipelineState } from "../control/ledger-store.ts";

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

/** Analytics is said to be moments old: a minute is longer than any burst of writes or long query keeps a replica. */
const REPLICA_LAG_SECONDS = 60;

/**
 * By shard. One that is away fails, although its primary answers instead: the load that it was there for is where it must
 * not be, and nobody else notices. One that does not follow any more, or too late, shows tools old rows.
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

/** A row comes to the ledger within seconds, and is sent again after a minute. */
const OUTBOX_SECONDS = 300;
/** The reporter runs every five minutes for usage older than one: ten means that a run was missed. */
const UNREPORTED_SECONDS = 600;
/** No object's clock is ahead by as much: that usage waits unbilled until its time has come. */
const AHEAD_SECONDS = 600;
/** Its item is made by the next run, unless Stripe is down; keys and looks take up to an hour more. */
const CARRY_FORWARD_SECONDS = 2 * 3_600;
/** It is due once a day. */
const RECONCILIATION_SECONDS = 36 * 3_600;
/** The sweep tells the objects every minute: by then an object has been out of reach for ten of them. */
const UNCOUNTED_SECONDS = 600;
/** An event is applied within a second; the sweep comes every minute. */
const INBOX_SECONDS = 300;
/** Three missed runs. A deployment that has never run its crons is not failing for it. */
const REPORT_RUN_SECONDS = 900;
const SWEEP_SECONDS = 300;
/** The sweep asks Stripe every minute, so that silence is Stripe's. */
const STRIPE_SECONDS = 600;

export function billingChecks(state: PipelineState): Record<string, Check> {
  const older = (age: number | null, limit: number): boolean => age !== null && age > limit;
  const verdict = (ok: boolean, reason: string, facts: Record<string, unknown>): Check =>
    ok ? passedCheck(facts) : failedCheck(reason, facts);
  return {
    usage_outbox: verdict(
      !older(state.outboxSeconds, OUTBOX_SECONDS),
      "a tenant's object has charges that do not come to the ledger",
      { oldestSeconds: state.outboxSeconds },
    ),
    usage_reporting: verdict(
      !older(state.unsealedSeconds, UNREPORTED_SECONDS) &&
        !older(state.unconfirmedSeconds, UNREPORTED_SECONDS + 300) &&
        !older(state.aheadSeconds, AHEAD_SECONDS) &&
        state.ambiguousReports === 0,
      "usage older than 10 minutes is not reported to Stripe, or is dated in the future",
      {
        unsealedSeconds: state.unsealedSeconds,
        unconfirmedSeconds: state.unconfirmedSeconds,
        aheadSeconds: state.aheadSeconds,
        ambiguousReports: state.ambiguousReports,
      },
    ),
    usage_refused: verdict(
      state.refusedReports === 0 && state.mismatchedReports === 0,
      "Stripe refuses reports, or has something else in their place",
      // What Stripe has dropped is looked into at once, and is a mismatch until it is made good.
      { refused: state.refusedReports, mismatched: state.mismatchedReports, dropped: state.meterErrors },
    ),
    carry_forwards: verdict(
      state.refusedCarryForwards === 0 && !older(state.carryForwardSeconds, CARRY_FORWARD_SECONDS),
      "usage that came after its invoice is not billed with a later one",
      {
        waiting: state.carryForwards,
        refused: state.refusedCarryForwards,
        oldestSeconds: state.carryForwardSeconds,
      },
    ),
    reconciliation: verdict(
      state.driftUnits === 0 &&
        state.driftTenants === 0 &&
        !older(state.lastReconciliationSeconds, RECONCILIATION_SECONDS),
      "Stripe has other units than were reported, or nobody has compared them for a day",
      {
        driftUnits: state.driftUnits,
        tenants: state.driftTenants,
        lastSeconds: state.lastReconciliationSeconds,
      },
    ),
    usage_sequence: verdict(state.sequenceGaps === 0, "rows are missing in a tenant's usage sequence", {
      gaps: state.sequenceGaps,
    }),
    usage_conflicts: verdict(state.conflicts === 0, "a call came to the ledger with two different payloads", {
      conflicts: state.conflicts,
    }),
    dead_letters: verdict(state.deadLetters === 0, "messages lie in the dead letters", { waiting: state.deadLetters }),
    open_calls: verdict(
      !older(state.uncountedCallSeconds, UNCOUNTED_SECONDS),
      "a tenant's object has been out of reach for 10 minutes, and its limits hold loosely",
      { oldestUncountedSeconds: state.uncountedCallSeconds },
    ),
    webhooks: verdict(
      !older(state.inboxLagSeconds, INBOX_SECONDS) && state.unknownTenantWebhooks === 0,
      "Stripe events wait to be applied or name no known tenant",
      {
        inboxLagSeconds: state.inboxLagSeconds,
        lastWebhookSeconds: state.lastWebhookSeconds,
        unknownTenant: state.unknownTenantWebhooks,
      },
    ),
    provisioning: verdict(state.stuckTenants === 0, "tenants have been stuck in provisioning for 10 minutes", {
      stuck: state.stuckTenants,
    }),
    removals: verdict(state.stuckRemovals === 0, "a step of a tenant's removal has not been done for an hour", {
      stuck: state.stuckRemovals,
    }),
    stripe: verdict(!older(state.lastStripeAnswerSeconds, STRIPE_SECONDS), "Stripe has not answered for 10 minutes", {
      lastAnswerSeconds: state.lastStripeAnswerSeconds,
    }),
    crons: verdict(
      !older(state.lastReportRunSeconds, REPORT_RUN_SECONDS) && !older(state.lastSweepSeconds, SWEEP_SECONDS),
      "a recurring job has stopped running",
      { lastReportRunSeconds: state.lastReportRunSeconds, lastSweepSeconds: state.lastSweepSeconds },
    ),
  };
}
