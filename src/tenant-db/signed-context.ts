// The signed context, which names a transaction's tenant to the database: `v1.<key id>.<tenant>.<database>.<expiry, epoch
// seconds>.<mac>`. The MAC is HMAC-SHA256 (RFC 2104) in lower-case hex over everything before the last dot.
// `tollgate.current_tenant()` in the database verifies it (migrations/shared) and trusts nothing else about the tenant.
// Dots separate the fields, so no field may contain one.
import { keyIdPattern } from "../core/keys/encryption.ts";
import { type TenantId, tenantIdPattern } from "../core/tenant/tenant.ts";

const databasePattern = /^[A-Za-z0-9_-]{1,63}$/;

export interface ContextClaims {
  keyId: string;
  secret: string;
  tenantId: TenantId;
  /** The name of the one database that accepts the context. */
  database: string;
  /** Rounded down to whole seconds; the database refuses the context from this second on. */
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
