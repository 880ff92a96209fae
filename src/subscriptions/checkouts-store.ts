// Stores orders before the buyer pays: name, email and plan. A payment for an unknown order cannot be applied. The sweep clears
// the name and e-mail of an order that was not paid.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { type PlanName, planNames } from "../core/plans/plans.ts";
import type { TenantId } from "../core/tenant/tenant.ts";

const Checkout = z.object({ name: z.string(), email: z.string().nullable(), plan: z.enum(planNames) });
export type Checkout = z.infer<typeof Checkout>;

export function checkoutsStore(control: ControlDatabase) {
  return {
    /** Stores an order. Repeating it changes nothing. */
    async insert(tenantId: TenantId, order: { name: string; email: string | null; plan: PlanName }): Promise<void> {
      await control.query(
        `INSERT INTO checkouts (tenant_id, name, email, plan) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
        [tenantId, order.name, order.email, order.plan],
      );
    },

    /**
     * Clears name and e-mail of up to `limit` orders that were not paid: their Checkout has expired, or, where the buyer chose
     * a slow payment, they are older than `slowMs`. An order that is paid even later makes a tenant without a name.
     */
    async forgetUnpaid({ expiredMs, slowMs }: { expiredMs: number; slowMs: number }, limit: number): Promise<void> {
      await control.query(
        `UPDATE checkouts SET name = '', email = NULL WHERE tenant_id IN (
           SELECT c.tenant_id FROM checkouts c
           WHERE (c.name <> '' OR c.email IS NOT NULL) AND c.created_at < now() - make_interval(secs => $1::double precision / 1000)
             AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = c.tenant_id)
             AND (c.created_at < now() - make_interval(secs => $2::double precision / 1000)
                  OR NOT EXISTS (SELECT FROM webhook_inbox w WHERE w.tenant_id = c.tenant_id AND w.type LIKE 'checkout.%'))
           ORDER BY c.created_at LIMIT $3)`,
        [expiredMs, slowMs, limit],
      );
    },

    /** The order that creates the tenant once it is paid. `undefined`: the tenant has no order. */
    async find(tenantId: TenantId): Promise<Checkout | undefined> {
      const [row] = await control.query(`SELECT name, email, plan FROM checkouts WHERE tenant_id = $1`, [tenantId]);
      return row === undefined ? undefined : Checkout.parse(row);
    },
  };
}
