// Cron: resumes stuck work and retries undelivered changes. Each part stands alone: an outage of Stripe must not keep a
// stuck tenant waiting. A part that fails is logged, and the next sweep repeats it.
import { pruneChanges } from "../backups/prune.ts";
import { jobsStore } from "../backups/jobs-store.ts";
import { fallbackCallsStore } from "../calls/fallback-calls-store.ts";
import type { Context } from "../control/context.ts";
import { failuresStore, isolated } from "../control/failures-store.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import { prunedTables, retentionStore } from "../control/retention-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import type { TenantWork } from "../control/work.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../core/time.ts";
import { checkAuditChains } from "../identity/audit/check.ts";
import { auditStore } from "../identity/audit/audit-store.ts";
import { resumeSilentMigrations } from "../fleet/workflow.ts";
import { PROVISIONING_SILENCE_MS, startProvisioning } from "../lifecycle/provisioning.ts";
import { provisioningStore } from "../lifecycle/provisioning-store.ts";
import { removalsStore } from "../lifecycle/removals-store.ts";
import { describeError, log } from "../log.ts";
import { notifyFallbackCalls } from "../metering/fallback-calls.ts";
import { movesStore } from "../moves/moves-store.ts";
import { checkoutsStore } from "../subscriptions/checkouts-store.ts";
import { inboxStore } from "../subscriptions/inbox-store.ts";
import { type IncomingEvent, incomingEvent } from "../subscriptions/stripe-event.ts";
import { subscriptionsStore } from "../subscriptions/subscriptions-store.ts";
import { repairOwnLogins, repairShared } from "../tenant-db/shards.ts";
import { raiseAlarms } from "./alarms.ts";
import { rotateEncryptionKeys } from "./key-rotation.ts";

/** Upper bound on each kind of work in one sweep. The next sweep, a minute later, takes the rest. */
const BATCH = 50;
/** An event is applied right after it is stored. One that is older than this was left behind. */
const INBOX_LAG_MS = 10_000;
/** Fallback calls in one message to an object: about 60 KB. */
const FALLBACK_CALLS_EACH = 500;
/** Events in one statement: as many as a page of Stripe's list holds. */
const EVENTS_AT_ONCE = 100;
/**
 * A Checkout lasts a day, and the sweep finds its lost events for three more. A bank transfer takes weeks; the order's setup
 * token works for 30 days.
 */
const UNPAID = { expiredMs: 4 * DAY_MS, slowMs: 31 * DAY_MS };
/** Stripe lists events for 30 days, and an operator may look at one for longer. */
const EVENTS_KEPT_MS = 90 * DAY_MS;
/** Events that one sweep deletes: more than arrive in a minute. */
const PRUNED_EVENTS = 5_000;
/** A request that was to be recorded has ended by then, also a long upload. */
const LOST_ACT_MS = HOUR_MS;
/** Rows of the audit log that one sweep deletes after their retention: more than a deployment writes in a minute. */
const PRUNED_AUDIT_ROWS = 1_000;
/** Stripe retries for three days. It lists an event that it gave up on for thirty. */
const RETRIED_MS = 3 * DAY_MS;
const LISTED_MS = 30 * DAY_MS;
/** The heartbeat of a sweep that has read all of Stripe's undelivered events. */
const EVENTS_READ = "stripe_events";

/** How the sweep finds silent work of a kind: work that should be under way and has recorded nothing for `silenceMs`. */
interface SilentWork {
  /** Longer than the longest step and the longest pause between two steps. */
  silenceMs: number;
  find(context: Context, silenceMs: number): Promise<TenantWork[]>;
}

const silentWork: Readonly<Record<TenantWork["kind"], SilentWork>> = {
  move: {
    silenceMs: 60_000,
    find: async ({ control }, silenceMs) => workOf("move", await movesStore(control).silent(silenceMs, BATCH)),
  },
  removal: {
    silenceMs: 60_000,
    find: async ({ control }, silenceMs) =>
      workOf("removal", await removalsStore(control).silent({ reactivating: false }, silenceMs, BATCH)),
  },
  plan_change: {
    silenceMs: 60_000,
    find: async ({ control }, silenceMs) =>
      workOf("plan_change", await subscriptionsStore(control).silentChanges(silenceMs, BATCH)),
  },
  job: {
    silenceMs: 120_000,
    find: async ({ control }, silenceMs) =>
      (await jobsStore(control).silent(silenceMs, BATCH)).map(({ id, tenantId }) => ({
        kind: "job",
        tenantId,
        jobId: id,
      })),
  },
};

