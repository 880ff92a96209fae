// The operator's tables as files: the figures of all tenants over time, and the list of tenants.
import type * as z from "zod";
import { tenantsStore } from "../../control/tenants-store.ts";
import { inDollars } from "../../core/plans/money.ts";
import type { CsvCell } from "../../core/text/csv.ts";
import { BadRequest, type HttpContext } from "../../http.ts";
import { fleetMetricsStore } from "../../metering/metrics/fleet-metrics-store.ts";
import { csvFile } from "../layout/csv-file.ts";
import { type OverviewQuery, rangeAt } from "./overview.tsx";
import { type TenantsPageQuery, glanceIn, monthStart, priceSoFar } from "./tenants/tenants.tsx";

/** GET /admin/figures.csv */
export async function downloadFigures(
  c: HttpContext,
  { query: { range } }: { query: z.infer<typeof OverviewQuery> },
): Promise<Response> {
  const points = await fleetMetricsStore(c.get("context").control).series(rangeAt(range, Date.now()));
  const header = ["start", "calls", "failed", "refused", "units", "tenants"];
  return csvFile(
    `figures-${range}`,
    header,
    points.map(({ at, calls, failed, refused, units, tenants }) => [at, calls, failed, refused, units, tenants]),
  );
}

/** Tenants of one statement, and of the whole file, which is in memory. */
const PAGE = 500;
const MOST = 10_000;

const columns = [
  ...["id", "name", "email", "state", "plan", "strategy", "region", "units_this_month", "calls_this_month"],
  ...["failed_this_month", "refused_this_month", "list_price_dollars", "last_call_at", "created_at"],
];

/** GET /admin/tenants.csv: every tenant that fits the search. */
export async function downloadTenants(
  c: HttpContext,
  { query }: { query: z.infer<typeof TenantsPageQuery> },
): Promise<Response> {
  const { after: _, limit: __, ...search } = query;
  const { control } = c.get("context");
  const rows: CsvCell[][] = [];
  let after: string | null = "";
  while (after !== null) {
    const page: Awaited<ReturnType<ReturnType<typeof tenantsStore>["list"]>> = await tenantsStore(control).list(
      after,
      PAGE,
      search,
    );
    const ids = page.tenants.map(({ id }) => id);
    const glances = await fleetMetricsStore(control).ofTenants(ids, monthStart(Date.now()));
    for (const tenant of page.tenants) {
      const { id, name, email, state, plan, strategy, placement, region, createdAt } = tenant;
      const { units, calls, failed, refused, lastCallAt } = glanceIn(glances, id);
      const price = priceSoFar(tenant, units);
      rows.push([
        ...[id, name, email, state, plan, placement?.strategy ?? strategy, region],
        ...[units, calls, failed, refused, price === undefined ? null : inDollars(price), lastCallAt, createdAt],
      ]);
    }
    after = page.next;
    if (after !== null && rows.length >= MOST)
      throw new BadRequest(`q: more than ${MOST} tenants fit. Narrow the search, and download it in parts`);
  }
  return csvFile("tenants", columns, rows);
}
