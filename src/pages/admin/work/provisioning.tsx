// The set-up of new tenants: of each the newest attempt, its step, and why it failed.
import * as z from "zod";
import { Flag, type HttpContext } from "../../../http.ts";
import { provisioningStore } from "../../../lifecycle/provisioning-store.ts";
import { provisioningSteps } from "../../../lifecycle/provisioning.ts";
import { orBlank } from "../../layout/form-body.ts";
import { Instant, count } from "../../parts/figures.tsx";
import { Badge, Empty } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { operatorPage } from "../operator-page.tsx";
import { AllToggle } from "../parts.tsx";
import { StateBadge } from "../tenants/tenants.tsx";

const PATH = "/admin/provisioning";
const SHOWN = 100;
export const ProvisioningPageQuery = z.object({ all: orBlank(Flag).optional() });

const titles = new Map<string, string>(provisioningSteps.map(({ name, title }) => [name, title]));

/** GET /admin/provisioning */
export async function showProvisioning(
  c: HttpContext,
  { query: { all = false } }: { query: z.infer<typeof ProvisioningPageQuery> },
): Promise<Response> {
  const attempts = await provisioningStore(c.get("context").control).newest(SHOWN, { unfinishedOnly: !all });
  return operatorPage(
    c,
    {
      ...{ title: "Provisioning", section: PATH },
      lead: `The newest attempt of each tenant, the latest ${SHOWN}. Tollgate retries by itself, unless an outside system has refused for good. Times in UTC.`,
    },
    <>
      <AllToggle path={PATH} isAll={all} open="Unfinished" every="All tenants" />
      <Table
        caption="Attempts to set tenants up"
        hidesCaption
        rows={attempts}
        empty={<Empty title="No set-up is under way">Every tenant that was ordered works.</Empty>}
        columns={[
          {
            head: "Tenant",
            isHead: true,
            cell: ({ tenantId, tenantName }) => (
              <a class="entry" href={`/admin/tenants/${tenantId}`}>
                <strong>{tenantName}</strong>
                <small>{tenantId}</small>
              </a>
            ),
          },
          { head: "State", cell: ({ tenantState }) => <StateBadge state={tenantState} /> },
          { head: "Attempt", isNumber: true, cell: ({ attempt }) => count(attempt) },
          { head: "Step", cell: ({ step }) => (step === null ? "not begun" : (titles.get(step) ?? step)) },
          {
            head: "Result",
            cell: ({ finishedAt, error, refused }) =>
              refused ? (
                <Badge tone="bad">refused for good</Badge>
              ) : error !== null ? (
                <Badge tone="warn">failed</Badge>
              ) : finishedAt === null ? (
                <Badge tone="accent">runs</Badge>
              ) : (
                <Badge tone="good">done</Badge>
              ),
          },
          { head: "Why", cell: ({ reason, error }) => reason ?? error ?? "" },
          { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
        ]}
      />
    </>,
  );
}
