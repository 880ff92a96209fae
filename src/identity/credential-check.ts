// Decides from the tenant's configuration whether a proved caller is still good: a key that is not listed is revoked.
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
