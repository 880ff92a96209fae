// The inbox of Stripe's events. Tollgate stores an event before it acknowledges it, and applies it once, in any order. Of an
// event the inbox keeps only its type and ids: no name and no e-mail address. It deletes events 90 days after they arrived.
// An event that cannot be applied is set aside with its outcome, and the operator retries or dismisses it.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { idOfRow, readableList, readableRows } from "../control/failures-store.ts";
import { appliedEventTypes, thinEventTypes } from "../adapters/stripe/stripe.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { toIso } from "../core/time.ts";
import { ACCOUNT_OBJECT, type IncomingEvent, outOfReach } from "./stripe-event.ts";

const types = [...appliedEventTypes, ...thinEventTypes] as const;

/** An event that waits to be applied. */
const PendingEvent = z.object({ id: z.string(), type: z.enum(types), objectId: z.string().nullable() });
export type PendingEvent = z.infer<typeof PendingEvent>;

/** The object that applies an event: its tenant's, or the one for events about the whole Stripe account. */
const Owner = z.union([TenantId, z.literal(ACCOUNT_OBJECT).brand("TenantId")]);

/** An event as the operator sees it. */
export const StripeEvent = z.object({
  id: z.string(),
  type: z.string(),
  tenantId: z.string().nullable(),
  /** The tenant that the event names. It may be unknown. */
  namedTenant: z.string().nullable(),
  objectId: z.string().nullable(),
  customerId: z.string().nullable(),
  livemode: z.boolean().nullable(),
  /** `null`: it waits to be applied. */
  outcome: z.string().nullable(),
  attempts: z.int(),
  /** Why the last attempt failed, in Tollgate's words. */
  error: z.string().nullable(),
  receivedAt: z.string(),
  appliedAt: z.string().nullable(),
  dismissedAt: z.string().nullable(),
});
export type StripeEvent = z.infer<typeof StripeEvent>;

const columns = `event_id AS id, type, tenant_id AS "tenantId", named_tenant AS "namedTenant", object_id AS "objectId",
  customer_id AS "customerId", livemode, outcome, attempts, error, ${toIso("received_at")} AS "receivedAt",
  ${toIso("applied_at")} AS "appliedAt", ${toIso("dismissed_at")} AS "dismissedAt"`;

/** Outcomes that an operator should look at. With `is_open` in the table, these events count until one dismisses them. */
export type SetAside = "unknown_tenant" | "unknown_object" | "refused";

/** SQL for the tenant of an event: its customer's, or the one that it names. */
const tenantOfEvent = (named: string, customer: string): string =>
  `coalesce((SELECT id FROM tenants WHERE stripe_customer_id = ${customer}), (SELECT id FROM tenants WHERE id = ${named}),
            (SELECT tenant_id FROM checkouts WHERE tenant_id = ${named}), CASE WHEN ${named} = '${ACCOUNT_OBJECT}' THEN ${named} END)`;

export type InboxStore = ReturnType<typeof inboxStore>;

