// Attempts to use one tenant's credential on a route of another tenant: how many, by tenant and day. The log names the other
// tenant; a table by target would grow with every id that a caller makes up.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import type { TenantId } from "../core/tenant.ts";
import { toIso } from "../core/time.ts";

const Crossings = z.object({ attempts: z.coerce.number().int(), lastAt: z.string().nullable() });
export type Crossings = z.infer<typeof Crossings>;

export function crossingsStore(control: ControlDatabase) {
  return {
    /** Counts one attempt of the tenant. An id of no tenant counts nothing. */
    async count(tenantId: TenantId): Promise<void> {
      await control.query(
        `INSERT INTO cross_tenant_attempts AS c (tenant_id, day)
         SELECT id, (now() AT TIME ZONE 'UTC')::date FROM tenants WHERE id = $1
         ON CONFLICT (tenant_id, day) DO UPDATE SET attempts = c.attempts + 1, last_at = now()`,
        [tenantId],
      );
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
  };
}
