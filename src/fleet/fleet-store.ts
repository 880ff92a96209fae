// The control tables of fleet migrations: the schemas there are, the runs over them, and how each schema came out. A run
// is lent to whoever executes it: it belongs to one attempt of one runner, and is taken for dead when that goes silent.
import * as z from "zod";
import { FleetOptions, type Outcome, type Plan, outcomes } from "./fleet.ts";
import { Shard, shardJson } from "../control/placements-store.ts";
import { type ControlSettings, type NeonConnection, connectControl } from "../adapters/neon.ts";

/** Whoever executes a run gives a sign of life every second or two. */
const SILENCE_SECONDS = 10;

const iso = (column: string): string => `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const Run = z.object({
  id: z.int(),
  state: z.enum(["running", "done", "failed", "stopped"]),
  /** Why it stopped. */
  reason: z.string().nullable(),
  startedBy: z.string(),
  runner: z.enum(["workflow", "terminal"]),
  attempt: z.int(),
  options: FleetOptions,
  plan: z.custom<Plan>().nullable(),
  counts: z.record(z.enum(outcomes), z.int()),
  peakConnections: z.int(),
  stopRequested: z.boolean(),
  startedAt: z.iso.datetime(),
  progressedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().nullable(),
});
export type Run = z.infer<typeof Run>;
export type Runner = Run["runner"];

const runJson = `jsonb_build_object('id', m.id, 'state', m.state, 'reason', m.reason, 'startedBy', m.started_by,
  'runner', m.runner, 'attempt', m.attempt, 'options', m.options, 'plan', m.plan, 'counts',
  jsonb_build_object(${outcomes.map((outcome) => `'${outcome}', m.${outcome}`).join(", ")}),
  'peakConnections', m.peak_connections, 'stopRequested', m.stop_requested, 'startedAt', ${iso("m.started_at")},
  'progressedAt', ${iso("m.progressed_at")}, 'finishedAt', ${iso("m.finished_at")})`;

const StoredSchema = z.object({
  placementId: z.int(),
  tenantId: z.string(),
  shardId: z.string(),
  version: z.string().nullable(),
  shard: Shard,
});
export type StoredSchema = z.infer<typeof StoredSchema>;

/** A run with what it amounts to. */
const Report = Run.extend({
  /** Of the schemas that were changed. `null` when there are none. */
  perSchemaMs: z.object({ p50: z.int(), p95: z.int(), max: z.int() }).nullable(),
  /** Schemas that needed more than one try. */
  retried: z.int(),
  /** The first hundred. */
  failures: z.array(
    z.object({
      tenantId: z.string(),
      shardId: z.string(),
      outcome: z.enum(outcomes),
      sqlState: z.string().nullable(),
      reason: z.string().nullable(),
    }),
  ),
});
export type Report = z.infer<typeof Report>;

const ShardSummary = z.object({
  shardId: z.string(),
  schemas: z.int(),
  /** How many schemas have which version. */
  versions: z.record(z.string(), z.int()),
  /** Those that their newest run has not brought to where it went. */
  failed: z.int(),
});
export type ShardSummary = z.infer<typeof ShardSummary>;

/** One schema's way through a run. */
export interface Result {
  placementId: number;
  outcome: Outcome;
  /** What the schema has now; `null` when nothing has changed. */
  version: string | null;
  tries: number;
  tookMs: number;
  sqlState: string | null;
  reason: string | null;
}

/** The placements `p` with schemas of their own, on shards `s` that can be reached. */
const schemas = `FROM placements p JOIN shards s ON s.id = p.shard_id
  WHERE p.state = 'ready' AND s.strategy <> 'shared' AND s.host IS NOT NULL`;

export interface SchemaQuery {
  /** In the order of their ids, after this one. */
  after: number;
  limit: number;
  only?: readonly string[] | null;
  among?: readonly number[];
  /** Those that lack this file. */
  behind?: string;
  /** Those that this run has not tried. */
  untriedBy?: number;
}

export function controlFleet(db: NeonConnection) {
  const runWhere = async (condition: string, params: readonly unknown[]): Promise<Run | undefined> => {
    const [row] = await db.query(`SELECT ${runJson} AS run FROM migration_runs m WHERE ${condition}`, params);
    return row && Run.parse(row["run"]);
  };

  return {
    async schemas({ after, limit, only = null, among, behind, untriedBy }: SchemaQuery): Promise<StoredSchema[]> {
      const rows = await db.query(
        `SELECT jsonb_build_object('placementId', p.id, 'tenantId', p.tenant_id, 'shardId', s.id,
           'version', p.schema_version, 'shard', ${shardJson}) AS schema
         ${schemas} AND p.id > $1 AND ($3::text[] IS NULL OR p.tenant_id = ANY ($3))
           AND ($4::bigint[] IS NULL OR p.id = ANY ($4))
           AND ($5::text IS NULL OR coalesce(p.schema_version, '') COLLATE "C" < $5)
           AND ($6::bigint IS NULL OR NOT EXISTS (
             SELECT FROM migration_results r WHERE r.run_id = $6 AND r.placement_id = p.id))
         ORDER BY p.id LIMIT $2`,
        [after, limit, only, among ?? null, behind ?? null, untriedBy ?? null],
      );
      return rows.map((row) => StoredSchema.parse(row["schema"]));
    },

    /** Those of the tenants that have no schema of their own. */
    async without(tenantIds: readonly string[]): Promise<string[]> {
      const rows = await db.query(
        `SELECT wanted AS id FROM unnest($1::text[]) AS wanted
         WHERE NOT EXISTS (SELECT ${schemas} AND p.tenant_id = wanted) ORDER BY 1`,
        [tenantIds],
      );
      return rows.map((row) => String(row["id"]));
    },

    async shards(): Promise<ShardSummary[]> {
      const rows = await db.query(
        `SELECT jsonb_build_object('shardId', v.id, 'schemas', sum(v.n), 'failed', sum(v.failed),
           'versions', jsonb_object_agg(v.version, v.n)) AS shard
         FROM (SELECT s.id, coalesce(p.schema_version, '') AS version, count(*) AS n,
                 count(*) FILTER (WHERE last.outcome NOT IN ('applied', 'current')) AS failed
               FROM placements p JOIN shards s ON s.id = p.shard_id
               LEFT JOIN LATERAL (SELECT r.outcome FROM migration_results r WHERE r.placement_id = p.id
                                  ORDER BY r.run_id DESC LIMIT 1) AS last ON true
               WHERE p.state = 'ready' AND s.strategy <> 'shared' AND s.host IS NOT NULL GROUP BY 1, 2) AS v
         GROUP BY v.id ORDER BY v.id`,
      );
      return rows.map((row) => ShardSummary.parse(row["shard"]));
    },

    /** Begins a run, unless one is running: then that one is returned. One that has gone silent is stopped first. */
    async open(run: {
      startedBy: string;
      runner: Runner;
      options: FleetOptions;
    }): Promise<{ run: Run } | { running: Run }> {
      const [, opened = [], running = []] = await db.batch([
        {
          text: `UPDATE migration_runs SET state = 'stopped', reason = 'it went silent', finished_at = now()
                 WHERE state = 'running' AND progressed_at < now() - make_interval(secs => $1)`,
          params: [SILENCE_SECONDS],
        },
        {
          text: `INSERT INTO migration_runs AS m (started_by, runner, options) SELECT $1, $2, $3
                 WHERE NOT EXISTS (SELECT FROM migration_runs WHERE state = 'running')
                 ON CONFLICT ((true)) WHERE state = 'running' DO NOTHING RETURNING ${runJson} AS run`,
          params: [run.startedBy, run.runner, JSON.stringify(run.options)],
        },
        { text: `SELECT ${runJson} AS run FROM migration_runs m WHERE m.state = 'running'` },
      ]);
      const [mine] = opened;
      return mine === undefined ? { running: Run.parse(running[0]?.["run"]) } : { run: Run.parse(mine["run"]) };
    },

    /** Runs of Workflows that went silent, each with the attempt that is now to execute it. Those of terminals are stopped. */
    async takeUpSilent(): Promise<{ id: number; attempt: number }[]> {
      const silent = `state = 'running' AND progressed_at < now() - make_interval(secs => $1)`;
      const [, rows = []] = await db.batch([
        {
          text: `UPDATE migration_runs SET state = 'stopped', reason = 'it went silent', finished_at = now()
                 WHERE ${silent} AND runner = 'terminal'`,
          params: [SILENCE_SECONDS],
        },
        {
          text: `UPDATE migration_runs SET attempt = attempt + 1, progressed_at = now()
                 WHERE ${silent} AND runner = 'workflow' RETURNING id::int AS id, attempt`,
          params: [SILENCE_SECONDS],
        },
      ]);
      return z.array(z.object({ id: z.int(), attempt: z.int() })).parse(rows);
    },

    /**
     * A sign of life: the run goes on, and this is it. `undefined` when it has ended, or another attempt executes it.
     */
    async take(id: number, attempt: number): Promise<Lent | undefined> {
      const [row] = await db.query(
        `UPDATE migration_runs m SET progressed_at = now() WHERE id = $1 AND attempt = $2 AND state = 'running'
         RETURNING ${runJson} || jsonb_build_object('cohort', m.cohort, 'reached', m.reached) AS run`,
        [id, attempt],
      );
      return row && Lent.parse(row["run"]);
    },

    async keepPlan(id: number, plan: Plan): Promise<void> {
      await db.query(`UPDATE migration_runs SET plan = $2, cohort = $3::bigint[] WHERE id = $1 AND plan IS NULL`, [
        id,
        JSON.stringify(plan),
        plan.cohort.map(({ placementId }) => placementId),
      ]);
    },

    /** Keeps how a schema came out, once, and counts it. Returns whether the run is to stop here. */
    async record(
      run: { id: number; attempt: number; connections: number },
      result: Result,
    ): Promise<{ stop: boolean }> {
      const [row] = await db.query(
        `WITH fresh AS (
           INSERT INTO migration_results (run_id, placement_id, outcome, tries, took_ms, sql_state, reason)
           VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING outcome),
         placed AS (UPDATE placements SET schema_version = $8 WHERE id = $2 AND $8::text IS NOT NULL)
         UPDATE migration_runs SET progressed_at = now(), peak_connections = greatest(peak_connections, $9),
           ${outcomes.map((each) => `${each} = ${each} + (SELECT count(*) FROM fresh WHERE outcome = '${each}')`).join(", ")}
         WHERE id = $1 RETURNING stop_requested OR attempt <> $10 OR state <> 'running' AS stop`,
        [
          ...[run.id, result.placementId, result.outcome, result.tries, result.tookMs, result.sqlState, result.reason],
          ...[result.version, run.connections, run.attempt],
        ],
      );
      return { stop: row?.["stop"] !== false };
    },

    /** Every placement up to this one was tried. */
    async reach(id: number, placementId: number): Promise<void> {
      await db.query(`UPDATE migration_runs SET reached = greatest(reached, $2) WHERE id = $1`, [id, placementId]);
    },

    async finish(id: number, attempt: number, state: Run["state"], reason: string | null): Promise<void> {
      await db.query(
        `UPDATE migration_runs SET state = $3, reason = $4, finished_at = now()
         WHERE id = $1 AND attempt = $2 AND state = 'running'`,
        [id, attempt, state, reason],
      );
    },

    /** Has it stop when the schemas that are under way are done. Returns whether it was running. */
    async askToStop(id: number): Promise<boolean> {
      const rows = await db.query(
        `UPDATE migration_runs SET stop_requested = true WHERE id = $1 AND state = 'running' RETURNING id`,
        [id],
      );
      return rows.length > 0;
    },

    async runs(limit: number): Promise<Run[]> {
      const rows = await db.query(`SELECT ${runJson} AS run FROM migration_runs m ORDER BY m.id DESC LIMIT $1`, [
        limit,
      ]);
      return rows.map((row) => Run.parse(row["run"]));
    },

    async report(id: number): Promise<Report | undefined> {
      const run = await runWhere("m.id = $1", [id]);
      if (run === undefined) return undefined;
      const [[amounts] = [], failures = []] = await db.batch([
        {
          text: `SELECT count(*) FILTER (WHERE tries > 1)::int AS retried,
                   percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY took_ms)
                     FILTER (WHERE outcome = 'applied') AS ms
                 FROM migration_results WHERE run_id = $1`,
          params: [id],
        },
        {
          text: `SELECT jsonb_build_object('tenantId', p.tenant_id, 'shardId', p.shard_id, 'outcome', r.outcome,
                   'sqlState', r.sql_state, 'reason', r.reason) AS failure
                 FROM migration_results r JOIN placements p ON p.id = r.placement_id
                 WHERE r.run_id = $1 AND r.outcome NOT IN ('applied', 'current') ORDER BY r.at, p.id LIMIT 100`,
          params: [id],
        },
      ]);
      const ms = amounts?.["ms"] as number[] | null | undefined;
      return Report.parse({
        ...run,
        perSchemaMs: ms ? { p50: ms[0], p95: ms[1], max: ms[2] } : null,
        retried: amounts?.["retried"],
        failures: failures.map((row) => row["failure"]),
      });
    },
  };
}

/** A run in the hands of whoever executes it. */
const Lent = Run.extend({
  cohort: z.array(z.int()),
  /** Every other placement up to this one was tried. */
  reached: z.int(),
});
export type Lent = z.infer<typeof Lent>;

export type ControlFleet = ReturnType<typeof controlFleet>;

/** Those of this deployment. */
export function fleetOf(env: ControlSettings): ControlFleet {
  return controlFleet(connectControl(env));
}
