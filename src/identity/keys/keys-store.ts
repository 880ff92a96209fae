// API keys and the generation of monitor tokens, in the control tables. Every change of a key raises the tenant's version in the
// same transaction, so that the tenant's object reads its keys again.
import * as z from "zod";
import { idOfRow, readableList, readableRows } from "../../control/failures-store.ts";
import type { ControlDatabase } from "../../adapters/neon.ts";
import type { Statement } from "../../core/sql.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import { toIso } from "../../core/time.ts";

export const StoredKey = z.object({
  id: z.string(),
  name: z.string(),
  scopes: z.array(z.string()),
  tools: z.array(z.string()).nullable(),
  unitsPerMonth: z.coerce.number().int().nullable(),
  createdAt: z.string(),
  createdBy: z.object({ kind: z.string(), id: z.string().nullable() }),
  /** When it ends: it expires, or the overlap after its rotation is over. */
  expiresAt: z.string().nullable(),
  /** When it would have expired without a rotation. */
  ownExpiresAt: z.string().nullable(),
  revokedAt: z.string().nullable(),
  /** The key that it was rotated from, and the one that it was rotated into, unless that was revoked. */
  replaces: z.string().nullable(),
  replacedBy: z.string().nullable(),
  /** The id of the root key that its MAC needs. */
  rootKey: z.string(),
  lineId: z.string(),
});
export type StoredKey = z.infer<typeof StoredKey>;

export interface NewKey {
  id: string;
  name: string;
  hash: string;
  rootKey: string;
  scopes: readonly string[];
  tools: readonly string[] | null;
  unitsPerMonth: number | null;
  expiresAt: string | null;
  createdBy: { kind: string; id: string | null };
}

/** New values of a key. What is absent stays as it is. */
export interface KeyChange {
  name?: string | undefined;
  tools?: readonly string[] | null | undefined;
  unitsPerMonth?: number | null | undefined;
  expiresAt?: string | undefined;
}

const Generation = z.object({ generation: z.int() });

const RootKeyUse = z.object({ rootKey: z.string(), keys: z.coerce.number().int(), tenants: z.coerce.number().int() });

const endOf = (key: string): string => `least(${key}.expires_at, ${key}.overlap_until)`;

const columns = `k.id, k.name, k.scopes, k.tools, k.units_per_month AS "unitsPerMonth", ${toIso("k.created_at")} AS "createdAt",
  jsonb_build_object('kind', k.created_by_kind, 'id', k.created_by_id) AS "createdBy", ${toIso(endOf("k"))} AS "expiresAt",
  ${toIso("k.expires_at")} AS "ownExpiresAt",
  ${toIso("k.revoked_at")} AS "revokedAt", k.replaces, k.root_key AS "rootKey", k.line_id AS "lineId",
  (SELECT r.id FROM api_keys r WHERE r.replaces = k.id AND r.revoked_at IS NULL) AS "replacedBy"`;

const isLive = `k.revoked_at IS NULL AND coalesce(${endOf("k")} > now(), true)`;
/** Keys that were rotated end by themselves, so they do not count. */
const liveCount = `SELECT count(*) FROM api_keys k WHERE k.tenant_id = $1 AND ${isLive}
                   AND NOT EXISTS (SELECT FROM api_keys r WHERE r.replaces = k.id AND r.revoked_at IS NULL)`;
const inserted = `id, tenant_id, name, hash, root_key, scopes, tools, units_per_month, expires_at, created_by_kind, created_by_id`;
const insertedValues = `$2, t.id, $3, $4, $5, $6::text[], $7::text[], $8::bigint, $9::timestamptz, $10, $11`;

