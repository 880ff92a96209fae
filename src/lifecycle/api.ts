// Routes that change whether a tenant is served: suspend and resume, for the operator; remove and reactivate, for the
// operator and the tenant's admin. A change is reported as done once the tenant's object has confirmed it. When the object
// cannot be reached, the answer says `delivered: false`, and the sweep notifies the object later.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { notifyObject } from "../control/notify-object.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import type { TenantId, TenantState } from "../core/tenant.ts";
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
import { keysStore } from "../identity/keys-store.ts";
import { monitorToken } from "../identity/keys.ts";
import { describeError, log } from "../log.ts";
import { startProvisioning } from "./provisioning.ts";
import { type AskedBy, phaseOf } from "./removal.ts";
import { type Removal, removalsStore } from "./removals-store.ts";

export async function suspendTenant(c: HttpContext): Promise<Response> {
  const tenants = tenantsStore(c.get("context").control);
  await tenants.suspend(tenantOf(c), ["trial", "active", "past_due"]);
  return answerState(c, ["suspended"]);
}

export async function resumeTenant(c: HttpContext): Promise<Response> {
  const tenants = tenantsStore(c.get("context").control);
  await tenants.serve(tenantOf(c), ["suspended"]);
  return answerState(c, ["active", "trial", "past_due"]);
}

/** Answers with the tenant's state. Throws `conflict` unless it is one of `wanted`; repeating a change is no conflict. */
async function answerState(c: HttpContext, wanted: readonly TenantState[]): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const tenant = await tenantsStore(context.control).summary(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  if (!wanted.some((state) => state === tenant.state))
    throw new Problem("conflict", `A tenant that is ${tenant.state} cannot become ${wanted.join(" or ")}.`);
  return c.json({ id: tenantId, state: tenant.state, ...(await notifyObject(context, tenantId)) });
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
  await confirmName(c, tenantId, isJson(c) ? (await readJson(c, RemovalRequest)).name : undefined);
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
  const refused = await context.tenantObject(tenantId).reactivate();
  const removal = await currentRemoval(context, tenantId);
  // Asking again is no conflict: the tenant is back.
  if (refused === undefined || removal.phase === "undone") return c.json(removal);
  throw new Problem(
    refused,
    refused === "conflict" ? "It is too late: the account's data is being deleted." : undefined,
  );
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
      "Only a tenant that is leaving can be dropped, and only after Stripe has confirmed its last usage.",
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
async function currentRemoval(context: Context, tenantId: TenantId) {
  const removal = await removalsStore(context.control).newest(tenantId);
  if (removal === undefined) throw new Problem("not_found", "There is no such tenant, or it is not leaving.");
  return removalAnswer(removal);
}

function removalAnswer(removal: Removal) {
  const { tenantId, askedBy, step, leavingUntil, waitsFor, error, archive, askedAt, finishedAt, deletedAt } = removal;
  const phase = phaseOf(step);
  return { tenantId, phase, step, askedBy, leavingUntil, waitsFor, error, archive, askedAt, finishedAt, deletedAt };
}
