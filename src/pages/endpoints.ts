// What the API reference says about each endpoint beyond the table of routes: a stable id, a summary, and the answers. The
// table of routes has the method, the path, who may use it and the input. A test compares the two tables.
import * as z from "zod";
import { ImportProgress } from "../backups/import.ts";
import { ImportRequest } from "../backups/api.ts";
import { Document } from "../backups/documents.ts";
import { Failure } from "../control/failures-store.ts";
import { Conflict } from "../control/ledger-store.ts";
import { ListedShard } from "../control/placements-store.ts";
import { TenantSummary } from "../control/tenants-store.ts";
import type { Route } from "../http.ts";
import type { ErrorCode } from "../core/errors.ts";
import { Limits, strategies } from "../core/plans/plans.ts";
import { Report as MigrationReport, Run } from "../fleet/fleet-store.ts";
import { tenantRoles } from "../core/actor.ts";
import { AuditDetail, auditOutcomes } from "../identity/audit/audit.ts";
import { CrossingsOfDay } from "../identity/audit/crossings-store.ts";
import { InvitationSummary } from "../identity/members/invitations-store.ts";
import { KeySummary } from "../identity/keys/api.ts";
import { Link } from "../identity/tokens/links-store.ts";
import { MemberSummary, Membership } from "../identity/members/members-store.ts";
import { OperatorSessionSummary } from "../identity/operators/operator-sessions-store.ts";
import { Impersonation } from "../identity/operators/operators-store.ts";
import { Grant } from "../identity/oauth/api.ts";
import { ProviderView, RemovedProvider } from "../identity/providers/api.ts";
import { SessionSummary } from "../identity/sessions/sessions-store.ts";
import { RemovalRequest } from "../lifecycle/api.ts";
import { Alert } from "../metering/alerts-store.ts";
import { DeadLetter } from "../metering/dead-letters/dead-letters-store.ts";
import { MoveSummary } from "../moves/moves-store.ts";
import { Configuration, OwnConfiguration } from "../operations/configuration-api.ts";
import { RemovedSecret, SecretView } from "../operations/secrets/api.ts";
import { MeterErrorDay } from "../reports/meter-errors-store.ts";
import { StripeEvent } from "../subscriptions/inbox-store.ts";
import { PlanChange } from "../subscriptions/subscriptions-store.ts";
import { CallAnswer, Calls, Instant, Metrics, listOf } from "./answers.ts";

/** A file of JSON lines: a backup or an export. */
export const FILE = "file";
/** A document of the tenant's, of any type. */
export const DOCUMENT = "document";
/** An HTML page. */
export const PAGE = "page";
/** The browser continues elsewhere. */
export const REDIRECT = "redirect";
/** An answer without a body. */
export const EMPTY = "empty";
/** The text format of OpenMetrics. */
export const METRICS = "metrics";
export type Answer =
  | z.ZodType
  | typeof FILE
  | typeof DOCUMENT
  | typeof METRICS
  | typeof PAGE
  | typeof REDIRECT
  | typeof EMPTY;

interface More {
  /** The body of a route whose handler reads it. */
  body?: z.ZodType | typeof DOCUMENT;
  /** The caller may leave the body out. */
  bodyIsOptional?: boolean;
  /** Why a repeated POST without an `Idempotency-Key` makes no second thing. */
  repeat?: string;
  /** Error codes beyond those that follow from the table of routes. */
  codes?: readonly ErrorCode[];
}

export interface Endpoint extends More {
  /** The operationId. Generated clients name their functions after it, so it never changes. */
  id: string;
  summary: string;
  /** The successful answers by status. */
  answers: Readonly<Record<number, Answer>>;
}

const endpoint = (id: string, summary: string, answers: Endpoint["answers"], more: More = {}): Endpoint => ({
  id,
  summary,
  answers,
  ...more,
});
const ok = (answer: Answer): Endpoint["answers"] => ({ 200: answer });
const created = (answer: Answer): Endpoint["answers"] => ({ 201: answer });
const accepted = (answer: Answer): Endpoint["answers"] => ({ 202: answer });

