// What the operator must hear of metering and billing: each figure of the pipeline with the value from which on it is a
// warning and the one from which on it is critical, and what to do then. The levels stand here and nowhere else.
import type { PipelineState } from "../control/ledger-store.ts";

export const alarmLevels = ["ok", "warning", "critical"] as const;
export type AlarmLevel = (typeof alarmLevels)[number];

export interface Indicator {
  name: keyof PipelineState;
  title: string;
  unit: "seconds" | "count" | "units";
  /** A value above this is a warning. */
  warning: number;
  /** A value above this is critical. */
  critical: number;
  /** The first thing to do. */
  runbook: string;
}

/** An indicator as it stands now. `null`: there is nothing of the kind, which is no reason for an alarm. */
export interface Reading extends Indicator {
  value: number | null;
  level: AlarmLevel;
}

const MINUTES = 60;
const HOURS = 3_600;

export const indicators: readonly Indicator[] = [
  {
    name: "outboxSeconds",
    title: "Oldest charge that does not come to the ledger",
    unit: "seconds",
    warning: 5 * MINUTES, // it is sent again every minute
    critical: HOURS,
    runbook:
      "See the queue's backlog and its consumer's errors; then the log for outbox_failed, and late_outboxes for the tenant.",
  },
  {
    name: "unsealedSeconds",
    title: "Oldest usage that is in no report",
    unit: "seconds",
    warning: 10 * MINUTES, // the reporter runs every five minutes for usage older than one: a run was missed
    critical: HOURS,
    runbook: "See whether the */5 cron runs (lastReportRunSeconds), then the log for usage_not_frozen.",
  },
  {
    name: "unconfirmedSeconds",
    title: "Oldest usage that Stripe has not confirmed",
    unit: "seconds",
    warning: 15 * MINUTES,
    critical: 6 * HOURS, // far from the 20 hours after which only a summary can tell
    runbook: "See lastStripeAnswerSeconds and the errors under unconfirmed reports in GET /admin/api/tenants/ID/usage.",
  },
  {
    name: "ambiguousReports",
    title: "Reports of which only a summary can tell whether they landed",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "Nothing to do while Stripe answers: each is decided by the summary of its minute. Never send one by hand.",
  },
  {
    name: "aheadSeconds",
    title: "How far in the future the latest unsealed usage lies",
    unit: "seconds",
    warning: 10 * MINUTES,
    critical: 24 * HOURS,
    runbook: "The clock of an object was ahead: ledger ORDER BY at DESC. It is billed when its time has come.",
  },
  {
    name: "refusedReports",
    title: "Reports that Stripe refuses",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "Read reports.error where alarm = refused and mend the cause: each is tried again every hour.",
  },
  {
    name: "mismatchedReports",
    title: "Reports in whose minute Stripe has something else",
    unit: "count",
    warning: 0,
    critical: 0, // somebody else writes to the meter, or takes from it
    runbook:
      "Read reports.stripe_units where alarm = mismatch. Cancel the other event in Stripe: the next read settles it.",
  },
  {
    name: "meterErrors",
    title: "Meter events of the last day that Stripe had taken and then dropped",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "GET /admin/api/meter-errors says why and which reports; the next comparison with Stripe makes them good.",
  },
  {
    name: "refusedCarryForwards",
    title: "Invoice items for late usage that Stripe refuses",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "Read carry_forwards.error and mend the cause: each is tried again every five minutes.",
  },
  {
    name: "carryForwardSeconds",
    title: "Oldest late usage whose price is known and that is not billed",
    unit: "seconds",
    warning: 2 * HOURS,
    critical: 24 * HOURS,
    runbook: "See lastStripeAnswerSeconds and the log for usage_not_billed_late.",
  },
  {
    name: "driftUnits",
    title: "Units by which Stripe differs from the reports",
    unit: "units",
    warning: 0,
    critical: 1_000,
    runbook: "Read drifts where closed_at IS NULL; docs/reports.md says which kinds settle by themselves.",
  },
  {
    name: "driftTenants",
    title: "Tenants of whom Stripe has other units than were reported",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "Read drifts where closed_at IS NULL; docs/reports.md says which kinds settle by themselves.",
  },
  {
    name: "lastReconciliationSeconds",
    title: "Since reports and Stripe were last compared",
    unit: "seconds",
    warning: 36 * HOURS, // it is due once a day
    critical: 96 * HOURS,
    runbook: "Read the latest row of reconciliations, and the log for billing_failed and stripe_not_compared.",
  },
  {
    name: "sequenceGaps",
    title: "Sequences of charges with a row missing",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "Look at the dead letters; the tenant's object sends its rows again by itself within minutes.",
  },
  {
    name: "conflicts",
    title: "Calls that came to the ledger with two different payloads",
    unit: "count",
    warning: 0,
    critical: 0,
    runbook: "Read ledger_conflicts: the first payload stands. This is a fault of the program: report it.",
  },
  {
    name: "deadLetters",
    title: "Messages of usage that nobody could take",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/dead-letters shows each and why; POST /admin/api/dead-letters/replay sends them again.",
  },
  {
    name: "uncountedCallSeconds",
    title: "Oldest call that was charged past its tenant's object and is not counted there",
    unit: "seconds",
    warning: 10 * MINUTES, // the sweep tells the objects every minute
    critical: HOURS,
    runbook:
      "See the log for fallback_calls_not_counted: that tenant's object is out of reach, and its limits hold loosely.",
  },
  {
    name: "inboxLagSeconds",
    title: "Oldest Stripe event that is not applied",
    unit: "seconds",
    warning: 5 * MINUTES,
    critical: HOURS,
    runbook: "Read webhook_inbox.error of the oldest row; the sweep tries again every minute.",
  },
  {
    name: "unknownTenantWebhooks",
    title: "Stripe events of the last day that name no known tenant",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "Somebody may use this Stripe account for something else: read webhook_inbox where outcome = unknown_tenant.",
  },
  {
    name: "stuckTenants",
    title: "Tenants that have been in provisioning for ten minutes",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/tenants/ID shows the step that fails and why.",
  },
  {
    name: "stuckRemovals",
    title: "Removals of tenants that have been at one step for an hour",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/tenants/ID/removal shows the step and what it waits for.",
  },
  {
    name: "lastReportRunSeconds",
    title: "Since the reporter last ran",
    unit: "seconds",
    warning: 15 * MINUTES, // three missed runs
    critical: HOURS,
    runbook: "See the Worker's cron triggers and its log.",
  },
  {
    name: "lastSweepSeconds",
    title: "Since the sweep last ran",
    unit: "seconds",
    warning: 5 * MINUTES,
    critical: HOURS,
    runbook: "See the Worker's cron triggers and its log.",
  },
  {
    name: "lastStripeAnswerSeconds",
    title: "Since Stripe last answered",
    unit: "seconds",
    warning: 10 * MINUTES, // the sweep asks it every minute
    critical: 2 * HOURS,
    runbook: "See Stripe's status page and whether STRIPE_SECRET_KEY is still valid. Nothing is lost meanwhile.",
  },
];

/** Every indicator as `state` has it. */
export function readIndicators(state: PipelineState): Reading[] {
  return indicators.map((indicator) => {
    const value = state[indicator.name];
    return { ...indicator, value, level: levelOf(indicator, value) };
  });
}

function levelOf({ warning, critical }: Indicator, value: number | null): AlarmLevel {
  if (value === null || value <= warning) return "ok";
  return value > critical ? "critical" : "warning";
}

/** The last notification of an indicator. */
export interface Notified {
  level: AlarmLevel;
  atMs: number;
}

/** Repeats the notification of an alarm that stays critical, so that it is not forgotten. */
export const REMIND_AFTER_MS = 6 * HOURS * 1_000;

/** Whether to notify the operator of this level now. Does not send "recovered" for an indicator that never failed. */
export function mustNotify(level: AlarmLevel, last: Notified | undefined, nowMs: number): boolean {
  if (level !== (last?.level ?? "ok")) return true;
  return level === "critical" && last !== undefined && nowMs - last.atMs >= REMIND_AFTER_MS;
}
