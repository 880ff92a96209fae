import { defineConfig } from "vitest/config";
import { cloudflareTest } from "@cloudflare/vitest-plugin";

// `node`: the pure core, the stand-ins, and the flows, which drive a whole system over HTTP. `workerd`: one binding at a
// time inside the runtime.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "node",
          include: ["test/core/**/*.test.ts", "test/dev/**/*.test.ts", "test/stripe/**/*.test.ts", "test/mcp/**/*.test.ts"],
          testTimeout: 30_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
