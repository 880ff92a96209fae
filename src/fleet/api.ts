// Fleet migrations by the operator's API: started here, executed by a Workflow, seen in the control tables.
import { Hono } from "hono";
import * as z from "zod";
import { fleetOf } from "./fleet-store.ts";
import { FleetOptions } from "./fleet.ts";
import { BadRequest, type HttpEnv, problem, readJson } from "../http.ts";

const RunId = z.coerce.number().int().positive();
const NEWEST = 50;

export const fleetApi = new Hono<HttpEnv>();

fleetApi.post("/", async (c) => {
  const options = await readJson(c, FleetOptions);
  const control = fleetOf(c.env);
  const named = [...(options.only ?? []), ...(typeof options.cohort === "number" ? [] : options.cohort)];
  const missing = await control.without(named);
  if (missing.length > 0) throw new BadRequest(`There is no schema of its own for ${missing.join(", ")}.`);
  const opened = await control.open({ startedBy: "the operator API", runner: "workflow", options });
  if ("running" in opened) {
    const { id, startedBy } = opened.running;
    return problem(c, "conflict", `Run ${id}, started by ${startedBy}, is going on: /admin/api/migrations/${id}`);
  }
  const { run } = opened;
  // Should this fail, the run goes silent, and the sweep starts another Workflow for it.
  await c.env.FLEET.create({
    id: `migration-${run.id}-attempt-${run.attempt}`,
    params: { runId: run.id, attempt: run.attempt },
  });
  return c.json({ ...run, url: `${c.env.PUBLIC_URL}/admin/api/migrations/${run.id}` }, 202);
});

fleetApi.get("/", async (c) => {
  const control = fleetOf(c.env);
  const [shards, runs] = await Promise.all([control.shards(), control.runs(NEWEST)]);
  return c.json({ shards, runs });
});

fleetApi.get("/:id", async (c) => {
  const id = RunId.safeParse(c.req.param("id"));
  const report = id.success ? await fleetOf(c.env).report(id.data) : undefined;
  return report === undefined ? problem(c, "not_found", "There is no such run.") : c.json(report);
});

fleetApi.post("/:id/stop", async (c) => {
  const id = RunId.safeParse(c.req.param("id"));
  const control = fleetOf(c.env);
  const report = id.success ? await control.report(id.data) : undefined;
  if (report === undefined) return problem(c, "not_found", "There is no such run.");
  if (!(await control.askToStop(report.id))) return problem(c, "conflict", `This run is ${report.state}.`);
  return c.json(await control.report(report.id), 202);
});
