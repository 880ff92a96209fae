// Routes that change whether a tenant is served: suspend and resume, for the operator; remove and reactivate, for the
// operator and the tenant's admin. A change is reported as done once the tenant's object has confirmed it. When the object
// cannot be reached, the answer says `delivered: false`, and the sweep notifies the object later.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { notifyObject } from "../control/notify-object.ts";
import { type TenantFacts, tenantsStore } from "../control/tenants-store.ts";
import { type ErrorCode, errorCode } from "../core/errors.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { type StateFacts, conditionOf, serviceOf, waysBack } from "../core/tenant/tenant-state.ts";
import {
  BadRequest,
  Flag,
  type HttpContext,
  Problem,
  isJson,
  noStore,
  noSuchTenant,
  readJson,
  tenantOf,
} from "../http.ts";
import { keysStore } from "../identity/keys/keys-store.ts";
import { monitorToken } from "../identity/keys/keys.ts";
import { describeError, log } from "../log.ts";
import { startProvisioning } from "./provisioning.ts";
import { type AskedBy, mustClose, phaseOf, reactivationTerms } from "./removal.ts";
import { type Removal, removalsStore } from "./removals-store.ts";

export async function suspendTenant(c: HttpContext): Promise<Response> {
  await changeState(c, "suspend");
  return answerState(c);
}

/** Ends a suspension by the operator and a trial that has passed. A tenant whose provisioning failed gets another attempt. */
export async function resumeTenant(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const facts = await changeState(c, "resume");
  if (facts.state === "provisioning") await startProvisioning(context, tenantId);
  // Its subscription ended while it was suspended.
  if (mustClose(facts)) await removalsStore(context.control).open(tenantId, "billing");
  return answerState(c);
}

/** Applies the operator's event. Repeating a change is no conflict. */
async function changeState(c: HttpContext, event: "suspend" | "resume"): Promise<TenantFacts> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const changed = await tenantsStore(context.control).change(tenantId, event, Date.now());
  if (changed === undefined) throw noSuchTenant();
  if (!changed.possible)
    throw notPossible(
      context,
      tenantId,
      changed.facts,
      `The account cannot be ${event === "suspend" ? "suspended" : "resumed"}`,
    );
  return changed.facts;
}

/** Answers whether calls are served now, and otherwise with the ways back. */
async function answerState(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const delivered = await notifyObject(context, tenantOf(c));
  return c.json({ ...(await stateOf(context, tenantOf(c))), ...delivered });
}

/** The refusal of an event that the table of states does not have in the tenant's condition. Names the ways back. */
export function notPossible(
  context: Context,
  tenantId: TenantId,
  facts: StateFacts,
  what: string,
  reader: "operator" | "tenant" = "operator",
): Problem {
  const nowMs = Date.now();
  const condition = conditionOf(facts, nowMs);
  const all = waysBack(condition, tenantId, context.env.PUBLIC_URL);
  const back = all.filter(({ by }) => reader === "operator" || by === "administrator");
  const sentences = back.map(({ by, does, request }) => ` The ${by} can ${does} with ${request}.`);
  return new Problem("conflict", `${what} while it is ${condition.replaceAll("_", " ")}.${sentences.join("")}`);
}

/** The tenant's state, whether calls are served, and otherwise the ways back. A tenant sees those of its administrator. */
export async function stateOf(context: Context, tenantId: TenantId, reader: "operator" | "tenant" = "operator") {
  const facts = await tenantsStore(context.control).facts(tenantId);
  if (facts === undefined) throw noSuchTenant();
  const { PUBLIC_URL: publicUrl } = context.env;
  const { served, refusedWith, waysBack: all } = serviceOf(facts, { tenantId, publicUrl, nowMs: Date.now() });
  const own = all.filter(({ by }) => reader === "operator" || by === "administrator");
  return { id: tenantId, state: facts.state, served, refusedWith, waysBack: own };
}

