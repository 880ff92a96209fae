// The figures of a page of usage, in one round trip: over time, by group, of the ledger, and of the time before.
import * as z from "zod";
import { joinBatches } from "../../adapters/neon.ts";
import { tenantsStore } from "../../control/tenants-store.ts";
import { callEnds } from "../../core/call.ts";
import { DAY_MS, HOUR_MS } from "../../core/time.ts";
import { type HttpContext, noSuchTenant, tenantOf } from "../../http.ts";
import { periodOf, usageOf } from "../../metering/api.ts";
import { type MetricsQuery, metricsOf } from "../../metering/metrics/api.ts";
import { metricGroups } from "../../metering/metrics/metrics-store.ts";
import type { Period } from "../../metering/invoice.ts";
import { storedBy } from "./limits.tsx";
import { LAST_DAY, periodBefore, presets, shownRange } from "./shown-range.ts";

const Name = z.string().min(1).max(90).optional();

export const UsageView = z.strictObject({
  /** Days in UTC, both included. */
  from: z.iso.date().optional(),
  to: z.iso.date().optional(),
  /** Instead of days. */
  last: z.literal(LAST_DAY).optional(),
  by: z.enum(metricGroups).default("tool"),
  tool: Name,
  caller: Name,
  outcome: z.enum(callEnds).optional(),
  /** Of a file: the rows of the chart or of the table. */
  rows: z.enum(["time", "groups"]).optional(),
});
export type UsageView = z.infer<typeof UsageView>;

/** Rows of the table. An account has few tools and some dozens of callers. */
const MOST_ROWS = 500;
/** The page shows the ledger's sums, and not their reports. */
const NO_REPORTS = { after: null, limit: 0 };

/** The figures of the path's tenant. */
export async function usageFigures(c: HttpContext, query: UsageView) {
  const tenantId = tenantOf(c);
  const nowMs = Date.now();
  const shown = shownRange(query, nowMs);
  const { period, step } = shown;
  // Refuses a range that is longer than the ledger sums.
  periodOf({ from: shown.from, to: shown.to });
  const before = periodBefore(period, nowMs);
  const { by, tool, caller, outcome } = query;
  const filters = { tool, caller, outcome };
  const filter = (of: Period): Omit<MetricsQuery, "step" | "limit"> => ({
    ...{ from: new Date(of.startMs).toISOString(), to: new Date(of.endMs).toISOString() },
    ...{ ...filters, after: "" },
  });
  const steps = Math.ceil((period.endMs - period.startMs) / (step === "hour" ? HOUR_MS : DAY_MS));
  const control = joinBatches(c.get("context").control);
  const [overTime, grouped, ledger, metricsBefore, ledgerBefore, tenant, stored] = await Promise.all([
    metricsOf(control, tenantId, { ...filter(period), step, limit: steps + 1 }),
    metricsOf(control, tenantId, { ...filter(period), step: "total", by, limit: MOST_ROWS }),
    usageOf(control, tenantId, period, NO_REPORTS),
    metricsOf(control, tenantId, { ...filter(before), step: "total", limit: 1 }),
    usageOf(control, tenantId, before, NO_REPORTS),
    c.get("tenant") ?? tenantsStore(control).config(tenantId),
    storedBy(c),
  ]);
  if (ledger === undefined || tenant === undefined) throw noSuchTenant();
  const isFiltered = Object.values(filters).some((value) => value !== undefined);
  return {
    ...{ shown, before, filters, isFiltered, overTime, grouped, ledger, stored },
    ...{ metricsBefore, ledgerBefore, presets: presets(tenant.billing, nowMs) },
  };
}
