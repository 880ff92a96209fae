// Work that a Workflow does in the background, one step after the other. The control tables say how far each piece of
// work is, so an instance that dies loses nothing: the sweep starts another one. Starting an instance twice is harmless.
import { newId } from "../adapters/ids.ts";
import type { TenantId } from "../core/tenant.ts";

export type Work =
  | { kind: "provisioning"; tenantId: TenantId; attempt: number }
  | { kind: "move"; tenantId: TenantId }
  | { kind: "removal"; tenantId: TenantId }
  | { kind: "plan_change"; tenantId: TenantId }
  | { kind: "job"; tenantId: TenantId; jobId: number }
  | { kind: "fleet_migration"; runId: number; attempt: number };

/** Starts a Workflow instance for the work. Throws when the platform does not take it; the sweep then starts one. */
export async function startWork(env: Env, work: Work): Promise<void> {
  switch (work.kind) {
    case "provisioning": {
      const { tenantId, attempt } = work;
      await env.PROVISIONING.create({ id: `${tenantId}-attempt-${attempt}`, params: { tenantId, attempt } });
      return;
    }
    case "move":
      await env.MOVING.create({ id: instanceId(work.tenantId), params: { tenantId: work.tenantId } });
      return;
    case "removal":
      await env.REMOVING.create({ id: instanceId(work.tenantId), params: { tenantId: work.tenantId } });
      return;
    case "plan_change":
      await env.LIFECYCLE.create({ id: instanceId(work.tenantId), params: { tenantId: work.tenantId } });
      return;
    case "job": {
      const { tenantId, jobId } = work;
      await env.ARCHIVING.create({ id: instanceId(`job-${jobId}`), params: { tenantId, jobId } });
      return;
    }
    case "fleet_migration": {
      const { runId, attempt } = work;
      await env.FLEET.create({ id: `migration-${runId}-attempt-${attempt}`, params: { runId, attempt } });
      return;
    }
  }
}

/** Instance ids cannot be used twice, and a piece of work may need several instances. */
function instanceId(prefix: string): string {
  return `${prefix}-${newId()}`;
}
