// Who may use a route: one guard for each kind of access in the table of routes. A guard throws the reason of a refusal.
// Each tenant credential is compared with the tenant that the path or query names, so that a credential never chooses the
// tenant. A genuine credential of another tenant gets the answer for a tenant that does not exist; the log names both, and
// the attempt counts.
import type { MiddlewareHandler } from "hono";
import { createMiddleware } from "hono/factory";
import { tenantsStore } from "../control/tenants-store.ts";
import { tokenOperator } from "../core/actor.ts";
import { bearerToken, isOneOf, verifyCredential } from "../core/credentials.ts";
import { AppError, support } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";
import {
  type Access,
  type HttpContext,
  type HttpEnv,
  Problem,
  TooManyRequests,
  noSuchTenant,
  tenantOf,
} from "../http.ts";
import { describeError, log } from "../log.ts";
import { authenticate } from "./authenticate.ts";
import { refusedCredential } from "./credential-check.ts";
import { crossingsStore } from "./crossings-store.ts";
import { keysStore } from "./keys-store.ts";
import { ADMIN_SCOPE } from "./keys.ts";
import { ADDRESS_RATE_SECONDS, STRIPE_PAGES_PER_MINUTE, UNLIMITED_PER_MINUTE, sourceOf } from "./request-rate.ts";

const everyone = createMiddleware<HttpEnv>((_c, next) => next());

export const guards: Readonly<Record<Access, MiddlewareHandler<HttpEnv>>> = {
  public: everyone,
  // Their handlers identify the caller: by Stripe's signature over the raw body, or by the MCP bearer token.
  stripe: everyone,
  mcp: everyone,

  buyer: createMiddleware<HttpEnv>(async (c, next) => {
    const token = bearer(c, "This route takes the setupToken that POST /api/checkout answered with.");
    const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
    if (credential !== undefined) refuseCrossing(c, credential, c.req.param("tenantId"));
    if (credential?.kind !== "setup")
      throw new Problem("token_invalid", "This route takes the setupToken that POST /api/checkout answered with.");
    if (Date.now() >= Number(credential.fields[0]))
      throw new Problem("token_expired", `A setupToken is valid for 30 days. Ask support for a key: ${support}.`);
    c.set("actor", { kind: "buyer", tenantId: credential.tenantId });
    await next();
  }),

  // An id can be guessed, so a request without a credential gets the answer for a tenant that does not exist, without a look
  // into the database. The link to the page after Checkout carries the status token as `?token=`.
  status: createMiddleware<HttpEnv>(async (c, next) => {
    const token = bearerToken(c.req.header("authorization")) ?? c.req.query("token");
    if (token === undefined) throw noSuchTenant();
    if (await isOneOf(c.env.OPERATOR_TOKEN, token)) c.set("actor", tokenOperator);
    else await requireStatus(c, token);
    await next();
  }),

  // Reads the key's state from the control tables, so that a revoked key is refused at once. A tenant whose calls are refused
  // still reaches its usage, invoices and export.
  tenant_admin: createMiddleware<HttpEnv>(async (c, next) => {
    const nowMs = Date.now();
    const context = c.get("context");
    const authentication = await authenticate(c.req.header("authorization") ?? null, context, nowMs);
    if ("refused" in authentication) throw new AppError(authentication.refused);
    const { caller } = authentication;
    refuseCrossing(c, caller, c.req.param("tenantId"));
    if (caller.kind !== "key")
      throw new Problem("token_invalid", `This route takes an API key with the scope ${ADMIN_SCOPE}.`);
    if (!caller.scopes.includes(ADMIN_SCOPE)) throw new AppError("scope_missing");
    const tenant = await tenantsStore(context.control).config(caller.tenantId);
    // A closed account has no keys any more.
    const isGone = tenant?.state === "gone";
    const refused =
      tenant === undefined ? "tenant_unknown" : isGone ? "tenant_gone" : refusedCredential(tenant, caller, nowMs);
    if (refused !== undefined) throw new AppError(refused);
    await requireRate(c, caller.tenantId, tenant?.limits.callsPerMinute ?? UNLIMITED_PER_MINUTE);
    c.set("caller", caller);
    c.set("actor", { kind: "key", tenantId: caller.tenantId, id: caller.keyId });
    await next();
  }),

  operator: createMiddleware<HttpEnv>(async (c, next) => {
    const token = bearer(c, "The operator API takes the operator token.");
    if (!(await isOneOf(c.env.OPERATOR_TOKEN, token))) throw new AppError("token_invalid");
    c.set("actor", tokenOperator);
    await next();
    log("info", "operator_request", {
      requestId: c.get("requestId"),
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
    });
  }),

  monitor: createMiddleware<HttpEnv>(async (c, next) => {
    const tenantId = c.req.query("tenant");
    if (tenantId !== undefined) {
      const token = bearerToken(c.req.header("authorization")) ?? c.req.query("token");
      if (token === undefined)
        throw new Problem("token_missing", "A tenant's health takes that tenant's monitor token.");
      const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
      if (credential !== undefined) refuseCrossing(c, credential, tenantId);
      if (credential?.kind !== "monitor") throw new AppError("token_invalid");
      // While the control database is away, the health page itself says so.
      const generation = await keysStore(c.get("context").control)
        .monitorGeneration(credential.tenantId)
        .catch(() => undefined);
      if (generation !== undefined && String(generation) !== credential.fields[0]) throw new AppError("key_revoked");
      c.set("actor", { kind: "reader", tenantId: credential.tenantId, of: "health" });
    }
    await next();
  }),
};

