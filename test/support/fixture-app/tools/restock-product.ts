// The fixture's tool that asks a person, before it writes.
import * as z from "zod";
import { defineTool, isFailure } from "#tollgate/tool";

export const restockProduct = defineTool({
  name: "restock_product",
  title: "Restock product",
  description: "Adds pieces to the stock of one product, after it has asked the person.",
  units: 3,
  scopes: ["tools:write"],
  input: z.strictObject({
    id: z.string().min(1).describe("The product's id"),
    questions: z.int().min(1).max(3).default(1).describe("How often it asks; the pieces are added up"),
  }),
  output: z.strictObject({ stock: z.int() }),
  annotations: { readOnly: false, idempotent: false, destructive: false },
  failed: isFailure,

  async run({ id, questions }, context) {
    let added = 0;
    for (let round = 1; round <= questions; round += 1) {
      const answer = await context.ask({
        name: `pieces_${round}`,
        message: `How many pieces of ${id}?`,
        schema: z.strictObject({ pieces: z.int().min(1).max(100).describe("Pieces to add") }),
      });
      if (answer.action !== "accept") return { isError: true, text: "Nothing was added." };
      added += answer.content.pieces;
    }
    const [row] = await context.db.query<{ stock: number }>(
      `UPDATE products SET stock = stock + $2::int WHERE id = $1 RETURNING stock`,
      [id, added],
    );
    return row === undefined ? { isError: true, text: `There is no product ${id}.` } : { data: { stock: row.stock } };
  },
});
