// Sealed secrets: what the control tables keep of logins can be read by nobody who has only the tables. AES-256-GCM
// (NIST SP 800-38D) with the key's id in front, so that keys rotate: the first key seals, every key opens. What a secret
// is for is authenticated with it, so that one put into another row does not open there.
// A sealed secret is `v1.<key id>.<iv, base64url>.<ciphertext and tag, base64url>`.
import * as z from "zod";
import { fromBase64Url, toBase64Url } from "./credentials.ts";

const SealKeys = z
  .array(z.object({ id: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,39}$/), secret: z.string().min(32) }))
  .min(1)
  .refine((keys) => new Set(keys.map((key) => key.id)).size === keys.length, "two keys have the same id");
export type SealKeys = z.infer<typeof SealKeys>;

/** GCM's own size: anything else is hashed down to it. */
export const SEAL_IV_BYTES = 12;

/** Reads the `SEAL_KEYS` secret, `[{ id, secret }]`, newest first. The error of a malformed one never quotes it. */
export function parseSealKeys(json: string): SealKeys {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Error("SEAL_KEYS is not JSON"); // the parser's own message quotes its input
  }
  const parsed = SealKeys.safeParse(value);
  if (parsed.success) return parsed.data;
  const places = parsed.error.issues.map((issue) => `[${issue.path.join(".")}]: ${issue.code}`).join(", ");
  throw new Error(`SEAL_KEYS does not hold [{ id, secret }], newest first: ${places}`);
}

/** Seals `secret` for one purpose. `iv` is `SEAL_IV_BYTES` random bytes, never used twice. */
export async function seal(keys: SealKeys, purpose: string, secret: string, iv: Uint8Array): Promise<string> {
  const [key] = keys;
  if (key === undefined || iv.length !== SEAL_IV_BYTES) throw new Error("sealing needs a key and 12 random bytes");
  const sealed = await crypto.subtle.encrypt(algorithm(purpose, iv), await cipher(key.secret), encoder.encode(secret));
  return `v1.${key.id}.${toBase64Url(iv)}.${toBase64Url(new Uint8Array(sealed))}`;
}

/** Opens what was sealed for this purpose. Throws when no key opens it; the message quotes neither. */
export async function unseal(keys: SealKeys, purpose: string, sealed: string): Promise<string> {
  const [version, keyId, iv, ciphertext, ...rest] = sealed.split(".");
  const key = keys.find(({ id }) => id === keyId);
  if (version !== "v1" || iv === undefined || ciphertext === undefined || rest.length > 0) {
    throw new Error(`what is sealed for ${purpose} is malformed`);
  }
  if (key === undefined) throw new Error(`what is sealed for ${purpose} needs a key that SEAL_KEYS does not hold`);
  try {
    const opened = await crypto.subtle.decrypt(
      algorithm(purpose, fromBase64Url(iv)),
      await cipher(key.secret),
      fromBase64Url(ciphertext),
    );
    return new TextDecoder().decode(opened);
  } catch {
    throw new Error(`what is sealed for ${purpose} does not open`);
  }
}

/** Whether it is sealed with the key that seals now; another one is on its way out. */
export function sealedWithNewest(keys: SealKeys, sealed: string): boolean {
  return sealed.split(".")[1] === keys[0]?.id;
}

const encoder = new TextEncoder();

function algorithm(purpose: string, iv: Uint8Array) {
  return { name: "AES-GCM", iv, additionalData: encoder.encode(purpose) };
}

/** The secret is random, so one hash makes a key of it. */
async function cipher(secret: string): Promise<CryptoKey> {
  const key = await crypto.subtle.digest("SHA-256", encoder.encode(secret));
  return crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
}
