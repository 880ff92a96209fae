// The routes of the pages about plan, settings and data. People read them in every state of the account. A form has the action of
// the API's route.
import { type Route, route } from "../../../http.ts";
import { downloadExport, showData, submitClose, submitReturn } from "./data.tsx";
import { PlanView, showPlanChange, submitPlan } from "./plan-change.tsx";
import { PurchaseView, showPurchase, submitCheckout } from "./plan-purchase.tsx";
import { PlanPageView, showPlan, submitPlanCancel, submitPortal } from "./plan.tsx";
import { showOwnProvider, submitDomains, submitProvider, submitProviderEnd } from "./provider.tsx";
import { showSecrets, submitSecret, submitSecretEnd } from "./secrets.tsx";
import { showSettings, submitAccount, submitSettings, submitWebhookSecret } from "./settings.tsx";

const page = { isPage: true } as const;
const form = { isPage: true, readsBody: true } as const;

// oxfmt-ignore
export const settingsRoutes: readonly Route[] = [
  route("GET /app/:tenantId/plan", "tenant_admin", showPlan, { ...page, query: PlanPageView, action: "showPlan", permission: "account:read" }),
  route("GET /app/:tenantId/plan/change", "tenant_admin", showPlanChange, { ...page, query: PlanView, action: "showPlanChange", permission: "billing:manage" }),
  route("GET /app/:tenantId/plan/buy", "tenant_admin", showPurchase, { ...page, query: PurchaseView, action: "showPurchase", permission: "billing:manage" }),
  route("POST /app/:tenantId/plan", "tenant_admin", submitPlan, { ...form, action: "changeOwnPlan", permission: "billing:manage" }),
  route("POST /app/:tenantId/plan/cancel", "tenant_admin", submitPlanCancel, { ...form, action: "cancelOwnPlanChange", permission: "billing:manage" }),
  route("POST /app/:tenantId/checkout", "tenant_admin", submitCheckout, { ...form, action: "buyPlan", permission: "billing:manage" }),
  route("POST /app/:tenantId/portal", "tenant_admin", submitPortal, { ...form, action: "openPortal", permission: "billing:manage" }),

  route("GET /app/:tenantId/settings", "tenant_admin", showSettings, { ...page, action: "showSettings", permission: "account:read" }),
  route("POST /app/:tenantId/settings", "tenant_admin", submitSettings, { ...form, action: "changeOwnConfiguration", permission: "account:write" }),
  route("POST /app/:tenantId/settings/account", "tenant_admin", submitAccount, { ...form, action: "changeOwnAccount", permission: "account:write" }),
  route("POST /app/:tenantId/settings/secret", "tenant_admin", submitWebhookSecret, { ...form, action: "renewWebhookSecret", permission: "keys:manage" }),

  route("GET /app/:tenantId/secrets", "tenant_admin", showSecrets, { ...page, action: "showSecrets", permission: "secrets:manage" }),
  route("POST /app/:tenantId/secrets/:name", "tenant_admin", submitSecret, { ...form, action: "setOwnSecret", permission: "secrets:manage" }),
  route("POST /app/:tenantId/secrets/:name/remove", "tenant_admin", submitSecretEnd, { ...form, action: "removeOwnSecret", permission: "secrets:manage" }),

  route("GET /app/:tenantId/provider", "tenant_admin", showOwnProvider, { ...page, action: "showProvider", permission: "members:manage" }),
  route("POST /app/:tenantId/provider", "tenant_admin", submitProvider, { ...form, action: "saveOwnProvider", permission: "provider:manage" }),
  route("POST /app/:tenantId/provider/domains", "tenant_admin", submitDomains, { ...form, action: "checkOwnDomains", permission: "provider:manage" }),
  route("POST /app/:tenantId/provider/remove", "tenant_admin", submitProviderEnd, { ...form, action: "removeOwnProvider", permission: "provider:manage" }),

  route("GET /app/:tenantId/data", "tenant_admin", showData, { ...page, action: "showData", permission: "account:read" }),
  route("GET /app/:tenantId/export", "tenant_admin", downloadExport, { ...page, isDownload: true, action: "exportOwnData", permission: "data:export" }),
  route("POST /app/:tenantId/close", "tenant_admin", submitClose, { ...form, action: "removeOwnAccount", permission: "account:remove" }),
  route("POST /app/:tenantId/return", "tenant_admin", submitReturn, { ...form, action: "reactivateOwnAccount", permission: "account:remove" }),
];
