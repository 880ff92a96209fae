// A change of a tenant is done when the tenant's object has confirmed it. When the object cannot be reached, the answer
// to the change says so (`delivered: false`), and the sweep notifies the object later.
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import type { Context } from "./context.ts";

/** Makes the tenant's object read the tenant again. `version`: the version that it confirmed. */
export async function notifyObject(
  context: Context,
  tenantId: TenantId,
): Promise<{ version: number | null; delivered: boolean }> {
  try {
    return { version: (await context.tenantObject(tenantId).refresh()) ?? null, delivered: true };
  } catch (error) {
    log("error", "change_not_delivered", { tenantId, error: describeError(error) });
    return { version: null, delivered: false };
  }
}
