// `npm run campaign`: injects faults between a call and its payment, over many seeds or over deliberately wrong copies of
// the program (mutants).
import { spawn } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { childEnvironment } from "../../dev/child-environment.ts";
import { readFlags, refuse, wholeNumber } from "../../cli/flags.ts";
import { type Mutant, mutants } from "./mutants.ts";
import type { PointCounts } from "./points.ts";
import { tableOf } from "./tally.ts";

const root = resolve(import.meta.dirname, "../..");
/** Stripe's clock only moves forward, by some days a seed. Fifty seeds a lane stay within a year. */
const SEEDS_PER_START = 200;
/** Files `lane-N.test.ts`. */
const MAX_LANES = 6;
/** Seeds that run against each mutant. A mutant that passes all of them counts as not found. */
const SEEDS_PER_MUTANT = 30;

const command = "npm run campaign";
const { values: flags } = readFlags({
  command,
  help: `
npm run campaign [-- FLAGS]     ends processes at numbered points between a call and its money, and compares everything to
                                the unit afterwards

  --seeds N        how many seeds (1000)
  --from N         the first seed (1)
  --lanes N        how many systems run seeds side by side, at most 6 (4)
  --mutants        instead: each wrong copy of the program in mutants.ts; the campaign must find all of them
  --mutant NAME    instead: one of them
  --help           this text`,
  flags: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    lanes: { type: "string", default: "4" },
    mutant: { type: "string" },
    mutants: { type: "boolean", default: false },
  },
});
const seedCount = wholeNumber(command, "seeds", flags.seeds);
const firstSeed = wholeNumber(command, "from", flags.from);
const lanes = wholeNumber(command, "lanes", flags.lanes);
if (lanes > MAX_LANES) refuse(command, `--lanes is at most ${MAX_LANES}: each lane has a file in test/campaign`);
if (flags.mutant !== undefined && !mutants.some(({ name }) => name === flags.mutant)) {
  refuse(command, `There is no mutant "${flags.mutant}"; choose ${mutants.map(({ name }) => name).join(", ")}`);
}

const scratch = mkdtempSync(join(tmpdir(), "tollgate-campaign-"));
try {
  if (flags.mutants || flags.mutant !== undefined) await runMutants(flags.mutant);
  else await runSeeds(firstSeed, seedCount);
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
    if (!existsSync(counts)) throw new Error("The run was interrupted. The seeds that passed stand above.");
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
  for (const mutant of chosen) {
    const copy = mutate(mutant);
    const log = join(scratch, "mutant.log");
    const output = openSync(log, "w");
    const survived = await vitest(copy, 1, SEEDS_PER_MUTANT, {}, output, ["--bail", "1"]);
    closeSync(output);
    const error = survived ? "" : firstError(readFileSync(log, "utf8"));
    const isFound = error.startsWith("Error: seed ");
    print(`${isFound ? "found    " : "NOT FOUND"}  ${mutant.name}\n           ${error}`);
    if (!isFound) process.exitCode = 1;
  }
}

/** The error that ended the seeds of a mutant. A seed's own error names the seed; another one is about this machine. */
function firstError(output: string): string {
  const line = stripVTControlCharacters(output)
    .split("\n")
    .find((each) => /^\w*Error: /.test(each));
  return (line ?? "The program did not start.").slice(0, 200);
}

/** Copies the program and applies the mutant's change. */
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
  stdio: "inherit" | number,
  more: readonly string[] = [],
): Promise<boolean> {
  const child = spawn(
    process.execPath,
    [
      ...[join(cwd, "node_modules/vitest/vitest.mjs"), "run", "--project", "campaign"],
      ...["--maxWorkers", String(lanes), ...more],
    ],
    {
      cwd,
      stdio: ["ignore", stdio, stdio],
      env: childEnvironment({
        ...env,
        CAMPAIGN_FROM: String(from),
        CAMPAIGN_LANES: String(lanes),
        CAMPAIGN_SEEDS: String(seeds),
      }),
    },
  );
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("exit", (code) => done(code === 0));
  });
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
