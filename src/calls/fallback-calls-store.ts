// Fallback calls: the usage that admits one, and those that the tenants' objects do not count yet. Each function is one
// transaction and can be repeated.
import * as z from "zod";
import { HOUR_MS, fromMs, toMs } from "../core/time.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { ChargedCall } from "../core/usage.ts";
import { UncountedCall, fallbackCallColumns } from "../control/ledger-store.ts";
import type { ControlDatabase } from "../control/context.ts";

/** A tenant's usage by the ledger, which is some seconds behind the tenant's object. */
const UsedLately = z.object({
  monthUnits: z.coerce.number().int(),
  /** Since `sinceMs`. */
  units: z.coerce.number().int(),
  /** The last hour, by second and tool. `atMs` is the start of the second. */
  hour: z.array(
    z.object({ atMs: z.number().int(), tool: z.string(), calls: z.number().int(), units: z.number().int() }),
  ),
});
export type UsedLately = z.infer<typeof UsedLately>;

const Charged = z.object({ callId: z.string(), atMs: z.number().int(), units: z.number().int() });

export function fallbackCallsStore(control: ControlDatabase) {
  return {
    /** Usage that the ledger has of the hour up to `nowMs`, of its calendar month (UTC), and since the start of a billing period. */
    async usedLately(tenantId: TenantId, nowMs: number, sinceMs: number): Promise<UsedLately> {
      const [row] = await control.query(
        `WITH n AS (SELECT ${fromMs("$2")} AS now),
              seconds AS (
                SELECT floor(extract(epoch FROM at))::bigint * 1000 AS at_ms, tool, count(*) AS calls, sum(units) AS units
                FROM ledger, n WHERE tenant_id = $1 AND at > n.now - make_interval(secs => ${HOUR_MS / 1000}) GROUP BY 1, 2)
         SELECT (SELECT coalesce(sum(units), 0) FROM ledger, n
                 WHERE tenant_id = $1 AND at >= date_trunc('month', n.now, 'UTC')) AS "monthUnits",
                (SELECT coalesce(sum(units), 0) FROM ledger WHERE tenant_id = $1 AND at >= ${fromMs("$3")}) AS units,
                (SELECT coalesce(jsonb_agg(jsonb_build_object('atMs', at_ms, 'tool', tool, 'calls', calls, 'units', units)), '[]'::jsonb)
                 FROM seconds) AS hour`,
        [tenantId, nowMs, sinceMs],
      );
      return UsedLately.parse(row);
    },

    /** Those of these calls that the ledger has. */
    async charges(callIds: readonly string[]): Promise<ChargedCall[]> {
      const rows = await control.query(
        `SELECT call_id AS "callId", ${toMs("at")} AS "atMs", units FROM ledger WHERE call_id = ANY($1::text[])`,
        [[...callIds]],
      );
      return rows.map((row) => Charged.parse(row));
    },

    /** Calls that their objects do not count yet: up to `callsEach` of each of up to `tenants` tenants. */
    async uncounted(tenants: number, callsEach: number): Promise<UncountedCall[]> {
      const rows = await control.query(
        // Random tenants: an object that stays out of reach must not delay the others for ever.
        `SELECT ${fallbackCallColumns} FROM (
           SELECT t.id FROM tenants t WHERE t.state <> 'gone'
             AND EXISTS (SELECT FROM fallback_calls w WHERE w.tenant_id = t.id AND w.counted_at IS NULL)
           ORDER BY random() LIMIT $1) t
         CROSS JOIN LATERAL (
           SELECT * FROM fallback_calls w WHERE w.tenant_id = t.id AND w.counted_at IS NULL ORDER BY w.received_at LIMIT $2) o
         JOIN ledger l USING (call_id)`,
        [tenants, callsEach],
      );
      return rows.map((row) => UncountedCall.parse(row));
    },

    /** Records that the tenants' objects count these calls. */
    async counted(callIds: readonly string[]): Promise<void> {
      await control.query(
        `UPDATE fallback_calls SET counted_at = now() WHERE call_id = ANY($1::text[]) AND counted_at IS NULL`,
        [[...callIds]],
      );
    },
  };
}
