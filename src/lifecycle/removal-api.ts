// The end of a tenant and the way back: for the operator, and for the tenant's administrator by an API key with a scope of
// its own. The removal itself goes on in the background (platform/tenant-removal.ts).
import { type Context, Hono } from "hono";
import * as z from "zod";
import { type Removal, removalsOf } from "./removals-store.ts";
import { tenantsOf } from "../control/tenants-store.ts";
import { type AskedBy, phaseOf } from "./removal.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { deliver } from "../control/notify-object.ts";
import { type HttpEnv, problem, readJson, tenantOf } from "../http.ts";
import { administeredTenant } from "../identity/require-admin.ts";

/** What cannot be taken back in the end is said twice. */
const RemovalRequest = z.strictObject({ name: z.string() });

/** The operator's. */
export const removalApi = new Hono<HttpEnv>();
/** The tenant's own. */
export const leavingApi = new Hono<HttpEnv>();

/** `?now=true` ends the grace of a tenant that has left. */
removalApi.post("/:id/remove", async (c) => {
  const tenantId = tenantOf(c);
  if (c.req.query("now") !== "true") return remove(c, tenantId, "operator");
  const removals = removalsOf(c.env);
  if (await removals.endGrace(tenantId)) {
    await removals.beginDropping(1, tenantId);
    await goOn(c.env, tenantId);
  }
  const removal = await standing(c.env, tenantId);
  if (removal?.phase === "dropping" || removal?.phase === "done") return c.json(removal, 202);
  return problem(
    c,
    "conflict",
    "Only a tenant that has left can be dropped, once Stripe has confirmed its last usage.",
  );
});
removalApi.post("/:id/reactivate", (c) => reactivate(c, tenantOf(c)));
removalApi.get("/:id/removal", (c) => show(c, tenantOf(c)));

leavingApi.post("/:id/remove", async (c) => {
  const tenantId = await administeredTenant(c);
  const { name } = await readJson(c, RemovalRequest);
  const tenant = await tenantsOf(c.env).summary(tenantId);
  if (tenant?.name !== name) return problem(c, "bad_request", "name: must be the account's name, as a confirmation.");
  return remove(c, tenantId, "tenant");
});
leavingApi.post("/:id/reactivate", async (c) => reactivate(c, await administeredTenant(c)));
leavingApi.get("/:id/removal", async (c) => show(c, await administeredTenant(c)));

async function remove(c: Context<HttpEnv>, tenantId: TenantId, askedBy: AskedBy): Promise<Response> {
  if ((await removalsOf(c.env).open(tenantId, askedBy)) === undefined) return show(c, tenantId);
  const { delivered } = await deliver(c.env, tenantId);
  await goOn(c.env, tenantId);
  return c.json({ ...(await standing(c.env, tenantId)), delivered }, 202);
}

async function reactivate(c: Context<HttpEnv>, tenantId: TenantId): Promise<Response> {
  const refused = await c.env.TENANT.getByName(tenantId).reactivate();
  if (refused === undefined) return show(c, tenantId);
  const removal = await standing(c.env, tenantId);
  if (removal === undefined) return problem(c, "not_found", "There is no such tenant, or it has not left.");
  // Saying it again is no conflict: the tenant is back.
  if (removal.phase === "undone") return c.json(removal);
  return problem(
    c,
    refused,
    refused === "conflict" ? "It is too late: the account's data is being deleted." : undefined,
  );
}

async function show(c: Context<HttpEnv>, tenantId: TenantId): Promise<Response> {
  const removal = await standing(c.env, tenantId);
  return removal === undefined
    ? problem(c, "not_found", "There is no such tenant, or it has not left.")
    : c.json(removal);
}

/** Has the removal gone on with. Should this fail, the sweep sees to it. */
async function goOn(env: Env, tenantId: TenantId): Promise<void> {
  try {
    await env.REMOVING.create({ id: `${tenantId}-${crypto.randomUUID()}`, params: { tenantId } });
  } catch (error) {
    log("warn", "removal_not_started", { tenantId, error: describeError(error) });
  }
}

async function standing(env: Env, tenantId: TenantId) {
  const removal = await removalsOf(env).newest(tenantId);
  return removal === undefined ? undefined : asRemoval(removal);
}

function asRemoval(removal: Removal) {
  const { tenantId, askedBy, step, leavingUntil, waitsFor, error, archive, askedAt, finishedAt, deletedAt } = removal;
  const phase = phaseOf(step);
  return { tenantId, phase, step, askedBy, leavingUntil, waitsFor, error, archive, askedAt, finishedAt, deletedAt };
}
