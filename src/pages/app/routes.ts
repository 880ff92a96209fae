// The routes of a customer's pages.
import { type Route, route } from "../../http.ts";
import { submitOwnEnd } from "./impersonation.tsx";
import { showOrganisations } from "./organisations.tsx";
import { showOverview } from "./overview.tsx";

// oxfmt-ignore
export const accountRoutes: readonly Route[] = [
  route("GET /app", "person", showOrganisations, { isPage: true, action: "showOrganisations" }),
  route("GET /app/:tenantId", "tenant_admin", showOverview, { isPage: true, action: "showOverview", permission: "account:read" }),
  route("POST /app/:tenantId/impersonation/end", "tenant_admin", submitOwnEnd, { isPage: true, readsBody: true, action: "endImpersonation", permission: "account:read" }),
];