/** Returns the parts that failed. */
export async function sweep(context: Context, nowMs: number): Promise<string[]> {
  const { control } = context;
  const failed: string[] = [];
  const attempt = async (part: string, work: (part: string) => Promise<void>): Promise<void> => {
    if (!(await attempted(part, work))) failed.push(part);
  };
  const inbox = inboxStore(control);

  await attempt("undelivered_events", async () => {
    // After an outage of ours or of Stripe's, the sweep must not miss an event that Stripe has given up on meanwhile.
    const readMs = (await ledgerStore(control).lastHeartbeatMs(EVENTS_READ)) ?? 0;
    const sinceMs = Math.max(nowMs - LISTED_MS, Math.min(readMs, nowMs) - RETRIED_MS);
    const events = context.stripe.events.undelivered(Math.floor(sinceMs / 1000));
    let page: IncomingEvent[] = [];
    const keep = async (): Promise<void> => {
      // Stripe lists an undelivered event for days. After the first sweep the inbox has it.
      const missing = new Set(await inbox.missing(page.map(({ id }) => id)));
      const fresh = page.filter(({ id }) => missing.has(id));
      page = [];
      const keptAlone = { part: "undelivered_events", idOf: ({ id }: IncomingEvent) => id, atOnce: 1 };
      await isolated(control, fresh, keptAlone, (event) => inbox.keep(event, context.stripe.isLive));
    };
    for await (const listed of events) {
      const event = incomingEvent(listed);
      if (event !== undefined && page.push(event) === EVENTS_AT_ONCE) await keep();
    }
    await keep();
    await ledgerStore(control).heartbeat("stripe", nowMs);
    await ledgerStore(control).heartbeat(EVENTS_READ, nowMs);
  });
  await attempt("lagging_inbox", async (part) => {
    const lagging = await inbox.lagging(INBOX_LAG_MS, BATCH);
    await isolated(control, lagging, { part, idOf: String }, (tenantId) => context.tenantObject(tenantId).applyInbox());
  });
  await attempt("unpaid_orders", () => checkoutsStore(control).forgetUnpaid(UNPAID, BATCH));
  await attempt("old_events", () => inbox.prune(EVENTS_KEPT_MS, PRUNED_EVENTS));
  await attempt("stuck_tenants", async (part) => {
    const silent = await provisioningStore(control).silent(PROVISIONING_SILENCE_MS, BATCH);
    await isolated(control, silent, { part, idOf: String }, async (tenantId) => {
      if (await startProvisioning(context, tenantId)) log("warn", "provisioning_resumed", { tenantId });
    });
  });
  await attempt("undelivered_changes", async (part) => {
    const undelivered = await tenantsStore(control).undelivered(BATCH);
    await isolated(control, undelivered, { part, idOf: String }, (tenantId) =>
      context.tenantObject(tenantId).refresh(),
    );
  });
  await attempt("fallback_calls", async () =>
    notifyFallbackCalls(context, await fallbackCallsStore(control).uncounted(BATCH, FALLBACK_CALLS_EACH)),
  );
  await attempt("encryption_keys", () => rotateEncryptionKeys(context));
  await attempt("ended_grace", async (part) => {
    const ended = await removalsStore(control).beginDropping(BATCH);
    await isolated(control, ended, { part, idOf: String }, (tenantId) => context.start({ kind: "removal", tenantId }));
  });
  for (const [kind, silent] of Object.entries(silentWork)) {
    await attempt(`silent_${kind}`, async (part) => {
      const found = await silent.find(context, silent.silenceMs);
      await isolated(control, found, { part, idOf: ({ tenantId }) => tenantId }, async (work) => {
        log("warn", "work_resumed", work);
        await context.start(work);
      });
    });
  }
  await attempt("silent_reactivations", async (part) => {
    const { silenceMs } = silentWork.removal;
    const silent = await removalsStore(control).silent({ reactivating: true }, silenceMs, BATCH);
    await isolated(control, silent, { part, idOf: String }, async (tenantId) => {
      log("warn", "reactivation_resumed", { tenantId });
      await context.tenantObject(tenantId).reactivate({ again: true });
    });
  });
  await attempt("silent_migrations", () => resumeSilentMigrations(context));
  await attempt("shared_shards", () => repairShared(context));
  await attempt("own_logins", () => repairOwnLogins(context));
  await attempt("old_changes", () => pruneChanges(context));
  await attempt("old_failures", () => failuresStore(control).prune());
  await attempt("lost_acts", async () => {
    const lost = await auditStore(control).closeIntents(LOST_ACT_MS, BATCH);
    if (lost > 0) log("warn", "acts_without_outcome", { count: lost });
  });
  await attempt("old_audit_rows", async () => void (await auditStore(control).prune(PRUNED_AUDIT_ROWS)));
  await attempt("audit_chains", () => checkAuditChains(context));
  for (const table of prunedTables) await attempt(`old_${table}`, () => retentionStore(control).prune(table));
  await attempt("alarms", () => raiseAlarms(context, nowMs));
  await ledgerStore(control).heartbeat("sweep", nowMs);
  return failed;
}

function workOf(kind: "move" | "removal" | "plan_change", tenantIds: readonly TenantId[]): TenantWork[] {
  return tenantIds.map((tenantId) => ({ kind, tenantId }));
}

/** Whether the part succeeded. */
async function attempted(part: string, work: (part: string) => Promise<void>): Promise<boolean> {
  try {
    await work(part);
    return true;
  } catch (error) {
    log("error", "sweep_failed", { part, error: describeError(error) });
    return false;
  }
}
