// Who may use a route: one guard for each kind of access in the table of routes. A guard throws the reason of a refusal.
// Each tenant credential is compared with the tenant that the path or query names, so that a credential never chooses the
// tenant. A genuine credential of another tenant gets the answer for a tenant that does not exist; the log and the audit log
// name both, and the attempt counts.
import type { MiddlewareHandler } from "hono";
import { createMiddleware } from "hono/factory";
import { tenantsStore } from "../control/tenants-store.ts";
import {
  type Actor,
  type ClientGrant,
  type OperatorRole,
  type Permission,
  type Person,
  covers,
  permissionsOf,
  permissionsOfAdminKey,
  permissionsOfRole,
} from "../core/actor.ts";
import type { Caller } from "../core/call.ts";
import { bearerToken, verifyCredential } from "../core/keys/credentials.ts";
import { AppError, support } from "../core/errors.ts";
import { type TenantConfig, TenantId } from "../core/tenant/tenant.ts";
import {
  type Access,
  type HttpContext,
  type HttpEnv,
  Problem,
  type Route,
  TooManyRequests,
  actAs,
  noSuchTenant,
  tenantOf,
} from "../http.ts";
import { describeError, log, markRequest } from "../log.ts";
import { authenticate, identifyPerson } from "./tokens/authenticate.ts";
import { personId } from "./audit/audit.ts";
import { makerOf, memberOf, refusedCredential } from "./keys/credential-check.ts";
import { keysStore } from "./keys/keys-store.ts";
import { orderTokensOf } from "./keys/order-cookie.ts";
import { ADMIN_SCOPE } from "./keys/keys.ts";
import { rolesNeeded } from "./members/members.ts";
import { impersonationTokenOf, impersonatorOf } from "./operators/impersonation.ts";
import { actAsOperator, findOperator, isOperator, routeOf } from "./operators/operator-requests.ts";
import { refusedRole } from "./operators/operators.ts";
import { refuseForeignForm } from "./oauth/consent.ts";
import { clientGrant, clientLacks } from "./oauth/client-access.ts";
import { type Session, sessionsStore } from "./sessions/sessions-store.ts";
import { sessionTokenOf } from "./sessions/sessions.ts";
import { type CostlyRequest, UNLIMITED_PER_MINUTE, costlyPerMinute } from "./request-rate.ts";

const everyone = createMiddleware<HttpEnv>((_c, next) => next());

