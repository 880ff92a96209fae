// The routes of a customer's pages.
import { type Route, route } from "../../http.ts";
import { submitOwnEnd } from "./impersonation.tsx";
import { settingsRoutes } from "./account/routes.ts";
import { fileRoutes } from "./files/routes.ts";
import { raiseLimit, showLimit } from "./limit.tsx";
import { showOrganisations } from "./organisations.tsx";
import { showOverview } from "./overview.tsx";
import { peopleRoutes } from "./people/routes.ts";
import { usageRoutes } from "./usage/routes.ts";

// oxfmt-ignore
export const accountRoutes: readonly Route[] = [
  route("GET /app", "person", showOrganisations, { isPage: true, action: "showOrganisations" }),
  route("GET /app/:tenantId", "tenant_admin", showOverview, { isPage: true, action: "showOverview", permission: "account:read" }),
  route("POST /app/:tenantId/impersonation/end", "tenant_admin", submitOwnEnd, { isPage: true, readsBody: true, action: "endImpersonation", permission: "account:read" }),
  ...peopleRoutes,
  ...settingsRoutes,
  route("GET /app/:tenantId/limit", "tenant_admin", showLimit, { isPage: true, action: "showLimit", permission: "account:read" }),
  route("POST /app/:tenantId/limit", "tenant_admin", raiseLimit, { readsBody: true, isPage: true, action: "raiseLimit", permission: "billing:manage" }),
  ...usageRoutes,
  ...fileRoutes,
];
