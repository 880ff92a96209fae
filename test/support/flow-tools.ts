// Tools that the Worker of the flow tests has besides the app's: two that change one row, of which one must never run twice, and one
// that runs any statements.
import * as z from "zod";
import type { Row } from "../../src/core/sql.ts";
import { type Tool, defineTool, isFailure } from "../../src/tools/tool.ts";
import { showStock } from "./content-tool.ts";
import { offeredTools } from "./offered-tools.ts";
import { askOutside, useSecrets } from "./outside-tools.ts";

const takeFromStock = defineTool({
  name: "take_from_stock",
  title: "Take from stock",
  description: "Takes one piece of a product out of stock.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({ id: z.string().describe("Of the product") }),
  output: z.strictObject({ stock: z.int() }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ id }, { db }) {
    const [row] = await db.query<{ stock: number }>(
      `UPDATE products SET stock = stock - 1 WHERE id = $1 RETURNING stock`,
      [id],
    );
    return row === undefined ? { isError: true, text: "There is no such product." } : { data: row };
  },
});
/** Sets a product's stock. Idempotent. Short timeout, so that a test need not wait long for a silent object. */
const setStock = defineTool({
  ...takeFromStock,
  name: "set_stock",
  title: "Set stock",
  description: "Sets how many pieces of a product there are.",
  input: z.strictObject({ id: z.string().describe("Of the product"), stock: z.int().describe("Pieces") }),
  output: z.strictObject({ stock: z.int() }),
  annotations: { readOnly: false, idempotent: true, destructive: true },
  timeoutMs: 500,
  failed: isFailure,

  async run({ id, stock }, { db }) {
    const [row] = await db.query<{ stock: number }>(`UPDATE products SET stock = $2 WHERE id = $1 RETURNING stock`, [
      id,
      stock,
    ]);
    return row === undefined ? { isError: true, text: "There is no such product." } : { data: row };
  },
});
/** Runs any statements, in each way in which a tool can reach its rows. */
const runSql = defineTool({
  name: "run_sql",
  title: "Run SQL",
  description: "Runs statements.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    statements: z.array(z.string()).min(1).describe("SQL"),
    as: z.enum(["queries", "transaction", "conversation", "analytics"]).default("queries"),
    pauseMs: z.int().default(0).describe("Between the statements of a conversation"),
    fail: z.boolean().default(false).describe("Throws after the last statement"),
  }),
  output: z.strictObject({ results: z.array(z.array(z.record(z.string(), z.unknown()))) }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ statements, as, pauseMs, fail }, { db }) {
    const oneByOne = async (query: (text: string) => Promise<Row[]>): Promise<Row[][]> => {
      const results: Row[][] = [];
      for (const text of statements) {
        results.push(await query(text));
        if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
      if (fail) throw new Error("after the last statement");
      return results;
    };
    switch (as) {
      case "queries":
        return { data: { results: await oneByOne((text) => db.query(text)) } };
      case "analytics":
        return { data: { results: await oneByOne((text) => db.analytics(text)) } };
      case "transaction":
        return { data: { results: await db.transaction(statements.map((text) => ({ text }))) } };
      case "conversation":
        return {
          data: { results: await db.transaction((transaction) => oneByOne((text) => transaction.query(text))) },
        };
      default:
        return as satisfies never;
    }
  },
});

export const flowTools: readonly Tool[] = [
  takeFromStock,
  setStock,
  runSql,
  showStock,
  useSecrets,
  askOutside,
  ...offeredTools,
];
