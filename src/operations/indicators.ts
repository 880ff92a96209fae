// The table of indicators: the values of the pipeline from a call to Stripe, and of the tenants' tables. Each has a bound above
// which it is a warning, a bound above which it is critical, and a runbook. Health and alarms both read this table: the health
// check of an indicator fails above the warning bound. No other file has bounds.
import type { PipelineState } from "../control/ledger-store.ts";
import type { AuditState } from "../identity/audit/audit-store.ts";

/** The values that indicators measure. `null`: there is nothing to measure. */
export interface DeploymentState extends PipelineState, AuditState {
  /** Tenants whose tables lack migrations of this program. */
  tenantsBehind: number;
  /** The same by shard. Databases of single tenants count together as `database`, so that no tenant is named in public. */
  behindByShard: Readonly<Record<string, number>>;
  /** How full the shards are that new tenants go to: the fullest strategy, in percent. */
  shardsFullPercent: number | null;
  /** Uses of the operator token in the last 24 hours; `null` where it is the normal way. */
  operatorTokenUses: number | null;
  /** API keys whose root key is missing in CREDENTIAL_KEY; `null` when the setting is malformed. */
  keysWithoutRoot: number | null;
}

export const alarmLevels = ["ok", "warning", "critical"] as const;
export type AlarmLevel = (typeof alarmLevels)[number];

/** The checks of /health that indicators decide, in the order of the answer. */
export const checkNames = [
  "usage_outbox",
  "usage_reporting",
  "usage_refused",
  "carry_forwards",
  "reconciliation",
  "usage_sequence",
  "usage_conflicts",
  "dead_letters",
  "open_calls",
  "webhooks",
  "provisioning",
  "api_keys",
  "migrations",
  "removals",
  "stripe",
  "crons",
] as const;
export type CheckName = (typeof checkNames)[number];

export interface Indicator {
  name: Exclude<keyof DeploymentState, "behindByShard">;
  /** The check of /health that fails while this indicator is a warning or critical. `null`: none. */
  check: CheckName | null;
  title: string;
  unit: "seconds" | "count" | "units" | "percent";
  /** A value above this is a warning. */
  warning: number;
  /** A value above this is critical. */
  critical: number;
  /** The first thing to do. */
  runbook: string;
}

/** The current value of an indicator. `null`: there is none to measure, which is no alarm. */
export interface Reading extends Indicator {
  value: number | null;
  level: AlarmLevel;
}

const MINUTES = 60;
const HOURS = 3_600;

