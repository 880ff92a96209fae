// The Workflow that removes a tenant: it asks the tenant's object for one piece after the other, up to the grace, and again
// from its end. All that is known of a removal stands in the control tables, so that another instance can go on where one
// has ended; the sweep starts it, and ends the grace.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { removalsOf } from "./removals-store.ts";
import { REMOVAL_SILENCE_MS } from "./removal.ts";
import { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";

export interface RemovingParams {
  tenantId: string;
}

/** A piece takes seconds; one that fails is tried again until whatever is in its way has passed. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 8, delay: "1 second", backoff: "exponential" },
  timeout: "3 minutes",
};
/** Two steps each at most: two thirds of what an instance may have. What is left, the sweep's next instance does. */
const MAX_PIECES = 3_000;

export class Removing extends WorkflowEntrypoint<Env, RemovingParams> {
  override async run(event: Readonly<WorkflowEvent<RemovingParams>>, step: WorkflowStep): Promise<void> {
    const tenantId = TenantId.parse(event.payload.tenantId);
    for (let piece = 1; piece <= MAX_PIECES; piece += 1) {
      const { done, waitMs } = await step.do(`piece ${piece}`, stepConfig, async () => {
        // A stub of its own for each attempt: one whose object has died stays broken.
        const { done: last, waitMs: pause } = await this.env.TENANT.getByName(tenantId).removeOn();
        return { done: last, waitMs: pause };
      });
      if (done) return;
      if (waitMs > 0) await step.sleep(`wait ${piece}`, waitMs);
    }
  }
}

/** Starts an instance for a tenant's removal. Several at once do no harm: pieces are done one after the other. */
export async function startRemoving(env: Env, tenantId: TenantId): Promise<void> {
  await env.REMOVING.create({ id: `${tenantId}-${crypto.randomUUID()}`, params: { tenantId } });
}

/** Ends the grace of those whose time has come, and goes on with removals and returns that have gone silent. */
export async function sweepRemovals(env: Env, limit: number): Promise<void> {
  const removals = removalsOf(env);
  for (const tenantId of await removals.beginDropping(limit)) await startRemoving(env, tenantId);
  for (const { tenantId, comingBack } of await removals.silent(REMOVAL_SILENCE_MS, limit)) {
    try {
      log("warn", comingBack ? "return_resumed" : "removal_resumed", { tenantId });
      await (comingBack ? env.TENANT.getByName(tenantId).reactivate() : startRemoving(env, tenantId));
    } catch (error) {
      log("error", "removal_not_resumed", { tenantId, error: describeError(error) });
    }
  }
}
