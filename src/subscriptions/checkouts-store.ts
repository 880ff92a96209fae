// Stores orders before the buyer pays: name, email and plan. A payment for an unknown order cannot be applied.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { type PlanName, planNames } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";

const Checkout = z.object({ name: z.string(), email: z.string().nullable(), plan: z.enum(planNames) });
export type Checkout = z.infer<typeof Checkout>;

export function checkoutsStore(control: ControlDatabase) {
  return {
    async insert(tenantId: TenantId, order: { name: string; email: string | null; plan: PlanName }): Promise<void> {
      await control.query(`INSERT INTO checkouts (tenant_id, name, email, plan) VALUES ($1, $2, $3, $4)`, [
        tenantId,
        order.name,
        order.email,
        order.plan,
      ]);
    },

    /** The order that creates the tenant once it is paid. `undefined`: the tenant has no order. */
    async find(tenantId: TenantId): Promise<Checkout | undefined> {
      const [row] = await control.query(`SELECT name, email, plan FROM checkouts WHERE tenant_id = $1`, [tenantId]);
      return row === undefined ? undefined : Checkout.parse(row);
    },
  };
}
