// Tools of the flow tests that not everyone has: one of two plans, one of a feature, one that is ending and one that has ended.
import * as z from "zod";
import { type Tool, defineTool, isFailure } from "../../src/tools/tool.ts";

const common = {
  title: "Offered",
  description: "Answers.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({}),
  output: z.strictObject({ ok: z.boolean() }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,
  run: async () => ({ data: { ok: true } }),
};

export const offeredTools: readonly Tool[] = [
  defineTool({ ...common, name: "of_two_plans", plans: ["pro", "enterprise"] }),
  defineTool({ ...common, name: "of_a_feature", features: ["audit_export"] }),
  defineTool({ ...common, name: "ending", deprecated: { since: "2026-01-01", until: "2999-12-31", use: "get_usage" } }),
  defineTool({ ...common, name: "ended", deprecated: { since: "2020-01-01", until: "2020-12-31", use: "get_usage" } }),
];
