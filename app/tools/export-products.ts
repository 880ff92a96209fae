// Exports products, a page at a time. The call costs what it returned: one unit a product.
import * as z from "zod";
import { storableText } from "#tollgate/text";
import { defineTool, isFailure } from "#tollgate/tool";

/** A page with the longest rows stays below the limit of a result. */
const MOST_PRODUCTS = 50;
const DESCRIPTION_CHARS = 2_000;

const Product = z.strictObject({
  id: z.string(),
  name: z.string(),
  description: z.string().describe(`The first ${DESCRIPTION_CHARS} characters`),
  category: z.string(),
  priceCents: z.int(),
  stock: z.int(),
});

export const exportProducts = defineTool({
  name: "export_products",
  title: "Export products",
  description:
    `Returns products in the order of their ids, up to ${MOST_PRODUCTS} a call, for a copy of the catalogue. ` +
    "Each product costs 1 unit; a page without products is free.",
  units: { max: MOST_PRODUCTS },
  scopes: ["tools:read"],
  input: z.strictObject({
    category: storableText(200).min(1).optional().describe("The exact name of the only category to export"),
    after: storableText(200).min(1).optional().describe("`next` of the previous page"),
    limit: z.int().min(1).max(MOST_PRODUCTS).default(MOST_PRODUCTS).describe("The most products to return and to pay"),
  }),
  output: z.strictObject({
    products: z.array(Product),
    next: z.string().nullable().describe("The id to continue after; null on the last page"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ category, after, limit }, context) {
    const rows = await context.db.query<z.infer<typeof Product>>(
      `SELECT id, name, left(description, ${DESCRIPTION_CHARS}) AS description, category, price_cents AS "priceCents", stock
       FROM products WHERE ($1::text IS NULL OR category = $1) AND ($2::text IS NULL OR id > $2)
       ORDER BY id LIMIT $3::int`,
      [category ?? null, after ?? null, limit + 1], // one more shows whether there is a next page
    );
    const products = rows.slice(0, limit);
    context.charge(products.length);
    return { data: { products, next: rows.length > limit ? (products.at(-1)?.id ?? null) : null } };
  },
});
