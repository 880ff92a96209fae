// The cron that picks up what fell down: events that Stripe could not deliver or that were kept and not applied,
// tenants whose provisioning went silent, fleet migrations that did, objects that were not told of a change, and tenants
// that leave.
import { controlInbox } from "../subscriptions/inbox-store.ts";
import { controlMoves } from "../moves/moves-store.ts";
import { fallbackCallsStore } from "../calls/fallback-calls-store.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import { connectControl } from "../adapters/neon.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { type IncomingEvent, incomingEvent } from "../subscriptions/stripe-event.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { raiseAlarms } from "./alarms.ts";
import { pruneChanges, resumeSilentJobs } from "../backups/workflow.ts";
import { resumeSilentMigrations } from "../fleet/workflow.ts";
import { resumeSilentChanges } from "../subscriptions/plan-change-workflow.ts";
import { MOVE_SILENCE_MS, startMoving } from "../moves/workflow.ts";
import { notifyFallbackCalls } from "../metering/fallback-calls.ts";
import { PROVISIONING_SILENCE_MS, startProvisioning } from "../lifecycle/provisioning-start.ts";
import { sweepRemovals } from "../lifecycle/removal-workflow.ts";
import { createContext } from "../control/context.ts";
import { rotateEncryptionKeys } from "./key-rotation.ts";

/** Of each kind, one run takes this many; what is left waits a minute. */
const BATCH = 50;
/** An event is applied right after it is kept; one that is older than this was left behind. */
const INBOX_LAG_MS = 10_000;
/** Some 60 KB in one message to an object. */
const OPEN_CALLS_EACH = 500;
/** As many as Stripe has on a page. */
const EVENTS_AT_ONCE = 100;
/** Stripe retries for three days; an event that it gave up on is still listed for thirty. */
const LOOK_BACK_SECONDS = 3 * 86_400;

export async function sweep(env: Env, nowMs: number): Promise<void> {
  const db = connectControl(env);
  const tenants = tenantsStore(db);
  const inbox = controlInbox(db);
  const stripe = connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE);

  // Each of these stands alone: Stripe being down must not keep a stuck tenant waiting.
  await settle("undelivered_events", async () => {
    const events = stripe.events.undelivered(Math.floor(nowMs / 1000) - LOOK_BACK_SECONDS);
    let page: IncomingEvent[] = [];
    const keep = async (): Promise<void> => {
      // Stripe goes on listing what was never delivered: after the first sweep, all of it is known.
      const missing = new Set(await inbox.missing(page.map(({ id }) => id)));
      for (const event of page) if (missing.has(event.id)) await inbox.keep(event);
      page = [];
    };
    for await (const event of events) if (page.push(incomingEvent(event)) === EVENTS_AT_ONCE) await keep();
    await keep();
    await ledgerStore(db).beat("stripe", nowMs);
  });
  await settle("lagging_inbox", async () => {
    const lagging = await inbox.lagging(INBOX_LAG_MS, BATCH);
    await each(lagging, (tenantId) => env.TENANT.getByName(tenantId).applyInbox());
  });
  await settle("stuck_tenants", async () => {
    const { provisioning, undelivered } = await tenants.stuck(PROVISIONING_SILENCE_MS, BATCH);
    await each(provisioning, async (tenantId) => {
      if (await startProvisioning(env, tenantId)) log("warn", "provisioning_resumed", { tenantId });
    });
    await each(undelivered, (tenantId) => env.TENANT.getByName(tenantId).refresh());
  });
  await settle("fallback_calls", async () =>
    notifyFallbackCalls(env, await fallbackCallsStore(db).uncounted(BATCH, OPEN_CALLS_EACH)),
  );
  await settle("encryption_keys", () => rotateEncryptionKeys(createContext(env)));
  await settle("silent_moves", async () => {
    await each(await controlMoves(db).silent(MOVE_SILENCE_MS, BATCH), (tenantId) => startMoving(env, tenantId));
  });
  await settle("silent_plan_changes", () => resumeSilentChanges(env, BATCH));
  await settle("removals", () => sweepRemovals(env, BATCH));
  await settle("silent_jobs", () => resumeSilentJobs(env, BATCH));
  await settle("old_changes", () => pruneChanges(env));
  await settle("silent_migrations", () => resumeSilentMigrations(createContext(env)));
  await settle("alarms", () => raiseAlarms(env, nowMs));
  await ledgerStore(db).beat("sweep", nowMs);
}

async function each(tenantIds: readonly TenantId[], work: (tenantId: TenantId) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(tenantIds.map(work));
  for (const result of results) {
    if (result.status === "rejected") log("error", "sweep_failed", { error: describeError(result.reason) });
  }
}

async function settle(name: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log("error", "sweep_failed", { part: name, error: describeError(error) });
  }
}
