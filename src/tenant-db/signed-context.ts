// The signed context that names a transaction's tenant to the database: `v1.<key id>.<tenant>.<database>.<expiry, epoch
// seconds>.<mac>`, where the MAC is HMAC-SHA256 (RFC 2104) in lower-case hex over everything before the last dot.
// The database verifies it in `tollgate.current_tenant()` (migrations/shared/0002_context.sql) and believes nothing
// else about who the tenant is. No field may contain a dot, so that there is one way to read a context.
import * as z from "zod";
import { type TenantId, tenantIdPattern } from "../core/tenant.ts";

const keyIdPattern = /^[a-z0-9][a-z0-9_-]{0,39}$/;

export const ContextKey = z.object({
  id: z.string().regex(keyIdPattern),
  /** 32 bytes are SHA-256's own strength; the database refuses to install less. */
  secret: z.string().min(32),
});
export type ContextKey = z.infer<typeof ContextKey>;

const ContextKeys = z
  .array(ContextKey)
  .min(1)
  .refine((keys) => new Set(keys.map((key) => key.id)).size === keys.length, "two keys have the same id");
/** Newest first: the first signs, the database accepts all. */
export type ContextKeys = readonly [ContextKey, ...ContextKey[]];

/** Reads the `CONTEXT_KEYS` secret, `[{ id, secret }]`. The error of a malformed one names the place, never a value. */
export function parseContextKeys(json: string): ContextKeys {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Error("CONTEXT_KEYS is not JSON"); // the parser's own message quotes its input
  }
  const parsed = ContextKeys.safeParse(value);
  if (!parsed.success) {
    const places = parsed.error.issues.map((issue) => `[${issue.path.join(".")}]: ${issue.code}`).join(", ");
    throw new Error(`CONTEXT_KEYS does not hold [{ id, secret }], newest first: ${places}`);
  }
  const [first, ...rest] = parsed.data;
  if (first === undefined) throw new Error("CONTEXT_KEYS is empty");
  return [first, ...rest];
}

const databasePattern = /^[A-Za-z0-9_-]{1,63}$/;

export interface ContextClaims {
  keyId: string;
  secret: string;
  tenantId: TenantId;
  /** The name of the one database in which the context is good. */
  database: string;
  /** Rounded down to whole seconds; from this second on the context is refused. */
  expiresAtMs: number;
}

/** Signs a context. Throws when a field could not be read back as it was written. */
export async function signContext({ keyId, secret, tenantId, database, expiresAtMs }: ContextClaims): Promise<string> {
  if (!keyIdPattern.test(keyId)) throw new Error("a context needs a well-formed key id");
  if (!tenantIdPattern.test(tenantId)) throw new Error("a context needs a well-formed tenant id");
  if (!databasePattern.test(database)) throw new Error("a context needs a database name of letters, digits, _ and -");
  const expiry = Math.floor(expiresAtMs / 1000);
  if (!(expiry > 0 && expiry < 1e12)) throw new Error("a context needs an expiry in epoch milliseconds");
  const body = `v1.${keyId}.${tenantId}.${database}.${expiry}`;
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const hmacKey = await crypto.subtle.importKey("raw", encoder.encode(secret), algorithm, false, ["sign"]);
  const mac = await crypto.subtle.sign("HMAC", hmacKey, encoder.encode(body));
  return `${body}.${Array.from(new Uint8Array(mac), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
