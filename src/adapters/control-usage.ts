// The ledger and the reports that are sealed from it. Each function is one transaction; each can be repeated.
import * as z from "zod";
import { ATTEMPT_SPACING_MS, BLIND_RESEND_MS } from "../core/billing.ts";
import type { PipelineState } from "../core/health.ts";
import { TenantId } from "../core/tenant.ts";
import { OPEN_STREAM, type OpenCall, type UsageMessage } from "../core/usage.ts";
import type { NeonConnection } from "./neon.ts";

export interface Watermark {
  tenantId: TenantId;
  object: string;
  epoch: string;
  /** All rows up to this one are in the ledger. */
  watermark: number;
}

export interface Recorded {
  watermarks: Watermark[];
  /** Of the open calls among what was recorded, those that their tenants' objects must still be told of. */
  uncounted: UncountedCall[];
}

export const UncountedCall = z.object({
  tenantId: TenantId,
  callId: z.string(),
  tool: z.string(),
  units: z.coerce.number().int(),
  atMs: z.coerce.number().int(),
}) satisfies z.ZodType<OpenCall>;
export type UncountedCall = z.infer<typeof UncountedCall>;

const Report = z.object({
  id: z.string(),
  tenantId: TenantId,
  customerId: z.string(),
  /** Start of the report's own minute, in epoch seconds. */
  slotSeconds: z.coerce.number().int(),
  units: z.coerce.number().int(),
  attempt: z.coerce.number().int(),
});
export type Report = z.infer<typeof Report>;

