// Cron: sends each tenant the alerts that it configured: its usage has reached a share of the month's allowance. At least once for
// each threshold and month: what a webhook or the mail service did not take is sent again in five minutes.
// Invariant: a failure delays no other tenant's alert, and an alert has nothing but ids and numbers.
import { sendMail, sendsMail } from "../adapters/mail.ts";
import type { Context } from "../control/context.ts";
import { config } from "../core/app-config.ts";
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
  await store.raise(monthOf(nowMs), { included, mail: sendsMail(context.env) });
  const due = await store.attempt(BATCH);
  await Promise.all(
    due.map(async (alert) => {
      const { tenantId, thresholdPercent, channel } = alert;
      try {
        await (channel === "mail" ? mail(alert, context.env) : post(alert, context.env.PUBLIC_URL, nowMs));
        await store.sent(alert);
        log("info", "usage_alert_sent", { tenantId, thresholdPercent, channel });
      } catch (error) {
        log("warn", "usage_alert_not_sent", { tenantId, thresholdPercent, channel, error: describeError(error) });
      }
    }),
  );
}

/** Throws unless the mail service takes a mail for each address. */
async function mail({ emails, tenantId, month, thresholdPercent }: UsageAlert, env: Env): Promise<void> {
  const subject = `${config.product.name}: ${thresholdPercent} % of the units of ${month.slice(0, 7)} are used`;
  const text = [
    `The account ${tenantId} has used ${thresholdPercent} % of its units of the month ${month.slice(0, 7)}.`,
    `Usage: ${env.PUBLIC_URL}/api/tenants/${tenantId}/usage`,
    "An administrator of the account can change these alerts.",
  ].join("\n\n");
  await Promise.all((emails ?? []).map((to) => sendMail(env, { to, subject, text })));
}

/** Throws unless the webhook takes the alert. Does nothing when the tenant has removed it. */
async function post(alert: UsageAlert, publicUrl: string, nowMs: number): Promise<void> {
  const { webhookUrl, tenantId, month, thresholdPercent } = alert;
  if (webhookUrl === null) return;
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
