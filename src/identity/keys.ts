// Makes API keys. Tollgate stores a key and notifies the tenant's object before it shows the key. It shows a key once and
// stores only the digest.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import type { Creation } from "../control/idempotent-requests-store.ts";
import { notifyObject } from "../control/notify-object.ts";
import { AnswerLost } from "../adapters/neon.ts";
import { encodeScopes, mintCredential, sha256Hex, toBase64Url } from "../core/credentials.ts";
import { DisplayName, type TenantId } from "../core/tenant.ts";
import { DAY_MS } from "../core/time.ts";
import { scopesSupported } from "./authenticate.ts";
import { keysStore } from "./keys-store.ts";

/** Scope for the tenant's admin API. Granted only on request. */
export const ADMIN_SCOPE = "tenant:admin";

/** Maximum number of live keys of one tenant. Its object reads all of them with its configuration. */
export const MAX_KEYS = 50;

export const KeyRequest = z.strictObject({
  name: DisplayName.default("default"),
  scopes: z
    .array(z.enum([...scopesSupported, ADMIN_SCOPE]))
    .min(1)
    .default([...scopesSupported])
    .transform((scopes) => [...new Set(scopes)]),
  expiresAt: z.iso
    .datetime({ offset: true })
    .refine((instant) => Date.parse(instant) > Date.now(), "must be in the future")
    .optional(),
});
export type KeyRequest = z.infer<typeof KeyRequest>;

export interface IssuedKey {
  id: string;
  name: string;
  scopes: readonly string[];
  expiresAt: string | null;
  /** The key itself. Shown only here. */
  apiKey: string;
  /** Whether the key works already. Otherwise it works within about a minute. */
  delivered: boolean;
}

/** Makes a key. `undefined` when the tenant does not exist, has too many keys or, with `first`, had one before. */
export async function issueKey(
  context: Context,
  tenantId: TenantId,
  request: KeyRequest,
  { first, creation }: { first: boolean; creation?: Creation | undefined },
): Promise<IssuedKey | undefined> {
  const { id, secret } =
    creation === undefined ? randomParts() : await repeatableParts(context.env, tenantId, creation);
  const apiKey = await mintCredential(context.env.CREDENTIAL_KEY, {
    kind: "key",
    tenantId,
    fields: [id, encodeScopes(request.scopes), secret],
  });
  const expiresAt = request.expiresAt ?? null;
  const keys = keysStore(context.control);
  const key = { id, name: request.name, hash: await sha256Hex(apiKey), scopes: request.scopes, expiresAt };
  const add = (): Promise<boolean> => keys.add(tenantId, key, { first, maxKeys: MAX_KEYS });
  const added = await add().catch((error: unknown) => {
    if (error instanceof AnswerLost) return add(); // the key may be stored, and only this request knows it: add it again
    throw error;
  });
  if (!added) return undefined;
  const { delivered } = await notifyObject(context, tenantId);
  return { id, name: request.name, scopes: request.scopes, expiresAt, apiKey, delivered };
}

function randomParts(): { id: string; secret: string } {
  return {
    id: toBase64Url(crypto.getRandomValues(new Uint8Array(9))),
    secret: toBase64Url(crypto.getRandomValues(new Uint8Array(24))),
  };
}

/** The same for every run of one request. Only the holder of CREDENTIAL_KEY can derive them. */
async function repeatableParts(
  env: Env,
  tenantId: TenantId,
  { seed }: Creation,
): Promise<{ id: string; secret: string }> {
  const derived = await mintCredential(env.CREDENTIAL_KEY, {
    kind: "key",
    tenantId,
    fields: ["of-a-request", seed, "parts"],
  });
  const digest = await sha256Hex(derived);
  return { id: digest.slice(0, 12), secret: digest.slice(12) };
}

/** The tenant's monitor token. Tokens of an earlier generation are refused. */
export async function monitorToken({ env, control }: Context, tenantId: TenantId): Promise<string> {
  const generation = (await keysStore(control).monitorGeneration(tenantId)) ?? 1;
  return mintCredential(env.CREDENTIAL_KEY, { kind: "monitor", tenantId, fields: [String(generation)] });
}

/** Life of a status token: as long as the order's setup token, from the end of the day. */
const STATUS_LIFE_MS = 30 * DAY_MS;

/**
 * The URL of the page that shows the progress of the tenant's provisioning, with a token that shows only this. Browsers open
 * it without a header. All URLs of a day are the same, because Stripe refuses a repeated order that differs.
 */
export async function statusUrl(env: Env, tenantId: TenantId, nowMs: number): Promise<string> {
  const expiresAtMs = (Math.floor(nowMs / DAY_MS) + 1) * DAY_MS + STATUS_LIFE_MS;
  const token = await mintCredential(env.CREDENTIAL_KEY, { kind: "status", tenantId, fields: [String(expiresAtMs)] });
  return `${env.PUBLIC_URL}/api/tenants/${tenantId}/status?token=${token}`;
}