export function inboxStore(control: ControlDatabase) {
  return {
    /**
     * Stores an event. A repetition changes nothing. Returns the event's tenant, if there is one, its outcome, if it needs no
     * work, and whether the event is new. The customer takes precedence over the tenant id in the event, which is a copy. An
     * event without a tenant id belongs to another product in the same Stripe account, and one of another mode or account
     * to objects that our key does not reach. Both are normal. An event of an unknown tenant is marked for the operator.
     * `keyIsLive`: the mode of our key.
     */
    async keep(event: IncomingEvent, keyIsLive: boolean | undefined): Promise<KeptEvent> {
      const [row] = await control.query(
        `WITH known AS (SELECT ${tenantOfEvent("$3::text", "$4::text")} AS tenant_id),
         judged AS (
           SELECT tenant_id, CASE WHEN $7::text IS NOT NULL THEN $7 WHEN NOT $2::text = ANY ($8::text[]) THEN 'not_used'
                                  WHEN tenant_id IS NOT NULL THEN NULL WHEN $3::text IS NULL THEN 'not_ours'
                                  ELSE 'unknown_tenant' END AS outcome
           FROM known),
         kept AS (
           INSERT INTO webhook_inbox (event_id, type, tenant_id, named_tenant, customer_id, object_id, livemode, applied_at, outcome)
           SELECT $1, $2, tenant_id, $3, $4, $5, $6::boolean, CASE WHEN outcome IS NOT NULL THEN now() END, outcome
           FROM judged ON CONFLICT (event_id) DO NOTHING RETURNING event_id)
         SELECT tenant_id AS "tenantId", outcome, EXISTS (SELECT FROM kept) AS fresh FROM judged`,
        [
          event.id,
          event.type,
          event.namedTenant,
          event.customerId,
          event.objectId,
          event.livemode,
          outOfReach(event, keyIsLive) ?? null,
          types,
        ],
      );
      return KeptEvent.parse(row);
    },

    /** The ids of the events that the inbox does not have. */
    async missing(eventIds: readonly string[]): Promise<string[]> {
      if (eventIds.length === 0) return [];
      const rows = await control.query(
        `SELECT id FROM unnest($1::text[]) AS id WHERE NOT EXISTS (SELECT FROM webhook_inbox w WHERE w.event_id = id)`,
        [[...eventIds]],
      );
      return rows.map((row) => z.string().parse(row["id"]));
    },

    /** The tenant's waiting events, at most 50. */
    async pending(tenantId: TenantId): Promise<PendingEvent[]> {
      const rows = await control.query(
        // Events that failed come last, so that they do not delay others.
        `SELECT event_id AS id, type, object_id AS "objectId" FROM webhook_inbox
         WHERE tenant_id = $1 AND applied_at IS NULL AND type = ANY ($2::text[]) ORDER BY attempts, received_at LIMIT 50`,
        [tenantId, types],
      );
      return readableRows(control, rows, PendingEvent, { part: "stripe_events", idOf: (row) => String(row["id"]) });
    },

    /** Marks events as applied, each with its outcome: the result, for the operator. */
    async applied(outcomes: ReadonlyMap<string, string>): Promise<void> {
      if (outcomes.size === 0) return;
      await control.query(
        `UPDATE webhook_inbox SET applied_at = now(), outcome = done.outcome, attempts = attempts + 1, error = NULL
         FROM unnest($1::text[], $2::text[]) AS done(id, outcome) WHERE event_id = done.id AND applied_at IS NULL`,
        [[...outcomes.keys()], [...outcomes.values()]],
      );
    },

    /** Sets an event aside that no repetition applies. */
    async setAside(eventId: string, outcome: SetAside, error: string): Promise<void> {
      await control.query(
        `UPDATE webhook_inbox SET applied_at = now(), outcome = $2, attempts = attempts + 1, error = $3 WHERE event_id = $1 AND applied_at IS NULL`,
        [eventId, outcome, error],
      );
    },

    /** Makes the tenant's events with this outcome wait again. */
    async reopen(tenantId: TenantId, outcome: string): Promise<void> {
      await control.query(
        `UPDATE webhook_inbox SET applied_at = NULL, outcome = NULL WHERE tenant_id = $1 AND outcome = $2`,
        [tenantId, outcome],
      );
    },

    /** Records a failed attempt to apply an event. The event keeps waiting. */
    async failed(eventId: string, error: string): Promise<void> {
      await control.query(
        `UPDATE webhook_inbox SET attempts = attempts + 1, error = $2 WHERE event_id = $1 AND applied_at IS NULL`,
        [eventId, error],
      );
    },

    /** Tenants with an event that has waited longer than `olderThanMs`. */
    async lagging(olderThanMs: number, limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT tenant_id AS id FROM webhook_inbox WHERE applied_at IS NULL AND tenant_id IS NOT NULL AND type = ANY ($3::text[])
           AND received_at < now() - make_interval(secs => $1::double precision / 1000)
         GROUP BY tenant_id ORDER BY min(attempts), min(received_at) LIMIT $2`,
        [olderThanMs, limit, types],
      );
      return rows.flatMap((row) => Owner.safeParse(row["id"]).data ?? []);
    },

    /** Up to `limit` events after the event `after`, the oldest first. Without `all`, only those that are open. */
    async list(limit: number, { after, all }: { after: string; all: boolean }): Promise<StripeEvent[]> {
      return readableList(control, limit, StripeEvent, { part: "stripe_events", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${columns} FROM webhook_inbox
           WHERE ($3::boolean OR is_open)
             AND ($2 = '' OR (received_at, event_id) > (SELECT received_at, event_id FROM webhook_inbox WHERE event_id = $2))
           ORDER BY webhook_inbox.received_at, event_id LIMIT $1`,
          [count, after, all],
        ),
      );
    },

    /**
     * Makes events wait again, also applied and dismissed ones: the named ones, or up to `limit` of those that are open.
     * Looks their tenants up again. Returns the events, each with the object that applies it; `null`: no tenant has it.
     */
    async retry(ids: readonly string[] | "all", limit: number): Promise<{ id: string; owner: TenantId | null }[]> {
      const rows = await control.query(
        `WITH chosen AS (
           SELECT event_id, ${tenantOfEvent("named_tenant", "customer_id")} AS tenant_id FROM webhook_inbox
           WHERE CASE WHEN $1::text[] IS NULL THEN is_open ELSE event_id = ANY ($1) END ORDER BY received_at LIMIT $2)
         UPDATE webhook_inbox w SET tenant_id = coalesce(c.tenant_id, w.tenant_id), retried_at = now(), dismissed_at = NULL, error = NULL,
           applied_at = CASE WHEN waits THEN NULL ELSE w.applied_at END, outcome = CASE WHEN waits THEN NULL ELSE w.outcome END
         FROM chosen c CROSS JOIN LATERAL (SELECT c.tenant_id IS NOT NULL AS waits) AS found WHERE w.event_id = c.event_id
         RETURNING w.event_id AS id, CASE WHEN waits AND w.type = ANY ($3::text[]) THEN w.tenant_id END AS owner`,
        [ids === "all" ? null : [...ids], limit, types],
      );
      return rows.map((row) => Retried.parse(row));
    },

    /** Records that the operator has seen these events. They are not applied. Returns the ids that exist. */
    async dismissed(ids: readonly string[]): Promise<string[]> {
      const rows = await control.query(
        `UPDATE webhook_inbox SET dismissed_at = coalesce(dismissed_at, now()), applied_at = coalesce(applied_at, now()),
           outcome = coalesce(outcome, 'dismissed') WHERE event_id = ANY ($1::text[]) RETURNING event_id AS id`,
        [[...ids]],
      );
      return rows.map((row) => z.string().parse(row["id"]));
    },

    /** Number of events that wait for Tollgate or for the operator. */
    async open(): Promise<number> {
      const [row] = await control.query(`SELECT count(*)::int AS open FROM webhook_inbox WHERE is_open`);
      return z.number().parse(row?.["open"]);
    },

    /** Deletes up to `limit` events that arrived longer than `olderThanMs` ago and wait for nothing. */
    async prune(olderThanMs: number, limit: number): Promise<void> {
      await control.query(
        `DELETE FROM webhook_inbox WHERE event_id IN (
           SELECT event_id FROM webhook_inbox WHERE applied_at IS NOT NULL
             AND received_at < now() - make_interval(secs => $1::double precision / 1000) LIMIT $2)`,
        [olderThanMs, limit],
      );
    },
  };
}

const KeptEvent = z.object({ fresh: z.boolean(), tenantId: Owner.nullable(), outcome: z.string().nullable() });
export type KeptEvent = z.infer<typeof KeptEvent>;

const Retried = z.object({ id: z.string(), owner: Owner.nullable() });
