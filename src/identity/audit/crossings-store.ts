// Attempts to use one tenant's credential on a route of another tenant: how many, by tenant and day. The audit log and the log name
// the other tenant; a table by target would grow with every id that a caller makes up.
import * as z from "zod";
import { readableList } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { toIso } from "../../core/time.ts";

const Crossings = z.object({ attempts: z.coerce.number().int(), lastAt: z.string().nullable() });
export type Crossings = z.infer<typeof Crossings>;

const Counted = z.object({ target: z.string().nullable() });

/** The attempts of one tenant on one day (UTC). */
export const CrossingsOfDay = z.object({
  tenantId: z.string(),
  day: z.iso.date(),
  attempts: z.coerce.number().int(),
  lastAt: z.string(),
});
export type CrossingsOfDay = z.infer<typeof CrossingsOfDay>;

export function crossingsStore(control: ControlDatabase) {
  return {
    /**
     * Counts one attempt of the tenant. Returns the target when there is such a tenant, because a caller may make up an id, or
     * paste a secret in its place. `undefined`: an id of no tenant counts nothing.
     */
    async count(tenantId: string, target: string | null): Promise<{ target: string | null } | undefined> {
      const [row] = await control.query(
        `INSERT INTO cross_tenant_attempts AS c (tenant_id, day)
         SELECT id, (now() AT TIME ZONE 'UTC')::date FROM tenants WHERE id = $1
         ON CONFLICT (tenant_id, day) DO UPDATE SET attempts = c.attempts + 1, last_at = now()
         RETURNING (SELECT t.id FROM tenants t WHERE t.id = $2) AS target`,
        [tenantId, target],
      );
      return row === undefined ? undefined : Counted.parse(row);
    },

    /** All attempts of the tenant, and the last one. */
    async of(tenantId: TenantId): Promise<Crossings> {
      const [row] = await control.query(
        `SELECT coalesce(sum(attempts), 0) AS attempts, ${toIso("max(last_at)")} AS "lastAt"
         FROM cross_tenant_attempts WHERE tenant_id = $1`,
        [tenantId],
      );
      return Crossings.parse(row);
    },

    /** The attempts by day and tenant, the latest first. `after`: those that come after this one in the list. */
    async list(limit: number, after?: Pick<CrossingsOfDay, "lastAt" | "tenantId" | "day">): Promise<CrossingsOfDay[]> {
      // Clients see milliseconds, so the order has no finer ones.
      const at = `date_trunc('milliseconds', last_at)`;
      return readableList(
        control,
        limit,
        CrossingsOfDay,
        { part: "cross_tenant_attempts", idOf: ({ tenantId, day }) => `${String(tenantId)} ${String(day)}` },
        (count) =>
          control.query(
            `SELECT tenant_id AS "tenantId", to_char(day, 'YYYY-MM-DD') AS day, attempts, ${toIso("last_at")} AS "lastAt"
             FROM cross_tenant_attempts
             WHERE $2::timestamptz IS NULL OR ${at} < $2 OR (${at} = $2 AND (tenant_id, day) > ($3::text, $4::date))
             ORDER BY ${at} DESC, tenant_id, day LIMIT $1`,
            [count, after?.lastAt ?? null, after?.tenantId ?? null, after?.day ?? null],
          ),
      );
    },
  };
}
