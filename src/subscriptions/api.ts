// Routes of a buyer and of a tenant's account: plans, checkout, the status of provisioning, plan changes and Stripe's
// portal. Usually a plan change is done before the response (200). If it waits for usage or for Stripe, the response says
// so (202), and the change can be cancelled until it takes effect. The operator lists, retries and dismisses Stripe's events.
import * as z from "zod";
import { joinBatches } from "../adapters/neon.ts";
import { newestImport } from "../backups/api.ts";
import { isolated } from "../control/failures-store.ts";
import type { Context } from "../control/context.ts";
import { TenantRequest } from "../control/new-tenant.ts";
import { ReportCache } from "../control/report-cache.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { BoundedMap } from "../core/concurrency/bounded-map.ts";
import { support } from "../core/errors.ts";

import { Limits, type PlanName, planOf } from "../core/plans/plans.ts";
import { afterEvent, allows } from "../core/tenant/tenant-state.ts";
import { notPossible, stateOf } from "../lifecycle/api.ts";
import type { TenantId, TenantState } from "../core/tenant/tenant.ts";
import {
  Flag,
  type HttpContext,
  type NumberedPageQuery,
  Problem,
  noStore,
  noSuchTenant,
  numberedPageQuery,
  pageOf,
  pageQuery,
  publicForMinutes,
  tenantOf,
} from "../http.ts";
import { isOperator } from "../identity/operators/operator-requests.ts";
import { type StepRecord, provisioningStore } from "../lifecycle/provisioning-store.ts";
import { provisioningSteps } from "../lifecycle/provisioning.ts";
import { describeError, log } from "../log.ts";
import { proposedMove } from "../moves/move.ts";
import {
  type OfferRequest,
  type OwnCheckoutRequest,
  ReturnUrl,
  canBuy,
  hasSubscription,
  openCheckout,
  openOwnCheckout,
  soldPlans,
  trustedUrl,
} from "./checkout.ts";
import { checkoutsStore } from "./checkouts-store.ts";
import { inboxStore } from "./inbox-store.ts";
import { REFUSED_BY_STRIPE } from "./plan-change.ts";
import { type PlanChange, subscriptionsStore } from "./subscriptions-store.ts";

export const PlanRequest = TenantRequest.pick({ plan: true, strategy: true, limits: true });
export const OwnPlanRequest = z.strictObject({ plan: z.enum(soldPlans) });
export const PortalRequest = z.strictObject({ returnUrl: ReturnUrl.optional() });

type RequestedChange = Parameters<ReturnType<typeof subscriptionsStore>["openChange"]>[1];

/** The plans that a buyer can choose from. Refusals name this address, so a browser gets the page with the plans. */
export function listPlans(c: HttpContext): Response {
  const byAccept = { vary: "accept" };
  if (/\btext\/html\b/i.test(c.req.header("accept") ?? ""))
    return c.body(null, 302, { ...noStore, ...byAccept, location: "/#plans" });
  const listed = soldPlans.map((name) => {
    const { amountCents, unitAmountCents, includedUnits, limits } = planOf(name);
    return { name, amountCents, currency: "usd", interval: "month", unitAmountCents, includedUnits, limits };
  });
  return c.json({ plans: listed }, 200, { ...publicForMinutes, ...byAccept });
}

/** A buyer's order, or an offer by the operator, which may have a trial. */
export async function createCheckout(
  c: HttpContext,
  { body }: { body: z.infer<typeof OfferRequest> },
): Promise<Response> {
  return c.json(await openCheckout(c.get("context"), c.get("requestId"), body, c.get("creation")), 201);
}

/** The guard of the route reads it, too. */
export const StatusQuery = z.strictObject({ token: z.string().optional() });

/** A page that polls sees each step this soon. Twenty pages that poll without a pause would take half of the server. */
const STATUS_PAUSE_MS = 250;
/** When this isolate last answered for a tenant. A forgotten one costs only an early answer. */
const statusShownAtMs = new BoundedMap<TenantId, number>(1_000);
/** One look serves all requests of the pause, except the operator's. */
const recentStatus = new ReportCache<OrderStatus>({ cachedMs: STATUS_PAUSE_MS, lookMs: 10_000, maxReports: 500 });

/** Where an order or a tenant stands. */
export interface OrderStatus {
  tenantId: TenantId;
  state: TenantState | "awaiting_payment";
  plan: PlanName;
  /** Why the newest attempt of provisioning failed. */
  error?: string | null;
  /** Once the tenant exists. */
  mcpUrl?: string;
  steps: ReturnType<typeof stepsAfter>;
}

/** Progress of provisioning, for programs that poll. */
export async function showStatus(c: HttpContext): Promise<Response> {
  return c.json(await currentStatus(c), 200, noStore);
}

