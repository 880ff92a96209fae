// Migrations of tenants' tables: the shards with their versions, the tenants behind, the runs, and the progress of the one that
// runs.
import * as z from "zod";
import type { FC } from "hono/jsx";
import { joinBatches } from "../../../adapters/neon.ts";
import { startMigration, stopMigration } from "../../../fleet/api.ts";
import { type Run, fleetStore } from "../../../fleet/fleet-store.ts";
import { FleetOptions } from "../../../fleet/fleet.ts";
import type { HttpContext } from "../../../http.ts";
import { expectedVersion, missingFiles } from "../../../tenant-db/migrations.ts";
import { pagePart, wantsPart } from "../../layout/layout.tsx";
import { Instant, Meter, count } from "../../parts/figures.tsx";
import { Badge, Empty, Notice, type Tone } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { ItemButton, itemAct } from "../item-act.tsx";
import { operatorPage } from "../operator-page.tsx";
import { RELOAD_SECONDS, renewing } from "../tenants/progress.tsx";

const PATH = "/admin/migrations";
const RUNS = 20;
const NAMED = 50;

export const startRun = itemAct({
  ...{ path: `${PATH}/start`, action: "startMigration", role: "admin", label: "Start a run", back: PATH },
  tone: "main",
  question:
    "Tollgate applies the program's migrations to every tenant's tables, a small cohort first. Agents keep working.",
  schema: z.strictObject({}),
  run: (c) => startMigration(c, { body: FleetOptions.parse({}) }),
  done: "The run has begun.",
});

export const stopRun = itemAct({
  ...{ path: `${PATH}/:runId/stop`, action: "stopMigration", role: "admin", label: "Stop", back: PATH },
  schema: z.strictObject({}),
  run: (c) => stopMigration(c),
  done: "The run stops after the tenants that it works on.",
});

const tones: Readonly<Record<Run["state"], Tone>> = { running: "accent", done: "good", failed: "bad", stopped: "warn" };

/** GET /admin/migrations */
export async function showMigrations(c: HttpContext): Promise<Response> {
  const fleet = fleetStore(joinBatches(c.get("context").control));
  const version = expectedVersion();
  const [shards, runs, behind] = await Promise.all([
    fleet.shards(),
    fleet.runs({ limit: RUNS }),
    fleet.tenantsBehind(version, { limit: NAMED }),
  ]);
  const running = runs.find(({ state }) => state === "running");
  const part = (
    <div id="runs" {...renewing(PATH, running !== undefined)}>
      {running !== undefined && <Running c={c} run={running} />}
      {behind.length === 0 ? (
        <Notice tone="good">Every tenant's tables have the version {version}.</Notice>
      ) : (
        <Table
          caption={`Tenants behind the version ${version}, at most ${NAMED}`}
          rows={behind}
          columns={[
            {
              head: "Tenant",
              isHead: true,
              cell: ({ tenantId }) => <a href={`/admin/tenants/${tenantId}`}>{tenantId}</a>,
            },
            { head: "Shard", cell: ({ shardId }) => shardId },
            { head: "Lacks", cell: (each) => missingFiles(each.version).join(", ") },
          ]}
        />
      )}
      <h2>Runs</h2>
      <Table
        caption="The last runs. Times in UTC."
        hidesCaption
        rows={runs}
        empty={<Empty title="No run yet">The first deployment made the tables as they are.</Empty>}
        columns={[
          { head: "Run", isHead: true, cell: ({ id }) => id },
          { head: "State", cell: ({ state }) => <Badge tone={tones[state]}>{state}</Badge> },
          { head: "By", cell: ({ startedBy }) => startedBy },
          { head: "Schemas", cell: ({ counts }) => countsOf(counts) },
          { head: "Begun", cell: ({ startedAt }) => <Instant at={startedAt} /> },
          { head: "Ended", cell: ({ finishedAt }) => (finishedAt === null ? "" : <Instant at={finishedAt} />) },
          { head: "Why it stopped", cell: ({ reason }) => reason ?? "" },
        ]}
      />
      <h2>Shards</h2>
      <Table
        caption="Shards with tenants' own schemas"
        hidesCaption
        rows={shards}
        empty={<Empty title="No tenant has a schema of its own" />}
        columns={[
          { head: "Shard", isHead: true, cell: ({ shardId }) => shardId },
          { head: "Schemas", isNumber: true, cell: ({ schemas }) => count(schemas) },
          {
            head: "Versions",
            cell: ({ versions }) =>
              Object.entries(versions)
                .map(([name, schemas]) => `${name || "none"}: ${count(schemas)}`)
                .join(", "),
          },
          { head: "Failed", isNumber: true, cell: ({ failed }) => count(failed) },
        ]}
      />
    </div>
  );
  if (wantsPart(c)) return pagePart(c, part);
  return operatorPage(
    c,
    {
      ...{ title: "Migrations", section: PATH, scripts: "live", lead: "Of the tables in tenants' databases." },
      actions: running === undefined && <ItemButton c={c} to={startRun} item={{}} isTiny={false} />,
      reloadSeconds: running === undefined ? undefined : RELOAD_SECONDS,
    },
    part,
  );
}

function countsOf(counts: Run["counts"]): string {
  const some = Object.entries(counts).filter(([, schemas]) => schemas > 0);
  return some.length === 0
    ? "none"
    : some.map(([outcome, schemas]) => `${count(schemas)} ${outcome.replaceAll("_", " ")}`).join(", ");
}

const Running: FC<{ c: HttpContext; run: Run }> = ({ c, run: { id, counts, plan, stopRequested } }) => {
  const done = Object.values(counts).reduce((sum, schemas) => sum + schemas, 0);
  return (
    <div class="card">
      <h2>Run {id} is in progress</h2>
      <p>{countsOf(counts)}</p>
      {plan !== null && <Meter label="Schemas" used={done} limit={Math.max(done, plan.pending)} />}
      {stopRequested ? (
        <p class="muted">It stops after the tenants that it works on.</p>
      ) : (
        <ItemButton c={c} to={{ ...stopRun, path: `${PATH}/${id}/stop` }} item={{}} label="Stop the run" />
      )}
    </div>
  );
};
