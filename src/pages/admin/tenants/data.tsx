// Where a tenant's rows are, and the work on them: moves with their progress, backups, restores, the import and the removal. The
// list of moves and jobs renews itself while one runs.
import { joinBatches } from "../../../adapters/neon.ts";
import { newestImport } from "../../../backups/api.ts";
import { type Job, jobsStore } from "../../../backups/jobs-store.ts";
import { type HttpContext, tenantOf } from "../../../http.ts";
import { phaseOf } from "../../../lifecycle/removal.ts";
import { removalsStore } from "../../../lifecycle/removals-store.ts";
import { mayBe } from "../../../moves/move.ts";
import { movesStore } from "../../../moves/moves-store.ts";
import { pagePart, wantsPart } from "../../layout/layout.tsx";
import { Instant, count } from "../../parts/figures.tsx";
import { Empty } from "../../parts/notice.tsx";
import { operatorPage, permits } from "../operator-page.tsx";
import { ActLink, TENANTS_PATH, tenantOnPage, tenantPath } from "./acts/act.tsx";
import { backup, confirm, move, stopBackup, undo } from "./acts/data.tsx";
import { load, stopImport, upload } from "./acts/import.tsx";
import { restore, restoreInto, stopRestore } from "./acts/restore.tsx";
import { JobBadge, JobsTable, MovesTable, RELOAD_SECONDS, isMoving, renewing } from "./progress.tsx";
import { TenantTabs } from "./tenant-parts.tsx";

/** As many as a person looks at. The API lists all. */
const SHOWN = 20;
/** GET /admin/tenants/:tenantId/data */
export async function showTenantData(c: HttpContext): Promise<Response> {
  const tenantId = tenantOf(c);
  const tenant = tenantOnPage(c);
  const control = joinBatches(c.get("context").control);
  const jobs = jobsStore(control);
  const [moves, backups, restores, imported, removal] = await Promise.all([
    movesStore(control).history(tenantId, { limit: SHOWN }),
    jobs.history(tenantId, "backup", { limit: SHOWN }),
    jobs.history(tenantId, "restore", { limit: SHOWN }),
    newestImport({ control }, tenantId),
    removalsStore(control).newest(tenantId),
  ]);
  const isRunning =
    moves.some(isMoving) ||
    [...backups, ...restores].some(({ state }) => state === "running") ||
    imported?.state === "running";
  const link = { c, tenantId };
  // Only an admin takes a customer's rows out. The API answers with the file.
  const takesOut = permits(c, "admin");
  const files = `/admin/api/tenants/${tenantId}`;
  const [live] = moves.filter(({ state }) => state !== "confirmed" && state !== "undone");
  const part = (
    <div id="work" {...renewing(tenantPath(tenantId, "/data"), isRunning)}>
      <div class="card">
        <h2>Moves</h2>
        <MovesTable
          caption="Moves, the newest first. Times in UTC."
          rows={moves}
          empty={<p class="muted">The rows were never moved.</p>}
          first={[{ head: "Begun", isHead: true, cell: ({ startedAt }) => <Instant at={startedAt} /> }]}
        />
        <p class="actions">
          {live === undefined && <ActLink {...link} to={move} />}
          {live !== undefined && mayBe("confirm", live.state) && <ActLink {...link} to={confirm} />}
          {live !== undefined && mayBe("undo", live.state) && <ActLink {...link} to={undo} />}
        </p>
      </div>
      <div class="card">
        <h2>Backups</h2>
        <JobsTable
          caption="Backups, the newest first. Times in UTC."
          rows={backups}
          empty={
            <Empty title="No backup yet">Databases are backed up by their provider. These files are for you.</Empty>
          }
          first={[{ head: "File", isHead: true, cell: nameOf }]}
          acts={(job) => (
            <span class="row-acts">
              {job.state === "running" && (
                <ActLink {...link} to={stopBackup} params={{ name: nameOf(job) }} text="Cancel" isTiny />
              )}
              {job.state === "done" && takesOut && (
                <a class="button tiny" href={`${files}/backups/${encodeURIComponent(nameOf(job))}`} download="">
                  Download
                </a>
              )}
            </span>
          )}
        />
        <p class="actions">
          <ActLink {...link} to={backup} />
          {takesOut && tenant.state !== "gone" && (
            <a class="button" href={`${files}/export`} download="">
              Download an export of now
            </a>
          )}
        </p>
      </div>
      <div class="card">
        <h2>Restores and the import</h2>
        <JobsTable
          caption="Restores, the newest first. Times in UTC."
          rows={restores}
          empty={<p class="muted">Nothing was restored.</p>}
          first={[{ head: "From", isHead: true, cell: nameOf }]}
        />
        {imported !== null && (
          <p>
            Last import: <JobBadge state={imported.state} />{" "}
            {imported.lines !== null && `${count(imported.lines.done)} of ${count(imported.lines.of)} lines, `}
            {count(imported.failed)} failed. {imported.error}
          </p>
        )}
        <p class="actions">
          <ActLink {...link} to={restore} />
          <ActLink {...link} to={restoreInto} />
          {restores.some(({ state }) => state === "running") && <ActLink {...link} to={stopRestore} />}
          <ActLink {...link} to={upload} />
          <ActLink {...link} to={load} />
          {imported?.state === "running" && <ActLink {...link} to={stopImport} />}
        </p>
      </div>
      {removal !== undefined && (
        <div class="card">
          <h2>Removal</h2>
          <dl class="facts">
            <dt>Phase</dt>
            <dd>{phaseOf(removal.step)}</dd>
            <dt>Step</dt>
            <dd>{removal.step}</dd>
            <dt>Asked by</dt>
            <dd>{removal.askedBy}</dd>
            {removal.leavingUntil !== null && (
              <>
                <dt>Can come back until</dt>
                <dd>
                  <Instant at={removal.leavingUntil} />
                </dd>
              </>
            )}
            {(removal.waitsFor ?? removal.error) !== null && (
              <>
                <dt>Waits for</dt>
                <dd>{removal.waitsFor ?? removal.error}</dd>
              </>
            )}
          </dl>
        </div>
      )}
    </div>
  );
  if (wantsPart(c)) return pagePart(c, part);
  return operatorPage(
    c,
    {
      ...{ title: tenant.name, section: TENANTS_PATH, scripts: "live" },
      reloadSeconds: isRunning ? RELOAD_SECONDS : undefined,
    },
    <>
      <TenantTabs tenantId={tenantId} current="/data" />
      {part}
    </>,
  );
}

function nameOf({ request }: Job): string {
  return String(request["key"]).split("/").at(-1) ?? "";
}
