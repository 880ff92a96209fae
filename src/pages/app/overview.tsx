// The first page of an account: whether agents are served, how much of its limits it uses now, and what was called.
import type { FC } from "hono/jsx";
import { joinBatches } from "../../adapters/neon.ts";
import { spendWindow } from "../../core/plans/money.ts";
import { planOf } from "../../core/plans/plans.ts";
import type { TenantConfig } from "../../core/tenant/tenant.ts";
import { type HttpContext, noSuchTenant } from "../../http.ts";
import { usageOf } from "../../metering/api.ts";
import { type Period, dayOf, daysOf, monthOf } from "../../metering/invoice.ts";
import { callsOf, quotaOf } from "../../metering/metrics/api.ts";
import { metricsStore } from "../../metering/metrics/metrics-store.ts";
import { pagePart, wantsPart } from "../layout/layout.tsx";
import { Chart, labelOf } from "../parts/chart.tsx";
import { ClientSetup } from "../parts/client-setup.tsx";
import { Copyable } from "../parts/code.tsx";
import { Instant, count, units } from "../parts/figures.tsx";
import { planPrice, planTitle } from "../parts/plan.tsx";
import { accountPage, accountPath, may, tenantFor } from "./account-page.tsx";
import { CallTable } from "../usage/calls-view.tsx";
import { CostFigures } from "./usage/cost.tsx";
import { Limits } from "../usage/limits.tsx";

/** Without script. */
const RELOAD_SECONDS = 60;
/** Last calls below the chart. */
const CALLS = 6;

/** GET /app/:tenantId. A part of it, for htmx: the use of the limits. */
export async function showOverview(c: HttpContext): Promise<Response> {
  const tenant = await tenantFor(c);
  const path = accountPath(c);
  if (wantsPart(c)) return pagePart(c, <Limits path={path} quota={await quotaOf(c, tenant)} />);
  const nowMs = Date.now();
  const window = spendWindow(tenant, nowMs);
  // What is shown by day: what the next invoice bills, or what the month's limit counts.
  const { startMs, endMs } = window ?? monthOf(dayOf(nowMs).slice(0, 7));
  const period = { startMs, endMs };
  const control = joinBatches(c.get("context").control);
  const [quota, ledger, last, names] = await Promise.all([
    quotaOf(c, tenant),
    usageOf(control, tenant.id, period, { after: null, limit: 0 }),
    callsOf(c, { after: "", limit: CALLS }, control),
    metricsStore(control).callerNames(tenant.id),
  ]);
  if (ledger === undefined) throw noSuchTenant();
  const hasCalls = last.calls.length > 0 || ledger.total.calls > 0;
  const mcpUrl = `${c.env.PUBLIC_URL}/mcp`;
  return accountPage(
    c,
    {
      ...{ title: "Overview", section: "", lead: "Times are in UTC." },
      scripts: "live",
      reloadSeconds: RELOAD_SECONDS,
    },
    <>
      <Limits path={path} quota={quota} />
      {window !== undefined && (
        <CostFigures
          baseCents={tenant.state === "trial" ? 0 : (planOf(tenant.plan).amountCents ?? 0)}
          {...{ window, used: ledger.total.units, nowMs }}
        />
      )}
      <div class="split">
        <div class="card">
          {hasCalls ? (
            <UnitsChart ledger={ledger} period={period} nowMs={nowMs} />
          ) : (
            <>
              <h3>Connect your first agent</h3>
              <p class="muted">Members sign in from their client. Calls appear here within seconds.</p>
              <ClientSetup mcpUrl={mcpUrl} />
            </>
          )}
        </div>
        <PlanCard tenant={tenant} period={period} mcpUrl={mcpUrl} />
      </div>
      {hasCalls && (
        <>
          <h2>Last calls</h2>
          <CallTable calls={last.calls} names={names} path={`${path}/calls`} />
          {may(c, "usage:read") && (
            <a class="button" href={`${path}/calls`}>
              All calls
            </a>
          )}
        </>
      )}
    </>,
  );
}

type Ledger = NonNullable<Awaited<ReturnType<typeof usageOf>>>;

const UnitsChart: FC<{ ledger: Ledger; period: Period; nowMs: number }> = ({ ledger, period, nowMs }) => {
  const byDay = new Map(ledger.days.map(({ day, units: used }) => [day, used]));
  const days = daysOf({ ...period, startMs: Date.parse(dayOf(period.startMs)) });
  const values = days.map(({ startMs }) => (startMs > nowMs ? null : (byDay.get(dayOf(startMs)) ?? 0)));
  return (
    <Chart
      id="units"
      title="Units by day"
      kind="bars"
      axis="Day (UTC)"
      points={days.map(({ startMs }) => labelOf(startMs, "day"))}
      series={[{ name: "This period", tone: 1, values }]}
      format={count}
      description={`${units(ledger.total.units)} of ${count(ledger.total.calls)} calls of this period.`}
    />
  );
};

const PlanCard: FC<{ tenant: TenantConfig; period: Period; mcpUrl: string }> = ({ tenant, period, mcpUrl }) => {
  const plan = planOf(tenant.plan);
  return (
    <div class="card">
      <h3>{planTitle(plan.name)}</h3>
      <dl class="facts">
        <dt>Price</dt>
        <dd>
          {planPrice(plan)}
          {plan.amountCents !== null && plan.amountCents > 0 && " a month"}
        </dd>
        {plan.includedUnits !== null && (
          <>
            <dt>Included</dt>
            <dd>{units(plan.includedUnits)} a month</dd>
          </>
        )}
        <dt>Period ends</dt>
        <dd>
          <Instant at={period.endMs} />
        </dd>
      </dl>
      <Copyable text={mcpUrl} caption="MCP endpoint" />
    </div>
  );
};
