// Figures over all tenants in the control tables: by hour or day, and of each tenant since an instant. For the operator alone.
import * as z from "zod";
import type { ControlDatabase } from "../../control/context.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { fromMs, toIso } from "../../core/time.ts";

const count = z.coerce.number().int();
const counts = { calls: count, units: count, failed: count, refused: count };

const FleetPoint = z.object({
  /** The start of the hour or day (UTC). */
  at: z.string(),
  ...counts,
  /** Tenants with a call. */
  tenants: count,
});
export type FleetPoint = z.infer<typeof FleetPoint>;

const TenantGlance = z.object({
  tenantId: TenantId,
  ...counts,
  /** The last charged call. `null`: there was none. */
  lastCallAt: z.string().nullable(),
});
export type TenantGlance = z.infer<typeof TenantGlance>;

const sums = `coalesce(sum(r.calls), 0) AS calls, coalesce(sum(r.units), 0) AS units,
  coalesce(sum(r.calls) FILTER (WHERE r.outcome = 'failed'), 0) AS failed,
  coalesce(sum(r.calls) FILTER (WHERE r.outcome = 'refused'), 0) AS refused`;

export function fleetMetricsStore(control: ControlDatabase) {
  return {
    /** The figures of all tenants by hour or day of the range, in their order. Without hours and days in which nothing happened. */
    async series(range: { fromMs: number; toMs: number; step: "hour" | "day" }): Promise<FleetPoint[]> {
      const { fromMs: startMs, toMs: endMs, step } = range;
      const rows = await control.query(
        `SELECT ${toIso(`date_trunc('${step}', r.hour, 'UTC')`)} AS at, ${sums}, count(DISTINCT r.tenant_id) AS tenants
         FROM metrics_hourly r WHERE r.hour >= ${fromMs("$1")} AND r.hour < ${fromMs("$2")}
         GROUP BY date_trunc('${step}', r.hour, 'UTC') ORDER BY date_trunc('${step}', r.hour, 'UTC')`,
        [startMs, endMs],
      );
      return rows.map((row) => FleetPoint.parse(row));
    },

    /** The figures of these tenants since an instant, and the last charged call of each. */
    async ofTenants(tenantIds: readonly string[], sinceMs: number): Promise<Map<string, TenantGlance>> {
      const rows = await control.query(
        `SELECT t.id AS "tenantId", ${sums},
           (SELECT ${toIso("max(l.at)")} FROM ledger l WHERE l.tenant_id = t.id) AS "lastCallAt"
         FROM unnest($1::text[]) AS t(id)
         LEFT JOIN metrics_hourly r ON r.tenant_id = t.id AND r.hour >= ${fromMs("$2")} GROUP BY t.id`,
        [[...tenantIds], sinceMs],
      );
      return new Map(rows.map((row) => TenantGlance.parse(row)).map((glance) => [glance.tenantId, glance]));
    },
  };
}
