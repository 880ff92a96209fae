// `core`: the pure core, the MCP layer and the stand-ins. `attack`: hostile SQL against the walls between tenants, in real
// PostgreSQL. `flow`: promises of the product, kept by a whole system that
// is driven over HTTP; one system for all files, which therefore run one after the other. `crash`: `npm start` itself,
// killed.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "core",
          include: ["test/{core,dev,mcp,stripe}/**/*.test.ts"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 10_000 } },
        },
      },
      {
        test: {
          name: "attack",
          include: ["test/attack/**/*.test.ts"],
          globalSetup: ["test/attack/tally.ts"],
          maxWorkers: 2, // each waits for its own PostgreSQL most of the time
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "crash",
          include: ["test/crash/**/*.test.ts"],
          testTimeout: 180_000,
        },
      },
      {
        test: {
          name: "flow",
          include: ["test/flow/**/*.test.ts"],
          globalSetup: ["test/support/flow-setup.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
