// The steps of provisioning in their order, as the buyer sees them, and the start of an attempt. The control tables record
// the newest attempt and its steps. The platform's list of instances cannot say that: instance ids
// expire, and a local runtime that is killed leaves its instances "running" for ever.
import type { Context } from "../control/context.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { provisioningStore } from "./provisioning-store.ts";

export const provisioningSteps = [
  { name: "account", title: "Account opened" },
  { name: "placement", title: "Place for the data found" },
  { name: "isolation", title: "Data set apart and seeded" },
  { name: "storage", title: "File storage marked" },
  { name: "canary", title: "First call as this account succeeded" },
  { name: "activation", title: "Account activated" },
  { name: "monitor", title: "Monitoring started" },
] as const;

export type ProvisioningStep = (typeof provisioningSteps)[number]["name"];

/** An attempt that has recorded nothing for this long counts as dead. Its longest step may take 30 s. */
export const PROVISIONING_SILENCE_MS = 60_000;

/** Opens the next attempt and starts its Workflow. Returns false while another attempt is alive, or when none is needed. */
export async function startProvisioning(context: Context, tenantId: TenantId): Promise<boolean> {
  const attempt = await provisioningStore(context.control).openAttempt(tenantId, PROVISIONING_SILENCE_MS);
  if (attempt === undefined) return false;
  await context.start({ kind: "provisioning", tenantId, attempt });
  return true;
}
