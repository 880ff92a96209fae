// What a tool gets, wherever it runs: in its tenant's object, or in the Worker while that cannot be reached.
import type { CallRequest } from "../core/call.ts";
import { callerId } from "./call-checks.ts";
import type { TenantConfig } from "../core/tenant.ts";
import { log } from "../log.ts";
import type { ToolContext } from "../tools/tool.ts";
import { createTenantFiles } from "../adapters/files.ts";

/** The context of one call but for what its run adds. `own` is what differs from place to place. */
export function toolContext(
  bucket: R2Bucket,
  config: TenantConfig,
  { callId, caller, tool }: Pick<CallRequest, "callId" | "caller" | "tool">,
  own: Pick<ToolContext, "db" | "usage" | "history">,
): Omit<ToolContext, "progress" | "signal"> {
  const { id, name, plan, features } = config;
  return {
    ...own,
    tenant: { id, name, plan, features },
    caller: { kind: caller.kind, id: callerId(caller) },
    callId,
    files: createTenantFiles({ bucket, tenantId: id }),
    log: (event, fields = {}) => log("info", event, { ...fields, callId, tenantId: id, tool }),
  };
}
