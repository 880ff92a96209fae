// Every route of the product: method, path, who may use it, handler, and the schemas of its input. The router, 405 with
// `Allow`, and the authorization tests come from this table.
import { type Handler, Hono, type MiddlewareHandler, type Next } from "hono";
import { bodyLimit } from "hono/body-limit";
import { newId } from "./adapters/ids.ts";
import {
  BackupRequest,
  ImportQuery,
  JobsQuery,
  RestoreRequest,
  cancelBackup,
  cancelImport,
  cancelRestore,
  downloadBackup,
  exportTenant,
  listBackups,
  listRestores,
  startBackup,
  startImport,
  startRestore,
  uploadBackup,
} from "./backups/api.ts";
import { documentRoutes } from "./backups/documents.ts";
import { handleMcp } from "./calls/endpoint.ts";
import { createContext } from "./control/context.ts";
import { anonymous } from "./core/actor.ts";
import { AccountChange, OwnAccountChange } from "./control/tenant-change.ts";
import { SettingsPatch } from "./core/tenant/settings.ts";
import { RunsQuery, listMigrations, showMigration, startMigration, stopMigration } from "./fleet/api.ts";
import { FleetOptions } from "./fleet/fleet.ts";
import {
  AnyQuery,
  type HttpContext,
  type HttpEnv,
  PageQuery,
  Problem,
  type Route,
  finishAnswer,
  problemDocument,
  route,
  shareWithBrowsers,
} from "./http.ts";
import { rateOf } from "./identity/address-rate.ts";
import { LinkRequest, LinksQuery, linkOrganisation, listLinks, unlinkOrganisation } from "./identity/api.ts";
import {
  AllAuditQuery,
  AuditQuery,
  CrossingsQuery,
  listAudit,
  listCrossings,
  listOwnAudit,
} from "./identity/audit/api.ts";
import { recordingOf } from "./identity/audit/audit.ts";
import { intend, recorder } from "./identity/audit/recorder.ts";
import { guardOf, requirePermission, requireTenant } from "./identity/guards.ts";
import { once } from "./identity/idempotency.ts";
import {
  KeysQuery,
  RootKeysQuery,
  changeKey,
  createKey,
  listKeys,
  listRootKeys,
  revokeKey,
  rotate,
} from "./identity/keys/api.ts";
import { KeyChange, KeyRequest, RotateRequest } from "./identity/keys/keys.ts";
import { peopleRoutes } from "./identity/operators/routes.ts";
import {
  AcceptanceRequest,
  InvitationRequest,
  MemberRequest,
  MembersQuery,
  RoleRequest,
  accept,
  addFirstMember,
  changeRole,
  createInvitation,
  inviteOwner,
  leaveTenant,
  listInvitations,
  listMembers,
  removeMember,
  revokeInvitation,
} from "./identity/members/api.ts";
import {
  GrantsQuery,
  answerToken,
  inServerMode,
  listGrants,
  registerClient,
  revokeGrant,
  showKeySet,
  showOpenIdMetadata,
  showResourceMetadata,
  showServerMetadata,
} from "./identity/oauth/api.ts";
import { providerRoutes } from "./identity/providers/routes.ts";
import { endSession, listSessions } from "./identity/sessions/api.ts";
import { ownUrlOf } from "./identity/tokens/tenant-hosts.ts";
import {
  RemovalQuery,
  RemovalRequest,
  reactivateTenant,
  removeOwnTenant,
  removeTenant,
  renewMonitorToken,
  resumeTenant,
  showRemoval,
  suspendTenant,
} from "./lifecycle/api.ts";
import { inRequest, traceOf } from "./log.ts";
import {
  ConflictsQuery,
  ConflictsRequest,
  DeadLettersQuery,
  DismissRequest,
  ReplayRequest,
  UsageQuery,
  acknowledgeConflicts,
  alertRoutes,
  dismissDeadLetters,
  listConflicts,
  listDeadLetters,
  replayDeadLetters,
  showUsage,
} from "./metering/api.ts";
import { CallsQuery, MetricsQuery, listCalls, showCall, showMetrics } from "./metering/metrics/api.ts";
import { MoveRequest, MovesQuery, confirmMove, listMoves, startMove, undoMove } from "./moves/api.ts";
import {
  NewTenantRequest,
  TenantsQuery,
  addTenant,
  changeOwnAccount,
  changeTenant,
  listTenants,
  showOwnAccount,
  showTenant,
} from "./operations/admin-api.ts";
import {
  AcknowledgeRequest,
  FailuresQuery,
  MeterErrorsQuery,
  Question,
  ShardsQuery,
  acknowledgeFailures,
  askQuestion,
  listShards,
  listFailures,
  listMeterErrors,
  showIndicators,
  showOpenMetrics,
} from "./operations/api.ts";
import {
  ConfigurationPatch,
  changeConfiguration,
  changeOwnConfiguration,
  showConfiguration,
  showOwnConfiguration,
} from "./operations/configuration-api.ts";
import { HealthQuery, showHealth } from "./operations/health.ts";
import { secretRoutes } from "./operations/secrets/api.ts";
import { answerConsent, showAuthorize } from "./pages/sign-in/authorize.tsx";
import { actionOf } from "./pages/endpoints.ts";
import { InvitationQuery, showInvitation, submitInvitation } from "./pages/sign-in/invitation.tsx";
import { answerNotFound, answerError, limitFailures } from "./pages/layout/error-page.tsx";
import { showApiReference, showOpenApi } from "./pages/public/api-reference.tsx";
import { showErrorCodes } from "./pages/public/error-codes.tsx";
import { accountRoutes } from "./pages/app/routes.ts";
import { operatorRoutes } from "./pages/admin/routes.ts";
import { publicRoutes } from "./pages/public/routes.ts";
import { finishSignIn, showSignIn, signOut } from "./pages/sign-in/sign-in.tsx";
import {
  EventDismissRequest,
  EventRetryRequest,
  OwnPlanRequest,
  PlanChangesQuery,
  PlanRequest,
  PortalRequest,
  StatusQuery,
  StripeEventsQuery,
  buyPlan,
  cancelPlanChange,
  changeOwnPlan,
  changePlan,
  createCheckout,
  dismissStripeEvents,
  listPlanChanges,
  listPlans,
  listStripeEvents,
  openPortal,
  retryStripeEvents,
  showOwnPlan,
  showStatus,
} from "./subscriptions/api.ts";
import { CheckoutRequest, OfferRequest, OwnCheckoutRequest } from "./subscriptions/checkout.ts";
import { receiveEvent, receiveThinEvent } from "./subscriptions/webhook.ts";

