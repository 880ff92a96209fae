// The operator's API. Every change is in the control tables, and the tenant's object has confirmed it, before it is
// reported as done; when the object cannot be told, the answer says so and the sweep tells it (DESIGN.md I11).
import { Hono } from "hono";
import { createMiddleware } from "hono/factory";
import * as z from "zod";
import { meterErrorsOf } from "../reports/meter-errors-store.ts";
import { type ControlTenants, tenantsOf } from "../control/tenants-store.ts";
import { bearerToken, mintCredential, secretsEqual } from "../core/credentials.ts";
import { AppError } from "../core/errors.ts";
import { proposedMove } from "../moves/move.ts";
import { TenantId, type TenantState } from "../core/tenant.ts";
import { log } from "../log.ts";
import { analyticsApi } from "./analytics-api.ts";
import { backupApi, openImport } from "../backups/api.ts";
import { billingApi } from "./api.ts";
import { OfferRequest, openCheckout } from "../subscriptions/checkout.ts";
import { deadLetterApi } from "../metering/dead-letters-api.ts";
import { deliver } from "../control/notify-object.ts";
import { fleetApi } from "../fleet/api.ts";
import { KeyRequest, issueKey } from "../identity/keys.ts";
import { moveApi } from "../moves/api.ts";
import { TenantRequest, createTenant } from "../control/new-tenant.ts";
import { planApi } from "../subscriptions/api.ts";
import { type HttpEnv, problem, readJson } from "../http.ts";
import { removalApi } from "../lifecycle/removal-api.ts";
import { usageApi } from "../metering/api.ts";

const NewTenantRequest = TenantRequest.extend({
  /** Data that the tenant brings, a file in the bucket of backups: imported in the background. */
  importFrom: z.string().min(1).max(1_000).optional(),
});

const LinkRequest = z.strictObject({ issuer: z.url(), organisation: z.string().min(1).max(200) });

const PAGE = 100;
/** Stripe lists events for as long. */
const METER_ERROR_DAYS = 30;

export const adminApi = new Hono<HttpEnv>();

adminApi.use(
  createMiddleware<HttpEnv>(async (c, next) => {
    const token = bearerToken(c.req.header("authorization"));
    if (token === undefined) return problem(c, "token_missing", "The operator API takes the operator token.");
    if (!(await secretsEqual(token, c.env.OPERATOR_TOKEN))) return problem(c, "token_invalid");
    await next();
    log("info", "operator_request", {
      requestId: c.get("requestId"),
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
    });
    return undefined;
  }),
);

adminApi.route("/analytics", analyticsApi);
adminApi.route("/billing", billingApi);
adminApi.route("/dead-letters", deadLetterApi);
adminApi.route("/migrations", fleetApi);
adminApi.route("/tenants", moveApi);
adminApi.route("/tenants", backupApi);
adminApi.route("/tenants", usageApi);
adminApi.route("/tenants", planApi);

/** An order to be paid by whoever is sent its address, with a trial if that was agreed. */
adminApi.post("/checkouts", async (c) =>
  c.json(await openCheckout(c.env, c.get("requestId"), await readJson(c, OfferRequest)), 201),
);

/** What Stripe's meter has refused after it had taken it, by day. */
adminApi.get("/meter-errors", async (c) => c.json({ days: await meterErrorsOf(c.env).byDay(METER_ERROR_DAYS) }));
adminApi.route("/tenants", removalApi);

adminApi.get("/tenants", async (c) => {
  const tenants = await tenantsOf(c.env).list(c.req.query("after") ?? "", PAGE);
  return c.json({ tenants, next: tenants.length === PAGE ? tenants.at(-1)?.id : null });
});

adminApi.post("/tenants", async (c) => {
  const { importFrom, ...request } = await readJson(c, NewTenantRequest);
  const id = await createTenant(c.env, request);
  if (id === undefined) return problem(c, "conflict", `There is a tenant ${request.id} already.`);
  if (importFrom !== undefined) await openImport(c.env, id, { importFrom, overwrite: false });
  const summary = await tenantsOf(c.env).summary(id);
  return c.json({ ...summary, statusUrl: `${c.env.PUBLIC_URL}/api/tenants/${id}/status` }, 201);
});

adminApi.get("/tenants/:id", async (c) => {
  const id = TenantId.safeParse(c.req.param("id"));
  const tenants = tenantsOf(c.env);
  const tenant = id.success ? await tenants.summary(id.data) : undefined;
  if (!id.success || tenant === undefined) return problem(c, "not_found", "There is no such tenant.");
  const monitorToken = await mintCredential(c.env.CREDENTIAL_KEY, { kind: "monitor", tenantId: id.data, fields: [] });
  return c.json({
    ...tenant,
    proposedMove: proposedMove(tenant),
    monitorToken,
    keys: await tenants.keys(id.data),
    provisioning: await tenants.provisioning(id.data),
  });
});

adminApi.post("/tenants/:id/suspend", (c) =>
  changeState(c.env, c.req.param("id"), ["suspended"], (tenants, id) =>
    tenants.suspend(id, ["trial", "active", "past_due"]),
  ),
);
adminApi.post("/tenants/:id/resume", (c) =>
  changeState(c.env, c.req.param("id"), ["active", "trial", "past_due"], (tenants, id) =>
    tenants.serve(id, ["suspended"]),
  ),
);

adminApi.post("/tenants/:id/keys", async (c) => {
  const id = TenantId.safeParse(c.req.param("id"));
  if (!id.success) return problem(c, "not_found", "There is no such tenant.");
  const key = await issueKey(c.env, id.data, await readJson(c, KeyRequest), { first: false });
  return key === undefined
    ? problem(c, "conflict", "There is no such tenant, or it has too many keys.")
    : c.json(key, 201);
});

adminApi.delete("/tenants/:id/keys/:key", async (c) => {
  const id = TenantId.safeParse(c.req.param("id"));
  if (!id.success || !(await tenantsOf(c.env).revokeKey(id.data, c.req.param("key")))) {
    return problem(c, "not_found", "The tenant has no such key.");
  }
  return c.json({ revoked: true, ...(await deliver(c.env, id.data)) });
});

adminApi.post("/tenants/:id/links", async (c) => {
  const id = TenantId.safeParse(c.req.param("id"));
  if (!id.success || (await tenantsOf(c.env).summary(id.data)) === undefined)
    return problem(c, "not_found", "There is no such tenant.");
  const { issuer, organisation } = await readJson(c, LinkRequest);
  const linked = await tenantsOf(c.env).link(issuer, organisation, id.data);
  if (linked !== id.data) return problem(c, "conflict", "This organisation is linked to another tenant.");
  return c.json({ issuer, organisation, tenantId: linked }, 201);
});

async function changeState(
  env: Env,
  rawId: string,
  wanted: readonly TenantState[],
  change: (tenants: ControlTenants, id: TenantId) => Promise<void>,
): Promise<Response> {
  const id = TenantId.safeParse(rawId);
  const tenants = tenantsOf(env);
  if (id.success) await change(tenants, id.data);
  const tenant = id.success ? await tenants.summary(id.data) : undefined;
  if (!id.success || tenant === undefined) throw new AppError("not_found");
  // Saying it again is no conflict: the tenant is where it should be.
  if (!wanted.some((state) => state === tenant.state))
    throw new AppError("conflict", `A tenant that is ${tenant.state} cannot become ${wanted.join(" or ")}`);
  return Response.json({ id: id.data, state: tenant.state, ...(await deliver(env, id.data)) });
}
