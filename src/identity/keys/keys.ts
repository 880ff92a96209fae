// API keys: who may make and change them, and how they are made. Tollgate stores a key and notifies the tenant's object before
// it shows the key. It shows a key once and stores only the digest.
// Invariants: a key never makes a key; a key has no right that its maker lacks; a successor has its predecessor's rights, and
// both use one monthly budget.
import * as z from "zod";
import type { Context } from "../../control/context.ts";
import type { Creation } from "../../control/idempotent-requests-store.ts";
import { ToolName } from "../../control/new-tenant.ts";
import { notifyObject } from "../../control/notify-object.ts";
import { AnswerLost } from "../../adapters/neon.ts";
import { type Actor, covers, permissionsOfAdminKey, permissionsOfRole } from "../../core/actor.ts";
import { encodeScopes, keyPrefix, mintCredential, sha256Hex, toBase64Url } from "../../core/keys/credentials.ts";
import { newestRootKey } from "../../core/keys/root-keys.ts";
import { DisplayName, type TenantId } from "../../core/tenant/tenant.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import { scopesSupported } from "../tokens/authenticate.ts";
import { type NewKey, type StoredKey, keysStore } from "./keys-store.ts";
import { rolesNeeded, toolScopesOfRole } from "../members/members.ts";

/** Scope for the tenant's admin API. Granted only on request. */
export const ADMIN_SCOPE = "tenant:admin";

/** Maximum number of live keys of one tenant. Its object reads all of them with its configuration. */
export const MAX_KEYS = 50;

/** A week: time enough to replace a key everywhere, and short enough to be remembered. */
const MAX_OVERLAP_HOURS = 168;

const Expiry = z.iso
  .datetime({ offset: true })
  .refine((instant) => Date.parse(instant) > Date.now(), "must be in the future");
/** The only tools that a key may call; `null`: every tool of the tenant. */
const Tools = z
  .array(ToolName)
  .min(1)
  .max(200)
  .transform((tools) => [...new Set(tools)])
  .nullable();
/** `null`: the key may use what the tenant has. */
const UnitsPerMonth = z.int().min(1).nullable();

export const KeyRequest = z.strictObject({
  name: DisplayName.default("default"),
  scopes: z
    .array(z.enum([...scopesSupported, ADMIN_SCOPE]))
    .min(1)
    .default([...scopesSupported])
    .transform((scopes) => [...new Set(scopes)]),
  expiresAt: Expiry.optional(),
  tools: Tools.default(null),
  unitsPerMonth: UnitsPerMonth.default(null),
});
export type KeyRequest = z.infer<typeof KeyRequest>;

/** Scopes are in the key itself, so they cannot change. An expiry can only come earlier. */
export const KeyChange = z
  .strictObject({ name: DisplayName, tools: Tools, unitsPerMonth: UnitsPerMonth, expiresAt: Expiry })
  .partial();
export type KeyChange = z.infer<typeof KeyChange>;

export const RotateRequest = z.strictObject({
  /** For how long the old key still works. */
  overlapHours: z.int().min(0).max(MAX_OVERLAP_HOURS).default(24),
  /** When the new key expires. Without it, when the old one would have without its rotation. */
  expiresAt: Expiry.optional(),
});
export type RotateRequest = z.infer<typeof RotateRequest>;

export interface IssuedKey {
  id: string;
  name: string;
  prefix: string;
  scopes: readonly string[];
  tools: readonly string[] | null;
  unitsPerMonth: number | null;
  expiresAt: string | null;
  /** The key itself. Shown only here. */
  apiKey: string;
  /** Whether the key works already. Otherwise it works within about a minute. */
  delivered: boolean;
}

/** A key's successor, and when the key itself ends. */
export interface RotatedKey extends IssuedKey {
  replaces: { id: string; endsAt: string };
}

/** read: list keys. make: make, rotate or change one. end: revoke one. */
export type KeyAct = "read" | "make" | "end";

/** Why this actor may not do this with a tenant's keys, or `undefined`. The guard has compared the tenant. */
export function refusedActor(actor: Actor, act: KeyAct): string | undefined {
  switch (actor.kind) {
    case "operator":
      return undefined;
    case "member":
      if (actor.through === "grant") return "A client that you have let in manages no keys. Sign in with a browser.";
      if (!permissionsOfRole[actor.role].includes("keys:manage"))
        return `${rolesNeeded("keys:manage")} Yours is ${actor.role}.`;
      return undefined;
    case "impersonator":
      return act === "make" ? "An operator who acts for a customer makes and changes no keys." : undefined;
    case "key":
      return "A key does not manage keys. Sign in as a member of the account, or ask the operator.";
    case "anonymous":
    case "person":
    case "buyer":
    case "reader":
    case "stripe":
      return "This credential does not manage keys.";
    default:
      return actor satisfies never;
  }
}