/** Revokes the tenant's monitor tokens. The monitor gets the new one at once, or from the sweep. */
export async function renewMonitorToken(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  if (!(await keysStore(context.control).revokeMonitorTokens(tenantId))) throw noSuchTenant();
  await startProvisioning(context, tenantId).catch((error: unknown) =>
    log("warn", "monitor_not_registered", { tenantId, error: describeError(error) }),
  );
  return c.json({ monitorToken: await monitorToken(context, tenantId) }, 201, noStore);
}

// ---- removal

/** Removal becomes irreversible, so the caller repeats the account's name. */
export const RemovalRequest = z.strictObject({ name: z.string() });

/** `?now=true` ends the grace period of a tenant that is leaving. It takes the body of `RemovalRequest`. */
export const RemovalQuery = z.object({ now: Flag });

export async function removeTenant(
  c: HttpContext,
  { query }: { query: z.infer<typeof RemovalQuery> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  if (!query.now) return remove(c, tenantId, "operator");
  return dropTenant(c, isJson(c) ? (await readJson(c, RemovalRequest)).name : undefined);
}

/** Ends the grace period of the path's tenant. Throws unless `name` is the account's, as a confirmation. */
export async function dropTenant(c: HttpContext, name: string | undefined): Promise<Response> {
  const tenantId = tenantOf(c);
  await confirmName(c, tenantId, name);
  return dropNow(c, tenantId);
}

export async function removeOwnTenant(
  c: HttpContext,
  { body: { name } }: { body: z.infer<typeof RemovalRequest> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  await confirmName(c, tenantId, name);
  return remove(c, tenantId, "tenant");
}

/** Throws unless the name is the account's. A tenant that is gone has none left, and nothing more to lose. */
async function confirmName(c: HttpContext, tenantId: TenantId, name: string | undefined): Promise<void> {
  const tenant = await tenantsStore(c.get("context").control).summary(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  if (tenant.state !== "gone" && tenant.name !== name)
    throw new BadRequest('name: must be the account\'s name, as a confirmation. Send {"name": "..."}.');
}

export async function reactivateTenant(c: HttpContext): Promise<Response> {
  const context = c.get("context");
  const tenantId = tenantOf(c);
  const reader = c.get("actor").kind === "operator" ? "operator" : "tenant";
  const facts = await tenantsStore(context.control).facts(tenantId);
  if (facts === undefined) throw noSuchTenant();
  if (facts.state !== "leaving" && facts.state !== "gone") {
    if (facts.state === "suspended" && facts.suspendedBy !== "operator")
      return resumeSubscription(c, tenantId, facts, reader);
    // Asking again is no conflict: the tenant is back.
    const here = await stateOf(context, tenantId, reader);
    if (!here.served) throw notPossible(context, tenantId, facts, "The account cannot be reactivated", reader);
    const past = await removalsStore(context.control).newest(tenantId);
    return c.json({ ...(past === undefined ? {} : removalAnswer(past)), ...here });
  }
  const { reactivation: terms } = await currentRemoval(context, tenantId);
  const refused = await reactivation(context, tenantId);
  const removal = await currentRemoval(context, tenantId);
  // `reactivation` says what was charged.
  if (refused === undefined || removal.phase === "undone")
    return c.json({ ...removal, reactivation: terms, ...(await stateOf(context, tenantId, reader)) });
  const portal = `${context.env.PUBLIC_URL}/api/tenants/${tenantId}/portal`;
  const details: Partial<Record<ErrorCode, string>> = {
    conflict: "It is too late: the account's data is being deleted.",
    payment_failed: `The account's administrator adds a way to pay with POST ${portal}. Nothing was charged, and the account stays closed.`,
  };
  throw new Problem(refused, details[refused]);
}

/** Asks Stripe to let the subscription run again. The operator also ends a pause of the collection. */
async function resumeSubscription(
  c: HttpContext,
  tenantId: TenantId,
  facts: TenantFacts,
  reader: "operator" | "tenant",
): Promise<Response> {
  const context = c.get("context");
  if (facts.suspendedBy === "pause" && reader === "tenant")
    throw notPossible(context, tenantId, facts, "The account cannot be reactivated by its administrator", reader);
  await context.tenantObject(tenantId).resumeSubscription({ collection: reader === "operator" });
  const after = await stateOf(context, tenantId, reader);
  if (after.served) return c.json(after);
  const now = (await tenantsStore(context.control).facts(tenantId)) ?? facts;
  throw notPossible(
    context,
    tenantId,
    now,
    "Stripe keeps the subscription stopped. The account cannot be reactivated",
    reader,
  );
}

/** Returns why the tenant cannot return, or `undefined`. Throws a detail that says whether Tollgate continues by itself. */
async function reactivation(context: Context, tenantId: TenantId): Promise<ErrorCode | undefined> {
  try {
    return await context.tenantObject(tenantId).reactivate({ again: false });
  } catch (error) {
    if (errorCode(error) !== "billing_unavailable") throw error;
    log("error", "reactivation_left_to_sweep", { tenantId, error: describeError(error) });
    throw new Problem(
      "billing_unavailable",
      `Tollgate repeats the reactivation by itself for an hour, and charges the account when it succeeds. GET ${context.env.PUBLIC_URL}/api/tenants/${tenantId}/removal shows the outcome.`,
    );
  }
}

export async function showRemoval(c: HttpContext): Promise<Response> {
  return c.json(await currentRemoval(c.get("context"), tenantOf(c)));
}

async function remove(c: HttpContext, tenantId: TenantId, askedBy: AskedBy): Promise<Response> {
  const context = c.get("context");
  if ((await removalsStore(c.get("context").control).open(tenantId, askedBy)) === undefined) return showRemoval(c);
  const { delivered } = await notifyObject(context, tenantId);
  await startRemoval(context, tenantId);
  return c.json({ ...(await currentRemoval(context, tenantId)), delivered }, 202);
}

async function dropNow(c: HttpContext, tenantId: TenantId): Promise<Response> {
  const context = c.get("context");
  const removals = removalsStore(c.get("context").control);
  if (await removals.endGrace(tenantId)) {
    await removals.beginDropping(1, tenantId);
    await startRemoval(context, tenantId);
  }
  const removal = await removals.newest(tenantId);
  const phase = removal === undefined ? undefined : phaseOf(removal.step);
  if (removal === undefined || (phase !== "dropping" && phase !== "done"))
    throw new Problem(
      "conflict",
      removal?.waitsFor == null
        ? "Only a tenant that is leaving can be dropped, and only in its grace period."
        : `The tenant cannot be dropped yet. ${removal.waitsFor}`,
    );
  return c.json(removalAnswer(removal), 202);
}

/** When the start fails, the sweep starts the Workflow. */
async function startRemoval(context: Context, tenantId: TenantId): Promise<void> {
  try {
    await context.start({ kind: "removal", tenantId });
  } catch (error) {
    log("warn", "removal_not_started", { tenantId, error: describeError(error) });
  }
}

/** Throws `not_found` for a tenant that was never asked to leave. */
export async function currentRemoval(context: Context, tenantId: TenantId) {
  const removal = await removalsStore(context.control).newest(tenantId);
  if (removal === undefined) throw new Problem("not_found", "There is no such tenant, or it is not leaving.");
  return removalAnswer(removal);
}

/** The removal as clients see it. `reactivation`: what a reactivation would charge now. */
function removalAnswer(removal: Removal) {
  const { tenantId, askedBy, step, leavingUntil, reactivating, waitsFor, error } = removal;
  const { archive, askedAt, finishedAt, deletedAt } = removal;
  return {
    ...{ tenantId, phase: phaseOf(step), step, askedBy, leavingUntil, reactivating, waitsFor, error },
    ...{ archive, askedAt, finishedAt, deletedAt, reactivation: reactivationTerms(removal, Date.now()) },
  };
}
