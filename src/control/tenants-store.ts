// Tenants in the control tables. Every change that a tenant's object must know raises the tenant's version in the same
// statement.
import * as z from "zod";
import { Features, Limits, type PlanName, type Strategy, planNames, strategies } from "../core/plans/plans.ts";
import { Settings } from "../core/tenant/settings.ts";
import { TenantConfig, TenantId, type TenantState, tenantStates } from "../core/tenant/tenant.ts";
import { type StateChange, type TenantEvent, afterEvent, suspenders } from "../core/tenant/tenant-state.ts";
import { idOfRow, readableList } from "./failures-store.ts";
import { placementJson } from "./placements-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";
import { fromMs, toIso, toMs } from "../core/time.ts";
import { AppError } from "../core/errors.ts";

export interface NewTenant {
  id: TenantId;
  name: string;
  email: string | null;
  plan: PlanName;
  strategy: Strategy;
  region: string | null;
  limits: Limits;
  /** The numbers of the plan, where `limits` override some. */
  soldLimits?: Limits;
  allowedTools: readonly string[] | null;
  trialUntil: string | null;
  stripeCustomerId: string | null;
  stripeSubscriptionId: string | null;
  features?: Features;
}

/** The new values of an account. What is absent stays as it is. */
export interface ChangedAccount {
  name?: string | undefined;
  email?: string | null | undefined;
  allowedTools?: readonly string[] | null | undefined;
  region?: string | null | undefined;
  features?: Features | undefined;
  limits?: Limits | undefined;
  /** The numbers that were sold. Given with `limits`. */
  soldLimits?: Limits | undefined;
  settings?: Settings | undefined;
  /** The end of the trial, with the state that the table of states gives it. */
  trial?: Pick<StateChange, "state" | "trialUntilMs"> | undefined;
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
  state: z.enum(tenantStates),
  version: z.number(),
  deliveredVersion: z.number(),
  stripeCustomerId: z.string().nullable(),
  stripeSubscriptionId: z.string().nullable(),
  createdAt: z.string(),
  provisionedAt: z.string().nullable(),
  limits: Limits,
  /** `null`: every tool. */
  allowedTools: z.array(z.string()).nullable(),
  features: Features,
  trialUntil: z.string().nullable(),
});
export type TenantSummary = z.infer<typeof TenantSummary>;

/** What a list of tenants is narrowed to. Absent: any. */
export interface TenantSearch {
  /** A part of the name, the e-mail address or the id, in any case. */
  q?: string | undefined;
  state?: TenantState | undefined;
  plan?: PlanName | undefined;
  /** What was sold. */
  strategy?: Strategy | undefined;
  /** Where the rows are or, before they have a place, must be. */
  region?: string | undefined;
}

/** The region of the tenant `t`. */
const regionOf = `coalesce(
  (SELECT s.region FROM placements p JOIN shards s ON s.id = p.shard_id WHERE p.id = t.placement_id), t.region)`;

/** The pattern of LIKE for texts that contain `part`. The column has lower case. */
function likeAnywhere(part: string | undefined): string | null {
  return part === undefined ? null : `%${part.toLowerCase().replaceAll(/[\\%_]/g, String.raw`\$&`)}%`;
}

/** Who suspended the tenant `t`. A removal keeps it for a reactivation. */
export const suspendedBy = `CASE t.state WHEN 'suspended' THEN coalesce(t.suspended_by, 'operator') WHEN 'leaving' THEN t.suspended_by END`;

const milliseconds = z.coerce.number().int().nullable();

const TenantFacts = z.object({
  version: z.int(),
  state: z.enum(tenantStates),
  suspendedBy: z.enum(suspenders).nullable(),
  trialUntilMs: milliseconds,
  pastDueSinceMs: milliseconds,
  endedAtMs: milliseconds,
  customerId: z.string().nullable(),
  subscriptionId: z.string().nullable(),
});
const StoredConfiguration = z.object({
  version: z.int(),
  plan: z.enum(planNames),
  state: z.enum(tenantStates),
  region: z.string().nullable(),
  /** Whether the rows have a place. */
  isPlaced: z.boolean(),
  limits: Limits,
  /** The numbers that the plan had when the tenant bought it. */
  soldLimits: Limits,
  allowedTools: z.array(z.string()).nullable(),
  features: Features,
  settings: Settings,
});
export type StoredConfiguration = z.infer<typeof StoredConfiguration>;

