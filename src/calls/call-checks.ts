// What is asked of a call's sender before anything is counted: is the key or token still good, and may it call this tool?
import type { CallRequest, Caller, Refusal } from "../core/call.ts";
import type { ErrorCode } from "../core/errors.ts";
import { plainRefusal } from "./refusal.ts";
import type { TenantConfig } from "../core/tenant.ts";

/** Why this caller is not served now, or `undefined`: its key is revoked, or its token has expired. */
export function refusedCredential(config: TenantConfig, caller: Caller, nowMs: number): ErrorCode | undefined {
  if (caller.kind !== "key") return nowMs >= caller.expiresAtMs ? "token_expired" : undefined;
  const key = config.keys.find((each) => each.id === caller.keyId);
  if (key === undefined || key.hash !== caller.keyHash) return "key_revoked";
  return key.expiresAtMs !== null && nowMs >= key.expiresAtMs ? "key_revoked" : undefined;
}

/** Why this caller may not call this tool, or `undefined`. */
export function refusedTool(config: TenantConfig, { caller, tool }: CallRequest): Refusal | undefined {
  const allowed = allowedTools(config, caller);
  return allowed === null || allowed.includes(tool) ? undefined : plainRefusal("tool_not_allowed");
}

/** Which tools the caller may call; `null`: every one. */
export function allowedTools(config: TenantConfig, caller: Caller): readonly string[] | null {
  return caller.kind === "canary" ? ["health_check"] : config.allowedTools;
}

/** The caller as tools see it. */
export function callerId(caller: Caller): string {
  if (caller.kind === "key") return caller.keyId;
  return caller.kind === "user" ? caller.subject : "canary";
}
