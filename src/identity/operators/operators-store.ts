// Impersonations, and the uses of the operator token, in the control tables.
import * as z from "zod";
import { idOfRow, readableList } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { Operator } from "../../core/actor.ts";
import { type TenantId, tenantStates } from "../../core/tenant/tenant.ts";
import { fromMs, toIso } from "../../core/time.ts";

export const Impersonation = z.object({
  id: z.string(),
  tenantId: z.string(),
  operator: z.object({ id: z.string(), name: z.string(), through: z.string() }),
  reason: z.string(),
  createdAt: z.string(),
  expiresAt: z.string(),
  endedAt: z.string().nullable(),
});
export type Impersonation = z.infer<typeof Impersonation>;

const WithState = Impersonation.extend({ state: z.enum(tenantStates) });
const TokenUses = z.object({ uses: z.coerce.number().int() });

const columns = `i.id, i.tenant_id AS "tenantId", i.reason,
  jsonb_build_object('id', i.operator_id, 'name', i.operator_name, 'through', i.through) AS operator,
  ${toIso("i.created_at")} AS "createdAt", ${toIso("i.expires_at")} AS "expiresAt", ${toIso("i.ended_at")} AS "endedAt"`;

export function operatorsStore(control: ControlDatabase) {
  return {
    /** Stores the start of an impersonation. `undefined`: there is no such tenant, or it is gone. */
    async startImpersonation(start: {
      id: string;
      tenantId: TenantId;
      operator: Operator;
      reason: string;
      expiresAtMs: number;
    }): Promise<Impersonation | undefined> {
      const { id, tenantId, operator, reason, expiresAtMs } = start;
      const [row] = await control.query(
        `INSERT INTO impersonations AS i (id, tenant_id, operator_id, operator_name, through, reason, expires_at)
         SELECT $1, t.id, $3, $4, $5, $6, ${fromMs("$7")} FROM tenants t WHERE t.id = $2 AND t.state <> 'gone'
         RETURNING ${columns}`,
        [id, tenantId, operator.id, operator.name, operator.through, reason, expiresAtMs],
      );
      return row === undefined ? undefined : Impersonation.parse(row);
    },

    /** One impersonation with the state of its tenant. */
    async impersonation(tenantId: TenantId, id: string): Promise<z.infer<typeof WithState> | undefined> {
      const [row] = await control.query(
        `SELECT ${columns}, t.state FROM impersonations i JOIN tenants t ON t.id = i.tenant_id
         WHERE i.id = $1 AND i.tenant_id = $2`,
        [id, tenantId],
      );
      return row === undefined ? undefined : WithState.parse(row);
    },

    /** Ends an impersonation. Returns it, or `undefined` when the tenant has no such one. Repeating it changes nothing. */
    async endImpersonation(tenantId: TenantId, id: string): Promise<Impersonation | undefined> {
      const [row] = await control.query(
        `UPDATE impersonations i SET ended_at = coalesce(i.ended_at, now()) WHERE i.id = $1 AND i.tenant_id = $2
         RETURNING ${columns}`,
        [id, tenantId],
      );
      return row === undefined ? undefined : Impersonation.parse(row);
    },

    /** Up to `limit` running impersonations, the latest first; of one tenant only, if it is given. */
    async runningImpersonations(options: {
      tenantId: TenantId | undefined;
      before: { createdAt: string; id: string } | undefined;
      limit: number;
    }): Promise<Impersonation[]> {
      const { tenantId, before, limit } = options;
      return readableList(control, limit, Impersonation, { part: "impersonations", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${columns} FROM impersonations i
           WHERE i.expires_at > now() AND i.ended_at IS NULL AND ($1::text IS NULL OR i.tenant_id = $1)
             AND ($2::timestamptz IS NULL OR (date_trunc('milliseconds', i.created_at), i.id) < ($2, $3))
           ORDER BY date_trunc('milliseconds', i.created_at) DESC, i.id DESC LIMIT $4`,
          [tenantId ?? null, before?.createdAt ?? null, before?.id ?? null, count],
        ),
      );
    },

    /** Counts one use of the operator token. */
    async countTokenUse(): Promise<void> {
      await control.query(
        `INSERT INTO operator_token_uses AS u (hour) VALUES (date_trunc('hour', now()))
         ON CONFLICT (hour) DO UPDATE SET uses = u.uses + 1, last_at = now()`,
      );
    },

    /** Uses of the operator token in the last 24 hours. */
    async tokenUses(): Promise<number> {
      const [row] = await control.query(
        `SELECT coalesce(sum(uses), 0) AS uses FROM operator_token_uses WHERE last_at > now() - interval '24 hours'`,
      );
      return TokenUses.parse(row).uses;
    },
  };
}
