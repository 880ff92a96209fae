// The Workflow that moves a tenant: it asks the tenant's object for one piece after the other. All that is known of a move
// stands in the control tables, so that another instance can go on where one has ended; the sweep starts it.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { TenantId } from "../core/tenant.ts";

export interface MovingParams {
  tenantId: string;
}

/** A piece takes seconds; one that fails is tried again until whatever is in its way has passed. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 8, delay: "1 second", backoff: "exponential" },
  timeout: "2 minutes",
};
/** Of 5 s each: far more than any tenant needs, and a third of what an instance may have. */
const MAX_PIECES = 3_000;

/** A move that has recorded nothing for this long is taken up by another instance. */
export const MOVE_SILENCE_MS = 60_000;

export class Moving extends WorkflowEntrypoint<Env, MovingParams> {
  override async run(event: Readonly<WorkflowEvent<MovingParams>>, step: WorkflowStep): Promise<void> {
    const tenantId = TenantId.parse(event.payload.tenantId);
    for (let piece = 1; piece <= MAX_PIECES; piece += 1) {
      const { done, waitMs } = await step.do(`piece ${piece}`, stepConfig, async () => {
        // A stub of its own for each attempt: one whose object has died stays broken.
        const { done: last, waitMs: pause } = await this.env.TENANT.getByName(tenantId).moveOn("advance");
        return { done: last, waitMs: pause };
      });
      if (done) return;
      if (waitMs > 0) await step.sleep(`wait ${piece}`, waitMs);
    }
  }
}

/** Starts an instance for a tenant's move. Several at once do no harm: pieces are done one after the other. */
export async function startMoving(env: Env, tenantId: TenantId): Promise<void> {
  await env.MOVING.create({ id: `${tenantId}-${crypto.randomUUID()}`, params: { tenantId } });
}
