// Provisioning in the control tables: attempts and their steps. A tenant's provisioning is unfinished until its monitor is
// registered. At most one attempt is alive; the newest one counts.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId, tenantStates } from "../core/tenant/tenant.ts";
import { toIso } from "../core/time.ts";

const StepRecord = z.object({
  step: z.string(),
  startedAt: z.string(),
  finishedAt: z.string().nullable(),
  /** For the buyer. */
  error: z.string().nullable(),
  /** For the operator. */
  reason: z.string().nullable(),
});
export type StepRecord = z.infer<typeof StepRecord>;

const AttemptRecord = z.object({
  attempt: z.int(),
  startedAt: z.string(),
  finishedAt: z.string().nullable(),
  error: z.string().nullable(),
  reason: z.string().nullable(),
});
/** An attempt for the operator. */
export type AttemptRecord = z.infer<typeof AttemptRecord>;

const TenantAttempt = AttemptRecord.extend({
  tenantId: TenantId,
  tenantName: z.string(),
  tenantState: z.enum(tenantStates),
  refused: z.boolean(),
  /** The step that runs, or that the attempt ended with. */
  step: z.string().nullable(),
});
/** An attempt in the list of all tenants. */
export type TenantAttempt = z.infer<typeof TenantAttempt>;

/** Attempts that the operator sees: at half an hour each, those of the last ten hours. */
const ATTEMPTS_SHOWN = 20;

/** SQL: the provisioning of the tenant `t` is unfinished. */
const unfinished = `(t.state = 'provisioning' OR t.state IN ('trial', 'active', 'past_due') AND t.monitored_at IS NULL)`;

