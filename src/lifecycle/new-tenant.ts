// What the operator can ask for in a new tenant, and the tenant's making: its row first, then its provisioning.
import * as z from "zod";
import { tenantsOf } from "../control/tenants-store.ts";
import { Limits, planNames, plans, strategies } from "../core/plans.ts";
import { Features, TenantId } from "../core/tenant.ts";
import { catalogue } from "../tools/catalogue.ts";
import { DisplayName } from "../identity/keys.ts";

const ToolName = z.string().refine((name) => catalogue.has(name), "there is no such tool");

export const TenantRequest = z.strictObject({
  id: TenantId.optional(),
  name: DisplayName,
  email: z.email().max(320).optional(),
  plan: z.enum(planNames),
  /** Instead of the plan's. */
  strategy: z.enum(strategies).optional(),
  region: z.string().min(1).max(60).optional(),
  /** Overrides of the plan's numbers. */
  limits: Limits.extend({
    unitsPerHourByTool: z.record(ToolName, z.int().positive()),
    // Without their defaults, which would override the plan.
    sessions: Limits.shape.sessions.unwrap(),
    sessionIdleSeconds: Limits.shape.sessionIdleSeconds.unwrap(),
  })
    .partial()
    .optional(),
  allowedTools: z.array(ToolName).nullable().optional(),
  trialDays: z.int().min(1).max(365).optional(),
  features: Features.optional(),
});
export type TenantRequest = z.infer<typeof TenantRequest>;

/** Makes a tenant and starts its provisioning. `undefined` when there is one with this id. */
export async function createTenant(env: Env, request: TenantRequest): Promise<TenantId | undefined> {
  const plan = plans[request.plan];
  const id = request.id ?? TenantId.parse(`t${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`);
  const { created } = await tenantsOf(env).insert({
    id,
    name: request.name,
    email: request.email ?? null,
    plan: plan.name,
    strategy: request.strategy ?? plan.strategy,
    region: request.region ?? null,
    limits: Limits.parse({ ...plan.limits, ...request.limits }),
    allowedTools: request.allowedTools ?? null,
    trialUntil:
      request.trialDays === undefined ? null : new Date(Date.now() + request.trialDays * 86_400_000).toISOString(),
    stripeCustomerId: null,
    stripeSubscriptionId: null,
    features: request.features ?? {},
  });
  if (!created) return undefined;
  await env.TENANT.getByName(id).provision();
  return id;
}
