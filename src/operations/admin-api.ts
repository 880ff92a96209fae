// Routes for accounts: the operator lists, creates, shows and changes tenants; a tenant's admin shows and changes its own.
import * as z from "zod";
import { joinBatches } from "../adapters/neon.ts";
import type { Context } from "../control/context.ts";
import { newestImport, openImport } from "../backups/api.ts";
import { TenantRequest, createTenant, refusedRegion } from "../control/new-tenant.ts";
import { notifyObject } from "../control/notify-object.ts";
import { type AccountChange, type NotChanged, type OwnAccountChange, changeAccount } from "../control/tenant-change.ts";
import { type TenantSummary, tenantsStore } from "../control/tenants-store.ts";
import { hasRole } from "../core/actor.ts";
import type { ErrorCode } from "../core/errors.ts";
import { planNames, strategies } from "../core/plans/plans.ts";
import { type TenantId, tenantStates } from "../core/tenant/tenant.ts";
import { BadRequest, type HttpContext, PageQuery, Problem, noStore, noSuchTenant, noteAct, tenantOf } from "../http.ts";
import { crossingsStore } from "../identity/audit/crossings-store.ts";
import { keysStore } from "../identity/keys/keys-store.ts";
import { monitorToken, progressUrls } from "../identity/keys/keys.ts";
import { stateOf } from "../lifecycle/api.ts";
import { provisioningStore } from "../lifecycle/provisioning-store.ts";
import { proposedMove } from "../moves/move.ts";

export const NewTenantRequest = TenantRequest.extend({
  /** The tenant's own data: a file in the bucket of backups, imported in the background. */
  importFrom: z.string().min(1).max(1_000).optional(),
});

/** A list of tenants, narrowed by what the query names. */
export const TenantsQuery = PageQuery.extend({
  /** A part of the name, the e-mail address or the id. */
  q: z.string().trim().min(1).max(100).optional(),
  state: z.enum(tenantStates).optional(),
  plan: z.enum(planNames).optional(),
  strategy: z.enum(strategies).optional(),
  /** Where the rows are or must be. */
  region: z.string().min(1).max(60).optional(),
});

export async function listTenants(
  c: HttpContext,
  { query: { after, limit, ...search } }: { query: z.infer<typeof TenantsQuery> },
): Promise<Response> {
  const tenants = tenantsStore(c.get("context").control);
  if (search.region !== undefined) {
    const known = await tenants.regions();
    if (!known.includes(search.region))
      throw new BadRequest(`region: must be one of ${known.map((each) => JSON.stringify(each)).join(", ")}`);
  }
  return c.json(await tenants.list(after, limit, search));
}

export async function addTenant(
  c: HttpContext,
  { body: { importFrom, ...request } }: { body: z.infer<typeof NewTenantRequest> },
): Promise<Response> {
  const context = c.get("context");
  const creation = c.get("creation");
  const refused = await refusedRegion(context, request);
  if (refused !== undefined) throw new BadRequest(refused);
  const id = await createTenant(context, request, creation);
  if (id === undefined) throw new Problem("conflict", `The tenant ${request.id} exists already.`);
  noteAct(c, { tenantId: id });
  // An earlier run of the same request may have opened the import.
  if (importFrom !== undefined && !(creation?.isRepeat === true && (await newestImport(context, id)) !== null))
    await openImport(context, id, { importFrom, overwrite: false });
  const summary = await tenantsStore(context.control).summary(id);
  return c.json({ ...summary, statusUrl: (await progressUrls(c.env, id, Date.now())).statusUrl }, 201);
}

export async function showTenant(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const read = await readTenant({ ...context, control: joinBatches(context.control) }, tenantId);
  // A viewer gets no credentials.
  if (!mayHoldCredentials(c)) return c.json(read);
  return c.json({ ...read, monitorToken: await monitorToken(context, tenantId) });
}

/** A tenant in depth: one round trip with joined batches. Throws `not_found`. */
export async function readTenant(context: Context, tenantId: TenantId) {
  const { control } = context;
  const [tenant, state, keys, crossTenantAttempts, provisioning] = await Promise.all([
    tenantsStore(control).summary(tenantId),
    stateOf(context, tenantId),
    keysStore(control).list(tenantId),
    crossingsStore(control).of(tenantId),
    provisioningStore(control).progress(tenantId),
  ]);
  if (tenant === undefined) throw noSuchTenant();
  return { ...tenant, ...state, proposedMove: proposedMove(tenant), keys, crossTenantAttempts, provisioning };
}

function mayHoldCredentials(c: HttpContext): boolean {
  const actor = c.get("actor");
  return actor.kind === "operator" && hasRole(actor.role, "support");
}

export async function changeTenant(c: HttpContext, { body }: { body: AccountChange }): Promise<Response> {
  const delivered = await changed(c, tenantOf(c), body);
  return c.json({ ...(await summaryOf(c)), ...delivered });
}

export async function showOwnAccount(c: HttpContext): Promise<Response> {
  return c.json(ownAccount(await summaryOf(c)), 200, noStore);
}

export async function changeOwnAccount(
  c: HttpContext,
  { body }: { body: z.infer<typeof OwnAccountChange> },
): Promise<Response> {
  const delivered = await changed(c, tenantOf(c), body);
  return c.json({ ...ownAccount(await summaryOf(c)), ...delivered }, 200, noStore);
}

/** Changes the account as `changeOwnAccount` does. Throws why it is refused. */
export async function changeAccountOf(c: HttpContext, change: z.infer<typeof OwnAccountChange>): Promise<void> {
  await changed(c, tenantOf(c), change);
}

const notChanged: Readonly<Record<Exclude<NotChanged, "no_such_tenant">, readonly [ErrorCode, string]>> = {
  trial_is_stripes: ["conflict", "The tenant has a subscription: Stripe decides about its trial."],
  rows_placed: ["conflict", "The rows have a place already. Move the tenant instead."],
  no_trial_now: ["conflict", "An account in this state has no trial."],
  features_invalid: ["bad_request", "features: a name has 1 to 60 characters, and a text 200 at most."],
  too_many_features: ["bad_request", "features: a tenant has at most 200."],
  cap_over_bound: [
    "conflict",
    "spend.capCents: the operator's bound is `limits.maxSpendCapCents`. Ask the operator for more.",
  ],
  unexpected: ["precondition_failed", "The configuration has changed. The ETag header names the current version."],
  busy: ["conflict", "Another change came first each time. Send the request again."],
};

async function changed(c: HttpContext, tenantId: TenantId, change: AccountChange): Promise<{ delivered: boolean }> {
  const context = c.get("context");
  const refused = await changeAccount(context, tenantId, change);
  if (refused !== undefined) throw refusedChange(refused);
  const { delivered } = await notifyObject(context, tenantId);
  return { delivered };
}

/** The problem of a change that was refused. */
export function refusedChange(reason: NotChanged): Problem {
  return reason === "no_such_tenant" ? noSuchTenant() : new Problem(...notChanged[reason]);
}

async function summaryOf(c: HttpContext): Promise<TenantSummary> {
  const tenant = await tenantsStore(c.get("context").control).summary(tenantOf(c));
  if (tenant === undefined) throw noSuchTenant();
  return tenant;
}

/** What a tenant sees of its own account: nothing about where its rows are. */
function ownAccount(tenant: TenantSummary) {
  const { id, name, email, plan, state, limits, allowedTools, features, trialUntil, createdAt } = tenant;
  return { id, name, email, plan, state, limits, allowedTools, features, trialUntil, createdAt };
}
