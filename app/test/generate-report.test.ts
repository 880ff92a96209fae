// Tests the report tool on its own, with a fake context.
import { expect, test } from "vitest";
import { callTool, toolContext } from "#tollgate/testing";
import { generateReport } from "../tools/generate-report.ts";

test("generate_report adds up, tells its progress and the calls of the hour", async () => {
  const figures = { products: 2, stock: 5, stockValueCents: 700 };
  const calls = [{ tool: "search_products", calls: 3, units: 3 }];
  const { context, seen } = toolContext({
    rows: [
      [
        { category: "", isTotal: true, generatedAt: "2026-11-30T20:00:00.000Z", ...figures },
        { category: "c", isTotal: false, generatedAt: "2026-11-30T20:00:00.000Z", ...figures },
      ],
      [{ id: "1", name: "One", category: "c", stock: 4 }],
    ],
    history: calls,
  });
  const { data } = await callTool(generateReport, { lowStockBelow: 5 }, context);
  expect(data).toEqual({
    generatedAt: "2026-11-30T20:00:00.000Z",
    totals: figures,
    categories: [{ category: "c", ...figures }],
    lowStock: [{ id: "1", name: "One", category: "c", stock: 4 }],
    calls,
  });
  expect(seen.queries[1]?.params).toEqual([5]);
  expect(seen.progress.map(({ progress, total }) => `${progress}/${total}`)).toEqual(["0/3", "1/3", "2/3", "3/3"]);
});

test("generate_report stops between its steps when the client has gone", async () => {
  const total = {
    category: "",
    isTotal: true,
    generatedAt: "2026-11-30T20:00:00.000Z",
    products: 0,
    stock: 0,
    stockValueCents: 0,
  };
  const { context, seen } = toolContext({ rows: [[total]] });
  const signal = AbortSignal.abort();
  await expect(callTool(generateReport, {}, { ...context, signal })).rejects.toThrow();
  expect(seen.queries).toHaveLength(1);
});

test("generate_report refuses a part of a piece", () => {
  expect(generateReport.input.safeParse({ lowStockBelow: 1.5 }).success).toBe(false);
});
