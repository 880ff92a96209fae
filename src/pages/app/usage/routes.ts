// The routes of the pages about usage: the playground, figures, calls, invoices and what they add up from. People read them in every state of the
// account.
import { type Route, route } from "../../../http.ts";
import { CallsView } from "../../usage/calls-view.tsx";
import { UsageView } from "../../usage/usage-figures.ts";
import { InvoicesView, showInvoicePage, showInvoicesPage } from "./invoices.tsx";
import { PlaygroundView, showPlayground, submitCall } from "./playground/playground.tsx";
import { ReportView, ReportsView, showReportPage, showReportsPage } from "./reports.tsx";
import { downloadCalls, downloadUsage, showCallPage, showCallsPage, showUsagePage } from "./usage.tsx";

// oxfmt-ignore
export const usageRoutes: readonly Route[] = [
  route("GET /app/:tenantId/playground", "tenant_admin", showPlayground, { isPage: true, action: "showPlayground", permission: "tools:use", query: PlaygroundView }),
  route("POST /app/:tenantId/playground", "tenant_admin", submitCall, { readsBody: true, isPage: true, action: "callTool", permission: "tools:use" }),
  route("GET /app/:tenantId/usage", "tenant_admin", showUsagePage, { isPage: true, action: "showUsagePage", permission: "usage:read", query: UsageView }),
  route("GET /app/:tenantId/usage.csv", "tenant_admin", downloadUsage, { isPage: true, isDownload: true, action: "downloadUsage", permission: "usage:read", query: UsageView }),
  route("GET /app/:tenantId/calls.csv", "tenant_admin", downloadCalls, { isPage: true, isDownload: true, action: "downloadCalls", permission: "usage:read", query: CallsView }),
  route("GET /app/:tenantId/calls", "tenant_admin", showCallsPage, { isPage: true, action: "showCallsPage", permission: "usage:read", query: CallsView }),
  route("GET /app/:tenantId/calls/:receipt", "tenant_admin", showCallPage, { isPage: true, action: "showCallPage", permission: "usage:read" }),
  route("GET /app/:tenantId/invoices", "tenant_admin", showInvoicesPage, { isPage: true, action: "showInvoicesPage", permission: "billing:manage", query: InvoicesView }),
  route("GET /app/:tenantId/invoices/:invoiceId", "tenant_admin", showInvoicePage, { isPage: true, action: "showInvoicePage", permission: "billing:manage" }),
  route("GET /app/:tenantId/reports", "tenant_admin", showReportsPage, { isPage: true, action: "showReportsPage", permission: "usage:read", query: ReportsView }),
  route("GET /app/:tenantId/reports/:reportId", "tenant_admin", showReportPage, { isPage: true, action: "showReportPage", permission: "usage:read", query: ReportView }),
];