/** Those of the scopes that the actor cannot give to a key, because the actor has fewer rights itself. */
export function scopesOver(actor: Actor, scopes: readonly string[]): string[] {
  if (actor.kind !== "member") return [];
  const ofTools = toolScopesOfRole(actor.role, scopesSupported);
  const isAdmin = covers(permissionsOfRole[actor.role], permissionsOfAdminKey);
  return scopes.filter((scope) => !(scope === ADMIN_SCOPE ? isAdmin : ofTools.includes(scope)));
}

/** Makes a key. `undefined` when the tenant does not exist, has too many keys or, with `first`, had one before. */
export async function issueKey(
  context: Context,
  tenantId: TenantId,
  request: KeyRequest,
  { first, maker, creation }: { first: boolean; maker: Actor; creation?: Creation | undefined },
): Promise<IssuedKey | undefined> {
  const { apiKey, key } = await newKey(
    context,
    tenantId,
    { ...request, expiresAt: request.expiresAt ?? null },
    { maker, creation },
  );
  const keys = keysStore(context.control);
  const added = await repeated(() => keys.add(tenantId, key, { first, maxKeys: MAX_KEYS }));
  if (!added) return undefined;
  return issued(tenantId, key, apiKey, (await notifyObject(context, tenantId)).delivered);
}

/**
 * Makes the successor of a key, with the same rights. The old key ends after the overlap. `undefined` when the old key does not
 * work any more or was rotated before.
 */
export async function rotateKey(
  context: Context,
  tenantId: TenantId,
  old: StoredKey,
  { overlapHours, expiresAt = old.ownExpiresAt ?? undefined }: RotateRequest,
  { maker, creation, nowMs }: { maker: Actor; creation?: Creation | undefined; nowMs: number },
): Promise<RotatedKey | undefined> {
  const { apiKey, key } = await newKey(
    context,
    tenantId,
    { ...old, expiresAt: expiresAt ?? null },
    { maker, creation },
  );
  const keys = keysStore(context.control);
  const endsAt = new Date(nowMs + overlapHours * HOUR_MS).toISOString();
  const ends = await repeated(() => keys.rotate(tenantId, old.id, key, endsAt));
  if (ends === undefined) return undefined;
  const { delivered } = await notifyObject(context, tenantId);
  return { ...issued(tenantId, key, apiKey, delivered), replaces: { id: old.id, endsAt: ends } };
}

/** Runs it again when the answer was lost: the key may be stored, and only this request knows it. */
function repeated<Result>(add: () => Promise<Result>): Promise<Result> {
  return add().catch((error: unknown) => {
    if (error instanceof AnswerLost) return add();
    throw error;
  });
}

type Rights = Pick<NewKey, "name" | "scopes" | "tools" | "unitsPerMonth" | "expiresAt">;

async function newKey(
  { env }: Context,
  tenantId: TenantId,
  { name, scopes, tools, unitsPerMonth, expiresAt }: Rights,
  { maker, creation }: { maker: Actor; creation: Creation | undefined },
): Promise<{ apiKey: string; key: NewKey }> {
  const { id, secret } = creation === undefined ? randomParts() : await repeatableParts(env, tenantId, creation);
  const apiKey = await mintCredential(env.CREDENTIAL_KEY, {
    kind: "key",
    tenantId,
    fields: [id, encodeScopes(scopes), secret],
  });
  const createdBy = { kind: maker.kind, id: "id" in maker ? maker.id : null };
  const rootKey = (await newestRootKey(env.CREDENTIAL_KEY)).id;
  const hash = await sha256Hex(apiKey);
  return { apiKey, key: { id, name, hash, rootKey, scopes, tools, unitsPerMonth, expiresAt, createdBy } };
}

function issued(
  tenantId: TenantId,
  { id, name, scopes, tools, unitsPerMonth, expiresAt }: NewKey,
  apiKey: string,
  delivered: boolean,
): IssuedKey {
  const prefix = keyPrefix(tenantId, id);
  return { id, name, prefix, scopes, tools, unitsPerMonth, expiresAt, apiKey, delivered };
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
 * Two URLs that show the progress of the tenant's provisioning, with a token that shows only this: for programs, and the page
 * that Checkout returns to. All URLs of a day are the same, because Stripe refuses a repeated order that differs.
 */
export async function progressUrls(
  env: Env,
  tenantId: TenantId,
  nowMs: number,
): Promise<{ statusUrl: string; pageUrl: string }> {
  const expiresAtMs = (Math.floor(nowMs / DAY_MS) + 1) * DAY_MS + STATUS_LIFE_MS;
  const token = await mintCredential(env.CREDENTIAL_KEY, { kind: "status", tenantId, fields: [String(expiresAtMs)] });
  return {
    statusUrl: `${env.PUBLIC_URL}/api/tenants/${tenantId}/status?token=${token}`,
    pageUrl: `${env.PUBLIC_URL}/checkout/${tenantId}?token=${token}`,
  };
}
