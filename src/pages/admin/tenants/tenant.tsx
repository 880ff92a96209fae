// One tenant in depth: its state, what it uses, its plan, how it was set up, and every act on it.
import { type HttpContext, tenantOf } from "../../../http.ts";
import { fleetMetricsStore } from "../../../metering/metrics/fleet-metrics-store.ts";
import { readTenant } from "../../../operations/admin-api.ts";
import { operatorConfiguration } from "../../../operations/configuration-api.ts";
import { subscriptionsStore } from "../../../subscriptions/subscriptions-store.ts";
import { joinBatches } from "../../../adapters/neon.ts";
import { Figure, Instant, count, dollars, units } from "../../parts/figures.tsx";
import { Badge, Notice } from "../../parts/notice.tsx";
import { planTitle } from "../../parts/plan.tsx";
import { Table } from "../../parts/table.tsx";
import { operatorPage, permits } from "../operator-page.tsx";
import { ActLink, TENANTS_PATH, tenantPath } from "./acts/act.tsx";
import { cancelPlan, plan } from "./acts/plan.tsx";
import {
  account,
  dropNow,
  impersonation,
  monitorToken,
  reactivate,
  remove,
  resume,
  suspend,
  trial,
} from "./acts/state.tsx";
import { LimitFacts } from "./configuration/parts.tsx";
import { Facts, SetUp, TenantTabs } from "./tenant-parts.tsx";
import { StateBadge, failedShare, glanceIn, monthStart, priceSoFar } from "./tenants.tsx";

/** GET /admin/tenants/:tenantId */
export async function showTenantPage(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const control = joinBatches(context.control);
  const [tenant, glances, changes, configuration] = await Promise.all([
    readTenant({ ...context, control }, tenantId),
    fleetMetricsStore(control).ofTenants([tenantId], monthStart(Date.now())),
    subscriptionsStore(control).changes(tenantId, { limit: 5 }),
    operatorConfiguration(c, control),
  ]);
  const glance = glanceIn(glances, tenantId);
  const { soldLimits: sold } = configuration.document.effective;
  const price = priceSoFar(tenant, glance.units);
  const link = { c, tenantId };
  return operatorPage(
    c,
    {
      ...{ title: tenant.name, section: TENANTS_PATH },
      lead: (
        <>
          <StateBadge state={tenant.state} /> <code>{tenantId}</code> {tenant.email}
        </>
      ),
      actions: tenant.state !== "gone" && <ActLink {...link} to={impersonation} />,
    },
    <>
      <TenantTabs tenantId={tenantId} current="" />
      {!tenant.served && (
        <Notice tone="warn">
          Its calls are refused
          {tenant.refusedWith !== null && tenant.refusedWith !== undefined && ` with ${tenant.refusedWith}`}.
          {tenant.waysBack.map(({ by, does }) => ` The ${by} can ${does}.`).join("")}
        </Notice>
      )}
      {tenant.crossTenantAttempts.attempts > 0 && (
        <Notice tone="warn">
          Its credentials were used {count(tenant.crossTenantAttempts.attempts)} times on other tenants' resources, and
          refused. <a href={`/admin/audit?tenant=${tenantId}&action=tenant.cross`}>Look at them</a>
        </Notice>
      )}
      <div class="grid">
        <Figure
          name="Units this month"
          value={count(glance.units)}
          meter={{ label: "Units this month", used: glance.units, limit: tenant.limits.unitsPerMonth }}
          note={tenant.limits.unitsPerMonth === null ? "No limit" : `of ${units(tenant.limits.unitsPerMonth)}`}
        />
        <Figure name="Calls" value={count(glance.calls)} note={`${count(glance.refused)} refused`} />
        <Figure name="Errors" value={failedShare(glance)} note={`${count(glance.failed)} failed calls`} />
        <Figure
          name="Revenue this month"
          value={price === undefined ? "–" : dollars(price)}
          note={price === undefined ? "Not billed by Stripe" : "List price so far"}
        />
      </div>
      <div class="split">
        <div>
          <div class="card">
            <h2>Account</h2>
            <Facts tenant={tenant} lastCallAt={glance.lastCallAt} />
            <p class="actions">
              <ActLink {...link} to={account} text="Change" />
              <ActLink {...link} to={trial} text="Trial" />
              <ActLink {...link} to={monitorToken} text="Monitor token" />
            </p>
          </div>
          <div class="card">
            <h2>Plan changes</h2>
            <Table
              caption="The last plan changes. Times in UTC."
              hidesCaption
              rows={changes}
              empty={<p class="muted">The plan was never changed.</p>}
              columns={[
                {
                  head: "Change",
                  isHead: true,
                  cell: ({ fromPlan, plan: to }) => `${planTitle(fromPlan)} to ${planTitle(to)}`,
                },
                {
                  head: "State",
                  cell: ({ state }) => <Badge tone={state === "waiting" ? "accent" : "neutral"}>{state}</Badge>,
                },
                { head: "By", cell: ({ requestedBy }) => requestedBy },
                { head: "Asked", cell: ({ requestedAt }) => <Instant at={requestedAt} /> },
                { head: "Waits for", cell: ({ waitsFor, error }) => error ?? waitsFor ?? "" },
              ]}
            />
            <p class="actions">
              <ActLink {...link} to={plan} />
              {changes.some(({ state }) => state === "waiting") && <ActLink {...link} to={cancelPlan} />}
            </p>
          </div>
        </div>
        <div>
          <div class="card">
            <h2>Service</h2>
            <p class="actions">
              {tenant.state !== "suspended" && tenant.state !== "gone" && tenant.state !== "leaving" && (
                <ActLink {...link} to={suspend} />
              )}
              {(tenant.state === "suspended" || tenant.state === "trial" || tenant.state === "provisioning") && (
                <ActLink {...link} to={resume} />
              )}
              {["leaving", "gone", "suspended"].includes(tenant.state) && <ActLink {...link} to={reactivate} />}
              {tenant.state !== "leaving" && tenant.state !== "gone" && <ActLink {...link} to={remove} />}
              {tenant.state === "leaving" && <ActLink {...link} to={dropNow} />}
            </p>
          </div>
          <div class="card">
            <h2>Limits</h2>
            <LimitFacts plan={tenant.plan} limits={tenant.limits} sold={sold} />
            {permits(c, "support") && (
              <p class="actions">
                <a class="button" href={tenantPath(tenantId, "/configuration")}>
                  Change
                </a>
              </p>
            )}
          </div>
          <div class="card">
            <h2>Set-up</h2>
            <SetUp steps={tenant.provisioning.steps} />
            <p class="small muted">
              {tenant.provisioning.attempts === 1 ? "One attempt." : `${tenant.provisioning.attempts} attempts.`}{" "}
              {tenant.provisioning.attemptLog[0]?.reason}
            </p>
          </div>
        </div>
      </div>
    </>,
  );
}
