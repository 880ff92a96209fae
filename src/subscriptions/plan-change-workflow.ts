// The Workflow that goes on with a tenant's change of plan: it asks the tenant's object for one piece after the other. All
// that is known of a change stands in the control tables, so that another instance can go on where one has ended; the
// sweep starts it.
import { connectControl } from "../adapters/neon.ts";
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { subscriptionsStore } from "./subscriptions-store.ts";
import { TenantId } from "../core/tenant.ts";
import { log } from "../log.ts";

export interface LifecycleParams {
  tenantId: string;
}

/** A piece takes some ten seconds at most; one that fails is tried again until whatever is in its way has passed. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 8, delay: "1 second", backoff: "exponential" },
  timeout: "1 minute",
};
/** Of a few seconds and, while Stripe is away, of a quarter of a minute: hours. Then the sweep starts another instance. */
const MAX_PIECES = 1_000;

/** A change that has recorded nothing for this long is taken up by another instance: longer than any pause between pieces. */
const SILENCE_MS = 60_000;

export class Lifecycle extends WorkflowEntrypoint<Env, LifecycleParams> {
  override async run(event: Readonly<WorkflowEvent<LifecycleParams>>, step: WorkflowStep): Promise<void> {
    const tenantId = TenantId.parse(event.payload.tenantId);
    for (let piece = 1; piece <= MAX_PIECES; piece += 1) {
      const { done, waitMs } = await step.do(`piece ${piece}`, stepConfig, async () => {
        // A stub of its own for each attempt: one whose object has died stays broken.
        const { done: last, waitMs: pause } = await this.env.TENANT.getByName(tenantId).planOn("advance");
        return { done: last, waitMs: pause };
      });
      if (done) return;
      if (waitMs > 0) await step.sleep(`wait ${piece}`, waitMs);
    }
  }
}

/** Starts an instance for a tenant's change of plan. Several at once do no harm: pieces are done one after the other. */
export async function startLifecycle(env: Env, tenantId: TenantId): Promise<void> {
  await env.LIFECYCLE.create({ id: `${tenantId}-${crypto.randomUUID()}`, params: { tenantId } });
}

/** Starts other instances for changes that have gone silent. */
export async function resumeSilentChanges(env: Env, limit: number): Promise<void> {
  for (const tenantId of await subscriptionsStore(connectControl(env)).silentChanges(SILENCE_MS, limit)) {
    log("warn", "plan_change_resumed", { tenantId });
    await startLifecycle(env, tenantId);
  }
}
