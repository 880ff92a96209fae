import type { CallRequest, Caller, Refusal } from "../core/call.ts";
import { plainRefusal } from "./refusal.ts";
import type { TenantConfig } from "../core/tenant.ts";

/** Why this caller may not call this tool, or `undefined`. */
export function refusedTool(config: TenantConfig, { caller, tool }: CallRequest): Refusal | undefined {
  const allowed = allowedTools(config, caller);
  return allowed === null || allowed.includes(tool) ? undefined : plainRefusal("tool_not_allowed");
}

/** The tools that the caller may call; `null`: every tool. */
export function allowedTools(config: TenantConfig, caller: Caller): readonly string[] | null {
  return caller.kind === "canary" ? ["health_check"] : config.allowedTools;
}
