// Cron: alerts tenants of what they must know: usage that has reached a share of the allowance or of the spend cap, a payment that
// failed, a new key, a new member. Each once, by mail and by webhook, and again until it is taken; a tenant can list and replay them.
// Invariants: a failure delays no other tenant's alert, and an alert has nothing but ids and numbers. A webhook is signed by Standard
// Webhooks (standardwebhooks.com) once the tenant has made a secret; a repetition has the same id, so that a receiver counts it once.
import { sendMail, sendsMail } from "../adapters/mail.ts";
import type { Context } from "../control/context.ts";
import { decryptSecret, encryptSecret } from "../control/encrypted-logins-store.ts";
import { config } from "../core/app-config.ts";
import { type Cents, centsOf, inCents, spentIn, spendWindow } from "../core/plans/money.ts";
import { planOf } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../core/time.ts";
import { describeError, log } from "../log.ts";
import { type DueAlert, type NewAlert, type Span, type Watched, alertsStore } from "./alerts-store.ts";
import { dayOf, monthOf } from "./invoice.ts";

/** Alerts of one run. The next run, five minutes later, sends the rest. */
const BATCH = 50;
/** Tenants whose usage one statement adds up. */
const TENANTS = 500;
/** Usage can reach the ledger late, after an outage. */
const USED_WITHIN_MS = DAY_MS;
/** A webhook answers at once. */
const WEBHOOK_TIMEOUT_MS = 5_000;
/** Time to prepare, time to act, and the end. A tenant can choose others. */
const THRESHOLDS_PERCENT = [50, 80, 100];

export async function sendAlerts(context: Context, nowMs: number): Promise<void> {
  await raiseAlerts(context, nowMs);
  const due = await alertsStore(context.control).attempt(BATCH);
  await Promise.all(due.map((alert) => send(context, alert, nowMs)));
}

/** Sends one alert again, whether it was taken or not. Returns it afterwards; `undefined`: the tenant has no such alert. */
export async function replayAlert(context: Context, tenantId: TenantId, id: number, nowMs: number) {
  const store = alertsStore(context.control);
  if (!(await store.again(tenantId, id))) return undefined;
  // The cron may have taken it first. Then it sends it.
  for (const alert of await store.attempt(1, id)) await send(context, alert, nowMs);
  return store.find(tenantId, id);
}

async function raiseAlerts({ control, env }: Context, nowMs: number): Promise<void> {
  const store = alertsStore(control);
  const sends = sendsMail(env);
  await store.raiseFromRows(sends);
  let after = "";
  for (;;) {
    const tenants = await store.watched(after, { limit: TENANTS, sinceMs: nowMs - USED_WITHIN_MS, mail: sends });
    const watched = tenants.flatMap((tenant) => measuresOf(tenant, nowMs).map((measure) => ({ tenant, measure })));
    const units = await store.unitsOf(watched.map(({ measure }) => measure.span));
    await store.raise(
      watched.flatMap(({ tenant, measure }, index) => reached(tenant, measure, units[index] ?? 0)),
      sends,
    );
    const last = tenants.at(-1);
    if (last === undefined || tenants.length < TENANTS) return;
    after = last.tenantId;
  }
}

/** What a tenant's thresholds are shares of. */
export interface Measure {
  event: "usage_threshold_reached" | "spend_threshold_reached";
  span: Span;
  /** The part of 100 % that these units are, as used and whole, in one scale. */
  share: (units: number) => { used: Cents; whole: Cents };
  /** With the threshold it names the alert: raised once for each period, and again for another cap. */
  subject: string;
  data: Readonly<Record<string, unknown>>;
}

/**
 * The allowance of a plan with a limit is its units of the calendar month. A plan with a price per unit includes units in each billing
 * period, and what follows may cost the spend cap.
 */
export function measuresOf({ tenantId, plan, limits, billing }: Watched, nowMs: number): Measure[] {
  const unitsOf = (whole: number) => (units: number) => ({
    used: centsOf(String(units)),
    whole: centsOf(String(whole)),
  });
  const window = spendWindow({ plan, limits, billing }, nowMs);
  const measures: Measure[] = [];
  if (limits.unitsPerMonth !== null || window === undefined) {
    const allowance = limits.unitsPerMonth ?? planOf(plan).includedUnits;
    const month = dayOf(nowMs).slice(0, 7);
    if (allowance !== null)
      measures.push({
        ...{ event: "usage_threshold_reached", subject: month, data: { month } },
        ...{ span: { tenantId, ...monthOf(month) }, share: unitsOf(allowance) },
      });
  }
  if (window === undefined) return measures;
  const span = { tenantId, startMs: window.startMs, endMs: Number.MAX_SAFE_INTEGER };
  const period = {
    periodStart: new Date(window.startMs).toISOString(),
    periodEnd: new Date(window.endMs).toISOString(),
  };
  if (limits.unitsPerMonth === null && window.includedUnits > 0)
    measures.push({
      ...{ event: "usage_threshold_reached", span, subject: period.periodStart, share: unitsOf(window.includedUnits) },
      data: { ...period, includedUnits: window.includedUnits },
    });
  const { capCents } = window;
  if (capCents !== null && capCents > 0)
    measures.push({
      ...{ event: "spend_threshold_reached", span, subject: `${period.periodStart}.${capCents}` },
      share: (units) => ({ used: spentIn(window, units), whole: centsOf(String(capCents)) }),
      data: { ...period, capCents },
    });
  return measures;
}

