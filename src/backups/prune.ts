// Deletes old entries of the change logs, which restores to a point in time read. The sweep prunes each shard once a day.
import type { Context } from "../control/context.ts";
import { jobsStore } from "./jobs-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { ownerUrl } from "../tenant-db/dispatch.ts";
import { connectNeon } from "../adapters/neon.ts";
import { CHANGES_KEPT_MS, pruneLog } from "./history.ts";
import { describeError, log } from "../log.ts";

/** Rows that one statement deletes, in about a hundred milliseconds. */
const PRUNE_ROWS = 10_000;
/** Shards in one sweep. Pruning wakes a sleeping database, so the sweep does not wake all of them at once. */
const PRUNE_SHARDS = 5;
/** Upper bound on one sweep's pruning. */
const PRUNE_WITHIN_MS = 10_000;

/** Deletes changes that are too old to restore to, in some of the shards whose turn has come. */
export async function pruneChanges({ env, control }: Context): Promise<void> {
  const untilMs = Date.now() + PRUNE_WITHIN_MS;
  const [jobs, placements] = [jobsStore(control), placementsStore(control)];
  for (const shardId of await jobs.shardsToPrune(PRUNE_SHARDS)) {
    try {
      const shard = await placements.shard(shardId);
      if (shard === undefined) continue;
      const owner = connectNeon(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT);
      // The next sweep deletes what is left.
      while ((await pruneLog(owner, CHANGES_KEPT_MS, PRUNE_ROWS)) === PRUNE_ROWS) if (Date.now() > untilMs) return;
    } catch (error) {
      log("error", "changes_not_pruned", { shard: shardId, error: describeError(error) });
    }
    await jobs.recordPruned(shardId); // a shard that could not be reached waits for its next turn like the others
  }
}
