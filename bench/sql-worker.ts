// The product's Worker with one additional tool, which runs statements in each way in which a tool can reach its rows.
import * as z from "zod";
import type { Row } from "../src/core/sql.ts";
import { catalogue } from "../src/tools/catalogue.ts";
import { type Tool, defineTool, isFailure } from "../src/tools/tool.ts";
import worker from "../src/worker.ts";

export * from "../src/worker.ts";
export default worker;

const benchSql = defineTool({
  name: "bench_sql",
  title: "Bench SQL",
  description: "Runs statements.",
  units: 1,
  scopes: ["tools:write"],
  input: z.strictObject({
    statements: z.array(z.string()).min(1).describe("SQL"),
    as: z.enum(["queries", "transaction", "conversation"]),
  }),
  output: z.strictObject({ results: z.array(z.array(z.record(z.string(), z.unknown()))) }),
  annotations: { readOnly: false, idempotent: false, destructive: true },
  failed: isFailure,

  async run({ statements, as }, { db }) {
    const oneByOne = async (query: (text: string) => Promise<Row[]>): Promise<Row[][]> => {
      const results: Row[][] = [];
      for (const text of statements) results.push(await query(text));
      return results;
    };
    if (as === "queries") return { data: { results: await oneByOne((text) => db.query(text)) } };
    if (as === "transaction") return { data: { results: await db.transaction(statements.map((text) => ({ text }))) } };
    return { data: { results: await db.transaction((transaction) => oneByOne((text) => transaction.query(text))) } };
  },
});
(catalogue as Map<string, Tool>).set(benchSql.name, benchSql);
