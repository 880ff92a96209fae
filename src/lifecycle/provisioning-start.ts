// Starts a Workflow for a tenant that has none going. The control tables say what was done and which attempt is the
// newest: instance ids expire, and a local runtime that is killed leaves its instances "running" for ever.
import { tenantsOf } from "../control/tenants-store.ts";
import type { TenantId } from "../core/tenant.ts";

/** A Workflow that has recorded nothing for this long is taken for dead: its longest step may take 30 s. */
export const PROVISIONING_SILENCE_MS = 60_000;

/** Opens the next attempt and starts it. Returns whether it did; while an attempt is going it does not. */
export async function startProvisioning(env: Env, tenantId: TenantId): Promise<boolean> {
  const tenants = tenantsOf(env);
  const attempt = await tenants.openAttempt(tenantId, PROVISIONING_SILENCE_MS);
  if (attempt === undefined) return false;
  await env.PROVISIONING.create({
    id: `${tenantId}-attempt-${attempt}`,
    params: { tenantId, attempt },
  });
  return true;
}
