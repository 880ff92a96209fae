// The table `jobs`: backups, restores and imports. A row holds the whole state of a job, so that any step can resume it.
// `version` grows with every step: a late step finds another version and changes nothing.
import * as z from "zod";
import { idOfRow, readableList } from "../control/failures-store.ts";
import { CHANGES_KEPT_MS, POINTS_KEPT_MS } from "./history.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toIso } from "../core/time.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

const jobKinds = ["backup", "restore", "import"] as const;
export type JobKind = (typeof jobKinds)[number];

const JobRow = z.object({
  id: z.int(),
  tenantId: TenantId,
  kind: z.enum(jobKinds),
  state: z.enum(["running", "done", "failed", "cancelled"]),
  request: z.record(z.string(), z.unknown()),
  progress: z.record(z.string(), z.unknown()),
  version: z.int(),
  result: z.record(z.string(), z.unknown()).nullable(),
  error: z.string().nullable(),
  startedAt: z.string(),
  progressedAt: z.string(),
  finishedAt: z.string().nullable(),
});
export type Job = z.infer<typeof JobRow>;
const SilentRow = z.object({ id: z.int(), tenantId: TenantId });

const columns = `j.id::int AS id, j.tenant_id AS "tenantId", j.kind, j.state, j.request, j.progress, j.version, j.result, j.error,
  ${toIso("j.started_at")} AS "startedAt", ${toIso("j.progressed_at")} AS "progressedAt", ${toIso("j.finished_at")} AS "finishedAt"`;

/** Failed steps in a row after which a job fails. With the Workflow's growing pauses this takes hours: as long as an outage. */
const MAX_FAILURES = 25;
/** The same for failures that are no outage. Some pass, such as a migration that ran at the moment; a bug does not. */
const MAX_OWN_FAILURES = 5;

