// The ledger, and what the control database says of the whole way from it to Stripe. Each function is one transaction;
// each can be repeated.
import type { PipelineState } from "../core/health.ts";
import type { TenantId } from "../core/tenant.ts";
import type { UsageMessage } from "../core/usage.ts";
import type { NeonConnection } from "./neon.ts";

export interface Watermark {
  tenantId: TenantId;
  object: string;
  epoch: string;
  /** All rows up to this one are in the ledger. */
  watermark: number;
}

export function controlUsage(db: NeonConnection) {
  return {
    /**
     * Writes rows to the ledger, once however often they come, and moves each stream's watermark to the end of its
     * rows without a gap. A row that comes again with another payload is kept apart and never overwrites.
     */
    async record(messages: readonly UsageMessage[]): Promise<Watermark[]> {
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
      // One order for all writers: two consumers with the same rows wait for each other instead of deadlocking.
      rows.sort((a, b) => (a.call_id < b.call_id ? -1 : 1));
      const params = [JSON.stringify(rows)];
      const [, , watermarks = []] = await db.batch([
        {
          text: `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at)
                 SELECT call_id, tenant_id, object, epoch, n, tool, units, ${incomingInstant} FROM ${incoming} ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `INSERT INTO ledger_conflicts (call_id, incoming)
                 SELECT i.call_id, to_jsonb(i) FROM ${incoming}
                 WHERE NOT EXISTS (SELECT FROM ledger l WHERE (l.call_id, l.tenant_id, l.object, l.epoch, l.n, l.tool, l.units, l.at)
                                     = (i.call_id, i.tenant_id, i.object, i.epoch, i.n, i.tool, i.units, ${incomingInstant}))
                 ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `WITH streams AS (
                   SELECT DISTINCT i.tenant_id, i.object, i.epoch, coalesce(s.watermark, 0) AS watermark
                   FROM ${incoming} LEFT JOIN usage_streams s USING (tenant_id, object, epoch)),
                 runs AS (
                   SELECT s.*, l.n, l.n - row_number() OVER (PARTITION BY s.tenant_id, s.object, s.epoch ORDER BY l.n) AS run
                   FROM streams s LEFT JOIN ledger l ON l.tenant_id = s.tenant_id AND l.object = s.object AND l.epoch = s.epoch AND l.n > s.watermark),
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
                 RETURNING tenant_id, object, epoch, watermark`,
          params,
        },
      ]);
      return watermarks.map((row) => ({
        tenantId: row["tenant_id"] as TenantId,
        object: String(row["object"]),
        epoch: String(row["epoch"]),
        watermark: Number(row["watermark"]),
      }));
    },

    async beat(name: string, nowMs: number): Promise<void> {
      await db.query(
        `INSERT INTO heartbeats AS h (name, at) VALUES ($1, to_timestamp($2::double precision / 1000))
         ON CONFLICT (name) DO UPDATE SET at = greatest(h.at, excluded.at)`,
        [name, nowMs],
      );
    },

    /** What the health page says of metering and billing, in one round trip. Ages are seconds; `null`: there is none. */
    async pipeline(nowMs: number): Promise<PipelineState> {
      const [row] = await db.query(
        `WITH n AS (SELECT to_timestamp($1::double precision / 1000) AS now)
         SELECT unsealed.*, ahead.*, unsettled.*, carried.*, apart.*, compared.*,
                (SELECT count(*) FROM usage_streams WHERE gap_since < n.now - interval '2 minutes')::int AS "sequenceGaps",
                (SELECT count(*) FROM ledger_conflicts)::int AS conflicts,
                (SELECT extract(epoch FROM n.now - min(received_at)) FROM webhook_inbox WHERE applied_at IS NULL)::double precision AS "inboxLagSeconds",
                (SELECT count(*) FROM webhook_inbox WHERE outcome = 'unknown_tenant' AND received_at > n.now - interval '1 day')::int AS "unknownTenantWebhooks",
                (SELECT count(*) FROM tenants t WHERE state = 'provisioning' AND created_at < n.now - interval '10 minutes')::int AS "stuckTenants",
                (SELECT extract(epoch FROM n.now - max(received_at)) FROM webhook_inbox)::double precision AS "lastWebhookSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'stripe')::double precision AS "lastStripeAnswerSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'report')::double precision AS "lastReportRunSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'sweep')::double precision AS "lastSweepSeconds"
         FROM n,
           -- A row that came late has waited since it came. Some of the oldest tell enough of all.
           LATERAL (SELECT extract(epoch FROM n.now - min(greatest(at, received_at)))::double precision AS "unsealedSeconds"
                    FROM (SELECT at, received_at FROM ledger WHERE report_id IS NULL AND carry_forward_id IS NULL ORDER BY at LIMIT 1000)) unsealed,
           LATERAL (SELECT extract(epoch FROM nullif(greatest(max(at), n.now), n.now) - n.now)::double precision AS "aheadSeconds"
                    FROM ledger WHERE report_id IS NULL AND carry_forward_id IS NULL) ahead,
           LATERAL (SELECT extract(epoch FROM n.now - min(sealed_at) FILTER (WHERE confirmed_at IS NULL))::double precision AS "unconfirmedSeconds",
                           count(*) FILTER (WHERE doubted_at IS NOT NULL AND alarm IS NULL)::int AS "ambiguousReports",
                           count(*) FILTER (WHERE alarm = 'refused')::int AS "refusedReports",
                           count(*) FILTER (WHERE alarm = 'mismatch')::int AS "mismatchedReports"
                    FROM reports WHERE confirmed_at IS NULL OR doubted_at IS NOT NULL) unsettled,
           LATERAL (SELECT count(*)::int AS "carryForwards", count(error)::int AS "refusedCarryForwards",
                           extract(epoch FROM n.now - min(priced_at))::double precision AS "carryForwardSeconds"
                    FROM carry_forwards WHERE settled_at IS NULL) carried,
           LATERAL (SELECT coalesce(sum(abs(stripe_units - reported_units)), 0)::double precision AS "driftUnits",
                           count(DISTINCT tenant_id)::int AS "driftTenants"
                    FROM drifts WHERE closed_at IS NULL) apart,
           LATERAL (SELECT extract(epoch FROM n.now - coalesce(max(finished_at), min(started_at)))::double precision AS "lastReconciliationSeconds"
                    FROM reconciliations) compared`,
        [nowMs],
      );
      return row as unknown as PipelineState;
    },
  };
}

const incoming = `jsonb_to_recordset($1::jsonb) AS i(call_id text, tenant_id text, object text, epoch text, n bigint, tool text, units integer, at_ms bigint)`;
const incomingInstant = `to_timestamp(i.at_ms::double precision / 1000)`;