const guards: Readonly<Record<Exclude<Access, "operator" | "key_maker">, MiddlewareHandler<HttpEnv>>> = {
  public: everyone,
  // Their handlers identify the caller: by Stripe's signature over the raw body, or by the MCP bearer token.
  stripe: everyone,
  mcp: everyone,

  buyer: createMiddleware<HttpEnv>(async (c, next) => {
    const token =
      (await orderTokenOf(c)) ?? bearer(c, "This route takes the setupToken that POST /api/checkout answered with.");
    const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
    if (credential !== undefined) refuseCrossing(c, credential, c.req.param("tenantId"));
    if (credential?.kind !== "setup")
      throw new Problem("token_invalid", "This route takes the setupToken that POST /api/checkout answered with.");
    if (Date.now() >= Number(credential.fields[0]))
      throw new Problem("token_expired", `A setupToken is valid for 30 days. Ask support for a key: ${support}.`);
    actAs(c, { kind: "buyer", tenantId: credential.tenantId });
    await next();
  }),

  // An id can be guessed, so a request without a credential gets the answer for a tenant that does not exist, without a look
  // into the database. The link to the page after Checkout carries the status token as `?token=`.
  status: createMiddleware<HttpEnv>(async (c, next) => {
    const token = bearerToken(c.req.header("authorization")) ?? c.req.query("token") ?? (await orderTokenOf(c));
    if (token === undefined) throw noSuchTenant();
    if (!(await isOperator(c))) await requireStatus(c, token);
    await next();
  }),

  // Reads the key's or member's state from the control tables, so that a revoked key and a removed member are refused at once. A
  // tenant whose calls are refused still reaches its usage, invoices and export. A token needs the admin scope as a key does, and
  // a client's token one of the scopes of the account, so that an agent cannot manage the account with the token it calls tools
  // with. `requirePermission` runs next.
  tenant_admin: createMiddleware<HttpEnv>(async (c, next) => {
    const nowMs = Date.now();
    const context = c.get("context");
    // An operator may be a member, too: the page says for whom they act.
    if (await isImpersonator(c, nowMs)) return await next();
    const session = await sessionOf(c, nowMs);
    if (session !== undefined) {
      await admitSession(c, session);
      return next();
    }
    const authentication = await authenticate(c.req.header("authorization") ?? null, context, nowMs);
    if ("refused" in authentication) throw new AppError(authentication.refused);
    const { caller } = authentication;
    refuseCrossing(c, caller, c.req.param("tenantId"));
    if (caller.kind === "canary")
      throw new Problem(
        "token_invalid",
        `This route takes an API key or a member's token with the scope ${ADMIN_SCOPE}.`,
      );
    if (caller.kind !== "grant" && !caller.scopes.includes(ADMIN_SCOPE)) throw new AppError("scope_missing");
    const tenant = await tenantsStore(context.control).config(caller.tenantId);
    // A closed account has no keys any more.
    const isGone = tenant?.state === "gone";
    const refused =
      tenant === undefined ? "tenant_unknown" : isGone ? "tenant_gone" : refusedCredential(tenant, caller, nowMs);
    if (refused !== undefined) throw new AppError(refused);
    const grant = caller.kind === "grant" ? await clientGrant(context, caller) : undefined;
    // Before the rate, which strangers must not use up.
    actAs(c, actorOf(tenant, caller, grant));
    await requireRate(c, caller, tenant?.limits.callsPerMinute ?? UNLIMITED_PER_MINUTE);
    c.set("caller", caller);
    await next();
  }),

  person: createMiddleware<HttpEnv>(async (c, next) => {
    const session = await sessionOf(c, Date.now());
    if (session !== undefined) {
      const { issuer, subject } = session;
      c.set("person", personOf(session));
      actAs(c, { kind: "person", issuer, subject });
      return next();
    }
    const identified = await identifyPerson(c.req.header("authorization") ?? null, c.get("context"), Date.now());
    if ("refused" in identified) throw new AppError(identified.refused);
    const { issuer, subject } = identified.person;
    c.set("person", identified.person);
    actAs(c, { kind: "person", issuer, subject });
    await next();
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
      actAs(c, { kind: "reader", tenantId: credential.tenantId, of: "health" });
    }
    await next();
  }),
};

const operatorGuards: Readonly<Record<OperatorRole, MiddlewareHandler<HttpEnv>>> = {
  viewer: operatorGuard("viewer"),
  support: operatorGuard("support"),
  admin: operatorGuard("admin"),
};

/** The guard of a route. */
export function guardOf({ access, role = "admin" }: Pick<Route, "access" | "role">): MiddlewareHandler<HttpEnv> {
  if (access === "operator") return operatorGuards[role];
  return access === "key_maker" ? keyMaker : guards[access];
}

/** The prefix chooses the guard, which then verifies the credential. The handler compares the member's role. */
const keyMaker: MiddlewareHandler<HttpEnv> = (c, next) => {
  const isBuyer = bearerToken(c.req.header("authorization"))?.startsWith("tgs_") === true;
  return guards[isBuyer ? "buyer" : "tenant_admin"](c, next);
};

const OPERATOR_TOKENS = "The operator API takes a token of the operator issuer or the operator token.";

