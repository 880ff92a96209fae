// The routes of the operator's pages. A form does what the API's route does, and has its name in the audit log.
import { AnyQuery, type Route, route } from "../../http.ts";
import { showAccess, submitImpersonationEnd, submitSessionEnd } from "./access.tsx";
import { AuditPageQuery, showAudit } from "./audit.tsx";
import { downloadFigures, downloadTenants } from "./csv.ts";
import { ConflictsPageQuery, acknowledgeConflict, showConflicts } from "./money/conflicts.tsx";
import {
  LettersPageQuery,
  dismissLetter,
  replayAllLetters,
  replayLetter,
  showDeadLetters,
} from "./money/dead-letters.tsx";
import { showPipeline } from "./money/pipeline.tsx";
import { showReconciliation } from "./money/reconciliation.tsx";
import { EventsPageQuery, dismissEvent, retryAllEvents, retryEvent, showStripeEvents } from "./money/stripe-events.tsx";
import { OverviewQuery, showFleet } from "./overview.tsx";
import { TenantsPageQuery } from "./tenants/tenants.tsx";
import { tenantPageRoutes } from "./tenants/routes.ts";
import { FailuresPageQuery, acknowledgeFailure, showFailures } from "./work/failures.tsx";
import { showMigrations, startRun, stopRun } from "./work/migrations.tsx";
import { ProvisioningPageQuery, showProvisioning } from "./work/provisioning.tsx";
import { showWork } from "./work/work.tsx";
import {
  beginOperatorSignIn,
  finishOperatorSignIn,
  showOperatorSignIn,
  signOutOperator,
  submitOperatorToken,
} from "./sign-in.tsx";

/** What is done to items of lists. */
const itemActs = [
  ...[retryEvent, retryAllEvents, dismissEvent, replayLetter, replayAllLetters, dismissLetter, acknowledgeConflict],
  ...[acknowledgeFailure, startRun, stopRun],
];

// oxfmt-ignore
export const operatorRoutes: readonly Route[] = [
  // the sign-in
  route("GET /admin/sign-in", "public", showOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "showOperatorSignIn" }),
  route("POST /admin/sign-in", "public", submitOperatorToken, { readsBody: true, isPage: true, rate: "address", action: "submitOperatorToken" }),
  route("GET /admin/sign-in/issuer", "public", beginOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "beginOperatorSignIn" }),
  route("GET /admin/sign-in/callback", "public", finishOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "finishOperatorSignIn" }),
  route("POST /admin/sign-out", "public", signOutOperator, { readsBody: true, isPage: true, action: "signOutOperator" }),

  // the deployment
  route("GET /admin", "operator", showFleet, { role: "viewer", query: OverviewQuery, isPage: true, action: "showFleet" }),
  route("GET /admin/figures.csv", "operator", downloadFigures, { role: "viewer", query: OverviewQuery, isPage: true, isDownload: true, action: "downloadFigures" }),
  route("GET /admin/provisioning", "operator", showProvisioning, { role: "viewer", query: ProvisioningPageQuery, isPage: true, action: "showProvisioning" }),
  route("GET /admin/billing", "operator", showPipeline, { role: "viewer", isPage: true, action: "showPipeline" }),
  route("GET /admin/stripe-events", "operator", showStripeEvents, { role: "viewer", query: EventsPageQuery, isPage: true, action: "showStripeEvents" }),
  route("GET /admin/dead-letters", "operator", showDeadLetters, { role: "viewer", query: LettersPageQuery, isPage: true, action: "showDeadLetters" }),
  route("GET /admin/conflicts", "operator", showConflicts, { role: "viewer", query: ConflictsPageQuery, isPage: true, action: "showConflicts" }),
  route("GET /admin/reconciliation", "operator", showReconciliation, { role: "viewer", isPage: true, action: "showReconciliation" }),
  route("GET /admin/failures", "operator", showFailures, { role: "viewer", query: FailuresPageQuery, isPage: true, action: "showFailures" }),
  route("GET /admin/work", "operator", showWork, { role: "viewer", isPage: true, action: "showWork" }),
  route("GET /admin/migrations", "operator", showMigrations, { role: "viewer", isPage: true, action: "showMigrations" }),
  route("GET /admin/audit", "operator", showAudit, { role: "viewer", query: AuditPageQuery, isPage: true, action: "showAudit" }),
  ...itemActs.flatMap(({ routes }) => routes),

  // tenants
  route("GET /admin/tenants.csv", "operator", downloadTenants, { role: "viewer", query: TenantsPageQuery, isPage: true, isDownload: true, action: "downloadTenants" }),
  ...tenantPageRoutes,

  // people
  route("GET /admin/access", "operator", showAccess, { role: "viewer", isPage: true, action: "showAccess" }),
  route("POST /admin/access/sessions/:sessionId/end", "operator", submitSessionEnd, { role: "admin", isPage: true, readsBody: true, action: "endOperatorSession" }),
  route("POST /admin/tenants/:tenantId/impersonations/:impersonationId/end", "operator", submitImpersonationEnd, { role: "support", isPage: true, readsBody: true, action: "endImpersonation" }),
];
