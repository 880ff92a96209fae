// Makes ids and passwords from the platform's secure random source.
import { toBase64Url } from "../core/keys/credentials.ts";
import { TenantId } from "../core/tenant/tenant.ts";

/** A random UUID. */
export function newId(): string {
  return crypto.randomUUID();
}

/** A UUID of version 7 (RFC 9562). It starts with the time, so that rows of one time are neighbours in an index. */
export function newTimedId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}

/** 80 random bits in letters and digits: impossible to guess, and valid in every name derived from it. */
export function newTenantId(): TenantId {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567"; // 32 characters, so that a byte's low five bits are unbiased
  const random = crypto.getRandomValues(new Uint8Array(16));
  return TenantId.parse(`t${Array.from(random, (byte) => alphabet[byte & 31]).join("")}`);
}

/** The id of a member or an invitation: 72 random bits in 12 characters. */
export function newMemberId(): string {
  return toBase64Url(crypto.getRandomValues(new Uint8Array(9)));
}

/** A password of 244 random bits for a database login. */
export function newPassword(): string {
  return crypto.randomUUID() + crypto.randomUUID();
}
