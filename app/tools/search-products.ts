// Finds products by words, in one statement. The statement names no tenant: the database shows this tenant's rows only.
import * as z from "zod";
import { storableText } from "#tollgate/text";
import { defineTool, isFailure } from "#tollgate/tool";

/** Enough text to choose a product. A page of fifty stays far below the limit of a result. */
const DESCRIPTION_CHARS = 500;

const Product = z.strictObject({
  id: z.string(),
  name: z.string(),
  description: z.string().describe(`The first ${DESCRIPTION_CHARS} characters`),
  category: z.string(),
  priceCents: z.int(),
  stock: z.int(),
  updatedAt: z.iso.datetime().nullable().describe("null for a time outside of the years 1 to 9999"),
});

/** The name and id of the last product of a page, as JSON. */
const Cursor = z.tuple([storableText(8_000), storableText(8_000)]);

export const searchProducts = defineTool({
  name: "search_products",
  title: "Search products",
  description:
    "Finds products whose name or description contains all of the given words, in any case and order, by name. " +
    "Each page costs one call. For totals over all products use `generate_report`.",
  units: 1,
  scopes: ["tools:read"],
  input: z.strictObject({
    query: storableText(200).describe("Words, or parts of words. An empty query finds every product"),
    category: storableText(200).min(1).optional().describe("The exact name of the only category to search"),
    maxPriceCents: z.int().min(0).max(2_147_483_647).optional().describe("Highest price, in cents"),
    limit: z.int().min(1).max(50).default(10).describe("Products in a page"),
    cursor: storableText(16_100)
      .min(1)
      .optional()
      .describe("`nextCursor` of the previous page, with all other inputs unchanged"),
  }),
  output: z.strictObject({
    products: z.array(Product),
    nextCursor: z.string().nullable().describe("Cursor of the next page; null on the last page"),
  }),
  annotations: { readOnly: true, idempotent: true, destructive: false },
  failed: isFailure,

  async run({ query, category, maxPriceCents, limit, cursor }, { db }) {
    const after = cursor === undefined ? [null, null] : parseCursor(cursor);
    if (after === undefined) {
      return { isError: true, text: "The cursor is not valid. Search again without it." };
    }
    const rows = await db.query<z.infer<typeof Product>>(
      `SELECT id, name, left(description, ${DESCRIPTION_CHARS}) AS description, category, price_cents AS "priceCents", stock,
              CASE WHEN updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00'
                   THEN to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') END AS "updatedAt"
       FROM (SELECT * FROM products
             WHERE ${searched} ILIKE ALL ($1::text[])
               AND ($2::text[] IS NULL OR category = ANY ($2::text[]))
               AND ($3::int IS NULL OR price_cents <= $3)
               AND ($4::text IS NULL OR (name, id) > ($4, $5::text))
             ORDER BY name, id
             LIMIT $6::int) AS page
       ORDER BY name, id`,
      // The inner query selects the page first, so that only its rows are formatted. It reads one more row, which shows
      // whether there is a next page.
      [
        patternsOf(query),
        category === undefined ? null : formsOf(category),
        maxPriceCents ?? null,
        ...after,
        limit + 1,
      ],
    );
    const products = rows.slice(0, limit);
    const last = rows.length > limit ? products.at(-1) : undefined;
    const nextCursor = last === undefined ? null : JSON.stringify([last.name, last.id]);
    const data = { products, nextCursor };
    if (products.length > 0 || cursor !== undefined) return { data };
    return { text: "No product matches. Try fewer words, or leave out category and price.", data };
  },
});

/**
 * The text of a row in the form of `patternsOf`. Characters that only look different are equal in it: composed and decomposed
 * ones, ligatures, full-width letters. Texts of ASCII have one form only, and PostgreSQL need not compute it.
 */
const plainName = `name || ' ' || description`;
const searched = `CASE WHEN octet_length(${plainName}) = char_length(${plainName}) THEN ${plainName} ELSE normalize(${plainName}, NFKC) END`;

/** One pattern for each word, with the special characters of ILIKE escaped. */
export function patternsOf(query: string): string[] {
  const words = query
    .normalize("NFKC")
    .split(/\s+/)
    .filter((word) => word !== "");
  return words.map((word) => `%${word.replace(/[\\%_]/g, String.raw`\$&`)}%`);
}

/**
 * A text in its composed and its decomposed form, which look alike. Keyboards and file names make either one, and rows keep
 * the one that they were written with. Most texts have one form only.
 */
function formsOf(words: string): string[] {
  return [...new Set([words.normalize("NFC"), words.normalize("NFD")])];
}

function parseCursor(cursor: string): [string, string] | undefined {
  try {
    return Cursor.safeParse(JSON.parse(cursor)).data;
  } catch {
    return undefined;
  }
}
