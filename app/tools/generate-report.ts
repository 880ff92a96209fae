// Reports on all of a tenant's products (stock by category, low stock) and on its calls of the last hour.
// The tool only reads. It runs two statements and sends progress between them.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";

/** Limits of the lists, so that the result stays small. The totals include the rest. */
const LARGEST_CATEGORIES = 100;
const LOWEST_STOCKS = 50;

/** Sums are not declared as integers: above 2^53 they lose their last digits, and the report must not fail then. */
const figures = {
  products: z.int(),
  stock: z.number().describe("Pieces in stock"),
  stockValueCents: z.number().describe("Price times stock"),
};
const Category = z.strictObject({ category: z.string(), ...figures });
const LowStock = z.strictObject({ id: z.string(), name: z.string(), category: z.string(), stock: z.int() });

export const generateReport = defineTool({
  name: "generate_report",
  title: "Stock and usage report",
  description:
    "Reports on all products (totals, stock value by category, low stock) and on your account's calls of the last hour " +
    "by tool. Call `get_usage` first if few units are left. To find single products use `search_products`.",
  units: 20,
  scopes: ["tools:read"],
  input: z.strictObject({
    lowStockBelow: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(10)
      .describe("Stock below this number of pieces counts as low"),
  }),
  output: z.strictObject({
    generatedAt: z.iso.datetime(),
    totals: z.strictObject(figures),
    categories: z.array(Category).describe(`By stock value, the first ${LARGEST_CATEGORIES}`),
    lowStock: z.array(LowStock).describe(`Products with low stock, the ${LOWEST_STOCKS} lowest`),
    calls: z.array(z.strictObject({ tool: z.string(), calls: z.int(), units: z.int() })),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ lowStockBelow }, context) {
    await context.progress({ progress: 0, total: 3, message: "Adding up products" });
    // The empty grouping set is the grand total. It returns one row even when there is no product.
    const groups = await context.db.query<z.infer<typeof Category> & { isTotal: boolean; generatedAt: string }>(
      `SELECT coalesce(category, '') AS category, grouping(category) = 1 AS "isTotal", count(*)::int AS products,
              coalesce(sum(stock), 0)::float8 AS stock,
              coalesce(sum(price_cents::bigint * stock), 0)::float8 AS "stockValueCents",
              to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS "generatedAt"
       FROM products
       GROUP BY GROUPING SETS ((category), ())
       ORDER BY "isTotal" DESC, "stockValueCents" DESC, category
       LIMIT ${LARGEST_CATEGORIES + 1}`,
    );
    const [total, ...rest] = groups;
    if (total === undefined) throw new Error("The query returned no row with the totals.");

    context.signal.throwIfAborted();
    await context.progress({ progress: 1, total: 3, message: "Looking for low stock" });
    const lowStock = await context.db.query<z.infer<typeof LowStock>>(
      `SELECT id, name, category, stock FROM products WHERE stock < $1::int ORDER BY stock, name, id LIMIT ${LOWEST_STOCKS}`,
      [lowStockBelow],
    );

    context.signal.throwIfAborted();
    await context.progress({ progress: 2, total: 3, message: "Counting calls" });
    const data = {
      generatedAt: total.generatedAt,
      totals: figuresOf(total),
      categories: rest.map((group) => ({ category: group.category, ...figuresOf(group) })),
      lowStock,
      calls: context.history().map(({ tool, calls, units }) => ({ tool, calls, units })),
    };
    await context.progress({ progress: 3, total: 3, message: "Done" });
    return { data };
  },
});

function figuresOf({ products, stock, stockValueCents }: z.infer<typeof Category>) {
  return { products, stock, stockValueCents };
}