/** The status of the path's order or tenant. A look that comes soon after another one waits a moment. */
export async function currentStatus(c: HttpContext): Promise<OrderStatus> {
  const tenantId = tenantOf(c);
  const earlyMs = (statusShownAtMs.get(tenantId) ?? 0) + STATUS_PAUSE_MS - Date.now();
  if (earlyMs > 0) await new Promise((resolve) => setTimeout(resolve, earlyMs));
  statusShownAtMs.set(tenantId, Date.now());
  const look = (): Promise<OrderStatus> => statusOf(c.get("context"), tenantId);
  return (await isOperator(c)) ? look() : recentStatus.get(tenantId, look);
}

async function statusOf(context: Context, tenantId: TenantId): Promise<OrderStatus> {
  const control = joinBatches(context.control);
  const [tenant, order, provisioning, imported] = await Promise.all([
    tenantsStore(control).summary(tenantId),
    checkoutsStore(control).find(tenantId),
    provisioningStore(control).progress(tenantId),
    newestImport({ control }, tenantId),
  ]);
  if (tenant === undefined) {
    if (order === undefined) throw noSuchTenant();
    return { tenantId, state: "awaiting_payment", plan: order.plan, steps: stepsAfter([]) };
  }
  const more = {
    createdAt: tenant.createdAt,
    provisionedAt: tenant.provisionedAt,
    attempts: provisioning.attempts,
    import: imported,
  };
  return {
    ...{ tenantId, state: tenant.state, plan: tenant.plan, ...more, error: provisioning.error },
    mcpUrl: `${context.env.PUBLIC_URL}/mcp`,
    steps: stepsAfter(provisioning.steps),
  };
}

/** All steps of provisioning with their status. Steps without a record are pending. */
function stepsAfter(records: readonly StepRecord[]) {
  const recorded = new Map(records.map((record) => [record.step, record]));
  return provisioningSteps.map(({ name, title }) => {
    const record = recorded.get(name);
    return {
      name,
      title,
      status: record === undefined ? ("pending" as const) : stepStatus(record),
      startedAt: record?.startedAt ?? null,
      finishedAt: record?.finishedAt ?? null,
      error: record?.error ?? null,
    };
  });
}

function stepStatus({ finishedAt, error }: StepRecord): "done" | "running" | "retrying" {
  if (finishedAt !== null) return "done";
  return error === null ? "running" : "retrying";
}

/** The tenant's administrator buys a plan for an account without a subscription: a payment page for its own customer. */
export async function buyPlan(
  c: HttpContext,
  { body }: { body: z.infer<typeof OwnCheckoutRequest> },
): Promise<Response> {
  return c.json(await ownCheckout(c, body), 201, noStore);
}

/** The payment page that `buyPlan` answers with. Throws why there is none. */
export async function ownCheckout(
  c: HttpContext,
  order: z.infer<typeof OwnCheckoutRequest>,
): ReturnType<typeof openOwnCheckout> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const subscriptions = subscriptionsStore(context.control);
  let account = await subscriptions.read(tenantId);
  // Stripe may have an answer that no event has brought yet.
  if (account !== undefined && hasSubscription(account)) {
    await context.tenantObject(tenantId).followSubscription();
    account = await subscriptions.read(tenantId);
  }
  if (account === undefined) throw noSuchTenant();
  if (!allows(account, "checkout", Date.now()))
    throw notPossible(context, tenantId, account, "No plan can be bought for the account", "tenant");
  if (hasSubscription(account))
    throw new Problem("conflict", "The account has a subscription. Change its plan instead.");
  const { customerId } = account;
  if (customerId === null) throw new Problem("conflict", "The account has no customer at Stripe yet.");
  if (!canBuy(account, Date.now()))
    throw new Problem("conflict", `The account is served by contract. Ask support to change its plan: ${support}.`);
  return openOwnCheckout(context, { tenantId, customerId }, order, c.get("creation"));
}

/** The operator changes a tenant to any plan, strategy and limits. */
export async function changePlan(
  c: HttpContext,
  { body: request }: { body: z.infer<typeof PlanRequest> },
): Promise<Response> {
  const { name: plan, strategy, limits: sold } = planOf(request.plan);
  // A tenant that keeps its plan keeps the limits that it has. Another plan brings its own.
  const current = await tenantsStore(c.get("context").control).summary(tenantOf(c));
  const limits = current?.plan === plan ? current.limits : sold;
  const { tenant, ...answer } = await change(c, {
    plan,
    strategy: request.strategy ?? strategy,
    limits: Limits.parse({ ...limits, ...request.limits }),
    requestedBy: "operator",
  });
  return c.json({ ...tenant, proposedMove: proposedMove(tenant), ...answer }, statusOfChange(answer.change));
}

export const PlanChangesQuery = numberedPageQuery(50);