/**
 * Throws `rate_limited` when strangers at one address have sent too many requests in the last minute. Runs before the body is
 * read. wrangler.toml has the number. The platform counts for each of its locations.
 */
export const addressRate = createMiddleware<HttpEnv>(async (c, next) => {
  let isAdmitted = true;
  try {
    const key = `${c.req.routePath} ${sourceOf(c.req.header("cf-connecting-ip") ?? "")}`;
    isAdmitted = (await c.env.ADDRESS_RATE.limit({ key })).success;
  } catch (error) {
    // A buyer is worth more than the count.
    log("warn", "address_rate_not_counted", { requestId: c.get("requestId"), error: describeError(error) });
  }
  if (!isAdmitted) throw new TooManyRequests("Your address sends too many requests a minute.", ADDRESS_RATE_SECONDS);
  await next();
});

/** Throws `rate_limited` when the tenant's admin has sent too many requests in the last minute. */
async function requireRate(c: HttpContext, tenantId: TenantId, perMinute: number): Promise<void> {
  const opensStripePage = /\/(portal|checkout)\/?$/.test(c.req.path);
  let waitMs: number;
  try {
    waitMs = await c.get("context").tenantObject(tenantId).admitAdmin({ opensStripePage, perMinute });
  } catch (error) {
    // The admin reaches the account also while its object is away.
    return log("warn", "admin_rate_not_counted", { tenantId, error: describeError(error) });
  }
  if (waitMs <= 0) return;
  const words = opensStripePage
    ? `Your account may open ${STRIPE_PAGES_PER_MINUTE} pages of Stripe a minute.`
    : `Your account may send ${perMinute} requests a minute here.`;
  throw new TooManyRequests(words, Math.ceil(waitMs / 1000));
}

/** Throws unless the token may see the progress of the path's tenant. A revoked key may not. */
async function requireStatus(c: HttpContext, token: string): Promise<void> {
  const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
  if (credential === undefined) throw noSuchTenant();
  refuseCrossing(c, credential, c.req.param("tenantId"));
  const { kind, tenantId, fields } = credential;
  if (kind === "setup" || kind === "status") {
    if (Date.now() >= Number(fields[0])) throw new AppError("token_expired");
    c.set("actor", kind === "setup" ? { kind: "buyer", tenantId } : { kind: "reader", tenantId, of: "status" });
    return;
  }
  if (kind !== "key") throw noSuchTenant();
  const nowMs = Date.now();
  const context = c.get("context");
  const authentication = await authenticate(`Bearer ${token}`, context, nowMs);
  if ("refused" in authentication) throw new AppError(authentication.refused);
  const tenant = await tenantsStore(context.control).config(tenantId);
  const refused = tenant === undefined ? "tenant_unknown" : refusedCredential(tenant, authentication.caller, nowMs);
  if (refused !== undefined) throw new AppError(refused);
  c.set("actor", { kind: "key", tenantId, id: fields[0] ?? "" });
}

/** Whether the request carries the operator's token. For public routes that show the operator more. */
export async function isOperator(c: HttpContext): Promise<boolean> {
  const token = bearerToken(c.req.header("authorization"));
  return token !== undefined && (await isOneOf(c.env.OPERATOR_TOKEN, token));
}

/** Throws `not_found` unless the tenant that the path names exists. A closed account exists. */
export async function requireTenant(c: HttpContext): Promise<void> {
  if ((await tenantsStore(c.get("context").control).summary(tenantOf(c))) === undefined) throw noSuchTenant();
}

/** Throws `not_found` when a verified credential belongs to another tenant than the route names. */
function refuseCrossing(c: HttpContext, own: { tenantId: TenantId; kind: string }, target: string | undefined): void {
  const { tenantId, kind } = own;
  if (tenantId === target) return;
  const requestId = c.get("requestId");
  log("warn", "cross_tenant_refused", {
    requestId,
    tenantId,
    target: target?.slice(0, 60),
    credential: kind,
    route: c.req.routePath,
  });
  const counted = crossingsStore(c.get("context").control)
    .count(tenantId)
    .catch((error: unknown) => log("warn", "cross_tenant_not_counted", { tenantId, error: describeError(error) }));
  c.executionCtx.waitUntil(counted);
  throw noSuchTenant();
}

/** The request's bearer token. Throws `token_missing` with `detail`. */
function bearer(c: HttpContext, detail: string): string {
  const token = bearerToken(c.req.header("authorization"));
  if (token === undefined) throw new Problem("token_missing", detail);
  return token;
}
