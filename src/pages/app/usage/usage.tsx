// A customer's usage and calls. src/pages/usage has their content, which the operator's pages about a tenant show, too.
import type { HttpContext } from "../../../http.ts";
import { callView } from "../../usage/call-view.tsx";
import { type CallsView, callOfReceipt, callsView } from "../../usage/calls-view.tsx";
import type { UsageView } from "../../usage/usage-figures.ts";
import { callsCsv, usageCsv } from "../../usage/usage-csv.ts";
import { usageView } from "../../usage/usage-view.tsx";
import { accountPage, accountPath } from "../account-page.tsx";

/** GET /app/:tenantId/usage */
export async function showUsagePage(c: HttpContext, { query }: { query: UsageView }): Promise<Response> {
  return accountPage(
    c,
    { title: "Usage", section: "/usage", lead: "Calls, units and latency. Days and hours are in UTC." },
    await usageView(c, query, accountPath(c, "/usage"), accountPath(c, "/usage.csv")),
  );
}

/** GET /app/:tenantId/usage.csv */
export function downloadUsage(c: HttpContext, { query }: { query: UsageView }): Promise<Response> {
  return usageCsv(c, query);
}

/** GET /app/:tenantId/calls.csv */
export function downloadCalls(c: HttpContext, { query }: { query: CallsView }): Promise<Response> {
  return callsCsv(c, query);
}

/** GET /app/:tenantId/calls */
export async function showCallsPage(c: HttpContext, { query }: { query: CallsView }): Promise<Response> {
  const path = accountPath(c, "/calls");
  const found = callOfReceipt(c, query, path);
  if (found !== undefined) return found;
  return accountPage(
    c,
    { title: "Calls", section: "/calls", lead: "The last calls of your agents, the newest first. Times are in UTC." },
    await callsView(c, query, path, accountPath(c, "/calls.csv")),
  );
}

/** GET /app/:tenantId/calls/:receipt */
export async function showCallPage(c: HttpContext): Promise<Response> {
  return accountPage(
    c,
    {
      ...{ title: "Call", section: "/calls", scripts: "own" },
      lead: <a href={accountPath(c, "/calls")}>All calls</a>,
    },
    await callView(c, accountPath(c, "/reports")),
  );
}
