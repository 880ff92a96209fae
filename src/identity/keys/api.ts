// Routes for API keys: of a tenant for its members and its buyer, and of any tenant for the operator.
import * as z from "zod";
import { withTimeout } from "../../adapters/timeout.ts";
import type { Creation } from "../../control/idempotent-requests-store.ts";
import { notifyObject } from "../../control/notify-object.ts";
import { tenantsStore } from "../../control/tenants-store.ts";
import { keyPrefix } from "../../core/keys/credentials.ts";
import { rootKeysOf, usedRootKeys } from "../../core/keys/root-keys.ts";
import type { TenantId } from "../../core/tenant/tenant.ts";
import {
  BadRequest,
  type HttpContext,
  type Page,
  type PageQuery,
  Problem,
  decodeCursor,
  encodeCursor,
  noStore,
  noSuchTenant,
  pageOf,
  pageOfAll,
  pageQuery,
  tenantOf,
} from "../../http.ts";
import { describeError, log } from "../../log.ts";
import { StoredKey, keysStore } from "./keys-store.ts";
import {
  type IssuedKey,
  type RotatedKey,
  type KeyAct,
  type KeyChange,
  type KeyRequest,
  MAX_KEYS,
  type RotateRequest,
  issueKey,
  refusedActor,
  rotateKey,
  scopesOver,
} from "./keys.ts";

export const KeysQuery = pageQuery(100);
/** A setting has a handful of root keys. */
export const RootKeysQuery = pageQuery(100);

/** An object answers in milliseconds. The list is useful without it. */
const USAGE_TIMEOUT_MS = 3_000;

/** A key in a list. The key itself is never in it. */
export const KeySummary = StoredKey.omit({ lineId: true, ownExpiresAt: true }).extend({
  /** The beginning of the key, which tells it from others. */
  prefix: z.string(),
  /** `null`: never used, or not known (`usageKnown`). Up to a minute old after the tenant's object restarted. */
  lastUsedAt: z.iso.datetime().nullable(),
  /** Units of this calendar month (UTC), with those of the keys that it was rotated from and into. */
  unitsUsed: z.int().nullable(),
});
export type KeySummary = z.infer<typeof KeySummary>;

export async function listKeys(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  return c.json(await pageOfKeys(c, query), 200, noStore);
}

/** Keys of the path's tenant, newest first. `usageKnown`: whether the tenant's object has told what they have used. */
export async function pageOfKeys(
  c: HttpContext,
  query: PageQuery,
): Promise<Page<"keys", KeySummary> & { usageKnown: boolean }> {
  requireManager(c, "read");
  const tenantId = tenantOf(c);
  const [createdAt, id] = decodeCursor(query.after, 2) ?? [];
  const after = createdAt === undefined || id === undefined ? undefined : { createdAt, id };
  const [rows, usageOf] = await Promise.all([
    keysStore(c.get("context").control).page(tenantId, after, query.limit + 1),
    readUsage(c, tenantId),
  ]);
  const { keys, next } = pageOf("keys", rows, query.limit, (key) => encodeCursor([key.createdAt, key.id]));
  const usageKnown = usageOf !== undefined;
  return { keys: keys.map((key) => summaryOf(tenantId, key, usageOf)), next, usageKnown };
}

/** The key that the path names, for a reader. */
export async function oneKey(c: HttpContext): Promise<KeySummary> {
  const tenantId = tenantOf(c);
  const [key, usage] = await Promise.all([keyOf(c, "read"), readUsage(c, tenantId)]);
  return summaryOf(tenantId, key, usage);
}

/** A key for the buyer, a member or the operator. The answer shows it once. The buyer makes only the tenant's first key. */
export async function createKey(c: HttpContext, { body }: { body: KeyRequest }): Promise<Response> {
  return c.json(await makeKey(c, body, c.get("creation")), 201, noStore);
}

/** Makes the key that `createKey` answers with. Throws why it cannot be made. */
export async function makeKey(c: HttpContext, body: KeyRequest, creation: Creation | undefined): Promise<IssuedKey> {
  const maker = c.get("actor");
  const first = maker.kind === "buyer";
  if (!first) requireManager(c, "make", body.scopes);
  const tenantId = tenantOf(c);
  const key = await issueKey(c.get("context"), tenantId, body, { first, maker, creation });
  if (key !== undefined) return key;
  const tenant = await tenantsStore(c.get("context").control).summary(tenantId);
  if (first)
    throw new Problem(
      "conflict",
      tenant === undefined
        ? "The order is not paid yet. The first key can be made once it is."
        : "The account has had its first key. Its administrator or support can replace it.",
    );
  if (tenant === undefined || tenant.state === "gone") throw noSuchTenant();
  throw new Problem("conflict", `The account has ${MAX_KEYS} keys. Revoke one first.`);
}

export async function changeKey(c: HttpContext, { body }: { body: KeyChange }): Promise<Response> {
  return c.json(await keyAfter(c, body), 200, noStore);
}

