// The operator's routes for tenants: list, create, show.
import * as z from "zod";
import { openImport } from "../backups/api.ts";
import { TenantRequest, createTenant } from "../control/new-tenant.ts";
import { tenantsStore } from "../control/tenants-store.ts";
import { type HttpContext, type PageQuery, Problem, noSuchTenant, tenantOf } from "../http.ts";
import { crossingsStore } from "../identity/crossings-store.ts";
import { keysStore } from "../identity/keys-store.ts";
import { monitorToken } from "../identity/keys.ts";
import { stateOf } from "../lifecycle/api.ts";
import { provisioningStore } from "../lifecycle/provisioning-store.ts";
import { proposedMove } from "../moves/move.ts";

export const NewTenantRequest = TenantRequest.extend({
  /** The tenant's own data: a file in the bucket of backups, imported in the background. */
  importFrom: z.string().min(1).max(1_000).optional(),
});

/** Tenants on a page: about 60 KB of JSON. */
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
  const context = c.get("context");
  const { control } = context;
  const tenants = tenantsStore(control);
  const tenant = await tenants.summary(tenantId);
  if (tenant === undefined) throw noSuchTenant();
  return c.json({
    ...tenant,
    ...(await stateOf(context, tenantId)),
    proposedMove: proposedMove(tenant),
    monitorToken: await monitorToken(context, tenantId),
    keys: await keysStore(control).list(tenantId),
    crossTenantAttempts: await crossingsStore(control).of(tenantId),
    provisioning: await provisioningStore(control).progress(tenantId),
  });
}
