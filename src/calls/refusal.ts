// The text of refusals, written for a model: what was refused, what it costs, what is used, when to retry, where to
// upgrade. The same facts are sent as data beside the text.
import type { CallOutcome, QuotaStatus, Refusal } from "../core/call.ts";
import { type ErrorCode, errors, support } from "../core/errors.ts";
import { type Account, type StateFacts, conditionOf, tenantTable } from "../core/tenant/tenant-state.ts";
import { costOf, inDollars, spentIn, type SpendWindow } from "../core/plans/money.ts";
import { type Features, type PlanName, featuresOf, plans } from "../core/plans/plans.ts";
import { withheld } from "../tools/offer.ts";
import type { Tool } from "../tools/tool.ts";
import type { Measure, Refused } from "./admission.ts";

/** A refusal without numbers: about the caller, or about the tenant's state. */
export function plainRefusal(code: ErrorCode, detail?: string): Refusal {
  return { code, message: `${errors[code].advice}${detail === undefined ? "" : ` ${detail}`}` };
}

/** A refusal as the outcome of a call. `quota` is known when admission refused. */
export function refusedOutcome(refusal: Refusal, quota?: QuotaStatus): Extract<CallOutcome, { kind: "refused" }> {
  return { kind: "refused", refusal, quota };
}

/** The refusal of a tenant whose condition serves no calls: why, and what can be done about it. */
export function stateRefusal(
  account: Account & StateFacts,
  code: ErrorCode,
  { publicUrl, nowMs }: { publicUrl: string; nowMs: number },
): Refusal {
  const condition = conditionOf(account, nowMs);
  // The code may be about the credential instead.
  const ofState = tenantTable[condition].calls === code;
  return plainRefusal(code, ofState ? tenantTable[condition].says?.(account, publicUrl) : undefined);
}

/** What each limit allows, in words. */
const allowed: Readonly<Record<Measure, string>> = {
  minute: "requests a minute",
  in_flight: "calls at once",
  hour: "units an hour",
  tool_hour: "units an hour for this tool",
  month: "units a calendar month",
  key_month: "units a calendar month for this API key",
  spend: "units a billing period under the spend cap",
};

const NEAR_CAP = "The account is near its spend cap, which cannot be checked exactly now. Try again in a minute.";
const NEAR_CAP_SECONDS = 60;

/** A wait of more than this has a date: people plan by dates, and models cannot add seconds to a time of day. */
const DATED_FROM_SECONDS = 60;

export interface LimitOptions {
  /** Where a larger plan is sold. */
  upgradeUrl: string;
  /** The page on which the tenant's people raise the limit that has refused. Absent: no limit of the call can be raised there. */
  raiseUrl?: string;
  nowMs: number;
  /** The billing period, for a refusal by the spend cap. */
  spend?: SpendWindow | undefined;
}

/**
 * A refusal by admission. `subject` says what was refused: a tool by its name, or the message. `retryAfterSeconds` is rounded
 * up, so that a client which waits that long is not early.
 */
function refusedByLimit(subject: string, refused: Refused, options: LimitOptions): Refusal {
  const { code, measure, limit, used, cost, retryAfterMs } = refused;
  const { nowMs, raiseUrl } = options;
  const isRaisable = raiseUrl !== undefined && code === "period_exhausted" && hasLargerPlan(limit);
  const upgradeUrl = isRaisable ? raiseUrl : options.upgradeUrl;
  const retryAfterSeconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
  const inUnits = measure !== "minute" && measure !== "in_flight";
  const state = inUnits ? `are used and this call costs ${cost}` : measure === "minute" ? "were made" : "are running";
  // A larger plan does not raise the budget of a key.
  const isOfKey = measure === "key_month";
  const sentences = [
    `Refused: ${subject} and nothing was charged.`,
    `The limit is ${limit} ${allowed[measure]}; ${used} ${state}.`,
    retryAfterSeconds === undefined
      ? `Waiting does not help: the call costs more than the limit.`
      : `${isOfKey ? "The budget renews" : "Try again"} in ${retryAfterSeconds} ${retryAfterSeconds === 1 ? "second" : "seconds"}${dateAfter(retryAfterSeconds, nowMs)}.`,
    isOfKey ? "An administrator of the account can raise the key's budget." : `Upgrade at ${upgradeUrl}`,
  ];
  return {
    code,
    message: sentences.join(" "),
    limit,
    used,
    cost,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    ...(isOfKey ? {} : { upgradeUrl }),
    ...(isRaisable && { raisable: true }),
  };
}

/** Whether a plan that Stripe sells has more units a month. */
function hasLargerPlan(unitsPerMonth: number): boolean {
  return [...plans.values()].some(
    ({ amountCents, limits }) => amountCents !== null && (limits.unitsPerMonth ?? Infinity) > unitsPerMonth,
  );
}

