// Where the platform enters: requests, queue batches and crons. The classes are those that wrangler.toml names.
import { createContext } from "./control/context.ts";
import { app } from "./routes.ts";
import { runReportCron } from "./reports/report-cron.ts";
import { DEAD_QUEUE, consumeDeadLetters } from "./metering/dead-letters.ts";
import { sweep } from "./operations/sweeper.ts";
import { consumeUsage } from "./metering/consumer.ts";

export { FleetMigration } from "./fleet/workflow.ts";
export { Provisioning } from "./lifecycle/provisioning-workflow.ts";
export { SessionBudget } from "./tenant-db/session-budget.ts";
export { StepWorkflow } from "./operations/step-workflow.ts";
export { TenantObject } from "./tenant-object.ts";

const REPORT_CRON = "*/5 * * * *";

export default {
  fetch: app.fetch,
  async queue(batch, env) {
    await (batch.queue === DEAD_QUEUE ? consumeDeadLetters(batch, env) : consumeUsage(batch, env));
  },
  async scheduled({ cron, scheduledTime }, env) {
    await (cron === REPORT_CRON ? runReportCron(createContext(env), scheduledTime) : sweep(env, scheduledTime));
  },
} satisfies ExportedHandler<Env>;
