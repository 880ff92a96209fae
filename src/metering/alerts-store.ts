// What tenants are alerted of, in the control tables: each event once for each way to send it, and whether it was sent. Also the
// secrets that sign webhooks.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { billingJson } from "../control/tenants-store.ts";
import { Billing } from "../core/plans/money.ts";
import { Limits } from "../core/plans/plans.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { fromMs, toIso } from "../core/time.ts";

/** The last attempt is some ten hours after the first: an operator can repair a receiver in a working day. */
const MAX_ATTEMPTS = 10;
/** The first attempts are as far apart as the runs of the cron. The pause before the fifth is ten minutes, and then doubles up to this. */
const LONGEST_PAUSE = "interval '2 hours'";

/** A tenant whose usage may have reached a threshold. */
const Watched = z.object({
  tenantId: TenantId,
  plan: z.string(),
  limits: Limits,
  billing: Billing,
  thresholdsPercent: z.array(z.int()).nullable(),
});
export type Watched = z.infer<typeof Watched>;

/** Units of a tenant between two instants. */
export interface Span {
  tenantId: TenantId;
  startMs: number;
  endMs: number;
}

/** Something that a tenant is alerted of once. */
export interface NewAlert {
  tenantId: TenantId;
  event: string;
  subject: string;
  data: Readonly<Record<string, unknown>>;
}

const shown = {
  id: z.coerce.number().int(),
  event: z.string(),
  channel: z.enum(["webhook", "mail"]),
  data: z.record(z.string(), z.unknown()),
  raisedAt: z.string(),
  attempts: z.int(),
  /** When it was taken; `null`: not yet. */
  sentAt: z.string().nullable(),
  /** When it is tried next; `null`: it is not. */
  nextAt: z.string().nullable(),
  error: z.string().nullable(),
};
/** An alert as its tenant sees it. */
export const Alert = z.object(shown);
export type Alert = z.infer<typeof Alert>;

const DueAlert = z.object({
  ...shown,
  tenantId: TenantId,
  webhookUrl: z.string().nullable(),
  emails: z.array(z.string()),
  /** The encrypted secrets that sign the webhook, newest first. Empty: the tenant has made none. */
  secrets: z
    .array(z.string())
    .nullable()
    .transform((secrets) => secrets ?? []),
});
export type DueAlert = z.infer<typeof DueAlert>;

const alertColumns = `a.id, a.event, a.channel, a.data, ${toIso("a.raised_at")} AS "raisedAt", a.attempts, ${toIso("a.sent_at")} AS "sentAt",
  CASE WHEN a.sent_at IS NULL THEN ${toIso("a.next_at")} END AS "nextAt", a.error`;

const webhookUrl = `t.settings #>> '{integrations,webhookUrl}'`;
/** Where a tenant's mails go: its own addresses, or the account's. */
const emails = `coalesce(t.settings #> '{alerts,emails}', to_jsonb(array_remove(ARRAY[t.email], NULL)))`;

const secrets = `(SELECT to_jsonb(array_remove(ARRAY[w.secret, CASE WHEN w.former_until > now() THEN w.former_secret END], NULL))
  FROM webhook_secrets w WHERE w.tenant_id = t.id)`;

/** The ways to alert the tenant `t`. `mail`: a parameter that says whether the deployment sends mail. */
const ways = (mail: string): string =>
  `(SELECT channel FROM (VALUES ('webhook', ${webhookUrl} IS NOT NULL), ('mail', ${mail} AND jsonb_array_length(${emails}) > 0)) AS way(channel, is_set)
    WHERE is_set)`;

const StoredSecret = z.object({ tenantId: TenantId, secret: z.string(), former: z.string().nullable() });
/** A tenant's encrypted secrets. */
export type StoredSecret = z.infer<typeof StoredSecret>;

export type AlertsStore = ReturnType<typeof alertsStore>;

