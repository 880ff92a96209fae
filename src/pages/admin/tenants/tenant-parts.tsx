// Parts of the pages about one tenant: the tabs, what it is, and how it was set up.
import type { FC } from "hono/jsx";
import type { TenantSummary } from "../../../control/tenants-store.ts";
import type { StepRecord } from "../../../lifecycle/provisioning-store.ts";
import { provisioningSteps } from "../../../lifecycle/provisioning.ts";
import { Instant } from "../../parts/figures.tsx";
import { Badge } from "../../parts/notice.tsx";
import { planTitle } from "../../parts/plan.tsx";
import { Steps } from "../../parts/steps.tsx";
import { tenantPath } from "./acts/act.tsx";

const tabs = [
  { path: "", text: "Overview" },
  { path: "/usage", text: "Usage" },
  { path: "/calls", text: "Calls" },
  { path: "/configuration", text: "Configuration" },
  { path: "/data", text: "Data and jobs" },
  { path: "/people", text: "Keys and people" },
] as const;

/** The parts of a tenant, and its lines of the audit log. */
export const TenantTabs: FC<{ tenantId: string; current: (typeof tabs)[number]["path"] }> = ({ tenantId, current }) => (
  <nav class="tabs" aria-label="Parts of the tenant">
    {tabs.map(({ path, text }) => (
      <a href={tenantPath(tenantId, path)} aria-current={path === current ? "page" : undefined}>
        {text}
      </a>
    ))}
    <a href={`/admin/audit?tenant=${tenantId}`}>Audit log</a>
  </nav>
);

export const Facts: FC<{ tenant: TenantSummary; lastCallAt: string | null }> = ({ tenant, lastCallAt }) => (
  <dl class="facts">
    <dt>Plan</dt>
    <dd>{planTitle(tenant.plan)}</dd>
    <dt>Rows</dt>
    <dd>
      {tenant.placement === null
        ? `not placed; sold as ${tenant.strategy}`
        : `${tenant.placement.strategy} on ${tenant.placement.shardId}`}
      {tenant.placement !== null && tenant.placement.strategy !== tenant.strategy && (
        <Badge tone="warn">sold as {tenant.strategy}</Badge>
      )}
    </dd>
    <dt>Region</dt>
    <dd>{tenant.region ?? "any"}</dd>
    <dt>Stripe</dt>
    <dd>{tenant.stripeCustomerId === null ? "no customer" : <code>{tenant.stripeCustomerId}</code>}</dd>
    {tenant.trialUntil !== null && (
      <>
        <dt>Trial until</dt>
        <dd>
          <Instant at={tenant.trialUntil} />
        </dd>
      </>
    )}
    <dt>Since</dt>
    <dd>
      <Instant at={tenant.createdAt} />
    </dd>
    <dt>Last call</dt>
    <dd>{lastCallAt === null ? "never" : <Instant at={lastCallAt} />}</dd>
    <dt>Version</dt>
    <dd>
      {tenant.version}
      {tenant.deliveredVersion < tenant.version && <Badge tone="warn">its object has {tenant.deliveredVersion}</Badge>}
    </dd>
  </dl>
);

export const SetUp: FC<{ steps: readonly StepRecord[] }> = ({ steps }) => {
  const recorded = new Map(steps.map((record) => [record.step, record]));
  return (
    <Steps
      steps={provisioningSteps.map(({ name, title }) => {
        const record = recorded.get(name);
        if (record === undefined) return { title, status: "pending" };
        if (record.finishedAt !== null) return { title, status: "done" };
        return { title, status: record.error === null ? "running" : "retrying", note: record.reason ?? record.error };
      })}
    />
  );
};
