// Test projects, by cost:
//   core        pure rules and the MCP layer; nothing is started. Seconds.
//   app         the operator's own tests of app/, also without starting anything.
//   stand-ins   the Stripe simulator, the token issuer, Neon's stand-ins and migrations; most files start a PostgreSQL.
//   attack      hostile SQL against each wall between tenants, in a real PostgreSQL.
//   flow        promises of the product, tested over HTTP against a whole system. Each vitest worker has its own system,
//               which starts when the worker's first file needs it.
//   second-app  the promise that app/ can be replaced: a whole system that sells test/second-app.
//   campaign    faults between a call and its money, also against whole systems. `npm run campaign` chooses the seeds.
//   crash       `npm start` itself, killed and started again.
import { matchesGlob, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { generate } from "./cli/generate.ts";
import { ignoreShell } from "./dev/child-environment.ts";

ignoreShell();
// Product tests sell the fixture app, and so do the programs that they start. Only the tests of app/ sell app/ itself.
const FIXTURE_APP = "test/support/fixture-app";
const secondApp = { alias: generate(resolve("test/second-app")) };
const fixture = { alias: generate(resolve(FIXTURE_APP)) };
generate(resolve("app"));
process.env["TOLLGATE_APP"] = FIXTURE_APP;

/**
 * Tests of large files, of many tenants, of removals, of replicas, and of each flag of each command. Together they take
 * minutes, and `npm run test:long` runs them and no other.
 */
const long = [
  ...["fleet", "tenant-history", "postgres-replica", "analytics-login"].map((name) => `test/dev/${name}.test.ts`),
  ...["dev/flags", "dev/neon-pooler", "dev/stripe-setup", "stripe/cli"].map((name) => `test/${name}.test.ts`),
  ...["backups", "import", "analytics", "removal", "fleet"].map((name) => `test/flow/${name}.test.ts`),
];
/** Which part dev/run-tests.ts runs: `short` is all but the long ones. Without it every file can be named. */
const part = process.env["VITEST_PART"];
const filesIn = (include: string[]): { include: string[]; exclude: string[] } => ({
  include: part === "long" ? long.filter((file) => include.some((each) => matchesGlob(file, each))) : include,
  exclude: part === "short" ? long : [],
});

/** Files that take minutes. They start first; otherwise the last of them runs alone, while one core is idle. */
const longest = ["test/dev/fleet.test.ts", "test/dev/postgres.test.ts", "test/dev/analytics-login.test.ts"];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLong = ({ moduleId }: TestSpecification): boolean => longest.some((name) => moduleId.endsWith(name));
    // oxlint-disable-next-line unicorn/no-array-sort -- the sequencer's own method
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    // Fixed for all machines: each worker may run a whole system of its own, and waits for it half of the time.
    maxWorkers: 4,
    // A test of refusals makes hundreds of log lines, which would hide a failure.
    silent: "passed-only",
    // Stopping four systems takes seconds each on a busy machine. Vitest leaves their processes behind when it does not wait.
    teardownTimeout: 60_000,
    projects: [
      {
        resolve: fixture,
        test: {
          name: "core",
          include: ["test/{core,mcp}/**/*.test.ts"],
          // Files share a worker and its modules, which saves more than half of the time. A test restores what it changes.
          isolate: false,
          setupFiles: ["test/support/late-work.ts"],
          // The OAuth library imports a module of the platform.
          execArgv: ["--import", pathToFileURL(resolve("test/support/cloudflare-module.ts")).href],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "app",
          include: ["app/**/*.test.ts"],
          isolate: false,
        },
      },
      {
        resolve: fixture,
        test: {
          name: "stand-ins",
          ...filesIn(["test/{dev,stripe}/**/*.test.ts"]),
          testTimeout: 120_000, // the longest take 15 s alone, and run beside whole systems on two cores
          hookTimeout: 60_000,
          expect: { poll: { timeout: 60_000 } }, // a busy machine takes ten times as long as an idle one
        },
      },
      {
        resolve: fixture,
        test: {
          name: "attack",
          include: ["test/attack/**/*.test.ts"],
          globalSetup: ["test/attack/tally.ts"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
      {
        resolve: fixture,
        test: {
          name: "flow",
          ...filesIn(["test/flow/**/*.test.ts"]),
          // Tests compare answers with the reference of the API, whose schemas stand beside code that uses the OAuth library.
          execArgv: ["--import", pathToFileURL(resolve("test/support/cloudflare-module.ts")).href],
          globalSetup: ["test/support/flow-setup.ts"],
          testTimeout: 120_000, // longer than the minute that a test waits for one condition
          hookTimeout: 120_000,
        },
      },
      {
        resolve: secondApp,
        test: {
          name: "second-app",
          include: ["test/second-app/**/*.test.ts"],
          globalSetup: ["test/second-app/setup.ts"],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        resolve: fixture,
        test: {
          name: "campaign",
          include: ["test/campaign/**/*.test.ts"],
          globalSetup: ["test/campaign/tally.ts"],
          // Beside the crash project, which leaves most of two cores idle.
          sequence: { groupOrder: 1 },
          testTimeout: 300_000, // a seed takes 10 s alone, and ten times as long on a busy machine
        },
      },
      {
        resolve: fixture,
        test: {
          name: "crash",
          include: ["test/crash/**/*.test.ts"],
          // After all other projects: it starts and kills whole systems, and its limits count the time of a start.
          sequence: { groupOrder: 1 },
          testTimeout: 300_000,
        },
      },
    ],
  },
});