/** Lets operators of this role and of higher roles pass. */
function operatorGuard(needed: OperatorRole): MiddlewareHandler<HttpEnv> {
  return createMiddleware<HttpEnv>(async (c, next) => {
    const found = await findOperator(c);
    if ("refused" in found) {
      const { refused, detail = refused === "token_missing" ? OPERATOR_TOKENS : undefined } = found;
      if (refused !== "token_missing") log("warn", "operator_refused", { code: refused, ...routeOf(c) });
      throw detail === undefined ? new AppError(refused) : new Problem(refused, detail);
    }
    const { operator } = found;
    actAsOperator(c, operator);
    const refused = refusedRole(operator, needed);
    const { id, role, through } = operator;
    if (refused !== undefined) {
      log("warn", "operator_role_refused", { operator: id, role, needed, ...routeOf(c) });
      throw new Problem("role_missing", refused);
    }
    await next();
    log("info", "operator_request", { operator: id, role, through, ...routeOf(c), status: c.res.status });
  });
}

/**
 * Whether the request has a valid impersonation credential of the path's tenant: a bearer token, or on a page a cookie. Throws when
 * it has a token that is refused, and `origin_refused` for a change that another site's page sends. A cookie of another tenant or
 * one that has ended is as none: the browser may have a session beside it.
 */
async function isImpersonator(c: HttpContext, nowMs: number): Promise<boolean> {
  const authorization = c.req.header("authorization");
  const isBrowsers = authorization === undefined && c.get("isPage") === true;
  const token = (isBrowsers ? impersonationTokenOf(c.req.header("cookie")) : bearerToken(authorization)) ?? "";
  const credential = token.startsWith("tga_") ? await verifyCredential(c.env.CREDENTIAL_KEY, token) : undefined;
  if (credential?.kind !== "impersonation") return false;
  if (isBrowsers && credential.tenantId !== c.req.param("tenantId")) return false;
  refuseCrossing(c, credential, c.req.param("tenantId"));
  const actor = await impersonatorOf(c.get("context"), credential, nowMs);
  if (typeof actor === "string") {
    if (isBrowsers) return false;
    throw new AppError(actor);
  }
  if (isBrowsers) refuseForeignForm(c);
  actAs(c, actor);
  c.set("impersonationEndsAtMs", Number(credential.fields[1]));
  const { id, operator, reason } = actor;
  markRequest({ impersonation: id, operator: operator.id, reason });
  log("info", "impersonated_request", routeOf(c));
  return true;
}

/** Who uses a tenant's routes. Throws `role_missing` for a user of a linked organisation who is no member. */
function actorOf(
  tenant: TenantConfig | undefined,
  caller: Exclude<Caller, { kind: "canary" }>,
  grant: ClientGrant | undefined,
): Actor {
  const { tenantId } = caller;
  if (caller.kind === "key") {
    const maker = tenant && makerOf(tenant, caller);
    if (maker !== undefined && !covers(permissionsOfRole[maker.role], permissionsOfAdminKey))
      throw new Problem("role_missing", "The member who made this key no longer has all of its rights.");
    return { kind: "key", tenantId, id: caller.keyId };
  }
  const member = tenant && memberOf(tenant, caller);
  if (member !== undefined) {
    const { id, role } = member;
    return grant === undefined
      ? { kind: "member", tenantId, id, role, through: "issuer" }
      : { kind: "member", tenantId, id, role, through: "grant", grant };
  }
  throw new Problem("role_missing", "You are no member of this account. Ask its owner or an admin for an invitation.");
}

/**
 * The session of a browser; `undefined` for a request without its cookie, or with a token, which counts alone. Throws
 * `token_expired` when the session has ended, and `origin_refused` for a change that another site's page sends.
 */
async function sessionOf(c: HttpContext, nowMs: number): Promise<Session | undefined> {
  const token = sessionTokenOf(c.req.header("cookie"));
  if (token === undefined || c.req.header("authorization") !== undefined) return undefined;
  refuseForeignForm(c);
  const session = await sessionsStore(c.get("context").control).find(token, nowMs);
  if (session === undefined) {
    // Nothing but the look into the database tells a session that has ended from one that never was.
    c.set("hasWrongCredential", true);
    throw new Problem("token_expired", "Your session has ended. Sign in again.");
  }
  return session;
}

