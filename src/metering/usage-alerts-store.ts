// Alerts about tenants' usage, in the control tables: which thresholds of a month are reached, and which were sent.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant.ts";
import { toIso } from "../core/time.ts";

/** An alert is a hint. Older ones than a day, and those that could not be sent this often, are left. */
const MAX_ATTEMPTS = 10;

const UsageAlert = z.object({
  tenantId: TenantId,
  /** The first day of the month, UTC. */
  month: z.string(),
  thresholdPercent: z.int(),
  channel: z.enum(["webhook", "mail"]),
  webhookUrl: z.string().nullable(),
  emails: z.array(z.string()).nullable(),
  /** The encrypted secrets that sign the webhook, newest first. Empty: the tenant has made none. */
  secrets: z
    .array(z.string())
    .nullable()
    .transform((secrets) => secrets ?? []),
});
export type UsageAlert = z.infer<typeof UsageAlert>;

const webhookUrl = `t.settings #>> '{integrations,webhookUrl}'`;
const emails = `t.settings #> '{alerts,emails}'`;

const secrets = `(SELECT to_jsonb(array_remove(ARRAY[w.secret, CASE WHEN w.former_until > now() THEN w.former_secret END], NULL))
  FROM webhook_secrets w WHERE w.tenant_id = t.id)`;

const StoredSecret = z.object({ tenantId: TenantId, secret: z.string(), former: z.string().nullable() });
/** A tenant's encrypted secrets. */
export type StoredSecret = z.infer<typeof StoredSecret>;

export function usageAlertsStore(control: ControlDatabase) {
  return {
    /**
     * Stores each threshold that a tenant's usage of the month has reached, once. The month is that of its first day, UTC.
     * `included`: the units that a plan's base price covers, for tenants whose month has no limit. `mail`: also for mails.
     */
    async raise(
      month: string,
      { included, mail }: { included: Readonly<Record<string, number | null>>; mail: boolean },
    ): Promise<void> {
      await control.query(
        `INSERT INTO usage_alerts (tenant_id, month, threshold_percent, channel)
         SELECT t.id, $1::date, threshold.percent::integer, way.channel
         FROM tenants t
         CROSS JOIN LATERAL (VALUES ('webhook', ${webhookUrl} IS NOT NULL), ('mail', $3 AND ${emails} IS NOT NULL)) AS way(channel, is_set)
         CROSS JOIN LATERAL (SELECT coalesce((t.limits ->> 'unitsPerMonth')::bigint, ($2::jsonb ->> t.plan)::bigint) AS units) allowance
         CROSS JOIN LATERAL (
           SELECT coalesce(sum(l.units), 0) AS units FROM ledger l
           WHERE l.tenant_id = t.id AND l.at >= $1::date::timestamp AT TIME ZONE 'UTC'
             AND l.at < ($1::date + interval '1 month') AT TIME ZONE 'UTC') used
         CROSS JOIN LATERAL jsonb_array_elements_text(t.settings #> '{alerts,thresholdsPercent}') AS threshold(percent)
         WHERE t.settings #> '{alerts,thresholdsPercent}' IS NOT NULL AND way.is_set AND t.state <> 'gone'
           AND used.units * 100 >= threshold.percent::integer * allowance.units
         ON CONFLICT DO NOTHING`,
        [month, JSON.stringify(included), mail],
      );
    },

    /** Up to `limit` alerts that are not sent yet, and counts an attempt at each. */
    async attempt(limit: number): Promise<UsageAlert[]> {
      const rows = await control.query(
        `UPDATE usage_alerts a SET attempts = a.attempts + 1 FROM tenants t
         WHERE t.id = a.tenant_id AND (a.tenant_id, a.month, a.threshold_percent, a.channel) IN (
             SELECT u.tenant_id, u.month, u.threshold_percent, u.channel FROM usage_alerts u
             WHERE u.sent_at IS NULL AND u.attempts < $2 AND u.due_at > now() - interval '1 day' ORDER BY u.due_at LIMIT $1)
         RETURNING a.tenant_id AS "tenantId", to_char(a.month, 'YYYY-MM-DD') AS month, a.threshold_percent AS "thresholdPercent",
                   a.channel, ${webhookUrl} AS "webhookUrl", ${emails} AS emails, ${secrets} AS secrets`,
        [limit, MAX_ATTEMPTS],
      );
      return rows.map((row) => UsageAlert.parse(row));
    },

    /** Stores a tenant's new secret, encrypted. The former one signs, too, for `overlapMs`. Returns until when; `null`: there was none. */
    async renewSecret(tenantId: TenantId, secret: string, overlapMs: number): Promise<string | null> {
      const [row] = await control.query(
        `INSERT INTO webhook_secrets AS w (tenant_id, secret) VALUES ($1, $2)
         ON CONFLICT (tenant_id) DO UPDATE SET former_secret = w.secret, secret = excluded.secret, created_at = now(),
           former_until = now() + make_interval(secs => $3::double precision / 1000)
         RETURNING ${toIso("w.former_until")} AS until`,
        [tenantId, secret, overlapMs],
      );
      return z.object({ until: z.string().nullable() }).parse(row).until;
    },

    /** Secrets that another key of ENCRYPTION_KEYS than this one encrypted. */
    async secretsNotUnder(keyId: string, limit: number): Promise<StoredSecret[]> {
      const rows = await control.query(
        `SELECT tenant_id AS "tenantId", secret, former_secret AS former FROM webhook_secrets
         WHERE split_part(secret, '.', 2) <> $1 OR split_part(former_secret, '.', 2) <> $1 LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => StoredSecret.parse(row));
    },

    /** Replaces a tenant's secrets by the same ones under another key, unless they have changed since. */
    async replaceSecrets(stored: StoredSecret, encrypted: Omit<StoredSecret, "tenantId">): Promise<void> {
      await control.query(
        `UPDATE webhook_secrets SET secret = $3, former_secret = $4
         WHERE tenant_id = $1 AND secret = $2 AND former_secret IS NOT DISTINCT FROM $5`,
        [stored.tenantId, stored.secret, encrypted.secret, encrypted.former, stored.former],
      );
    },

    /** The alert has arrived. */
    async sent({ tenantId, month, thresholdPercent, channel }: UsageAlert): Promise<void> {
      await control.query(
        `UPDATE usage_alerts SET sent_at = now()
         WHERE tenant_id = $1 AND month = $2::date AND threshold_percent = $3 AND channel = $4`,
        [tenantId, month, thresholdPercent, channel],
      );
    },
  };
}
