// Creates a tenant: inserts its row, then starts its provisioning. If the start fails, the row stays in the state
// `provisioning`, and the sweep starts the provisioning.
import * as z from "zod";
import { newTenantId } from "../adapters/ids.ts";
import { Features, Limits, planNames, strategies, planOf } from "../core/plans/plans.ts";
import { DisplayName, TenantId } from "../core/tenant/tenant.ts";
import { DAY_MS } from "../core/time.ts";
import { catalogue } from "../tools/catalogue.ts";
import type { Context } from "./context.ts";
import type { Creation } from "./idempotent-requests-store.ts";
import { placementsStore } from "./placements-store.ts";
import { tenantsStore } from "./tenants-store.ts";

export const ToolName = z.string().refine((name) => catalogue.has(name), "there is no such tool");

export const TenantRequest = z.strictObject({
  id: TenantId.optional(),
  name: DisplayName,
  email: z.email().max(320).optional(),
  plan: z.enum(planNames),
  /** Overrides the plan's strategy. */
  strategy: z.enum(strategies).optional(),
  region: z.string().min(1).max(60).optional(),
  /** Each number overrides the plan's. */
  limits: Limits.extend({
    unitsPerHourByTool: z.record(ToolName, z.int().positive()),
    // Unwrapped, because their defaults would override the plan's numbers.
    sessions: Limits.shape.sessions.unwrap(),
    sessionIdleSeconds: Limits.shape.sessionIdleSeconds.unwrap(),
    spendCapCents: Limits.shape.spendCapCents.unwrap(),
    maxSpendCapCents: Limits.shape.maxSpendCapCents.unwrap(),
  })
    .strict()
    .partial()
    .optional(),
  allowedTools: z.array(ToolName).nullable().optional(),
  trialDays: z.int().min(1).max(365).optional(),
  features: Features.optional(),
});
export type TenantRequest = z.infer<typeof TenantRequest>;

/**
 * Why no database can be in the requested region; `undefined`: one may be. Tollgate creates shared databases only in regions
 * that have one, and in its own. For the other strategies Neon decides, and a refusal of Neon's ends the provisioning.
 */
export async function refusedRegion(context: Context, request: TenantRequest): Promise<string | undefined> {
  const { plan, strategy = planOf(plan).strategy, region } = request;
  if (region === undefined || strategy !== "shared") return undefined;
  const known = await placementsStore(context.control).regions(strategy);
  if (known.includes(region)) return undefined;
  return `region: no shared database is in ${region}. Known: ${known.join(", ") || "none"}.`;
}

/**
 * Creates a tenant and starts its provisioning. Returns `undefined` when the id is taken. A `creation` that repeats finds the
 * tenant that an earlier run has made.
 */
export async function createTenant(
  context: Context,
  request: TenantRequest,
  creation?: Creation,
): Promise<TenantId | undefined> {
  const plan = planOf(request.plan);
  const id = request.id ?? creation?.seed ?? newTenantId();
  const { created } = await tenantsStore(context.control).insert({
    id,
    name: request.name,
    email: request.email ?? null,
    plan: plan.name,
    strategy: request.strategy ?? plan.strategy,
    region: request.region ?? null,
    limits: Limits.parse({ ...plan.limits, ...request.limits }),
    ...(request.limits !== undefined && { soldLimits: plan.limits }),
    allowedTools: request.allowedTools ?? null,
    trialUntil:
      request.trialDays === undefined ? null : new Date(Date.now() + request.trialDays * DAY_MS).toISOString(),
    stripeCustomerId: null,
    stripeSubscriptionId: null,
    features: request.features ?? {},
  });
  if (!created && !(await isOwn(context, id, creation))) return undefined;
  await context.tenantObject(id).provision();
  return id;
}

/** Whether an earlier run of the same request has made the tenant: it did not exist before. */
async function isOwn(context: Context, id: TenantId, creation: Creation | undefined): Promise<boolean> {
  if (creation?.isRepeat !== true) return false;
  const tenant = await tenantsStore(context.control).summary(id);
  return tenant !== undefined && Date.parse(tenant.createdAt) >= creation.atMs;
}
