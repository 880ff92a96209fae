// Work that a Workflow does in the background, one step after the other. The control tables say how far each piece of
// work is, so an instance that dies loses nothing: the sweep starts another one. Two instances for the same work are
// harmless, because the tenant's object does one step at a time.
import * as z from "zod";
import { newId } from "../adapters/ids.ts";
import { TenantId } from "../core/tenant/tenant.ts";

/** Work that the tenant's object does, one step for each call of its RPC method `advance`. */
export const TenantWork = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("move"), tenantId: TenantId }),
  z.object({ kind: z.literal("removal"), tenantId: TenantId }),
  z.object({ kind: z.literal("plan_change"), tenantId: TenantId }),
  z.object({ kind: z.literal("job"), tenantId: TenantId, jobId: z.int() }),
]);
export type TenantWork = z.infer<typeof TenantWork>;

/** Provisioning and the fleet migration have Workflows of their own: their steps have names, or are of many tenants. */
export type Work =
  | TenantWork
  | { kind: "provisioning"; tenantId: TenantId; attempt: number }
  | { kind: "fleet_migration"; runId: number; attempt: number };

/** What a step of work came to. A step that fails throws, and the Workflow retries it. */
export interface Step {
  /** The work is finished, or its next step is not due yet. */
  done: boolean;
  /** How long to wait before the next step. */
  waitMs: number;
}

export const DONE: Step = { done: true, waitMs: 0 };
export const NEXT: Step = { done: false, waitMs: 0 };

/** The next step makes sense after `waitMs`. */
export function nextAfter(waitMs: number): Step {
  return { done: false, waitMs };
}

/** Starts a Workflow instance for the work. Throws when the platform does not take it; the sweep then starts one. */
export async function startWork(env: Env, work: Work): Promise<void> {
  switch (work.kind) {
    case "provisioning": {
      const { tenantId, attempt } = work;
      await env.PROVISIONING.create({ id: `${tenantId}-attempt-${attempt}`, params: { tenantId, attempt } });
      return;
    }
    case "fleet_migration": {
      const { runId, attempt } = work;
      await env.FLEET.create({ id: `migration-${runId}-attempt-${attempt}`, params: { runId, attempt } });
      return;
    }
    case "move":
    case "removal":
    case "plan_change":
    case "job":
      // An instance id cannot be used twice, and a piece of work may need several instances.
      await env.STEPS.create({ id: `${work.kind}-${work.tenantId}-${newId()}`, params: work });
  }
}
