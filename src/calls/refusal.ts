// The text of refusals, written for a model: what was refused, what it costs, what is used, when to retry, where to
// upgrade. The same facts are sent as data beside the text.
import type { CallOutcome, QuotaStatus, Refusal } from "../core/call.ts";
import { type ErrorCode, errors } from "../core/errors.ts";
import type { TenantConfig } from "../core/tenant.ts";
import type { Refused } from "./admission.ts";

/** A refusal without numbers: about the caller, or about the tenant's state. */
export function plainRefusal(code: ErrorCode, detail?: string): Refusal {
  return { code, message: `${errors[code].advice}${detail === undefined ? "" : ` ${detail}`}` };
}

/** A refusal as the outcome of a call. `quota` is known when admission refused. */
export function refusedOutcome(refusal: Refusal, quota?: QuotaStatus): CallOutcome {
  return { kind: "refused", refusal, quota };
}

/** The refusal of a tenant that leaves: until when it can return, and how. */
export function leavingRefusal(
  { id, leavingUntilMs }: Pick<TenantConfig, "id" | "leavingUntilMs">,
  publicUrl: string,
): Refusal {
  if (leavingUntilMs === null) return plainRefusal("tenant_leaving");
  const until = new Date(leavingUntilMs).toISOString();
  const tenantUrl = `${publicUrl}/api/tenants/${id}`;
  return plainRefusal(
    "tenant_leaving",
    `Until ${until} its administrator can reactivate it with POST ${tenantUrl}/reactivate and export its data with GET ${tenantUrl}/export.`,
  );
}

const measured: Readonly<Record<Refused["code"], { per: string; unit: string }>> = {
  rate_limited: { per: "a minute", unit: "calls" },
  too_many_in_flight: { per: "at once", unit: "calls" },
  window_exhausted: { per: "an hour", unit: "units" },
  tool_exhausted: { per: "an hour for this tool", unit: "units" },
  period_exhausted: { per: "a calendar month", unit: "units" },
  cost_over_limit: { per: "a period", unit: "units" },
};

/** A refusal by admission. `retryAfterSeconds` is rounded up, so that a client which waits that long is not early. */
export function limitRefusal(tool: string, refused: Refused, upgradeUrl: string): Refusal {
  const { per, unit } = measured[refused.code];
  const { code, limit, used, cost, retryAfterMs } = refused;
  const retryAfterSeconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
  const sentences = [
    `Refused: ${tool} was not run and nothing was charged.`,
    `The limit is ${limit} ${unit} ${per}; ${used} are used and this call costs ${cost}.`,
    retryAfterSeconds === undefined
      ? `Waiting does not help: the call costs more than the limit.`
      : `Try again in ${retryAfterSeconds} seconds.`,
    `Upgrade at ${upgradeUrl}`,
  ];
  return {
    code,
    message: sentences.join(" "),
    limit,
    used,
    cost,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    upgradeUrl,
  };
}

/** Adds to a refusal that the call may have been charged once. */
export function mayBeCharged(refusal: Refusal, callId: string): Refusal {
  const note = `An answer was lost, so the call may have been charged once. Its id is ${callId}.`;
  return { ...refusal, message: `${refusal.message} ${note}`, mayBeChargedAs: callId };
}
