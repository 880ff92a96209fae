// The wish that a tenant be removed.
import type { TenantId } from "../core/tenant.ts";
import { log } from "../log.ts";
import type { ControlDatabase } from "./neon.ts";

/**
 * The tenant's subscription has ended: it is to be removed, unless it comes back. May be repeated. What it goes by stands
 * in the tenant's row: `subscription_ended_at`.
 */
export async function openRemoval(_env: ControlDatabase, tenantId: TenantId): Promise<void> {
  log("info", "removal_wished", { tenantId });
}
