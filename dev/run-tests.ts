// `npm test` and its parts: runs vitest's projects, among them four seeds of the fault campaign.
// `npm run test:quick` is for the time between two edits: types and the tests that start nothing, side by side.
import { type ChildProcess, spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { generate } from "../cli/generate.ts";
import { readFlags } from "../cli/flags.ts";

const root = resolve(import.meta.dirname, "..");
const vitest = join(root, "node_modules/vitest/vitest.mjs");
/** Half a minute of lives and faults, so that a test run stays short. A thousand are for `npm run campaign`. */
const SEEDS_OF_A_TEST_RUN = "4";
/** Each lane starts a system, which costs more than a seed. So a few seeds have two. */
const LANES_OF_A_TEST_RUN = "2";

const { values: flags, positionals: files } = readFlags({
  command: "npm test",
  help: `
npm test [-- FILES]             the tests: unit, stand-ins, attack, flow, second-app, crash, and 4 seeds of the fault campaign
npm run test:quick              types and unit tests, without starting anything: about 13 s on two idle cores
npm run test:long               the tests that npm test leaves out: fleets, removals, backups, imports, replicas
npm run attack [-- FILES]       hostile SQL against every tier; each statement must also succeed with its wall removed

FILES are parts of test file names, e.g. npm test -- flow/moves. With FILES, npm test leaves the campaign out.
Tests with a browser run the Chromium that npm installs for Linux on x64, and an installed Chrome elsewhere. CHROMIUM_PATH names
another one.

  --project NAME   only this project of vitest.config.ts: core, app, stand-ins, attack, flow, second-app,
                   campaign or crash
  --quick          what npm run test:quick runs
  --long           what npm run test:long runs
  --help           this text`,
  flags: {
    quick: { type: "boolean", default: false },
    long: { type: "boolean", default: false },
    project: { type: "string" },
  },
  positionals: true,
});

const started = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    for (const child of started) child.kill(signal);
  });
}

process.exitCode = (await runTests()) ? 0 : 1;

/** Whether everything that was asked for passed. */
async function runTests(): Promise<boolean> {
  if (flags.quick) {
    generate(); // tsc reads the generated modules
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const results = await Promise.all([
      run(tsc, ["--noEmit"]),
      // A worker imports every module once, so more workers than cores only cost time.
      run(vitest, ["run", "--project", "core", "--project", "app", "--maxWorkers", "2", ...files]),
    ]);
    return results.every(Boolean);
  }
  if (flags.project !== undefined) return run(vitest, ["run", "--project", flags.project, ...files]);
  if (flags.long) {
    process.env["VITEST_PART"] = "long";
    return run(vitest, ["run", "--project", "stand-ins", "--project", "flow", ...files]);
  }
  if (files.length === 0) process.env["VITEST_PART"] = "short";
  process.env["CAMPAIGN_SEEDS"] = SEEDS_OF_A_TEST_RUN;
  process.env["CAMPAIGN_LANES"] = LANES_OF_A_TEST_RUN;
  return run(vitest, ["run", ...files]);
}

function run(program: string, args: readonly string[]): Promise<boolean> {
  const child = spawn(process.execPath, [program, ...args], { cwd: root, stdio: "inherit" });
  started.add(child);
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("exit", (code) => {
      started.delete(child);
      done(code === 0);
    });
  });
}