const Ids = z.array(z.string());
/** `delivered`: the tenant's object has confirmed the change. Otherwise the sweep notifies it within about a minute. */
const Delivered = z.object({ delivered: z.boolean() });
const OwnAccount = TenantSummary.pick({
  ...{ id: true, name: true, email: true, plan: true, state: true, limits: true },
  ...{ allowedTools: true, features: true, trialUntil: true, createdAt: true },
});
const Service = z.object({
  id: z.string(),
  state: z.string(),
  served: z.boolean(),
  refusedWith: z.string().nullable(),
  waysBack: z.array(z.object({ by: z.enum(["administrator", "operator"]), does: z.string(), request: z.string() })),
});
const IssuedKey = KeySummary.pick({
  ...{ id: true, name: true, prefix: true, scopes: true, tools: true, unitsPerMonth: true, expiresAt: true },
}).extend({ apiKey: z.string(), delivered: z.boolean() });
const RotatedKey = IssuedKey.extend({ replaces: z.object({ id: z.string(), endsAt: Instant }) });
/** `usageKnown`: false while the tenant's object does not answer. Then no key has a last use or used units. */
const Keys = listOf("keys", KeySummary).extend({ usageKnown: z.boolean() });
const RootKey = z.object({
  id: z.string(),
  makesCredentials: z.boolean(),
  verifies: z.enum(["all", "stored", "nothing"]),
  apiKeys: z.int(),
  tenants: z.int(),
});
const Invited = z.object({
  id: z.string(),
  email: z.string(),
  role: z.enum(tenantRoles),
  expiresAt: Instant,
  mail: z.enum(["sent", "failed", "off"]),
  url: z.url().optional(),
});
const OwnCheckout = z.object({ tenantId: z.string(), checkoutUrl: z.url(), statusUrl: z.url() });
const Checkout = OwnCheckout.extend({ setupToken: z.string() });
const Change = z.object({ tenantId: z.string(), plan: z.string(), change: PlanChange.nullable() });
/** What every job that Tollgate does in the background answers. */
const Job = z.object({
  id: z.int(),
  state: z.enum(["running", "done", "failed", "cancelled"]),
  error: z.string().nullable(),
  startedAt: Instant,
  finishedAt: Instant.nullable(),
});
/** `at`: the instant as it was requested. */
const Backup = Job.extend({ name: z.string(), at: z.string().nullable() });
const Restore = Job.extend({
  key: z.string(),
  progress: z.object({ checked: z.int(), rows: z.int().nullable(), replaced: z.boolean() }),
});
const Import = Job.extend({ ...ImportProgress.shape, lines: ImportProgress.shape.lines.nullable() });
const Moves = listOf("moves", MoveSummary);
const Removal = z.object({
  tenantId: z.string(),
  phase: z.enum(["closing", "grace", "dropping", "done", "undone"]),
  step: z.string(),
  askedBy: z.string(),
  leavingUntil: Instant.nullable(),
  waitsFor: z.string().nullable(),
  error: z.string().nullable(),
  askedAt: Instant,
  finishedAt: Instant.nullable(),
});
const Status = z.object({
  tenantId: z.string(),
  state: z.string(),
  plan: z.string(),
  steps: z.array(
    z.object({
      name: z.string(),
      title: z.string(),
      status: z.enum(["pending", "running", "retrying", "done"]),
      startedAt: Instant.nullable(),
      finishedAt: Instant.nullable(),
      error: z.string().nullable(),
    }),
  ),
  import: Import.nullable().optional(),
});
const Health = z.object({
  status: z.enum(["ok", "failing"]),
  checkedAt: Instant,
  checks: z.record(z.string(), z.looseObject({ ok: z.boolean(), reason: z.string().optional() })),
});
const Plan = z.object({
  name: z.string(),
  amountCents: z.int(),
  currency: z.string(),
  interval: z.string(),
  /** Decimal text: a unit may cost less than a cent. */
  unitAmountCents: z.string().nullable(),
  includedUnits: z.int().nullable(),
  limits: Limits,
});
const Usage = z.object({ tenantId: z.string(), next: z.string().nullable() });
const JsonRpc = z.looseObject({ jsonrpc: z.literal("2.0") });
const Metadata = z.object({
  resource: z.url(),
  authorization_servers: z.array(z.url()),
  scopes_supported: z.array(z.string()),
});

const AuditedEvent = z.object({
  id: z.string(),
  tenantId: z.string().nullable(),
  position: z.int(),
  at: Instant,
  recordedAt: Instant,
  actor: z.object({
    kind: z.string(),
    id: z.string().nullable(),
    name: z.string().nullable(),
    onBehalfOf: z.string().nullable(),
  }),
  action: z.string(),
  target: z.string().nullable(),
  outcome: z.enum(auditOutcomes),
  status: z.int().nullable(),
  code: z.string().nullable(),
  requestId: z.string().nullable(),
  address: z.string().nullable(),
  detail: AuditDetail,
  previousHash: z.string(),
  hash: z.string(),
});

const ServerMetadata = z.looseObject({
  issuer: z.url(),
  authorization_endpoint: z.url(),
  token_endpoint: z.url(),
  registration_endpoint: z.url(),
  revocation_endpoint: z.url(),
  scopes_supported: z.array(z.string()),
});
const OpenIdMetadata = ServerMetadata.extend({ jwks_uri: z.url() });
const Client = z.looseObject({ client_id: z.string(), redirect_uris: z.array(z.string()) });
const Tokens = z.looseObject({
  access_token: z.string(),
  token_type: z.literal("bearer"),
  expires_in: z.int(),
  refresh_token: z.string(),
  scope: z.string(),
  resource: z.url(),
});

const stripe = ["billing_unavailable", "billing_refused"] as const;
const conditional = ["precondition_required", "precondition_failed"] as const;
const object = ["tenant_unavailable"] as const;
/** A document changes when a call would be served. */
const changes = [
  ...object,
  ...(["tenant_provisioning", "trial_expired", "payment_required", "tenant_suspended", "tenant_leaving"] as const),
  ...(["window_exhausted", "period_exhausted", "spend_cap_reached"] as const),
] as const;
const started = "A request that repeats one which is in progress gets its state.";

