// Changes of plan: the operator's, to anything, and the tenant's own, between the plans that Stripe sells. Most are done
// when they are answered (200); one that must wait for usage or for Stripe is answered with what it waits for (202), and
// can be taken back until it has taken effect. And the tenant's way to its invoices.
import { type Context, Hono } from "hono";
import * as z from "zod";
import { type PlanChange, billingOf } from "./subscriptions-store.ts";
import { tenantsOf } from "../control/tenants-store.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { AppError } from "../core/errors.ts";
import { proposedMove } from "../moves/move.ts";
import { Limits, plans } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { soldPlans } from "./checkout.ts";
import { TenantRequest } from "../control/new-tenant.ts";
import { type HttpEnv, problem, readJson, tenantOf } from "../http.ts";
import { administeredTenant } from "../identity/require-admin.ts";

const PlanRequest = TenantRequest.pick({ plan: true, strategy: true, limits: true });
const OwnPlanRequest = z.strictObject({ plan: z.enum(soldPlans) });
const PortalRequest = z.strictObject({ returnUrl: z.url().optional() });

type Wanted = Parameters<ReturnType<typeof billingOf>["openChange"]>[1];

/** Below `/admin/api/tenants`. */
export const planApi = new Hono<HttpEnv>();

planApi.post("/:id/plan", async (c) => {
  const request = await readJson(c, PlanRequest);
  const { name: plan, strategy, limits } = plans[request.plan];
  return change(c, tenantOf(c), {
    plan,
    strategy: request.strategy ?? strategy,
    limits: Limits.parse({ ...limits, ...request.limits }),
    requestedBy: "operator",
  });
});

planApi.get("/:id/plan", async (c) => c.json({ changes: await billingOf(c.env).changes(tenantOf(c)) }));

planApi.delete("/:id/plan", (c) => cancel(c, tenantOf(c)));

/** Below `/api/tenants`. */
export const accountApi = new Hono<HttpEnv>();

accountApi.post("/:id/plan", async (c) => {
  const tenantId = await administeredTenant(c);
  const request = await readJson(c, OwnPlanRequest);
  const billing = await billingOf(c.env).read(tenantId);
  if (billing === undefined) return problem(c, "not_found");
  if (billing.subscriptionId === null)
    return problem(c, "conflict", "The account has no subscription that could change: ask its operator.");
  const { name: plan, strategy, limits } = plans[request.plan];
  // With its present plan a tenant keeps the numbers that it was sold.
  const waiting = await billingOf(c.env).waitingChange(tenantId);
  if (billing.plan === plan && waiting === undefined) return c.json({ tenantId, plan, change: null });
  return change(c, tenantId, { plan, strategy, limits, requestedBy: "tenant" });
});

accountApi.get("/:id/plan", async (c) => {
  const tenantId = await administeredTenant(c);
  const [billing, changes] = await Promise.all([billingOf(c.env).read(tenantId), billingOf(c.env).changes(tenantId)]);
  return c.json({ tenantId, plan: billing?.plan, change: changes[0] ?? null });
});

accountApi.delete("/:id/plan", async (c) => cancel(c, await administeredTenant(c)));

/** Where the customer sees its invoices, pays what is open, and cancels; also while it is not served. */
accountApi.post("/:id/portal", async (c) => {
  const tenantId = await administeredTenant(c);
  const { returnUrl = `${c.env.PUBLIC_URL}/plans` } = await readJson(c, PortalRequest);
  const billing = await billingOf(c.env).read(tenantId);
  if (billing === undefined || billing.customerId === null)
    return problem(c, "conflict", "The account has no customer at Stripe.");
  try {
    return c.json(
      {
        url: await connectStripe(c.env.STRIPE_SECRET_KEY, c.env.STRIPE_API_BASE).customers.portal(
          billing.customerId,
          returnUrl,
        ),
      },
      201,
      noStore,
    );
  } catch (error) {
    log("error", "portal_failed", { tenantId, error: describeError(error) });
    throw new AppError("billing_unavailable", "No portal session could be made", { cause: error });
  }
});

async function change(c: Context<HttpEnv>, tenantId: TenantId, wanted: Wanted): Promise<Response> {
  const billing = billingOf(c.env);
  const now = await billing.read(tenantId);
  if (now === undefined || now.state === "gone") return problem(c, "not_found", "There is no such tenant.");
  if (now.endedAtMs !== null && plans[wanted.plan].amountCents !== null)
    return problem(c, "conflict", "The subscription has ended: a new one is needed before its plan can change.");
  const opened = await billing.openChange(tenantId, wanted);
  if (opened === undefined) return problem(c, "not_found", "There is no such tenant.");
  if (!(await billing.asks(opened.id, wanted)))
    return problem(c, "conflict", `Another change, to ${opened.plan}, waits: take it back first.`);
  try {
    await c.env.TENANT.getByName(tenantId).planOn("advanceForAMoment");
  } catch (error) {
    // It is kept: the sweep goes on with it.
    log("error", "plan_change_left_to_sweep", { tenantId, error: describeError(error) });
  }
  return answer(c, tenantId, opened.id, wanted.requestedBy === "operator");
}

async function cancel(c: Context<HttpEnv>, tenantId: TenantId): Promise<Response> {
  const waiting = await billingOf(c.env).waitingChange(tenantId);
  if (waiting === undefined) return problem(c, "not_found", "No change of plan waits.");
  const { done } = await c.env.TENANT.getByName(tenantId).planOn("cancel");
  if (!done) return problem(c, "conflict", "The change has taken effect.");
  return c.json({ change: { ...waiting, state: "cancelled", waitsFor: null } satisfies PlanChange });
}

async function answer(
  c: Context<HttpEnv>,
  tenantId: TenantId,
  changeId: number,
  isOperator: boolean,
): Promise<Response> {
  const [tenant, changes] = await Promise.all([tenantsOf(c.env).summary(tenantId), billingOf(c.env).changes(tenantId)]);
  const made = changes.find(({ id }) => id === changeId);
  if (tenant === undefined || made === undefined) return problem(c, "not_found", "There is no such tenant.");
  const isDone = made.state === "done";
  const delivered = isDone && tenant.deliveredVersion >= tenant.version;
  if (!isOperator) return c.json({ tenantId, plan: tenant.plan, delivered, change: made }, isDone ? 200 : 202);
  return c.json({ ...tenant, proposedMove: proposedMove(tenant), delivered, change: made }, isDone ? 200 : 202);
}

const noStore = { "cache-control": "no-store" };
