// Measures the creation and the migration of many tenants' own schemas in three databases, with `npm run migrate` as a separate
// program: one complete run, and one run that is killed and repeated. Each run prints its own figures. The schemas
// themselves prove that none was skipped or migrated twice.
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { type TestFleet, ended, startFleet } from "../test/support/fleet.ts";

/** Heap limit of the runner. Without it V8 keeps garbage, which looks as if memory grew with the number of schemas. */
const HEAP_MB = 48;
const SHARDS = ["schema-1", "schema-2", "schema-3"] as const;

/** Measures and prints. Throws when a schema was skipped or migrated twice. */
export async function benchFleet(options: { running: (() => Promise<unknown>)[]; schemas: number }): Promise<void> {
  const { schemas } = options;
  if (!Number.isInteger(schemas) || schemas < SHARDS.length || schemas > 1200)
    throw new Error("--schemas is from 3 to 1200: 400 a database, as on one Neon branch.");
  const fleet = await startFleet({ shards: SHARDS });
  options.running.push(() => fleet.close());

  const begunAtMs = performance.now();
  const times: number[] = [];
  const fill = async (shard: string, from: number): Promise<void> => {
    for (let n = from; n < schemas; n += SHARDS.length) times.push((await fleet.addTenant(shard, `t${n}`)).tookMs);
  };
  // One at a time in each database, because PostgreSQL changes a database's rights one at a time.
  await Promise.all(SHARDS.map(fill));
  const inAll = (
    await fleet.controlRows<{ n: number }>(
      `SELECT count(*)::int AS n FROM placements GROUP BY shard_id ORDER BY shard_id`,
    )
  ).map(({ n }) => n);
  print(`${schemas} schemas with a login role each, in databases of ${inAll.join(", ")}`);
  print(`  ${percentiles(times)}`);
  print(`  ${seconds(begunAtMs)} in all, ${peak(fleet)} connections at most`);

  const files: Record<string, string> = {
    "0002_note.sql":
      "ALTER TABLE products ADD COLUMN note text;\nCREATE INDEX products_by_note ON products (tenant_id, note);",
  };
  fleet.proxy.resetStats();
  print(`\nA second file (a column and an index) over all ${schemas}, 8 at once, 20 first`);
  const through = await run(fleet, ["--cohort", "20", "--tenant-files", await fleet.filesWith(files)]);
  print(through.output.slice(through.output.indexOf("Run ")).trimEnd());
  print(`  memory of the runner, its heap bounded to ${HEAP_MB} MB: ${through.memory}`);
  print(`  ${peak(fleet)} connections to PostgreSQL at most, counted by the proxy, the control database's with them`);
  await verify(fleet, schemas, "0002_note.sql");

  files["0003_more.sql"] = "ALTER TABLE settings ADD COLUMN note text;";
  const flags = ["--tenant-files", await fleet.filesWith(files)];
  print(`\nA third file, killed (SIGKILL) in the middle`);
  const killed = await run(fleet, flags, { killAt: Math.floor(schemas / 2) });
  const before = await done(fleet, "0003_more.sql");
  print(`  after ${killed.seconds}: ${before} of ${schemas} done`);
  const resumed = await run(fleet, flags);
  const after = await done(fleet, "0003_more.sql");
  print(`  run again: ${after - before} more in ${resumed.seconds}, of which 10 s until the killed one counts as dead`);
  print(resumed.output.slice(resumed.output.lastIndexOf("Run ")).trimEnd());
  print(`  memory of the runner, its heap bounded to ${HEAP_MB} MB: ${resumed.memory}`);
  await verify(fleet, schemas, "0003_more.sql");
}

/** `npm run migrate` to its end, or until so many schemas are done; what it printed, and the memory it took. */
async function run(fleet: TestFleet, flags: readonly string[], { killAt = Infinity } = {}) {
  const begunAtMs = performance.now();
  const child = fleet.spawnMigrate(flags, [`--max-old-space-size=${HEAP_MB}`]);
  const end = ended(child);
  const rssMb: number[] = [];
  while (child.exitCode === null && child.signalCode === null) {
    const counted = await fleet.controlRows<{ n: number }>(
      `SELECT applied + current + failed AS n FROM migration_runs
       WHERE state = 'running' AND plan IS NOT NULL AND started_by LIKE $1`,
      [`process ${child.pid} on %`],
    );
    if ((counted[0]?.n ?? 0) >= killAt) child.kill("SIGKILL");
    if (counted.length > 0 && child.pid !== undefined) rssMb.push(residentMb(child.pid));
    await sleep(100);
  }
  const { code, output } = await end;
  if (killAt === Infinity && code !== 0) throw new Error(output);
  const alive = rssMb.filter((mb) => mb > 0);
  const at = (index: number): string => `${Math.round(alive.at(index) ?? NaN)} MB`;
  const memory = `${at(0)} at the start, ${at(alive.length / 2)} in the middle, ${at(-1)} at the end`;
  return { output, seconds: seconds(begunAtMs), memory };
}

/** 0 once the process is gone. */
function residentMb(pid: number): number {
  try {
    return Number(execFileSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" })) / 1024;
  } catch {
    return 0;
  }
}

/** How many schemas have applied a file, as they say themselves. Throws when one says so twice. */
async function done(fleet: TestFleet, file: string): Promise<number> {
  let count = 0;
  for (const shard of SHARDS) {
    await fleet.owner(shard, async (client) => {
      const roles = await client.query<{ role: string }>(`SELECT role FROM tollgate.tenants`);
      for (const { role } of roles.rows) {
        const text = `SELECT count(*)::int AS n FROM ${role}.schema_migrations WHERE name = $1`;
        const n = (await client.query<{ n: number }>(text, [file])).rows[0]?.n ?? 0;
        if (n > 1) throw new Error(`${role} has applied ${file} ${n} times.`);
        count += n;
      }
    });
  }
  return count;
}

async function verify(fleet: TestFleet, schemas: number, file: string): Promise<void> {
  const [row] = await fleet.controlRows<{ placed: number; twice: number }>(
    `SELECT (SELECT count(*)::int FROM placements WHERE schema_version LIKE '%/' || $1) AS placed,
       (SELECT count(*)::int FROM (SELECT FROM migration_results r JOIN migration_runs m ON m.id = r.run_id
        WHERE m.plan ->> 'target' LIKE '%/' || $1 AND r.outcome = 'applied' GROUP BY r.placement_id HAVING count(*) > 1) AS t) AS twice`,
    [file],
  );
  const applied = await done(fleet, file);
  if (applied !== schemas || row?.placed !== schemas || row.twice !== 0)
    throw new Error(`${applied} schemas have ${file}, ${row?.placed} placements say so, ${row?.twice} twice`);
  print(`  each of the ${schemas} schemas has it exactly once`);
}

function peak(fleet: TestFleet): number {
  return fleet.proxy.stats().peakConnections?.together ?? NaN;
}

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
}

function percentiles(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  // The nearest-rank percentile.
  const at = (share: number): string => (sorted[Math.ceil(share * sorted.length) - 1] ?? NaN).toFixed(0);
  return `per schema p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