/** Changes the key that the path names. Throws why it cannot be changed. */
export async function keyAfter(c: HttpContext, body: KeyChange): Promise<KeySummary & { delivered: boolean }> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const key = await keyOf(c, "make");
  if (body.expiresAt !== undefined && key.expiresAt !== null && Date.parse(body.expiresAt) > Date.parse(key.expiresAt))
    throw new BadRequest(`expiresAt: an expiry can only come earlier. The key expires at ${key.expiresAt}.`);
  const changed = await keysStore(context.control).change(tenantId, key.id, body);
  if (changed === undefined) throw ended();
  const { delivered } = await notifyObject(context, tenantId);
  return { ...summaryOf(tenantId, changed, await readUsage(c, tenantId)), delivered };
}

export async function rotate(c: HttpContext, { body }: { body: RotateRequest }): Promise<Response> {
  return c.json(await successorOf(c, body, c.get("creation")), 201, noStore);
}

/** Makes the successor of the key that the path names. Throws why it cannot be made. */
export async function successorOf(
  c: HttpContext,
  body: RotateRequest,
  creation: Creation | undefined,
): Promise<RotatedKey> {
  const key = await keyOf(c, "make");
  const [maker, nowMs] = [c.get("actor"), Date.now()];
  const successor = await rotateKey(c.get("context"), tenantOf(c), key, body, { maker, creation, nowMs });
  if (successor !== undefined) return successor;
  const { replacedBy } = await keyOf(c, "make");
  if (replacedBy !== null) throw new Problem("conflict", `The key was rotated before. Its successor is ${replacedBy}.`);
  throw ended();
}

export async function revokeKey(c: HttpContext): Promise<Response> {
  return c.json(await endKey(c));
}

/** Revokes the key that the path names. Throws why it cannot be revoked. */
export async function endKey(c: HttpContext): Promise<{ revoked: true; delivered: boolean }> {
  requireManager(c, "end");
  const tenantId = tenantOf(c);
  const context = c.get("context");
  if (!(await keysStore(context.control).revoke(tenantId, c.req.param("keyId") ?? ""))) throw noSuchKey();
  return { revoked: true, ...(await notifyObject(context, tenantId)) };
}

/**
 * The root keys of CREDENTIAL_KEY and how many API keys need each, for its rotation. Also root keys that the setting lacks:
 * their API keys do not work.
 */
export async function listRootKeys(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const rootKeys = usedRootKeys(
    await rootKeysOf(c.env.CREDENTIAL_KEY),
    await keysStore(c.get("context").control).byRootKey(),
  );
  return c.json(
    pageOfAll("rootKeys", rootKeys, query, ({ id }) => id),
    200,
    noStore,
  );
}

/** Throws unless the actor may do this with the tenant's keys, and could itself give these scopes. */
function requireManager(c: HttpContext, act: KeyAct, scopes: readonly string[] = []): void {
  const actor = c.get("actor");
  const refused = refusedActor(actor, act);
  const isOfRole = actor.kind === "member" && actor.through !== "grant";
  if (refused !== undefined) throw new Problem(isOfRole ? "role_missing" : "scope_missing", refused);
  const over = scopesOver(actor, scopes);
  if (over.length > 0)
    throw new Problem("role_missing", `Your role does not have ${over.join(" ")}, so it cannot give it to a key.`);
}

/** The key that the path names, for an act that the actor may do with it. */
async function keyOf(c: HttpContext, act: KeyAct): Promise<StoredKey> {
  requireManager(c, act);
  const key = await keysStore(c.get("context").control).find(tenantOf(c), c.req.param("keyId") ?? "");
  if (key === undefined) throw noSuchKey();
  requireManager(c, act, key.scopes);
  return key;
}

function noSuchKey(): Problem {
  return new Problem("not_found", "The account has no such key.");
}

function ended(): Problem {
  return new Problem("conflict", "The key has expired or was revoked.");
}

interface UsageOf {
  lastUsedAt(keyId: string): string | null;
  units(lineId: string): number;
}

/** What the tenant's keys have used; `undefined` when the tenant's object does not answer. */
async function readUsage(c: HttpContext, tenantId: TenantId): Promise<UsageOf | undefined> {
  try {
    const object = c.get("context").tenantObject(tenantId);
    const { lastUses, units } = await withTimeout(USAGE_TIMEOUT_MS, object.keyUsage());
    const uses = new Map(lastUses.map(({ keyId, atMs }) => [keyId, new Date(atMs).toISOString()]));
    const byLine = new Map(units.map((line) => [line.lineId, line.units]));
    return { lastUsedAt: (keyId) => uses.get(keyId) ?? null, units: (lineId) => byLine.get(lineId) ?? 0 };
  } catch (error) {
    log("warn", "key_usage_not_read", { tenantId, error: describeError(error) });
    return undefined;
  }
}

function summaryOf(tenantId: TenantId, stored: StoredKey, usage: UsageOf | undefined): KeySummary {
  const { lineId, ownExpiresAt: _, ...key } = stored;
  return {
    ...key,
    prefix: keyPrefix(tenantId, key.id),
    lastUsedAt: usage?.lastUsedAt(key.id) ?? null,
    unitsUsed: usage?.units(lineId) ?? null,
  };
}
