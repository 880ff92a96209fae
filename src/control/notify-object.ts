// A change of a tenant is done when its object has confirmed it. What cannot be told now is told by the sweep, and the
// answer to whoever changed it says that it is not yet (DESIGN.md I11).
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";

/** Has the tenant's object read the tenant anew. `version`: the one that it confirmed. */
export async function deliver(env: Env, tenantId: TenantId): Promise<{ version: number | null; delivered: boolean }> {
  try {
    return { version: (await env.TENANT.getByName(tenantId).refresh()) ?? null, delivered: true };
  } catch (error) {
    log("error", "change_not_delivered", { tenantId, error: describeError(error) });
    return { version: null, delivered: false };
  }
}
