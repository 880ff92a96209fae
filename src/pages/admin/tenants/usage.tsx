// A tenant's usage and calls, as the customer sees them. src/pages/usage has their content.
import type { HttpContext } from "../../../http.ts";
import { callView } from "../../usage/call-view.tsx";
import { type CallsView, callOfReceipt, callsView } from "../../usage/calls-view.tsx";
import type { UsageView } from "../../usage/usage-figures.ts";
import { usageView } from "../../usage/usage-view.tsx";
import { operatorPage } from "../operator-page.tsx";
import { TENANTS_PATH, tenantOnPage, tenantPath } from "./acts/act.tsx";
import { TenantTabs } from "./tenant-parts.tsx";

/** GET /admin/tenants/:tenantId/usage */
export async function showTenantUsage(c: HttpContext, { query }: { query: UsageView }): Promise<Response> {
  const { id, name } = tenantOnPage(c);
  const content = await usageView(c, query, tenantPath(id, "/usage"));
  return operatorPage(
    c,
    { title: name, section: TENANTS_PATH, lead: "Calls, units and latency. Days and hours are in UTC." },
    <>
      <TenantTabs tenantId={id} current="/usage" />
      {content}
    </>,
  );
}

/** GET /admin/tenants/:tenantId/calls */
export async function showTenantCalls(c: HttpContext, { query }: { query: CallsView }): Promise<Response> {
  const { id, name } = tenantOnPage(c);
  const path = tenantPath(id, "/calls");
  const found = callOfReceipt(c, query, path);
  if (found !== undefined) return found;
  const content = await callsView(c, query, path);
  return operatorPage(
    c,
    { title: name, section: TENANTS_PATH, lead: "The last calls, the newest first. Times are in UTC." },
    <>
      <TenantTabs tenantId={id} current="/calls" />
      {content}
    </>,
  );
}

/** GET /admin/tenants/:tenantId/calls/:receipt */
export async function showTenantCall(c: HttpContext): Promise<Response> {
  const { id, name } = tenantOnPage(c);
  const content = await callView(c);
  return operatorPage(
    c,
    { title: "Call", section: TENANTS_PATH, lead: <a href={tenantPath(id, "/calls")}>All calls of {name}</a> },
    content,
  );
}