/** What the provider said of the address and the organisation counted at the sign-in. */
function personOf({ issuer, subject, email, name }: Session): Person {
  return { issuer, subject, email, emailVerified: false, name, organisation: null };
}

/** Admits a signed-in member of the path's tenant. Another tenant looks as if it did not exist. */
async function admitSession(c: HttpContext, session: Session): Promise<void> {
  const { issuer, subject } = session;
  const tenantId = tenantOf(c);
  const tenant = await tenantsStore(c.get("context").control).config(tenantId);
  const member = tenant?.members.find((each) => each.issuer === issuer && each.subject === subject);
  if (tenant === undefined || member === undefined) {
    log("warn", "cross_tenant_refused", { target: tenantId, credential: "session", route: c.req.routePath });
    throw noSuchTenant();
  }
  const { id, role } = member;
  actAs(c, { kind: "member", tenantId, id, role, through: "session" });
  const caller: Caller = { kind: "member", tenantId, memberId: id, scopes: [ADMIN_SCOPE] };
  await requireRate(c, caller, tenant.limits.callsPerMinute ?? UNLIMITED_PER_MINUTE);
  c.set("caller", caller);
  c.set("person", personOf(session));
  c.set("tenant", tenant);
}

/** Throws `role_missing` or `scope_missing` unless the actor that the guard has set has the permission. Runs before the body is read. */
export function requirePermission(permission: Permission): MiddlewareHandler<HttpEnv> {
  return createMiddleware<HttpEnv>((c, next) => {
    demandPermission(c.get("actor"), permission);
    return next();
  });
}

/** Throws unless the actor has the permission. For a part of a request that needs more than its route. */
export function demandPermission(actor: Actor, permission: Permission): void {
  if (!permissionsOf(actor).includes(permission)) throw lacksPermission(actor, permission);
}

function lacksPermission(actor: Actor, permission: Permission): Problem {
  const needs = rolesNeeded(permission);
  if (actor.kind === "impersonator")
    return new Problem("scope_missing", "An operator who acts for a tenant cannot do this.");
  if (actor.kind === "member" && permissionsOfRole[actor.role].includes(permission)) return clientLacks(permission);
  if (actor.kind === "member") return new Problem("role_missing", `${needs} Yours is ${actor.role}.`);
  return new Problem("scope_missing", `Only a member who has signed in can do this. ${needs}`);
}

/** Throws `rate_limited` when the tenant's admin has sent too many requests in the last minute. */
async function requireRate(c: HttpContext, caller: Caller, perMinute: number): Promise<void> {
  const { tenantId } = caller;
  const keyId = caller.kind === "key" ? caller.keyId : undefined;
  const costly = costlyRequest(c);
  let waitMs: number;
  try {
    waitMs = await c.get("context").tenantObject(tenantId).admitAdmin({ costly, perMinute, keyId });
  } catch (error) {
    // The admin reaches the account also while its object is away.
    return log("warn", "admin_rate_not_counted", { tenantId, error: describeError(error) });
  }
  if (waitMs <= 0) return;
  const words =
    costly === undefined
      ? `Your account may send ${perMinute} requests a minute here.`
      : `Your account may ${costlyWords[costly](costlyPerMinute[costly])} a minute.`;
  throw new TooManyRequests(words, Math.ceil(waitMs / 1000));
}

const costlyWords: Readonly<Record<CostlyRequest, (perMinute: number) => string>> = {
  stripePage: (perMinute) => `open ${perMinute} pages of Stripe`,
  document: (perMinute) => `store ${perMinute} documents`,
};

function costlyRequest({ req: { method, path } }: HttpContext): CostlyRequest | undefined {
  if (/\/(portal|checkout)\/?$/.test(path)) return "stripePage";
  const stores = method === "PUT" ? /\/documents\/content\/?$/ : /\/files\/?$/;
  return method !== "GET" && stores.test(path) ? "document" : undefined;
}

