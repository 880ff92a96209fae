// The routes of the operator's pages. A form does what the API's route does, and has its name in the audit log.
import { AnyQuery, type Route, route } from "../../http.ts";
import { showAccess, submitImpersonationEnd, submitSessionEnd } from "./access.tsx";
import {
  beginOperatorSignIn,
  finishOperatorSignIn,
  showOperatorSignIn,
  signOutOperator,
  submitOperatorToken,
} from "./sign-in.tsx";

// oxfmt-ignore
export const operatorRoutes: readonly Route[] = [
  // the sign-in
  route("GET /admin/sign-in", "public", showOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "showOperatorSignIn" }),
  route("POST /admin/sign-in", "public", submitOperatorToken, { readsBody: true, isPage: true, rate: "address", action: "submitOperatorToken" }),
  route("GET /admin/sign-in/issuer", "public", beginOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "beginOperatorSignIn" }),
  route("GET /admin/sign-in/callback", "public", finishOperatorSignIn, { query: AnyQuery, isPage: true, rate: "address", action: "finishOperatorSignIn" }),
  route("POST /admin/sign-out", "public", signOutOperator, { readsBody: true, isPage: true, action: "signOutOperator" }),

  // people
  route("GET /admin/access", "operator", showAccess, { role: "viewer", isPage: true, action: "showAccess" }),
  route("POST /admin/access/sessions/:sessionId/end", "operator", submitSessionEnd, { role: "admin", isPage: true, readsBody: true, action: "endOperatorSession" }),
  route("POST /admin/tenants/:tenantId/impersonations/:impersonationId/end", "operator", submitImpersonationEnd, { role: "support", isPage: true, readsBody: true, action: "endImpersonation" }),
];
