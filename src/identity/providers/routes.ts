// The routes of tenants' own providers, for the table of all routes.
import { type Route, route } from "../../http.ts";
import { checkDomains, removeProvider, saveProvider, showProvider } from "./api.ts";
import { ProviderRequest } from "./providers.ts";

// oxfmt-ignore
export const providerRoutes: readonly Route[] = [
  route("GET /api/tenants/:tenantId/provider", "tenant_admin", showProvider, { permission: "members:manage" }),
  route("PUT /api/tenants/:tenantId/provider", "tenant_admin", saveProvider, { body: ProviderRequest, permission: "provider:manage" }),
  route("DELETE /api/tenants/:tenantId/provider", "tenant_admin", removeProvider, { permission: "provider:manage" }),
  route("POST /api/tenants/:tenantId/provider/domains", "tenant_admin", checkDomains, { permission: "provider:manage" }),
  route("GET /admin/api/tenants/:tenantId/provider", "operator", showProvider, { role: "viewer" }),
  route("PUT /admin/api/tenants/:tenantId/provider", "operator", saveProvider, { role: "admin", body: ProviderRequest }),
  route("DELETE /admin/api/tenants/:tenantId/provider", "operator", removeProvider, { role: "support" }),
  route("POST /admin/api/tenants/:tenantId/provider/domains", "operator", checkDomains, { role: "support" }),
];
