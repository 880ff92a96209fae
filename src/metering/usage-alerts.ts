// Cron: sends each tenant the alerts that it configured: its usage has reached a share of the month's allowance. At least once for
// each threshold and month: what a webhook or the mail service did not take is sent again in five minutes.
// Invariants: a failure delays no other tenant's alert, and an alert has nothing but ids and numbers. A webhook is signed by Standard
// Webhooks (standardwebhooks.com) once the tenant has made a secret; a repetition has the same id, so that a receiver counts it once.
import { sendMail, sendsMail } from "../adapters/mail.ts";
import type { Context } from "../control/context.ts";
import { decryptSecret, encryptSecret } from "../control/encrypted-logins-store.ts";
import { config } from "../core/app-config.ts";
import { plans } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { HOUR_MS } from "../core/time.ts";
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
        await (channel === "mail" ? mail(alert, context.env) : post(alert, context.env, nowMs));
        await store.sent(alert);
        log("info", "usage_alert_sent", { tenantId, thresholdPercent, channel });
      } catch (error) {
        log("warn", "usage_alert_not_sent", { tenantId, thresholdPercent, channel, error: describeError(error) });
      }
    }),
  );
}

/** How long the former secret signs beside the new one: a day to change it at every receiver. */
const SECRET_OVERLAP_MS = 24 * HOUR_MS;
/** Standard Webhooks asks for 24 to 64 bytes. */
const SECRET_BYTES = 32;

/** What a secret is encrypted for: in another tenant's row it does not decrypt. */
export function secretPurpose(tenantId: TenantId): string {
  return `webhook-secret/${tenantId}`;
}

/** Makes a new secret for a tenant's webhooks. `formerUntil`: how long the former one signs, too. */
export async function renewWebhookSecret(
  { env, control }: Context,
  tenantId: TenantId,
): Promise<{ secret: string; formerUntil: string | null }> {
  const bytes = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  const secret = SECRET_PREFIX + base64(bytes);
  const encrypted = await encryptSecret(env, secretPurpose(tenantId), secret);
  return { secret, formerUntil: await usageAlertsStore(control).renewSecret(tenantId, encrypted, SECRET_OVERLAP_MS) };
}

const SECRET_PREFIX = "whsec_";
const base64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes));

/**
 * The headers of a webhook by Standard Webhooks 1.0: HMAC-SHA256 over `id.seconds.body`, once for each secret. Receivers accept a
 * message with any one signature that they can verify.
 */
export async function signedHeaders(
  { id, atMs, body }: { id: string; atMs: number; body: string },
  secrets: readonly string[],
): Promise<Record<string, string>> {
  const seconds = String(Math.floor(atMs / 1_000));
  const content = new TextEncoder().encode(`${id}.${seconds}.${body}`);
  const signatures = await Promise.all(
    secrets.map(async (secret) => {
      const bytes = Uint8Array.from(atob(secret.slice(SECRET_PREFIX.length)), (char) => char.charCodeAt(0));
      const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
      return `v1,${base64(new Uint8Array(await crypto.subtle.sign("HMAC", key, content)))}`;
    }),
  );
  return {
    ...{ "webhook-id": id, "webhook-timestamp": seconds },
    ...(signatures.length > 0 && { "webhook-signature": signatures.join(" ") }),
  };
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
async function post(alert: UsageAlert, env: Env, nowMs: number): Promise<void> {
  const { webhookUrl, tenantId, month, thresholdPercent, secrets } = alert;
  if (webhookUrl === null) return;
  const body = JSON.stringify({
    event: "usage_threshold_reached",
    ...{ tenantId, month: month.slice(0, 7), thresholdPercent, at: new Date(nowMs).toISOString() },
    usageUrl: `${env.PUBLIC_URL}/api/tenants/${tenantId}/usage`,
  });
  const plain = await Promise.all(secrets.map((secret) => decryptSecret(env, secretPurpose(tenantId), secret)));
  const message = { id: `msg_usage_${tenantId}_${month.slice(0, 7)}_${thresholdPercent}`, atMs: nowMs, body };
  const response = await fetch(webhookUrl, {
    method: "POST",
    headers: { "content-type": "application/json", ...(await signedHeaders(message, plain)) },
    body,
    redirect: "manual",
    signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
  });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`the webhook answered ${response.status}`, { cause: { status: response.status } });
}