/** The thresholds that these units have reached. Exact, so that 100 % is the last unit and not the one before. */
export function reached({ tenantId, thresholdsPercent }: Watched, measure: Measure, units: number): NewAlert[] {
  const { event, share, subject, data } = measure;
  const { used, whole } = share(units);
  const scale = Math.max(used.scale, whole.scale);
  const at = (of: Cents): bigint => of.digits * 10n ** BigInt(scale - of.scale);
  return (thresholdsPercent ?? THRESHOLDS_PERCENT)
    .filter((percent) => at(used) * 100n >= BigInt(percent) * at(whole))
    .map((thresholdPercent) => ({
      ...{ tenantId, event, subject: `${subject}.${thresholdPercent}` },
      data: {
        thresholdPercent,
        ...data,
        units,
        ...(event === "spend_threshold_reached" && { spentCents: inCents(used) }),
      },
    }));
}

async function send(context: Context, alert: DueAlert, nowMs: number): Promise<void> {
  const { id, tenantId, event, channel } = alert;
  let failed: string | null = null;
  try {
    await (channel === "mail" ? mail(alert, context.env) : post(alert, context.env, nowMs));
    log("info", "alert_sent", { tenantId, alertId: id, alert: event, channel });
  } catch (error) {
    failed = reasonOf(error);
    log("warn", "alert_not_sent", { tenantId, alertId: id, alert: event, channel, error: describeError(error) });
  }
  await alertsStore(context.control).attempted(id, failed);
}

/** Why an attempt failed, for the tenant: never the text of its own server or of the mail service. */
function reasonOf(error: unknown): string {
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  const status = typeof cause === "object" && cause !== null && "status" in cause ? cause.status : undefined;
  return typeof status === "number" ? `It answered ${status}.` : "It did not answer.";
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
  return { secret, formerUntil: await alertsStore(control).renewSecret(tenantId, encrypted, SECRET_OVERLAP_MS) };
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

/** The subject of a mail and its first sentence, by event. */
function wordsOf({ event, tenantId, data }: DueAlert): readonly [string, string] {
  const percent = `${String(data["thresholdPercent"])} %`;
  const period = String(data["month"] ?? data["periodStart"]).slice(0, 10);
  switch (event) {
    case "usage_threshold_reached":
      return [
        `${percent} of the units of ${period} are used`,
        `The account ${tenantId} has used ${percent} of its units of the period that began with ${period}.`,
      ];
    case "spend_threshold_reached":
      return [
        `${percent} of the spend cap are reached`,
        `The account ${tenantId} has spent ${percent} of its spend cap for the billing period that began on ${period}. At 100 % its calls are refused, until an owner raises the cap or the next period begins.`,
      ];
    case "payment_failed":
      return [
        "a payment failed",
        `An invoice of the account ${tenantId} is unpaid. After a week its calls are refused.`,
      ];
    case "key_created":
      return ["a new API key", `The account ${tenantId} has a new API key with the id ${String(data["keyId"])}.`];
    default:
      return ["a new member", `The account ${tenantId} has a new member with the id ${String(data["memberId"])}.`];
  }
}

/** Throws unless the mail service takes a mail for each address. */
async function mail(alert: DueAlert, env: Env): Promise<void> {
  const { emails, tenantId } = alert;
  const [what, sentence] = wordsOf(alert);
  const text = [
    sentence,
    `The account: ${env.PUBLIC_URL}/app/${tenantId}`,
    "An administrator of the account can change these alerts.",
  ].join("\n\n");
  await Promise.all(emails.map((to) => sendMail(env, { to, subject: `${config.product.name}: ${what}`, text })));
}

/** Throws unless the webhook takes the alert. Does nothing when the tenant has removed it. */
async function post(alert: DueAlert, env: Env, nowMs: number): Promise<void> {
  const { id, event, data, raisedAt, webhookUrl, tenantId, secrets } = alert;
  if (webhookUrl === null) return;
  const usageUrl = `${env.PUBLIC_URL}/api/tenants/${tenantId}/usage`;
  const body = JSON.stringify({ event, tenantId, ...data, at: raisedAt, usageUrl });
  const plain = await Promise.all(secrets.map((secret) => decryptSecret(env, secretPurpose(tenantId), secret)));
  const message = { id: `msg_${tenantId}_${id}`, atMs: nowMs, body };
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