export function jobsStore(control: ControlDatabase) {
  return {
    /**
     * Creates a job. Returns `undefined` when the tenant does not exist or is gone, when a restore or import of it is
     * already running, or when another backup has the same file key.
     */
    async create(tenantId: TenantId, kind: JobKind, request: Record<string, unknown>): Promise<Job | undefined> {
      const [row] = await control.query(
        `INSERT INTO jobs AS j (tenant_id, kind, request) SELECT id, $2, $3::jsonb FROM tenants WHERE id = $1 AND state <> 'gone'
         ON CONFLICT DO NOTHING RETURNING ${columns}`,
        [tenantId, kind, JSON.stringify(request)],
      );
      return row === undefined ? undefined : JobRow.parse(row);
    },

    async get(jobId: number): Promise<Job | undefined> {
      const [row] = await control.query(`SELECT ${columns} FROM jobs j WHERE id = $1`, [jobId]);
      return row === undefined ? undefined : JobRow.parse(row);
    },

    /** Up to `limit` of a tenant's jobs of a kind, newest first. `before`: those older than this job. */
    async history(
      tenantId: TenantId | undefined,
      kind: JobKind | undefined,
      { before, limit }: { before?: number | undefined; limit: number },
    ): Promise<Job[]> {
      return readableList(control, limit, JobRow, { part: "jobs", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${columns} FROM jobs j
           WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR kind = $2)
             AND ($4::bigint IS NULL OR id < $4) ORDER BY id DESC LIMIT $3`,
          [tenantId ?? null, kind ?? null, count, before ?? null],
        ),
      );
    },

    /** The tenant's job of a kind that a request opened at or after `sinceMs`, for this file; `undefined`: it opened none. */
    async opened(tenantId: TenantId, kind: JobKind, key: string, sinceMs: number): Promise<Job | undefined> {
      const [row] = await control.query(
        `SELECT ${columns} FROM jobs j WHERE tenant_id = $1 AND kind = $2 AND request ->> 'key' = $3
           AND started_at >= ${fromMs("$4")} ORDER BY id LIMIT 1`,
        [tenantId, kind, key, sinceMs],
      );
      return row === undefined ? undefined : JobRow.parse(row);
    },

    /** Records where the next step begins. Returns false when another step has recorded its progress since. */
    async progress(job: Job, progress: object): Promise<boolean> {
      const rows = await control.query(
        `UPDATE jobs SET progress = $3::jsonb, version = version + 1, failures = 0, error = NULL, progressed_at = now()
         WHERE id = $1 AND version = $2 AND state = 'running' RETURNING id`,
        [job.id, job.version, JSON.stringify(progress)],
      );
      return rows.length > 0;
    },

    /** Ends a job, with its result or with the reason why it failed. */
    async finish(jobId: number, outcome: { result: object } | { error: string }): Promise<void> {
      const [result, error] = "result" in outcome ? [JSON.stringify(outcome.result), null] : [null, outcome.error];
      await control.query(
        `UPDATE jobs SET state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END, result = $2::jsonb, error = $3,
                version = version + 1, progressed_at = now(), finished_at = now() WHERE id = $1 AND state = 'running'`,
        [jobId, result, error],
      );
    },

    /**
     * Cancels the tenant's running job of a kind. The database refuses everything that a step which still runs records
     * afterwards. A restore that has begun to replace rows can no longer be cancelled. Returns `undefined` when there is
     * nothing to cancel. `key`: the file of the backup.
     */
    async cancel(tenantId: TenantId, kind: JobKind, key: string | null = null): Promise<Job | undefined> {
      const [row] = await control.query(
        `UPDATE jobs AS j SET state = 'cancelled', version = version + 1, progressed_at = now(), finished_at = now()
         WHERE tenant_id = $1 AND kind = $2 AND ($3::text IS NULL OR request ->> 'key' = $3)
           AND state = 'running' AND NOT progress ? 'attempts' RETURNING ${columns}`,
        [tenantId, kind, key],
      );
      return row === undefined ? undefined : JobRow.parse(row);
    },

    /** Records a failed step, with the reason in words for the operator. Returns whether the step is to be retried. */
    async recordFailure(jobId: number, error: string, { isOutage }: { isOutage: boolean }): Promise<boolean> {
      const [row] = await control.query(
        `UPDATE jobs SET failures = failures + 1, error = $2, progressed_at = now(),
                state = CASE WHEN failures >= $3 THEN 'failed' ELSE state END,
                finished_at = CASE WHEN failures >= $3 THEN now() END
         WHERE id = $1 AND state = 'running' RETURNING state`,
        [jobId, error, isOutage ? MAX_FAILURES : MAX_OWN_FAILURES],
      );
      return row?.["state"] === "running";
    },

    /** Running jobs that have recorded nothing for `silenceMs`, the longest silent first. */
    async silent(silenceMs: number, limit: number): Promise<{ id: number; tenantId: TenantId }[]> {
      const rows = await control.query(
        `SELECT id::int AS id, tenant_id AS "tenantId" FROM jobs WHERE state = 'running'
           AND progressed_at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY progressed_at LIMIT $2`,
        [silenceMs, limit],
      );
      return rows.map((row) => SilentRow.parse(row));
    },

    // ---- the change log

    /**
     * The earliest instant that a tenant can be restored to. The change log of the current placement begins when the
     * placement was created or the last move ended, and is kept for `POINTS_KEPT_MS`. `undefined` without a placement.
     */
    async earliestPoint(tenantId: TenantId): Promise<string | undefined> {
      const [row] = await control.query(
        `SELECT ${toIso(`greatest(p.ready_at, (SELECT max(m.moved_at) FROM moves m WHERE m.tenant_id = t.id),
                  now() - make_interval(secs => $2::double precision / 1000))`)} AS at
         FROM tenants t JOIN placements p ON p.id = t.placement_id WHERE t.id = $1`,
        [tenantId, POINTS_KEPT_MS],
      );
      return row === undefined ? undefined : z.string().parse(row["at"]);
    },

    /** Shards whose change log was not pruned for a day. */
    async shardsToPrune(limit: number): Promise<string[]> {
      const rows = await control.query(
        `SELECT id FROM shards WHERE host IS NOT NULL AND owner_login IS NOT NULL
           AND coalesce(pruned_at, created_at) < now() - make_interval(secs => $2::double precision / 1000)
         ORDER BY pruned_at NULLS FIRST LIMIT $1`,
        [limit, CHANGES_KEPT_MS - POINTS_KEPT_MS],
      );
      return rows.map((row) => String(row["id"]));
    },

    /** Records that a shard's change log was pruned, or that pruning was tried. */
    async recordPruned(shardId: string): Promise<void> {
      await control.query(`UPDATE shards SET pruned_at = now() WHERE id = $1`, [shardId]);
    },
  };
}

export type JobsStore = ReturnType<typeof jobsStore>;
