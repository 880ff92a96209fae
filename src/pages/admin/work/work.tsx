// Moves, backups, restores and imports of all tenants, with their progress. The page renews itself while one runs.
import { joinBatches } from "../../../adapters/neon.ts";
import { jobsStore } from "../../../backups/jobs-store.ts";
import type { HttpContext } from "../../../http.ts";
import { movesStore } from "../../../moves/moves-store.ts";
import { pagePart, wantsPart } from "../../layout/layout.tsx";
import { Instant } from "../../parts/figures.tsx";
import { Empty } from "../../parts/notice.tsx";
import { operatorPage } from "../operator-page.tsx";
import { JobsTable, MovesTable, RELOAD_SECONDS, isMoving, renewing } from "../tenants/progress.tsx";

const PATH = "/admin/work";
const SHOWN = 50;

const tenantLink = (tenantId: string) => <a href={`/admin/tenants/${tenantId}/data`}>{tenantId}</a>;

/** GET /admin/work */
export async function showWork(c: HttpContext): Promise<Response> {
  const control = joinBatches(c.get("context").control);
  const [moves, jobs] = await Promise.all([
    movesStore(control).history(undefined, { limit: SHOWN }),
    jobsStore(control).history(undefined, undefined, { limit: SHOWN }),
  ]);
  const isRunning = moves.some(isMoving) || jobs.some(({ state }) => state === "running");
  const part = (
    <div id="work" {...renewing(PATH, isRunning)}>
      <h2>Moves</h2>
      <MovesTable
        caption={`The last ${SHOWN} moves of tenants`}
        rows={moves}
        empty={<Empty title="No tenant was moved">A tenant's page starts a move.</Empty>}
        first={[
          { head: "Tenant", isHead: true, cell: ({ tenantId }) => tenantLink(tenantId) },
          { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
        ]}
      />
      <h2>Jobs</h2>
      <JobsTable
        caption={`The last ${SHOWN} backups, restores and imports`}
        rows={jobs}
        empty={<Empty title="No job yet">A tenant's page starts backups, restores and imports.</Empty>}
        first={[
          { head: "Tenant", isHead: true, cell: ({ tenantId }) => tenantLink(tenantId) },
          { head: "Job", cell: ({ kind }) => kind },
        ]}
      />
    </div>
  );
  if (wantsPart(c)) return pagePart(c, part);
  return operatorPage(
    c,
    {
      ...{ title: "Moves and jobs", section: PATH, scripts: "live", lead: "Work on tenants' rows. Times in UTC." },
      reloadSeconds: isRunning ? RELOAD_SECONDS : undefined,
    },
    part,
  );
}
