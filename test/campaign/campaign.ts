// `npm run campaign -- --seeds N --from S`: the fault campaign over N seeds, two hundred to each start of the systems.
// `npm run campaign -- --mutants` (or `--mutant NAME`): the same over changed copies of the program, each of which must
// be found out.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Mutant, mutants } from "./mutants.ts";
import type { PointCounts } from "./points.ts";
import { tableOf } from "./tally.ts";

const root = resolve(import.meta.dirname, "../..");
/** Stripe's clock only goes ahead, by some days a seed: a lane's fifty seeds stay within a year. */
const SEEDS_PER_START = 200;
/** A mutant that these do not find is not found. */
const SEEDS_PER_MUTANT = 30;

const { values: flags } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    mutant: { type: "string" },
    mutants: { type: "boolean", default: false },
  },
});

const scratch = mkdtempSync(join(tmpdir(), "tollgate-campaign-"));
try {
  if (flags.mutants || flags.mutant !== undefined) await runMutants(flags.mutant);
  else await runSeeds(Number(flags.from), Number(flags.seeds));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

async function runSeeds(from: number, seeds: number): Promise<void> {
  const totals: PointCounts = {};
  const failed: number[] = [];
  const startedAt = performance.now();
  for (let next = from; next < from + seeds; next += SEEDS_PER_START) {
    const count = Math.min(SEEDS_PER_START, from + seeds - next);
    const counts = join(scratch, "counts.json");
    const passed = await vitest(root, next, count, { CAMPAIGN_COUNTS: counts }, "inherit");
    if (!passed) failed.push(next);
    const part = JSON.parse(readFileSync(counts, "utf8")) as PointCounts;
    for (const [point, { met, hit }] of Object.entries(part)) {
      const total = (totals[point] ??= { met: 0, hit: 0 });
      total.met += met;
      total.hit += hit;
    }
  }
  print(`\n${tableOf(totals, seeds)}`);
  print(`${Math.round((performance.now() - startedAt) / 1000)} s`);
  if (failed.length > 0) {
    print(`Seeds failed in the starts from ${failed.join(", ")}: their numbers stand above.`);
    process.exitCode = 1;
  }
}

async function runMutants(only: string | undefined): Promise<void> {
  const chosen = mutants.filter(({ name }) => only === undefined || name === only);
  if (chosen.length === 0) throw new Error(`There is no such mutant: ${mutants.map(({ name }) => name).join(", ")}`);
  for (const mutant of chosen) {
    const copy = mutate(mutant);
    const survived = await vitest(copy, 1, SEEDS_PER_MUTANT, {}, "ignore", ["--bail", "1"]);
    print(`${survived ? "NOT FOUND" : "found    "}  ${mutant.name}`);
    if (survived) process.exitCode = 1;
  }
}

/** A copy of the program with the change. */
function mutate({ name, changes }: Mutant): string {
  const copy = mkdtempSync(join(scratch, "mutant-"));
  cpSync(root, copy, {
    recursive: true,
    filter: (path) => !/\/(node_modules|\.git|\.dev|\.wrangler)(\/|$)/.test(path),
  });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  for (const { file, find, replace } of changes) {
    const source = readFileSync(join(copy, file), "utf8");
    if (source.split(find).length !== 2) throw new Error(`${name}: its text is not once in ${file}`);
    writeFileSync(
      join(copy, file),
      source.replace(find, () => replace),
    );
  }
  return copy;
}

function vitest(
  cwd: string,
  from: number,
  seeds: number,
  env: Record<string, string>,
  stdio: "inherit" | "ignore",
  more: readonly string[] = [],
): Promise<boolean> {
  const child = spawn(
    process.execPath,
    [join(cwd, "node_modules/vitest/vitest.mjs"), "run", "--project", "campaign", ...more],
    { cwd, stdio, env: { ...process.env, ...env, CAMPAIGN_FROM: String(from), CAMPAIGN_SEEDS: String(seeds) } },
  );
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("exit", (code) => done(code === 0));
  });
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
