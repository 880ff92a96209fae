// The removals in the control tables. Opening, ending and undoing one also changes the tenant's row, in one transaction.
import * as z from "zod";
import { Placement } from "../core/tenant/placement.ts";
import { planNames, strategies } from "../core/plans/plans.ts";
import { type AskedBy, GRACE_MS, type RemovalStep, askers, removalSteps } from "./removal.ts";
import { TenantId, tenantStates } from "../core/tenant/tenant.ts";
import { type StateChange, statesThatTake } from "../core/tenant/tenant-state.ts";
import { placementJson } from "../control/placements-store.ts";
import { fromMs, toIso, toMs } from "../core/time.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

const RemovalRow = z.object({
  id: z.int(),
  tenantId: z.string(),
  askedBy: z.enum(askers),
  from: z.enum(tenantStates),
  step: z.enum([...removalSteps, "undone"]),
  progress: z.record(z.string(), z.unknown()),
  version: z.int(),
  reactivating: z.boolean(),
  /** How long ago a person last asked for the reactivation. */
  reactivatingForMs: z.number().nullable(),
  reactivations: z.int(),
  /** Until when the customer has paid the base price, or has a trial, although its subscription has ended. */
  paidUntilMs: z.coerce.number().nullable(),
  archive: z.record(z.string(), z.unknown()).nullable(),
  waitsFor: z.string().nullable(),
  error: z.string().nullable(),
  askedAt: z.string(),
  finishedAt: z.string().nullable(),
  /** These columns are the tenant's. */
  plan: z.enum(planNames),
  customerId: z.string().nullable(),
  subscriptionId: z.string().nullable(),
  leavingUntil: z.string().nullable(),
  deletedAt: z.string().nullable(),
});
export type Removal = z.infer<typeof RemovalRow>;

const TenantPlacement = z.object({
  id: z.int(),
  strategy: z.enum(strategies),
  shardId: z.string(),
  dropped: z.boolean(),
  /** `null`: the placement was reserved and never made, or has no login. */
  placement: Placement.nullable(),
});
/** A present or former placement of the tenant. */
export type TenantPlacement = z.infer<typeof TenantPlacement>;

const live = `r.step NOT IN ('done', 'undone')`;

/** SQL: what tenant `t` still has to be billed for, in words. Null: nothing, so its grace may end. */
const outstanding = `CASE
  WHEN EXISTS (SELECT FROM ledger l WHERE l.tenant_id = t.id AND l.report_id IS NULL AND l.carry_forward_id IS NULL)
    OR EXISTS (SELECT FROM usage_streams s WHERE s.tenant_id = t.id AND s.gap_since IS NOT NULL) THEN 'Usage that came late is not in a report yet.'
  WHEN EXISTS (SELECT FROM reports p WHERE p.tenant_id = t.id AND (p.confirmed_at IS NULL OR p.doubted_at IS NOT NULL))
    THEN 'Stripe has not confirmed all usage.'
  WHEN EXISTS (SELECT FROM carry_forwards f WHERE f.tenant_id = t.id AND f.settled_at IS NULL)
    THEN 'A charge for late usage is not on an invoice yet.' END`;

const columns = `r.id::int AS id, r.tenant_id AS "tenantId", r.asked_by AS "askedBy", r.from_state AS "from", r.step, r.progress, r.version,
  r.reactivating, floor(extract(epoch FROM now() - r.reactivating_since) * 1000)::double precision AS "reactivatingForMs", r.reactivations, ${toMs("r.paid_until")} AS "paidUntilMs", r.archive, CASE WHEN r.reactivating THEN 'It is being reactivated.' WHEN r.step = 'grace' THEN ${outstanding} ELSE r.waits_for END AS "waitsFor", r.error,
  ${toIso("r.asked_at")} AS "askedAt", ${toIso("r.finished_at")} AS "finishedAt", t.plan, t.stripe_customer_id AS "customerId",
  t.stripe_subscription_id AS "subscriptionId", ${toIso("t.leaving_until")} AS "leavingUntil", ${toIso("t.deleted_at")} AS "deletedAt"`;

