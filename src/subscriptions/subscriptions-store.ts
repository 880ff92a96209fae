// Stores what Stripe's subscriptions mean for a tenant, and plan changes. A decision from Stripe's state is written only if
// the tenant's row still has the version that the decision used.
import * as z from "zod";
import { idOfRow, readableList } from "../control/failures-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";
import {
  type Limits,
  type PlanName,
  type Strategy,
  planNames,
  strategies,
  planOf,
  plans,
} from "../core/plans/plans.ts";
import { TenantId, tenantStates } from "../core/tenant/tenant.ts";
import { fromMs, toIso, toMs } from "../core/time.ts";
import { suspendedBy } from "../control/tenants-store.ts";
import { type StateChange, statesThatTake, suspenders } from "../core/tenant/tenant-state.ts";
import type { TenantSubscription } from "./subscription.ts";

const millis = z.coerce.number().int().nullable();

const SubscriptionRow = z.object({
  id: z.string(),
  version: z.coerce.number().int(),
  customerId: z.string().nullable(),
  state: z.enum(tenantStates),
  suspendedBy: z.enum(suspenders).nullable(),
  plan: z.enum(planNames),
  subscriptionId: z.string().nullable(),
  trialUntilMs: millis,
  pastDueSinceMs: millis,
  periodStartMs: millis,
  periodEndMs: millis,
  cancelAtMs: millis,
  endedAtMs: millis,
  leavesStripe: z.boolean(),
}) satisfies z.ZodType<TenantSubscription>;
type SubscriptionRow = z.infer<typeof SubscriptionRow>;

export const PlanChange = z.object({
  id: z.int(),
  tenantId: z.string(),
  fromPlan: z.enum(planNames),
  plan: z.enum(planNames),
  strategy: z.enum(strategies),
  state: z.enum(["waiting", "done", "cancelled"]),
  requestedBy: z.enum(["operator", "tenant"]),
  attempts: z.int(),
  /** How long the last attempt paused calls. The API has this name. */
  holdMs: z.int().nullable(),
  waitsFor: z.string().nullable(),
  /** Why a cancelled change could not take effect; `null`: a person cancelled it. */
  error: z.string().nullable(),
  requestedAt: z.string(),
  finishedAt: z.string().nullable(),
});
export type PlanChange = z.infer<typeof PlanChange>;

const changeColumns = `c.id::int AS id, c.tenant_id AS "tenantId", c.from_plan AS "fromPlan", c.plan, c.strategy, c.state,
  c.requested_by AS "requestedBy", c.attempts, c.pause_ms AS "holdMs", c.waits_for AS "waitsFor", c.error,
  ${toIso("c.requested_at")} AS "requestedAt", ${toIso("c.finished_at")} AS "finishedAt"`;

/** Plans by contract. A tenant that changes to one of them ends its subscription at Stripe. */
const byContract = [...plans.values()].filter(({ amountCents }) => amountCents === null).map(({ name }) => name);