export async function listPlanChanges(
  c: HttpContext,
  { query: { after, limit } }: { query: NumberedPageQuery },
): Promise<Response> {
  const subscriptions = subscriptionsStore(c.get("context").control);
  const changes = await subscriptions.changes(tenantOf(c), { before: after, limit: limit + 1 });
  return c.json(pageOf("changes", changes, limit, ({ id }) => id));
}

/** The tenant's admin changes the plan to another one that Stripe sells. */
export async function changeOwnPlan(
  c: HttpContext,
  { body: { plan } }: { body: z.infer<typeof OwnPlanRequest> },
): Promise<Response> {
  const answer = await ownPlanAfter(c, plan);
  return c.json(answer, answer.change === null ? 200 : statusOfChange(answer.change));
}

/** The plan and the change that `changeOwnPlan` answers with. Throws why the plan cannot be changed. */
export async function ownPlanAfter(
  c: HttpContext,
  wanted: PlanName,
): Promise<{ tenantId: TenantId; plan: PlanName; change: PlanChange | null }> {
  const tenantId = tenantOf(c);
  const subscriptions = subscriptionsStore(c.get("context").control);
  const tenant = await subscriptions.read(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  if (tenant.subscriptionId === null)
    throw new Problem(
      "conflict",
      canBuy(tenant, Date.now())
        ? `The account has no subscription to change. Buy one with POST ${c.env.PUBLIC_URL}/api/tenants/${tenantId}/checkout.`
        : "The account has no subscription to change. Ask its operator.",
    );
  const { name: plan, strategy, limits } = planOf(wanted);
  // A tenant that asks for its current plan keeps the limits that it was sold.
  const waiting = await subscriptions.waitingChange(tenantId);
  if (tenant.plan === plan && waiting === undefined) return { tenantId, plan, change: null };
  const { tenant: after, ...answer } = await change(c, { plan, strategy, limits, requestedBy: "tenant" });
  return { tenantId, plan: after.plan, ...answer };
}

export async function showOwnPlan(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const { subscription, change: newest } = await ownPlan(c);
  return c.json({ tenantId, plan: subscription?.plan, change: newest });
}

/** The tenant's subscription and its newest plan change, in one round trip. */
export async function ownPlan(c: HttpContext) {
  const subscriptions = subscriptionsStore(joinBatches(c.get("context").control));
  const [subscription, [newest]] = await Promise.all([
    subscriptions.read(tenantOf(c)),
    subscriptions.changes(tenantOf(c), { limit: 1 }),
  ]);
  return { subscription, change: newest ?? null };
}

/**
 * Applies what the account has just paid, without waiting for Stripe's event. A failure is logged: the event still comes. An account
 * that has a subscription already asks Stripe nothing.
 */
export async function followPurchase(c: HttpContext): Promise<void> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  try {
    const account = await subscriptionsStore(context.control).read(tenantId);
    if (account === undefined || hasSubscription(account)) return;
    await context.tenantObject(tenantId).followSubscription();
  } catch (error) {
    log("warn", "purchase_not_followed", { tenantId, error: describeError(error) });
  }
}

export async function cancelPlanChange(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const waiting = await subscriptionsStore(c.get("context").control).waitingChange(tenantId);
  if (waiting === undefined) throw new Problem("not_found", "No plan change is waiting.");
  const isCancelled = await c.get("context").tenantObject(tenantId).cancelPlanChange();
  if (!isCancelled) throw new Problem("conflict", "The plan change has taken effect.");
  return c.json({ change: { ...waiting, state: "cancelled", waitsFor: null } satisfies PlanChange });
}

/** Opens Stripe's portal: invoices, payment, cancellation. It also works while the tenant is not served. */
export async function openPortal(
  c: HttpContext,
  { body: { returnUrl = `${c.env.PUBLIC_URL}/plans` } }: { body: z.infer<typeof PortalRequest> },
): Promise<Response> {
  return c.json({ url: await portalUrl(c, returnUrl) }, 201, noStore);
}

/** The page of Stripe's portal that `openPortal` answers with. Throws why there is none. */
export async function portalUrl(c: HttpContext, returnUrl: string): Promise<string> {
  const tenantId = tenantOf(c);
  trustedUrl(c.env, "returnUrl", returnUrl);
  const tenant = await subscriptionsStore(c.get("context").control).read(tenantId);
  if (tenant === undefined || tenant.customerId === null || !allows(tenant, "portal", Date.now()))
    throw new Problem("conflict", "The account has no customer at Stripe.");
  try {
    return await c.get("context").stripe.customers.portal(tenant.customerId, returnUrl);
  } catch (error) {
    log("error", "portal_failed", { tenantId, error: describeError(error) });
    throw error;
  }
}