// oxfmt-ignore
export const routes: readonly Route[] = [
  // agents
  route("ALL /mcp", "mcp", (c) => handleMcp(c.req.raw, c.get("context"), c.executionCtx)),
  route("GET /.well-known/oauth-protected-resource/mcp", "public", showResourceMetadata, { query: AnyQuery }),
  route("GET /.well-known/oauth-protected-resource", "public", showResourceMetadata, { query: AnyQuery }),

  // the OAuth server, and the sign-in of people
  route("GET /.well-known/oauth-authorization-server", "public", inServerMode(showServerMetadata), { query: AnyQuery }),
  route("GET /.well-known/oauth-authorization-server/mcp", "public", inServerMode(showServerMetadata), { query: AnyQuery }),
  route("GET /.well-known/openid-configuration", "public", inServerMode(showOpenIdMetadata), { query: AnyQuery }),
  route("GET /.well-known/openid-configuration/mcp", "public", inServerMode(showOpenIdMetadata), { query: AnyQuery }),
  route("GET /.well-known/jwks.json", "public", inServerMode(showKeySet), { query: AnyQuery }),
  route("POST /oauth/register", "public", inServerMode(registerClient), { readsBody: true, rate: "registration", notAudited: "A registration opens nothing. The consent is recorded." }),
  route("GET /oauth/authorize", "public", inServerMode(showAuthorize), { query: AnyQuery, isPage: true, rate: "address" }),
  route("POST /oauth/consent", "public", inServerMode(answerConsent), { readsBody: true, isPage: true, rate: "address" }),
  route("POST /oauth/token", "public", inServerMode(answerToken), { readsBody: true, notAudited: "It renews what a recorded consent has given." }),
  route("POST /oauth/revoke", "public", inServerMode(answerToken), { readsBody: true, notAudited: "A client gives up its own token." }),
  route("GET /oauth/callback", "public", finishSignIn, { query: AnyQuery, isPage: true, rate: "address" }),
  route("GET /sign-in", "public", showSignIn, { query: AnyQuery, isPage: true, rate: "address" }),
  route("POST /sign-out", "public", signOut, { readsBody: true, isPage: true }),

  // documents, the same for everyone
  route("GET /openapi.json", "public", (c) => showOpenApi(c, routes)),
  route("GET /docs/api", "public", (c) => showApiReference(c, routes)),
  route("GET /docs/errors", "public", showErrorCodes),

  // a person with an invitation
  route("GET /invitation", "public", showInvitation, { query: InvitationQuery, isPage: true, rate: "address" }),
  route("POST /invitation", "public", submitInvitation, { readsBody: true, isPage: true, rate: "address" }),
  route("POST /api/invitations/accept", "person", accept, { body: AcceptanceRequest, rate: "address" }),

  // buyers
  route("GET /plans", "public", listPlans),
  route("POST /api/checkout", "public", once(createCheckout, { isPublic: true }), { body: CheckoutRequest, rate: "address" }),
  route("GET /api/tenants/:tenantId/status", "status", showStatus, { query: StatusQuery, rate: "address" }),
  route("POST /api/tenants/:tenantId/keys", "key_maker", once(createKey), { body: KeyRequest, rate: "address" }),
  route("POST /api/tenants/:tenantId/owner", "buyer", once<{ body: undefined }>(inviteOwner), { rate: "address" }),

  // a tenant's admin
  route("GET /api/tenants/:tenantId", "tenant_admin", showOwnAccount, { permission: "account:read" }),
  route("PATCH /api/tenants/:tenantId", "tenant_admin", changeOwnAccount, { body: OwnAccountChange, permission: "account:write" }),
  route("GET /api/tenants/:tenantId/configuration", "tenant_admin", showOwnConfiguration, { permission: "account:read" }),
  route("PATCH /api/tenants/:tenantId/configuration", "tenant_admin", changeOwnConfiguration, { body: SettingsPatch, permission: "account:write" }),
  route("GET /api/tenants/:tenantId/usage", "tenant_admin", showUsage, { query: UsageQuery, permission: "usage:read" }),
  route("GET /api/tenants/:tenantId/metrics", "tenant_admin", showMetrics, { query: MetricsQuery, permission: "usage:read" }),
  route("GET /api/tenants/:tenantId/calls", "tenant_admin", listCalls, { query: CallsQuery, permission: "usage:read" }),
  route("GET /api/tenants/:tenantId/calls/:receipt", "tenant_admin", showCall, { permission: "usage:read" }),
  route("GET /api/tenants/:tenantId/export", "tenant_admin", exportTenant, { isDownload: true, permission: "data:export" }),
  route("GET /api/tenants/:tenantId/audit", "tenant_admin", listOwnAudit, { query: AuditQuery, permission: "audit:read" }),
  route("GET /api/tenants/:tenantId/plan", "tenant_admin", showOwnPlan, { permission: "account:read" }),
  route("POST /api/tenants/:tenantId/plan", "tenant_admin", once(changeOwnPlan), { body: OwnPlanRequest, permission: "billing:manage" }),
  route("DELETE /api/tenants/:tenantId/plan", "tenant_admin", cancelPlanChange, { permission: "billing:manage" }),
  route("POST /api/tenants/:tenantId/checkout", "tenant_admin", once(buyPlan), { body: OwnCheckoutRequest, permission: "billing:manage" }),
  route("POST /api/tenants/:tenantId/portal", "tenant_admin", openPortal, { body: PortalRequest, permission: "billing:manage" }),
  route("POST /api/tenants/:tenantId/remove", "tenant_admin", removeOwnTenant, { body: RemovalRequest, permission: "account:remove" }),
  route("POST /api/tenants/:tenantId/reactivate", "tenant_admin", reactivateTenant, { permission: "account:remove" }),
  route("GET /api/tenants/:tenantId/removal", "tenant_admin", showRemoval, { permission: "account:read" }),

  route("GET /api/tenants/:tenantId/keys", "tenant_admin", listKeys, { query: KeysQuery, permission: "keys:manage" }),
  route("PATCH /api/tenants/:tenantId/keys/:keyId", "tenant_admin", changeKey, { body: KeyChange, permission: "keys:manage" }),
  route("DELETE /api/tenants/:tenantId/keys/:keyId", "tenant_admin", revokeKey, { permission: "keys:manage" }),
  route("POST /api/tenants/:tenantId/keys/:keyId/rotate", "tenant_admin", once(rotate), { body: RotateRequest, permission: "keys:manage" }),

  route("GET /api/tenants/:tenantId/members", "tenant_admin", listMembers, { query: MembersQuery, permission: "members:read" }),
  route("DELETE /api/tenants/:tenantId/members/me", "tenant_admin", leaveTenant, { permission: "membership:leave" }),
  route("PATCH /api/tenants/:tenantId/members/:memberId", "tenant_admin", changeRole, { body: RoleRequest, permission: "members:manage" }),
  route("DELETE /api/tenants/:tenantId/members/:memberId", "tenant_admin", removeMember, { permission: "members:manage" }),
  route("GET /api/tenants/:tenantId/grants", "tenant_admin", listGrants, { query: GrantsQuery, permission: "members:read" }),
  route("DELETE /api/tenants/:tenantId/grants/:grantId", "tenant_admin", revokeGrant, { permission: "members:manage" }),
  route("GET /api/tenants/:tenantId/sessions", "tenant_admin", listSessions, { query: PageQuery, permission: "members:read" }),
  route("DELETE /api/tenants/:tenantId/sessions/:sessionId", "tenant_admin", endSession, { permission: "members:manage" }),
  route("GET /api/tenants/:tenantId/invitations", "tenant_admin", listInvitations, { query: MembersQuery, permission: "members:read" }),
  route("POST /api/tenants/:tenantId/invitations", "tenant_admin", createInvitation, { body: InvitationRequest, permission: "members:manage" }),
  route("DELETE /api/tenants/:tenantId/invitations/:invitationId", "tenant_admin", revokeInvitation, { permission: "members:manage" }),

  // the operator: one tenant
  route("GET /admin/api/tenants", "operator", listTenants, { role: "viewer", query: TenantsQuery }),
  route("POST /admin/api/tenants", "operator", once(addTenant), { role: "admin", body: NewTenantRequest }),
  route("GET /admin/api/tenants/:tenantId", "operator", showTenant, { role: "viewer" }),
  route("PATCH /admin/api/tenants/:tenantId", "operator", changeTenant, { role: "support", body: AccountChange }),
  route("GET /admin/api/tenants/:tenantId/configuration", "operator", showConfiguration, { role: "viewer" }),
  route("PATCH /admin/api/tenants/:tenantId/configuration", "operator", changeConfiguration, { role: "support", body: ConfigurationPatch }),
  route("POST /admin/api/tenants/:tenantId/suspend", "operator", suspendTenant, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/resume", "operator", resumeTenant, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/keys", "operator", once(createKey), { role: "admin", body: KeyRequest }),
  route("GET /admin/api/tenants/:tenantId/keys", "operator", listKeys, { role: "viewer", query: KeysQuery }),
  route("PATCH /admin/api/tenants/:tenantId/keys/:keyId", "operator", changeKey, { role: "admin", body: KeyChange }),
  route("DELETE /admin/api/tenants/:tenantId/keys/:keyId", "operator", revokeKey, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/keys/:keyId/rotate", "operator", once(rotate), { role: "admin", body: RotateRequest }),
  route("POST /admin/api/tenants/:tenantId/monitor-token", "operator", once<{ body: undefined }>(renewMonitorToken), { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/links", "operator", listLinks, { role: "viewer", query: LinksQuery }),
  route("POST /admin/api/tenants/:tenantId/links", "operator", linkOrganisation, { role: "admin", body: LinkRequest }),
  route("DELETE /admin/api/tenants/:tenantId/links", "operator", unlinkOrganisation, { role: "admin", query: LinkRequest }),
  route("GET /admin/api/tenants/:tenantId/members", "operator", listMembers, { role: "viewer", query: MembersQuery }),
  route("POST /admin/api/tenants/:tenantId/members", "operator", once(addFirstMember), { role: "admin", body: MemberRequest }),
  route("DELETE /admin/api/tenants/:tenantId/members/:memberId", "operator", removeMember, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/grants", "operator", listGrants, { role: "viewer", query: GrantsQuery }),
  route("DELETE /admin/api/tenants/:tenantId/grants/:grantId", "operator", revokeGrant, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/sessions", "operator", listSessions, { role: "viewer", query: PageQuery }),
  route("DELETE /admin/api/tenants/:tenantId/sessions/:sessionId", "operator", endSession, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/usage", "operator", showUsage, { role: "viewer", query: UsageQuery }),
  route("GET /admin/api/tenants/:tenantId/metrics", "operator", showMetrics, { role: "viewer", query: MetricsQuery }),
  route("GET /admin/api/tenants/:tenantId/calls", "operator", listCalls, { role: "viewer", query: CallsQuery }),
  route("GET /admin/api/tenants/:tenantId/calls/:receipt", "operator", showCall, { role: "viewer" }),
  route("GET /admin/api/tenants/:tenantId/plan", "operator", listPlanChanges, { role: "viewer", query: PlanChangesQuery }),
  route("POST /admin/api/tenants/:tenantId/plan", "operator", once(changePlan), { role: "admin", body: PlanRequest }),
  route("DELETE /admin/api/tenants/:tenantId/plan", "operator", cancelPlanChange, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/move", "operator", listMoves, { role: "viewer", query: MovesQuery }),
  route("POST /admin/api/tenants/:tenantId/move", "operator", startMove, { role: "admin", body: MoveRequest }),
  route("POST /admin/api/tenants/:tenantId/move/confirm", "operator", confirmMove, { role: "admin" }),
  route("POST /admin/api/tenants/:tenantId/move/undo", "operator", undoMove, { role: "admin" }),
  route("GET /admin/api/tenants/:tenantId/export", "operator", exportTenant, { role: "admin", isDownload: true }),
  route("GET /admin/api/tenants/:tenantId/backups", "operator", listBackups, { role: "viewer", query: JobsQuery }),
  route("POST /admin/api/tenants/:tenantId/backups", "operator", once(startBackup), { role: "support", body: BackupRequest }),
  route("GET /admin/api/tenants/:tenantId/backups/:name", "operator", downloadBackup, { role: "admin", isDownload: true }),
  route("PUT /admin/api/tenants/:tenantId/backups/:name", "operator", uploadBackup, { role: "admin", takesFile: true }),
  route("DELETE /admin/api/tenants/:tenantId/backups/:name", "operator", cancelBackup, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/restores", "operator", listRestores, { role: "viewer", query: JobsQuery }),
  route("POST /admin/api/tenants/:tenantId/restore", "operator", once(startRestore), { role: "admin", body: RestoreRequest }),
  route("DELETE /admin/api/tenants/:tenantId/restore", "operator", cancelRestore, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/import", "operator", once(startImport), { role: "admin", query: ImportQuery, takesFile: true }),
  route("DELETE /admin/api/tenants/:tenantId/import", "operator", cancelImport, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/remove", "operator", removeTenant, { role: "admin", query: RemovalQuery, readsBody: true }),
  route("POST /admin/api/tenants/:tenantId/reactivate", "operator", reactivateTenant, { role: "support" }),
  route("GET /admin/api/tenants/:tenantId/removal", "operator", showRemoval, { role: "viewer" }),

  // the operator: the whole deployment
  route("POST /admin/api/checkouts", "operator", once(createCheckout), { role: "admin", body: OfferRequest }),
  route("GET /admin/api/audit", "operator", listAudit, { role: "viewer", query: AllAuditQuery }),
  route("GET /admin/api/cross-tenant-attempts", "operator", listCrossings, { role: "viewer", query: CrossingsQuery }),
  route("GET /admin/api/billing", "operator", showIndicators, { role: "viewer" }),
  route("GET /admin/api/metrics", "operator", showOpenMetrics, { role: "viewer" }),
  route("GET /admin/api/meter-errors", "operator", listMeterErrors, { role: "viewer", query: MeterErrorsQuery }),
  route("GET /admin/api/root-keys", "operator", listRootKeys, { role: "viewer", query: RootKeysQuery }),
  route("GET /admin/api/shards", "operator", listShards, { role: "viewer", query: ShardsQuery }),
  route("POST /admin/api/analytics", "operator", askQuestion, { role: "admin", body: Question }),
  route("GET /admin/api/dead-letters", "operator", listDeadLetters, { role: "viewer", query: DeadLettersQuery }),
  route("POST /admin/api/dead-letters/replay", "operator", replayDeadLetters, { role: "support", body: ReplayRequest }),
  route("POST /admin/api/dead-letters/dismiss", "operator", dismissDeadLetters, { role: "admin", body: DismissRequest }),
  route("GET /admin/api/usage-conflicts", "operator", listConflicts, { role: "viewer", query: ConflictsQuery }),
  route("POST /admin/api/usage-conflicts/acknowledge", "operator", acknowledgeConflicts, { role: "support", body: ConflictsRequest }),
  route("GET /admin/api/stripe-events", "operator", listStripeEvents, { role: "viewer", query: StripeEventsQuery }),
  route("POST /admin/api/stripe-events/retry", "operator", retryStripeEvents, { role: "support", body: EventRetryRequest }),
  route("POST /admin/api/stripe-events/dismiss", "operator", dismissStripeEvents, { role: "admin", body: EventDismissRequest }),
  route("GET /admin/api/failures", "operator", listFailures, { role: "viewer", query: FailuresQuery }),
  route("POST /admin/api/failures/acknowledge", "operator", acknowledgeFailures, { role: "support", body: AcknowledgeRequest }),
  route("GET /admin/api/migrations", "operator", listMigrations, { role: "viewer", query: RunsQuery }),
  route("POST /admin/api/migrations", "operator", once(startMigration), { role: "admin", body: FleetOptions }),
  route("GET /admin/api/migrations/:runId", "operator", showMigration, { role: "viewer" }),
  route("POST /admin/api/migrations/:runId/stop", "operator", stopMigration, { role: "admin" }),

  // Stripe and monitors
  route("POST /webhooks/stripe", "stripe", receiveEvent),
  route("POST /webhooks/stripe-thin", "stripe", receiveThinEvent),
  route("GET /health", "monitor", showHealth, { query: HealthQuery }),

  // tenants' own providers, secrets, alerts and documents, and pages
  ...peopleRoutes, ...providerRoutes, ...secretRoutes, ...alertRoutes, ...documentRoutes, ...publicRoutes, ...accountRoutes, ...operatorRoutes,
];

/** The APIs take small JSON, and Stripe's largest events are some tens of kilobytes. */
const MAX_BODY_BYTES = 256 * 1024;

/** Refuses a larger body. The refusal of a form is a page. */
const limitOf = (maxSize = MAX_BODY_BYTES) => bodyLimit({ maxSize, onError: () => refuseOver(maxSize) });
function refuseOver(maxBytes: number): never {
  throw new Problem("body_too_large", `Send at most ${maxBytes / 1024} KiB. Nothing has changed.`);
}

// A slash at the end of a path changes nothing: clients and people add it.
export const app = new Hono<HttpEnv>({ strict: false });

app.use((c, next) => {
  // Never a client's: its id could be another request's.
  const requestId = newId();
  c.set("requestId", requestId);
  c.set("context", createContext(c.env));
  c.set("actor", anonymous);
  const answer = async (): Promise<void> => {
    await next();
    await limitFailures(c);
    finishAnswer(c);
  };
  return inRequest(requestId, answer, { traceId: traceOf(c.req.header("traceparent")) });
});

// A tenant's host has the MCP endpoint alone.
app.use((c, next) => {
  const elsewhere = ownUrlOf(c.env, c.req.url);
  return elsewhere === undefined ? next() : Promise.resolve(c.redirect(elsewhere, 308));
});

// Browser clients of any origin read what is below, and ask first when they name the revision that they speak. They also
// look for documents that do not exist, and would take an answer that they cannot read for an outage.
shareWithBrowsers(app, "/.well-known/*", { methods: "GET, HEAD", headers: "Authorization, MCP-Protocol-Version, *" });

// So do they with the OAuth server's endpoints. Their requests carry no cookie, so any page may send them. Its pages are not
// among them: no other site may read those.
for (const path of ["/oauth/register", "/oauth/token", "/oauth/revoke"])
  shareWithBrowsers(app, path, { methods: "POST", headers: "Authorization, Content-Type, MCP-Protocol-Version, *" });

for (const each of routes) {
  const { method, path, access, permission, takesFile, maxBytes, rate, run } = each;
  const action = actionOf(each);
  // The MCP endpoint limits its bodies itself, and the platform limits files.
  // A body of unknown length is read to find its length, so the guard comes first.
  const limit = access === "mcp" || takesFile ? [] : [limitOf(maxBytes)];
  // A tenant's credential names a tenant that exists, or whose order does. The operator may name any.
  const namesAny = access === "operator" && path.includes("/:tenantId");
  const isRead = recordingOf(each) === "never";
  const check = async (c: HttpContext): Promise<void> => {
    if (namesAny) await requireTenant(c);
    if (!isRead) await intend(c, each, action);
  };
  // Hono answers HEAD with the GET route and drops the body, which would leave a stream open.
  const handler: Handler<HttpEnv> = async (c) => {
    const response = await run(c, isRead && !namesAny ? undefined : check);
    if (c.req.method === "HEAD") await response.body?.cancel();
    return response;
  };
  const mayUse = permission === undefined ? [] : [requirePermission(permission)];
  const asPage = each.isPage === true ? [markPage] : [];
  const record = access === "mcp" ? [] : [recorder(each, action)];
  app.on(method, [path], ...asPage, ...record, guardOf(each), ...mayUse, ...limit, ...rateOf(rate), handler);
}

// A known path with another method.
for (const [path, rows] of Map.groupBy(routes, ({ path: each }) => each)) {
  const methods = rows.flatMap(({ method }) => (method === "GET" ? ["GET", "HEAD"] : [method]));
  const [first] = rows;
  if (first === undefined || first.method === "ALL") continue;
  // As on every path below /admin/api, a stranger's answer is 401.
  const access = first.access === "operator" ? "operator" : "public";
  app.all(path, refusedTokens(first), guardOf({ access, role: "viewer" }), (c) => {
    c.header("allow", methods.join(", "));
    return problemDocument(c, "method_not_allowed");
  });
}

app.all("/admin/api/*", refusedTokens({ access: "operator" }), guardOf({ access: "operator", role: "viewer" }), (c) =>
  problemDocument(c, "not_found"),
);

app.notFound(answerNotFound);
app.onError((error, c) => answerError(c, error, { isPage: c.get("isPage") === true }));

/** Refusals of the request are pages. */
function markPage(c: HttpContext, next: Next): Promise<void> {
  c.set("isPage", true);
  return next();
}

/** Records the refused operator tokens of requests that no route takes. They do nothing else. */
function refusedTokens({ access }: Pick<Route, "access">): MiddlewareHandler<HttpEnv> {
  return recorder({ method: "GET", access }, "");
}
