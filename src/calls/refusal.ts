// The words in which a refused call is told to a model: what limit, what it costs, what is used, when to come back,
// where to buy more. The same facts stand beside the text as data.
import type { Refused } from "./admission.ts";
import type { CallOutcome, Refusal, QuotaStatus } from "../core/call.ts";
import { type ErrorCode, errors } from "../core/errors.ts";

/** A refusal that has no numbers: who is calling, or the tenant's state. */
export function plainRefusal(code: ErrorCode, detail?: string): Refusal {
  return { code, message: `${errors[code].advice}${detail === undefined ? "" : ` ${detail}`}` };
}

/** A refusal as the outcome of a call. `quota` is known when it was admission that refused. */
export function refusedOutcome(refusal: Refusal, quota?: QuotaStatus): CallOutcome {
  return { kind: "refused", refusal, quota };
}

const measured: Readonly<Record<Refused["code"], { of: string; unit: string }>> = {
  rate_limited: { of: "a minute", unit: "calls" },
  too_many_in_flight: { of: "at once", unit: "calls" },
  window_exhausted: { of: "an hour", unit: "units" },
  tool_exhausted: { of: "an hour for this tool", unit: "units" },
  period_exhausted: { of: "a calendar month", unit: "units" },
  cost_over_limit: { of: "a period", unit: "units" },
};

/** A refusal by admission. `retryAfterSeconds` is rounded up, so that a client which waits as told is not early. */
export function limitRefusal(tool: string, refused: Refused, upgradeUrl: string): Refusal {
  const { of, unit } = measured[refused.code];
  const { code, limit, used, cost, retryAfterMs } = refused;
  const retryAfterSeconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
  const sentences = [
    `Refused: ${tool} was not run and nothing was charged.`,
    `The limit is ${limit} ${unit} ${of}; ${used} are used and this call costs ${cost}.`,
    retryAfterSeconds === undefined
      ? `Waiting does not help: the call costs more than the limit.`
      : `Try again in ${retryAfterSeconds} seconds.`,
    `More can be had at ${upgradeUrl}`,
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

/** The same refusal of a call that may have been charged all the same. */
export function mayBeCharged(refusal: Refusal, callId: string): Refusal {
  const note = `An answer was lost on the way: it may have been charged once. The call's id is ${callId}.`;
  return { ...refusal, message: `${refusal.message} ${note}`, mayBeChargedAs: callId };
}
