// Making API keys. A key is in the control tables and known to the tenant's object before it is shown, and it is shown
// once: what is kept is its digest.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { notifyObject } from "../control/notify-object.ts";
import { AnswerLost } from "../adapters/neon.ts";
import { encodeScopes, mintCredential, sha256Hex, toBase64Url } from "../core/credentials.ts";
import { DisplayName, type TenantId } from "../core/tenant.ts";
import { scopesSupported } from "./authenticate.ts";
import { keysStore } from "./keys-store.ts";

/** Of a key with which a tenant's administrator takes the tenant's data along; no key has it that was not asked for it. */
export const ADMIN_SCOPE = "tenant:admin";

/** Live keys of one tenant. Its object reads them all with its configuration. */
const MAX_KEYS = 50;

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
  /** The key itself, here and never again. */
  apiKey: string;
  /** Whether it is good already; otherwise it is within a minute or so. */
  delivered: boolean;
}

/** Makes a key, or `undefined` when the tenant may have none now: not there, too many, or with `first` one before. */
export async function issueKey(
  context: Context,
  tenantId: TenantId,
  request: KeyRequest,
  { first }: { first: boolean },
): Promise<IssuedKey | undefined> {
  const id = toBase64Url(crypto.getRandomValues(new Uint8Array(9)));
  const secret = toBase64Url(crypto.getRandomValues(new Uint8Array(24)));
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
    if (error instanceof AnswerLost) return add(); // it may stand, and nobody but us knows the key
    throw error;
  });
  if (!added) return undefined;
  const { delivered } = await notifyObject(context, tenantId);
  return { id, name: request.name, scopes: request.scopes, expiresAt, apiKey, delivered };
}
