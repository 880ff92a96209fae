// The operator's API of fleet migrations. It starts a run, which a Workflow executes, and reads runs from the control tables.
import { Hono } from "hono";
import * as z from "zod";
import { BadRequest, type HttpEnv, problem, readJson } from "../http.ts";
import { fleetStore } from "./fleet-store.ts";
import { FleetOptions } from "./fleet.ts";

const RunId = z.coerce.number().int().positive();
/** Runs that the list shows: more than an operator reads. */
const NEWEST = 50;

export const fleetApi = new Hono<HttpEnv>();

fleetApi.post("/", async (c) => {
  const options = await readJson(c, FleetOptions);
  const context = c.get("context");
  const fleet = fleetStore(context.control);
  const named = [...(options.only ?? []), ...(typeof options.cohort === "number" ? [] : options.cohort)];
  const missing = await fleet.withoutSchema(named);
  if (missing.length > 0) throw new BadRequest(`These tenants have no schema of their own: ${missing.join(", ")}.`);
  const opened = await fleet.open({ startedBy: "the operator API", runner: "workflow", options });
  if ("running" in opened) {
    const { id, startedBy } = opened.running;
    return problem(c, "conflict", `Run ${id}, started by ${startedBy}, is still running: /admin/api/migrations/${id}`);
  }
  const { run } = opened;
  // If the start fails, the run has no heartbeats and the sweep starts another Workflow for it.
  await context.start({ kind: "fleet_migration", runId: run.id, attempt: run.attempt });
  return c.json({ ...run, url: `${context.env.PUBLIC_URL}/admin/api/migrations/${run.id}` }, 202);
});

fleetApi.get("/", async (c) => {
  const fleet = fleetStore(c.get("context").control);
  const [shards, runs] = await Promise.all([fleet.shards(), fleet.runs(NEWEST)]);
  return c.json({ shards, runs });
});

fleetApi.get("/:id", async (c) => {
  const id = RunId.safeParse(c.req.param("id"));
  const report = id.success ? await fleetStore(c.get("context").control).report(id.data) : undefined;
  return report === undefined ? problem(c, "not_found", "There is no such run.") : c.json(report);
});

fleetApi.post("/:id/stop", async (c) => {
  const id = RunId.safeParse(c.req.param("id"));
  const fleet = fleetStore(c.get("context").control);
  const report = id.success ? await fleet.report(id.data) : undefined;
  if (report === undefined) return problem(c, "not_found", "There is no such run.");
  if (!(await fleet.requestStop(report.id))) return problem(c, "conflict", `This run is ${report.state}.`);
  return c.json(await fleet.report(report.id), 202);
});
