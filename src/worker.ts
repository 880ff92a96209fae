// Where the platform enters: requests, queue batches and crons. The classes are those that wrangler.toml names.
import { app } from "./http/app.ts";
import { runBilling } from "./platform/billing-run.ts";
import { DEAD_QUEUE, consumeDeadLetters } from "./platform/dead-letters.ts";
import { sweep } from "./platform/sweeper.ts";
import { consumeUsage } from "./platform/usage-consumer.ts";

export { Archiving } from "./platform/archiving.ts";
export { FleetMigration } from "./platform/fleet-migration.ts";
export { Lifecycle } from "./platform/lifecycle.ts";
export { Moving } from "./platform/moving.ts";
export { Provisioning } from "./platform/provisioning.ts";
export { Removing } from "./platform/removing.ts";
export { SessionBudget } from "./platform/session-budget.ts";
export { TenantObject } from "./platform/tenant-object.ts";

const BILLING_CRON = "*/5 * * * *";

export default {
  fetch: app.fetch,
  async queue(batch, env) {
    await (batch.queue === DEAD_QUEUE ? consumeDeadLetters(batch, env) : consumeUsage(batch, env));
  },
  async scheduled({ cron, scheduledTime }, env) {
    await (cron === BILLING_CRON ? runBilling(env, scheduledTime) : sweep(env, scheduledTime));
  },
} satisfies ExportedHandler<Env>;