export function alertsStore(control: ControlDatabase) {
  return {
    /** Up to `limit` tenants after `after` that an alert can reach and that have used units since `sinceMs`, in the order of their ids. */
    async watched(after: string, { limit, sinceMs, mail }: { limit: number; sinceMs: number; mail: boolean }) {
      const rows = await control.query(
        `SELECT t.id AS "tenantId", t.plan, t.limits, ${billingJson} AS billing, t.settings #> '{alerts,thresholdsPercent}' AS "thresholdsPercent"
         FROM tenants t WHERE t.id > $1 AND t.state <> 'gone' AND EXISTS ${ways("$4::boolean")}
           AND EXISTS (SELECT FROM ledger l WHERE l.tenant_id = t.id AND l.at >= ${fromMs("$3")}) ORDER BY t.id LIMIT $2`,
        [after, limit, sinceMs, mail],
      );
      return rows.map((row) => Watched.parse(row));
    },

    /** The units of each span, by its position. */
    async unitsOf(spans: readonly Span[]): Promise<number[]> {
      const rows = await control.query(
        `SELECT coalesce((SELECT sum(l.units) FROM ledger l WHERE l.tenant_id = s."tenantId" AND l.at >= ${fromMs('s."startMs"')}
                  AND l.at < ${fromMs('s."endMs"')}), 0)::double precision AS units
         FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS e(span, n)
         CROSS JOIN LATERAL jsonb_to_record(e.span) AS s("tenantId" text, "startMs" double precision, "endMs" double precision) ORDER BY e.n`,
        [JSON.stringify(spans)],
      );
      return rows.map((row) => Number(row["units"]));
    },

    /** Stores alerts, each once for each way to send it. */
    async raise(alerts: readonly NewAlert[], mail: boolean): Promise<void> {
      if (alerts.length === 0) return;
      await control.query(
        `INSERT INTO alerts (tenant_id, event, subject, channel, data)
         SELECT t.id, r.event, r.subject, way.channel, r.data
         FROM jsonb_to_recordset($1::jsonb) AS r("tenantId" text, event text, subject text, data jsonb)
         JOIN tenants t ON t.id = r."tenantId" CROSS JOIN LATERAL ${ways("$2::boolean")} way
         ON CONFLICT DO NOTHING`,
        [JSON.stringify(alerts), mail],
      );
    },

    /**
     * Stores what the rows of tenants, keys and members tell of the last day: a payment that failed, a key, a member. A buyer has just
     * made a key of their own.
     */
    async raiseFromRows(mail: boolean): Promise<void> {
      await control.query(
        `INSERT INTO alerts (tenant_id, event, subject, channel, data)
         SELECT t.id, found.event, found.subject, way.channel, found.data
         FROM (
           SELECT p.id AS tenant_id, 'payment_failed' AS event, ${toIso("p.past_due_since")} AS subject,
                  jsonb_build_object('unpaidSince', ${toIso("p.past_due_since")}) AS data
           FROM tenants p WHERE p.past_due_since > now() - interval '30 days'
           UNION ALL
           SELECT k.tenant_id, 'key_created', k.id, jsonb_build_object('keyId', k.id, 'by', k.created_by_kind)
           FROM api_keys k WHERE k.created_at > now() - interval '1 day' AND k.created_by_kind <> 'buyer'
           UNION ALL
           SELECT m.tenant_id, 'member_added', m.id || coalesce('.' || i.id, ''), jsonb_build_object('memberId', m.id, 'role', m.role)
           FROM members m LEFT JOIN LATERAL (SELECT i.id, i.accepted_at FROM invitations i WHERE i.tenant_id = m.tenant_id AND i.accepted_by = m.id
                ORDER BY i.accepted_at DESC LIMIT 1) i ON true
           WHERE m.removed_at IS NULL AND greatest(m.created_at, i.accepted_at) > now() - interval '1 day') found
         JOIN tenants t ON t.id = found.tenant_id AND t.state <> 'gone' CROSS JOIN LATERAL ${ways("$1::boolean")} way
         ON CONFLICT DO NOTHING`,
        [mail],
      );
    },

    /** Up to `limit` alerts that are due, and counts an attempt at each. `id`: only this one. */
    async attempt(limit: number, id: number | null = null): Promise<DueAlert[]> {
      const rows = await control.query(
        `UPDATE alerts a SET attempts = a.attempts + 1,
           next_at = CASE WHEN a.attempts + 1 < $2 THEN now() + CASE WHEN a.attempts < 4 THEN interval '0'
             ELSE least(interval '10 minutes' * power(2, a.attempts - 4), ${LONGEST_PAUSE}) END END
         FROM tenants t
         WHERE t.id = a.tenant_id AND a.id IN (
             SELECT u.id FROM alerts u WHERE u.sent_at IS NULL AND u.next_at <= now() AND ($3::bigint IS NULL OR u.id = $3)
             ORDER BY u.next_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING ${alertColumns}, a.tenant_id AS "tenantId", ${webhookUrl} AS "webhookUrl", ${emails} AS emails, ${secrets} AS secrets`,
        [limit, MAX_ATTEMPTS, id],
      );
      return rows.map((row) => DueAlert.parse(row));
    },

    /** The alert has arrived, or it has not: `error` says why. */
    async attempted(id: number, error: string | null): Promise<void> {
      await control.query(
        `UPDATE alerts SET sent_at = CASE WHEN $2::text IS NULL THEN now() END, error = $2 WHERE id = $1 AND sent_at IS NULL`,
        [id, error],
      );
    },

    /** Up to `limit` of the tenant's alerts, newest first, before `before`. */
    async list(
      tenantId: TenantId,
      { before, limit }: { before?: number | undefined; limit: number },
    ): Promise<Alert[]> {
      const rows = await control.query(
        `SELECT ${alertColumns} FROM alerts a WHERE a.tenant_id = $1 AND ($2::bigint IS NULL OR a.id < $2) ORDER BY a.id DESC LIMIT $3`,
        [tenantId, before ?? null, limit],
      );
      return rows.map((row) => Alert.parse(row));
    },

    async find(tenantId: TenantId, id: number): Promise<Alert | undefined> {
      const [row] = await control.query(`SELECT ${alertColumns} FROM alerts a WHERE a.tenant_id = $1 AND a.id = $2`, [
        tenantId,
        id,
      ]);
      return row === undefined ? undefined : Alert.parse(row);
    },

    /** Makes an alert due again, with all its attempts. Returns whether the tenant has it. */
    async again(tenantId: TenantId, id: number): Promise<boolean> {
      const rows = await control.query(
        `UPDATE alerts SET sent_at = NULL, attempts = 0, next_at = now(), error = NULL WHERE tenant_id = $1 AND id = $2 RETURNING id`,
        [tenantId, id],
      );
      return rows.length > 0;
    },

    /** Stores a tenant's new secret, encrypted. The former one signs, too, for `overlapMs`. Returns until when; `null`: there was none. */
    async renewSecret(tenantId: TenantId, secret: string, overlapMs: number): Promise<string | null> {
      const [row] = await control.query(
        `INSERT INTO webhook_secrets AS w (tenant_id, secret) VALUES ($1, $2)
         ON CONFLICT (tenant_id) DO UPDATE SET former_secret = w.secret, secret = excluded.secret, created_at = now(),
           former_until = now() + make_interval(secs => $3::double precision / 1000)
         RETURNING ${toIso("w.former_until")} AS until`,
        [tenantId, secret, overlapMs],
      );
      return z.object({ until: z.string().nullable() }).parse(row).until;
    },

    /** Secrets that another key of ENCRYPTION_KEYS than this one encrypted. */
    async secretsNotUnder(keyId: string, limit: number): Promise<StoredSecret[]> {
      const rows = await control.query(
        `SELECT tenant_id AS "tenantId", secret, former_secret AS former FROM webhook_secrets
         WHERE split_part(secret, '.', 2) <> $1 OR split_part(former_secret, '.', 2) <> $1 LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => StoredSecret.parse(row));
    },

    /** Replaces a tenant's secrets by the same ones under another key, unless they have changed since. */
    async replaceSecrets(stored: StoredSecret, encrypted: Omit<StoredSecret, "tenantId">): Promise<void> {
      await control.query(
        `UPDATE webhook_secrets SET secret = $3, former_secret = $4
         WHERE tenant_id = $1 AND secret = $2 AND former_secret IS NOT DISTINCT FROM $5`,
        [stored.tenantId, stored.secret, encrypted.secret, encrypted.former, stored.former],
      );
    },
  };
}
