// The keys under which the OAuth server stores its state, and the object that holds each. Pure. A tenant's grants and tokens
// are in the tenant's own object, so that the RPC of a call also checks its token. Client registrations and the handles of
// unfinished sign-ins belong to no tenant yet; a few registry objects share them.
//
// Invariants: a key has one place. A text that is no key of the library has none: client ids, codes and tokens are texts of
// strangers. The rule reads the tenant but does not check the MAC; the caller does.
import { TenantId } from "../../core/tenant/tenant.ts";

/** Where a key is stored. `subject` is the library's user id: the minted credential of one member. */
export type KeyPlace =
  | { in: "tenant"; tenantId: TenantId; subject: string; grantId: string }
  | { in: "registry"; name: string };

/**
 * Objects that share the registrations and handles. One object takes about a thousand requests a second; a sign-in makes
 * about ten. The number must not change while sign-ins are under way.
 */
const REGISTRIES = 16;

/** Longest key. The library's own are shorter than 300 characters. */
const MAX_KEY_CHARS = 512;

// The library makes grant ids and secrets of these lengths, and names tokens and handles by SHA-256 in hex.
const grantIdForm = /^[A-Za-z0-9_-]{16}$/;
const secretForm = /^[A-Za-z0-9_-]{32}$/;
const digestForm = /^[0-9a-f]{64}$/;
/** The form of a credential of the kind `grant`: tenant, member, root key, MAC with its checksum. */
const subjectForm = /^tgo_([a-z0-9][a-z0-9_-]{0,39})(?:\.[A-Za-z0-9_-]{1,128}){2}\.[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}$/;
/** Client ids that the library makes, and the URLs of clients with a metadata document. Printable ASCII only. */
const clientIdForm = /^[\x21-\x7e]+$/;

/** The place of a key, or `undefined` for a text that is no key of the library. */
export function placeOfKey(key: string): KeyPlace | undefined {
  if (key.length > MAX_KEY_CHARS) return undefined;
  const [kind = "", ...rest] = key.split(":");
  switch (kind) {
    case "grant":
      return rest.length === 2 ? tenantPlace(rest[0], rest[1]) : undefined;
    case "token":
      return rest.length === 3 && digestForm.test(rest[2] ?? "") ? tenantPlace(rest[0], rest[1]) : undefined;
    case "client":
      return clientIdForm.test(rest.join(":")) ? registryPlace(key) : undefined;
    case "transaction":
    case "consent":
    case "client-assertion-jti":
    case "enterprise-jti":
      return rest.length === 1 && digestForm.test(rest[0] ?? "") ? registryPlace(key) : undefined;
    default:
      return undefined;
  }
}

/**
 * The place of all keys with a prefix: `grant:<subject>:` or `token:<subject>:<grant id>:`. `undefined` for any other prefix,
 * because its keys are in many objects.
 */
export function placeOfPrefix(prefix: string): Omit<Extract<KeyPlace, { in: "tenant" }>, "grantId"> | undefined {
  const [kind, subject, ...rest] = prefix.split(":");
  const isGrants = kind === "grant" && rest.length === 1 && rest[0] === "";
  const isTokens = kind === "token" && rest.length === 2 && grantIdForm.test(rest[0] ?? "") && rest[1] === "";
  const tenantId = isGrants || isTokens ? tenantOfSubject(subject) : undefined;
  return tenantId === undefined ? undefined : { in: "tenant", tenantId, subject: subject ?? "" };
}

/** The parts of a code, an access token or a refresh token, which have one form. `undefined` for any other text. */
export function partsOfToken(token: string): { tenantId: TenantId; subject: string; grantId: string } | undefined {
  const [subject, grantId, secret, ...more] = token.split(":");
  if (more.length > 0 || !secretForm.test(secret ?? "")) return undefined;
  const place = tenantPlace(subject, grantId);
  return place && { tenantId: place.tenantId, subject: place.subject, grantId: place.grantId };
}

function tenantPlace(
  subject: string | undefined,
  grantId: string | undefined,
): Extract<KeyPlace, { in: "tenant" }> | undefined {
  const tenantId = tenantOfSubject(subject);
  if (tenantId === undefined || subject === undefined || grantId === undefined || !grantIdForm.test(grantId))
    return undefined;
  return { in: "tenant", tenantId, subject, grantId };
}

function tenantOfSubject(subject: string | undefined): TenantId | undefined {
  return TenantId.safeParse(subjectForm.exec(subject ?? "")?.[1]).data;
}

function registryPlace(key: string): KeyPlace {
  return { in: "registry", name: `oauth-registry-${fnv1a(key) % REGISTRIES}` };
}

/** FNV-1a (32 bits): spreads keys evenly. It is no protection, and needs none: the server chooses the keys that it stores. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
