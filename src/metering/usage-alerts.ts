// Cron: sends each tenant the alerts that it configured: its usage has reached a share of the month's allowance. At least once for
// each threshold and month: a webhook that did not answer gets the alert again in five minutes.
// Invariant: a webhook that fails delays no other tenant's, and gets nothing but ids and numbers.
import type { Context } from "../control/context.ts";
import { plans } from "../core/plans.ts";
import { describeError, log } from "../log.ts";
import { type UsageAlert, usageAlertsStore } from "./usage-alerts-store.ts";

/** Alerts of one run. The next run, five minutes later, sends the rest. */
const BATCH = 50;
/** A webhook answers at once. */
const WEBHOOK_TIMEOUT_MS = 5_000;

/** The first day of the month of this instant, UTC. */
export function monthOf(nowMs: number): string {
  return `${new Date(nowMs).toISOString().slice(0, 7)}-01`;
}

export async function sendUsageAlerts(context: Context, nowMs: number): Promise<void> {
  const store = usageAlertsStore(context.control);
  const included = Object.fromEntries([...plans.values()].map((plan) => [plan.name, plan.includedUnits]));
  await store.raise(monthOf(nowMs), included);
  const due = await store.attempt(BATCH);
  await Promise.all(
    due.map(async (alert) => {
      const { tenantId, thresholdPercent } = alert;
      try {
        await post(alert, context.env.PUBLIC_URL, nowMs);
        await store.sent(alert);
        log("info", "usage_alert_sent", { tenantId, thresholdPercent });
      } catch (error) {
        log("warn", "usage_alert_not_sent", { tenantId, thresholdPercent, error: describeError(error) });
      }
    }),
  );
}

/** Throws unless the webhook takes the alert. */
async function post({ webhookUrl, ...alert }: UsageAlert, publicUrl: string, nowMs: number): Promise<void> {
  const { tenantId, month, thresholdPercent } = alert;
  const response = await fetch(webhookUrl, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      event: "usage_threshold_reached",
      ...{ tenantId, month: month.slice(0, 7), thresholdPercent, at: new Date(nowMs).toISOString() },
      usageUrl: `${publicUrl}/api/tenants/${tenantId}/usage`,
    }),
    redirect: "manual",
    signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
  });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`the webhook answered ${response.status}`, { cause: { status: response.status } });
}
