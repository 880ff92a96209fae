// Routes for the removal of a tenant and its reactivation: the operator's, and those of the tenant's admin. A Workflow
// does the steps of a removal.
import * as z from "zod";
import type { Context } from "../control/context.ts";
import { notifyObject } from "../control/notify-object.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import type { TenantId } from "../core/tenant.ts";
import { BadRequest, Flag, type HttpContext, Problem, tenantOf } from "../http.ts";
import { describeError, log } from "../log.ts";
import { type AskedBy, phaseOf } from "./removal.ts";
import { type Removal, removalsStore } from "./removals-store.ts";

/** Removal becomes irreversible, so the caller repeats the account's name. */
export const RemovalRequest = z.strictObject({ name: z.string() });

/** `?now=true` ends the grace period of a tenant that is leaving. */
export const RemovalQuery = z.object({ now: Flag });

export async function removeTenant(
  c: HttpContext,
  { query }: { query: z.infer<typeof RemovalQuery> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  return query.now ? dropNow(c, tenantId) : remove(c, tenantId, "operator");
}

export async function removeOwnTenant(
  c: HttpContext,
  { body: { name } }: { body: z.infer<typeof RemovalRequest> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  const tenant = await tenantsStore(c.get("context").control).summary(tenantId);
  if (tenant?.name !== name) throw new BadRequest("name: must be the account's name, as a confirmation.");
  return remove(c, tenantId, "tenant");
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