async function change(c: HttpContext, wanted: RequestedChange) {
  const tenantId = tenantOf(c);
  const subscriptions = subscriptionsStore(c.get("context").control);
  const tenant = await subscriptions.read(tenantId);
  if (tenant === undefined || tenant.state === "gone") throw noSuchTenant();
  await refuseChange(c, tenantId, wanted.requestedBy);
  if (tenant.endedAtMs !== null && planOf(wanted.plan).amountCents !== null)
    throw new Problem("conflict", "The subscription has ended. Reactivate the account before you change its plan.");
  const opened = await subscriptions.openChange(tenantId, wanted);
  if (opened === undefined) throw noSuchTenant();
  if (!(await subscriptions.matches(opened.id, wanted)))
    throw new Problem("conflict", `Another change, to ${opened.plan}, is waiting. Cancel it first.`);
  try {
    await c.get("context").tenantObject(tenantId).changePlan();
  } catch (error) {
    // The change is stored. The sweep resumes it.
    log("error", "plan_change_left_to_sweep", { tenantId, error: describeError(error) });
  }
  return answerChange(c, tenantId, opened.id, wanted.requestedBy);
}

/** Throws unless the table of states has a plan change in the tenant's condition. */
async function refuseChange(c: HttpContext, tenantId: TenantId, requestedBy: "operator" | "tenant"): Promise<void> {
  const context = c.get("context");
  const facts = await tenantsStore(context.control).facts(tenantId);
  if (facts === undefined) throw noSuchTenant();
  const nowMs = Date.now();
  const isPossible =
    requestedBy === "operator"
      ? afterEvent(facts, "change_plan", nowMs) !== undefined
      : allows(facts, "change_plan", nowMs);
  if (!isPossible) throw notPossible(context, tenantId, facts, "The plan cannot be changed", requestedBy);
}

async function answerChange(
  c: HttpContext,
  tenantId: TenantId,
  changeId: number,
  requestedBy: RequestedChange["requestedBy"],
) {
  const [tenant, changes] = await Promise.all([
    tenantsStore(c.get("context").control).summary(tenantId),
    subscriptionsStore(c.get("context").control).changes(tenantId),
  ]);
  const made = changes.find(({ id }) => id === changeId);
  if (tenant === undefined || made === undefined) throw noSuchTenant();
  if (made.error !== null)
    throw new Problem(made.error === REFUSED_BY_STRIPE ? "billing_refused" : "conflict", made.error);
  const delivered = made.state === "done" && tenant.deliveredVersion >= tenant.version;
  return { tenant, delivered, change: made, ...(await stateOf(c.get("context"), tenantId, requestedBy)) };
}

/** A change that waits is accepted. */
function statusOfChange({ state }: PlanChange): 200 | 202 {
  return state === "done" ? 200 : 202;
}

// ---- Stripe's events, for the operator

/** Events on a page, about 50 KB of JSON. */
const EVENTS = 200;

const NamedEvents = z.strictObject({ ids: z.array(z.string().min(1).max(255)).min(1).max(EVENTS) });
export const EventRetryRequest = z.union([NamedEvents, z.strictObject({ all: z.literal(true) })]);
export const EventDismissRequest = NamedEvents;
/** `?all=true` also lists the events that wait for nothing. */
export const StripeEventsQuery = pageQuery(EVENTS).extend({ all: Flag });

/** Lists Stripe's events that are open, the oldest first: they wait to be applied, or were set aside. */
export async function listStripeEvents(
  c: HttpContext,
  { query }: { query: z.infer<typeof StripeEventsQuery> },
): Promise<Response> {
  const events = await inboxStore(c.get("context").control).list(query.limit + 1, query);
  return c.json(pageOf("events", events, query.limit, ({ id }) => id));
}

/** Applies events again: the named ones, or a page of those that are open. `left` counts those that are still open. */
export async function retryStripeEvents(
  c: HttpContext,
  { body: request }: { body: z.infer<typeof EventRetryRequest> },
): Promise<Response> {
  const context = c.get("context");
  const inbox = inboxStore(context.control);
  const retried = await inbox.retry("ids" in request ? request.ids : "all", EVENTS);
  const owners = [...new Set(retried.flatMap(({ owner }) => owner ?? []))];
  // The sweep applies the events of an object that cannot be reached.
  await isolated(context.control, owners, { part: "retried_events", idOf: String, atOnce: 5 }, (tenantId) =>
    context.tenantObject(tenantId).applyInbox(),
  );
  return c.json({ retried: retried.map(({ id }) => id), left: await inbox.open() });
}

/** Dismisses events. They stay on record and are not applied. */
export async function dismissStripeEvents(
  c: HttpContext,
  { body: { ids } }: { body: z.infer<typeof EventDismissRequest> },
): Promise<Response> {
  return c.json({ dismissed: await inboxStore(c.get("context").control).dismissed(ids) });
}