// oxfmt-ignore
export const endpoints: Readonly<Record<string, Endpoint>> = {
  // agents
  "ALL /mcp": endpoint("mcp", "Send one MCP message", { 200: JsonRpc, 202: EMPTY }, { body: JsonRpc, repeat: "A call with `_meta[\"tollgate/idempotencyKey\"]` is charged once." }),
  "GET /.well-known/oauth-protected-resource/mcp": endpoint("showResourceMetadata", "Show who issues tokens for the MCP endpoint (RFC 9728)", ok(Metadata)),
  "GET /.well-known/oauth-protected-resource": endpoint("showRootResourceMetadata", "Show the same at the root", ok(Metadata)),

  // the OAuth server
  "GET /.well-known/oauth-authorization-server": endpoint("showServerMetadata", "Show the OAuth server's endpoints (RFC 8414)", ok(ServerMetadata)),
  "GET /.well-known/oauth-authorization-server/mcp": endpoint("showServerMetadataOfMcp", "Show the same below the path of the MCP endpoint", ok(ServerMetadata)),
  "GET /.well-known/openid-configuration": endpoint("showOpenIdMetadata", "Show the same in the form of OpenID Connect Discovery", ok(OpenIdMetadata)),
  "GET /.well-known/openid-configuration/mcp": endpoint("showOpenIdMetadataOfMcp", "Show that form below the path of the MCP endpoint", ok(OpenIdMetadata)),
  "GET /.well-known/jwks.json": endpoint("showKeySet", "Show the keys of ID tokens, of which there are none", ok(z.object({ keys: z.tuple([]) }))),
  "POST /oauth/register": endpoint("registerClient", "Register an OAuth client (RFC 7591)", created(Client), { body: z.looseObject({ redirect_uris: z.array(z.string()) }), repeat: "An unused registration ends by itself." }),
  "GET /oauth/authorize": endpoint("authorize", "Ask a member to let a client in", { 200: PAGE, 302: REDIRECT }),
  "POST /oauth/consent": endpoint("answerConsent", "Decide about a client, with the form of the consent page", ok(PAGE), { repeat: "A form that is submitted again shows the first answer." }),
  "GET /oauth/callback": endpoint("finishSignIn", "Return from the provider of a sign-in", { 303: REDIRECT }),
  "GET /sign-in": endpoint("showSignIn", "Sign in to pages, or show who is signed in", { 200: PAGE, 302: REDIRECT, 303: REDIRECT }),
  "POST /sign-out": endpoint("signOut", "Sign out of pages", ok(PAGE), { repeat: "A session ends once." }),
  "POST /oauth/token": endpoint("answerToken", "Exchange a code, a refresh token or an assertion for tokens", ok(Tokens), { repeat: "A code is redeemed once, and a refresh that is sent again gets usable tokens." }),
  "POST /oauth/revoke": endpoint("revokeToken", "Revoke a token (RFC 7009)", ok(EMPTY), { repeat: "A revoked token stays revoked." }),

  // documents
  "GET /openapi.json": endpoint("showOpenApi", "Show this description as OpenAPI 3.1", ok(z.looseObject({ openapi: z.string() }))),
  "GET /docs/api": endpoint("showApiReference", "Show the API reference", ok(PAGE)),
  "GET /docs/errors": endpoint("showErrorCodes", "Show the error codes", ok(PAGE)),

  // a person with an invitation
  "GET /invitation": endpoint("showInvitation", "Show an invitation as a page", ok(PAGE), { codes: ["not_found"] }),
  "POST /invitation": endpoint("submitInvitation", "Accept an invitation, with the form of its page", ok(PAGE), { codes: ["not_found", "invitation_ended"], repeat: "An invitation is accepted once." }),
  "POST /api/invitations/accept": endpoint("acceptInvitation", "Accept an invitation", ok(Membership.extend(Delivered.shape)), { codes: ["not_found", "invitation_ended"], repeat: "An invitation is accepted once. Who accepted it gets the membership again." }),

  // buyers
  "GET /plans": endpoint("listPlans", "List the plans for sale", { 200: z.object({ plans: z.array(Plan) }), 302: REDIRECT }),
  "POST /api/checkout": endpoint("createCheckout", "Order a plan", created(Checkout), { codes: stripe }),
  "GET /api/tenants/:tenantId/status": endpoint("showStatus", "Show how far an account's set-up is", ok(Status)),
  "POST /api/tenants/:tenantId/keys": endpoint("createFirstKey", "Create an API key. The buyer makes the account's first one", created(IssuedKey)),
  "POST /api/tenants/:tenantId/owner": endpoint("inviteOwner", "Invite the buyer to be the account's first owner", created(Invited)),

  // a tenant's admin
  "GET /api/tenants/:tenantId": endpoint("showOwnAccount", "Show the account", ok(OwnAccount)),
  "PATCH /api/tenants/:tenantId": endpoint("changeOwnAccount", "Change the account's name or e-mail address", ok(OwnAccount.extend(Delivered.shape)), { codes: stripe }),
  "GET /api/tenants/:tenantId/configuration": endpoint("showOwnConfiguration", "Show the account's configuration, with its ETag", ok(OwnConfiguration)),
  "PATCH /api/tenants/:tenantId/configuration": endpoint("changeOwnConfiguration", "Change branding, integrations, the spend cap and alerts by a merge patch", ok(OwnConfiguration.extend(Delivered.shape)), { codes: conditional }),
  "POST /api/tenants/:tenantId/webhook-secret": endpoint("renewWebhookSecret", "Make a new secret for the account's webhooks, and show it once", created(z.object({ secret: z.string(), formerUntil: z.string().nullable() }))),
  "GET /api/tenants/:tenantId/alerts": endpoint("listAlerts", "List what the account was alerted of, newest first", ok(listOf("alerts", Alert))),
  "POST /api/tenants/:tenantId/alerts/:alertId/replay": endpoint("replayAlert", "Send an alert again", { 200: z.object({ alert: Alert }), 202: z.object({ alert: Alert }) }, { repeat: "It sends the same alert again, with the same id." }),
  "GET /api/tenants/:tenantId/usage": endpoint("showOwnUsage", "Show usage, meter reports and their calls", ok(Usage)),
  "GET /api/tenants/:tenantId/metrics": endpoint("showOwnMetrics", "Show the account's calls, units, latency and database time over time", ok(Metrics)),
  "GET /api/tenants/:tenantId/calls": endpoint("listOwnCalls", "List the account's last calls, newest first", ok(Calls)),
  "GET /api/tenants/:tenantId/calls/:receipt": endpoint("showOwnCall", "Show one call by its receipt", ok(CallAnswer)),
  "GET /api/tenants/:tenantId/documents": endpoint("listDocuments", "List the account's documents by path", ok(listOf("documents", Document)), { codes: object }),
  "GET /api/tenants/:tenantId/documents/content": endpoint("downloadDocument", "Download a document", ok(DOCUMENT), { codes: object }),
  "PUT /api/tenants/:tenantId/documents/content": endpoint("saveDocument", "Store a document; with `If-None-Match: *`, only a new one", ok(Document), { body: DOCUMENT, codes: ["precondition_failed", ...changes] }),
  "DELETE /api/tenants/:tenantId/documents/content": endpoint("deleteDocument", "Delete a document", ok(z.object({ deleted: z.literal(true) })), { codes: changes }),
  "GET /api/tenants/:tenantId/export": endpoint("exportOwnData", "Download all rows and documents", ok(FILE), { codes: ["conflict", ...object] }),
  "GET /api/tenants/:tenantId/keys": endpoint("listOwnKeys", "List the account's API keys, newest first", ok(Keys)),
  "PATCH /api/tenants/:tenantId/keys/:keyId": endpoint("changeOwnKey", "Change an API key's name and restrictions", ok(KeySummary.extend(Delivered.shape)), { codes: ["conflict"] }),
  "DELETE /api/tenants/:tenantId/keys/:keyId": endpoint("revokeOwnKey", "Revoke an API key", ok(Delivered.extend({ revoked: z.literal(true) }))),
  "POST /api/tenants/:tenantId/keys/:keyId/rotate": endpoint("rotateOwnKey", "Replace an API key; the old one works for some hours more", created(RotatedKey)),
  "GET /api/tenants/:tenantId/audit": endpoint("listOwnAudit", "List the account's audit log, newest first", ok(listOf("events", AuditedEvent))),
  "GET /api/tenants/:tenantId/provider": endpoint("showOwnProvider", "Show the account's own sign-in provider", ok(ProviderView)),
  "PUT /api/tenants/:tenantId/provider": endpoint("saveOwnProvider", "Set the account's own sign-in provider", ok(ProviderView.extend(Delivered.shape)), { codes: ["conflict"] }),
  "DELETE /api/tenants/:tenantId/provider": endpoint("removeOwnProvider", "Remove the account's own sign-in provider", ok(RemovedProvider.extend(Delivered.shape)), { codes: ["conflict"] }),
  "POST /api/tenants/:tenantId/provider/domains": endpoint("checkOwnDomains", "Look for the DNS records that prove the account's e-mail domains", ok(ProviderView), { codes: ["conflict", "issuer_unavailable"], repeat: "A proved domain stays proved." }),
  "GET /api/tenants/:tenantId/secrets": endpoint("listOwnSecrets", "List the secrets that tools use and the account sets, without their values", ok(listOf("secrets", SecretView))),
  "PUT /api/tenants/:tenantId/secrets/:name": endpoint("setOwnSecret", "Set a secret of the account that tools use", ok(SecretView.extend(Delivered.shape)), { codes: ["conflict"] }),
  "DELETE /api/tenants/:tenantId/secrets/:name": endpoint("removeOwnSecret", "Remove a secret of the account", ok(RemovedSecret.extend(Delivered.shape))),
  "GET /api/tenants/:tenantId/grants": endpoint("listOwnGrants", "List the clients that members have let in", ok(listOf("grants", Grant)), { codes: object }),
  "DELETE /api/tenants/:tenantId/grants/:grantId": endpoint("revokeOwnGrant", "End a client's access", ok(z.object({ revoked: z.literal(true) })), { codes: object }),
  "GET /api/tenants/:tenantId/sessions": endpoint("listOwnSessions", "List the sign-in sessions of members", ok(listOf("sessions", SessionSummary))),
  "DELETE /api/tenants/:tenantId/sessions/:sessionId": endpoint("endOwnSession", "End a member's sign-in session", ok(z.object({ ended: z.literal(true) }))),
  "GET /api/tenants/:tenantId/plan": endpoint("showOwnPlan", "Show the plan and the latest change", ok(Change)),
  "POST /api/tenants/:tenantId/plan": endpoint("changeOwnPlan", "Change the plan", { 200: Change, 202: Change }, { codes: stripe }),
  "DELETE /api/tenants/:tenantId/plan": endpoint("cancelOwnPlanChange", "Cancel a plan change that waits", ok(z.object({ change: PlanChange })), { codes: object }),
  "POST /api/tenants/:tenantId/checkout": endpoint("buyPlan", "Buy a plan for an account without a subscription", created(OwnCheckout), { codes: stripe }),
  "POST /api/tenants/:tenantId/portal": endpoint("openPortal", "Open Stripe's portal", created(z.object({ url: z.url() })), { codes: stripe, repeat: "Each request opens a page of its own, which ends by itself." }),
  "POST /api/tenants/:tenantId/remove": endpoint("removeOwnAccount", "Close the account", { 200: Removal, 202: Removal.extend(Delivered.shape) }, { repeat: started }),
  "POST /api/tenants/:tenantId/reactivate": endpoint("reactivateOwnAccount", "Reactivate an account that is closing", ok(Service), { codes: ["payment_failed", ...stripe, ...object], repeat: "An account that is back stays as it is, and is charged once." }),
  "GET /api/tenants/:tenantId/removal": endpoint("showOwnRemoval", "Show how far the closing is", ok(Removal)),

  "GET /api/tenants/:tenantId/members": endpoint("listOwnMembers", "List the account's members", ok(listOf("members", MemberSummary))),
  "PATCH /api/tenants/:tenantId/members/:memberId": endpoint("changeOwnMemberRole", "Give a member another role", ok(Delivered.extend({ id: z.string(), role: z.enum(tenantRoles) })), { codes: ["conflict"] }),
  "DELETE /api/tenants/:tenantId/members/me": endpoint("leaveTenant", "Leave the account", ok(Delivered.extend({ removed: z.literal(true) }))),
  "DELETE /api/tenants/:tenantId/members/:memberId": endpoint("removeOwnMember", "Remove a member", ok(Delivered.extend({ removed: z.literal(true) }))),
  "GET /api/tenants/:tenantId/invitations": endpoint("listInvitations", "List the account's invitations, newest first", ok(listOf("invitations", InvitationSummary))),
  "POST /api/tenants/:tenantId/invitations": endpoint("createInvitation", "Invite a person to the account", created(Invited)),
  "DELETE /api/tenants/:tenantId/invitations/:invitationId": endpoint("revokeInvitation", "Revoke an invitation", ok(z.object({ revoked: z.literal(true) }))),

  // the operator: one tenant
  "GET /admin/api/tenants": endpoint("listTenants", "List tenants by id, all or those that fit a search", ok(listOf("tenants", TenantSummary))),
  "POST /admin/api/tenants": endpoint("createTenant", "Create a tenant without an order", created(TenantSummary.extend({ statusUrl: z.url() })), { codes: object }),
  "GET /admin/api/tenants/:tenantId": endpoint("showTenant", "Show a tenant with its keys and its state", ok(TenantSummary.extend(Service.shape))),
  "PATCH /admin/api/tenants/:tenantId": endpoint("changeTenant", "Change a tenant's account, tools, features and limits", ok(TenantSummary.extend(Delivered.shape)), { codes: stripe }),
  "GET /admin/api/tenants/:tenantId/configuration": endpoint("showConfiguration", "Show a tenant's configuration, with its ETag", ok(Configuration)),
  "PATCH /admin/api/tenants/:tenantId/configuration": endpoint("changeConfiguration", "Change a tenant's configuration by a merge patch", ok(Configuration.extend(Delivered.shape)), { codes: conditional }),
  "POST /admin/api/tenants/:tenantId/suspend": endpoint("suspendTenant", "Suspend a tenant", ok(Service.extend(Delivered.shape)), { repeat: "A suspended tenant stays suspended." }),
  "POST /admin/api/tenants/:tenantId/resume": endpoint("resumeTenant", "Resume a tenant", ok(Service.extend(Delivered.shape)), { repeat: "A tenant that is served stays as it is." }),
  "POST /admin/api/tenants/:tenantId/keys": endpoint("createKey", "Create an API key", created(IssuedKey)),
  "GET /admin/api/tenants/:tenantId/keys": endpoint("listKeys", "List a tenant's API keys, newest first", ok(Keys)),
  "PATCH /admin/api/tenants/:tenantId/keys/:keyId": endpoint("changeKey", "Change an API key's name and restrictions", ok(KeySummary.extend(Delivered.shape)), { codes: ["conflict"] }),
  "POST /admin/api/tenants/:tenantId/keys/:keyId/rotate": endpoint("rotateKey", "Replace an API key; the old one works for some hours more", created(RotatedKey)),
  "DELETE /admin/api/tenants/:tenantId/keys/:keyId": endpoint("revokeKey", "Revoke an API key", ok(Delivered.extend({ revoked: z.literal(true) }))),
  "POST /admin/api/tenants/:tenantId/monitor-token": endpoint("renewMonitorToken", "Revoke the monitor tokens and create one", created(z.object({ monitorToken: z.string() }))),
  "GET /admin/api/tenants/:tenantId/links": endpoint("listLinks", "List the organisations that are linked to a tenant", ok(listOf("links", Link))),
  "POST /admin/api/tenants/:tenantId/links": endpoint("linkOrganisation", "Link an issuer's organisation to a tenant", created(Link.omit({ createdAt: true }).extend({ tenantId: z.string(), ...Delivered.shape })), { repeat: "A link that exists stays." }),
  "DELETE /admin/api/tenants/:tenantId/links": endpoint("unlinkOrganisation", "Remove a link", ok(Delivered.extend({ unlinked: z.literal(true) }))),
  "GET /admin/api/tenants/:tenantId/members": endpoint("listMembers", "List a tenant's members", ok(listOf("members", MemberSummary))),
  "POST /admin/api/tenants/:tenantId/members": endpoint("addMember", "Add a member, as a rule the first owner, and invite the person", created(z.object({ member: MemberSummary, invitation: Invited }))),
  "DELETE /admin/api/tenants/:tenantId/members/:memberId": endpoint("removeMember", "Remove a member of a tenant", ok(Delivered.extend({ removed: z.literal(true) }))),
  "GET /admin/api/tenants/:tenantId/provider": endpoint("showProvider", "Show a tenant's own sign-in provider", ok(ProviderView)),
  "PUT /admin/api/tenants/:tenantId/provider": endpoint("saveProvider", "Set a tenant's own sign-in provider", ok(ProviderView.extend(Delivered.shape)), { codes: ["conflict"] }),
  "DELETE /admin/api/tenants/:tenantId/provider": endpoint("removeProvider", "Remove a tenant's own sign-in provider", ok(RemovedProvider.extend(Delivered.shape))),
  "POST /admin/api/tenants/:tenantId/provider/domains": endpoint("checkDomains", "Look for the DNS records that prove a tenant's e-mail domains", ok(ProviderView), { codes: ["conflict", "issuer_unavailable"], repeat: "A proved domain stays proved." }),
  "GET /admin/api/tenants/:tenantId/grants": endpoint("listGrants", "List the clients that a tenant's members have let in", ok(listOf("grants", Grant)), { codes: object }),
  "DELETE /admin/api/tenants/:tenantId/grants/:grantId": endpoint("revokeGrant", "End a client's access to a tenant", ok(z.object({ revoked: z.literal(true) })), { codes: object }),
  "GET /admin/api/tenants/:tenantId/sessions": endpoint("listSessions", "List the sign-in sessions of a tenant's members", ok(listOf("sessions", SessionSummary))),
  "DELETE /admin/api/tenants/:tenantId/sessions/:sessionId": endpoint("endSession", "End a sign-in session of a tenant's member", ok(z.object({ ended: z.literal(true) }))),
  "GET /admin/api/tenants/:tenantId/usage": endpoint("showUsage", "Show a tenant's usage, meter reports and their calls", ok(Usage)),
  "GET /admin/api/tenants/:tenantId/metrics": endpoint("showMetrics", "Show a tenant's calls, units, latency and database time over time", ok(Metrics)),
  "GET /admin/api/tenants/:tenantId/calls": endpoint("listCalls", "List a tenant's last calls, newest first", ok(Calls)),
  "GET /admin/api/tenants/:tenantId/calls/:receipt": endpoint("showCall", "Show one call of a tenant by its receipt", ok(CallAnswer)),
  "GET /admin/api/tenants/:tenantId/plan": endpoint("listPlanChanges", "List a tenant's plan changes, newest first", ok(listOf("changes", PlanChange))),
  "POST /admin/api/tenants/:tenantId/plan": endpoint("changePlan", "Change a tenant's plan, strategy and limits", { 200: TenantSummary.extend({ change: PlanChange }), 202: TenantSummary.extend({ change: PlanChange }) }, { codes: stripe }),
  "DELETE /admin/api/tenants/:tenantId/plan": endpoint("cancelPlanChange", "Cancel a tenant's plan change that waits", ok(z.object({ change: PlanChange })), { codes: object }),
  "GET /admin/api/tenants/:tenantId/move": endpoint("listMoves", "List a tenant's moves, newest first", ok(Moves)),
  "POST /admin/api/tenants/:tenantId/move": endpoint("startMove", "Move a tenant's rows to another placement", { 200: Moves, 202: Moves }, { repeat: "A tenant has one open move. The same target again gets its state." }),
  "POST /admin/api/tenants/:tenantId/move/confirm": endpoint("confirmMove", "Delete the old copy of a moved tenant", { 200: Moves, 202: Moves }, { codes: object, repeat: "A move ends once." }),
  "POST /admin/api/tenants/:tenantId/move/undo": endpoint("undoMove", "Move a tenant back, with everything written since", { 200: Moves, 202: Moves }, { codes: object, repeat: "A move ends once." }),
  "GET /admin/api/tenants/:tenantId/export": endpoint("exportTenant", "Download a tenant's rows and documents", ok(FILE), { codes: ["conflict", ...object] }),
  "GET /admin/api/tenants/:tenantId/backups": endpoint("listBackups", "List a tenant's backups, newest first", ok(listOf("backups", Backup).extend({ earliestPoint: Instant.nullable() }))),
  "POST /admin/api/tenants/:tenantId/backups": endpoint("startBackup", "Start a backup of now or of an earlier instant", accepted(Backup)),
  "GET /admin/api/tenants/:tenantId/backups/:name": endpoint("downloadBackup", "Download a backup", ok(FILE)),
  "PUT /admin/api/tenants/:tenantId/backups/:name": endpoint("uploadBackup", "Upload a backup that was kept elsewhere", created(z.object({ sizeBytes: z.int() }))),
  "DELETE /admin/api/tenants/:tenantId/backups/:name": endpoint("cancelBackup", "Cancel a backup that is being made", ok(Backup)),
  "GET /admin/api/tenants/:tenantId/restores": endpoint("listRestores", "List a tenant's restores, newest first", ok(listOf("restores", Restore))),
  "POST /admin/api/tenants/:tenantId/restore": endpoint("startRestore", "Restore a backup or a point in time", accepted(Restore.extend({ tenantId: z.string(), backup: z.string() }))),
  "DELETE /admin/api/tenants/:tenantId/restore": endpoint("cancelRestore", "Cancel a restore that has not begun to replace rows", ok(Restore)),
  "POST /admin/api/tenants/:tenantId/import": endpoint("startImport", "Import rows and documents", accepted(Import), { body: ImportRequest }),
  "DELETE /admin/api/tenants/:tenantId/import": endpoint("cancelImport", "Cancel the running import", ok(Import)),
  "POST /admin/api/tenants/:tenantId/remove": endpoint("removeTenant", "Close a tenant's account, or end its grace period", { 200: Removal, 202: Removal }, { body: RemovalRequest, bodyIsOptional: true, repeat: started }),
  "POST /admin/api/tenants/:tenantId/reactivate": endpoint("reactivateTenant", "Reactivate a tenant that is leaving or suspended", ok(Service), { codes: ["payment_failed", ...stripe, ...object], repeat: "A tenant that is back stays as it is, and is charged once." }),
  "GET /admin/api/tenants/:tenantId/removal": endpoint("showRemoval", "Show how far a removal is", ok(Removal)),

  "GET /admin/api/tenants/:tenantId/impersonations": endpoint("listTenantImpersonations", "List who acts as a tenant's administrator now", ok(listOf("impersonations", Impersonation))),
  "POST /admin/api/tenants/:tenantId/impersonations": endpoint("impersonate", "Act as a tenant's administrator for ten minutes", created(Impersonation.extend({ token: z.string() })), { repeat: "Each credential ends by itself after ten minutes." }),
  "DELETE /admin/api/tenants/:tenantId/impersonations/:impersonationId": endpoint("endImpersonation", "End an impersonation", ok(Impersonation)),

  // the operator: the whole deployment
  "GET /admin/api/sessions": endpoint("listOperatorSessions", "List the operators who are signed in to pages", ok(listOf("sessions", OperatorSessionSummary))),
  "DELETE /admin/api/sessions/:sessionId": endpoint("endOperatorSession", "End an operator's session", ok(z.object({ ended: z.literal(true) }))),
  "GET /admin/api/impersonations": endpoint("listImpersonations", "List who acts as which tenant's administrator now", ok(listOf("impersonations", Impersonation))),
  "POST /admin/api/checkouts": endpoint("createOffer", "Order a plan for a buyer, with a trial if wanted", created(Checkout), { codes: stripe }),
  "GET /admin/api/audit": endpoint("listAudit", "List the audit log, newest first", ok(listOf("events", AuditedEvent))),
  "GET /admin/api/cross-tenant-attempts": endpoint("listCrossings", "List attempts at other tenants' resources by day, the latest first", ok(listOf("crossings", CrossingsOfDay))),
  "GET /admin/api/billing": endpoint("showIndicators", "Show every indicator with its level", ok(z.object({ level: z.string(), at: Instant, indicators: z.array(z.looseObject({ name: z.string(), level: z.string() })) }))),
  "GET /admin/api/metrics": endpoint("showOpenMetrics", "Show the deployment's metrics as OpenMetrics", ok(METRICS)),
  "GET /admin/api/meter-errors": endpoint("listMeterErrors", "List the usage that Stripe's meter refused, by day", ok(listOf("days", MeterErrorDay))),
  "GET /admin/api/root-keys": endpoint("listRootKeys", "List the root keys of CREDENTIAL_KEY and how many API keys need each", ok(listOf("rootKeys", RootKey))),
  "GET /admin/api/shards": endpoint("listShards", "List the shards with their tenants and room", ok(listOf("shards", ListedShard))),
  "POST /admin/api/analytics": endpoint("askQuestion", "Run one SELECT over all tenants' rows", ok(z.object({ rows: z.array(z.object({ shard: z.string(), tenant: z.string().nullable(), row: z.unknown() })), truncated: z.boolean(), shards: z.array(z.looseObject({ id: z.string(), strategy: z.enum(strategies).optional() })) })), { repeat: "It reads only." }),
  "GET /admin/api/dead-letters": endpoint("listDeadLetters", "List usage messages that no ledger took, the oldest first", ok(listOf("deadLetters", DeadLetter.extend({ body: z.unknown() })))),
  "POST /admin/api/dead-letters/replay": endpoint("replayDeadLetters", "Send dead letters to the queue again", ok(z.object({ replayed: Ids, left: z.int() })), { repeat: "The ledger stores each call once." }),
  "POST /admin/api/dead-letters/dismiss": endpoint("dismissDeadLetters", "Dismiss dead letters", ok(z.object({ dismissed: Ids })), { repeat: "A dismissed letter stays dismissed." }),
  "GET /admin/api/usage-conflicts": endpoint("listConflicts", "List calls that reached the ledger with two payloads", ok(listOf("conflicts", Conflict))),
  "POST /admin/api/usage-conflicts/acknowledge": endpoint("acknowledgeConflicts", "Acknowledge such calls", ok(z.object({ acknowledged: Ids })), { repeat: "An acknowledged call stays acknowledged." }),
  "GET /admin/api/stripe-events": endpoint("listStripeEvents", "List Stripe's events that are open, the oldest first", ok(listOf("events", StripeEvent))),
  "POST /admin/api/stripe-events/retry": endpoint("retryStripeEvents", "Apply Stripe's events again", ok(z.object({ retried: Ids, left: z.int() })), { repeat: "Stripe's current object decides, so a second run changes nothing." }),
  "POST /admin/api/stripe-events/dismiss": endpoint("dismissStripeEvents", "Dismiss Stripe's events", ok(z.object({ dismissed: Ids })), { repeat: "A dismissed event stays dismissed." }),
  "GET /admin/api/failures": endpoint("listFailures", "List items of background work that fail, the latest first", ok(listOf("failures", Failure))),
  "POST /admin/api/failures/acknowledge": endpoint("acknowledgeFailures", "End the alarm of failures", ok(z.object({ acknowledged: z.int() })), { repeat: "Only failures that came back are acknowledged again." }),
  "GET /admin/api/migrations": endpoint("listMigrations", "List the runs of migrations, newest first, and the tenants behind", ok(listOf("runs", Run).extend({ shards: z.array(z.looseObject({ shardId: z.string() })), behind: z.array(z.object({ tenantId: z.string(), shardId: z.string(), lacks: z.array(z.string()) })) }))),
  "POST /admin/api/migrations": endpoint("startMigration", "Migrate tenants' own schemas", accepted(Run.extend({ url: z.url() }))),
  "GET /admin/api/migrations/:runId": endpoint("showMigration", "Show a run of migrations", ok(MigrationReport)),
  "POST /admin/api/migrations/:runId/stop": endpoint("stopMigration", "Stop a run after its running schemas", accepted(MigrationReport), { repeat: "A run stops once." }),

  // Stripe and monitors
  "POST /webhooks/stripe": endpoint("receiveStripeEvent", "Receive an event of Stripe's", ok(z.object({ received: z.literal(true), duplicate: z.boolean() })), { body: z.looseObject({ id: z.string(), type: z.string() }), repeat: "An event is stored and applied once." }),
  "POST /webhooks/stripe-thin": endpoint("receiveThinStripeEvent", "Receive a thin event of Stripe's", ok(z.object({ received: z.literal(true), duplicate: z.boolean() })), { body: z.looseObject({ id: z.string(), type: z.string() }), repeat: "An event is stored and applied once." }),
  "GET /health": endpoint("showHealth", "Show whether the deployment or a tenant is well", { 200: Health, 503: Health }),
};

/** The route's name in the audit log: its own, or its operationId, which never changes. */
export function actionOf({ method, path, action }: Route): string {
  return action ?? endpoints[`${method} ${path}`]?.id ?? `${method} ${path}`;
}