/** A range of whole minutes, end exclusive, and the units that were reported to Stripe for it. */
export interface ReportedUnits {
  startSeconds: number;
  endSeconds: number;
  by: "whole";
  units: number;
}

export function removalsStore(control: ControlDatabase) {
  return {
    /**
     * Opens the removal of a tenant, unless one is open. The tenant's next call is refused; it may be reactivated for
     * `GRACE_MS`. Returns the open removal; `undefined` when there is no such tenant, or it is gone.
     */
    async open(tenantId: TenantId, askedBy: AskedBy): Promise<Removal | undefined> {
      const [, , , , rows = []] = await control.batch([
        { text: `SELECT FROM tenants WHERE id = $1 FOR UPDATE`, params: [tenantId] },
        {
          // The next sweep starts the removal of a tenant whose subscription has ended: the webhook starts no Workflow.
          text: `INSERT INTO removals (tenant_id, asked_by, from_state, progressed_at)
                 SELECT id, $2, state, CASE WHEN $2 = 'billing' THEN '-infinity' ELSE now() END FROM tenants
                 WHERE id = $1 AND state = ANY ($3::text[]) AND state <> 'leaving' ON CONFLICT DO NOTHING`,
          params: [tenantId, askedBy, statesThatTake("remove")],
        },
        {
          text: `UPDATE tenants t SET state = 'leaving', leaving_until = date_trunc('second', now()) + make_interval(secs => $2::double precision / 1000),
                        version = t.version + 1
                 FROM removals r WHERE t.id = $1 AND r.tenant_id = t.id AND ${live} AND t.state NOT IN ('leaving', 'gone')`,
          params: [tenantId, GRACE_MS],
        },
        {
          // A plan change would change a subscription that is about to end.
          text: `UPDATE plan_changes c SET state = 'cancelled', waits_for = NULL, progressed_at = now(), finished_at = now()
                 FROM tenants t WHERE c.tenant_id = $1 AND c.state = 'waiting' AND t.id = c.tenant_id AND t.state = 'leaving'`,
          params: [tenantId],
        },
        liveOf(tenantId),
      ]);
      return parsed(rows[0]);
    },

    /** The tenant's open removal: neither done nor undone. */
    async live(tenantId: TenantId): Promise<Removal | undefined> {
      const { text, params } = liveOf(tenantId);
      return parsed((await control.query(text, params))[0]);
    },

    /** The tenant's newest removal, in any state. */
    async newest(tenantId: TenantId): Promise<Removal | undefined> {
      const [row] = await control.query(
        `SELECT ${columns} FROM removals r JOIN tenants t ON t.id = r.tenant_id WHERE r.tenant_id = $1 ORDER BY r.id DESC LIMIT 1`,
        [tenantId],
      );
      return parsed(row);
    },

    /** Records the next step and its progress. Returns false when another step has recorded its progress since. */
    async record(removal: Removal, now: { step: RemovalStep; progress: object; archive?: object }): Promise<boolean> {
      const rows = await control.query(
        `UPDATE removals r SET step = $3, progress = $4::jsonb, archive = coalesce($5::jsonb, r.archive), version = r.version + 1,
                waits_for = NULL, error = NULL, progressed_at = now(), step_at = CASE WHEN r.step = $3 THEN r.step_at ELSE now() END
         WHERE r.id = $1 AND r.version = $2 RETURNING r.id`,
        [
          removal.id,
          removal.version,
          now.step,
          JSON.stringify(now.progress),
          now.archive === undefined ? null : JSON.stringify(now.archive),
        ],
      );
      return rows.length > 0;
    },

    /** Records until when the customer has paid, although its subscription has ended. */
    async recordPaidUntil(removalId: number, paidUntilMs: number | null): Promise<void> {
      await control.query(`UPDATE removals SET paid_until = ${fromMs("$2")} WHERE id = $1`, [removalId, paidUntilMs]);
    },

    /**
     * Records what the removal waits for, or what has failed, in Tollgate's words. `quietMs`: how long no sweep resumes it.
     */
    async note(removalId: number, note: { waitsFor: string } | { error: string }, quietMs = 0): Promise<void> {
      const [waitsFor, error] = "error" in note ? [null, note.error] : [note.waitsFor, null];
      await control.query(
        `UPDATE removals SET waits_for = coalesce($2, waits_for), error = $3,
                progressed_at = now() + make_interval(secs => $4::double precision / 1000)
         WHERE id = $1 AND step NOT IN ('done', 'undone')`,
        [removalId, waitsFor, error, quietMs],
      );
    },

    // ---- the end of the grace

    /** Ends a tenant's grace early. Returns false outside the grace, during a reactivation, or with unconfirmed usage. */
    async endGrace(tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `UPDATE tenants t SET leaving_until = least(t.leaving_until, now()), version = t.version + 1
         FROM removals r WHERE t.id = $1 AND r.tenant_id = t.id AND r.step = 'grace' AND NOT r.reactivating AND ${outstanding} IS NULL
         RETURNING t.id`,
        [tenantId],
      );
      return rows.length > 0;
    },

    /**
     * Starts to drop tenants whose grace has ended. This makes their removal irreversible, revokes their keys, and ends their
     * providers and secrets. A tenant with usage that Stripe has not confirmed waits. `only`: considers this tenant only.
     */
    async beginDropping(limit: number, only: TenantId | null = null): Promise<TenantId[]> {
      const ended = `r.step = 'grace' AND NOT r.reactivating AND t.leaving_until <= now() AND ($1::text IS NULL OR t.id = $1)`;
      // Locks both rows: a reactivation at this moment either happens before, or finds the removal past its grace.
      const begun = await control.query(
        `WITH due AS (SELECT r.id, r.tenant_id FROM removals r JOIN tenants t ON t.id = r.tenant_id
                              WHERE ${ended} AND ${outstanding} IS NULL ORDER BY t.leaving_until LIMIT $2 FOR UPDATE OF r, t SKIP LOCKED),
                 closed AS (UPDATE tenants t SET state = 'gone', version = t.version + 1 FROM due WHERE t.id = due.tenant_id),
                 revoked AS (UPDATE api_keys k SET revoked_at = now() FROM due WHERE k.tenant_id = due.tenant_id AND k.revoked_at IS NULL),
                 providers AS (UPDATE providers p SET removed_at = now(), client_secret = NULL FROM due
                               WHERE p.tenant_id = due.tenant_id AND p.removed_at IS NULL),
                 secrets AS (DELETE FROM tenant_secrets s USING due WHERE s.tenant_id = due.tenant_id),
                 domains AS (DELETE FROM provider_domains d USING due WHERE d.tenant_id = due.tenant_id)
                 UPDATE removals r SET step = 'archive', progress = '{}', version = r.version + 1, waits_for = NULL, error = NULL,
                        step_at = now(), progressed_at = now()
                 FROM due WHERE r.id = due.id RETURNING r.tenant_id AS id`,
        [only, limit],
      );
      return begun.map((row) => TenantId.parse(row["id"]));
    },

    /** Removals without recorded progress for `silenceMs`. With `reactivating`: reactivations instead. */
    async silent(what: { reactivating: boolean }, silenceMs: number, limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT r.tenant_id AS id FROM removals r
         WHERE ${live} AND r.reactivating = $3 AND (r.step <> 'grace' OR r.reactivating)
           AND r.progressed_at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY r.progressed_at LIMIT $2`,
        [silenceMs, limit, what.reactivating],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },

    // ---- reactivation

    /**
     * Records a person's request for a reactivation, or the sweep's repetition (`again`), and counts the attempt. `undefined`:
     * too late, or the tenant is not leaving, or there is nothing to repeat.
     */
    async requestReactivation(tenantId: TenantId, again: boolean): Promise<Removal | undefined> {
      const [, rows = []] = await control.batch([
        {
          text: `UPDATE removals r SET reactivating = true, reactivations = r.reactivations + 1, version = r.version + 1, progressed_at = now(),
                        reactivating_since = CASE WHEN $2 THEN r.reactivating_since ELSE now() END, error = NULL
                 FROM tenants t WHERE t.id = $1 AND r.tenant_id = t.id AND t.state = 'leaving' AND ${live} AND (r.reactivating OR NOT $2)`,
          params: [tenantId, again],
        },
        liveOf(tenantId),
      ]);
      const removal = parsed(rows[0]);
      return removal?.reactivating === true ? removal : undefined;
    },

    /**
     * Drops the request for a reactivation, and says why. `uncertain`: an answer of Stripe's was lost, so the removal closes
     * again, which ends a subscription that it may have left.
     */
    async abandonReactivation(removalId: number, error: string, { uncertain }: { uncertain: boolean }): Promise<void> {
      await control.query(
        `UPDATE removals SET reactivating = false, reactivating_since = NULL, progressed_at = now(), version = version + 1, error = $2,
                step = CASE WHEN $3 AND step = 'grace' THEN 'invoice' ELSE step END WHERE id = $1`,
        [removalId, error, uncertain],
      );
    },

    /**
     * Undoes the removal. `subscriptionId`: a new subscription; `null`: the tenant keeps the one that it has. Returns false when
     * the tenant's row no longer has version `version`.
     */
    async undo(
      removal: Removal,
      version: number,
      back: StateChange & { subscriptionId: string | null },
    ): Promise<boolean> {
      const rows = await control.query(
        `WITH undone AS (
           UPDATE removals r SET step = 'undone', reactivating = false, version = r.version + 1, waits_for = NULL, error = NULL,
                  step_at = now(), progressed_at = now(), finished_at = now()
           WHERE r.id = $1 AND ${live} AND EXISTS (SELECT FROM tenants t WHERE t.id = r.tenant_id AND t.state = 'leaving' AND t.version = $4)
           RETURNING r.tenant_id)
         UPDATE tenants t SET state = $2, leaving_until = NULL, stripe_subscription_id = coalesce($3::text, t.stripe_subscription_id),
                suspended_by = $5, trial_until = ${fromMs("$6")}, past_due_since = ${fromMs("$7")},
                subscription_ended_at = CASE WHEN $3::text IS NULL THEN t.subscription_ended_at END,
                cancel_at = CASE WHEN $3::text IS NULL THEN t.cancel_at END, version = t.version + 1
         FROM undone WHERE t.id = undone.tenant_id RETURNING t.id`,
        [
          removal.id,
          back.state,
          back.subscriptionId,
          version,
          back.suspendedBy,
          back.trialUntilMs,
          back.pastDueSinceMs,
        ],
      );
      return rows.length > 0;
    },

    // ---- the last usage

    /** The latest timestamp of the tenant's reports, call, or start of a period before now. `undefined`: it has none. */
    async lastUseMs(tenantId: TenantId, nowMs: number): Promise<number | undefined> {
      const [row] = await control.query(
        `SELECT ${toMs(`greatest((SELECT max(stamp) FROM reports WHERE tenant_id = $1),
           (SELECT max(at) FROM ledger WHERE tenant_id = $1 AND at <= ${fromMs("$2")}), max(starts_at))`)} AS at
         FROM subscription_periods WHERE tenant_id = $1 AND starts_at <= ${fromMs("$2")}`,
        [tenantId, nowMs],
      );
      return z.number().nullish().parse(row?.["at"]) ?? undefined;
    },

    /** All units reported for the minutes whose reports Stripe confirmed within the last day. `undefined`: there are none. */
    async confirmedLately(tenantId: TenantId): Promise<ReportedUnits | undefined> {
      const [row] = await control.query(
        `SELECT extract(epoch FROM lately.first)::bigint AS "from", extract(epoch FROM lately.last)::bigint + 60 AS "to", sum(r.units)::text AS units
         FROM (SELECT min(slot) AS first, max(slot) AS last FROM reports
               WHERE tenant_id = $1 AND confirmed_at > now() - interval '1 day' AND answer IN ('accepted', 'duplicate', 'summary')) AS lately
         JOIN reports r ON r.tenant_id = $1 AND r.slot BETWEEN lately.first AND lately.last AND r.answer IN ('accepted', 'duplicate', 'summary')
         GROUP BY lately.first, lately.last`,
        [tenantId],
      );
      if (row === undefined) return undefined;
      return {
        startSeconds: Number(row["from"]),
        endSeconds: Number(row["to"]),
        by: "whole",
        units: Number(row["units"]),
      };
    },

    // ---- dropping

    /** Records that the monitor is cancelled. A reactivation registers it again. */
    async recordUnmonitored(tenantId: TenantId): Promise<void> {
      await control.query(`UPDATE tenants SET monitored_at = NULL WHERE id = $1`, [tenantId]);
    },

    /** Ends moves and jobs of a tenant that is gone. Returns the uploads that its jobs have begun. */
    async endWork(tenantId: TenantId): Promise<unknown[]> {
      const gone = `EXISTS (SELECT FROM tenants t WHERE t.id = $1 AND t.state = 'gone')`;
      const [, , uploads = []] = await control.batch([
        {
          // The emptied object must not store them.
          text: `UPDATE fallback_calls SET counted_at = now() WHERE tenant_id = $1 AND counted_at IS NULL AND ${gone}`,
          params: [tenantId],
        },
        {
          text: `UPDATE moves SET state = 'undone', finished_at = now(), progressed_at = now(), attempt = attempt + 1
                 WHERE tenant_id = $1 AND state NOT IN ('confirmed', 'undone') AND ${gone}`,
          params: [tenantId],
        },
        {
          text: `SELECT progress -> 'upload' AS upload FROM jobs WHERE tenant_id = $1 AND progress ? 'upload'`,
          params: [tenantId],
        },
        {
          text: `UPDATE jobs SET state = 'failed', error = 'The tenant was removed.', version = version + 1, finished_at = now()
                 WHERE tenant_id = $1 AND state = 'running' AND ${gone}`,
          params: [tenantId],
        },
      ]);
      return uploads.map((row) => row["upload"]);
    },

    /** Every present and former placement of the tenant, also those that were reserved and never made. */
    async placements(tenantId: TenantId): Promise<TenantPlacement[]> {
      const rows = await control.query(
        `SELECT own.id::int AS id, held.strategy, held.id AS "shardId", own.state = 'dropped' AS dropped, ${placementJson("own.id")} AS placement
         FROM placements own JOIN shards held ON held.id = own.shard_id WHERE own.tenant_id = $1 ORDER BY own.id`,
        [tenantId],
      );
      return rows.map((row) => TenantPlacement.parse(row));
    },

    /** Records that a placement is dropped. */
    async recordDropped(placementId: number): Promise<void> {
      await control.query(
        `UPDATE placements SET state = 'dropped', dropped_at = coalesce(dropped_at, now()), login = NULL WHERE id = $1`,
        [placementId],
      );
    },

    /** The last step: clears personal data from the control tables. Returns whether the tenant is erased. */
    async erase(tenantId: TenantId): Promise<boolean> {
      const [row] = await control.query(`SELECT erase_tenant($1) AS erased`, [tenantId]);
      return row?.["erased"] === true;
    },
  };
}

export type RemovalsStore = ReturnType<typeof removalsStore>;

function liveOf(tenantId: TenantId): { text: string; params: unknown[] } {
  return {
    text: `SELECT ${columns} FROM removals r JOIN tenants t ON t.id = r.tenant_id WHERE r.tenant_id = $1 AND ${live}`,
    params: [tenantId],
  };
}

function parsed(row: Record<string, unknown> | undefined): Removal | undefined {
  return row === undefined ? undefined : RemovalRow.parse(row);
}
