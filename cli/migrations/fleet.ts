// `npm run migrate` over tenants' own schemas: runs the migration, shows its progress and its report. A dry run shows the
// plan only.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { connectControl } from "../../src/adapters/neon.ts";
import type { Migration } from "../../src/tenant-db/branch.ts";
import { type FleetStore, type Report, type Run, type StoredSchema, fleetStore } from "../../src/fleet/fleet-store.ts";
import { advance, withHeartbeat, beginRun, fleetWork, planFleet } from "../../src/fleet/runner.ts";
import { type FleetOptions, type Plan, shortVersion } from "../../src/fleet/fleet.ts";

export interface FleetCommand {
  controlUrl: string;
  /** HTTP endpoint for SQL. Empty means Neon's own. */
  fetchEndpoint: string;
  encryptionKeys: string;
  files: readonly Migration[];
  options: FleetOptions;
  print: (line: string) => void;
}

/** Schemas read in one page. A terminal has no limit on the time of a step, so a page is larger than the Workflow's. */
const SCHEMAS_AT_ONCE = 200;
/** Interval of progress lines in a log. Often enough to see that the run is alive. */
const PROGRESS_EVERY_MS = 2_000;

export const fleetFor = ({ controlUrl, fetchEndpoint }: FleetCommand): FleetStore =>
  fleetStore(connectControl({ CONTROL_DATABASE_URL: controlUrl, NEON_FETCH_ENDPOINT: fetchEndpoint }));

