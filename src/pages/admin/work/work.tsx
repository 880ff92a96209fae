// Moves, backups, restores and imports of all tenants, with their progress. The page renews itself while one runs.
import { joinBatches } from "../../../adapters/neon.ts";
import { jobsStore } from "../../../backups/jobs-store.ts";
import type { HttpContext } from "../../../http.ts";
import { movesStore } from "../../../moves/moves-store.ts";
import { pagePart, wantsPart } from "../../layout/layout.tsx";
import { Instant, count } from "../../parts/figures.tsx";
import { Empty } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { operatorPage } from "../operator-page.tsx";
import { JobBadge, MoveBadge, RELOAD_SECONDS, isMoving, progressOf, renewing } from "../tenants/progress.tsx";

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
      <Table
        caption={`The last ${SHOWN} moves of tenants`}
        hidesCaption
        rows={moves}
        empty={<Empty title="No tenant was moved">A tenant's page starts a move.</Empty>}
        columns={[
          { head: "Tenant", isHead: true, cell: ({ tenantId }) => tenantLink(tenantId) },
          { head: "From", cell: ({ from }) => from },
          { head: "To", cell: ({ strategy, to }) => to ?? strategy },
          { head: "State", cell: ({ state }) => <MoveBadge state={state} /> },
          { head: "Rows copied", isNumber: true, cell: ({ rowsCopied }) => count(rowsCopied) },
          { head: "Pause", isNumber: true, cell: ({ pauseMs }) => (pauseMs === null ? "" : `${count(pauseMs)} ms`) },
          { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
          { head: "Why it waits", cell: ({ error }) => error ?? "" },
        ]}
      />
      <h2>Jobs</h2>
      <Table
        caption={`The last ${SHOWN} backups, restores and imports`}
        hidesCaption
        rows={jobs}
        empty={<Empty title="No job yet">A tenant's page starts backups, restores and imports.</Empty>}
        columns={[
          { head: "Tenant", isHead: true, cell: ({ tenantId }) => tenantLink(tenantId) },
          { head: "Job", cell: ({ kind }) => kind },
          { head: "State", cell: ({ state }) => <JobBadge state={state} /> },
          { head: "Progress", isNumber: true, cell: progressOf },
          { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
          { head: "Ended", cell: ({ finishedAt }) => (finishedAt === null ? "" : <Instant at={finishedAt} />) },
          { head: "Error", cell: ({ error }) => error ?? "" },
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
