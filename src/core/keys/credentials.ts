// The bearer credentials that Tollgate mints. Each carries its tenant and a MAC over the whole credential, so that Tollgate
// refuses a forged one by computation alone, without reading storage or waking a tenant's object. It also names the root key
// that made it (root-keys.ts). The MAC covers the kind, so that no credential passes for another kind.
// A fixed prefix and a checksum let scanners find a credential in public text, and anybody can compute the checksum.
// docs/keys.md describes the form for them.
import { newestRootKey, rootKeysOf, secretsOf } from "./root-keys.ts";
import { type TenantId, tenantIdPattern } from "../tenant/tenant.ts";

/**
 * - `key`: an API key. Fields: key id, scopes (`encodeScopes`), secret.
 * - `canary`: the test call of provisioning. Field: expiry in epoch milliseconds.
 * - `setup`: lets the buyer create the first key. Field: expiry in epoch milliseconds.
 * - `status`: reads the progress of the tenant's provisioning. Field: expiry in epoch milliseconds.
 * - `monitor`: reads one tenant's health. Field: generation. A later one revokes it.
 * - `invitation`: makes the person who shows it a member. Fields: invitation id, secret.
 * - `impersonation`: an operator as the tenant's admin. Fields: id, expiry in epoch milliseconds.
 * - `grant`: names a member of the tenant as the OAuth server's user. Field: member id. Every code and token of the member's
 *   grants begins with it, and it opens nothing by itself.
 */
export type CredentialKind =
  | "key"
  | "canary"
  | "setup"
  | "status"
  | "monitor"
  | "invitation"
  | "impersonation"
  | "grant";

const prefixes: Readonly<Record<CredentialKind, string>> = {
  key: "tgk",
  canary: "tgc",
  setup: "tgs",
  status: "tgp",
  monitor: "tgm",
  invitation: "tgi",
  impersonation: "tga",
  grant: "tgo",
};
const fieldCounts: Readonly<Record<CredentialKind, number>> = {
  ...{ key: 3, canary: 1, setup: 1, status: 1, monitor: 1, invitation: 2, impersonation: 2, grant: 1 },
};
const fieldPattern = /^[A-Za-z0-9_-]{1,128}$/;

/** Kinds that are compared with a stored digest besides. Their MAC only spares the look into storage. */
const storedKinds: ReadonlySet<CredentialKind> = new Set(["key", "invitation", "grant"]);

/** Finds credentials of every kind in a text. The last six characters are the checksum. docs/keys.md publishes it. */
export const credentialPattern =
  /\btg[a-z]_[a-z0-9][a-z0-9_-]{0,39}(?:\.[A-Za-z0-9_-]{1,128}){2,4}\.[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}\b/;
const wholeCredential = new RegExp(`^${credentialPattern.source}$`);
/** Longer than any credential, so that a huge token costs nothing. */
const MAX_CREDENTIAL_CHARS = 640;

export interface Credential {
  kind: CredentialKind;
  tenantId: TenantId;
  fields: readonly string[];
}

/**
 * Writes a credential: `<prefix>_<tenant>.<field>….<root key>.<MAC><checksum>`. MAC is HMAC-SHA256 (RFC 2104) in base64url over
 * all text before its dot. The checksum is over all text before it. A field has 1 to 128 letters, digits, `-` or `_`. Throws
 * for fields that `verifyCredential` would refuse.
 */
export async function mintCredential(rootKeys: string, credential: Credential): Promise<string> {
  if (!isWellFormed(credential)) throw new Error(`a ${credential.kind} credential cannot carry these fields`);
  const { id, secret } = await newestRootKey(rootKeys);
  const body = [`${prefixes[credential.kind]}_${credential.tenantId}`, ...credential.fields, id].join(".");
  const mac = await crypto.subtle.sign("HMAC", await macKey(secret), encoder.encode(body));
  const text = `${body}.${toBase64Url(new Uint8Array(mac))}`;
  return text + checksumOf(text);
}

/**
 * Reads a credential; `undefined` when its form, its checksum or its MAC is wrong, or when the root key that made it no longer
 * verifies this kind. The caller checks the expiry.
 */
export async function verifyCredential(rootKeys: string, token: string): Promise<Credential | undefined> {
  if (token.length > MAX_CREDENTIAL_CHARS || !wholeCredential.test(token) || !hasChecksum(token)) return undefined;
  const end = token.lastIndexOf(".");
  const kind = (Object.keys(prefixes) as CredentialKind[]).find((each) => token.startsWith(`${prefixes[each]}_`));
  if (kind === undefined) return undefined;
  const [tenantId = "", ...rest] = token.slice(prefixes[kind].length + 1, end).split(".");
  const [fields, rootKeyId = ""] = [rest.slice(0, -1), rest.at(-1)];
  const credential: Credential = { kind, tenantId: tenantId as TenantId, fields };
  const mac = macFrom(token.slice(end + 1, -CHECKSUM_CHARS));
  if (mac === undefined || !isWellFormed(credential)) return undefined;
  const rootKey = (await rootKeysOf(rootKeys)).byId.get(rootKeyId);
  if (rootKey === undefined || (rootKey.verifies === "stored" && !storedKinds.has(kind))) return undefined;
  // `verify` compares in constant time.
  const isOurs = await crypto.subtle.verify(
    "HMAC",
    await macKey(rootKey.secret),
    mac,
    encoder.encode(token.slice(0, end)),
  );
  return isOurs ? credential : undefined;
}

/** What people may see of a key, to tell it from others. It is the beginning of the key, and opens nothing. */
export function keyPrefix(tenantId: string, keyId: string): string {
  return `${prefixes.key}_${tenantId}.${keyId}`;
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

const CHECKSUM_CHARS = 6;
const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** CRC-32 (as in zlib) of the text, in base62 with leading zeros. GitHub's tokens have the same checksum. */
function checksumOf(text: string): string {
  let rest = crc32(text);
  let written = "";
  for (let place = 0; place < CHECKSUM_CHARS; place += 1) {
    written = (base62[rest % 62] ?? "") + written;
    rest = Math.floor(rest / 62);
  }
  return written;
}

function hasChecksum(token: string): boolean {
  return checksumOf(token.slice(0, -CHECKSUM_CHARS)) === token.slice(-CHECKSUM_CHARS);
}

/** The text has only ASCII characters. */
function crc32(text: string): number {
  let crc = 0xffffffff;
  for (let index = 0; index < text.length; index += 1) {
    crc = (crc >>> 8) ^ (crcTable[(crc ^ text.charCodeAt(index)) & 0xff] ?? 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});
