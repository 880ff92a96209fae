// Executes a fleet migration a page of schemas at a time, from a terminal or in a Workflow.
// Invariants: the control tables hold the state of the run and a schema's migration can be repeated, so that a runner that
// dies loses nothing and the next one repeats nothing; the cohort is finished before any other schema is tried.
import { AppError } from "../core/errors.ts";
import {
  type Attempt,
  type Counts,
  type Plan,
  type FleetOptions,
  STOPPED_BY_OPERATOR,
  changedInShard,
  counted,
  describeDrift,
  emptyPlan,
  endState,
  explain,
  planned,
  retryAfterMs,
  stopReason,
} from "./fleet.ts";
import { type Branch, type Migrated, type Migration, migrationId, openBranch, versionOf } from "../tenant-db/branch.ts";
import type { FleetStore, ActiveRun, Result, StoredSchema } from "./fleet-store.ts";
import { ownerUrl } from "../tenant-db/dispatch.ts";
import { SqlError } from "../adapters/neon.ts";
import { describeError, log } from "../log.ts";

/** The outside effects of a run. Tests replace them. */
export interface FleetWork {
  files: readonly string[];
  /** `undefined`: the run has ended, or another attempt executes it. */
  heartbeat(): Promise<ActiveRun | undefined>;
  /** Schemas that lack files and were not tried in this run, in the order of ids. */
  untried(query: { after: number; limit: number; among?: readonly number[] }, run: ActiveRun): Promise<StoredSchema[]>;
  /** One attempt. Never throws. Can be repeated, also after a success. */
  migrate(schema: StoredSchema, options: FleetOptions): Promise<Attempt>;
  /** Stores a result once for each schema and run. `stop`: the run must not continue. */
  record(result: Result, connections: number): Promise<{ stop: boolean }>;
  recordReached(placementId: number): Promise<void>;
  finish(state: "done" | "failed" | "stopped", reason: string | null): Promise<void>;
  sleep(ms: number): Promise<void>;
  nowMs(): number;
}

/**
 * Tries the next schemas of a run, `limit` at most, and begins none after `untilMs`. Returns whether there is more to do.
 * Throws when the control tables cannot be reached; results that were stored stay stored.
 */
export async function advance(
  work: FleetWork,
  { limit, untilMs = Infinity, onResult }: Advance,
): Promise<"more" | "ended"> {
  const run = await work.heartbeat();
  if (run === undefined) return "ended";
  const { options, cohort } = run;
  const first = cohort.length === 0 ? [] : await work.untried({ among: cohort, after: 0, limit }, run);
  const page = first.length > 0 ? first : await work.untried({ after: run.reached, limit }, run);

  let counts: Counts = run.counts;
  // A share of failures is judged after the whole cohort; a number of failures is judged at once.
  const judge = (): string | undefined =>
    first.length > 0 && typeof options.stopAbove === "string"
      ? undefined
      : stopReason(options.stopAbove, counts, { cohort: cohort.length });
  let stopped = run.stopRequested ? STOPPED_BY_OPERATOR : judge();
  let superseded = false;
  let open = 0;
  let peak = 0;
  const late = (): boolean => work.nowMs() >= untilMs;

  await atMost(
    options.concurrency,
    page,
    async (schema) => {
      peak = Math.max(peak, ++open);
      const result = await untilSettled(work, schema, options);
      open -= 1;
      const { stop } = await work.record(result, peak);
      counts = counted(counts, result.outcome);
      onResult?.(schema, result);
      stopped ??= judge();
      superseded ||= stop;
    },
    () => stopped !== undefined || superseded || late(),
  );

  if (superseded) return "more"; // the next heartbeat finds out why
  if (stopped !== undefined) await work.finish("stopped", stopped);
  else if (page.length === 0) await work.finish(endState(counts), null);
  else {
    const last = page.at(-1);
    if (first.length === 0 && last !== undefined && !late()) await work.recordReached(last.placementId);
    return "more";
  }
  return "ended";
}

export interface Advance {
  limit: number;
  untilMs?: number;
  onResult?: (schema: StoredSchema, result: Result) => void;
}

async function untilSettled(work: FleetWork, schema: StoredSchema, options: FleetOptions): Promise<Result> {
  const { placementId } = schema;
  for (let tries = 1; ; tries++) {
    const startedAtMs = work.nowMs();
    const attempt = await work.migrate(schema, options);
    const waitMs = retryAfterMs(attempt, tries);
    if (waitMs === undefined) {
      const outcome = attempt.outcome === "unreachable" ? "failed" : attempt.outcome;
      const version = outcome === "applied" || outcome === "current" ? versionOf(work.files) : null;
      const tookMs = Math.round(work.nowMs() - startedAtMs);
      return { ...attempt, outcome, placementId, version, tries, tookMs };
    }
    await work.sleep(waitMs);
  }
}

