// The operator's routes for fleet migrations: start, list, show, stop. A Workflow executes a run; the control tables
// record how far it is.
import * as z from "zod";
import { BadRequest, type HttpContext, type NumberedPageQuery, Problem, numberedPageQuery, pageOf } from "../http.ts";
import { expectedVersion, missingFiles } from "../tenant-db/migrations.ts";
import { type Run, fleetStore } from "./fleet-store.ts";
import type { FleetOptions } from "./fleet.ts";

const RunId = z.coerce.number().int().positive();
/** Runs on a page: those of a year of weekly migrations. */
export const RunsQuery = numberedPageQuery(50);
/** Who starts the runs of these routes, in the list. */
const STARTED_BY = "the operator API";
/** Tenants behind the program in a list. After a migration there are few; /health counts them all. */
const NAMED = 100;

export async function startMigration(c: HttpContext, { body: options }: { body: FleetOptions }): Promise<Response> {
  const fleet = fleetStore(c.get("context").control);
  const named = [...(options.only ?? []), ...(typeof options.cohort === "number" ? [] : options.cohort)];
  const missing = await fleet.withoutSchema(named);
  if (missing.length > 0) throw new BadRequest(`These tenants have no schema of their own: ${missing.join(", ")}.`);
  const opened = await fleet.open({ startedBy: STARTED_BY, runner: "workflow", options });
  if ("running" in opened) {
    const { id, startedBy, startedAt } = opened.running;
    // An earlier run of the same request has started it, and its answer was lost.
    const creation = c.get("creation");
    if (creation?.isRepeat === true && startedBy === STARTED_BY && Date.parse(startedAt) >= creation.atMs)
      return started(c, opened.running);
    throw new Problem("conflict", `Run ${id}, started by ${startedBy}, is in progress: /admin/api/migrations/${id}`);
  }
  return started(c, opened.run);
}

async function started(c: HttpContext, run: Run): Promise<Response> {
  // When the start fails, the run records nothing more, and the sweep starts another Workflow for it.
  await c.get("context").start({ kind: "fleet_migration", runId: run.id, attempt: run.attempt });
  return c.json({ ...run, url: `${c.env.PUBLIC_URL}/admin/api/migrations/${run.id}` }, 202);
}

export async function listMigrations(
  c: HttpContext,
  { query: { after, limit } }: { query: NumberedPageQuery },
): Promise<Response> {
  const fleet = fleetStore(c.get("context").control);
  const [shards, runs, behind] = await Promise.all([
    fleet.shards(),
    fleet.runs({ before: after, limit: limit + 1 }),
    fleet.tenantsBehind(expectedVersion(), { limit: NAMED }),
  ]);
  return c.json({
    shards,
    ...pageOf("runs", runs, limit, ({ id }) => id),
    behind: behind.map(({ tenantId, shardId, version }) => ({ tenantId, shardId, lacks: missingFiles(version) })),
  });
}

export async function showMigration(c: HttpContext): Promise<Response> {
  return c.json(await report(c));
}

export async function stopMigration(c: HttpContext): Promise<Response> {
  const fleet = fleetStore(c.get("context").control);
  const { id, state } = await report(c);
  if (!(await fleet.requestStop(id))) throw new Problem("conflict", `This run is ${state}.`);
  return c.json(await fleet.report(id), 202);
}

/** The run that the path names as `:runId`. Throws `not_found`. */
async function report(c: HttpContext) {
  const id = RunId.safeParse(c.req.param("runId"));
  const found = id.success ? await fleetStore(c.get("context").control).report(id.data) : undefined;
  if (found === undefined) throw new Problem("not_found", "There is no such run.");
  return found;
}
