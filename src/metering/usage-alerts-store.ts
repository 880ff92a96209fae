// Alerts about tenants' usage, in the control tables: which thresholds of a month are reached, and which were sent.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant.ts";

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
});
export type UsageAlert = z.infer<typeof UsageAlert>;

const webhookUrl = `t.settings #>> '{integrations,webhookUrl}'`;
const emails = `t.settings #> '{alerts,emails}'`;

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
                   a.channel, ${webhookUrl} AS "webhookUrl", ${emails} AS emails`,
        [limit, MAX_ATTEMPTS],
      );
      return rows.map((row) => UsageAlert.parse(row));
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
