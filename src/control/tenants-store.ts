// Tenants and their provisioning in the control tables. Every change that a tenant's object must know raises the tenant's
// version in the same statement.
import * as z from "zod";
import { type Limits, type PlanName, type Strategy, strategies } from "../core/plans.ts";
import { Features, TenantConfig, type TenantId, type TenantState } from "../core/tenant.ts";
import { placementJson } from "./placements-store.ts";
import { type ControlDatabase, type ControlSettings, connectControl } from "../adapters/neon.ts";
import { toIso, toMs } from "../core/time.ts";

export interface NewTenant {
  id: TenantId;
  name: string;
  email: string | null;
  plan: PlanName;
  strategy: Strategy;
  region: string | null;
  limits: Limits;
  allowedTools: readonly string[] | null;
  trialUntil: string | null;
  stripeCustomerId: string | null;
  stripeSubscriptionId: string | null;
  features?: Features;
}

export const TenantSummary = z.object({
  id: z.string(),
  name: z.string(),
  email: z.string().nullable(),
  plan: z.string(),
  /** What was sold. */
  strategy: z.enum(strategies),
  region: z.string().nullable(),
  /** Where the rows are; `null` until the tenant is placed. */
  placement: z
    .object({ strategy: z.enum(strategies), shardId: z.string(), schemaVersion: z.string().nullable() })
    .nullable(),
  state: z.string(),
  version: z.number(),
  deliveredVersion: z.number(),
  stripeCustomerId: z.string().nullable(),
  createdAt: z.string(),
  provisionedAt: z.string().nullable(),
  features: Features,
});
export type TenantSummary = z.infer<typeof TenantSummary>;

export interface StepRecord {
  step: string;
  startedAt: string;
  finishedAt: string | null;
  error: string | null;
}

const summaryColumns = `t.id, t.name, t.email, t.plan, t.strategy, t.region, t.state, t.features, t.version::int AS version,
  t.delivered_version::int AS "deliveredVersion", t.stripe_customer_id AS "stripeCustomerId",
  (SELECT jsonb_build_object('strategy', s.strategy, 'shardId', s.id, 'schemaVersion', p.schema_version)
   FROM placements p JOIN shards s ON s.id = p.shard_id WHERE p.id = t.placement_id) AS placement,
  ${toIso("t.created_at")} AS "createdAt", ${toIso("t.provisioned_at")} AS "provisionedAt"`;

