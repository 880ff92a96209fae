// The Workflow that executes a fleet migration for the operator's API, a page of schemas per step. Every step can be repeated
// and the control tables hold the state of the run. When a Workflow dies, its heartbeats end and the sweep starts another.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { type Context, createContext } from "../control/context.ts";
import { isolated } from "../control/failures-store.ts";
import { errorCode, errors } from "../core/errors.ts";
import { describeError, log } from "../log.ts";
import { tenantMigrations } from "../tenant-db/migrations.ts";
import { fleetStore } from "./fleet-store.ts";
import { advance, beginRun, editedFiles, fleetWork, withHeartbeat } from "./runner.ts";

export interface FleetMigrationParams {
  runId: number;
  attempt: number;
}

/** A page takes seconds. An instance has thousands of steps, enough for a hundred thousand schemas. */
const SCHEMAS_PER_STEP = 50;
/** A step begins no schema after this time, so that it ends long before its timeout. */
const STEP_MS = 60_000;
/** Retries last about half a minute, longer than a restart of the control database. */
const stepConfig: WorkflowStepConfig = {
  retries: { limit: 4, delay: "1 second", backoff: "exponential" },
  timeout: "5 minutes",
};

export class FleetMigration extends WorkflowEntrypoint<Env, FleetMigrationParams> {
  override async run(event: Readonly<WorkflowEvent<FleetMigrationParams>>, step: WorkflowStep): Promise<void> {
    const { runId, attempt } = event.payload;
    const fleet = fleetStore(createContext(this.env).control);
    const run = { files: tenantMigrations, id: runId, attempt };
    const work = fleetWork(this.env, fleet, run);
    try {
      let state = await step.do("plan", stepConfig, () =>
        withHeartbeat(work, () =>
          beginRun(fleet, run, (options) => editedFiles(this.env, fleet, tenantMigrations, options)),
        ),
      );
      for (let n = 1; state === "more"; n++) {
        state = await step.do(`schemas ${n}`, stepConfig, () =>
          withHeartbeat(work, () => advance(work, { limit: SCHEMAS_PER_STEP, untilMs: Date.now() + STEP_MS })),
        );
      }
    } catch (error) {
      log("error", "fleet_migration_failed", { runId, attempt, error: describeError(error) });
      await step.do("give up", stepConfig, () =>
        fleet.finish(runId, attempt, "stopped", errors[errorCode(error)].advice),
      );
      throw error;
    }
  }
}

/** Starts a new Workflow for each run whose heartbeats have ended. The next sweep repeats a start that fails. */
export async function resumeSilentMigrations(context: Context): Promise<void> {
  const silent = await fleetStore(context.control).resumeSilent();
  const alone = { part: "silent_migrations", idOf: ({ id }: { id: number }) => String(id) };
  await isolated(context.control, silent, alone, async ({ id, attempt }) => {
    log("warn", "fleet_migration_resumed", { runId: id, attempt });
    await context.start({ kind: "fleet_migration", runId: id, attempt });
  });
}