/** Throws unless the token may see the progress of the path's tenant. A revoked key may not. */
async function requireStatus(c: HttpContext, token: string): Promise<void> {
  const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
  if (credential === undefined) {
    c.set("hasWrongCredential", true);
    throw noSuchTenant();
  }
  refuseCrossing(c, credential, c.req.param("tenantId"));
  const { kind, tenantId, fields } = credential;
  if (kind === "setup" || kind === "status") {
    if (Date.now() >= Number(fields[0])) throw new AppError("token_expired");
    actAs(c, kind === "setup" ? { kind: "buyer", tenantId } : { kind: "reader", tenantId, of: "status" });
    return;
  }
  const nowMs = Date.now();
  if (kind === "impersonation" && (await isImpersonator(c, nowMs))) return;
  if (kind !== "key") throw noSuchTenant();
  const context = c.get("context");
  const authentication = await authenticate(`Bearer ${token}`, context, nowMs);
  if ("refused" in authentication) throw new AppError(authentication.refused);
  const tenant = await tenantsStore(context.control).config(tenantId);
  const refused = tenant === undefined ? "tenant_unknown" : refusedCredential(tenant, authentication.caller, nowMs);
  if (refused !== undefined) throw new AppError(refused);
  actAs(c, { kind: "key", tenantId, id: fields[0] ?? "" });
}

/** Throws `not_found` unless the tenant that the path names exists. A closed account exists. */
export async function requireTenant(c: HttpContext): Promise<void> {
  const summary = await tenantsStore(c.get("context").control).summary(tenantOf(c));
  if (summary === undefined) throw noSuchTenant();
  c.set("summary", summary);
}

/** The credential as an actor of the audit log, by its kind. */
const crossingKinds: Readonly<Record<string, string>> = {
  setup: "buyer",
  status: "reader",
  monitor: "reader",
  user: "member",
  grant: "member",
  impersonation: "impersonator",
};

/** Credentials whose first field is their id. */
const crossingIds: readonly string[] = ["key", "impersonation"];

/** A verified credential or caller. */
interface Owned {
  tenantId: TenantId;
  kind: string;
  keyId?: string;
  memberId?: string;
  issuer?: string;
  subject?: string;
  fields?: readonly string[];
}

/** Throws `not_found` when a verified credential belongs to another tenant than the route names. */
function refuseCrossing(c: HttpContext, own: Owned, target: string | undefined): void {
  const { tenantId, kind } = own;
  if (tenantId === target) return;
  const requestId = c.get("requestId");
  // Another text than an id may be a secret at the wrong place.
  const named = TenantId.safeParse(target).data ?? null;
  log("warn", "cross_tenant_refused", {
    ...{ requestId, tenantId, target: named, credential: kind, route: c.req.routePath },
  });
  // The recorder counts it, too.
  const { keyId, memberId, issuer, subject, fields } = own;
  const person = issuer !== undefined && subject !== undefined ? personId(issuer, subject) : undefined;
  const id = keyId ?? memberId ?? person ?? (crossingIds.includes(kind) ? fields?.[0] : undefined) ?? null;
  const crossing = { tenantId, kind: crossingKinds[kind] ?? kind, id, target: named };
  c.set("audit", { ...c.get("audit"), crossing });
  throw noSuchTenant();
}

/**
 * On a page: the token of an order of the path's tenant that this browser keeps, a set-up token before one that shows the progress.
 * A request with a bearer token has none. Throws `origin_refused` for a change that another site's page sends.
 */
async function orderTokenOf(c: HttpContext): Promise<string | undefined> {
  if (c.get("isPage") !== true || c.req.header("authorization") !== undefined) return undefined;
  for (const token of orderTokensOf(c.req.header("cookie"))) {
    const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
    if (credential?.tenantId !== c.req.param("tenantId") || Date.now() >= Number(credential?.fields[0])) continue;
    refuseForeignForm(c);
    return token;
  }
  return undefined;
}

/** The request's bearer token. Throws `token_missing` with `detail`. */
function bearer(c: HttpContext, detail: string): string {
  const token = bearerToken(c.req.header("authorization"));
  if (token === undefined) throw new Problem("token_missing", detail);
  return token;
}