/** The fields of a tenant's row that decide its state. */
export type TenantFacts = z.infer<typeof TenantFacts>;

/** Maximum number of attempts to write a change. Others write the tenant's row, too. */
const MAX_WRITES = 5;

/** What decides about the spend cap of the tenant `t`. Periods that share one payment begin with the first of them. */
export const billingJson = `jsonb_build_object(
  'periodStartMs', ${toMs(`coalesce((SELECT max(f.starts_at) FROM subscription_periods s
     JOIN subscription_periods f ON f.tenant_id = s.tenant_id AND f.starts_at <= s.starts_at AND NOT f.shares_included
     WHERE s.tenant_id = t.id AND s.starts_at = t.period_start AND s.shares_included), t.period_start)`)},
  'periodEndMs', ${toMs("t.period_end")}, 'planSinceMs', ${toMs("t.plan_since")},
  'spentBeforeCents', t.spent_before_cents::text, 'ownCapCents', t.settings #> '{spend,capCents}')`;

const summaryColumns = `t.id, t.name, t.email, t.plan, t.strategy, t.region, t.state, t.features, t.limits, t.allowed_tools AS "allowedTools",
  ${toIso("t.trial_until")} AS "trialUntil", t.stripe_subscription_id AS "stripeSubscriptionId", t.version::int AS version,
  t.delivered_version::int AS "deliveredVersion", t.stripe_customer_id AS "stripeCustomerId",
  (SELECT jsonb_build_object('strategy', s.strategy, 'shardId', s.id, 'schemaVersion', p.schema_version)
   FROM placements p JOIN shards s ON s.id = p.shard_id WHERE p.id = t.placement_id) AS placement,
  ${toIso("t.created_at")} AS "createdAt", ${toIso("t.provisioned_at")} AS "provisionedAt"`;

