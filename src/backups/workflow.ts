// The Workflow that goes on with a backup, a restore or an import: it asks the tenant's object for one piece after the
// other. All that is known of a job stands in the control tables, so that another instance can go on where one has ended;
// the sweep starts it. The sweep also shortens the logs of changes that points in time are restored by.
import { createContext } from "../control/context.ts";
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep, type WorkflowStepConfig } from "cloudflare:workers";
import { jobsStore } from "./jobs-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { ownerUrl } from "../tenant-db/dispatch.ts";
import { connectNeon } from "../adapters/neon.ts";
import { CHANGES_KEPT_MS, pruneLog } from "./history.ts";
import { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";

export interface ArchivingParams {
  tenantId: string;
  jobId: number;
}

const stepConfig: WorkflowStepConfig = {
  retries: { limit: 8, delay: "1 second", backoff: "exponential" },
  timeout: "3 minutes",
};
/** Of 8 s each, and two steps a piece at most: a third of what an instance may have. */
const MAX_PIECES = 3_000;
/** A job that has recorded nothing for this long is taken up by another instance. */
const SILENCE_MS = 120_000;

/** A statement's worth: some hundred milliseconds. */
const PRUNE_ROWS = 10_000;
/** Of one sweep: a database that sleeps is woken once a day for this, and not all of them at once. */
const PRUNE_SHARDS = 5;
const PRUNE_WITHIN_MS = 10_000;

export class Archiving extends WorkflowEntrypoint<Env, ArchivingParams> {
  override async run(event: Readonly<WorkflowEvent<ArchivingParams>>, step: WorkflowStep): Promise<void> {
    const { jobId } = event.payload;
    const tenantId = TenantId.parse(event.payload.tenantId);
    for (let piece = 1; piece <= MAX_PIECES; piece += 1) {
      const { done, waitMs } = await step.do(`piece ${piece}`, stepConfig, async () => {
        // A new stub each time: one whose object has ended stays broken.
        const { done: last, waitMs: pause } = await this.env.TENANT.getByName(tenantId).jobOn(jobId);
        return { done: last, waitMs: pause };
      });
      if (done) return;
      if (waitMs > 0) await step.sleep(`wait ${piece}`, waitMs);
    }
  }
}

/** Starts other instances for jobs that have gone silent. */
export async function resumeSilentJobs(env: Env, limit: number): Promise<void> {
  for (const { id, tenantId } of await jobsStore(createContext(env).control).silent(SILENCE_MS, limit)) {
    log("warn", "job_resumed", { tenantId, job: id });
    await env.ARCHIVING.create({ id: `job-${id}-${crypto.randomUUID()}`, params: { tenantId, jobId: id } });
  }
}

/** Forgets changes that no point in time is restored by any more, in some of the shards whose day has come. */
export async function pruneChanges(env: Env): Promise<void> {
  const untilMs = Date.now() + PRUNE_WITHIN_MS;
  const [jobs, placements] = [jobsStore(createContext(env).control), placementsStore(createContext(env).control)];
  for (const shardId of await jobs.shardsToPrune(PRUNE_SHARDS)) {
    try {
      const shard = await placements.shard(shardId);
      if (shard === undefined) continue;
      const owner = connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
      // What is left over waits for the next sweep.
      while ((await pruneLog(owner, CHANGES_KEPT_MS, PRUNE_ROWS)) === PRUNE_ROWS) if (Date.now() > untilMs) return;
    } catch (error) {
      log("error", "changes_not_pruned", { shard: shardId, error: describeError(error) });
    }
    await jobs.recordPruned(shardId); // one that could not be reached waits for its turn like the others
  }
}
