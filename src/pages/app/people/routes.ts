// The routes of the pages about keys, members, connected agents and the audit log. A form has the action of the API's route.
import { PageQuery, type Route, route } from "../../../http.ts";
import { KeysQuery } from "../../../identity/keys/api.ts";
import { GrantsQuery } from "../../../identity/oauth/api.ts";
import { showAccess, submitLeave } from "./access.tsx";
import { AuditSearch, showAudit } from "./audit.tsx";
import { showAgents, showSessions, submitGrantEnd, submitSessionEnd } from "./connections.tsx";
import { showInvite, submitInvite } from "./invitations.tsx";
import { showKey, submitKey, submitKeyEnd, submitRotation } from "./keys/key.tsx";
import { showKeys } from "./keys/keys.tsx";
import { showMembers, submitInvitationEnd, submitRemoval, submitRole } from "./members.tsx";
import { showNewKey, submitNewKey } from "./keys/new-key.tsx";

const page = { isPage: true } as const;
const form = { isPage: true, readsBody: true } as const;

// oxfmt-ignore
export const peopleRoutes: readonly Route[] = [
  route("GET /app/:tenantId/keys", "tenant_admin", showKeys, { ...page, query: KeysQuery, action: "showKeys", permission: "keys:manage" }),
  route("POST /app/:tenantId/keys", "tenant_admin", submitNewKey, { ...form, action: "createFirstKey", permission: "keys:manage" }),
  route("GET /app/:tenantId/keys/new", "tenant_admin", showNewKey, { ...page, action: "showNewKey", permission: "keys:manage" }),
  route("GET /app/:tenantId/keys/:keyId", "tenant_admin", showKey, { ...page, action: "showKey", permission: "keys:manage" }),
  route("POST /app/:tenantId/keys/:keyId", "tenant_admin", submitKey, { ...form, action: "changeOwnKey", permission: "keys:manage" }),
  route("POST /app/:tenantId/keys/:keyId/rotate", "tenant_admin", submitRotation, { ...form, action: "rotateOwnKey", permission: "keys:manage" }),
  route("POST /app/:tenantId/keys/:keyId/revoke", "tenant_admin", submitKeyEnd, { ...form, action: "revokeOwnKey", permission: "keys:manage" }),

  route("GET /app/:tenantId/members", "tenant_admin", showMembers, { ...page, action: "showMembers", permission: "members:read" }),
  route("GET /app/:tenantId/members/invite", "tenant_admin", showInvite, { ...page, action: "showInvite", permission: "members:manage" }),
  route("POST /app/:tenantId/members/:memberId", "tenant_admin", submitRole, { ...form, action: "changeOwnMemberRole", permission: "members:manage" }),
  route("POST /app/:tenantId/members/:memberId/remove", "tenant_admin", submitRemoval, { ...form, action: "removeOwnMember", permission: "members:manage" }),
  route("POST /app/:tenantId/invitations", "tenant_admin", submitInvite, { ...form, action: "createInvitation", permission: "members:manage" }),
  route("POST /app/:tenantId/invitations/:invitationId/revoke", "tenant_admin", submitInvitationEnd, { ...form, action: "revokeInvitation", permission: "members:manage" }),
  route("GET /app/:tenantId/access", "tenant_admin", showAccess, { ...page, action: "showAccess", permission: "membership:leave" }),
  route("POST /app/:tenantId/leave", "tenant_admin", submitLeave, { ...form, action: "leaveTenant", permission: "membership:leave" }),

  route("GET /app/:tenantId/agents", "tenant_admin", showAgents, { ...page, query: GrantsQuery, action: "showAgents", permission: "members:read" }),
  route("POST /app/:tenantId/agents/:grantId/revoke", "tenant_admin", submitGrantEnd, { ...form, action: "revokeOwnGrant", permission: "members:manage" }),
  route("GET /app/:tenantId/sessions", "tenant_admin", showSessions, { ...page, query: PageQuery, action: "showSessions", permission: "members:read" }),
  route("POST /app/:tenantId/sessions/:sessionId/end", "tenant_admin", submitSessionEnd, { ...form, action: "endOwnSession", permission: "members:manage" }),
  route("GET /app/:tenantId/audit", "tenant_admin", showAudit, { ...page, query: AuditSearch, action: "showAudit", permission: "audit:read" }),
];
