// The outside monitor. A tenant's health page is registered once and cancelled when the tenant leaves.
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";

/** A monitor that does not answer must not delay provisioning. */
const MONITOR_TIMEOUT_MS = 5_000;

/** Registers the tenant's health page and replaces an earlier registration. Does nothing when no monitor is configured. */
export async function registerMonitor(
  monitorUrl: string,
  probe: { tenantId: TenantId; healthUrl: string; token: string },
): Promise<void> {
  if (monitorUrl === "") return;
  const response = await fetch(`${monitorUrl}/monitors/${probe.tenantId}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      url: probe.healthUrl,
      headers: { authorization: `Bearer ${probe.token}` },
      intervalSeconds: 60,
    }),
    signal: AbortSignal.timeout(MONITOR_TIMEOUT_MS),
  });
  await response.body?.cancel();
  if (!response.ok) throw new AppError("internal", `The monitor answered ${response.status}`);
}

/** Removes the tenant's registration. An unknown tenant is no error. Does nothing when no monitor is configured. */
export async function cancelMonitor(monitorUrl: string, tenantId: TenantId): Promise<void> {
  if (monitorUrl === "") return;
  const response = await fetch(`${monitorUrl}/monitors/${tenantId}`, {
    method: "DELETE",
    signal: AbortSignal.timeout(MONITOR_TIMEOUT_MS),
  });
  await response.body?.cancel();
  if (!response.ok && response.status !== 404)
    throw new AppError("internal", `The monitor answered ${response.status}`);
}