/** Migrates every schema. Returns whether all of them are up to date. Throws while another run is active. */
export async function migrateFleet(command: FleetCommand): Promise<boolean> {
  const { files, options, print } = command;
  const fleet = fleetFor(command);
  const plan = await checkedPlan(fleet, command);
  if (plan.pending === 0) {
    print(`tenants' schemas: all ${schemasIn(plan)} have ${shortVersion(plan.target)}`);
    return true;
  }
  print(`tenants' schemas: ${plan.pending} of ${schemasIn(plan)} to be migrated to ${shortVersion(plan.target)}`);

  const { id, attempt } = await openRun(fleet, command);
  const onSignal = (): void => {
    print("Stopping after the running schemas …");
    void fleet.requestStop(id).catch(() => undefined);
  };
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  const env = { NEON_FETCH_ENDPOINT: command.fetchEndpoint, ENCRYPTION_KEYS: command.encryptionKeys };
  const work = fleetWork(env, fleet, { files, id, attempt });
  const progress = showProgress(plan.pending, print);
  try {
    await withHeartbeat(work, async () => {
      let state = await beginRun(fleet, { files, id, attempt });
      while (state === "more")
        state = await advance(work, { limit: SCHEMAS_AT_ONCE, onResult: (...each) => progress.result(...each) });
    });
  } finally {
    progress.end();
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
  const report = await fleet.report(id);
  if (report === undefined) throw new Error(`Run ${id} is gone.`);
  printReport(report, print);
  if (options.only !== null) print("The run covered the named tenants only.");
  return report.state === "done";
}

/** Prints what a run would do. */
export async function dryRunFleet(command: FleetCommand): Promise<void> {
  const { options, print } = command;
  const plan = await checkedPlan(fleetFor(command), command);
  print(`tenants' schemas: ${plan.pending} of ${schemasIn(plan)} would be migrated to ${shortVersion(plan.target)}`);
  for (const { shardId, schemas, pending, files: lacking } of plan.shards)
    print(`  ${shardId}: ${pending} of ${schemas}  ${lacking.join(", ")}`.trimEnd());
  if (plan.ahead > 0) print(`  ${plan.ahead} have files that are missing here, and would not be changed`);
  if (plan.cohort.length > 0) print(`  first: ${plan.cohort.map(({ tenantId }) => tenantId).join(", ")}`);
  print(`  ${options.concurrency} at once, stopping above ${options.stopAbove} failures. Nothing was changed.`);
}

async function checkedPlan(fleet: FleetStore, { files, options }: FleetCommand): Promise<Plan> {
  const named = [...(options.only ?? []), ...(typeof options.cohort === "number" ? [] : options.cohort)];
  const missing = await fleet.withoutSchema(named);
  if (missing.length > 0) throw new Error(`These tenants have no schema of their own: ${missing.join(", ")}.`);
  return planFleet(fleet, files, options);
}

/** Opens a run. Waits up to ten seconds for an unfinished run: one without a heartbeat for that long was killed. */
async function openRun(fleet: FleetStore, { options, print }: FleetCommand): Promise<Run> {
  let seen: Run | undefined;
  for (;;) {
    const startedBy = `process ${process.pid} on ${hostname()}`;
    const opened = await fleet.open({ startedBy, runner: "terminal", options });
    if ("run" in opened) return opened.run;
    const { running } = opened;
    if (seen !== undefined && seen.progressedAt !== running.progressedAt) {
      throw new Error(`Run ${running.id}, started by ${running.startedBy}, is still active. Wait for it, or stop it.`);
    }
    if (seen === undefined) print(`Run ${running.id} is not finished. Waiting to see whether it is active …`);
    seen ??= running;
    await sleep(1_000);
  }
}

// ---- output

function showProgress(pending: number, print: (line: string) => void) {
  const startedAtMs = Date.now();
  const bar = process.stdout.isTTY;
  let done = 0;
  let failed = 0;
  let shown = -1;
  let shownAtMs = startedAtMs;
  const show = (): void => {
    if (shown === done) return;
    shown = done;
    const seconds = (Date.now() - startedAtMs) / 1000;
    const rate = done / Math.max(seconds, 0.001);
    const left = done === 0 ? "?" : Math.max(0, Math.round((pending - done) / rate));
    const text = `${done}/${pending}  ${rate.toFixed(0)}/s  ${left} s left  ${failed} failed`;
    const filled = Math.round((30 * Math.min(done, pending)) / pending);
    if (bar) process.stdout.write(`\r\u001b[2K  ${"█".repeat(filled)}${"░".repeat(30 - filled)}  ${text}`);
    else print(`  ${text}`);
    shownAtMs = Date.now();
  };
  return {
    result({ tenantId, shardId }: StoredSchema, result: { outcome: string; reason: string | null }): void {
      done += 1;
      if (result.reason !== null) {
        failed += 1;
        if (bar) process.stdout.write("\r\u001b[2K");
        if (failed <= 20) print(`  ${result.outcome}: ${tenantId} on ${shardId}: ${result.reason}`);
      }
      if (Date.now() - shownAtMs > (bar ? 100 : PROGRESS_EVERY_MS)) show();
    },
    end(): void {
      show();
      if (bar) process.stdout.write("\n");
    },
  };
}

function printReport(report: Report, print: (line: string) => void): void {
  const { counts, perSchemaMs, failures } = report;
  const seconds = (Date.parse(report.finishedAt ?? report.progressedAt) - Date.parse(report.startedAt)) / 1000;
  print(`Run ${report.id}: ${report.state}${report.reason === null ? "" : `, because ${report.reason}`}`);
  print(`  applied ${counts.applied}, up to date ${counts.current}, failed ${counts.failed}`);
  print(`  changed by hand ${counts.drifted}, in use ${counts.busy}, retried ${report.retried}`);
  if (perSchemaMs !== null)
    print(`  per schema p50 ${perSchemaMs.p50} ms, p95 ${perSchemaMs.p95} ms, longest ${perSchemaMs.max} ms`);
  print(`  ${seconds.toFixed(1)} s, at most ${report.peakConnections} connections at once`);
  for (const { tenantId, shardId, outcome, sqlState, reason } of failures)
    print(
      `  ${outcome}: ${tenantId} on ${shardId}: ${reason ?? "unknown"}${sqlState === null ? "" : ` (${sqlState})`}`,
    );
  if (report.state !== "done") print("  Run npm run migrate again to migrate the remaining schemas.");
}

function schemasIn({ shards }: Plan): number {
  return shards.reduce((sum, { schemas }) => sum + schemas, 0);
}
