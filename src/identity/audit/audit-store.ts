// The audit log in the control tables. The database gives each row its position and its hash, and no login of the Worker can
// change or delete one.
import * as z from "zod";
import { idOfRow, readableList } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { fromMs, toMs } from "../../core/time.ts";
import { type AuditEvent, AuditRow, type Broken, type Place, chainBreaks } from "./audit.ts";

/** What a list of events has to match. `undefined`: anything. */
export interface AuditFilter {
  /** `undefined`: all chains. */
  tenantId?: TenantId | undefined;
  /** The actor's kind or id. */
  actor?: string | undefined;
  /** Whether `actor` may be the id of one of the operator's people, which a tenant does not see. */
  seesOperators: boolean;
  action?: string | undefined;
  outcome?: string | undefined;
  requestId?: string | undefined;
  /** The first instant, and the one after the last. */
  from?: string | undefined;
  to?: string | undefined;
  /** Only rows before this one in the list. */
  before?: number | undefined;
  limit: number;
}

const count = z.coerce.number().int();

/** A chain, the end of it, and how far it is verified. */
const Chain = z.object({
  /** A tenant's id; empty for the deployment's own chain. */
  chain: z.string(),
  end: z.object({ position: count, hash: z.string() }),
  /** The place in front of the first row that is left. */
  anchor: z.object({ position: count, hash: z.string() }),
  cursor: z.object({ position: count, hash: z.string() }),
  verified: z.object({ position: count, hash: z.string() }),
  broken: z.object({ position: count, by: z.enum(chainBreaks) }).nullable(),
  /** Refused requests that were not stored, because there were too many in a minute. */
  leftOut: count,
});
export type Chain = z.infer<typeof Chain>;

const columns = `e.seq::double precision AS seq, e.tenant_id AS "tenantId", e.position::double precision AS position, e.id,
  ${toMs("e.at")} AS "atMs", ${toMs("e.recorded_at")} AS "recordedAtMs", e.actor_kind AS "actorKind", e.actor_id AS "actorId",
  e.actor_name AS "actorName", e.on_behalf_of AS "onBehalfOf", e.action, e.target, e.outcome, e.status, e.code,
  e.request_id AS "requestId", e.address, e.detail, e.previous_hash AS "previousHash", e.hash`;

const chainColumns = `c.chain, c.left_out AS "leftOut",
  jsonb_build_object('position', c.position, 'hash', c.hash) AS end,
  jsonb_build_object('position', c.anchor_position, 'hash', c.anchor_hash) AS anchor,
  jsonb_build_object('position', coalesce(k.cursor_position, 0), 'hash', coalesce(k.cursor_hash, '')) AS cursor,
  jsonb_build_object('position', coalesce(k.verified_position, 0), 'hash', coalesce(k.verified_hash, '')) AS verified,
  CASE WHEN k.broken_position IS NOT NULL THEN jsonb_build_object('position', k.broken_position, 'by', k.broken_by) END AS broken`;

/** Columns that an event and an intent have in common, in the order of `valuesOf`. */
const given = `id, tenant_id, at, actor_kind, actor_id, actor_name, on_behalf_of, action, target, request_id, address, detail`;
const givenValues = `$1, $2, ${fromMs("$3")}, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb`;

function valuesOf(event: Omit<AuditEvent, "outcome" | "status" | "code">): unknown[] {
  return [
    ...[event.id, event.tenantId, event.atMs, event.actorKind, event.actorId, event.actorName, event.onBehalfOf],
    ...[event.action, event.target, event.requestId, event.address, JSON.stringify(event.detail)],
  ];
}

