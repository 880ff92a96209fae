// Stores charged calls in the ledger, and reads the state of the pipeline from a call to Stripe for the indicators. Each
// function is one transaction and can be repeated. Invariant: a row of the ledger never changes its tenant, tool, units or
// instant; a message that contradicts a row is stored as a conflict.
import * as z from "zod";
import { readableList } from "./failures-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toIso, toMs } from "../core/time.ts";
import { FALLBACK_STREAM, type FallbackCall, type UsageMessage, type UsageRow } from "../core/usage.ts";

const Watermark = z.object({
  tenantId: TenantId,
  object: z.string(),
  epoch: z.string(),
  /** All rows up to this number are in the ledger. */
  watermark: z.coerce.number().int(),
});
type Watermark = z.infer<typeof Watermark>;

export interface Recorded {
  watermarks: Watermark[];
  /** The recorded fallback calls that their tenants' objects do not count yet. */
  uncounted: UncountedCall[];
}

export const UncountedCall = z.object({
  tenantId: TenantId,
  callId: z.string(),
  tool: z.string(),
  units: z.coerce.number().int(),
  atMs: z.coerce.number().int(),
}) satisfies z.ZodType<FallbackCall>;
export type UncountedCall = z.infer<typeof UncountedCall>;

export const Conflict = z.object({
  callId: z.string(),
  /** The row that came later. The ledger keeps the first one. */
  incoming: z.record(z.string(), z.unknown()),
  /** Of `incoming`. One call may have several conflicts. */
  digest: z.string(),
  seenAt: z.string(),
});
export type Conflict = z.infer<typeof Conflict>;

const age = z.number().nullable();
const count = z.number();

/** The state of the pipeline from a call to Stripe. Ages are in seconds. `null`: nothing waits. */
const PipelineState = z.object({
  /** Age of the oldest charge that its tenant's object had to send again and the ledger does not have. */
  outboxSeconds: age,
  /** Age of the oldest usage that is not frozen into a report. */
  unsealedSeconds: age,
  /** How far in the future the latest unreported usage is dated. */
  aheadSeconds: age,
  unconfirmedSeconds: age,
  /** Doubted reports: only a summary can tell whether Stripe has them. */
  ambiguousReports: count,
  /** Reports that Stripe refuses as they stand. */
  refusedReports: count,
  /** Reports in whose minute Stripe has other units. */
  mismatchedReports: count,
  /** Meter events of the last day that Stripe accepted and then refused. */
  meterErrors: count,
  /** Carry-forwards that are not billed yet. `carryForwardSeconds`: how long the oldest price has been known. */
  carryForwards: count,
  refusedCarryForwards: count,
  carryForwardSeconds: age,
  /** Open differences between the reports and Stripe: their units, and the number of tenants. */
  driftUnits: count,
  /** How long the oldest late usage has no price, since the end of its period. Negative while the period runs. */
  unpricedSeconds: age,
  /** Difference in units between invoices and the calls of their periods. */
  invoiceDriftUnits: z.number(),
  driftTenants: count,
  lastReconciliationSeconds: age,
  sequenceGaps: count,
  /** Calls that came with two payloads, and that no operator has acknowledged. */
  conflicts: count,
  /** Messages that the ledger refused and that no operator has replayed or dismissed. */
  deadLetters: count,
  /** Age of the oldest fallback call that its tenant's object does not count. */
  uncountedCallSeconds: age,
  inboxLagSeconds: age,
  /** Stripe events that name an unknown tenant, and that no operator has dismissed. */
  unknownTenantWebhooks: count,
  /** Stripe events that Stripe or our key made impossible to apply, and that no operator has dismissed. */
  setAsideWebhooks: count,
  /** Items of background work that failed three times or more, and within the last 15 minutes. */
  repeatedFailures: count,
  subscriptionIssues: count,
  stuckTenants: count,
  stuckRemovals: count,
  lastWebhookSeconds: age,
  lastStripeAnswerSeconds: age,
  lastReportRunSeconds: age,
  lastSweepSeconds: age,
});
export type PipelineState = z.infer<typeof PipelineState>;

const Heartbeat = z.object({ atMs: z.coerce.number() });

export type Ledger = ReturnType<typeof ledgerStore>;

