// Adds to a product's stock. It asks the person how many pieces, unless the call says so.
import * as z from "zod";
import { storableText } from "#tollgate/text";
import { defineTool, isFailure } from "#tollgate/tool";

const pieces = z.int().min(1).max(10_000);

export const restockProduct = defineTool({
  name: "restock_product",
  title: "Restock product",
  description:
    "Adds pieces to the stock of one product. Asks the person for the number of pieces, and adds nothing when they decline.",
  units: 5,
  scopes: ["tools:write"],
  input: z.strictObject({
    id: storableText(200).min(1).describe("The product's id, as `search_products` returns it"),
    pieces: pieces.optional().describe("How many, if the person has said so already"),
  }),
  output: z.strictObject({ id: z.string(), added: z.int(), stock: z.int() }),
  annotations: { readOnly: false, idempotent: false, destructive: false },
  failed: isFailure,

  async run({ id, pieces: given }, { db, ...context }) {
    const [product] = await db.query<{ name: string; stock: number }>(
      `SELECT left(name, 100) AS name, stock FROM products WHERE id = $1`,
      [id],
    );
    if (product === undefined) return { isError: true, text: `There is no product ${id}.` };
    let added = given;
    if (added === undefined) {
      if (!context.canAsk)
        return { isError: true, text: "Ask the person how many pieces, and call again with `pieces`." };
      // Before anything is written: with some clients the tool starts again with the answer.
      const answer = await context.ask({
        message: `How many pieces of ${product.name} do you want to add? There are ${product.stock}.`,
        schema: z.strictObject({ pieces: pieces.describe("Pieces to add") }),
      });
      if (answer.action !== "accept") return { isError: true, text: "The person did not confirm. Nothing was added." };
      added = answer.content.pieces;
    }
    const [stored] = await db.query<{ stock: number }>(
      `UPDATE products SET stock = stock + $2::int WHERE id = $1 AND stock <= 2147483647 - $2::int RETURNING stock`,
      [id, added],
    );
    if (stored === undefined) return { isError: true, text: "The stock would be too large. Nothing was added." };
    return { text: `Added ${added} pieces.`, data: { id, added, stock: stored.stock } };
  },
});
