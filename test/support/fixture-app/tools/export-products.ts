// The fixture's tool that decides its price: one unit for each product that it returns.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";

export const exportProducts = defineTool({
  name: "export_products",
  title: "Export products",
  description: "Returns the ids of products. Each product costs 1 unit.",
  units: { max: 50 },
  scopes: ["tools:read"],
  input: z.strictObject({
    category: z.string().min(1).optional().describe("The only category to export"),
    limit: z.int().min(1).max(50).default(50).describe("The most products to return and to pay"),
  }),
  output: z.strictObject({ ids: z.array(z.string()) }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ category, limit }, context) {
    const rows = await context.db.query<{ id: string }>(
      `SELECT id FROM products WHERE $1::text IS NULL OR category = $1 ORDER BY id LIMIT $2::int`,
      [category ?? null, limit],
    );
    context.charge(rows.length);
    return { data: { ids: rows.map(({ id }) => id) } };
  },
});