export function ledgerStore(control: ControlDatabase) {
  return {
    /**
     * Writes each row to the ledger once, and moves each stream's watermark to the end of its rows without a gap. A row that
     * comes again with other content is stored as a conflict and never overwrites.
     *
     * A fallback call with an idempotency key may come several times, with other instants. The tenant's object may also send a
     * fallback call, if it charged the call before its answer was lost. The first is the charge. The object's row keeps its
     * number in the object's sequence either way.
     */
    async record(messages: readonly UsageMessage[]): Promise<Recorded> {
      const rows = messages.flatMap(({ tenantId, object, epoch, rows: own }) =>
        own.map((row) => ({
          call_id: row.callId,
          tenant_id: tenantId,
          object,
          epoch,
          n: row.n,
          tool: row.tool,
          units: row.units,
          at_ms: row.atMs,
        })),
      );
      // All writers use one order, so that two consumers with the same rows wait for each other instead of deadlocking.
      rows.sort((a, b) => (a.call_id < b.call_id ? -1 : 1));
      const params = [JSON.stringify(rows)];
      const [, , , , watermarks = [], uncounted = []] = await control.batch([
        {
          text: `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at)
                 SELECT call_id, tenant_id, object, epoch, n, tool, units, ${incomingInstant} FROM ${incoming} ON CONFLICT DO NOTHING`,
          params,
        },
        {
          // The object already counts a call that it has charged.
          text: `INSERT INTO fallback_calls (call_id, tenant_id, counted_at)
                 SELECT i.call_id, i.tenant_id, CASE WHEN l.object <> '${FALLBACK_STREAM}' THEN now() END
                 FROM ${incoming} JOIN ledger l USING (call_id, tenant_id) WHERE i.object = '${FALLBACK_STREAM}' ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `UPDATE fallback_calls o SET object = i.object, epoch = i.epoch, n = i.n, counted_at = coalesce(o.counted_at, now())
                 FROM ${incoming} JOIN ledger l USING (call_id, tenant_id)
                 WHERE i.object <> '${FALLBACK_STREAM}' AND l.object = '${FALLBACK_STREAM}'
                   AND o.call_id = i.call_id AND o.tenant_id = i.tenant_id AND o.n IS NULL`,
          params,
        },
        {
          text: `INSERT INTO ledger_conflicts (call_id, incoming)
                 SELECT i.call_id, to_jsonb(i) FROM ${incoming} LEFT JOIN ledger l USING (call_id) LEFT JOIN fallback_calls o USING (call_id)
                 WHERE NOT coalesce(
                   (l.tenant_id, l.tool, l.units) = (i.tenant_id, i.tool, i.units)
                   AND ((l.object, l.epoch, l.n, l.at) = (i.object, i.epoch, i.n, ${incomingInstant})
                     OR i.object = '${FALLBACK_STREAM}'
                     OR i.object <> '${FALLBACK_STREAM}' AND l.object = '${FALLBACK_STREAM}' AND (o.object, o.epoch, o.n) = (i.object, i.epoch, i.n)), false)
                 ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `WITH streams AS (
                   SELECT DISTINCT i.tenant_id, i.object, i.epoch, coalesce(s.watermark, 0) AS watermark
                   FROM ${incoming} LEFT JOIN usage_streams s USING (tenant_id, object, epoch) WHERE i.object <> '${FALLBACK_STREAM}'),
                 runs AS (
                   SELECT s.*, l.n, l.n - row_number() OVER (PARTITION BY s.tenant_id, s.object, s.epoch ORDER BY l.n) AS run
                   FROM streams s LEFT JOIN LATERAL (
                     SELECT n FROM ledger WHERE tenant_id = s.tenant_id AND object = s.object AND epoch = s.epoch AND n > s.watermark
                     UNION SELECT n FROM fallback_calls WHERE tenant_id = s.tenant_id AND object = s.object AND epoch = s.epoch AND n > s.watermark) l ON true),
                 reached AS (
                   SELECT tenant_id, object, epoch, coalesce(max(n) FILTER (WHERE run = watermark), watermark) AS watermark,
                          coalesce(max(n), watermark) AS highest
                   FROM runs GROUP BY tenant_id, object, epoch, runs.watermark)
                 INSERT INTO usage_streams AS s (tenant_id, object, epoch, watermark, highest, gap_since)
                 SELECT tenant_id, object, epoch, watermark, highest, CASE WHEN highest > watermark THEN now() END FROM reached
                 ORDER BY tenant_id, object, epoch
                 ON CONFLICT (tenant_id, object, epoch) DO UPDATE SET
                   watermark = greatest(s.watermark, excluded.watermark),
                   highest = greatest(s.highest, excluded.highest),
                   gap_since = CASE WHEN greatest(s.highest, excluded.highest) > greatest(s.watermark, excluded.watermark)
                                    THEN coalesce(s.gap_since, now()) END
                 RETURNING tenant_id AS "tenantId", object, epoch, watermark`,
          params,
        },
        {
          text: `SELECT ${fallbackCallColumns} FROM fallback_calls o JOIN ledger l USING (call_id) JOIN ${incoming} USING (call_id)
                 WHERE i.object = '${FALLBACK_STREAM}' AND o.counted_at IS NULL`,
          params,
        },
      ]);
      return {
        watermarks: watermarks.map((row) => Watermark.parse(row)),
        uncounted: uncounted.map((row) => UncountedCall.parse(row)),
      };
    },

    /** Records the oldest row of an object that the ledger has not acknowledged for too long. */
    async noteLate({ tenantId, object, epoch }: Omit<UsageMessage, "rows">, first: UsageRow): Promise<void> {
      await control.query(
        `INSERT INTO late_outboxes (tenant_id, object, epoch, n, at) VALUES ($1, $2, $3, $4, ${fromMs("$5")})
         ON CONFLICT (tenant_id, object, epoch) DO UPDATE SET n = excluded.n, at = excluded.at, noted_at = now()`,
        [tenantId, object, epoch, first.n, first.atMs],
      );
    },

    /** Records that a part of the system was alive at `nowMs`. An earlier time changes nothing. */
    async heartbeat(name: string, nowMs: number): Promise<void> {
      await control.query(
        `INSERT INTO heartbeats AS h (name, at) VALUES ($1, ${fromMs("$2")})
         ON CONFLICT (name) DO UPDATE SET at = greatest(h.at, excluded.at)`,
        [name, nowMs],
      );
    },

    /** The latest heartbeat of a part in epoch milliseconds. `null`: it has never had one. */
    async lastHeartbeatMs(name: string): Promise<number | null> {
      const [row] = await control.query(`SELECT ${toMs("at")} AS "atMs" FROM heartbeats WHERE name = $1`, [name]);
      return row === undefined ? null : Heartbeat.parse(row).atMs;
    },

    /**
     * Up to `limit` calls that arrived with another payload and are not acknowledged, the oldest first. `after`: those that
     * come after this one in the list.
     */
    async conflicts(limit: number, after?: Pick<Conflict, "seenAt" | "callId" | "digest">): Promise<Conflict[]> {
      // Clients see milliseconds, so the order has no finer ones.
      const order = `date_trunc('milliseconds', seen_at), call_id, md5(incoming::text)`;
      return readableList(
        control,
        limit,
        Conflict,
        { part: "usage_conflicts", idOf: ({ callId }) => String(callId) },
        (most) =>
          control.query(
            `SELECT call_id AS "callId", incoming, md5(incoming::text) AS digest, ${toIso("seen_at")} AS "seenAt"
             FROM ledger_conflicts
             WHERE acknowledged_at IS NULL AND ($2::timestamptz IS NULL OR (${order}) > ($2, $3::text, $4::text))
             ORDER BY ${order} LIMIT $1`,
            [most, after?.seenAt ?? null, after?.callId ?? null, after?.digest ?? null],
          ),
      );
    },

    /** Records that the operator has seen the conflicts of these calls. Returns the calls. */
    async acknowledgeConflicts(callIds: readonly string[]): Promise<string[]> {
      const rows = await control.query(
        `UPDATE ledger_conflicts SET acknowledged_at = now() WHERE call_id = ANY ($1::text[]) AND acknowledged_at IS NULL
         RETURNING call_id AS id`,
        [[...callIds]],
      );
      return [...new Set(rows.map((row) => z.string().parse(row["id"])))];
    },

    /** The state of the whole pipeline at `nowMs`, in one round trip. */
    async pipeline(nowMs: number): Promise<PipelineState> {
      const [row] = await control.query(
        `WITH n AS (SELECT ${fromMs("$1")} AS now)
         SELECT unfrozen.*, ahead.*, unsettled.*, carried.*, drifted.*, invoiced.*, compared.*,
                (SELECT extract(epoch FROM n.now - min(o.at)) FROM late_outboxes o LEFT JOIN usage_streams s USING (tenant_id, object, epoch)
                 WHERE coalesce(s.watermark, 0) < o.n)::double precision AS "outboxSeconds",
                (SELECT coalesce(sum(errors), 0) FROM meter_errors WHERE until_at > n.now - interval '1 day')::int AS "meterErrors",
                (SELECT count(*) FROM usage_streams WHERE gap_since < n.now - interval '2 minutes')::int AS "sequenceGaps",
                (SELECT count(*) FROM ledger_conflicts WHERE acknowledged_at IS NULL)::int AS conflicts,
                (SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL AND dismissed_at IS NULL)::int AS "deadLetters",
                (SELECT extract(epoch FROM n.now - min(o.received_at)) FROM fallback_calls o JOIN tenants t ON t.id = o.tenant_id
                 WHERE o.counted_at IS NULL AND t.state <> 'gone')::double precision AS "uncountedCallSeconds",
                (SELECT extract(epoch FROM n.now - min(coalesce(retried_at, received_at))) FROM webhook_inbox WHERE applied_at IS NULL)::double precision AS "inboxLagSeconds",
                (SELECT count(*) FROM webhook_inbox WHERE is_open AND outcome = 'unknown_tenant')::int AS "unknownTenantWebhooks",
                (SELECT count(*) FROM webhook_inbox WHERE is_open AND outcome IN ('unknown_object', 'refused'))::int AS "setAsideWebhooks",
                (SELECT count(*) FROM failures WHERE part = 'subscriptions')::int AS "subscriptionIssues",
                (SELECT count(*) FROM failures WHERE part <> 'subscriptions' AND times >= 3 AND last_at > n.now - interval '15 minutes')::int AS "repeatedFailures",
                (SELECT count(*) FROM tenants t WHERE state = 'provisioning' AND created_at < n.now - interval '10 minutes')::int AS "stuckTenants",
                (SELECT count(*) FROM removals WHERE step NOT IN ('grace', 'done', 'undone') AND step_at < n.now - interval '1 hour')::int AS "stuckRemovals",
                (SELECT extract(epoch FROM n.now - max(received_at)) FROM webhook_inbox)::double precision AS "lastWebhookSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'stripe')::double precision AS "lastStripeAnswerSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'report')::double precision AS "lastReportRunSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'sweep')::double precision AS "lastSweepSeconds"
         FROM n,
           -- The age of a late row counts from its arrival. The oldest 1,000 rows are enough for an alarm.
           LATERAL (SELECT extract(epoch FROM n.now - min(greatest(at, received_at)))::double precision AS "unsealedSeconds"
                    FROM (SELECT at, received_at FROM ledger WHERE report_id IS NULL AND carry_forward_id IS NULL ORDER BY at LIMIT 1000)) unfrozen,
           LATERAL (SELECT extract(epoch FROM nullif(greatest(max(at), n.now), n.now) - n.now)::double precision AS "aheadSeconds"
                    FROM ledger WHERE report_id IS NULL AND carry_forward_id IS NULL) ahead,
           LATERAL (SELECT extract(epoch FROM n.now - min(frozen_at) FILTER (WHERE confirmed_at IS NULL))::double precision AS "unconfirmedSeconds",
                           count(*) FILTER (WHERE doubted_at IS NOT NULL AND alarm IS NULL)::int AS "ambiguousReports",
                           count(*) FILTER (WHERE alarm = 'refused')::int AS "refusedReports",
                           count(*) FILTER (WHERE alarm = 'mismatch')::int AS "mismatchedReports"
                    FROM reports WHERE confirmed_at IS NULL OR doubted_at IS NOT NULL) unsettled,
           LATERAL (SELECT count(*)::int AS "carryForwards", count(error)::int AS "refusedCarryForwards",
                           extract(epoch FROM n.now - min(priced_at))::double precision AS "carryForwardSeconds",
                           -- A carry-forward has no price while its period runs. Its age counts from the end of the period.
                           extract(epoch FROM n.now - min(greatest(frozen_at, (SELECT max(p.ends_at) FROM subscription_periods p
                             WHERE p.tenant_id = c.tenant_id AND p.starts_at <= c.to_at))) FILTER (WHERE priced_at IS NULL))::double precision AS "unpricedSeconds"
                    FROM carry_forwards c WHERE settled_at IS NULL) carried,
           LATERAL (SELECT coalesce(sum(abs(stripe_units - reported_units)), 0)::double precision AS "driftUnits",
                           count(DISTINCT tenant_id)::int AS "driftTenants"
                    FROM drifts WHERE closed_at IS NULL) drifted,
           LATERAL (SELECT coalesce(sum(abs(invoiced_units - earned_units)), 0)::double precision AS "invoiceDriftUnits"
                    FROM invoice_drifts WHERE closed_at IS NULL) invoiced,
           LATERAL (SELECT extract(epoch FROM n.now - coalesce(max(finished_at), min(started_at)))::double precision AS "lastReconciliationSeconds"
                    FROM reconciliations) compared`,
        [nowMs],
      );
      return PipelineState.parse(row);
    },
  };
}

/** Columns of an `UncountedCall`. `o` is its row in fallback_calls, `l` its row in the ledger. */
export const fallbackCallColumns = `o.tenant_id AS "tenantId", o.call_id AS "callId", l.tool, l.units, ${toMs("l.at")} AS "atMs"`;

const incoming = `jsonb_to_recordset($1::jsonb) AS i(call_id text, tenant_id text, object text, epoch text, n bigint, tool text, units integer, at_ms bigint)`;
const incomingInstant = fromMs("i.at_ms");
