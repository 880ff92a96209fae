// Alerts about tenants' usage, in the control tables: which thresholds of a month are reached, and which were sent.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant.ts";

/** An alert is a hint. Older ones than a day, and those that a webhook refused this often, are left. */
const MAX_ATTEMPTS = 10;

const UsageAlert = z.object({
  tenantId: TenantId,
  /** The first day of the month, UTC. */
  month: z.string(),
  thresholdPercent: z.int(),
  webhookUrl: z.string(),
});
export type UsageAlert = z.infer<typeof UsageAlert>;

export function usageAlertsStore(control: ControlDatabase) {
  return {
    /**
     * Stores each threshold that a tenant's usage of the month has reached, once. The month is that of its first day, UTC.
     * `included`: the units that a plan's base price covers, for tenants whose month has no limit.
     */
    async raise(month: string, included: Readonly<Record<string, number | null>>): Promise<void> {
      await control.query(
        `INSERT INTO usage_alerts (tenant_id, month, threshold_percent)
         SELECT t.id, $1::date, threshold.percent::integer
         FROM tenants t
         CROSS JOIN LATERAL (SELECT coalesce((t.limits ->> 'unitsPerMonth')::bigint, ($2::jsonb ->> t.plan)::bigint) AS units) allowance
         CROSS JOIN LATERAL (
           SELECT coalesce(sum(l.units), 0) AS units FROM ledger l
           WHERE l.tenant_id = t.id AND l.at >= $1::date::timestamp AT TIME ZONE 'UTC'
             AND l.at < ($1::date + interval '1 month') AT TIME ZONE 'UTC') used
         CROSS JOIN LATERAL jsonb_array_elements_text(t.settings #> '{alerts,thresholdsPercent}') AS threshold(percent)
         WHERE t.settings #> '{alerts,thresholdsPercent}' IS NOT NULL AND t.settings #>> '{integrations,webhookUrl}' IS NOT NULL
           AND t.state <> 'gone' AND used.units * 100 >= threshold.percent::integer * allowance.units
         ON CONFLICT DO NOTHING`,
        [month, JSON.stringify(included)],
      );
    },

    /** Up to `limit` alerts that are not sent yet, and counts an attempt at each. */
    async attempt(limit: number): Promise<UsageAlert[]> {
      const rows = await control.query(
        `UPDATE usage_alerts a SET attempts = a.attempts + 1 FROM tenants t
         WHERE t.id = a.tenant_id AND t.settings #>> '{integrations,webhookUrl}' IS NOT NULL
           AND (a.tenant_id, a.month, a.threshold_percent) IN (
             SELECT u.tenant_id, u.month, u.threshold_percent FROM usage_alerts u
             WHERE u.sent_at IS NULL AND u.attempts < $2 AND u.due_at > now() - interval '1 day' ORDER BY u.due_at LIMIT $1)
         RETURNING a.tenant_id AS "tenantId", to_char(a.month, 'YYYY-MM-DD') AS month, a.threshold_percent AS "thresholdPercent",
                   t.settings #>> '{integrations,webhookUrl}' AS "webhookUrl"`,
        [limit, MAX_ATTEMPTS],
      );
      return rows.map((row) => UsageAlert.parse(row));
    },

    /** The tenant's webhook has taken the alert. */
    async sent({ tenantId, month, thresholdPercent }: UsageAlert): Promise<void> {
      await control.query(
        `UPDATE usage_alerts SET sent_at = now() WHERE tenant_id = $1 AND month = $2::date AND threshold_percent = $3`,
        [tenantId, month, thresholdPercent],
      );
    },
  };
}
