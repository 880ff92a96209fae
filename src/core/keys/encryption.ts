// Key rings, and the encryption of the logins that the control tables keep. A reader of the tables alone cannot use a login.
// AES-256-GCM (NIST SP 800-38D). The purpose of a login is authenticated with it, so that a login copied into another row
// does not decrypt there. The key's id is in front: the newest key encrypts, every key of the ring decrypts.
// Format: `v1.<key id>.<iv, base64url>.<ciphertext and tag, base64url>`.
import * as z from "zod";
import { fromBase64Url, toBase64Url } from "./credentials.ts";

/** No dot: a key's id is a field of encrypted logins and signed contexts, whose fields are separated by dots. */
export const keyIdPattern = /^[a-z0-9][a-z0-9_-]{0,39}$/;

/** 32 characters carry SHA-256's own strength; the database refuses to install a shorter context key. */
const Key = z.object({ id: z.string().regex(keyIdPattern), secret: z.string().min(32) });
export type Key = z.infer<typeof Key>;

const Keys = z
  .array(Key)
  .min(1)
  .refine((keys) => new Set(keys.map((key) => key.id)).size === keys.length, "two keys have the same id");

/** Newest first: the first key signs or encrypts, every key verifies or decrypts. */
export type KeyRing = readonly [Key, ...Key[]];

/** Reads a key ring, `[{ id, secret }]`, from the text of a secret. Errors name `variable` and the place, never a value. */
export function parseKeyRing(variable: "CONTEXT_KEYS" | "ENCRYPTION_KEYS", json: string): KeyRing {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Error(`${variable} is not JSON`); // the parser's own message quotes its input
  }
  const parsed = Keys.safeParse(value);
  if (!parsed.success) {
    const places = parsed.error.issues.map((issue) => `[${issue.path.join(".")}]: ${issue.code}`).join(", ");
    throw new Error(`${variable} does not hold [{ id, secret }], newest first: ${places}`);
  }
  const [first, ...rest] = parsed.data;
  if (first === undefined) throw new Error(`${variable} is empty`);
  return [first, ...rest];
}

/** GCM's native size. It would hash any other size down to this one. */
export const IV_BYTES = 12;

/** Encrypts `secret` for one purpose. `iv` is `IV_BYTES` random bytes, never used twice. */
export async function encrypt(
  [key]: KeyRing,
  purpose: string,
  secret: string,
  iv: Uint8Array<ArrayBuffer>,
): Promise<string> {
  if (iv.length !== IV_BYTES) throw new Error(`encryption needs ${IV_BYTES} random bytes`);
  const encrypted = await crypto.subtle.encrypt(
    algorithm(purpose, iv),
    await cipher(key.secret),
    encoder.encode(secret),
  );
  return `v1.${key.id}.${toBase64Url(iv)}.${toBase64Url(new Uint8Array(encrypted))}`;
}

/** Decrypts what was encrypted for this purpose. Throws when no key fits. The message contains neither a key nor the login. */
export async function decrypt(keys: KeyRing, purpose: string, encrypted: string): Promise<string> {
  const [version, keyId, iv, ciphertext, ...rest] = encrypted.split(".");
  const key = keys.find(({ id }) => id === keyId);
  if (version !== "v1" || iv === undefined || ciphertext === undefined || rest.length > 0) {
    throw new Error(`the encrypted login for ${purpose} is malformed`);
  }
  if (key === undefined) {
    throw new Error(`the encrypted login for ${purpose} needs a key that ENCRYPTION_KEYS does not hold`);
  }
  try {
    const decrypted = await crypto.subtle.decrypt(
      algorithm(purpose, fromBase64Url(iv)),
      await cipher(key.secret),
      fromBase64Url(ciphertext),
    );
    return new TextDecoder().decode(decrypted);
  } catch {
    throw new Error(`the encrypted login for ${purpose} does not decrypt`);
  }
}

/** Whether the newest key encrypted it. If not, its key is being rotated out. */
export function isEncryptedWithNewest(keys: KeyRing, encrypted: string): boolean {
  return encrypted.split(".")[1] === keys[0].id;
}

const encoder = new TextEncoder();

function algorithm(purpose: string, iv: Uint8Array<ArrayBuffer>) {
  return { name: "AES-GCM", iv, additionalData: encoder.encode(purpose) };
}

/** The secret is random, so that one hash is enough to derive a key from it. */
async function cipher(secret: string): Promise<CryptoKey> {
  const key = await crypto.subtle.digest("SHA-256", encoder.encode(secret));
  return crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
}