export function subscriptionsStore(control: ControlDatabase) {
  return {
    async read(tenantId: TenantId): Promise<SubscriptionRow | undefined> {
      const [row] = await control.query(
        `SELECT t.id, t.version, t.stripe_customer_id AS "customerId", t.state, t.plan, t.stripe_subscription_id AS "subscriptionId",
                ${suspendedBy} AS "suspendedBy",
                ${toMs("t.trial_until")} AS "trialUntilMs", ${toMs("t.past_due_since")} AS "pastDueSinceMs",
                ${toMs("t.period_start")} AS "periodStartMs", ${toMs("t.period_end")} AS "periodEndMs",
                ${toMs("t.cancel_at")} AS "cancelAtMs", ${toMs("t.subscription_ended_at")} AS "endedAtMs",
                EXISTS (SELECT FROM plan_changes c WHERE c.tenant_id = t.id AND c.state = 'waiting' AND c.plan = ANY ($2::text[])) AS "leavesStripe"
         FROM tenants t WHERE t.id = $1`,
        [tenantId, byContract],
      );
      return row === undefined ? undefined : SubscriptionRow.parse(row);
    },

    /**
     * Writes a decision if the row still has version `version`. A new plan brings its strategy and limits, and all units of the
     * billing period count under its spend cap: Stripe does not say when it took effect. Returns false when the row has changed.
     * Then read it again.
     */
    async write(version: number, after: TenantSubscription): Promise<boolean> {
      const { limits, strategy } = planOf(after.plan);
      const rows = await control.query(
        `UPDATE tenants SET state = $3, suspended_by = $4, stripe_subscription_id = $6, trial_until = ${fromMs("$7")}, past_due_since = ${fromMs("$8")},
                period_start = ${fromMs("$9")}, period_end = ${fromMs("$10")}, cancel_at = ${fromMs("$11")}, subscription_ended_at = ${fromMs("$12")},
                strategy = CASE WHEN plan = $5 THEN strategy ELSE $13 END, limits = CASE WHEN plan = $5 THEN limits ELSE $14::jsonb END,
                sold_limits = CASE WHEN plan = $5 THEN sold_limits END, plan_since = CASE WHEN plan = $5 THEN plan_since END,
                plan = $5, version = version + 1
         WHERE id = $1 AND version = $2 RETURNING id`,
        [
          after.id,
          version,
          after.state,
          after.suspendedBy,
          after.plan,
          after.subscriptionId,
          after.trialUntilMs,
          after.pastDueSinceMs,
          after.periodStartMs,
          after.periodEndMs,
          after.cancelAtMs,
          after.endedAtMs,
          strategy,
          JSON.stringify(limits),
        ],
      );
      return rows.length > 0;
    },

    /** Drops a customer that Stripe has deleted. */
    async forgetCustomer(tenantId: TenantId, customerId: string): Promise<void> {
      await control.query(
        `UPDATE tenants SET stripe_customer_id = NULL, version = version + 1 WHERE id = $1 AND stripe_customer_id = $2`,
        [tenantId, customerId],
      );
    },

    // ---- plan changes

    /** Opens a plan change unless one waits. Returns the waiting change. `undefined`: there is no such tenant. */
    async openChange(
      tenantId: TenantId,
      wanted: { plan: PlanName; strategy: Strategy; limits: Limits; requestedBy: "operator" | "tenant" },
    ): Promise<PlanChange | undefined> {
      const [, rows = []] = await control.batch([
        {
          text: `INSERT INTO plan_changes (tenant_id, from_plan, plan, strategy, limits, requested_by)
                 SELECT id, plan, $2, $3, $4::jsonb, $5 FROM tenants WHERE id = $1 AND state = ANY ($6::text[]) ON CONFLICT DO NOTHING`,
          params: [
            tenantId,
            wanted.plan,
            wanted.strategy,
            JSON.stringify(wanted.limits),
            wanted.requestedBy,
            statesThatTake("change_plan"),
          ],
        },
        waitingChange(tenantId),
      ]);
      return rows[0] === undefined ? undefined : PlanChange.parse(rows[0]);
    },

    /** Whether a change asks for exactly this plan, strategy and limits. */
    async matches(changeId: number, wanted: { plan: PlanName; strategy: Strategy; limits: Limits }): Promise<boolean> {
      const rows = await control.query(
        `SELECT FROM plan_changes WHERE id = $1 AND plan = $2 AND strategy = $3 AND limits = $4::jsonb`,
        [changeId, wanted.plan, wanted.strategy, JSON.stringify(wanted.limits)],
      );
      return rows.length > 0;
    },

    async waitingChange(tenantId: TenantId): Promise<PlanChange | undefined> {
      const { text, params } = waitingChange(tenantId);
      const [row] = await control.query(text, params);
      return row === undefined ? undefined : PlanChange.parse(row);
    },

    /** Up to `limit` of the tenant's plan changes, newest first. `before`: those older than this change. */
    async changes(
      tenantId: TenantId,
      { before, limit }: { before?: number | undefined; limit: number } = { limit: 50 },
    ): Promise<PlanChange[]> {
      return readableList(control, limit, PlanChange, { part: "plan_changes", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${changeColumns} FROM plan_changes c WHERE tenant_id = $1 AND ($3::bigint IS NULL OR c.id < $3)
           ORDER BY c.id DESC LIMIT $2`,
          [tenantId, count, before ?? null],
        ),
      );
    },

    /** Records what a change waits for. `pauseMs`: how long calls were paused, if they were. */
    async noteChange(changeId: number, waitsFor: string, pauseMs?: number): Promise<void> {
      await control.query(
        `UPDATE plan_changes SET waits_for = $2, pause_ms = coalesce($3::integer, pause_ms), progressed_at = now()
         WHERE id = $1 AND state = 'waiting'`,
        [changeId, waitsFor, pauseMs ?? null],
      );
    },

    /** Records an attempt at Stripe before it is made. Returns its number, or `undefined` when the change is over. */
    async nextAttempt(changeId: number): Promise<number | undefined> {
      const [row] = await control.query(
        `UPDATE plan_changes SET attempts = attempts + 1, progressed_at = now() WHERE id = $1 AND state = 'waiting' RETURNING attempts`,
        [changeId],
      );
      return row === undefined ? undefined : z.int().parse(row["attempts"]);
    },

    /**
     * Puts the change into effect: the tenant gets the plan, strategy, limits and state. A tenant that changes to a plan by
     * contract loses its subscription's fields. Returns false when the tenant's row no longer has version `version`. `plan`: the
     * change's, whose numbers of today the tenant buys, unless it has the plan already.
     */
    async finishChange(
      { id: changeId, plan, fromPlan }: Pick<PlanChange, "id" | "plan" | "fromPlan">,
      pauseMs: number,
      to: { version: number; after: StateChange; spent: { sinceMs: number; spentCents: string } | undefined },
    ): Promise<boolean> {
      const { version, after, spent } = to;
      const rows = await control.query(
        `WITH done AS (
           UPDATE plan_changes SET state = 'done', waits_for = NULL, pause_ms = $3, progressed_at = now(), finished_at = now()
           WHERE id = $1 AND state = 'waiting' AND EXISTS (SELECT FROM tenants t WHERE t.id = plan_changes.tenant_id AND t.version = $4)
           RETURNING tenant_id, plan, strategy, limits, plan = ANY ($2::text[]) AS leaves)
         UPDATE tenants t SET plan = done.plan, strategy = done.strategy, limits = done.limits, version = version + 1,
                sold_limits = CASE WHEN t.plan = done.plan THEN coalesce(t.sold_limits, t.limits) ELSE $9::jsonb END,
                stripe_subscription_id = CASE WHEN done.leaves THEN NULL ELSE stripe_subscription_id END,
                period_start = CASE WHEN done.leaves THEN NULL ELSE period_start END,
                period_end = CASE WHEN done.leaves THEN NULL ELSE period_end END,
                cancel_at = CASE WHEN done.leaves THEN NULL ELSE cancel_at END,
                subscription_ended_at = CASE WHEN done.leaves THEN NULL ELSE subscription_ended_at END,
                state = $5, suspended_by = $6, trial_until = ${fromMs("$7")}, past_due_since = ${fromMs("$8")},
                plan_since = CASE WHEN $10 THEN ${fromMs("$11")} ELSE plan_since END,
                spent_before_cents = CASE WHEN $10 THEN coalesce($12::numeric, 0) ELSE spent_before_cents END
         FROM done WHERE t.id = done.tenant_id RETURNING t.id`,
        [
          changeId,
          byContract,
          pauseMs,
          version,
          after.state,
          after.suspendedBy,
          after.trialUntilMs,
          after.pastDueSinceMs,
          JSON.stringify(planOf(plan).limits),
          plan !== fromPlan,
          spent?.sinceMs ?? null,
          spent?.spentCents ?? null,
        ],
      );
      return rows.length > 0;
    },

    /** Cancels the waiting change. `error`: why it cannot take effect. Returns false when none waits. */
    async cancelChange(tenantId: TenantId, error: string | null = null): Promise<boolean> {
      const rows = await control.query(
        `UPDATE plan_changes SET state = 'cancelled', waits_for = NULL, error = $2, progressed_at = now(), finished_at = now()
         WHERE tenant_id = $1 AND state = 'waiting' RETURNING id`,
        [tenantId, error],
      );
      return rows.length > 0;
    },

    /** Tenants with a waiting plan change that has recorded nothing for `silenceMs`. */
    async silentChanges(silenceMs: number, limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT tenant_id AS id FROM plan_changes WHERE state = 'waiting'
           AND progressed_at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY progressed_at LIMIT $2`,
        [silenceMs, limit],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },
  };
}

function waitingChange(tenantId: TenantId): { text: string; params: unknown[] } {
  return {
    text: `SELECT ${changeColumns} FROM plan_changes c WHERE tenant_id = $1 AND state = 'waiting'`,
    params: [tenantId],
  };
}
