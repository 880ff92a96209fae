// The bearer credentials that Tollgate mints. Each carries its tenant and a MAC over the whole credential, so that Tollgate
// refuses a forged or mistyped one by computation alone, without reading storage or waking a tenant's object.
// The MAC covers the kind, so that no credential passes for another kind. The root keys are a list, newest first, separated by
// commas: the newest makes credentials and all verify them. A rotation adds a key in front, and later removes the oldest,
// which ends every credential that it has made.
import { type TenantId, tenantIdPattern } from "./tenant.ts";

/**
 * - `key`: an API key. Fields: key id, scopes (`encodeScopes`), secret.
 * - `canary`: the test call of provisioning. Field: expiry in epoch milliseconds.
 * - `setup`: lets the buyer create the first key. Field: expiry in epoch milliseconds.
 * - `status`: reads the progress of the tenant's provisioning. Field: expiry in epoch milliseconds.
 * - `monitor`: reads one tenant's health. Field: generation. A later one revokes it.
 * - `invitation`: makes the person who shows it a member. Fields: invitation id, secret.
 * - `impersonation`: an operator as the tenant's admin. Fields: id, expiry in epoch milliseconds.
 */
export type CredentialKind = "key" | "canary" | "setup" | "status" | "monitor" | "invitation" | "impersonation";

const prefixes: Readonly<Record<CredentialKind, string>> = {
  key: "tgk",
  canary: "tgc",
  setup: "tgs",
  status: "tgp",
  monitor: "tgm",
  invitation: "tgi",
  impersonation: "tga",
};
const fieldCounts: Readonly<Record<CredentialKind, number>> = {
  ...{ key: 3, canary: 1, setup: 1, status: 1, monitor: 1, invitation: 2, impersonation: 2 },
};
const fieldPattern = /^[A-Za-z0-9_-]{1,128}$/;

export interface Credential {
  kind: CredentialKind;
  tenantId: TenantId;
  fields: readonly string[];
}

/**
 * Writes a credential: `<prefix>_<tenant>.<field>….<MAC>`, where MAC is HMAC-SHA256 (RFC 2104) in base64url over all
 * text before its dot. A field has 1 to 128 letters, digits, `-` or `_`. Throws for fields that `verifyCredential` would
 * refuse.
 */
export async function mintCredential(rootKeys: string, credential: Credential): Promise<string> {
  if (!isWellFormed(credential)) throw new Error(`a ${credential.kind} credential cannot carry these fields`);
  const body = [`${prefixes[credential.kind]}_${credential.tenantId}`, ...credential.fields].join(".");
  const [newest = ""] = secretsOf(rootKeys);
  const mac = await crypto.subtle.sign("HMAC", await macKey(newest), encoder.encode(body));
  return `${body}.${toBase64Url(new Uint8Array(mac))}`;
}

/** Reads a credential; `undefined` when its form or its MAC is wrong. The caller checks the expiry. */
export async function verifyCredential(rootKeys: string, token: string): Promise<Credential | undefined> {
  const end = token.lastIndexOf(".");
  const kind = (Object.keys(prefixes) as CredentialKind[]).find((each) => token.startsWith(`${prefixes[each]}_`));
  if (kind === undefined || end < 0 || token.length > 512) return undefined;
  const [tenantId = "", ...fields] = token.slice(prefixes[kind].length + 1, end).split(".");
  const credential: Credential = { kind, tenantId: tenantId as TenantId, fields };
  if (!isWellFormed(credential)) return undefined;
  const mac = macFrom(token.slice(end + 1));
  if (mac === undefined) return undefined;
  const body = encoder.encode(token.slice(0, end));
  for (const rootKey of secretsOf(rootKeys)) {
    // `verify` compares in constant time.
    if (await crypto.subtle.verify("HMAC", await macKey(rootKey), mac, body)) return credential;
  }
  return undefined;
}

/** The secrets of a setting that is rotated: newest first, separated by commas. */
export function secretsOf(setting: string): string[] {
  return setting
    .split(",")
    .map((secret) => secret.trim())
    .filter((secret) => secret !== "");
}

function isWellFormed({ kind, tenantId, fields }: Credential): boolean {
  return (
    tenantIdPattern.test(tenantId) &&
    fields.length === fieldCounts[kind] &&
    fields.every((field) => fieldPattern.test(field))
  );
}

/** The token of an `Authorization: Bearer` header (RFC 6750, section 2.1), `undefined` without one. */
export function bearerToken(authorization: string | null | undefined): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
}

/** SHA-256 in lower-case hex. Keys are stored and tokens are cached under it. */
export async function sha256Hex(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(text)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether `token` is one of the secrets of a setting that is rotated. */
export async function isOneOf(setting: string, token: string): Promise<boolean> {
  const matches = await Promise.all(secretsOf(setting).map((secret) => secretsEqual(token, secret)));
  return matches.includes(true);
}

/** Whether two secrets are equal. The time it takes does not depend on where they differ. */
export async function secretsEqual(left: string, right: string): Promise<boolean> {
  const [a, b] = await Promise.all([sha256Hex(left), sha256Hex(right)]);
  let difference = 0;
  for (let index = 0; index < a.length; index += 1) difference |= a.charCodeAt(index) ^ b.charCodeAt(index);
  return difference === 0;
}

/** Scopes, without duplicates, as a credential field. The MAC covers them, so that no database lookup is needed. */
export function encodeScopes(scopes: readonly string[]): string {
  return toBase64Url(encoder.encode([...new Set(scopes)].join(" ")));
}

/** The scopes of a verified credential's field. */
export function decodeScopes(field: string): string[] {
  return new TextDecoder().decode(fromBase64Url(field)).split(" ");
}

/** Random bytes as a credential field. */
export function toBase64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** Decodes such a field. Throws on a character outside of the base64url alphabet. */
export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
}

const encoder = new TextEncoder();

/** The 32 bytes of a MAC. The last of its 43 characters has two unused bits, which must be zero: one MAC has one spelling. */
function macFrom(text: string): Uint8Array<ArrayBuffer> | undefined {
  return /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/.test(text) ? fromBase64Url(text) : undefined;
}

// Importing the key costs more than using it. A deployment has one root key, and two during a rotation.
const importedKeys = new Map<string, Promise<CryptoKey>>();
function macKey(rootKey: string): Promise<CryptoKey> {
  let key = importedKeys.get(rootKey);
  if (key === undefined) {
    key = crypto.subtle.importKey("raw", encoder.encode(rootKey), { name: "HMAC", hash: "SHA-256" }, false, [
      "sign",
      "verify",
    ]);
    importedKeys.set(rootKey, key);
  }
  return key;
}
