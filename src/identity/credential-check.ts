// Decides from the tenant's configuration whether a verified caller's key or token still works. A key that the configuration
// does not list is revoked. A user whose organisation is not linked any more is unknown.
import type { Caller } from "../core/call.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { TenantConfig } from "../core/tenant.ts";

/** Why this caller is refused at `nowMs`, or `undefined`. */
export function refusedCredential(
  config: Pick<TenantConfig, "keys" | "links">,
  caller: Caller,
  nowMs: number,
): ErrorCode | undefined {
  if (caller.kind !== "key") {
    if (nowMs >= caller.expiresAtMs) return "token_expired";
    return caller.kind === "canary" || isLinked(config, caller) ? undefined : "tenant_unknown";
  }
  const key = config.keys.find((each) => each.id === caller.keyId);
  if (key === undefined || key.hash !== caller.keyHash) return "key_revoked";
  return key.expiresAtMs !== null && nowMs >= key.expiresAtMs ? "key_revoked" : undefined;
}

function isLinked({ links }: Pick<TenantConfig, "links">, user: Extract<Caller, { kind: "user" }>): boolean {
  return links.some(({ issuer, organisation }) => issuer === user.issuer && organisation === user.organisation);
}
