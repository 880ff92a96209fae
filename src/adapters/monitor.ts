// The outside monitor: told once per tenant which address to probe, and told again when it should stop.
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";

/** Registers the tenant's health page, replacing an earlier registration. Without a monitor configured, does nothing. */
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
    signal: AbortSignal.timeout(5_000),
  });
  await response.body?.cancel();
  if (!response.ok) throw new AppError("internal", `The monitor answered ${response.status}`);
}

/** Has the monitor forget the tenant; one that it does not know is fine. Without a monitor configured, does nothing. */
export async function cancelMonitor(monitorUrl: string, tenantId: TenantId): Promise<void> {
  if (monitorUrl === "") return;
  const response = await fetch(`${monitorUrl}/monitors/${tenantId}`, {
    method: "DELETE",
    signal: AbortSignal.timeout(5_000),
  });
  await response.body?.cancel();
  if (!response.ok && response.status !== 404)
    throw new AppError("internal", `The monitor answered ${response.status}`);
}