export const indicators: readonly Indicator[] = [
  {
    name: "outboxSeconds",
    check: "usage_outbox",
    title: "Age of the oldest charge that does not reach the ledger",
    unit: "seconds",
    warning: 5 * MINUTES, // the object sends it again every minute
    critical: HOURS,
    runbook:
      "See the queue's backlog and its consumer's errors; then the log for outbox_failed, and late_outboxes for the tenant.",
  },
  {
    name: "unsealedSeconds",
    check: "usage_reporting",
    title: "Age of the oldest usage that is in no report",
    unit: "seconds",
    warning: 10 * MINUTES, // the cron runs every five minutes for usage older than one minute: it missed a run
    critical: HOURS,
    runbook: "See whether the */5 cron runs (lastReportRunSeconds), then the log for usage_not_frozen.",
  },
  {
    name: "unconfirmedSeconds",
    check: "usage_reporting",
    title: "Age of the oldest report that Stripe has not confirmed",
    unit: "seconds",
    warning: 15 * MINUTES,
    critical: 6 * HOURS, // well before the 20 hours after which only a summary can confirm it
    runbook: "See lastStripeAnswerSeconds and the errors under unconfirmed reports in GET /admin/api/tenants/ID/usage.",
  },
  {
    name: "ambiguousReports",
    check: "usage_reporting",
    title: "Reports that only a summary of Stripe can confirm",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "Nothing to do while Stripe answers: the summary of its minute decides each one. Never send one by hand.",
  },
  {
    name: "aheadSeconds",
    check: "usage_reporting",
    title: "How far in the future the latest unreported usage is dated",
    unit: "seconds",
    warning: 10 * MINUTES,
    critical: 24 * HOURS,
    runbook:
      "The clock of an object was ahead: read the ledger, latest `at` first. Tollgate bills the usage when its time has come.",
  },
  {
    name: "refusedReports",
    check: "usage_refused",
    title: "Reports that Stripe refuses",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "Read reports.error where alarm = refused and fix the cause. Tollgate retries each report every hour.",
  },
  {
    name: "mismatchedReports",
    check: "usage_refused",
    title: "Reports whose units differ from Stripe's for the same minute",
    unit: "count",
    warning: 0,
    critical: 0, // another program writes to the meter
    runbook:
      "Read reports.stripe_units where alarm = mismatch. Cancel the foreign event in Stripe; the next read then settles the report.",
  },
  {
    name: "meterErrors",
    check: null, // the summary of the report decides; a loss that remains is a mismatch or a drift
    title: "Meter events of the last day that Stripe accepted and then dropped",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "GET /admin/api/meter-errors shows the reasons and the reports. Tollgate sends a lost report again.",
  },
  {
    name: "refusedCarryForwards",
    check: "carry_forwards",
    title: "Invoice items for late usage that Stripe refuses",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook: "Read carry_forwards.error and fix the cause. Tollgate retries each every five minutes.",
  },
  {
    name: "carryForwardSeconds",
    check: "carry_forwards",
    title: "Age of the oldest unbilled late usage that has a known price",
    unit: "seconds",
    warning: 2 * HOURS,
    critical: 24 * HOURS,
    runbook: "See lastStripeAnswerSeconds and the log for usage_not_billed_late.",
  },
  {
    name: "unpricedSeconds",
    check: "carry_forwards",
    title: "Time since the end of its period in which late usage has had no price",
    unit: "seconds",
    warning: 76 * HOURS, // an invoice may be a draft for 72 hours
    critical: 7 * 24 * HOURS,
    runbook:
      "Read carry_forwards where priced_at IS NULL, then subscription_periods and billing_periods of the tenant. Replay invoice.finalized of its period in Stripe.",
  },
  {
    name: "driftUnits",
    check: "reconciliation",
    title: "Difference in units between Stripe and the reports",
    unit: "units",
    warning: 0,
    critical: 1_000,
    runbook: "Read drifts where closed_at IS NULL; docs/reports.md says which kinds Tollgate settles by itself.",
  },
  {
    name: "driftTenants",
    check: "reconciliation",
    title: "Tenants for which Stripe has other units than were reported",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "Read drifts where closed_at IS NULL; docs/reports.md says which kinds Tollgate settles by itself.",
  },
  {
    name: "invoiceDriftUnits",
    check: "reconciliation",
    title: "Difference in units between final invoices and the calls of their periods",
    unit: "units",
    warning: 0,
    critical: 1_000,
    runbook:
      "Read invoice_drifts where closed_at IS NULL, then run npm run verify-invoice for the tenant. Correct the invoice in Stripe with a credit note or an invoice item.",
  },
  {
    name: "lastReconciliationSeconds",
    check: "reconciliation",
    title: "Time since the last comparison of reports with Stripe",
    unit: "seconds",
    warning: 36 * HOURS, // due once a day
    critical: 96 * HOURS,
    runbook: "Read the latest row of reconciliations, and the log for report_cron_failed and stripe_not_compared.",
  },
  {
    name: "sequenceGaps",
    check: "usage_sequence",
    title: "Sequences of charges with a row missing",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "Look at the dead letters. The tenant's object sends its rows again within minutes.",
  },
  {
    name: "conflicts",
    check: "usage_conflicts",
    title: "Calls that reached the ledger with two different payloads",
    unit: "count",
    warning: 0,
    critical: 0,
    runbook:
      "GET /admin/api/usage-conflicts shows them. The ledger keeps the first payload. This is a bug in Tollgate: report it, then acknowledge them.",
  },
  {
    name: "deadLetters",
    check: "dead_letters",
    title: "Usage messages that could not be written to the ledger",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/dead-letters shows each and why; POST /admin/api/dead-letters/replay sends them again.",
  },
  {
    name: "uncountedCallSeconds",
    check: "open_calls",
    title: "Age of the oldest fallback call that its tenant's object does not count",
    unit: "seconds",
    warning: 10 * MINUTES, // the sweep notifies the objects every minute
    critical: HOURS,
    runbook:
      "See the log for fallback_calls_not_counted: that tenant's object cannot be reached, so its limits do not include these calls.",
  },
  {
    name: "inboxLagSeconds",
    check: "webhooks",
    title: "Age of the oldest Stripe event that is not applied",
    unit: "seconds",
    warning: 5 * MINUTES,
    critical: HOURS,
    runbook:
      "GET /admin/api/stripe-events shows the error; the sweep retries each event every minute. POST /admin/api/stripe-events/dismiss ends that.",
  },
  {
    name: "unknownTenantWebhooks",
    check: null, // another product in the same Stripe account is normal
    title: "Stripe events that name no known tenant and are not dismissed",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "GET /admin/api/stripe-events shows them (table webhook_inbox). Another program may use this Stripe account. Retry or dismiss them.",
  },
  {
    name: "setAsideWebhooks",
    check: null, // it happened once; a tenant's state that is wrong shows elsewhere
    title: "Stripe events that could not be applied, were set aside and are not dismissed",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "GET /admin/api/stripe-events shows each and why: the object belongs to another mode or account, was deleted, or Stripe refuses. Retry or dismiss them.",
  },
  {
    name: "repeatedFailures",
    check: null, // what an item holds up has a check of its own
    title: "Items of background work that keep failing while the others continue",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "GET /admin/api/failures shows each item and why. POST /admin/api/failures/acknowledge ends the alarm until it fails again.",
  },
  {
    name: "subscriptionIssues",
    check: null, // the tenants are served, or close, as their subscriptions say
    title: "Subscriptions at Stripe that a person must look at",
    unit: "count",
    warning: 0,
    critical: 100,
    runbook:
      "GET /admin/api/failures shows each tenant and why: a price of no plan, a second subscription, a deleted customer. POST /admin/api/failures/acknowledge with the part subscriptions ends the alarm.",
  },
  {
    name: "stuckTenants",
    check: "provisioning",
    title: "Tenants that have been in provisioning for ten minutes",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/tenants/ID shows the failing step and the reason.",
  },
  {
    name: "shardsFullPercent",
    check: null, // it is a warning ahead of time: every tenant is served
    title: "How full the shards of the fullest strategy are",
    unit: "percent",
    warning: 89, // from 90 % on. Tollgate creates the next shard before, so it could not
    critical: 97, // sign-ups wait once the shards are full
    runbook:
      "Tollgate could not create the next shard. GET /admin/api/shards shows it; the log event shard_not_opened says why. docs/tiers.md says how to add one by hand.",
  },
  {
    name: "operatorTokenUses",
    check: null, // every tenant is served
    title: "Uses of the operator token in the last 24 hours",
    unit: "count",
    warning: 0, // people sign in as themselves; the token is for the day on which they cannot
    critical: 1_000,
    runbook:
      "Find operator_token_used in the log and ask who used it. If it was no emergency, rotate OPERATOR_TOKEN. Where the token is the normal way, set OPERATOR_TOKEN_USE to normal.",
  },
  {
    name: "keysWithoutRoot",
    check: "api_keys",
    title: "API keys whose root key is missing in CREDENTIAL_KEY",
    unit: "count",
    warning: 0,
    critical: 0, // the keys' clients are refused
    runbook:
      "GET /admin/api/root-keys shows the missing root keys (verifies: nothing) with their API keys and tenants. Put them back into CREDENTIAL_KEY: their keys work again. docs/keys.md says how to rotate.",
  },
  {
    name: "tenantsBehind",
    check: "migrations",
    title: "Tenants whose tables lack migrations of this program",
    unit: "count",
    warning: 0,
    critical: 10, // tools that need the new tables fail for these tenants
    runbook:
      "Run npm run migrate. GET /admin/api/migrations names the tenants and the files that they lack, and why a run failed.",
  },
  {
    name: "stuckRemovals",
    check: "removals",
    title: "Removals of tenants that have been at the same step for an hour",
    unit: "count",
    warning: 0,
    critical: 10,
    runbook: "GET /admin/api/tenants/ID/removal shows the step and the reason why it waits.",
  },
  {
    name: "brokenAuditChains",
    check: null, // no tenant is harmed by it
    title: "Chains of the audit log that are not as they were written",
    unit: "count",
    warning: 0,
    critical: 0,
    runbook:
      "Run npm run audit:verify: it names the chain and the first wrong row. A person has changed the control database by hand, or it was restored. docs/audit.md says what to do.",
  },
  {
    name: "crossTenantAttempts",
    check: null, // each was refused
    title: "Attempts at other tenants' resources since midnight (UTC)",
    unit: "count",
    warning: 100, // an agent with a wrong address makes some
    critical: 10_000,
    runbook:
      "GET /admin/api/cross-tenant-attempts shows the tenants; GET /admin/api/audit?action=tenant.cross shows the credential and the target. Ask the tenant, or revoke the key.",
  },
  {
    name: "lastReportRunSeconds",
    check: "crons",
    title: "Time since the report cron last ran",
    unit: "seconds",
    warning: 15 * MINUTES, // three missed runs
    critical: HOURS,
    runbook: "See the Worker's cron triggers and its log.",
  },
  {
    name: "lastSweepSeconds",
    check: "crons",
    title: "Time since the sweep last ran",
    unit: "seconds",
    warning: 5 * MINUTES,
    critical: HOURS,
    runbook: "See the Worker's cron triggers and its log.",
  },
  {
    name: "lastStripeAnswerSeconds",
    check: "stripe",
    title: "Time since Stripe last answered",
    unit: "seconds",
    warning: 10 * MINUTES, // the sweep asks Stripe every minute
    critical: 2 * HOURS,
    runbook: "See Stripe's status page and whether STRIPE_SECRET_KEY is still valid. No usage is lost meanwhile.",
  },
];

/** Every indicator with its value and level. */
export function readIndicators(state: DeploymentState): Reading[] {
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

/** Whether to notify the operator of this level now. Never sends "recovered" for an indicator that never failed. */
export function mustNotify(level: AlarmLevel, last: Notified | undefined, nowMs: number): boolean {
  if (level !== (last?.level ?? "ok")) return true;
  return level === "critical" && last !== undefined && nowMs - last.atMs >= REMIND_AFTER_MS;
}