/** Processes items in order, `limit` concurrently. Begins no further item once `stopped` returns true or one has thrown. */
async function atMost<Item>(
  limit: number,
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
  stopped: () => boolean,
): Promise<void> {
  const queue = items.values();
  const errors: unknown[] = [];
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (stopped() || errors.length > 0) return;
      await work(item).catch((error: unknown) => errors.push(error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  if (errors.length > 0) throw errors[0];
}

/** The variables that migrating tenants' databases needs. */
export type FleetEnvironment = Pick<Env, "NEON_FETCH_ENDPOINT" | "ENCRYPTION_KEYS">;

/** The work on real databases, for one attempt of a run. */
export function fleetWork(
  env: FleetEnvironment,
  control: FleetStore,
  { files, id, attempt }: { files: readonly Migration[]; id: number; attempt: number },
): FleetWork {
  const names = files.map(migrationId);
  const branches = new Map<string, Promise<Branch>>();
  const branchOf = ({ shard }: StoredSchema): Promise<Branch> => {
    const known = branches.get(shard.id);
    if (known !== undefined) return known;
    const opening = ownerUrl(env, shard).then((url) => openBranch(url, env.NEON_FETCH_ENDPOINT, files));
    branches.set(shard.id, opening);
    // The next schema of the shard tries again: a failure that passes must not stay for the whole step.
    opening.catch(() => branches.delete(shard.id));
    return opening;
  };
  return {
    files: names,
    heartbeat: () => control.heartbeat(id, attempt),
    untried: ({ among, ...query }, { options }) =>
      control.schemas({
        ...query,
        ...(among && { among }),
        only: options.only,
        behind: versionOf(names),
        untriedBy: id,
      }),
    async migrate(schema, options) {
      try {
        const branch = await branchOf(schema);
        return outcomeOf(await branch.migrateTenant(schema.placementId, options));
      } catch (error) {
        return failureOf(error);
      }
    },
    record: (result, connections) => control.record({ id, attempt, connections }, result),
    recordReached: (placementId) => control.recordReached(id, placementId),
    finish: (state, reason) => control.finish(id, attempt, state, reason),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    nowMs: () => Date.now(),
  };
}

function outcomeOf(migrated: Migrated): Attempt {
  if ("applied" in migrated)
    return { outcome: migrated.applied.length > 0 ? "applied" : "current", sqlState: null, reason: null };
  if (migrated.refused === "drift")
    return { outcome: "drifted", sqlState: null, reason: describeDrift(migrated.differences) };
  const reason =
    migrated.refused === "changed" ? "has changed since it was applied" : "was applied and is not in this program";
  return { outcome: "failed", sqlState: null, reason: `${migrated.file} ${reason}` };
}

/** The attempt's result for a thrown value. */
export function failureOf(error: unknown): Attempt {
  if (error instanceof SqlError) {
    const { sqlState, constraint } = error;
    const busy = sqlState === "55P03" || sqlState === "40P01";
    return { outcome: busy ? "busy" : "failed", sqlState, reason: explain(sqlState, constraint) };
  }
  if (error instanceof AppError && (error.code === "database_unavailable" || error.code === "database_silent"))
    return { outcome: "unreachable", sqlState: null, reason: "its database could not be reached" };
  // The message of an `AppError` is Tollgate's own, so it quotes no rows.
  return { outcome: "failed", sqlState: null, reason: error instanceof AppError ? error.message : "something failed" };
}

/** Plans a run with these options. Reads only the control tables, a page at a time. */
export async function planFleet(
  control: FleetStore,
  files: readonly Migration[],
  options: FleetOptions,
): Promise<Plan> {
  let plan = emptyPlan(versionOf(files.map(migrationId)));
  for (let after = 0; ;) {
    const page = await control.schemas({ after, limit: 500, only: options.only });
    const last = page.at(-1);
    if (last === undefined) return plan;
    plan = planned(plan, page, options);
    after = last.placementId;
  }
}

/**
 * The applied files that were edited, a sentence for each. Otherwise no run would notice them while no file is pending. A shard
 * that cannot be reached is left out: its pending schemas fail on their own.
 */
export async function editedFiles(
  env: FleetEnvironment,
  control: FleetStore,
  files: readonly Migration[],
  { only, concurrency }: Pick<FleetOptions, "only" | "concurrency">,
): Promise<string[]> {
  const edited = new Map<string, string[]>();
  const shards = await control.schemaShards(only);
  await atMost(
    concurrency,
    shards,
    async (shard) => {
      try {
        const branch = openBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT, files);
        const found = await branch.changedFiles(only);
        edited.set(
          shard.id,
          found.map((each) => changedInShard(`${shard.strategy} shard ${shard.id}`, each)),
        );
      } catch (error) {
        log("warn", "edited_files_not_read", { shardId: shard.id, error: describeError(error) });
      }
    },
    () => false,
  );
  return shards.flatMap(({ id }) => edited.get(id) ?? []);
}

/**
 * Plans a run that has no plan yet. Returns whether there is something to do. `edited` finds applied files that were edited: the
 * run then fails and changes nothing.
 */
export async function beginRun(
  control: FleetStore,
  { files, id, attempt }: { files: readonly Migration[]; id: number; attempt: number },
  edited?: (options: FleetOptions) => Promise<string[]>,
): Promise<"more" | "ended"> {
  const run = await control.heartbeat(id, attempt);
  if (run === undefined) return "ended";
  if (run.plan === null) {
    const changed = (await edited?.(run.options)) ?? [];
    if (changed.length > 0) {
      await control.finish(id, attempt, "failed", `Nothing was done. ${changed.join(" ")}`);
      return "ended";
    }
    await control.storePlan(id, await planFleet(control, files, run.options));
  }
  if (!run.options.dryRun) return "more";
  await control.finish(id, attempt, "done", null);
  return "ended";
}

/** How often a runner sends a heartbeat: often enough that one lost heartbeat does not matter. */
const HEARTBEAT_MS = 2_000;

/** Sends heartbeats while `work` runs. */
export async function withHeartbeat<T>(run: Pick<FleetWork, "heartbeat">, work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => void run.heartbeat().catch(() => undefined), HEARTBEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
