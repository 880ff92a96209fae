// Makes ids and passwords from the platform's secure random source.
import { TenantId } from "../core/tenant.ts";

/** A random UUID. */
export function newId(): string {
  return crypto.randomUUID();
}

/** A UUID of version 7 (RFC 9562). It starts with the time, so that rows of one time are neighbours in an index. */
export function newTimedId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}

/** A letter and 60 random bits: short enough for a URL that a person reads. */
export function newTenantId(): TenantId {
  return TenantId.parse(`t${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`);
}

/** A password of 244 random bits for a database login. */
export function newPassword(): string {
  return crypto.randomUUID() + crypto.randomUUID();
}
