// Creates a tenant: inserts its row, then starts its provisioning. If the start fails, the row stays in the state
// `provisioning`, and the sweep starts the provisioning.
import * as z from "zod";
import { newTenantId } from "../adapters/ids.ts";
import { Limits, planNames, strategies, planOf } from "../core/plans.ts";
import { DisplayName, Features, TenantId } from "../core/tenant.ts";
import { DAY_MS } from "../core/time.ts";
import { catalogue } from "../tools/catalogue.ts";
import type { Context } from "./context.ts";
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
  })
    .strict()
    .partial()
    .optional(),
  allowedTools: z.array(ToolName).nullable().optional(),
  trialDays: z.int().min(1).max(365).optional(),
  features: Features.optional(),
});
export type TenantRequest = z.infer<typeof TenantRequest>;

/** Creates a tenant and starts its provisioning. Returns `undefined` when the id is taken. */
export async function createTenant(context: Context, request: TenantRequest): Promise<TenantId | undefined> {
  const plan = planOf(request.plan);
  const id = request.id ?? newTenantId();
  const { created } = await tenantsStore(context.control).insert({
    id,
    name: request.name,
    email: request.email ?? null,
    plan: plan.name,
    strategy: request.strategy ?? plan.strategy,
    region: request.region ?? null,
    limits: Limits.parse({ ...plan.limits, ...request.limits }),
    allowedTools: request.allowedTools ?? null,
    trialUntil:
      request.trialDays === undefined ? null : new Date(Date.now() + request.trialDays * DAY_MS).toISOString(),
    stripeCustomerId: null,
    stripeSubscriptionId: null,
    features: request.features ?? {},
  });
  if (!created) return undefined;
  await context.tenantObject(id).provision();
  return id;
}
