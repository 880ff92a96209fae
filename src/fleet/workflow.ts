// The Workflow that executes a fleet migration for the operator's API, some schemas a step. What a step does can be
// repeated, and the run is in the control tables: when a runtime dies with its Workflow, the sweep starts another one.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { fleetOf } from "./fleet-store.ts";
import { advance, alive, begin, fleetWork } from "./runner.ts";
import { errorCode, errors } from "../core/errors.ts";
import { describeError, log } from "../log.ts";
import { tenantMigrations } from "../tenant-db/migrations.ts";

export interface FleetMigrationParams {
  runId: number;
  attempt: number;
}

/** A step takes some seconds, and no new schema after this; the engine keeps thousands of steps. */
const SCHEMAS_PER_STEP = 50;
const STEP_MS = 60_000;
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 4, delay: "1 second", backoff: "exponential" },
  timeout: "5 minutes",
};

export class FleetMigration extends WorkflowEntrypoint<Env, FleetMigrationParams> {
  override async run(event: Readonly<WorkflowEvent<FleetMigrationParams>>, step: WorkflowStep): Promise<void> {
    const { runId, attempt } = event.payload;
    const control = fleetOf(this.env);
    const run = { files: tenantMigrations, id: runId, attempt };
    const work = fleetWork(this.env, control, run);
    try {
      let state = await step.do("plan", stepConfig, () => alive(work, () => begin(control, run)));
      for (let n = 1; state === "more"; n++) {
        state = await step.do(`schemas ${n}`, stepConfig, () =>
          alive(work, () => advance(work, { limit: SCHEMAS_PER_STEP, untilMs: Date.now() + STEP_MS })),
        );
      }
    } catch (error) {
      log("error", "fleet_migration_failed", { runId, attempt, error: describeError(error) });
      await step.do("give up", stepConfig, () =>
        control.finish(runId, attempt, "stopped", errors[errorCode(error)].advice),
      );
      throw error;
    }
  }
}

/** Starts the Workflow of a run. When that fails the run goes silent, and the sweep starts another one. */
export async function resumeSilentMigrations(env: Env): Promise<void> {
  for (const { id, attempt } of await fleetOf(env).takeUpSilent()) {
    log("warn", "fleet_migration_resumed", { runId: id, attempt });
    await env.FLEET.create({ id: `migration-${id}-attempt-${attempt}`, params: { runId: id, attempt } });
  }
}
