// Every tenant at a glance: what it is, and what it did and is worth this month.
import type * as z from "zod";
import { joinBatches } from "../../../adapters/neon.ts";
import { type TenantSummary, tenantsStore } from "../../../control/tenants-store.ts";
import { type Cents, costOf } from "../../../core/plans/money.ts";
import { planNames, planOf, strategies } from "../../../core/plans/plans.ts";
import { type TenantState, tenantStates } from "../../../core/tenant/tenant.ts";
import { type HttpContext, pageQuery } from "../../../http.ts";
import { dayOf, monthOf } from "../../../metering/invoice.ts";
import { type TenantGlance, fleetMetricsStore } from "../../../metering/metrics/fleet-metrics-store.ts";
import { TenantsQuery } from "../../../operations/admin-api.ts";
import { orBlank } from "../../layout/form-body.ts";
import { Instant, count, dollars } from "../../parts/figures.tsx";
import { Badge, Empty, type Tone } from "../../parts/notice.tsx";
import { planTitle } from "../../parts/plan.tsx";
import { NextPage, Table } from "../../parts/table.tsx";
import { operatorPage } from "../operator-page.tsx";
import { TENANTS_PATH, tenantPath } from "./acts/act.tsx";

const { q, state, plan, strategy } = TenantsQuery.shape;
export const TenantsPageQuery = pageQuery(50).extend({
  ...{ q: orBlank(q), state: orBlank(state), plan: orBlank(plan), strategy: orBlank(strategy) },
});

const tones: Readonly<Record<TenantState, Tone>> = {
  ...{ provisioning: "accent", trial: "accent", active: "good", past_due: "warn", suspended: "bad" },
  ...{ leaving: "warn", gone: "neutral" },
};

export const StateBadge = ({ state: of }: { state: TenantState }) => (
  <Badge tone={tones[of]}>{of.replaceAll("_", " ")}</Badge>
);

/** The start of the calendar month (UTC). */
export function monthStart(nowMs: number): number {
  return monthOf(dayOf(nowMs).slice(0, 7)).startMs;
}

/** The list price of the calendar month so far; `undefined` where Stripe bills nothing, or by contract. */
export function priceSoFar(
  { plan: name, stripeSubscriptionId }: Pick<TenantSummary, "plan" | "stripeSubscriptionId">,
  units: number,
): Cents | undefined {
  const { amountCents, unitAmountCents, includedUnits } = planOf(name);
  if (stripeSubscriptionId === null || amountCents === null) return undefined;
  const beyond = unitAmountCents === null ? 0 : Math.max(0, units - (includedUnits ?? 0));
  const { digits, scale } = costOf(beyond, unitAmountCents ?? "0");
  return { digits: digits + BigInt(amountCents) * 10n ** BigInt(scale), scale };
}

/** The share of calls that failed, as text. */
export function failedShare({ calls, failed }: { calls: number; failed: number }): string {
  if (calls === 0) return "–";
  const percent = (failed / calls) * 100;
  return `${percent === 0 ? "0" : percent < 0.1 ? "<0.1" : percent.toFixed(1)} %`;
}

type Glance = Omit<TenantGlance, "tenantId">;

/** What a tenant did this month. */
export function glanceIn(glances: ReadonlyMap<string, TenantGlance>, tenantId: string): Glance {
  return glances.get(tenantId) ?? { calls: 0, units: 0, failed: 0, refused: 0, lastCallAt: null };
}

/** GET /admin/tenants */
export async function showTenants(
  c: HttpContext,
  { query }: { query: z.infer<typeof TenantsPageQuery> },
): Promise<Response> {
  const { after, limit, ...search } = query;
  const control = joinBatches(c.get("context").control);
  const { tenants, next } = await tenantsStore(control).list(after, limit, search);
  const glances = await fleetMetricsStore(control).ofTenants(
    tenants.map(({ id }) => id),
    monthStart(Date.now()),
  );
  const glanceOf = ({ id }: TenantSummary): Glance => glanceIn(glances, id);
  const isSearch = Object.values(search).some((value) => value !== undefined);
  const params = new URLSearchParams(
    Object.entries(search).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
  return operatorPage(
    c,
    {
      ...{ title: "Tenants", section: TENANTS_PATH },
      lead: "Units, errors and list price of the calendar month so far. All times in UTC.",
      actions: (
        <a class="button" href={`${TENANTS_PATH}.csv${params.size === 0 ? "" : `?${params.toString()}`}`} download="">
          Download CSV
        </a>
      ),
    },
    <>
      <Filters search={search} />
      <Table
        caption="Tenants"
        hidesCaption
        rows={tenants}
        empty={
          isSearch ? (
            <Empty title="No tenant fits">
              <a href={TENANTS_PATH}>Show all tenants</a>
            </Empty>
          ) : (
            <Empty title="There is no tenant yet">A sign-up at the public site makes one.</Empty>
          )
        }
        columns={[
          {
            head: "Tenant",
            isHead: true,
            cell: ({ id, name, email }) => (
              <a class="entry" href={tenantPath(id)}>
                <strong>{name}</strong>
                <small>{email ?? id}</small>
              </a>
            ),
          },
          { head: "State", cell: (tenant) => <StateBadge state={tenant.state} /> },
          { head: "Plan", cell: (tenant) => planTitle(tenant.plan) },
          { head: "Tier", cell: ({ placement, strategy: sold }) => placement?.strategy ?? sold },
          { head: "Units", isNumber: true, cell: (tenant) => count(glanceOf(tenant).units) },
          {
            head: "Errors",
            isNumber: true,
            cell: (tenant) => (
              <span class={glanceOf(tenant).failed > 0 ? "" : "muted"}>{failedShare(glanceOf(tenant))}</span>
            ),
          },
          {
            head: "Revenue",
            isNumber: true,
            cell: (tenant) => {
              const price = priceSoFar(tenant, glanceOf(tenant).units);
              return price === undefined ? <span class="muted">–</span> : dollars(price);
            },
          },
          {
            head: "Last call",
            cell: (tenant) => {
              const { lastCallAt } = glanceOf(tenant);
              return lastCallAt === null ? <span class="muted">never</span> : <Instant at={lastCallAt} />;
            },
          },
        ]}
      />
      <NextPage url={`${TENANTS_PATH}${params.size === 0 ? "" : `?${params.toString()}`}`} next={next} />
    </>,
  );
}

const any = { value: "", text: "Any" };

const Filters = ({ search }: { search: Partial<Record<"q" | "state" | "plan" | "strategy", string | undefined>> }) => (
  <form method="get" action={TENANTS_PATH} class="search" role="search">
    <label class="field">
      <span>Name, e-mail or id</span>
      <input type="search" name="q" value={search.q} maxlength={100} />
    </label>
    <Choice label="State" name="state" value={search.state} options={tenantStates} />
    <Choice label="Plan" name="plan" value={search.plan} options={planNames} />
    <Choice label="Isolation" name="strategy" value={search.strategy} options={strategies} />
    <p class="actions">
      <button>Search</button>
    </p>
  </form>
);

interface ChoiceProps {
  label: string;
  name: string;
  value: string | undefined;
  options: readonly string[];
}

/** A filter with a choice of words, or any. */
export const Choice = ({ label, name, value, options }: ChoiceProps) => (
  <label class="field">
    <span>{label}</span>
    <select name={name}>
      {[any, ...options.map((option) => ({ value: option, text: option.replaceAll("_", " ") }))].map((option) => (
        <option value={option.value} selected={option.value === (value ?? "")}>
          {option.text}
        </option>
      ))}
    </select>
  </label>
);
