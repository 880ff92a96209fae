// The outside monitor. A tenant's health page is registered once and cancelled when the tenant leaves. Every failed request
// becomes an `OutsideFailure`, which is permanent or temporary.
import { OutsideFailure } from "../core/errors.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError } from "../log.ts";

/** A monitor that does not answer must not delay provisioning. */
const MONITOR_TIMEOUT_MS = 5_000;

/**
 * Answers that every tenant gets while the monitor's address or credential is wrong, or while the monitor is busy. An operator
 * corrects them for all tenants at once, so each tenant's request is worth a retry.
 */
const passing: ReadonlySet<number> = new Set([401, 403, 404, 405, 408, 409, 425, 429]);

/** Registers the tenant's health page and replaces an earlier registration. Does nothing when no monitor is configured. */
export async function registerMonitor(
  monitorUrl: string,
  probe: { tenantId: TenantId; healthUrl: string; token: string },
): Promise<void> {
  if (monitorUrl === "") return;
  const body = { url: probe.healthUrl, headers: { authorization: `Bearer ${probe.token}` }, intervalSeconds: 60 };
  await ask(monitorUrl, probe.tenantId, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** Removes the tenant's registration. An unknown tenant is no error. Does nothing when no monitor is configured. */
export async function cancelMonitor(monitorUrl: string, tenantId: TenantId): Promise<void> {
  if (monitorUrl === "") return;
  await ask(monitorUrl, tenantId, { method: "DELETE" }, [404, 410]);
}

/** Sends one request about a tenant's monitor. Answers in `fine` count as success. */
async function ask(monitorUrl: string, tenantId: TenantId, init: RequestInit, fine: number[] = []): Promise<void> {
  let response: Response;
  try {
    response = await fetch(`${monitorUrl}/monitors/${tenantId}`, {
      ...init,
      signal: AbortSignal.timeout(MONITOR_TIMEOUT_MS),
    });
    await response.body?.cancel();
  } catch (error) {
    throw new OutsideFailure("monitor_unavailable", `The monitor: no answer: ${describeError(error)}`, "temporary");
  }
  const { ok, status } = response;
  if (ok || fine.includes(status)) return;
  const isPermanent = status >= 400 && status < 500 && !passing.has(status);
  throw new OutsideFailure(
    isPermanent ? "monitor_refused" : "monitor_unavailable",
    `The monitor answered ${status}`,
    isPermanent ? "permanent" : "temporary",
  );
}
