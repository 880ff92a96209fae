// The fixture's expensive tool: two statements, with progress between them.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";

export const generateReport = defineTool({
  name: "generate_report",
  title: "Stock report",
  description: "Counts products by category, lists those with low stock and the calls of the last hour.",
  units: 20,
  scopes: ["tools:read"],
  input: z.strictObject({
    lowStockBelow: z.int().min(1).max(1_000_000).default(10).describe("Stock that counts as low is below this"),
  }),
  output: z.strictObject({
    categories: z.array(z.strictObject({ category: z.string(), products: z.int() })),
    lowStock: z.array(z.strictObject({ id: z.string(), stock: z.int() })),
    calls: z.array(z.strictObject({ tool: z.string(), calls: z.int(), units: z.int() })),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ lowStockBelow }, context) {
    await context.progress({ progress: 0, total: 2, message: "Counting products" });
    const categories = await context.db.query<{ category: string; products: number }>(
      `SELECT category, count(*)::int AS products FROM products GROUP BY category ORDER BY category LIMIT 100`,
    );
    context.signal.throwIfAborted();
    await context.progress({ progress: 1, total: 2, message: "Looking for low stock" });
    const lowStock = await context.db.query<{ id: string; stock: number }>(
      `SELECT id, stock FROM products WHERE stock < $1::int ORDER BY stock, id LIMIT 50`,
      [lowStockBelow],
    );
    await context.progress({ progress: 2, total: 2, message: "Done" });
    return {
      data: {
        categories,
        lowStock,
        calls: context.history().map(({ tool, calls, units }) => ({ tool, calls, units })),
      },
    };
  },
});