export function provisioningStore(control: ControlDatabase) {
  return {
    /**
     * Opens the next attempt, unless an attempt is alive (unfinished, with progress within the last `silenceMs`) or
     * provisioning is finished. Returns the attempt's number; `undefined` when it opened none.
     */
    async openAttempt(tenantId: TenantId, silenceMs: number): Promise<number | undefined> {
      const [row] = await control.query(
        `WITH tenant AS (SELECT id FROM tenants t WHERE id = $1 AND ${unfinished} FOR UPDATE)
         INSERT INTO provisioning_attempts (tenant_id, attempt)
         SELECT tenant.id, coalesce((SELECT max(attempt) FROM provisioning_attempts WHERE tenant_id = $1), 0) + 1 FROM tenant
         WHERE NOT EXISTS (SELECT FROM provisioning_attempts WHERE tenant_id = $1 AND finished_at IS NULL
                             AND progressed_at > now() - make_interval(secs => $2::double precision / 1000))
         ON CONFLICT DO NOTHING RETURNING attempt`,
        [tenantId, silenceMs],
      );
      return row === undefined ? undefined : Number(row["attempt"]);
    },

    /** Whether this attempt is the newest one: an older Workflow instance that wakes up late must stop. */
    async isCurrentAttempt(tenantId: TenantId, attempt: number): Promise<boolean> {
      const [row] = await control.query(
        `SELECT max(attempt) AS newest FROM provisioning_attempts WHERE tenant_id = $1`,
        [tenantId],
      );
      return Number(row?.["newest"]) === attempt;
    },

    /**
     * Records steps, which also shows that the attempt is alive. The last step ends the attempt, and the tenant counts as
     * monitored from then on. A step of an older attempt changes nothing. Returns whether this attempt is the newest one.
     */
    async recordSteps(
      tenantId: TenantId,
      attempt: number,
      records: readonly StepRecord[],
      { isLast } = { isLast: false },
    ): Promise<boolean> {
      const newest = records.at(-1);
      const ends = isLast && newest !== undefined && newest.finishedAt !== null;
      const reason = newest === undefined || newest.reason === null ? null : `${newest.step}: ${newest.reason}`;
      const results = await control.batch([
        ...records.map((record) => ({
          text: `INSERT INTO provisioning_steps (tenant_id, step, attempt, started_at, finished_at, error, reason)
                 VALUES ($1, $2, $3, $4::timestamptz, $5::timestamptz, $6, $7)
                 ON CONFLICT (tenant_id, step) DO UPDATE SET attempt = $3, started_at = $4::timestamptz, finished_at = $5::timestamptz,
                   error = $6, reason = $7
                 WHERE provisioning_steps.attempt <= $3`,
          params: [tenantId, record.step, attempt, record.startedAt, record.finishedAt, record.error, record.reason],
        })),
        {
          text: `UPDATE provisioning_attempts a SET progressed_at = now(), reason = coalesce($3, reason),
                   finished_at = CASE WHEN $4::boolean THEN now() ELSE finished_at END,
                   error = CASE WHEN $4::boolean AND NOT refused THEN NULL ELSE error END
                 WHERE tenant_id = $1 AND attempt = $2
                 RETURNING NOT EXISTS (
                   SELECT FROM provisioning_attempts n WHERE n.tenant_id = a.tenant_id AND n.attempt > a.attempt) AS newest`,
          params: [tenantId, attempt, reason, ends],
        },
        ...(ends ? [{ text: `UPDATE tenants SET monitored_at = now() WHERE id = $1`, params: [tenantId] }] : []),
      ]);
      return results[records.length]?.[0]?.["newest"] === true;
    },

    /**
     * Ends an attempt that failed. `error`: why, unless the failing step has recorded it. A recorded refusal stays. The error of
     * a step reaches the Workflow without its code, so that the record knows more.
     */
    async failAttempt(tenantId: TenantId, attempt: number, error: string): Promise<void> {
      await control.query(
        `UPDATE provisioning_attempts SET finished_at = now(), error = CASE WHEN refused THEN error ELSE coalesce(
           (SELECT s.error FROM provisioning_steps s WHERE s.tenant_id = $1 AND s.attempt = $2 AND s.error IS NOT NULL
            ORDER BY s.started_at DESC LIMIT 1), $3) END
         WHERE tenant_id = $1 AND attempt = $2`,
        [tenantId, attempt, error],
      );
    },

    /** An outside system refused a step of the attempt for good: no attempt follows by itself. */
    async recordRefusal(tenantId: TenantId, attempt: number, error: string): Promise<void> {
      await control.query(
        `UPDATE provisioning_attempts SET refused = true, error = $3, progressed_at = now() WHERE tenant_id = $1 AND attempt = $2`,
        [tenantId, attempt, error],
      );
    },

    /** The steps so far, the number of attempts, the newest attempt's failure, and the newest attempts for the operator. */
    async progress(
      tenantId: TenantId,
    ): Promise<{ steps: StepRecord[]; attempts: number; error: string | null; attemptLog: AttemptRecord[] }> {
      const [steps = [], attempts = []] = await control.batch([
        {
          text: `SELECT step, ${toIso("started_at")} AS "startedAt", ${toIso("finished_at")} AS "finishedAt", error, reason
                 FROM provisioning_steps WHERE tenant_id = $1 ORDER BY started_at`,
          params: [tenantId],
        },
        {
          text: `SELECT attempt, ${toIso("started_at")} AS "startedAt", ${toIso("finished_at")} AS "finishedAt", error, reason
                 FROM provisioning_attempts WHERE tenant_id = $1 ORDER BY attempt DESC LIMIT $2`,
          params: [tenantId, ATTEMPTS_SHOWN],
        },
      ]);
      const attemptLog = attempts.map((row) => AttemptRecord.parse(row));
      const [newest] = attemptLog;
      return {
        steps: steps.map((row) => StepRecord.parse(row)),
        attempts: newest?.attempt ?? 0,
        error: newest?.error ?? null,
        attemptLog,
      };
    },

    /** The newest attempts of all tenants, the latest first: of each tenant its newest. `unfinishedOnly`: of provisionings that are not done. */
    async newest(limit: number, { unfinishedOnly }: { unfinishedOnly: boolean }): Promise<TenantAttempt[]> {
      const rows = await control.query(
        `SELECT a.attempt, ${toIso("a.started_at")} AS "startedAt", ${toIso("a.finished_at")} AS "finishedAt", a.error, a.reason,
                a.refused, t.id AS "tenantId", t.name AS "tenantName", t.state AS "tenantState",
                (SELECT s.step FROM provisioning_steps s WHERE s.tenant_id = t.id ORDER BY s.started_at DESC LIMIT 1) AS step
         FROM tenants t CROSS JOIN LATERAL (
           SELECT * FROM provisioning_attempts WHERE tenant_id = t.id ORDER BY attempt DESC LIMIT 1) AS a
         WHERE NOT $2::boolean OR ${unfinished} ORDER BY a.started_at DESC, t.id LIMIT $1`,
        [limit, unfinishedOnly],
      );
      return rows.map((row) => TenantAttempt.parse(row));
    },

    /** Stores the customer at Stripe, unless the tenant has one. */
    async setCustomer(tenantId: TenantId, customerId: string): Promise<void> {
      await control.query(`UPDATE tenants SET stripe_customer_id = $2 WHERE id = $1 AND stripe_customer_id IS NULL`, [
        tenantId,
        customerId,
      ]);
    },

    /**
     * Tenants whose provisioning is unfinished, and whose newest attempt has ended or been silent for `silenceMs`. Without those
     * whose newest attempt was refused for good.
     */
    async silent(silenceMs: number, limit: number): Promise<TenantId[]> {
      // The second attempt may follow at once. From then on each waits a minute longer, half an hour at most.
      const rows = await control.query(
        `SELECT t.id FROM tenants t WHERE ${unfinished} AND NOT EXISTS (
           SELECT FROM provisioning_attempts a WHERE a.tenant_id = t.id
             AND (a.refused AND a.attempt = (SELECT max(attempt) FROM provisioning_attempts WHERE tenant_id = t.id)
               OR a.finished_at IS NULL AND a.progressed_at > now() - make_interval(secs => $1::double precision / 1000)
               OR a.started_at > now() - make_interval(mins => least(a.attempt - 1, 30))))
         ORDER BY t.created_at LIMIT $2`,
        [silenceMs, limit],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },
  };
}
