// A whole system that sells this folder instead of app/.
import { resolve } from "node:path";
import type { TestProject } from "vitest/node";
import { offerSystems } from "../support/flow-setup.ts";

export default function setup(project: TestProject): Promise<() => Promise<void>> {
  return offerSystems(project, { entry: resolve("src/worker.ts"), app: import.meta.dirname });
}