export function keysStore(control: ControlDatabase) {
  return {
    /**
     * Adds a key and raises the version. With `first`, only when the tenant never had a key. Returns whether the tenant has
     * this key now, so that the caller may repeat it after a lost answer.
     */
    async add(tenantId: TenantId, key: NewKey, options: { first: boolean; maxKeys: number }): Promise<boolean> {
      const [, , , rows = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `INSERT INTO api_keys (${inserted}, line_id)
                 SELECT ${insertedValues}, $2 FROM tenants t
                 WHERE t.id = $1 AND t.state <> 'gone' AND (${liveCount}) < $12
                   AND (NOT $13::boolean OR NOT EXISTS (SELECT FROM api_keys e WHERE e.tenant_id = $1))
                 ON CONFLICT (id) DO NOTHING`,
          params: [...valuesOf(tenantId, key), options.maxKeys, options.first],
        },
        raiseVersion(tenantId),
        { text: `SELECT FROM api_keys WHERE id = $1 AND hash = $2`, params: [key.id, key.hash] },
      ]);
      return rows.length > 0;
    },

    /**
     * Adds the successor of a key that works and has none, and lets the old key end at `endsAt` at the latest. Raises the
     * version. Returns the instant at which the old key ends; `undefined` when there is no such key.
     */
    async rotate(tenantId: TenantId, oldId: string, key: NewKey, endsAt: string): Promise<string | undefined> {
      const [, , , , [row] = []] = await control.batch([
        lockTenant(tenantId),
        {
          text: `INSERT INTO api_keys (${inserted}, line_id, replaces)
                 SELECT ${insertedValues}, k.line_id, k.id FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
                 WHERE t.id = $1 AND t.state <> 'gone' AND k.id = $12 AND ${isLive}
                 ON CONFLICT DO NOTHING`,
          params: [...valuesOf(tenantId, key), oldId],
        },
        {
          text: `UPDATE api_keys k SET overlap_until = least(k.overlap_until, $3::timestamptz)
                 WHERE k.tenant_id = $1 AND k.id = $2 AND EXISTS (SELECT FROM api_keys r WHERE r.id = $4 AND r.replaces = k.id)`,
          params: [tenantId, oldId, endsAt, key.id],
        },
        raiseVersion(tenantId),
        {
          text: `SELECT ${toIso(endOf("o"))} AS "endsAt" FROM api_keys k JOIN api_keys o ON o.id = k.replaces
                 WHERE k.id = $1 AND k.hash = $2`,
          params: [key.id, key.hash],
        },
      ]);
      return row === undefined ? undefined : z.object({ endsAt: z.string() }).parse(row).endsAt;
    },

    async find(tenantId: TenantId, keyId: string): Promise<StoredKey | undefined> {
      const [row] = await control.query(`SELECT ${columns} FROM api_keys k WHERE k.tenant_id = $1 AND k.id = $2`, [
        tenantId,
        keyId,
      ]);
      return row === undefined ? undefined : StoredKey.parse(row);
    },

    /** The tenant's keys, the oldest first, revoked ones included. */
    async list(tenantId: TenantId): Promise<StoredKey[]> {
      const rows = await control.query(
        `SELECT ${columns} FROM api_keys k WHERE k.tenant_id = $1 ORDER BY k.created_at, k.id`,
        [tenantId],
      );
      return readableRows(control, rows, StoredKey, { part: "keys", idOf: idOfRow });
    },

    /** Up to `limit` keys, newest first, revoked ones included, after the key with this instant and id. */
    async page(tenantId: TenantId, after: { createdAt: string; id: string } | undefined, limit: number) {
      return readableList(control, limit, StoredKey, { part: "keys", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT ${columns} FROM api_keys k
           WHERE k.tenant_id = $1 AND ($2::timestamptz IS NULL OR (k.created_at, k.id) < ($2::timestamptz, $3))
           ORDER BY k.created_at DESC, k.id DESC LIMIT $4`,
          [tenantId, after?.createdAt ?? null, after?.id ?? null, count],
        ),
      );
    },

    /** Changes a key that works and raises the version. Returns the key, or `undefined` when there is no such key. */
    async change(tenantId: TenantId, keyId: string, to: KeyChange): Promise<StoredKey | undefined> {
      const given = (value: unknown): boolean => value !== undefined;
      const [changed = [], , [row] = []] = await control.batch([
        {
          text: `UPDATE api_keys k SET name = coalesce($3, k.name),
                   tools = CASE WHEN $4::boolean THEN $5::text[] ELSE k.tools END,
                   units_per_month = CASE WHEN $6::boolean THEN $7::bigint ELSE k.units_per_month END,
                   expires_at = least(k.expires_at, $8::timestamptz)
                 WHERE k.tenant_id = $1 AND k.id = $2 AND ${isLive} RETURNING k.id`,
          params: [
            ...[tenantId, keyId, to.name ?? null],
            ...[given(to.tools), to.tools === undefined || to.tools === null ? null : [...to.tools]],
            ...[given(to.unitsPerMonth), to.unitsPerMonth ?? null, to.expiresAt ?? null],
          ],
        },
        raiseVersion(tenantId),
        { text: `SELECT ${columns} FROM api_keys k WHERE k.tenant_id = $1 AND k.id = $2`, params: [tenantId, keyId] },
      ]);
      return changed.length === 0 || row === undefined ? undefined : StoredKey.parse(row);
    },

    /** Revokes a key and raises the version. Returns whether the tenant has such a key. Repeating it changes nothing. */
    async revoke(tenantId: TenantId, keyId: string): Promise<boolean> {
      const [rows = []] = await control.batch([
        {
          text: `UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id = $1 AND id = $2 RETURNING id`,
          params: [tenantId, keyId],
        },
        raiseVersion(tenantId),
      ]);
      return rows.length > 0;
    },

    /** How many keys that work need each root key, and of how many tenants they are. */
    async byRootKey(): Promise<z.infer<typeof RootKeyUse>[]> {
      const rows = await control.query(
        `SELECT k.root_key AS "rootKey", count(*) AS keys, count(DISTINCT k.tenant_id) AS tenants
         FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
         WHERE ${isLive} AND t.state <> 'gone' GROUP BY k.root_key ORDER BY k.root_key`,
      );
      return rows.map((row) => RootKeyUse.parse(row));
    },

    /** The generation of the tenant's monitor tokens; `undefined` for a tenant that does not exist. */
    async monitorGeneration(tenantId: TenantId): Promise<number | undefined> {
      const [row] = await control.query(`SELECT monitor_generation AS generation FROM tenants WHERE id = $1`, [
        tenantId,
      ]);
      return row === undefined ? undefined : Generation.parse(row).generation;
    },

    /** Revokes every monitor token of the tenant. The monitor counts as not registered until it has a new one. */
    async revokeMonitorTokens(tenantId: TenantId): Promise<boolean> {
      const rows = await control.query(
        `UPDATE tenants SET monitor_generation = monitor_generation + 1, monitored_at = NULL
         WHERE id = $1 AND state <> 'gone' RETURNING id`,
        [tenantId],
      );
      return rows.length > 0;
    },
  };
}

/** The parameters $1 to $11 of an insert. */
function valuesOf(tenantId: TenantId, key: NewKey): unknown[] {
  const tools = key.tools === null ? null : [...key.tools];
  return [
    ...[tenantId, key.id, key.name, key.hash, key.rootKey, [...key.scopes], tools, key.unitsPerMonth, key.expiresAt],
    ...[key.createdBy.kind, key.createdBy.id],
  ];
}

/** A statement of its own: the next one must see the keys that stand once the lock is held. */
function lockTenant(tenantId: TenantId): Statement {
  return { text: `SELECT FROM tenants WHERE id = $1 FOR UPDATE`, params: [tenantId] };
}

function raiseVersion(tenantId: TenantId): Statement {
  return { text: `UPDATE tenants SET version = version + 1 WHERE id = $1`, params: [tenantId] };
}