export function tenantsStore(control: ControlDatabase) {
  return {
    /** The configuration by which the tenant's object decides; `undefined` for a tenant that does not exist. */
    async config(tenantId: TenantId): Promise<TenantConfig | undefined> {
      const [row] = await control.query(
        `SELECT jsonb_build_object(
           'id', t.id, 'version', t.version, 'name', t.name, 'plan', t.plan, 'strategy', t.strategy, 'state', t.state,
           'placement', ${placementJson("t.placement_id")},
           'trialUntilMs', ${toMs("t.trial_until")},
           'suspendedBy', CASE WHEN t.state = 'suspended' THEN coalesce(t.suspended_by, 'operator') END,
           'leavingUntilMs', ${toMs("t.leaving_until")},
           'pastDueSinceMs', ${toMs("t.past_due_since")}, 'limits', t.limits,
           'billing', ${billingJson},
           'allowedTools', t.allowed_tools, 'features', t.features, 'branding', coalesce(t.settings -> 'branding', '{}'),
           'secrets', coalesce((SELECT jsonb_object_agg(s.name, s.value) FROM tenant_secrets s WHERE s.tenant_id = t.id), '{}'),
           'keys', coalesce((SELECT jsonb_agg(jsonb_build_object('id', k.id, 'hash', k.hash,
                     'expiresAtMs', ${toMs("least(k.expires_at, k.overlap_until)")}, 'lineId', k.line_id, 'tools', k.tools,
                     'unitsPerMonth', k.units_per_month,
                     'memberId', CASE WHEN k.created_by_kind = 'member' THEN k.created_by_id END) ORDER BY k.id)
                   FROM api_keys k WHERE k.tenant_id = t.id AND k.revoked_at IS NULL
                     AND coalesce(least(k.expires_at, k.overlap_until) > now(), true)), '[]'::jsonb),
           'links', coalesce((SELECT jsonb_agg(jsonb_build_object('issuer', l.issuer, 'organisation', l.organisation))
                    FROM tenant_links l WHERE l.tenant_id = t.id), '[]'::jsonb),
           'members', coalesce((SELECT jsonb_agg(jsonb_build_object('id', m.id, 'role', m.role, 'issuer', m.issuer,
                        'subject', m.subject, 'signInsSinceMs', ${toMs("m.sign_ins_since")}) ORDER BY m.id)
                      FROM members m WHERE m.tenant_id = t.id AND m.removed_at IS NULL), '[]'::jsonb),
           'removedMembers', coalesce((SELECT jsonb_agg(jsonb_build_object('issuer', m.issuer, 'subject', m.subject) ORDER BY m.id)
                             FROM members m WHERE m.tenant_id = t.id AND m.removed_at IS NOT NULL AND m.issuer IS NOT NULL),
                             '[]'::jsonb)) AS config
         FROM tenants t WHERE t.id = $1`,
        [tenantId],
      );
      return row === undefined ? undefined : TenantConfig.parse(row["config"]);
    },

    /** What the operator and the tenant's admin configure, as stored; `undefined` for a tenant that does not exist. */
    async configuration(tenantId: TenantId): Promise<StoredConfiguration | undefined> {
      const [row] = await control.query(
        `SELECT t.version::int AS version, t.plan, t.state, t.region, t.placement_id IS NOT NULL AS "isPlaced", t.limits,
                coalesce(t.sold_limits, t.limits) AS "soldLimits", t.allowed_tools AS "allowedTools", t.features, t.settings
         FROM tenants t WHERE t.id = $1`,
        [tenantId],
      );
      return row === undefined ? undefined : StoredConfiguration.parse(row);
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
                              stripe_customer_id, stripe_subscription_id, region, features, sold_limits)
         VALUES ($1, $2, $3, $4, $5, 'provisioning', $6::jsonb, $7::text[], $8::timestamptz, $9, $10, $11, $12::jsonb, $13::jsonb)
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
          tenant.soldLimits === undefined ? null : JSON.stringify(tenant.soldLimits),
        ],
      );
      return { created: rows.length > 0 };
    },

    /** Changes an account that still has this version. Returns false when another change came first. */
    async changeAccount(tenantId: TenantId, version: number, to: ChangedAccount): Promise<boolean> {
      const given = (value: unknown): boolean => value !== undefined;
      const rows = await control.query(
        `UPDATE tenants SET version = version + 1, name = coalesce($3, name),
           email = CASE WHEN $4::boolean THEN $5 ELSE email END,
           allowed_tools = CASE WHEN $6::boolean THEN $7::text[] ELSE allowed_tools END,
           features = coalesce($8::jsonb, features), limits = coalesce($9::jsonb, limits),
           trial_until = CASE WHEN $10::boolean THEN ${fromMs("$11")} ELSE trial_until END, state = coalesce($12, state),
           region = CASE WHEN $13::boolean THEN $14 ELSE region END,
           settings = coalesce($15::jsonb, settings), sold_limits = coalesce($16::jsonb, sold_limits)
         WHERE id = $1 AND version = $2 AND state <> 'gone' RETURNING id`,
        [
          ...[tenantId, version, to.name ?? null, given(to.email), to.email ?? null],
          ...[given(to.allowedTools), to.allowedTools ?? null],
          ...[to.features ?? null, to.limits ?? null].map((value) => (value === null ? null : JSON.stringify(value))),
          ...[given(to.trial), to.trial?.trialUntilMs ?? null, to.trial?.state ?? null],
          ...[given(to.region), to.region ?? null],
          ...[to.settings ?? null, to.soldLimits ?? null].map((value) =>
            value === null ? null : JSON.stringify(value),
          ),
        ],
      );
      return rows.length > 0;
    },

    async summary(tenantId: TenantId): Promise<TenantSummary | undefined> {
      const [row] = await control.query(`SELECT ${summaryColumns} FROM tenants t WHERE t.id = $1`, [tenantId]);
      return row === undefined ? undefined : TenantSummary.parse(row);
    },

    /**
     * Up to `limit` tenants that fit the search, in the order of their ids, after `after`. `next`: the last id of the page,
     * `null` at the end.
     */
    async list(
      after: string,
      limit: number,
      search: TenantSearch = {},
    ): Promise<{ tenants: TenantSummary[]; next: string | null }> {
      const { q, state, plan, strategy, region } = search;
      const text = `SELECT ${summaryColumns} FROM tenants t
         WHERE t.id > $1 AND ($3::text IS NULL OR t.search LIKE $3) AND ($4::text IS NULL OR t.state = $4)
           AND ($5::text IS NULL OR t.plan = $5) AND ($6::text IS NULL OR t.strategy = $6)
           AND ($7::text IS NULL OR ${regionOf} = $7)
         ORDER BY t.id LIMIT $2`;
      const wanted = [likeAnywhere(q), state ?? null, plan ?? null, strategy ?? null, region ?? null];
      const found = await readableList(control, limit + 1, TenantSummary, { part: "tenants", idOf: idOfRow }, (count) =>
        control.query(text, [after, count, ...wanted]),
      );
      const tenants = found.slice(0, limit);
      return { tenants, next: found.length > limit ? (tenants.at(-1)?.id ?? null) : null };
    },

    /** Every region that a tenant's rows are in or must be in, and every region of a shard. */
    async regions(): Promise<string[]> {
      const rows = await control.query(
        `SELECT region FROM shards UNION SELECT region FROM tenants WHERE region IS NOT NULL ORDER BY region`,
      );
      return rows.map((row) => String(row["region"]));
    },

    /** The facts that decide the tenant's state; `undefined` for a tenant that does not exist. */
    async facts(tenantId: TenantId): Promise<TenantFacts | undefined> {
      const [row] = await control.query(
        `SELECT t.version::int AS version, t.state, ${suspendedBy} AS "suspendedBy", ${toMs("t.trial_until")} AS "trialUntilMs",
                ${toMs("t.past_due_since")} AS "pastDueSinceMs", ${toMs("t.subscription_ended_at")} AS "endedAtMs",
                t.stripe_customer_id AS "customerId", t.stripe_subscription_id AS "subscriptionId"
         FROM tenants t WHERE t.id = $1`,
        [tenantId],
      );
      return row === undefined ? undefined : TenantFacts.parse(row);
    },

    /**
     * Applies an event to the tenant's state by the table of states. Returns the facts afterwards, and whether the table
     * allows the event; `undefined` when there is no such tenant. An event that changes nothing writes nothing. `known`: the
     * facts that the caller has just read.
     */
    async change(
      tenantId: TenantId,
      event: TenantEvent,
      nowMs: number,
      known?: TenantFacts,
    ): Promise<{ facts: TenantFacts; possible: boolean } | undefined> {
      for (let attempt = 1; attempt <= MAX_WRITES; attempt += 1) {
        const facts = attempt === 1 && known !== undefined ? known : await this.facts(tenantId);
        if (facts === undefined) return undefined;
        const after = afterEvent(facts, event, nowMs);
        if (after === undefined) return { facts, possible: false };
        const changed = { ...facts, ...after };
        const isSame = JSON.stringify(changed) === JSON.stringify(facts);
        if (isSame && event !== "provisioned") return { facts, possible: true };
        const rows = await control.query(
          `UPDATE tenants SET state = $3, suspended_by = $4, trial_until = ${fromMs("$5")}, past_due_since = ${fromMs("$6")},
                  provisioned_at = CASE WHEN $7 THEN coalesce(provisioned_at, now()) ELSE provisioned_at END, version = version + 1
           WHERE id = $1 AND version = $2 RETURNING version::int AS version`,
          [
            tenantId,
            facts.version,
            after.state,
            after.suspendedBy,
            after.trialUntilMs,
            after.pastDueSinceMs,
            event === "provisioned",
          ],
        );
        const version = rows[0]?.["version"];
        if (version !== undefined) return { facts: { ...changed, version: Number(version) }, possible: true };
      }
      throw new AppError("control_unavailable", "the tenant's row changes faster than it is written");
    },

    /** Whether the tenant's object lags behind its row. One that is being set up reads the row when it is activated. */
    async isUndelivered(tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `SELECT FROM tenants WHERE id = $1 AND delivered_version < version AND state <> 'provisioning'`,
        [tenantId],
      );
      return rows.length > 0;
    },

    /** Tenants whose object lags behind their row. */
    async undelivered(limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT id FROM tenants WHERE delivered_version < version AND state <> 'gone' ORDER BY id LIMIT $1`,
        [limit],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },
  };
}

export type TenantsStore = ReturnType<typeof tenantsStore>;
