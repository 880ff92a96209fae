// The Workflow of all work that is done step by step: it asks the tenant's object for one step after the other until none
// is left. It stores nothing itself: the control tables record how far the work is. The sweep starts a new instance
// for one that has died or used up its steps.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { createContext } from "../control/context.ts";
import { TenantWork } from "../control/work.ts";

/** A step takes seconds. One that fails is retried for about four minutes, after that by the sweep's next instance. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 8, delay: "1 second", backoff: "exponential" },
  timeout: "3 minutes",
};
/**
 * Upper bound on steps. With a pause after each step this is two thirds of what the platform allows an instance. At 1 to
 * 15 s a step it covers hours; then the sweep starts a new instance.
 */
const MAX_STEPS = 3_000;

export class StepWorkflow extends WorkflowEntrypoint<Env, TenantWork> {
  override async run(event: Readonly<WorkflowEvent<TenantWork>>, step: WorkflowStep): Promise<void> {
    const context = createContext(this.env);
    const work = TenantWork.parse(event.payload);
    for (let n = 1; n <= MAX_STEPS; n += 1) {
      const { done, waitMs } = await step.do(`step ${n}`, stepConfig, async () => {
        // The values of an RPC result, without its stub's methods, which a Workflow cannot store.
        const { done: isLast, waitMs: pauseMs } = await context.tenantObject(work.tenantId).advance(work);
        return { done: isLast, waitMs: pauseMs };
      });
      if (done) return;
      if (waitMs > 0) await step.sleep(`wait ${n}`, waitMs);
    }
  }
}
