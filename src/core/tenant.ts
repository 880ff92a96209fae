// What a tenant is, and what is allowed in each of its states. The control tables hold the truth; the tenant's object
// holds a copy with a version and trusts it for `CONFIG_TRUSTED_MS` at most.
import * as z from "zod";
import type { ErrorCode } from "./errors.ts";
import { Placement } from "./placement.ts";
import { Limits, planNames, strategies } from "./plans.ts";

/** Lower-case letters, digits, `-` and `_`; never a `.`, which separates the fields of credentials and contexts. */
export const tenantIdPattern = /^[a-z0-9][a-z0-9_-]{0,39}$/;
export const TenantId = z.string().regex(tenantIdPattern).brand("TenantId");
export type TenantId = z.infer<typeof TenantId>;

/** A name that people read. No control characters: PostgreSQL refuses NUL in a text, and pages cannot show the others. */
export const DisplayName = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^\P{Cc}*$/u, "must not contain control characters");

export const tenantStates = ["provisioning", "trial", "active", "past_due", "suspended", "leaving", "gone"] as const;
export type TenantState = (typeof tenantStates)[number];

/** What the operator has switched on for one tenant, for tools to read. */
export const Features = z.record(z.string().min(1).max(60), z.union([z.boolean(), z.number(), z.string().max(200)]));
export type Features = z.infer<typeof Features>;

/** A tenant as its object needs it: everything that admission asks, and nothing that only billing asks. */
export const TenantConfig = z.object({
  id: TenantId,
  /** Grows with every change of the tenant or of its keys. */
  version: z.int().positive(),
  name: z.string(),
  plan: z.enum(planNames),
  /** What was sold. Where the rows really are is the placement; a difference between the two proposes a move. */
  strategy: z.enum(strategies),
  /** `null` until provisioning has placed the tenant. */
  placement: Placement.nullable(),
  state: z.enum(tenantStates),
  trialUntilMs: z.int().nullable(),
  /** Since when an invoice is not paid; only in the state `past_due`. */
  pastDueSinceMs: z.int().nullable().default(null),
  /** Until when a tenant that leaves may come back. */
  leavingUntilMs: z.int().nullable().default(null),
  limits: Limits,
  /** `null`: every tool of the catalogue. */
  allowedTools: z.array(z.string()).nullable(),
  features: Features.default({}),
  /** The keys that are valid; a key that is not listed is revoked. */
  keys: z.array(z.object({ id: z.string(), hash: z.string(), expiresAtMs: z.int().nullable() })),
});
export type TenantConfig = z.infer<typeof TenantConfig>;

/** The control tables are the truth: an older copy than this refuses to decide (DESIGN.md I11). */
export const CONFIG_TRUSTED_MS = 5 * 60_000;
/** From this age on the copy is refreshed behind a call, so that a busy tenant never waits for it. */
export const CONFIG_REFRESH_MS = 4 * 60_000;

/** Which state may serve tool calls; the others name the refusal. */
const service: Readonly<Record<TenantState, "serves" | ErrorCode>> = {
  provisioning: "tenant_provisioning",
  trial: "serves",
  active: "serves",
  past_due: "serves", // for `PAST_DUE_SERVICE_MS`
  suspended: "tenant_suspended",
  leaving: "tenant_leaving",
  gone: "tenant_gone",
};

/**
 * How long a tenant is served whose payment has failed. Stripe's own retries begin within days, and most cards that fail
 * are replaced within a week; who has not paid then is not helped by more debt.
 */
export const PAST_DUE_SERVICE_MS = 7 * 86_400_000;

/** Why a tenant in this state is not served now, or `undefined` when it is. */
export function refusedByState(
  config: Pick<TenantConfig, "state" | "trialUntilMs" | "pastDueSinceMs">,
  nowMs: number,
): ErrorCode | undefined {
  const outcome = service[config.state];
  if (outcome !== "serves") return outcome;
  if (config.state === "trial" && config.trialUntilMs !== null && nowMs >= config.trialUntilMs) return "trial_expired";
  if (
    config.state === "past_due" &&
    config.pastDueSinceMs !== null &&
    nowMs >= config.pastDueSinceMs + PAST_DUE_SERVICE_MS
  )
    return "payment_required";
  return undefined;
}
