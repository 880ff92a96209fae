// Calls that ran while their tenant's object could not be reached: what such a call is admitted by, and which of them the
// objects do not count yet. Each function is one transaction; each can be repeated.
import * as z from "zod";
import { HOUR_MS } from "./sliding-window.ts";
import type { TenantId } from "../core/tenant.ts";
import { UncountedCall, fallbackCallColumns } from "../control/ledger-store.ts";
import { type NeonConnection } from "../adapters/neon.ts";

/** What the ledger says that a tenant has used. It follows the tenant's object by seconds. */
const UsedLately = z.object({
  monthUnits: z.coerce.number().int(),
  /** Of the last hour, by second and tool; `atMs` is the second's start. */
  hour: z.array(
    z.object({ atMs: z.number().int(), tool: z.string(), calls: z.number().int(), units: z.number().int() }),
  ),
});
export type UsedLately = z.infer<typeof UsedLately>;

export function fallbackCallsStore(db: NeonConnection) {
  return {
    /** What the tenant used in the hour up to `nowMs` and in that calendar month (UTC), as far as the ledger has it. */
    async usedLately(tenantId: TenantId, nowMs: number): Promise<UsedLately> {
      const [row] = await db.query(
        `WITH n AS (SELECT to_timestamp($2::double precision / 1000) AS now),
              seconds AS (
                SELECT floor(extract(epoch FROM at))::bigint * 1000 AS at_ms, tool, count(*) AS calls, sum(units) AS units
                FROM ledger, n WHERE tenant_id = $1 AND at > n.now - make_interval(secs => ${HOUR_MS / 1000}) GROUP BY 1, 2)
         SELECT (SELECT coalesce(sum(units), 0) FROM ledger, n
                 WHERE tenant_id = $1 AND at >= date_trunc('month', n.now, 'UTC')) AS "monthUnits",
                (SELECT coalesce(jsonb_agg(jsonb_build_object('atMs', at_ms, 'tool', tool, 'calls', calls, 'units', units)), '[]'::jsonb)
                 FROM seconds) AS hour`,
        [tenantId, nowMs],
      );
      return UsedLately.parse(row);
    },

    /** Calls that their objects must still be told of: of up to `tenants` tenants, any of those there are, `callsEach`. */
    async uncounted(tenants: number, callsEach: number): Promise<UncountedCall[]> {
      const rows = await db.query(
        // In no order, so that objects which stay out of reach keep no others waiting.
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

    /** The tenants' objects count these calls. */
    async counted(callIds: readonly string[]): Promise<void> {
      await db.query(
        `UPDATE fallback_calls SET counted_at = now() WHERE call_id = ANY($1::text[]) AND counted_at IS NULL`,
        [[...callIds]],
      );
    },
  };
}
