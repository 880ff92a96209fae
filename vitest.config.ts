// `core`: the pure core, the MCP layer and the stand-ins. `attack`: hostile SQL against the walls between tenants, in real
// PostgreSQL. `flow`: promises of the product, kept by a whole system that
// is driven over HTTP; one system for each worker. `crash`: `npm start` itself, killed.
import { resolve } from "node:path";
import { defineConfig } from "vitest/config";
import { generate } from "./cli/generate.ts";

// The tests of the product sell an app of their own, and the programs that they start sell it, too. The tests of app/ sell
// app/ itself.
const FIXTURE_APP = "test/support/fixture-app";
const fixture = { alias: generate(resolve(FIXTURE_APP)) };
generate(resolve("app"));
process.env["TOLLGATE_APP"] = FIXTURE_APP;

export default defineConfig({
  test: {
    maxWorkers: 4, // whatever the machine: each has a whole system of its own, and waits for it half of the time
    projects: [
      {
        test: {
          name: "app",
          include: ["app/**/*.test.ts"],
        },
      },
      {
        resolve: fixture,
        test: {
          name: "core",
          include: ["test/{core,dev,mcp,stripe}/**/*.test.ts"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 10_000 } },
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
          name: "crash",
          include: ["test/crash/**/*.test.ts"],
          testTimeout: 180_000,
        },
      },
      {
        resolve: fixture,
        test: {
          name: "campaign",
          include: ["test/campaign/**/*.test.ts"],
          globalSetup: ["test/campaign/tally.ts"],
          testTimeout: 120_000,
        },
      },
      {
        resolve: fixture,
        test: {
          name: "flow",
          include: ["test/flow/**/*.test.ts"],
          globalSetup: ["test/support/flow-setup.ts"],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
