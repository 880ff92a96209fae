// The routes of the pages about one tenant, and of every act on it.
import { type Route, route } from "../../../http.ts";
import { routesOfAct } from "./acts/act.tsx";
import { dataActs } from "./acts/data.tsx";
import { importActs } from "./acts/import.tsx";
import { restoreActs } from "./acts/restore.tsx";
import { peopleActs } from "./acts/people.tsx";
import { planActs } from "./acts/plan.tsx";
import { stateActs } from "./acts/state.tsx";
import { showConfigurationPage, submitConfiguration } from "./configuration/configuration.tsx";
import { CallsView } from "../../usage/calls-view.tsx";
import { UsageView } from "../../usage/usage-figures.ts";
import { showTenantData } from "./data.tsx";
import { showTenantPeople } from "./people.tsx";
import { showTenantPage } from "./tenant.tsx";
import { TenantsPageQuery, showTenants } from "./tenants.tsx";
import { showTenantCall, showTenantCalls, showTenantUsage } from "./usage.tsx";

// oxfmt-ignore
export const tenantPageRoutes: readonly Route[] = [
  route("GET /admin/tenants", "operator", showTenants, { role: "viewer", query: TenantsPageQuery, isPage: true, action: "showTenants" }),
  route("GET /admin/tenants/:tenantId", "operator", showTenantPage, { role: "viewer", isPage: true, action: "showTenantPage" }),
  route("GET /admin/tenants/:tenantId/usage", "operator", showTenantUsage, { role: "viewer", query: UsageView, isPage: true, action: "showTenantUsage" }),
  route("GET /admin/tenants/:tenantId/calls", "operator", showTenantCalls, { role: "viewer", query: CallsView, isPage: true, action: "showTenantCalls" }),
  route("GET /admin/tenants/:tenantId/calls/:receipt", "operator", showTenantCall, { role: "viewer", isPage: true, action: "showTenantCall" }),
  route("GET /admin/tenants/:tenantId/configuration", "operator", showConfigurationPage, { role: "viewer", isPage: true, action: "showConfigurationPage" }),
  route("POST /admin/tenants/:tenantId/configuration", "operator", submitConfiguration, { role: "support", isPage: true, readsBody: true, action: "changeConfiguration" }),
  route("GET /admin/tenants/:tenantId/data", "operator", showTenantData, { role: "viewer", isPage: true, action: "showTenantData" }),
  route("GET /admin/tenants/:tenantId/people", "operator", showTenantPeople, { role: "viewer", isPage: true, action: "showTenantPeople" }),
  ...[...stateActs, ...planActs, ...dataActs, ...restoreActs, ...importActs, ...peopleActs].flatMap(routesOfAct),
];
