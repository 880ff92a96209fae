// Entry points of the platform: requests, queue batches and crons. wrangler.toml names the exported classes.
import { app } from "./routes.ts";
import { runReportCron } from "./reports/report-cron.ts";
import { DEAD_QUEUE, consumeDeadLetters } from "./metering/dead-letters/dead-letters.ts";
import { createContext } from "./control/context.ts";
import { log } from "./log.ts";
import { sweep } from "./operations/sweeper.ts";
import { consumeUsage } from "./metering/consumer.ts";

export { FleetMigration } from "./fleet/workflow.ts";
export { OauthRegistry } from "./identity/oauth/registry.ts";
export { Provisioning } from "./lifecycle/provisioning-workflow.ts";
export { SessionBudget } from "./tenant-db/session-budget.ts";
export { StepWorkflow } from "./operations/step-workflow.ts";
export { TenantObject } from "./tenant-object.ts";

const REPORT_CRON = "*/5 * * * *";

export default {
  fetch: app.fetch,
  async queue(batch, env) {
    const context = createContext(env);
    await (batch.queue === DEAD_QUEUE ? consumeDeadLetters(context, batch) : consumeUsage(context, batch));
  },
  async scheduled({ cron, scheduledTime }, env) {
    const context = createContext(env);
    const startedAtMs = Date.now();
    let failed: string[] | undefined;
    try {
      failed = await (cron === REPORT_CRON ? runReportCron(context, scheduledTime) : sweep(context, scheduledTime));
    } finally {
      const run = { cron: cron === REPORT_CRON ? "reports" : "sweep", ended: failed !== undefined };
      const lateMs = Math.max(0, startedAtMs - scheduledTime);
      log("info", "cron_run", { ...run, failed: failed?.join(" "), lateMs, ms: Date.now() - startedAtMs });
    }
  },
} satisfies ExportedHandler<Env>;
