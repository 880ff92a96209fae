// The routes for the operator's people: who acts for a tenant, and who is signed in to pages.
import { PageQuery, type Route, route } from "../../http.ts";
import { endImpersonation, endOperatorSession, impersonate, listImpersonations, listOperatorSessions } from "./api.ts";
import { ImpersonationRequest } from "./impersonation.ts";

// oxfmt-ignore
export const peopleRoutes: readonly Route[] = [
  route("GET /admin/api/tenants/:tenantId/impersonations", "operator", listImpersonations, { role: "viewer", query: PageQuery }),
  route("POST /admin/api/tenants/:tenantId/impersonations", "operator", impersonate, { role: "support", body: ImpersonationRequest }),
  route("DELETE /admin/api/tenants/:tenantId/impersonations/:impersonationId", "operator", endImpersonation, { role: "support" }),
  route("GET /admin/api/impersonations", "operator", listImpersonations, { role: "viewer", query: PageQuery }),
  route("GET /admin/api/sessions", "operator", listOperatorSessions, { role: "viewer", query: PageQuery }),
  route("DELETE /admin/api/sessions/:sessionId", "operator", endOperatorSession, { role: "admin" }),
];