export function tenantsStore(control: ControlDatabase) {
  return {
    /** What the tenant's object needs to decide, or `undefined` for a tenant that does not exist. */
    async config(tenantId: TenantId): Promise<TenantConfig | undefined> {
      const [row] = await control.query(
        `SELECT jsonb_build_object(
           'id', t.id, 'version', t.version, 'name', t.name, 'plan', t.plan, 'strategy', t.strategy, 'state', t.state,
           'placement', ${placementJson("t.placement_id")},
           'trialUntilMs', ${toMs("t.trial_until")},
           'leavingUntilMs', ${toMs("t.leaving_until")},
           'pastDueSinceMs', ${toMs("t.past_due_since")}, 'limits', t.limits,
           'allowedTools', t.allowed_tools, 'features', t.features,
           'keys', coalesce((SELECT jsonb_agg(jsonb_build_object('id', k.id, 'hash', k.hash,
                     'expiresAtMs', ${toMs("k.expires_at")}) ORDER BY k.id)
                   FROM api_keys k WHERE k.tenant_id = t.id AND k.revoked_at IS NULL
                     AND (k.expires_at IS NULL OR k.expires_at > now())), '[]'::jsonb)) AS config
         FROM tenants t WHERE t.id = $1`,
        [tenantId],
      );
      return row === undefined ? undefined : TenantConfig.parse(row["config"]);
    },

    /** The object has confirmed this version. */
    async delivered(tenantId: TenantId, version: number): Promise<void> {
      await control.query(`UPDATE tenants SET delivered_version = $2 WHERE id = $1 AND delivered_version < $2`, [
        tenantId,
        version,
      ]);
    },

    /** Inserts the tenant in state `provisioning`; an existing row is left as it is. */
    async insert(tenant: NewTenant): Promise<{ created: boolean }> {
      const rows = await control.query(
        `INSERT INTO tenants (id, name, email, plan, strategy, state, limits, allowed_tools, trial_until,
                              stripe_customer_id, stripe_subscription_id, region, features)
         VALUES ($1, $2, $3, $4, $5, 'provisioning', $6::jsonb, $7::text[], $8::timestamptz, $9, $10, $11, $12::jsonb)
         ON CONFLICT (id) DO NOTHING RETURNING id`,
        [
          tenant.id,
          tenant.name,
          tenant.email,
          tenant.plan,
          tenant.strategy,
          JSON.stringify(tenant.limits),
          tenant.allowedTools === null ? null : [...tenant.allowedTools],
          tenant.trialUntil,
          tenant.stripeCustomerId,
          tenant.stripeSubscriptionId,
          tenant.region,
          JSON.stringify(tenant.features ?? {}),
        ],
      );
      return { created: rows.length > 0 };
    },

    async summary(tenantId: TenantId): Promise<TenantSummary | undefined> {
      const [row] = await control.query(`SELECT ${summaryColumns} FROM tenants t WHERE t.id = $1`, [tenantId]);
      return row === undefined ? undefined : TenantSummary.parse(row);
    },

    /** Up to `limit` tenants in the order of their ids, after `after`. */
    async list(after: string, limit: number): Promise<TenantSummary[]> {
      const rows = await control.query(
        `SELECT ${summaryColumns} FROM tenants t WHERE t.id > $1 ORDER BY t.id LIMIT $2`,
        [after, limit],
      );
      return rows.map((row) => TenantSummary.parse(row));
    },

    /** Suspends the tenant for the operator, if it is in one of the states `from`. Only the operator undoes it. */
    async suspend(tenantId: TenantId, from: readonly TenantState[]): Promise<void> {
      await control.query(
        `UPDATE tenants SET state = 'suspended', suspended_by = 'operator', version = version + 1
         WHERE id = $1 AND (state = ANY($2::text[]) OR state = 'suspended' AND suspended_by = 'billing')`,
        [tenantId, [...from]],
      );
    },

    /** Resumes the tenant in the state that its subscription gives it, if it is in one of the states `from`. */
    async serve(tenantId: TenantId, from: readonly TenantState[]): Promise<void> {
      await control.query(
        `UPDATE tenants SET version = version + 1, provisioned_at = coalesce(provisioned_at, now()),
                suspended_by = CASE WHEN subscription_ended_at IS NOT NULL THEN 'billing' END,
                state = CASE WHEN subscription_ended_at IS NOT NULL THEN 'suspended' WHEN past_due_since IS NOT NULL THEN 'past_due'
                             WHEN trial_until IS NOT NULL THEN 'trial' ELSE 'active' END
         WHERE id = $1 AND state = ANY($2::text[])`,
        [tenantId, [...from]],
      );
    },

    /** Whether the tenant's object lags behind its row. */
    async isUndelivered(tenantId: TenantId): Promise<boolean> {
      return (
        (await control.query(`SELECT FROM tenants WHERE id = $1 AND delivered_version < version`, [tenantId])).length >
        0
      );
    },

    async setCustomer(tenantId: TenantId, customerId: string): Promise<void> {
      await control.query(`UPDATE tenants SET stripe_customer_id = $2 WHERE id = $1 AND stripe_customer_id IS NULL`, [
        tenantId,
        customerId,
      ]);
    },

    async setMonitored(tenantId: TenantId): Promise<void> {
      await control.query(`UPDATE tenants SET monitored_at = now() WHERE id = $1`, [tenantId]);
    },

    // ---- provisioning

    /**
     * Opens the next attempt, unless one is still going: it has not finished and made progress within `silenceMs`.
     * Returns the attempt's number, or `undefined` when there is nothing to open.
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

    async recordStep(tenantId: TenantId, attempt: number, record: StepRecord): Promise<void> {
      await control.batch([
        {
          text: `INSERT INTO provisioning_steps (tenant_id, step, attempt, started_at, finished_at, error)
                 VALUES ($1, $2, $3, $4::timestamptz, $5::timestamptz, $6)
                 ON CONFLICT (tenant_id, step) DO UPDATE SET attempt = $3, started_at = $4::timestamptz, finished_at = $5::timestamptz, error = $6
                 WHERE provisioning_steps.attempt <= $3`,
          params: [tenantId, record.step, attempt, record.startedAt, record.finishedAt, record.error],
        },
        {
          text: `UPDATE provisioning_attempts SET progressed_at = now() WHERE tenant_id = $1 AND attempt = $2`,
          params: [tenantId, attempt],
        },
      ]);
    },

    async finishAttempt(tenantId: TenantId, attempt: number, error: string | null): Promise<void> {
      await control.query(
        `UPDATE provisioning_attempts SET finished_at = now(), error = $3 WHERE tenant_id = $1 AND attempt = $2`,
        [tenantId, attempt, error],
      );
    },

    async provisioning(tenantId: TenantId): Promise<{ steps: StepRecord[]; attempts: number; error: string | null }> {
      const [steps = [], attempts = []] = await control.batch([
        {
          text: `SELECT step, ${toIso("started_at")} AS "startedAt", ${toIso("finished_at")} AS "finishedAt", error
                 FROM provisioning_steps WHERE tenant_id = $1 ORDER BY started_at`,
          params: [tenantId],
        },
        {
          text: `SELECT attempt, error FROM provisioning_attempts WHERE tenant_id = $1 ORDER BY attempt DESC LIMIT 1`,
          params: [tenantId],
        },
      ]);
      const error = attempts[0]?.["error"];
      return {
        steps: steps as unknown as StepRecord[],
        attempts: Number(attempts[0]?.["attempt"] ?? 0),
        error: typeof error === "string" ? error : null,
      };
    },

    /** Tenants whose provisioning has been silent for `silenceMs`, and tenants whose object lags behind their row. */
    async stuck(silenceMs: number, limit: number): Promise<{ provisioning: TenantId[]; undelivered: TenantId[] }> {
      const [silent = [], undelivered = []] = await control.batch([
        {
          // The second attempt may follow at once; from then on each waits a minute longer, half an hour at most.
          text: `SELECT t.id FROM tenants t WHERE ${unfinished} AND NOT EXISTS (
                   SELECT FROM provisioning_attempts a WHERE a.tenant_id = t.id
                     AND (a.finished_at IS NULL AND a.progressed_at > now() - make_interval(secs => $1::double precision / 1000)
                       OR a.started_at > now() - make_interval(mins => least(a.attempt - 1, 30))))
                 ORDER BY t.created_at LIMIT $2`,
          params: [silenceMs, limit],
        },
        {
          text: `SELECT id FROM tenants WHERE delivered_version < version AND state <> 'gone' ORDER BY id LIMIT $1`,
          params: [limit],
        },
      ]);
      return {
        provisioning: silent.map((row) => row["id"] as TenantId),
        undelivered: undelivered.map((row) => row["id"] as TenantId),
      };
    },
  };
}

/** Tenants whose provisioning is unfinished. It ends with the registration of their monitor. */
const unfinished = `(t.state = 'provisioning' OR t.state IN ('trial', 'active', 'past_due') AND t.monitored_at IS NULL)`;

/** Those of this deployment. */
export function tenantsOf(env: ControlSettings): TenantsStore {
  return tenantsStore(connectControl(env));
}

export type TenantsStore = ReturnType<typeof tenantsStore>;
export type { TenantsStore as ControlTenants };
export { toIso as instant };
