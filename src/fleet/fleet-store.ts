// The control tables of fleet migrations: tenants' schemas, the runs over them, and each schema's result. One attempt of one
// runner executes a run and sends heartbeats; a run without heartbeats for `SILENCE_SECONDS` is resumed or stopped.
import * as z from "zod";
import { idOfRow, readableList, readableRows } from "../control/failures-store.ts";
import { toIso } from "../core/time.ts";
import { FleetOptions, type Outcome, Plan, outcomes } from "./fleet.ts";
import { strategies } from "../core/plans/plans.ts";
import { Shard, shardJson } from "../control/placements-store.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

/** A runner sends a heartbeat every two seconds: five lost ones mean that it has died. */
const SILENCE_SECONDS = 10;

export const Run = z.object({
  id: z.int(),
  state: z.enum(["running", "done", "failed", "stopped"]),
  /** Why it stopped. */
  reason: z.string().nullable(),
  startedBy: z.string(),
  runner: z.enum(["workflow", "terminal"]),
  attempt: z.int(),
  options: FleetOptions,
  plan: Plan.nullable(),
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
  'peakConnections', m.peak_connections, 'stopRequested', m.stop_requested, 'startedAt', ${toIso("m.started_at")},
  'progressedAt', ${toIso("m.progressed_at")}, 'finishedAt', ${toIso("m.finished_at")})`;

const StoredSchema = z.object({
  placementId: z.int(),
  tenantId: z.string(),
  shardId: z.string(),
  version: z.string().nullable(),
  shard: Shard,
});
export type StoredSchema = z.infer<typeof StoredSchema>;

/** A run with its results. */
export const Report = Run.extend({
  /** Times of the changed schemas; `null` when there are none. */
  perSchemaMs: z.object({ p50: z.int(), p95: z.int(), max: z.int() }).nullable(),
  /** Schemas that needed more than one try. */
  retried: z.int(),
  /** The first hundred failures. */
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
  /** Number of schemas by version. */
  versions: z.record(z.string(), z.int()),
  /** Schemas that their newest run did not migrate. */
  failed: z.int(),
});
export type ShardSummary = z.infer<typeof ShardSummary>;

const TenantBehind = z.object({
  tenantId: z.string(),
  shardId: z.string(),
  /** The files of its own schema, or of the shared database that has its rows. */
  version: z.string().nullable(),
});
/** A tenant whose rows lack files. */
export type TenantBehind = z.infer<typeof TenantBehind>;

const ShardBehind = z.object({ shardId: z.string(), strategy: z.enum(strategies), tenants: z.int() });
/** A shard with tenants whose rows lack files, and how many they are. */
export type ShardBehind = z.infer<typeof ShardBehind>;

/** One schema's result in a run. */
export interface Result {
  placementId: number;
  outcome: Outcome;
  /** The schema's version now; `null` when it is unchanged. */
  version: string | null;
  tries: number;
  tookMs: number;
  sqlState: string | null;
  reason: string | null;
}

/** The placements `p` with a schema of their own, on shards `s` that can be reached. */
const schemas = `FROM placements p JOIN shards s ON s.id = p.shard_id
  WHERE p.state = 'ready' AND s.strategy <> 'shared' AND s.host IS NOT NULL`;

/** SQL: a schema or shared database of the version in `column` lacks a file of the version `$1`. */
const lacks = (column: string): string =>
  `(${column} IS DISTINCT FROM $1 AND NOT string_to_array($1, ' ') <@ string_to_array(coalesce(${column}, ''), ' '))`;

/** The tenants `t` whose rows, where they are in force, lack a file of the version `$1`. Looks at each shared database once. */
const tenantsBehind = `FROM tenants t JOIN placements p ON p.id = t.placement_id JOIN shards s ON s.id = p.shard_id
  WHERE t.state <> 'gone' AND s.host IS NOT NULL AND CASE WHEN s.strategy = 'shared'
    THEN s.id IN (SELECT id FROM shards WHERE strategy = 'shared' AND ${lacks("schema_version")})
    ELSE ${lacks("p.schema_version")} END`;

export interface SchemaQuery {
  /** Schemas after this placement's id, in the order of ids. */
  after: number;
  limit: number;
  only?: readonly string[] | null;
  among?: readonly number[];
  /** Only schemas that lack a file of this version. */
  behind?: string;
  /** Only schemas that this run has not tried. */
  untriedBy?: number;
}

export function fleetStore(control: ControlDatabase) {
  const runWhere = async (condition: string, params: readonly unknown[]): Promise<Run | undefined> => {
    const [row] = await control.query(`SELECT ${runJson} AS run FROM migration_runs m WHERE ${condition}`, params);
    return row && Run.parse(row["run"]);
  };

  return {
    async schemas({ after, limit, only = null, among, behind, untriedBy }: SchemaQuery): Promise<StoredSchema[]> {
      const rows = await control.query(
        `SELECT jsonb_build_object('placementId', p.id, 'tenantId', p.tenant_id, 'shardId', s.id,
           'version', p.schema_version, 'shard', ${shardJson}) AS schema
         ${schemas} AND p.id > $1 AND ($3::text[] IS NULL OR p.tenant_id = ANY ($3))
           AND ($4::bigint[] IS NULL OR p.id = ANY ($4))
           AND ($5::text IS NULL
             OR NOT string_to_array($5, ' ') <@ string_to_array(coalesce(p.schema_version, ''), ' '))
           AND ($6::bigint IS NULL OR NOT EXISTS (
             SELECT FROM migration_results r WHERE r.run_id = $6 AND r.placement_id = p.id))
         ORDER BY p.id LIMIT $2`,
        [after, limit, only, among ?? null, behind ?? null, untriedBy ?? null],
      );
      return rows.map((row) => StoredSchema.parse(row["schema"]));
    },

    /** The given tenants that have no schema of their own. */
    async withoutSchema(tenantIds: readonly string[]): Promise<string[]> {
      const rows = await control.query(
        `SELECT wanted AS id FROM unnest($1::text[]) AS wanted
         WHERE NOT EXISTS (SELECT ${schemas} AND p.tenant_id = wanted) ORDER BY 1`,
        [tenantIds],
      );
      return rows.map((row) => String(row["id"]));
    },

    async shards(): Promise<ShardSummary[]> {
      const rows = await control.query(
        `SELECT v.id, jsonb_build_object('shardId', v.id, 'schemas', sum(v.n), 'failed', sum(v.failed),
           'versions', jsonb_object_agg(v.version, v.n)) AS shard
         FROM (SELECT s.id, coalesce(p.schema_version, '') AS version, count(*) AS n,
                 count(*) FILTER (WHERE last.outcome NOT IN ('applied', 'current')) AS failed
               FROM placements p JOIN shards s ON s.id = p.shard_id
               LEFT JOIN LATERAL (SELECT r.outcome FROM migration_results r WHERE r.placement_id = p.id
                                  ORDER BY r.run_id DESC LIMIT 1) AS last ON true
               WHERE p.state = 'ready' AND s.strategy <> 'shared' AND s.host IS NOT NULL GROUP BY 1, 2) AS v
         GROUP BY v.id ORDER BY v.id`,
      );
      const read = await readableRows(control, rows, z.object({ shard: ShardSummary }), {
        part: "migrated_shards",
        idOf: idOfRow,
      });
      return read.map(({ shard }) => shard);
    },

    /** The shards with tenants' own schemas. `only`: of these tenants; `null`: all. */
    async schemaShards(only: readonly string[] | null): Promise<Shard[]> {
      const rows = await control.query(
        `SELECT ${shardJson} AS shard FROM shards s WHERE s.id IN (
           SELECT s.id ${schemas} AND ($1::text[] IS NULL OR p.tenant_id = ANY ($1))) ORDER BY s.id`,
        [only && [...only]],
      );
      return rows.map((row) => Shard.parse(row["shard"]));
    },

    /** The shards whose tenants lack a file of this version. Reads only the control tables. */
    async shardsBehind(version: string): Promise<ShardBehind[]> {
      const rows = await control.query(
        `SELECT s.id AS "shardId", s.strategy, count(*)::int AS tenants ${tenantsBehind} GROUP BY s.id ORDER BY s.id`,
        [version],
      );
      return rows.map((row) => ShardBehind.parse(row));
    },

    /** Tenants that lack a file of this version, in the order of ids. `only`: this tenant, if it lacks one. */
    async tenantsBehind(
      version: string,
      { limit, only = null }: { limit: number; only?: TenantId | null },
    ): Promise<TenantBehind[]> {
      const rows = await control.query(
        `SELECT t.id AS "tenantId", s.id AS "shardId",
           CASE WHEN s.strategy = 'shared' THEN s.schema_version ELSE p.schema_version END AS version
         ${tenantsBehind} AND ($2::text IS NULL OR t.id = $2) ORDER BY t.id LIMIT $3`,
        [version, only, limit],
      );
      return rows.map((row) => TenantBehind.parse(row));
    },

    /** Begins a run, unless one is running, which is then returned. Stops a run without heartbeats first. */
    async open(run: {
      startedBy: string;
      runner: Runner;
      options: FleetOptions;
    }): Promise<{ run: Run } | { running: Run }> {
      const [, opened = [], running = []] = await control.batch([
        {
          text: `UPDATE migration_runs SET state = 'stopped', reason = 'its runner stopped sending heartbeats', finished_at = now()
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

    /** Runs of Workflows without heartbeats, each with the number of its next attempt. Stops such runs of terminals. */
    async resumeSilent(): Promise<{ id: number; attempt: number }[]> {
      const silent = `state = 'running' AND progressed_at < now() - make_interval(secs => $1)`;
      const [, rows = []] = await control.batch([
        {
          text: `UPDATE migration_runs SET state = 'stopped', reason = 'its runner stopped sending heartbeats', finished_at = now()
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

    /** The heartbeat of an attempt. Returns the run; `undefined` when it has ended or another attempt executes it. */
    async heartbeat(id: number, attempt: number): Promise<ActiveRun | undefined> {
      const [row] = await control.query(
        `UPDATE migration_runs m SET progressed_at = now() WHERE id = $1 AND attempt = $2 AND state = 'running'
         RETURNING ${runJson} || jsonb_build_object('cohort', m.cohort, 'reached', m.reached) AS run`,
        [id, attempt],
      );
      return row && ActiveRun.parse(row["run"]);
    },

    /** Stores the plan, once. */
    async storePlan(id: number, plan: Plan): Promise<void> {
      await control.query(`UPDATE migration_runs SET plan = $2, cohort = $3::bigint[] WHERE id = $1 AND plan IS NULL`, [
        id,
        JSON.stringify(plan),
        plan.cohort.map(({ placementId }) => placementId),
      ]);
    },

    /** Stores a schema's result, once, and counts it. Returns whether the run has to stop here. */
    async record(
      run: { id: number; attempt: number; connections: number },
      result: Result,
    ): Promise<{ stop: boolean }> {
      const [row] = await control.query(
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

    /** Records that every placement up to this one was tried. */
    async recordReached(id: number, placementId: number): Promise<void> {
      await control.query(`UPDATE migration_runs SET reached = greatest(reached, $2) WHERE id = $1`, [id, placementId]);
    },

    /** Ends a run, if this attempt executes it. */
    async finish(id: number, attempt: number, state: Run["state"], reason: string | null): Promise<void> {
      await control.query(
        `UPDATE migration_runs SET state = $3, reason = $4, finished_at = now()
         WHERE id = $1 AND attempt = $2 AND state = 'running'`,
        [id, attempt, state, reason],
      );
    },

    /** Asks a run to stop after its running schemas. Returns whether it was running. */
    async requestStop(id: number): Promise<boolean> {
      const rows = await control.query(
        `UPDATE migration_runs SET stop_requested = true WHERE id = $1 AND state = 'running' RETURNING id`,
        [id],
      );
      return rows.length > 0;
    },

    /** Up to `limit` runs, newest first. `before`: those older than this run. */
    async runs({ before, limit }: { before?: number | undefined; limit: number }): Promise<Run[]> {
      const text = `SELECT m.id, ${runJson} AS run FROM migration_runs m
         WHERE $2::bigint IS NULL OR m.id < $2 ORDER BY m.id DESC LIMIT $1`;
      const reading = { part: "migration_runs", idOf: idOfRow };
      const read = await readableList(control, limit, z.object({ run: Run }), reading, (count) =>
        control.query(text, [count, before ?? null]),
      );
      return read.map(({ run }) => run);
    },

    async report(id: number): Promise<Report | undefined> {
      const run = await runWhere("m.id = $1", [id]);
      if (run === undefined) return undefined;
      const [[amounts] = [], failures = []] = await control.batch([
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
      const ms = z.array(z.int()).nullish().parse(amounts?.["ms"]);
      return Report.parse({
        ...run,
        perSchemaMs: ms ? { p50: ms[0], p95: ms[1], max: ms[2] } : null,
        retried: amounts?.["retried"],
        failures: failures.map((row) => row["failure"]),
      });
    },
  };
}

/** A run as the attempt that executes it sees it. */
const ActiveRun = Run.extend({
  cohort: z.array(z.int()),
  /** Every placement up to this one, outside of the cohort too, was tried. */
  reached: z.int(),
});
export type ActiveRun = z.infer<typeof ActiveRun>;

export type FleetStore = ReturnType<typeof fleetStore>;
