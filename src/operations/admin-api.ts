// The operator's routes for tenants: list, create, show, suspend, resume. A change is in the control tables, and the
// tenant's object has confirmed it, before it is reported as done. When the object cannot be reached, the answer says
// `delivered: false`, and the sweep notifies the object later.
import * as z from "zod";
import { openImport } from "../backups/api.ts";
import { TenantRequest, createTenant } from "../control/new-tenant.ts";
import { notifyObject } from "../control/notify-object.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { mintCredential } from "../core/credentials.ts";
import type { TenantState } from "../core/tenant.ts";
import { type HttpContext, type PageQuery, Problem, noSuchTenant, tenantOf } from "../http.ts";
import { keysStore } from "../identity/keys-store.ts";
import { provisioningStore } from "../lifecycle/provisioning-store.ts";
import { proposedMove } from "../moves/move.ts";

export const NewTenantRequest = TenantRequest.extend({
  /** The tenant's own data: a file in the bucket of backups, imported in the background. */
  importFrom: z.string().min(1).max(1_000).optional(),
});

/** Tenants of a page: some 60 KB of JSON. */
const PAGE = 100;

export async function listTenants(
  c: HttpContext,
  { query: { after } }: { query: z.infer<typeof PageQuery> },
): Promise<Response> {
  const tenants = await tenantsStore(c.get("context").control).list(after, PAGE);
  return c.json({ tenants, next: tenants.length === PAGE ? tenants.at(-1)?.id : null });
}

export async function addTenant(
  c: HttpContext,
  { body: { importFrom, ...request } }: { body: z.infer<typeof NewTenantRequest> },
): Promise<Response> {
  const context = c.get("context");
  const id = await createTenant(c.get("context"), request);
  if (id === undefined) throw new Problem("conflict", `The tenant ${request.id} exists already.`);
  if (importFrom !== undefined) await openImport(context, id, { importFrom, overwrite: false });
  const summary = await tenantsStore(context.control).summary(id);
  return c.json({ ...summary, statusUrl: `${c.env.PUBLIC_URL}/api/tenants/${id}/status` }, 201);
}

export async function showTenant(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const { control } = c.get("context");
  const tenants = tenantsStore(control);
  const tenant = await tenants.summary(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  return c.json({
    ...tenant,
    proposedMove: proposedMove(tenant),
    monitorToken: await mintCredential(c.env.CREDENTIAL_KEY, { kind: "monitor", tenantId, fields: [] }),
    keys: await keysStore(control).list(tenantId),
    provisioning: await provisioningStore(control).progress(tenantId),
  });
}

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

/** Answers with the state, which must be one of `wanted`. A change that was made before is no conflict. */
async function answerState(c: HttpContext, wanted: readonly TenantState[]): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const tenant = await tenantsStore(context.control).summary(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  if (!wanted.some((state) => state === tenant.state))
    throw new Problem("conflict", `A tenant that is ${tenant.state} cannot become ${wanted.join(" or ")}.`);
  return c.json({ id: tenantId, state: tenant.state, ...(await notifyObject(context, tenantId)) });
}