/** The refusal of a call by the spend cap: what is spent, what the call costs, who can raise the cap, and when it renews. */
function refusedByCap(subject: string, refused: Refused, spend: SpendWindow, options: LimitOptions): Refusal {
  const { code, limit, used, cost, retryAfterMs } = refused;
  const { includedUnits, unitAmountCents, maxCapCents } = spend;
  const capCents = spend.capCents ?? 0;
  const dollars = (cents: number): string => `${inDollars(costOf(cents, "1"))} USD`;
  const paid = Math.max(0, used + cost - includedUnits) - Math.max(0, used - includedUnits);
  const most = maxCapCents === null ? "" : `, to at most ${dollars(maxCapCents)}`;
  const { raiseUrl, upgradeUrl } = options;
  const canRaise = raiseUrl !== undefined && (maxCapCents === null || maxCapCents > capCents);
  const retryAfterSeconds = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
  const sentences = [
    `Refused: ${subject} and nothing was charged.`,
    `The spend cap of a billing period is ${dollars(capCents)} for units beyond the ${includedUnits} included ones;`,
    `${inDollars(spentIn(spend, used))} USD are spent, and this call costs ${inDollars(costOf(paid, unitAmountCents))} USD (${cost} units).`,
    canRaise
      ? `An owner, an administrator or a billing member of the account can raise the cap${most}: ${raiseUrl}`
      : `The cap cannot be raised further. For a larger plan see ${upgradeUrl}`,
    retryAfterSeconds === undefined
      ? "Waiting does not help: the call costs more than the cap."
      : `The next billing period begins in ${retryAfterSeconds} seconds${dateAfter(retryAfterSeconds, options.nowMs)}.`,
  ];
  return {
    ...{ code, message: sentences.join(" "), limit, used, cost, capCents },
    ...(canRaise ? { upgradeUrl: raiseUrl, raisable: true } : { upgradeUrl }),
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
  };
}

function dateAfter(seconds: number, nowMs: number): string {
  if (seconds <= DATED_FROM_SECONDS) return "";
  const at = new Date((Math.ceil(nowMs / 1000) + seconds) * 1000);
  return `, at ${at.toISOString().replace(".000Z", "Z")}`;
}

/** The refusal of a call by a limit. */
export function limitRefusal(tool: string, refused: Refused, options: LimitOptions): Refusal {
  const subject = `${tool} was not run`;
  const { spend } = options;
  if (refused.measure !== "spend" || spend === undefined) return refusedByLimit(subject, refused, options);
  // The host's reserve refused, and not the cap.
  if (refused.used + refused.cost <= (spend.maxUnits ?? Infinity))
    return { ...plainRefusal("metering_unavailable", NEAR_CAP), retryAfterSeconds: NEAR_CAP_SECONDS };
  return refusedByCap(subject, refused, spend, options);
}

/** The refusal of a message that is no call, by the requests per minute. */
export function requestRefusal(refused: Refused, options: LimitOptions): Refusal {
  return refusedByLimit("the request was not answered", refused, options);
}

/** Adds to a refusal that the call may have been charged once. */
export function mayBeCharged(refusal: Refusal, callId: string): Refusal {
  const note = `An answer was lost, so the call may have been charged once. Its id is ${callId}.`;
  return { ...refusal, message: `${refusal.message} ${note}`, mayBeChargedAs: callId };
}

/** Where plans are sold, and where a tenant's people raise a limit. That page needs their session: its address is no secret. */
export function urlsOf(
  { env: { PUBLIC_URL } }: { env: Pick<Env, "PUBLIC_URL"> },
  { id }: { id: string },
): Pick<LimitOptions, "upgradeUrl" | "raiseUrl"> {
  return { upgradeUrl: `${PUBLIC_URL}/plans`, raiseUrl: `${PUBLIC_URL}/app/${id}/limit` };
}

/** The refusal of a tool that the tenant's plan or features do not have, or that has ended; `undefined`: the tenant has it. */
export function withheldRefusal(
  tool: Tool,
  tenant: { plan: PlanName; features: Features },
  { upgradeUrl, nowMs }: Pick<LimitOptions, "upgradeUrl" | "nowMs">,
): Refusal | undefined {
  const reason = withheld(tool, { plan: tenant.plan, features: featuresOf(tenant) }, nowMs);
  switch (reason?.by) {
    case undefined:
      return undefined;
    case "end":
      return plainRefusal("tool_ended", `${tool.name} worked until ${reason.until}. Use ${reason.use} instead.`);
    case "plan": {
      const detail = `${tool.name} is in ${inWords("plan", reason.plans)}. Upgrade at ${upgradeUrl}`;
      return { ...plainRefusal("tool_not_in_plan", detail), upgradeUrl };
    }
    case "feature": {
      const needs = `${tool.name} needs ${inWords("feature", reason.features)}.`;
      if (reason.plans.length === 0) return plainRefusal("feature_missing", `${needs} Ask support: ${support}.`);
      const detail = `${needs} Plans that have it: ${reason.plans.join(", ")}. Upgrade at ${upgradeUrl}`;
      return { ...plainRefusal("feature_missing", detail), upgradeUrl };
    }
    default:
      return reason satisfies never;
  }
}

/** "the plan pro", "the plans pro and enterprise". */
function inWords(noun: string, names: readonly string[]): string {
  return `the ${noun}${names.length === 1 ? "" : "s"} ${new Intl.ListFormat("en").format(names)}`;
}

/** The refusal of a caller that lacks a scope of the tool. */
export function scopesNeeded({ name, scopes }: Pick<Tool, "name" | "scopes">): Refusal {
  const detail = `The tool ${name} needs ${scopes.join(" ")}. Sign in again and allow it, or ask your administrator for the right.`;
  return plainRefusal("scope_missing", detail);
}

/** The first attempt was charged, and the retry could not return its answer. */
export function lostAnswer(callId: string): Refusal {
  return plainRefusal("outcome_unknown", `The call was charged and its answer was lost. Its id is ${callId}.`);
}