export function auditStore(control: ControlDatabase) {
  return {
    /** Stores an event at the end of its chain. An event with the same id is stored once. */
    append(event: AuditEvent): Promise<void> {
      return this.appendAll([event]);
    },

    /** The same for several events, in one transaction. */
    async appendAll(events: readonly AuditEvent[]): Promise<void> {
      // In the order of the chains, so that two writers at the same time do not wait for each other.
      await control.query(
        `INSERT INTO audit_events (${given}, outcome, status, code)
         SELECT id, "tenantId", ${fromMs('"atMs"')}, "actorKind", "actorId", "actorName", "onBehalfOf", action, target, "requestId",
                address, detail, outcome, status, code
         FROM jsonb_to_recordset($1::jsonb) AS r(id text, "tenantId" text, "atMs" double precision, "actorKind" text, "actorId" text,
           "actorName" text, "onBehalfOf" text, action text, target text, "requestId" text, address text, detail jsonb, outcome text,
           status integer, code text)
         ORDER BY coalesce((SELECT t.id FROM tenants t WHERE t.id = r."tenantId"), ''), "atMs"`,
        [JSON.stringify(events)],
      );
    },

    /** Notes that a request is about to act. The event takes the note's place. */
    async intend(event: Omit<AuditEvent, "outcome" | "status" | "code">): Promise<void> {
      await control.query(
        `INSERT INTO audit_intents (${given}) VALUES (${givenValues}) ON CONFLICT (id) DO NOTHING`,
        valuesOf(event),
      );
    },

    /** Stores an event with the outcome `unknown` for each intent that is older than this. Returns how many. */
    async closeIntents(olderThanMs: number, limit: number): Promise<number> {
      // In the order of the chains, so that two runs at the same time do not wait for each other.
      const rows = await control.query(
        `WITH old AS (SELECT * FROM audit_intents WHERE at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY at LIMIT $2),
              closed AS (INSERT INTO audit_events (${given}, outcome)
                         SELECT ${given}, 'unknown' FROM old ORDER BY coalesce(tenant_id, ''), at RETURNING id)
         SELECT id FROM closed`,
        [olderThanMs, limit],
      );
      return rows.length;
    },

    /** Events, newest first. */
    async list(filter: AuditFilter): Promise<AuditRow[]> {
      const text = `SELECT ${columns} FROM audit_events e
         WHERE ($1::text IS NULL OR e.chain = $1) AND ($2::bigint IS NULL OR e.seq < $2)
           AND ($3::text IS NULL OR e.actor_kind = $3 OR (e.actor_id = $3 AND ($4 OR e.actor_kind NOT IN ('operator', 'impersonator'))))
           AND ($5::text IS NULL OR e.action = $5) AND ($6::text IS NULL OR e.outcome = $6)
           AND ($7::text IS NULL OR e.request_id = $7)
           AND ($8::timestamptz IS NULL OR e.at >= $8) AND ($9::timestamptz IS NULL OR e.at < $9)
         ORDER BY e.seq DESC LIMIT $10`;
      const params = [
        ...[filter.tenantId ?? null, filter.before ?? null, filter.actor ?? null, filter.seesOperators],
        ...[filter.action ?? null, filter.outcome ?? null, filter.requestId ?? null],
        ...[filter.from ?? null, filter.to ?? null],
      ];
      return readableList(control, filter.limit, AuditRow, { part: "audit_events", idOf: idOfRow }, (most) =>
        control.query(text, [...params, most]),
      );
    },

    /** Rows of a chain after a position, in the chain's order. A row that cannot be read is `undefined`. */
    async rowsAfter(chain: string, position: number, limit: number): Promise<(AuditRow | undefined)[]> {
      const rows = await control.query(
        `SELECT ${columns} FROM audit_events e WHERE e.chain = $1 AND e.position > $2 ORDER BY e.position LIMIT $3`,
        [chain, position, limit],
      );
      return rows.map((row) => AuditRow.safeParse(row).data);
    },

    /** The chains that are to be verified next: those with new rows, then those that were not looked at for the longest time. */
    async dueChains(limit: number): Promise<Chain[]> {
      const rows = await control.query(
        `SELECT ${chainColumns} FROM audit_chains c LEFT JOIN audit_checks k USING (chain)
         ORDER BY (k.broken_position IS NULL AND c.position > coalesce(k.verified_position, 0)) DESC,
           coalesce(k.checked_at, '-infinity'), c.chain LIMIT $1`,
        [limit],
      );
      return rows.map((row) => Chain.parse(row));
    },

    /** Up to `limit` chains after this one by name, or one chain. */
    async chains(after: string | null, limit: number, only?: string): Promise<Chain[]> {
      const rows = await control.query(
        `SELECT ${chainColumns} FROM audit_chains c LEFT JOIN audit_checks k USING (chain)
         WHERE ($1::text IS NULL OR c.chain > $1) AND ($3::text IS NULL OR c.chain = $3) ORDER BY c.chain LIMIT $2`,
        [after, limit, only ?? null],
      );
      return rows.map((row) => Chain.parse(row));
    },

    /** Keeps how far a chain is verified. `ended`: it was read to its end. */
    async recordCheck(
      chain: string,
      check: { cursor: Place; verified: Place; broken: Broken | null; ended: boolean },
    ): Promise<void> {
      const { cursor, verified, broken, ended } = check;
      await control.query(
        `INSERT INTO audit_checks AS k (chain, cursor_position, cursor_hash, verified_position, verified_hash, checked_at,
                                        ended_at, broken_position, broken_by, broken_at)
         VALUES ($1, $2, $3, $4, $5, now(), CASE WHEN $6 THEN now() END, $7, $8, CASE WHEN $7::bigint IS NOT NULL THEN now() END)
         ON CONFLICT (chain) DO UPDATE SET cursor_position = excluded.cursor_position, cursor_hash = excluded.cursor_hash,
           verified_position = excluded.verified_position, verified_hash = excluded.verified_hash, checked_at = now(),
           ended_at = coalesce(excluded.ended_at, k.ended_at), broken_position = excluded.broken_position,
           broken_by = excluded.broken_by, broken_at = CASE WHEN excluded.broken_position IS NOT NULL THEN coalesce(k.broken_at, now()) END`,
        [
          ...[chain, cursor.position, cursor.hash, verified.position, verified.hash, ended],
          ...[broken?.position ?? null, broken?.by ?? null],
        ],
      );
    },

    /** Deletes rows whose retention has ended. Returns how many. */
    async prune(limit: number): Promise<number> {
      const [row] = await control.query(`SELECT prune_audit($1) AS gone`, [limit]);
      return z.object({ gone: z.number() }).parse(row).gone;
    },

    /** What alarms look at: chains that are broken, and attempts across tenants today. */
    async state(): Promise<AuditState> {
      const [row] = await control.query(
        `SELECT (SELECT count(*) FROM audit_checks WHERE broken_position IS NOT NULL)::int AS "brokenAuditChains",
                (SELECT coalesce(sum(attempts), 0) FROM cross_tenant_attempts WHERE day = (now() AT TIME ZONE 'UTC')::date)::int AS "crossTenantAttempts"`,
      );
      return AuditState.parse(row);
    },
  };
}

const AuditState = z.object({
  brokenAuditChains: z.int(),
  crossTenantAttempts: z.int(),
});
export type AuditState = z.infer<typeof AuditState>;

export type AuditStore = ReturnType<typeof auditStore>;