export function controlUsage(db: NeonConnection) {
  return {
    /**
     * Writes rows to the ledger, once however often they come, and moves each stream's watermark to the end of its
     * rows without a gap. A row that comes again with another payload is kept apart and never overwrites.
     *
     * An open call may come from its tenant's object, too, which had settled it before its answer was lost. Whichever comes
     * first is the charge; the object's row keeps its place in the object's sequence either way.
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
      // One order for all writers: two consumers with the same rows wait for each other instead of deadlocking.
      rows.sort((a, b) => (a.call_id < b.call_id ? -1 : 1));
      const params = [JSON.stringify(rows)];
      const [, , , , watermarks = [], uncounted = []] = await db.batch([
        {
          text: `INSERT INTO ledger (call_id, tenant_id, object, epoch, n, tool, units, at)
                 SELECT call_id, tenant_id, object, epoch, n, tool, units, ${incomingInstant} FROM ${incoming} ON CONFLICT DO NOTHING`,
          params,
        },
        {
          // What the object has charged itself, it counts already.
          text: `INSERT INTO open_calls (call_id, tenant_id, counted_at)
                 SELECT i.call_id, i.tenant_id, CASE WHEN l.object <> '${OPEN_STREAM}' THEN now() END
                 FROM ${incoming} JOIN ledger l USING (call_id, tenant_id) WHERE i.object = '${OPEN_STREAM}' ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `UPDATE open_calls o SET object = i.object, epoch = i.epoch, n = i.n, counted_at = coalesce(o.counted_at, now())
                 FROM ${incoming} JOIN ledger l USING (call_id, tenant_id)
                 WHERE i.object <> '${OPEN_STREAM}' AND l.object = '${OPEN_STREAM}'
                   AND o.call_id = i.call_id AND o.tenant_id = i.tenant_id AND o.n IS NULL`,
          params,
        },
        {
          text: `INSERT INTO ledger_conflicts (call_id, incoming)
                 SELECT i.call_id, to_jsonb(i) FROM ${incoming} LEFT JOIN ledger l USING (call_id) LEFT JOIN open_calls o USING (call_id)
                 WHERE NOT coalesce(
                   (l.tenant_id, l.tool, l.units) = (i.tenant_id, i.tool, i.units)
                   AND ((l.object, l.epoch, l.n, l.at) = (i.object, i.epoch, i.n, ${incomingInstant})
                     OR i.object = '${OPEN_STREAM}' AND l.object <> '${OPEN_STREAM}'
                     OR i.object <> '${OPEN_STREAM}' AND l.object = '${OPEN_STREAM}' AND (o.object, o.epoch, o.n) = (i.object, i.epoch, i.n)), false)
                 ON CONFLICT DO NOTHING`,
          params,
        },
        {
          text: `WITH streams AS (
                   SELECT DISTINCT i.tenant_id, i.object, i.epoch, coalesce(s.watermark, 0) AS watermark
                   FROM ${incoming} LEFT JOIN usage_streams s USING (tenant_id, object, epoch) WHERE i.object <> '${OPEN_STREAM}'),
                 runs AS (
                   SELECT s.*, l.n, l.n - row_number() OVER (PARTITION BY s.tenant_id, s.object, s.epoch ORDER BY l.n) AS run
                   FROM streams s LEFT JOIN LATERAL (
                     SELECT n FROM ledger WHERE tenant_id = s.tenant_id AND object = s.object AND epoch = s.epoch AND n > s.watermark
                     UNION SELECT n FROM open_calls WHERE tenant_id = s.tenant_id AND object = s.object AND epoch = s.epoch AND n > s.watermark) l ON true),
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
        {
          text: `SELECT ${openCallColumns} FROM open_calls o JOIN ledger l USING (call_id) JOIN ${incoming} USING (call_id)
                 WHERE i.object = '${OPEN_STREAM}' AND o.counted_at IS NULL`,
          params,
        },
      ]);
      return {
        watermarks: watermarks.map((row) => ({
          tenantId: row["tenant_id"] as TenantId,
          object: String(row["object"]),
          epoch: String(row["epoch"]),
          watermark: Number(row["watermark"]),
        })),
        uncounted: uncounted.map((row) => UncountedCall.parse(row)),
      };
    },

    /**
     * Seals all usage admitted before `cutoffMs` into reports: one per tenant and UTC day, each with a minute of that
     * day that no other report of the tenant has. Its id follows from tenant and minute. Usage that came late takes
     * the next free minute. Usage of a tenant that the control tables do not know stays unsealed, which /health tells.
     */
    async seal(cutoffMs: number, nowMs: number): Promise<number> {
      const [, sealed = []] = await db.batch([
        // One sealer at a time, so that no two choose the same minute: the second waits, then finds nothing left.
        { text: `SELECT pg_advisory_xact_lock($1)`, params: [SEAL_LOCK] },
        {
          // One statement sees one snapshot: the rows that are marked are the rows that were summed.
          text: `WITH due AS (
                   SELECT call_id, tenant_id, units, at, date_trunc('day', at, 'UTC') AS day FROM ledger
                   WHERE report_id IS NULL AND at < to_timestamp($1::double precision / 1000)
                     AND EXISTS (SELECT FROM tenants t WHERE t.id = ledger.tenant_id) FOR UPDATE),
                 sums AS (
                   SELECT tenant_id, day, sum(units) AS units, count(*) AS calls, date_trunc('minute', max(at), 'UTC') AS newest
                   FROM due GROUP BY tenant_id, day),
                 placed AS (
                   SELECT sums.*, CASE WHEN NOT EXISTS (SELECT FROM reports r WHERE r.tenant_id = sums.tenant_id AND r.slot = newest) THEN newest
                     ELSE (SELECT minute FROM generate_series(day, day + interval '1439 minutes', interval '1 minute') AS minute
                           WHERE NOT EXISTS (SELECT FROM reports r WHERE r.tenant_id = sums.tenant_id AND r.slot = minute)
                           ORDER BY minute < newest, abs(extract(epoch FROM minute - newest)) LIMIT 1) END AS slot
                   FROM sums),
                 named AS (
                   SELECT *, 'u1.' || tenant_id || '.' || (extract(epoch FROM slot) / 60)::bigint AS id FROM placed WHERE slot IS NOT NULL),
                 marked AS (
                   UPDATE ledger SET report_id = named.id FROM due JOIN named USING (tenant_id, day) WHERE ledger.call_id = due.call_id)
                 INSERT INTO reports (id, tenant_id, slot, units, calls, sealed_at)
                 SELECT id, tenant_id, slot, units, calls, to_timestamp($2::double precision / 1000) FROM named RETURNING id`,
          params: [cutoffMs, nowMs],
        },
      ]);
      return sealed.length;
    },

    /**
     * Takes unconfirmed reports to send, those first that were not tried or not for the longest time, and records the attempt before it is made. A report is left
     * alone while an attempt may be under way, and from `BLIND_RESEND_MS` after its first attempt on.
     */
    async claimReports(nowMs: number, limit: number): Promise<Report[]> {
      const rows = await db.query(
        `UPDATE reports r SET attempts = r.attempts + 1, last_attempt_at = n.now, first_attempt_at = coalesce(r.first_attempt_at, n.now)
         FROM (SELECT r.id, to_timestamp($1::double precision / 1000) AS now, t.stripe_customer_id
               FROM reports r JOIN tenants t ON t.id = r.tenant_id
               WHERE r.confirmed_at IS NULL AND t.stripe_customer_id IS NOT NULL
                 AND (r.last_attempt_at IS NULL OR r.last_attempt_at <= to_timestamp(($1::double precision - ${ATTEMPT_SPACING_MS}) / 1000))
                 AND (r.first_attempt_at IS NULL OR r.first_attempt_at > to_timestamp(($1::double precision - ${BLIND_RESEND_MS}) / 1000))
               ORDER BY r.last_attempt_at NULLS FIRST, r.sealed_at, r.id LIMIT $2 FOR UPDATE OF r SKIP LOCKED) n
         WHERE r.id = n.id
         RETURNING r.id, r.tenant_id AS "tenantId", n.stripe_customer_id AS "customerId", extract(epoch FROM r.slot)::bigint AS "slotSeconds",
                   r.units, r.attempts AS attempt`,
        [nowMs, limit],
      );
      return rows.map((row) => Report.parse(row));
    },

    /** Stripe has these reports. Confirming twice changes nothing. */
    async confirmReports(confirmed: readonly { id: string; answer: string }[], nowMs: number): Promise<void> {
      await db.query(
        `UPDATE reports r SET confirmed_at = to_timestamp($2::double precision / 1000), answer = c.answer, error = NULL
         FROM jsonb_to_recordset($1::jsonb) AS c(id text, answer text) WHERE r.id = c.id AND r.confirmed_at IS NULL`,
        [JSON.stringify(confirmed), nowMs],
      );
    },

    async failReports(failed: readonly { id: string; error: string }[]): Promise<void> {
      await db.query(
        `UPDATE reports r SET error = f.error FROM jsonb_to_recordset($1::jsonb) AS f(id text, error text)
         WHERE r.id = f.id AND r.confirmed_at IS NULL`,
        [JSON.stringify(failed)],
      );
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
         SELECT (SELECT extract(epoch FROM n.now - min(at)) FROM ledger WHERE report_id IS NULL)::double precision AS "unsealedSeconds",
                (SELECT extract(epoch FROM n.now - min(slot)) FROM reports WHERE confirmed_at IS NULL)::double precision AS "unconfirmedSeconds",
                (SELECT count(*) FROM reports r LEFT JOIN tenants t ON t.id = r.tenant_id WHERE r.confirmed_at IS NULL
                   AND (r.first_attempt_at < n.now - make_interval(secs => ${BLIND_RESEND_MS / 1000}) OR t.stripe_customer_id IS NULL))::int AS "ambiguousReports",
                (SELECT count(*) FROM usage_streams WHERE gap_since < n.now - interval '2 minutes')::int AS "sequenceGaps",
                (SELECT count(*) FROM ledger_conflicts)::int AS conflicts,
                (SELECT extract(epoch FROM n.now - min(received_at)) FROM webhook_inbox WHERE applied_at IS NULL)::double precision AS "inboxLagSeconds",
                (SELECT count(*) FROM webhook_inbox WHERE outcome = 'unknown_tenant' AND received_at > n.now - interval '1 day')::int AS "unknownTenantWebhooks",
                (SELECT count(*) FROM tenants t WHERE state = 'provisioning' AND created_at < n.now - interval '10 minutes')::int AS "stuckTenants",
                (SELECT extract(epoch FROM n.now - max(received_at)) FROM webhook_inbox)::double precision AS "lastWebhookSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'stripe')::double precision AS "lastStripeAnswerSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'report')::double precision AS "lastReportRunSeconds",
                (SELECT extract(epoch FROM n.now - at) FROM heartbeats WHERE name = 'sweep')::double precision AS "lastSweepSeconds"
         FROM n`,
        [nowMs],
      );
      return row as unknown as PipelineState;
    },
  };
}

/** An open call with what the ledger has of it: `o` is its row in open_calls, `l` the one in the ledger. */
export const openCallColumns = `o.tenant_id AS "tenantId", o.call_id AS "callId", l.tool, l.units, round(extract(epoch FROM l.at) * 1000)::bigint AS "atMs"`;

/** An arbitrary key of the advisory lock that sealers take. */
const SEAL_LOCK = 8_462_001;

const incoming = `jsonb_to_recordset($1::jsonb) AS i(call_id text, tenant_id text, object text, epoch text, n bigint, tool text, units integer, at_ms bigint)`;
const incomingInstant = `to_timestamp(i.at_ms::double precision / 1000)`;
