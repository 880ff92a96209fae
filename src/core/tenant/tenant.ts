// A tenant's configuration. The control tables are the truth: the tenant's object has a copy with a version and trusts it
// for `CONFIG_TRUSTED_MS` at most. tenant-state.ts has the table of its states.
import * as z from "zod";
import { tenantRoles } from "../actor.ts";
import { Billing } from "../plans/money.ts";
import { Placement } from "./placement.ts";
import { Features, Limits, planNames, strategies } from "../plans/plans.ts";
import { MINUTE_MS } from "../time.ts";

/** No `.`, which separates the fields of credentials and signed contexts. */
export const tenantIdPattern = /^[a-z0-9][a-z0-9_-]{0,39}$/;
/**
 * Ids with this prefix are Tollgate's own: the two tenants of the isolation proof (tenant-db/isolation.ts). A customer with
 * one of them would change or delete the rows that the proof needs, which stops every tenant of a shared database.
 */
export const RESERVED_PREFIX = "canary-";
export const TenantId = z
  .string()
  .regex(tenantIdPattern, "must be 1 to 40 lower-case letters, digits, - and _, a letter or digit first")
  .refine((id) => !id.startsWith(RESERVED_PREFIX), `must not start with ${RESERVED_PREFIX}, which is reserved`)
  .brand("TenantId");
export type TenantId = z.infer<typeof TenantId>;

/**
 * A name that people read. No control characters: PostgreSQL refuses NUL in a text, and pages cannot show the others. None that
 * break the line or turn the direction of the text, and at least one that can be seen.
 */
export const DisplayName = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]*$/u, "must not contain control characters")
  .regex(/[\p{L}\p{N}\p{P}\p{S}]/u, "must contain a visible character");

/** How the tenant's agents and pages show this server. The schemas of changes have checked the texts (settings.ts). */
export const Branding = z.object({
  productName: z.string().optional(),
  logoUrl: z.string().optional(),
  colour: z.string().optional(),
});
export type Branding = z.infer<typeof Branding>;

export const tenantStates = ["provisioning", "trial", "active", "past_due", "suspended", "leaving", "gone"] as const;
export type TenantState = (typeof tenantStates)[number];

/** What decides about the calls of one API key. */
export const ApiKey = z.object({
  id: z.string(),
  /** SHA-256 of the key. */
  hash: z.string(),
  expiresAtMs: z.int().nullable(),
  /** The first key of its line: a rotated key and its successor share their units of the month. */
  lineId: z.string(),
  /** The only tools that it may call; `null`: every tool of the tenant. */
  tools: z.array(z.string()).nullable().default(null),
  /** Units that its line may use in a calendar month (UTC); `null`: what the tenant has. */
  unitsPerMonth: z.int().positive().nullable().default(null),
  /** The member who made it; `null` for one that was made by the operator or the buyer. */
  memberId: z.string().nullable().default(null),
});
export type ApiKey = z.infer<typeof ApiKey>;

/** The configuration that a tenant's object needs to decide about calls. */
export const TenantConfig = z.object({
  id: TenantId,
  /** Grows with every change of the tenant or of its keys. */
  version: z.int().positive(),
  name: z.string(),
  plan: z.enum(planNames),
  /** The strategy that the plan sells. The placement says where the rows are; when the two differ, a move is due. */
  strategy: z.enum(strategies),
  /** `null` until provisioning has made one. */
  placement: Placement.nullable(),
  state: z.enum(tenantStates),
  trialUntilMs: z.int().nullable(),
  /** Who suspended the tenant; only in the state `suspended`. */
  suspendedBy: z.enum(["operator", "billing", "pause"]).nullable().default(null),
  /** When the unpaid invoice fell due; only in the state `past_due`. */
  pastDueSinceMs: z.int().nullable().default(null),
  /** Until when a leaving tenant can be reactivated. */
  leavingUntilMs: z.int().nullable().default(null),
  limits: Limits,
  /** Decides about the spend cap. */
  billing: Billing.optional(),
  /** `null`: every tool of the catalogue. */
  allowedTools: z.array(z.string()).nullable(),
  /** What was set for the tenant. `featuresOf` adds those of the plan. */
  features: Features.default({}),
  branding: Branding.default({}),
  /** The tenant's own secrets of tools by name, encrypted. */
  secrets: z.record(z.string(), z.string()).default({}),
  /** The valid keys. A key that is not listed is revoked. */
  keys: z.array(ApiKey),
  /** The organisations whose users may use the tenant. A token for any other one is refused. */
  links: z.array(z.object({ issuer: z.string(), organisation: z.string() })),
  /** The people of the tenant. Issuer and subject are null before the first sign-in. */
  members: z.array(
    z.object({
      id: z.string(),
      role: z.enum(tenantRoles),
      issuer: z.string().nullable(),
      subject: z.string().nullable(),
      /** Sign-ins before this instant do not count: their provider was removed. */
      signInsSinceMs: z.number().nullish(),
    }),
  ),
  /** The identities whose membership has ended and that were not invited again. They are refused. */
  removedMembers: z.array(z.object({ issuer: z.string(), subject: z.string() })),
});
export type TenantConfig = z.infer<typeof TenantConfig>;

/** An older copy decides nothing: a change in the control tables is in force everywhere after this time. */
export const CONFIG_TRUSTED_MS = 5 * MINUTE_MS;
/** From this age on a call refreshes the copy in the background, so that a busy tenant never waits for it. */
export const CONFIG_REFRESH_MS = 4 * MINUTE_MS;
