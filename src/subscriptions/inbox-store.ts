// The inbox of Stripe's events. Tollgate stores an event before it acknowledges it, and applies it once, in any order.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { appliedEventTypes, thinEventTypes } from "../adapters/stripe.ts";
import { TenantId } from "../core/tenant.ts";
import { ACCOUNT_OBJECT, type IncomingEvent } from "./stripe-event.ts";

const types = [...appliedEventTypes, ...thinEventTypes] as const;
const appliedTypes: ReadonlySet<string> = new Set(types);

const PendingEvent = z.object({ id: z.string(), type: z.enum(types), payload: z.unknown() });
export type PendingEvent = z.infer<typeof PendingEvent>;

/** The object that applies an event: its tenant's, or the one for events about the whole Stripe account. */
const Owner = z.union([TenantId, z.literal(ACCOUNT_OBJECT).brand("TenantId")]);

const Kept = z.object({ fresh: z.boolean(), tenantId: Owner.nullable() });

export function inboxStore(control: ControlDatabase) {
  return {
    /**
     * Stores an event. A repetition changes nothing. Returns the event's tenant, if there is one, and whether the event is
     * new. The customer takes precedence over the tenant id in the event, which is a copy. An event of an unknown tenant is
     * stored and marked for the operator. An event without a tenant id belongs to another business in the same Stripe
     * account. Checkouts are the exception: only Tollgate opens those.
     */
    async keep(event: IncomingEvent): Promise<{ fresh: boolean; tenantId: TenantId | undefined }> {
      const [row] = await control.query(
        `WITH known AS (
           SELECT coalesce((SELECT id FROM tenants WHERE stripe_customer_id = $4), (SELECT id FROM tenants WHERE id = $3),
                           (SELECT tenant_id FROM checkouts WHERE tenant_id = $3), CASE WHEN $3 = $7 THEN $7 END) AS tenant_id),
         kept AS (
           INSERT INTO webhook_inbox (event_id, type, tenant_id, payload, applied_at, outcome)
           SELECT $1, $2, known.tenant_id, $5::jsonb, CASE WHEN $6::boolean AND known.tenant_id IS NOT NULL THEN NULL ELSE now() END,
                  CASE WHEN NOT $6::boolean THEN 'not_used' WHEN known.tenant_id IS NOT NULL THEN NULL
                       WHEN $3::text IS NULL AND $2 NOT LIKE 'checkout.%' THEN 'not_ours' ELSE 'unknown_tenant' END
           FROM known ON CONFLICT (event_id) DO NOTHING RETURNING event_id)
         SELECT known.tenant_id AS "tenantId", EXISTS (SELECT FROM kept) AS fresh FROM known`,
        [
          event.id,
          event.type,
          event.namedTenant,
          event.customerId,
          JSON.stringify(event.payload),
          appliedTypes.has(event.type),
          ACCOUNT_OBJECT,
        ],
      );
      const { fresh, tenantId } = Kept.parse(row);
      return { fresh, tenantId: tenantId ?? undefined };
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
        `SELECT event_id AS id, type, payload FROM webhook_inbox WHERE tenant_id = $1 AND applied_at IS NULL
         ORDER BY attempts, received_at LIMIT 50`,
        [tenantId],
      );
      return rows.map((row) => PendingEvent.parse(row));
    },

    /** Marks an event as applied. `outcome`: the result, for the operator. */
    async applied(eventId: string, outcome: string): Promise<void> {
      await control.query(
        `UPDATE webhook_inbox SET applied_at = now(), outcome = $2, attempts = attempts + 1, error = NULL WHERE event_id = $1 AND applied_at IS NULL`,
        [eventId, outcome],
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
        `SELECT tenant_id AS id FROM webhook_inbox WHERE applied_at IS NULL AND tenant_id IS NOT NULL
           AND received_at < now() - make_interval(secs => $1::double precision / 1000)
         GROUP BY tenant_id ORDER BY min(attempts), min(received_at) LIMIT $2`,
        [olderThanMs, limit],
      );
      return rows.map((row) => Owner.parse(row["id"]));
    },
  };
}
