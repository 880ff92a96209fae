// Decides from the tenant's configuration whether a verified caller's key or token still works. A key that the configuration
// does not list is revoked.
import type { Caller } from "../core/call.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { TenantConfig } from "../core/tenant.ts";

/** Why this caller is refused at `nowMs`, or `undefined`: its key is revoked or its token has expired. */
export function refusedCredential(
  config: Pick<TenantConfig, "keys">,
  caller: Caller,
  nowMs: number,
): ErrorCode | undefined {
  if (caller.kind !== "key") return nowMs >= caller.expiresAtMs ? "token_expired" : undefined;
  const key = config.keys.find((each) => each.id === caller.keyId);
  if (key === undefined || key.hash !== caller.keyHash) return "key_revoked";
  return key.expiresAtMs !== null && nowMs >= key.expiresAtMs ? "key_revoked" : undefined;
}
